//! Two links on a simulated underlay.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::candidate::{Candidate, CandidateKind, LocalCandidate};
use crate::link::{IceRole, Identity, Link, LinkConfig, LinkEvent, Trust};
use crate::net::DatagramClass;
use crate::signal::{LinkDescription, Setup, TerminateReason};
use crate::sim::{NatId, Network, Path};
use crate::status::{DropReason, LinkState};

/// Where the simulated STUN server would be.
const STUN_SERVER: &str = "192.0.2.1:3478";

pub(super) struct Node {
    pub(super) link: Link,
    pub(super) identity: Arc<Identity>,
    pub(super) bases: Vec<SocketAddr>,
    pub(super) packets: Vec<BytesMut>,
    pub(super) states: Vec<LinkState>,
    pub(super) failed: Option<(String, TerminateReason)>,
    pub(super) refused: Vec<DropReason>,
    /// When the link came up.
    pub(super) up: Option<Instant>,
}

/// Node 0 initiates: it controls ICE and waits for the ClientHello.
pub(super) struct Pair {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) network: Network,
    pub(super) nodes: [Node; 2],
    /// What the underlay lets through.
    pub(super) passes: fn(&[u8]) -> bool,
}

impl Pair {
    pub(super) fn new(seed: u64, path: Path) -> Self {
        Self::with_roles(seed, path, [IceRole::Controlling, IceRole::Controlled])
    }

    pub(super) fn with_roles(seed: u64, path: Path, roles: [IceRole; 2]) -> Self {
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes = roles.map(|role| {
            let identity = Arc::new(Identity::generate().expect("identity"));
            Node::new(start, role, identity, &mut rng)
        });
        Self {
            start,
            now: start,
            network: Network::new(seed, path),
            nodes,
            passes: |_| true,
        }
    }

    /// Gives node `i` a socket on `addr`, and the candidates it yields.
    pub(super) fn host(&mut self, i: usize, addr: &str, behind: Option<NatId>) {
        let base = self.socket(i, addr, behind);
        self.offer(i, base, base, CandidateKind::Host);
        if behind.is_some() {
            let seen = self
                .network
                .reflexive(base, STUN_SERVER.parse().expect("address"));
            self.offer(i, base, seen, CandidateKind::Srflx);
        }
    }

    /// Gives node `i` a relayed address.
    pub(super) fn relay(&mut self, i: usize, addr: &str) {
        let base = self.socket(i, addr, None);
        self.offer(i, base, base, CandidateKind::Relay);
    }

    pub(super) fn socket(&mut self, i: usize, addr: &str, behind: Option<NatId>) -> SocketAddr {
        let base: SocketAddr = addr.parse().expect("address");
        self.network.add_host(base.ip(), behind);
        self.nodes[i].bases.push(base);
        base
    }

    pub(super) fn offer(
        &mut self,
        i: usize,
        base: SocketAddr,
        addr: SocketAddr,
        kind: CandidateKind,
    ) -> Candidate {
        let candidate = candidate(addr, kind);
        let local = LocalCandidate {
            candidate: candidate.clone(),
            base,
        };
        self.nodes[i].link.add_local(self.now, local);
        candidate
    }

    pub(super) fn descriptions(&self) -> [LinkDescription; 2] {
        let [one, other] = &self.nodes;
        [
            one.link.description(Setup::Actpass),
            other.link.description(Setup::Active),
        ]
    }

    /// Exchanges both halves without delay.
    pub(super) fn signal(&mut self) {
        let halves = self.descriptions();
        self.signal_halves(halves);
    }

    pub(super) fn signal_halves(&mut self, [one, other]: [LinkDescription; 2]) {
        self.nodes[1].link.set_remote(self.now, &one).expect("half");
        self.nodes[0]
            .link
            .set_remote(self.now, &other)
            .expect("half");
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_while(end, |_| true);
    }

    /// Runs until both links are up; whether that came to be within `limit`.
    pub(super) fn run_until_up(&mut self, limit: Duration) -> bool {
        let end = self.now + limit;
        self.run_while(end, |pair| pair.nodes.iter().any(|node| node.up.is_none()));
        self.nodes
            .iter()
            .all(|node| node.link.state() == &LinkState::Up)
    }

    /// Runs until `end`, as long as `goes_on`.
    pub(super) fn run_while(&mut self, end: Instant, goes_on: impl Fn(&Self) -> bool) {
        self.drain();
        let mut idle = 0;
        while goes_on(self) {
            let due = self
                .nodes
                .iter_mut()
                .filter_map(|node| node.link.poll_timeout());
            let next = due.chain(self.network.next_arrival()).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            // A timer that stays due is a loop that would take a real node's processor.
            idle = if next > self.now { 0 } else { idle + 1 };
            assert!(
                idle < 10_000,
                "a timer stays due at {:?}",
                self.now - self.start
            );
            self.now = self.now.max(next);
            while let Some(arrival) = self.network.poll_arrival(self.now) {
                self.deliver(arrival.to, arrival.from, arrival.payload);
            }
            for node in &mut self.nodes {
                if node.link.poll_timeout().is_some_and(|due| due <= self.now) {
                    node.link.handle_timeout(self.now);
                }
            }
            self.drain();
        }
    }

    pub(super) fn deliver(&mut self, to: SocketAddr, from: SocketAddr, payload: BytesMut) {
        let Some(node) = self.nodes.iter_mut().find(|node| node.bases.contains(&to)) else {
            return;
        };
        if let Err(reason) = node.link.handle_datagram(self.now, to, from, payload) {
            node.refused.push(reason);
        }
    }

    /// Sends a packet from node `i` and runs until it should have arrived.
    pub(super) fn send(&mut self, i: usize, packet: &[u8]) -> Result<(), DropReason> {
        self.nodes[i].link.send(packet)?;
        self.run_for(Duration::from_millis(100));
        Ok(())
    }

    /// How long set-up took.
    pub(super) fn took(&self) -> Duration {
        let up = self
            .nodes
            .iter()
            .map(|node| node.up.expect("up"))
            .max()
            .expect("two nodes");
        up - self.start
    }

    /// Kinds of both ends as node `i` sees them.
    pub(super) fn kinds(&self, i: usize) -> (CandidateKind, CandidateKind) {
        let (local, remote) = self.nodes[i].link.pair().expect("pair");
        (local.kind, remote.kind)
    }

    /// Application data records (content type 23) that went over the underlay.
    pub(super) fn data_records(&self) -> usize {
        let log = self.network.log().iter();
        log.filter(|(_, _, payload)| {
            DatagramClass::of(payload) == DatagramClass::Dtls && payload[0] == 23
        })
        .count()
    }

    pub(super) fn drain(&mut self) {
        for node in &mut self.nodes {
            while let Some(transmit) = node.link.poll_transmit() {
                assert!(
                    node.bases.contains(&transmit.local),
                    "sent from {}",
                    transmit.local
                );
                if (self.passes)(&transmit.payload) {
                    self.network
                        .send(self.now, transmit.local, transmit.remote, transmit.payload);
                }
            }
            while let Some(event) = node.link.poll_event() {
                match event {
                    LinkEvent::Packet(packet) => node.packets.push(packet),
                    LinkEvent::State(state) => {
                        if state == LinkState::Up {
                            node.up = Some(self.now);
                        }
                        node.states.push(state);
                    }
                    LinkEvent::Failed { why, reason, .. } => node.failed = Some((why, reason)),
                    LinkEvent::Frame(_) | LinkEvent::Message(_) | LinkEvent::Control(_) => {
                        unreachable!("nobody sends any");
                    }
                    LinkEvent::PairSelected { .. } => {}
                }
            }
        }
    }
}

impl Node {
    pub(super) fn new(
        now: Instant,
        role: IceRole,
        identity: Arc<Identity>,
        rng: &mut StdRng,
    ) -> Self {
        Self::trusting(now, role, identity, None, rng)
    }

    /// One whose overlay has an authority.
    pub(super) fn trusting(
        now: Instant,
        role: IceRole,
        identity: Arc<Identity>,
        trust: Option<Trust>,
        rng: &mut StdRng,
    ) -> Self {
        let config = LinkConfig {
            role,
            identity: identity.clone(),
            relay_only: false,
            credentials: None,
            trust,
        };
        Self {
            link: Link::new(now, config, rng).expect("link"),
            identity,
            bases: Vec::new(),
            packets: Vec::new(),
            states: Vec::new(),
            failed: None,
            refused: Vec::new(),
            up: None,
        }
    }
}

pub(super) fn candidate(addr: SocketAddr, kind: CandidateKind) -> Candidate {
    let preference: u32 = match kind {
        CandidateKind::Host => 126,
        CandidateKind::Prflx => 110,
        CandidateKind::Srflx => 100,
        CandidateKind::Relay => 0,
    };
    Candidate {
        foundation: format!("{kind}{}", addr.ip()),
        kind,
        addr,
        priority: (preference << 24) + (65_535 << 8) + 255,
        related: None,
    }
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}
