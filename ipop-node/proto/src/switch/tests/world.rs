//! LANs that are joined by switches. A LAN is a hub: what one of its ports sends, all others get.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipop_datapath::checksum::sum;
use ipop_datapath::ethernet::{BROADCAST, Class, ETHERTYPE_ARP, Header, classify};
use ipop_datapath::stations::Mac;

use super::super::arp::{Arp, Operation};
use super::super::loops::{LoopGuard, Timing};
use super::super::probe::{NodeId, ProbeKey};
use super::super::*;

/// Of a frame on a LAN or a link.
const DELAY: Duration = Duration::from_millis(1);
/// More frames than any test sends: there is a loop.
const LOOP: usize = 200_000;

pub const UDP: u8 = 17;

pub fn mac(n: u8) -> Mac {
    [2, 0, 0, 0, 1, n]
}

pub fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

/// A machine that answers ARP for its address.
pub struct Host {
    pub mac: Mac,
    pub ip: Ipv4Addr,
    pub lan: usize,
    /// Whether it answers DHCP.
    pub serves_dhcp: bool,
    /// Every frame that it got, of those for it or for more than one.
    pub got: Vec<Bytes>,
}

enum Place {
    /// To every port of a LAN but this one.
    Lan(usize, Port),
    /// To a node, from another one.
    Node { to: usize, from: usize, what: Sent },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Host(usize),
    Node(usize),
}

enum Sent {
    Frame,
    Message(Message),
}

pub struct Node {
    pub switch: Option<Switch>,
    pub lan: usize,
    pub drops: BTreeMap<DropReason, usize>,
    pub alarms: Vec<String>,
    /// What its probes are authenticated by.
    pub key: &'static [u8],
    settings: Settings,
    is_bridged: bool,
}

impl Node {
    fn guard(&self, at: usize, run: u64) -> LoopGuard {
        let id = NodeId([at as u8 + 1; 16]);
        let key = ProbeKey::new(self.key);
        let mac = [2, 0xff, 0, 0, 0, at as u8];
        LoopGuard::new(id, run, mac, key, Timing::default())
    }
}

pub struct World {
    pub now: Instant,
    pub hosts: Vec<Host>,
    pub nodes: Vec<Node>,
    on_the_way: BTreeMap<(Instant, u64), (Place, Bytes)>,
    sent: u64,
    runs: u64,
    /// Frames that crossed from one node to another.
    pub crossed: Vec<(usize, usize, Bytes)>,
}

impl World {
    /// Nodes by the LAN that each is on. Those of one LAN are bridged to it; one that is alone may be.
    pub fn new(lans: &[usize], settings: impl Fn(usize) -> Settings) -> Self {
        let mut world = Self {
            now: Instant::now(),
            hosts: Vec::new(),
            nodes: Vec::new(),
            on_the_way: BTreeMap::new(),
            sent: 0,
            runs: 0,
            crossed: Vec::new(),
        };
        for (at, lan) in lans.iter().enumerate() {
            world.nodes.push(Node {
                switch: None,
                lan: *lan,
                drops: BTreeMap::new(),
                alarms: Vec::new(),
                key: b"overlay",
                settings: settings(at),
                is_bridged: lans.iter().filter(|other| *other == lan).count() > 1,
            });
        }
        for at in 0..lans.len() {
            world.start(at);
        }
        world
    }

    /// Starts a node and links it to all others; one that runs restarts.
    pub fn start(&mut self, at: usize) {
        self.stop(at);
        self.runs += 1;
        let node = &mut self.nodes[at];
        let loops = node.is_bridged.then(|| node.guard(at, self.runs));
        let settings = node.settings.clone();
        let switch = Switch::new(settings, Tables::default(), loops, self.now);
        node.switch = Some(switch);
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            for (to, member) in [(at, other), (other, at)] {
                if self.nodes[other].switch.is_some() {
                    let name = format!("node-{member}");
                    let switch = self.nodes[to].switch.as_mut().expect("runs");
                    let addresses = own_addresses(member);
                    switch.member_joined(member as u16, &name, &addresses, self.now);
                }
            }
        }
        self.drain();
    }

    /// A node that runs is bridged to its LAN.
    pub fn bridge(&mut self, at: usize) {
        let guard = self.nodes[at].guard(at, self.runs);
        let switch = self.nodes[at].switch.as_mut().expect("runs");
        switch.set_loops(Some(guard), self.now);
        self.drain();
    }

    /// The node is gone, and the others notice that its links are.
    pub fn stop(&mut self, at: usize) {
        self.nodes[at].switch = None;
        for node in &mut self.nodes {
            if let Some(switch) = &mut node.switch {
                switch.member_left(at as u16, self.now);
            }
        }
        self.drain();
    }

    /// Adds a host to a LAN; its number tells its addresses.
    pub fn host(&mut self, lan: usize) -> usize {
        let n = self.hosts.len() as u8 + 1;
        self.hosts.push(Host {
            mac: mac(n),
            ip: ip(n),
            lan,
            serves_dhcp: false,
            got: Vec::new(),
        });
        self.hosts.len() - 1
    }

    /// A host sends a frame.
    pub fn send(&mut self, host: usize, frame: impl Into<Bytes>) {
        let place = Place::Lan(self.hosts[host].lan, Port::Host(host));
        self.put(place, frame.into());
    }

    /// A host sends some UDP to a station.
    pub fn send_to(&mut self, host: usize, to: Mac, tag: u16) -> Bytes {
        let frame = udp(to, self.hosts[host].mac, 5000, tag);
        self.send(host, frame.clone());
        frame
    }

    /// A host asks for an address.
    pub fn ask(&mut self, host: usize, target: Ipv4Addr) {
        let Host { mac, ip, .. } = self.hosts[host];
        self.send(
            host,
            arp(BROADCAST, Operation::Request, (mac, ip), ([0; 6], target)),
        );
    }

    /// A switch hears from a node that is made up.
    pub fn inject(&mut self, to: usize, from: usize, frame: impl Into<Bytes>) {
        let what = Sent::Frame;
        self.put(Place::Node { to, from, what }, frame.into());
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let arrival = self.on_the_way.keys().next().map(|(at, _)| *at);
            let switches = self.nodes.iter().filter_map(|node| node.switch.as_ref());
            let due = switches.map(Switch::poll_timeout).chain(arrival).min();
            let Some(due) = due.filter(|due| *due <= end) else {
                break;
            };
            self.now = self.now.max(due);
            while let Some(entry) = self.on_the_way.first_entry()
                && entry.key().0 <= self.now
            {
                let (place, frame) = entry.remove();
                self.arrive(place, frame);
            }
            for node in &mut self.nodes {
                if let Some(switch) = &mut node.switch
                    && switch.poll_timeout() <= self.now
                {
                    switch.handle_timeout(self.now);
                }
            }
            self.drain();
        }
        self.now = end;
    }

    /// How often a host got a frame.
    pub fn count(&self, host: usize, frame: &Bytes) -> usize {
        self.hosts[host]
            .got
            .iter()
            .filter(|got| *got == frame)
            .count()
    }

    /// Which nodes a frame crossed to, in order.
    pub fn crossed_to(&self, frame: &Bytes) -> Vec<usize> {
        let crossed = self.crossed.iter().filter(|(.., crossed)| crossed == frame);
        let mut to: Vec<_> = crossed.map(|(_, to, _)| *to).collect();
        to.sort_unstable();
        to
    }

    fn arrive(&mut self, place: Place, frame: Bytes) {
        match place {
            Place::Lan(lan, from) => {
                for at in 0..self.hosts.len() {
                    if self.hosts[at].lan == lan && from != Port::Host(at) {
                        self.receive(at, &frame);
                    }
                }
                for (at, node) in self.nodes.iter_mut().enumerate() {
                    if let Some(switch) = &mut node.switch
                        && node.lan == lan
                        && from != Port::Node(at)
                    {
                        switch.frame_from_lan(frame.clone(), self.now);
                    }
                }
            }
            Place::Node { to, from, what } => {
                if let Some(switch) = &mut self.nodes[to].switch {
                    match what {
                        Sent::Frame => switch.frame_from_member(from as u16, frame, self.now),
                        Sent::Message(message) => {
                            switch.message_from_member(from as u16, message, self.now);
                        }
                    }
                }
            }
        }
        self.drain();
    }

    /// A host takes a frame in, and answers what it has an answer for.
    fn receive(&mut self, at: usize, frame: &Bytes) {
        let host = &mut self.hosts[at];
        let header = Header::parse(frame).expect("a frame");
        if header.receiver().is_some() && header.destination != host.mac {
            return;
        }
        let class = classify(&header, frame);
        if class == Class::Probe {
            return;
        }
        host.got.push(frame.clone());
        let Host { mac, ip, .. } = *host;
        match class {
            Class::Arp => {
                let asked = Arp::read(&frame[header.payload_at..]).expect("ARP");
                if asked.operation == Operation::Request && asked.target_ip == ip {
                    let to = (asked.sender_mac, asked.sender_ip);
                    self.send(at, arp(asked.sender_mac, Operation::Reply, (mac, ip), to));
                }
            }
            Class::DhcpRequest if host.serves_dhcp => {
                self.send(at, udp(header.source, mac, 67, 68));
            }
            _ => {}
        }
    }

    fn drain(&mut self) {
        for at in 0..self.nodes.len() {
            let lan = self.nodes[at].lan;
            while let Some(action) = self.nodes[at].switch.as_mut().and_then(Switch::poll_action) {
                match action {
                    Action::ToLan(frame) => self.put(Place::Lan(lan, Port::Node(at)), frame),
                    Action::ToMember(member, frame) => {
                        let (to, from) = (usize::from(member), at);
                        self.crossed.push((from, to, frame.clone()));
                        assert!(self.crossed.len() < LOOP, "a loop");
                        let what = Sent::Frame;
                        self.put(Place::Node { to, from, what }, frame);
                    }
                    Action::Tell(member, message) => {
                        let message = match Message::read(&message.bytes()).expect("its own") {
                            // The nodes' ids are in the order of their numbers; those of their names are not.
                            Message::Behind(Some(NodeId([other, ..]))) => Message::Behind(Some(
                                NodeId::of_name(&format!("node-{}", other - 1)),
                            )),
                            message => message,
                        };
                        let (to, from) = (usize::from(member), at);
                        let what = Sent::Message(message);
                        self.put(Place::Node { to, from, what }, Bytes::new());
                    }
                    Action::Drop(_, reason) => {
                        *self.nodes[at].drops.entry(reason).or_default() += 1;
                    }
                }
            }
            let alarms = self.nodes[at].switch.as_mut().map(Switch::take_alarms);
            let alarms = alarms.into_iter().flatten();
            self.nodes[at]
                .alarms
                .extend(alarms.map(|alarm| alarm.to_string()));
        }
    }

    fn put(&mut self, place: Place, frame: Bytes) {
        self.sent += 1;
        self.on_the_way
            .insert((self.now + DELAY, self.sent), (place, frame));
    }
}

/// In a node's certificate.
pub fn own_addresses(node: usize) -> [IpAddr; 2] {
    let last = 100 + node as u8;
    [
        address(last),
        [0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into(),
    ]
}

/// That of a node with addresses of its own, and of those that may carry frames of a LAN.
pub fn owning(node: usize, carriers: Carriers) -> Settings {
    Settings {
        own: Some(Own {
            id: NodeId::of_name(&format!("node-{node}")),
            addresses: own_addresses(node).into(),
        }),
        carriers,
        ..Settings::default()
    }
}

pub fn settings(policy: Policy) -> Settings {
    Settings {
        policy,
        ..Settings::default()
    }
}

pub fn arp(
    to: Mac,
    operation: Operation,
    sender: (Mac, Ipv4Addr),
    target: (Mac, Ipv4Addr),
) -> Bytes {
    let mut frame = [to, sender.0].concat();
    frame.extend(ETHERTYPE_ARP.to_be_bytes());
    frame.extend([0, 1, 8, 0, 6, 4, 0]);
    frame.push(if operation == Operation::Request {
        1
    } else {
        2
    });
    frame.extend(sender.0);
    frame.extend(sender.1.octets());
    frame.extend(target.0);
    frame.extend(target.1.octets());
    frame.into()
}

/// UDP over IPv4, for whom the Ethernet header says.
pub fn udp(to: Mac, from: Mac, source_port: u16, destination_port: u16) -> Bytes {
    ipv4(to, from, Ipv4Addr::BROADCAST, source_port, destination_port)
}

pub fn ipv4(to: Mac, from: Mac, destination: Ipv4Addr, source_port: u16, port: u16) -> Bytes {
    let ends = (Ipv4Addr::UNSPECIFIED, destination);
    packet(to, from, ends, source_port, port)
}

/// UDP between two IP addresses.
pub fn packet(
    to: Mac,
    from: Mac,
    (source, destination): (Ipv4Addr, Ipv4Addr),
    source_port: u16,
    port: u16,
) -> Bytes {
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, UDP, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let checksum = !sum(&packet);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(source_port.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend([0, 8, 0, 0]);
    let mut frame = [to, from].concat();
    frame.extend([8, 0]);
    frame.extend(packet);
    frame.into()
}

pub const SECOND: Duration = Duration::from_secs(1);

pub fn address(n: u8) -> IpAddr {
    IpAddr::V4(ip(n))
}
