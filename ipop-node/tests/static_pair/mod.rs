//! Two running nodes that know each other by configuration, in namespaces joined by a cable.

#[path = "../running/mod.rs"]
#[expect(dead_code, reason = "shared with other tests")]
pub mod running;

use ipop_testbed::netns::Netns;
pub use running::{Node, PATIENCE};

/// The underlay port of both.
pub const PORT: u16 = 4915;

/// Both, linked. `extra` is what each has in its configuration besides.
pub fn linked(extra: [&str; 2]) -> [Node; 2] {
    let netns = [0, 1].map(|number| Netns::new(&format!("static{number}")));
    netns[0].cable("eth0", &netns[1], "eth0");
    let mut number = 0;
    let mut nodes = netns.map(|netns| {
        number += 1;
        netns.address("eth0", &format!("192.0.2.{number}/24"));
        Node::new(netns, number - 1)
    });
    for own in 0..2 {
        let config = config(own as u8, nodes[1 - own].fingerprint());
        nodes[own].start(&(config + extra[own]));
    }
    for (node, other) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
        node.reach(other);
    }
    nodes
}

/// What a node has in its configuration, without its `extra`.
pub fn config(own: u8, fingerprint: &str) -> String {
    let [a, b] = [own + 1, 2 - own];
    format!(
        r#"
[node]
name = "node-{own}"
control = "control.sock"
identity = "identity.pem"
[ice]
port = {PORT}
[[peer]]
name = "node-{other}"
ipv4 = "10.73.0.{b}"
ipv6 = "fd73:5a::{b}"
fingerprint = "{fingerprint}"
endpoints = ["192.0.2.{b}:{PORT}"]
[overlay]
name = "test"
ipv4 = "10.73.0.{a}/24"
ipv6 = "fd73:5a::{a}/64"
"#,
        other = 1 - own
    )
}
