//! The double of CloudLab's portal as a process of its own, for tests that kill their client.
//!
//! `portal-double OPTIONS` reads its options as JSON from its argument, prints one line of JSON
//! with `url`, `ca_file` and `token_file`, and ends with its standard input.

use std::io::Read as _;

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
    let mut rest = Vec::new();
    // However it ends, it ends.
    let _ = std::io::stdin().read_to_end(&mut rest);
}
