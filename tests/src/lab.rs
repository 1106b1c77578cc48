//! Networks to test in: a server and nodes, on one segment or behind NATs.

use std::net::IpAddr;
use std::time::Duration;

use crate::ejabberd::{Ejabberd, Options};
use crate::netns::Netns;
use crate::node::Node;
use crate::wait_until;

/// How long linking may take on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// First password of the accounts that enrol.
pub const TOKEN: &str = "5ca1ab1e0ddba11c0ffee0000deadbeef";
/// Every account's password.
const PASSWORD: &str = "correct horse battery staple";

/// What the underlay speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 and IPv6.
    Both,
    /// IPv6 only.
    V6,
}

/// How a NAT maps (RFC 4787 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// One external port for one internal port, whatever the destination.
    EndpointIndependent,
    /// Another random external port for every destination.
    AddressAndPortDependent,
}

/// A server and nodes. Nodes come first: they go before their server and their network.
#[derive(Debug)]
pub struct Lab {
    /// The nodes, none started.
    pub nodes: Vec<Node>,
    /// The XMPP server, running, with STUN and TURN.
    pub server: Ejabberd,
    _networks: Vec<Netns>,
}

impl Lab {
    /// `count` nodes and a server on one segment.
    pub fn lan(count: u8, families: Families) -> Self {
        Self::segment(count, families, member)
    }

    /// `count` nodes and a server on one segment. Every node but the first has no password but
    /// the token [`TOKEN`], to be exchanged.
    pub fn enrolling(count: u8) -> Self {
        Self::segment(count, Families::Both, |netns, number, server| {
            if number == 0 {
                return member(netns, number, server);
            }
            let user = format!("node-{number}");
            server.register(&user, TOKEN);
            server.join(&user);
            Node::enrolling(netns, number, server, TOKEN)
        })
    }

    fn segment(
        count: u8,
        families: Families,
        member: impl Fn(Netns, u8, &Ejabberd) -> Node,
    ) -> Self {
        let switch = switch();
        let server = Netns::new("server");
        attach(&switch, &server, "server");
        let mut listen = address_lan(&server, 1, families);
        // Nodes try addresses in order: half of the tests would otherwise never use IPv6.
        listen.reverse();
        let ejabberd = start_server(&server, listen);
        let nodes = (0..count)
            .map(|number| {
                let netns = Netns::new(&format!("node{number}"));
                attach(&switch, &netns, &format!("node{number}"));
                address_lan(&netns, 10 + number, families);
                member(netns, number, &ejabberd)
            })
            .collect();
        Self {
            nodes,
            server: ejabberd,
            _networks: vec![switch, server],
        }
    }

    /// Two nodes, each behind a NAT of its own, and a server on the outside. IPv4 only.
    pub fn behind_nats(mapping: Mapping) -> Self {
        let switch = switch();
        let server = Netns::new("server");
        attach(&switch, &server, "server");
        server.address("eth0", "198.51.100.1/24");
        let ejabberd = start_server(&server, vec![[198, 51, 100, 1].into()]);
        let mut networks = vec![switch, server];
        let mut nodes = Vec::new();
        for number in 0..2u8 {
            let router = Netns::new(&format!("nat{number}"));
            attach(&networks[0], &router, &format!("nat{number}"));
            router.address("eth0", &format!("198.51.100.{}/24", 11 + number));
            let netns = Netns::new(&format!("node{number}"));
            netns.cable("eth0", &router, "inside");
            router.address("inside", &format!("192.168.{number}.1/24"));
            netns.address("eth0", &format!("192.168.{number}.2/24"));
            netns.run(&[
                "ip",
                "route",
                "add",
                "default",
                "via",
                &format!("192.168.{number}.1"),
            ]);
            router.run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
            router.nft(&nat_rules(mapping));
            nodes.push(member(netns, number, &ejabberd));
            networks.push(router);
        }
        Self {
            nodes,
            server: ejabberd,
            _networks: networks,
        }
    }

    /// Starts every node and waits until each has a link to each other.
    pub fn join_all(&mut self) {
        for node in &mut self.nodes {
            node.start();
        }
        self.wait_linked();
    }

    /// Waits until each node has a link to each other.
    pub fn wait_linked(&self) {
        for (a, b) in self.ordered_pairs() {
            let what = format!("link from {} to {}", a.name(), b.name());
            wait_until(&what, PATIENCE, || a.link(b));
        }
    }

    /// Pings both addresses of every node from every other.
    pub fn ping_all(&self) {
        for (a, b) in self.ordered_pairs() {
            a.ping(b, PATIENCE);
        }
    }

    fn ordered_pairs(&self) -> impl Iterator<Item = (&Node, &Node)> {
        self.nodes.iter().flat_map(|a| {
            self.nodes
                .iter()
                .filter(move |b| b.number != a.number)
                .map(move |b| (a, b))
        })
    }
}

/// A node in `netns` with an account of its own in the group.
fn member(netns: Netns, number: u8, server: &Ejabberd) -> Node {
    let user = format!("node-{number}");
    server.register(&user, PASSWORD);
    server.join(&user);
    Node::new(netns, number, server, PASSWORD)
}

fn start_server(netns: &Netns, listen: Vec<IpAddr>) -> Ejabberd {
    let prefix = ["ip", "netns", "exec", netns.name()]
        .map(str::to_owned)
        .to_vec();
    Ejabberd::start_with(Options {
        listen,
        prefix,
        tls13: true,
    })
}

/// A namespace with nothing but a bridge.
fn switch() -> Netns {
    let netns = Netns::new("switch");
    netns.run(&["ip", "link", "add", "br0", "type", "bridge"]);
    netns.run(&["ip", "link", "set", "br0", "up"]);
    netns
}

/// Plugs `eth0` of a namespace into the switch's port `port`.
fn attach(switch: &Netns, netns: &Netns, port: &str) {
    netns.cable("eth0", switch, port);
    switch.run(&["ip", "link", "set", port, "master", "br0"]);
}

fn address_lan(netns: &Netns, host: u8, families: Families) -> Vec<IpAddr> {
    let mut addresses = vec![format!("fd99::{host}")];
    if families == Families::Both {
        addresses.push(format!("192.0.2.{host}"));
    }
    for address in &addresses {
        let prefix = if address.contains(':') { 64 } else { 24 };
        netns.address("eth0", &format!("{address}/{prefix}"));
    }
    addresses
        .iter()
        .map(|address| address.parse().expect("an address"))
        .collect()
}

/// What comes unasked is dropped before it is tracked: as a tracked flow it would take the port
/// that the node's own packets are about to be mapped to.
fn nat_rules(mapping: Mapping) -> String {
    let how = match mapping {
        Mapping::EndpointIndependent => "masquerade",
        Mapping::AddressAndPortDependent => "masquerade fully-random",
    };
    format!(
        "table ip nat {{
           chain out {{ type nat hook postrouting priority 100;
             oifname eth0 {how}; }}
         }}
         table ip filter {{
           chain in {{ type filter hook input priority 0; policy accept;
             iifname eth0 ct state new drop; }}
           chain through {{ type filter hook forward priority 0; policy accept;
             iifname eth0 ct state new drop; }}
         }}"
    )
}
