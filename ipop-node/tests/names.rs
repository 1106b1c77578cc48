//! Members by name, as the C library's resolver finds them. Needs root.

mod static_pair;

use std::fs;

use ipop_testbed::dnsmasq::Dnsmasq;
use ipop_testbed::netns::Netns;
use ipop_testbed::wait_until;
use static_pair::{PATIENCE, linked};

/// What was in the file before; nothing of it is to change.
const RESOLV_CONF: &str =
    "# by hand\nsearch example.org\nnameserver 127.0.0.1\noptions attempts:1\n";
const NAMES: &str = "[names]\nresolver = \"resolv-conf\"\n";

/// What `getent` finds, in words.
fn find(netns: &Netns, database: &str, key: &str) -> Option<Vec<String>> {
    let output = netns.output(&["getent", database, key]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let words = text.split_whitespace().map(str::to_owned).collect();
    output.status.success().then_some(words)
}

#[test]
fn members_have_names_and_everybody_else_keeps_theirs() {
    let mut nodes = linked(["", ""]);
    nodes[0].kill();
    let file = nodes[0].netns.etc("resolv.conf", RESOLV_CONF);
    let elsewhere = Dnsmasq::start_dns(
        &nodes[0].netns,
        "no-resolv\nno-hosts\nlisten-address=127.0.0.1\nbind-interfaces\n\
         address=/elsewhere.example/192.0.2.99\nlocal=/ipop/\nlog-queries\n",
    );
    let config = static_pair::config(0, nodes[1].fingerprint()) + NAMES;
    nodes[0].start(&config);
    nodes[0].reach(&nodes[1]);
    let names = wait_until("a resolver that asks", PATIENCE, || {
        let names = nodes[0].status().names.expect("configured");
        (names.resolver.is_some() && names.members == 2).then_some(names)
    });
    assert_eq!(names.resolver.as_deref(), Some("/etc/resolv.conf"));
    assert_eq!((names.domain.as_str(), names.error), ("test.ipop", None));
    let netns = &nodes[0].netns;
    let [ipv4, ipv6] = nodes[1].addrs();
    for (database, address) in [("ahostsv4", &ipv4), ("ahostsv6", &ipv6)] {
        let found = find(netns, database, "node-1.test.ipop").expect("it has a name");
        assert_eq!(&found[0], address, "{found:?}");
        let found = find(netns, "hosts", address).expect("it has an address");
        assert_eq!(found[1], "node-1.test.ipop");
    }
    assert!(
        nodes[0]
            .ping(&["-c", "1", "-W", "5", "node-1.test.ipop"])
            .status
            .success()
    );
    assert_eq!(find(netns, "ahostsv4", "nobody.test.ipop"), None);
    let found = find(netns, "ahostsv4", "elsewhere.example").expect("as before");
    assert_eq!(found[0], "192.0.2.99");
    let asked = elsewhere.log();
    assert!(asked.contains("elsewhere.example"), "{asked}");
    assert!(
        !asked.contains("test.ipop from"),
        "told others whom we look for: {asked}"
    );

    // Who takes the line away has it back, and who kills the node is no worse off.
    fs::write(&file, RESOLV_CONF).expect("written");
    wait_until("the line", PATIENCE, || {
        find(&nodes[0].netns, "ahostsv4", "node-1.test.ipop")
    });
    nodes[0].kill();
    let text = fs::read_to_string(&file).expect("there");
    assert!(text.ends_with(RESOLV_CONF) && text != RESOLV_CONF, "{text}");
    let found = find(&nodes[0].netns, "ahostsv4", "elsewhere.example").expect("as before");
    assert_eq!(found[0], "192.0.2.99");

    // Who ends it has the file as it was.
    nodes[0].start(&config);
    nodes[0].reach(&nodes[1]);
    wait_until("a resolver that asks", PATIENCE, || {
        nodes[0].status().names.expect("configured").resolver
    });
    assert_eq!(fs::read_to_string(&file).expect("there"), text);
    nodes[0].end();
    assert_eq!(fs::read_to_string(&file).expect("there"), RESOLV_CONF);
}
