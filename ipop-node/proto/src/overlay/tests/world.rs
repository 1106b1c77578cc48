//! Several overlays on a simulated underlay, a signalling service that delivers in order unless it is
//! told otherwise, and virtual time.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;

use crate::authority::tests::Office;
use crate::authority::{Authority, RevocationList};
use crate::config::OverlayMode;
use crate::overlay::{Identity, Output, Overlay, OverlayConfig, PeerKey, PeerPath, StaticPeer};
use crate::pinning::Pins;
use crate::service::{IceServer, IceServerKind, ServicePassword};
use crate::signal::{Fingerprint, Signal};
use crate::sim::turn::TurnServer;
use crate::sim::{NatKind, Network, Path};
use crate::status::{Advertisement, LinkState, PeerStatus, RoleState};
use crate::switch::Matter;

/// One way through the signalling service.
pub(super) const XMPP: Duration = Duration::from_millis(10);
const STEP_LIMIT: usize = 2_000_000;

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(super) struct Node {
    pub(super) overlay: Overlay,
    /// Full JID while signed in.
    pub(super) jid: Option<String>,
    pub(super) name: String,
    pub(super) underlay: IpAddr,
    pub(super) advertised: u8,
    /// Packets for the TUN device.
    pub(super) packets: Vec<BytesMut>,
    /// Frames and messages for the switch.
    pub(super) matters: Vec<Matter>,
    /// What the data path was told.
    pub(super) paths: HashMap<PeerKey, PeerPath>,
    /// LinkUp and LinkDown, as text.
    pub(super) events: Vec<String>,
    /// The keys by which peers were named: what of them was told, their names, and the keys.
    pub(super) keys: Vec<(&'static str, String, Option<String>)>,
    /// When it had something to do: a datagram, or a deadline.
    pub(super) awake: BTreeSet<Instant>,
    /// The revocation list that it keeps over a restart, as PEM.
    pub(super) kept: String,
    /// The fingerprint that the server has it advertise, in the place of its own.
    pub(super) shown: Option<Fingerprint>,
}

/// What is under way on the signalling service.
pub(super) struct Letter {
    at: Instant,
    from: String,
    to: String,
    signal: Signal,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) network: Network,
    pub(super) server: Option<TurnServer>,
    pub(super) nodes: Vec<Node>,
    letters: VecDeque<Letter>,
    /// Every signal sent: from, to, what.
    pub(super) signals: Vec<(String, String, Signal)>,
    /// Signals this gives `true` for come back to the sender as failed.
    pub(super) bounce: Box<dyn FnMut(&Signal) -> bool>,
    pub(super) relay_only: bool,
    mode: OverlayMode,
    /// Identities that outlive a restart, as PEM, and peers by configuration, both by node.
    pub(super) identities: HashMap<usize, String>,
    pub(super) configured: HashMap<usize, Vec<StaticPeer>>,
    /// Whom nodes believe, as PEM, and the time of day when the world began.
    pub(super) authorities: HashMap<usize, String>,
    pub(super) dawn: SystemTime,
    /// Whom nodes' owners have approved, by node; as it is kept over a restart.
    pub(super) pins: HashMap<usize, Pins>,
    /// What the server makes of a signal.
    pub(super) tamper: Box<dyn FnMut(&mut Signal)>,
    /// How long the server takes over a signal, for each time that it delivers it.
    pub(super) delays: Box<dyn FnMut() -> Vec<Duration>>,
    start: Instant,
    seed: u8,
}

impl World {
    pub(super) fn new() -> Self {
        let start = Instant::now();
        Self {
            now: start,
            start,
            authorities: HashMap::new(),
            pins: HashMap::new(),
            dawn: Office::today(),
            tamper: Box::new(|_| {}),
            delays: Box::new(|| vec![XMPP]),
            network: Network::new(3, Path::default()),
            server: None,
            nodes: Vec::new(),
            letters: VecDeque::new(),
            signals: Vec::new(),
            bounce: Box::new(|_| false),
            relay_only: false,
            mode: OverlayMode::Route,
            identities: HashMap::new(),
            configured: HashMap::new(),
            seed: 0,
        }
    }

    /// `count` nodes in the open, not signed in.
    pub(super) fn open(count: u8) -> Self {
        Self::open_in(OverlayMode::Route, count)
    }

    /// The same, in a mode.
    pub(super) fn open_in(mode: OverlayMode, count: u8) -> Self {
        let mut world = Self {
            mode,
            ..Self::new()
        };
        for i in 0..count {
            let addr = IpAddr::from([203, 0, 113, i + 1]);
            world.network.add_host(addr, None);
            world.add_node(addr);
        }
        world
    }

    /// `count` nodes, each behind its own NAT, and a STUN and TURN server.
    pub(super) fn behind(kind: NatKind, count: u8) -> Self {
        let mut world = Self::new();
        world.add_server();
        for i in 0..count {
            let nat = world
                .network
                .add_nat(kind, IpAddr::from([198, 51, 100, i + 1]));
            let addr = IpAddr::from([10, 0, i, 2]);
            world.network.add_host(addr, Some(nat));
            world.add_node(addr);
        }
        world
    }

    pub(super) fn add_server(&mut self) {
        for public in ["192.0.2.1", "192.0.2.2"] {
            self.network.add_host(ip(public), None);
        }
        let mut server = TurnServer::new("192.0.2.1:3478".parse().expect("valid"), ip("192.0.2.2"));
        server.add_user("u", "p");
        self.server = Some(server);
    }

    pub(super) fn add_node(&mut self, underlay: IpAddr) -> usize {
        let i = self.nodes.len();
        let overlay = self.overlay(i, underlay);
        self.nodes.push(Node {
            overlay,
            jid: None,
            name: format!("node-{i}"),
            underlay,
            advertised: i as u8 + 1,
            packets: Vec::new(),
            matters: Vec::new(),
            paths: HashMap::new(),
            events: Vec::new(),
            keys: Vec::new(),
            awake: BTreeSet::new(),
            kept: String::new(),
            shown: None,
        });
        i
    }

    fn overlay(&mut self, i: usize, underlay: IpAddr) -> Overlay {
        self.seed += 1;
        let config = OverlayConfig {
            name: format!("node-{i}"),
            addrs: addrs(i as u8 + 1),
            mtu: 1400,
            mode: self.mode,
            relay_only: self.relay_only,
        };
        let identity = match self.identities.get(&i) {
            Some(pem) => Identity::from_pem(pem),
            None => Identity::generate(),
        };
        let identity = identity.expect("an identity");
        let mut overlay = Overlay::new(self.now, config, identity, [self.seed; 32]);
        if let Some(authority) = self.authorities.get(&i) {
            let authority = Authority::from_pem(authority, "demo").expect("an authority");
            let kept = self.nodes.get(i).map_or("", |node| &node.kept);
            for list in RevocationList::from_pem(kept).expect("its own") {
                authority.take(list).expect("a newer one");
            }
            overlay.set_authority(self.now, Arc::new(authority), self.time());
        }
        if let Some(pins) = self.pins.get(&i) {
            overlay.set_pins(self.now, pins.clone());
        }
        for peer in self.configured.get(&i).into_iter().flatten() {
            overlay.add_static(self.now, peer.clone());
        }
        overlay.set_sockets(self.now, vec![SocketAddr::new(underlay, 4000)]);
        if self.server.is_some() {
            overlay.set_ice_servers(
                self.now,
                vec![IceServer {
                    kind: IceServerKind::Turn,
                    addr: "192.0.2.1:3478".parse().expect("valid"),
                    username: Some("u".to_owned()),
                    password: Some(ServicePassword::new("p")),
                    expires_in: None,
                }],
            );
        }
        overlay
    }

    /// The time of day.
    pub(super) fn time(&self) -> SystemTime {
        self.dawn + self.now.duration_since(self.start)
    }

    /// Signs a node in; it and the others see each other.
    pub(super) fn sign_in(&mut self, i: usize, resource: &str) {
        let jid = format!("node-{i}@demo/{resource}");
        self.nodes[i].jid = Some(jid.clone());
        let now = self.now;
        self.nodes[i].overlay.online(now, jid);
        self.publish(i);
        for other in 0..self.nodes.len() {
            if let (true, Some(theirs)) = (other != i, self.nodes[other].jid.clone()) {
                let advertisement = self.advertisement(other);
                self.nodes[i]
                    .overlay
                    .peer_present(now, theirs, advertisement);
            }
        }
    }

    pub(super) fn sign_in_all(&mut self) {
        for i in 0..self.nodes.len() {
            self.sign_in(i, "r");
        }
    }

    /// Tells everybody what a node advertises now.
    pub(super) fn publish(&mut self, i: usize) {
        let Some(jid) = self.nodes[i].jid.clone() else {
            return;
        };
        let advertisement = self.advertisement(i);
        let now = self.now;
        for (_, node) in self.nodes.iter_mut().enumerate().filter(|(j, _)| *j != i) {
            node.overlay
                .peer_present(now, jid.clone(), advertisement.clone());
        }
    }

    /// The server tells the others that a node is gone; the node knows as well if `itself`.
    pub(super) fn sign_out(&mut self, i: usize, itself: bool) {
        let Some(jid) = self.nodes[i].jid.take() else {
            return;
        };
        let now = self.now;
        if itself {
            self.nodes[i].overlay.offline(now);
        }
        for (_, node) in self.nodes.iter_mut().enumerate().filter(|(j, _)| *j != i) {
            node.overlay.peer_gone(now, &jid);
        }
    }

    /// The node's process ends without a word and starts again, not signed in.
    pub(super) fn restart(&mut self, i: usize) {
        self.nodes[i].overlay = self.overlay(i, self.nodes[i].underlay);
        self.nodes[i].jid = None;
    }

    /// The node's process ends without a word, and does not start again yet.
    pub(super) fn kill(&mut self, i: usize) {
        let peers = self.configured.remove(&i);
        self.restart(i);
        self.nodes[i].overlay.set_sockets(self.now, Vec::new());
        self.configured.extend(peers.map(|peers| (i, peers)));
    }

    fn advertisement(&self, i: usize) -> Advertisement {
        let node = &self.nodes[i];
        Advertisement {
            name: node.name.clone(),
            addrs: addrs(node.advertised),
            role: RoleState::Pending,
            linked: node.overlay.linked(),
            version: "0".to_owned(),
            fingerprint: node.shown.or(node.overlay.pinned_by()),
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..STEP_LIMIT {
            self.collect();
            let next = self
                .nodes
                .iter_mut()
                .filter_map(|n| n.overlay.poll_timeout())
                .chain(self.network.next_arrival())
                .chain(self.letters.front().map(|l| l.at))
                .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            let time = self.time();
            for node in &mut self.nodes {
                node.overlay.set_time(time);
            }
            self.deliver();
            for node in &mut self.nodes {
                if node
                    .overlay
                    .poll_timeout()
                    .is_some_and(|due| due <= self.now)
                {
                    node.awake.insert(self.now);
                    node.overlay.handle_timeout(self.now);
                }
            }
        }
        panic!("time stands still: a deadline is never met");
    }

    /// Runs until `done`, at most for `limit`.
    pub(super) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) {
            if self.now >= end {
                return false;
            }
            self.run(Duration::from_millis(20));
        }
        true
    }

    fn deliver(&mut self) {
        let now = self.now;
        while let Some(arrival) = self.network.poll_arrival(now) {
            if let Some(server) = self.server.as_mut().filter(|s| s.owns(arrival.to)) {
                for (from, to, payload) in
                    server.handle(now, arrival.from, arrival.to, &arrival.payload)
                {
                    self.network.send(now, from, to, payload);
                }
            } else if let Some(node) = self
                .nodes
                .iter_mut()
                .find(|n| n.underlay == arrival.to.ip())
            {
                node.awake.insert(now);
                node.overlay
                    .handle_datagram(now, arrival.to, arrival.from, arrival.payload);
            }
        }
        while self.letters.front().is_some_and(|l| l.at <= now) {
            let Some(letter) = self.letters.pop_front() else {
                return;
            };
            let sid = sid_of(&letter.signal).clone();
            let bounced = (self.bounce)(&letter.signal);
            let to = self
                .nodes
                .iter_mut()
                .find(|n| n.jid.as_ref() == Some(&letter.to));
            match to.filter(|_| !bounced) {
                Some(node) => node.overlay.handle_signal(now, &letter.from, letter.signal),
                None => {
                    let from = self
                        .nodes
                        .iter_mut()
                        .find(|n| n.jid.as_ref() == Some(&letter.from));
                    if let Some(from) = from {
                        from.overlay
                            .signal_failed(now, &letter.to, &sid, "service-unavailable");
                    }
                }
            }
        }
    }

    fn collect(&mut self) {
        let now = self.now;
        for node in &mut self.nodes {
            while let Some(output) = node.overlay.poll_output() {
                match output {
                    Output::Transmit(t) => {
                        assert_eq!(
                            t.local,
                            SocketAddr::new(node.underlay, 4000),
                            "a real socket"
                        );
                        self.network.send(now, t.local, t.remote, t.payload);
                    }
                    Output::Packet(packet) => node.packets.push(packet),
                    Output::Switch { peer, matter } => {
                        assert!(node.paths.contains_key(&peer), "no member yet");
                        node.matters.push(matter);
                    }
                    Output::Path { peer, path } => {
                        match path {
                            Some(path) => node.paths.insert(peer, path),
                            None => node.paths.remove(&peer),
                        };
                    }
                    Output::Revoked { list, from } => {
                        let from = from.unwrap_or_else(|| "its owner".to_owned());
                        node.events
                            .push(format!("list {} from {from}", list.number()));
                        node.kept = list.pem();
                    }
                    Output::Refused {
                        account,
                        why,
                        is_new: true,
                        ..
                    } => {
                        node.events.push(format!("refused {account}: {why}"));
                    }
                    Output::Refused { .. } => {}
                    Output::Waits { account, peer, .. } => {
                        node.events.push(format!("waits {account}: {peer}"));
                    }
                    Output::Denied {
                        peer,
                        key,
                        count,
                        last,
                    } => {
                        node.events.push(format!("denied {peer}: {last}, {count}"));
                        node.keys.push(("denied", peer, key));
                    }
                    Output::LinkUp { peer, key, .. } => {
                        node.events.push(format!("up {peer}"));
                        node.keys.push(("up", peer, key));
                    }
                    Output::LinkDown { peer, why, .. } => {
                        node.events.push(format!("down {peer}: {why}"));
                    }
                    Output::Signal { to, mut signal } => {
                        // Written to a stream that is gone.
                        let Some(from) = node.jid.clone() else {
                            continue;
                        };
                        (self.tamper)(&mut signal);
                        self.signals
                            .push((from.clone(), to.clone(), signal.clone()));
                        for delay in (self.delays)() {
                            let at = now + delay;
                            let place = self.letters.partition_point(|letter| letter.at <= at);
                            let (from, to, signal) = (from.clone(), to.clone(), signal.clone());
                            let letter = Letter {
                                at,
                                from,
                                to,
                                signal,
                            };
                            self.letters.insert(place, letter);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn peer(&self, i: usize, other: usize) -> Option<PeerStatus> {
        let name = &self.nodes[other].name;
        let all = self.nodes[i].overlay.peers(self.now);
        all.into_iter()
            .find(|p| p.jid.starts_with(&format!("{name}@")) || p.jid.is_empty() && p.name == *name)
    }

    pub(super) fn why(&self, i: usize, other: usize) -> String {
        match self.peer(i, other).expect("a known peer").link {
            LinkState::Down { why } => why,
            other => panic!("not down: {other:?}"),
        }
    }

    pub(super) fn is_up(&self, i: usize, other: usize) -> bool {
        self.peer(i, other).is_some_and(|p| p.link == LinkState::Up)
    }

    pub(super) fn all_up(&self) -> bool {
        let n = self.nodes.len();
        (0..n).all(|i| (0..n).all(|j| i == j || self.is_up(i, j)))
    }

    /// Sends a packet of both families between every two nodes and checks that it arrives.
    pub(super) fn check_every_path(&mut self) {
        let n = self.nodes.len();
        for i in 0..n {
            for j in (0..n).filter(|j| *j != i) {
                for packet in [
                    v4(i as u8 + 1, j as u8 + 1, b"hello"),
                    v6(i as u8 + 1, j as u8 + 1),
                ] {
                    self.nodes[j].packets.clear();
                    let now = self.now;
                    self.nodes[i].overlay.handle_packet(now, &packet);
                    self.run(Duration::from_millis(50));
                    assert_eq!(self.nodes[j].packets, [&packet[..]], "from {i} to {j}");
                }
            }
        }
    }
}

pub(super) fn sid_of(signal: &Signal) -> &crate::signal::SessionId {
    match signal {
        Signal::Initiate { sid, .. }
        | Signal::Accept { sid, .. }
        | Signal::Candidates { sid, .. }
        | Signal::Terminate { sid, .. } => sid,
    }
}

pub(super) fn addrs(last: u8) -> crate::address::OverlayAddrs {
    crate::address::OverlayAddrs {
        ipv4: format!("10.73.0.{last}/24").parse().expect("valid"),
        ipv6: format!("fd5a::{last:x}/64").parse().expect("valid"),
    }
}

/// An IPv4 packet between two overlay addresses; protocol 253 is for experiments (RFC 3692).
pub(super) fn v4(from: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let total = (20 + payload.len() as u16).to_be_bytes();
    let mut packet = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 253, 0, 0];
    packet.extend([10, 73, 0, from, 10, 73, 0, to]);
    packet.extend(payload);
    packet
}

pub(super) fn v6(from: u8, to: u8) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 1, 253, 64];
    packet.extend(addrs(from).ipv6.addr.octets());
    packet.extend(addrs(to).ipv6.addr.octets());
    packet.push(1);
    packet
}
