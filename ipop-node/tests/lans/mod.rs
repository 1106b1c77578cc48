//! LANs that are joined by nodes in mode `switch`: on each a bridge, with a node's TAP device as a
//! port of it, and hosts. Every node knows every other by configuration.

#[path = "../running/mod.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod running;
mod wire;

use ipop_proto::status::{AlarmStatus, DropReason, LinkState, SwitchStatus};
use ipop_testbed::netns::Netns;
use ipop_testbed::wait_until;
pub use running::{DEVICE, Node, PATIENCE};
pub use wire::Wire;

/// The underlay port of every node.
const PORT: u16 = 4915;
/// Every station.
pub const BROADCAST: [u8; 6] = [0xff; 6];
/// The bridge beside each node.
pub const BRIDGE: &str = "br0";

/// A machine behind a node, on the LAN that its node is bridged to. Its interface is `eth0`.
pub struct Host {
    /// Where it lives.
    pub netns: Netns,
    number: u8,
}

/// The nodes, each with a LAN, and a host on each LAN. Hosts come first: they go before the LANs.
pub struct Lans {
    /// One behind each node, in the same order.
    pub hosts: Vec<Host>,
    /// The nodes. Each LAN is in its node's namespace.
    pub nodes: Vec<Node>,
    extra: Vec<String>,
    _underlay: Netns,
}

impl Host {
    /// One on the LAN of `node`. Its number tells its addresses.
    pub fn new(node: &Node, number: u8) -> Self {
        let netns = Netns::new(&format!("host{number}"));
        let port = format!("host{number}");
        netns.run(&["ip", "link", "set", "lo", "up"]);
        netns.cable("eth0", &node.netns, &port);
        let mac = text(mac(number));
        netns.run(&["ip", "link", "set", "eth0", "address", &mac]);
        node.netns
            .run(&["ip", "link", "set", &port, "master", BRIDGE]);
        let host = Self { netns, number };
        for (address, prefix) in host.addrs().iter().zip([24, 64]) {
            host.netns.address("eth0", &format!("{address}/{prefix}"));
        }
        host
    }

    /// Its IP addresses.
    pub fn addrs(&self) -> [String; 2] {
        let end = self.number;
        [format!("10.1.0.{end}"), format!("fd00:1::{end}")]
    }

    /// Its Ethernet address.
    pub fn mac(&self) -> [u8; 6] {
        mac(self.number)
    }

    /// Its interface.
    pub fn wire(&self) -> Wire {
        Wire::open(&self.netns, "eth0")
    }

    /// Pings both addresses of `other` with more words, until each has answered.
    pub fn pings(&self, other: &Self, words: &[&str]) {
        for addr in other.addrs() {
            let ping = ["ping", "-n", "-c", "1", "-W", "1"];
            let command = [&ping, words, &[&addr]].concat();
            wait_until(&format!("{command:?}"), PATIENCE, || {
                let output = self.netns.output(&command);
                output.status.success().then_some(())
            });
        }
    }
}

impl Lans {
    /// As many LANs as there is extra configuration, all linked and forwarding, no frame sent yet.
    pub fn linked(extra: &[&str]) -> Self {
        let mut lans = Self::prepared(extra);
        for at in 0..lans.nodes.len() {
            lans.start(at);
        }
        for at in 0..lans.nodes.len() {
            lans.wait_linked(at);
        }
        lans
    }

    /// The same, with no node started yet.
    pub fn prepared(extra: &[&str]) -> Self {
        let underlay = Netns::new("underlay");
        add_bridge(&underlay, 0xff);
        let mut nodes = Vec::new();
        for number in 0..extra.len() as u8 {
            let netns = Netns::new(&format!("node{number}"));
            let port = format!("node{number}");
            netns.cable("eth0", &underlay, &port);
            underlay.run(&["ip", "link", "set", &port, "master", BRIDGE]);
            netns.address("eth0", &format!("192.0.2.{}/24", number + 1));
            add_bridge(&netns, number);
            nodes.push(Node::new(netns, number));
        }
        let hosts = nodes.iter().zip(1..);
        let hosts = hosts.map(|(node, number)| Host::new(node, number));
        Self {
            hosts: hosts.collect(),
            nodes,
            extra: extra.iter().map(|extra| (*extra).to_owned()).collect(),
            _underlay: underlay,
        }
    }

    /// Makes two LANs one, by a cable between their bridges.
    pub fn join(&self, one: usize, other: usize) {
        let [here, there] = [other, one].map(|at| format!("lan{at}"));
        let [one, other] = [one, other].map(|at| &self.nodes[at].netns);
        one.cable(&here, other, &there);
        one.run(&["ip", "link", "set", &here, "master", BRIDGE]);
        other.run(&["ip", "link", "set", &there, "master", BRIDGE]);
    }

    /// Starts a node.
    pub fn start(&mut self, at: usize) {
        let config = self.config(at);
        self.nodes[at].start(&config);
    }

    /// The device of a node: hears what the overlay brings to its LAN.
    pub fn wire(&self, at: usize) -> Wire {
        Wire::open(&self.nodes[at].netns, DEVICE)
    }

    /// Waits until a node has a link to each other, and forwards for its LAN.
    pub fn wait_linked(&self, at: usize) {
        wait_until("links that are up, and a switch", PATIENCE, || {
            let status = self.nodes[at].status();
            let is_up = status.peers.iter().all(|peer| peer.link == LinkState::Up);
            (is_up && self.forwards(at)).then_some(())
        });
    }

    /// Whether a node is bridged to its LAN and forwards for it.
    pub fn forwards(&self, at: usize) -> bool {
        let switch = self.switch(at);
        switch.is_forwarding && switch.bridge.as_deref() == Some(BRIDGE)
    }

    /// How the switch of a node is.
    pub fn switch(&self, at: usize) -> SwitchStatus {
        self.nodes[at].status().switch.expect("in mode switch")
    }

    /// Waits until a node says something of this origin with this text in it.
    pub fn wait_alarm(&self, at: usize, origin: &str, text: &str) -> AlarmStatus {
        wait_until(&format!("alarm: {origin}: {text}"), PATIENCE, || {
            let mut alarms = self.switch(at).alarms.into_iter();
            alarms.find(|alarm| alarm.origin == origin && alarm.trouble.contains(text))
        })
    }

    /// What a node dropped for one reason of what came from another node, or else from its own side.
    pub fn dropped(&self, at: usize, from: Option<usize>, reason: DropReason) -> u64 {
        let status = self.nodes[at].status();
        let drops = match from {
            None => &status.drops,
            Some(from) => {
                let name = name(from);
                let mut peers = status.peers.iter();
                &peers.find(|peer| peer.name == name).expect("a peer").drops
            }
        };
        drops.get(&reason).copied().unwrap_or_default()
    }

    fn config(&self, own: usize) -> String {
        let mut config = format!(
            r#"
[node]
name = "{name}"
control = "control.sock"
identity = "identity.pem"
[ice]
port = {PORT}
"#,
            name = name(own)
        );
        let others = self.nodes.iter().enumerate().filter(|(at, _)| *at != own);
        for (at, node) in others {
            let end = at + 1;
            config += &format!(
                r#"
[[peer]]
name = "{name}"
ipv4 = "10.73.0.{end}"
ipv6 = "fd73:5a::{end}"
fingerprint = "{fingerprint}"
endpoints = ["192.0.2.{end}:{PORT}"]
"#,
                name = name(at),
                fingerprint = node.fingerprint()
            );
        }
        config
            + &format!(
                r#"
[overlay]
name = "test"
ipv4 = "10.73.0.{end}/24"
ipv6 = "fd73:5a::{end}/64"
mode = "switch"
mtu = 1500
[switch]
bridge = "{BRIDGE}"
{extra}
"#,
                end = own + 1,
                extra = self.extra[own]
            )
    }
}

/// What a wire hears until it has heard all of `last`, these included.
pub fn heard(wire: &Wire, last: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut heard = Vec::new();
    wait_until("the last frame", PATIENCE, || {
        heard.extend(std::iter::from_fn(|| wire.heard()));
        let has = |frame: &&[u8]| heard.iter().any(|heard| heard == frame);
        last.iter().all(has).then_some(())
    });
    heard
}

/// How often a frame is among others.
pub fn count(heard: &[Vec<u8>], frame: &[u8]) -> usize {
    heard.iter().filter(|heard| *heard == frame).count()
}

/// A node's name.
pub fn name(at: usize) -> String {
    format!("node-{at}")
}

/// A frame with something inside that no switch knows.
pub fn frame(to: [u8; 6], from: [u8; 6], text: &str) -> Vec<u8> {
    let mut frame = [to, from].concat();
    // Local Experimental EtherType 2.
    frame.extend([0x88, 0xb6]);
    frame.extend(text.as_bytes());
    frame.resize(frame.len().max(60), 0);
    frame
}

fn mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, number]
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Its MAC address does not change with its ports, so that it can have IP addresses.
fn add_bridge(netns: &Netns, number: u8) {
    let mac = text([2, 0, 0, 0, 2, number]);
    netns.run(&[
        "ip", "link", "add", BRIDGE, "address", &mac, "type", "bridge",
    ]);
    netns.run(&["ip", "link", "set", BRIDGE, "up"]);
}
