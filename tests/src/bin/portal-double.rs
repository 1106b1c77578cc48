//! The double of CloudLab's portal as a process of its own, for tests that kill their client.
//!
//! `portal-double OPTIONS` reads its options as JSON from its argument and prints one line of JSON
//! with `url`, `ca_file` and `token_file`. Each line of its standard input is answered by one of
//! JSON, the experiments that exist; it ends with its input.

use std::io::BufRead as _;

use ipop_tests::portal::Portal;

fn main() {
    let options = std::env::args()
        .nth(1)
        .expect("one argument: options as JSON");
    let options = serde_json::from_str(&options).expect("options as JSON");
    let portal = Portal::start(options);
    let line = serde_json::json!({
        "url": portal.url, "ca_file": portal.ca_file(), "token_file": portal.token_file(),
    });
    println!("{line}");
    // However its input ends, it ends.
    for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
        let holdings = serde_json::to_string(&portal.holdings()).expect("JSON");
        println!("{holdings}");
    }
}
