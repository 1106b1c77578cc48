//! A simulated underlay on virtual time: hosts, paths that delay, lose and reorder, and the NATs
//! of RFC 4787. For tests; it holds no protocol.
//!
//! ```text
//! network.send(now, from, to, payload)      a host sends
//! network.next_arrival()                    when something arrives next
//! network.poll_arrival(now)                 what has arrived, and where
//! ```
//!
//! Every address belongs to one realm: the public one, or the inside of one NAT. A relayed address
//! (TURN) is modelled as a further public host of the node that holds the allocation: what it
//! sends leaves from there, what arrives there is the node's.

mod nat;
pub mod turn;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use self::nat::Nat;
pub use self::nat::{Filtering, Mapping, NatKind};

/// Which realm an address is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NatId(usize);

/// What happens to datagrams under way.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// One-way delay.
    pub latency: Duration,
    /// A datagram takes up to this much longer, so that later ones overtake it.
    pub jitter: Duration,
    /// Share of datagrams lost, 0 to 1.
    pub loss: f64,
    /// Share of datagrams that arrive twice, 0 to 1.
    pub duplication: f64,
}

impl Default for Path {
    /// 5 ms, in order, no loss.
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(5),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplication: 0.0,
        }
    }
}

/// A datagram that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Where it came from, as the receiver sees it.
    pub from: SocketAddr,
    /// The receiver's own address (its socket's, not a NAT's).
    pub to: SocketAddr,
    /// UDP payload.
    pub payload: BytesMut,
}

/// The underlay.
pub struct Network {
    rng: StdRng,
    path: Path,
    hosts: HashMap<IpAddr, Option<NatId>>,
    blocked: Vec<(IpAddr, IpAddr)>,
    nats: Vec<Nat>,
    under_way: BTreeMap<(Instant, u64), Arrival>,
    sent: u64,
    log: Vec<(SocketAddr, SocketAddr, BytesMut)>,
}

impl Network {
    /// An empty network; the same seed gives the same losses and delays.
    pub fn new(seed: u64, path: Path) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            path,
            hosts: HashMap::new(),
            blocked: Vec::new(),
            nats: Vec::new(),
            under_way: BTreeMap::new(),
            sent: 0,
            log: Vec::new(),
        }
    }

    /// Adds a NAT with one external address.
    pub fn add_nat(&mut self, kind: NatKind, external: IpAddr) -> NatId {
        self.nats.push(Nat::new(kind, external));
        NatId(self.nats.len() - 1)
    }

    /// Adds an address, public or behind a NAT.
    pub fn add_host(&mut self, addr: IpAddr, behind: Option<NatId>) {
        self.hosts.insert(addr, behind);
    }

    /// Changes the path from now on.
    pub fn set_path(&mut self, path: Path) {
        self.path = path;
    }

    /// Loses everything between the sockets of two hosts, both ways; own addresses, not a NAT's.
    pub fn block(&mut self, one: IpAddr, other: IpAddr) {
        self.blocked.push((one, other));
    }

    /// Undoes every [`Network::block`].
    pub fn unblock(&mut self) {
        self.blocked.clear();
    }

    /// Drops a NAT's mappings, as a restart does.
    pub fn forget_mappings(&mut self, nat: NatId) {
        self.nats[nat.0].forget();
    }

    /// Sends a datagram from the socket `from` to `to`.
    pub fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, payload: BytesMut) {
        self.log.push((from, to, payload.clone()));
        let Some(arrival) = self.route(from, to, payload) else {
            return;
        };
        let (one, other) = (from.ip(), arrival.to.ip());
        if self.blocked.contains(&(one, other)) || self.blocked.contains(&(other, one)) {
            return;
        }
        let copies = if self.rng.random_bool(self.path.duplication) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            if self.rng.random_bool(self.path.loss) {
                continue;
            }
            let late = self.path.jitter.mul_f64(self.rng.random_range(0.0..=1.0));
            self.sent += 1;
            self.under_way
                .insert((now + self.path.latency + late, self.sent), arrival.clone());
        }
    }

    /// The address `server` would see datagrams of the socket `from` come from, which is what STUN
    /// tells. Makes the mappings that sending one would make.
    pub fn reflexive(&mut self, from: SocketAddr, server: SocketAddr) -> SocketAddr {
        match self.hosts.get(&from.ip()) {
            Some(Some(NatId(nat))) => self.nats[*nat].outbound(from, server, &mut self.rng),
            _ => from,
        }
    }

    /// When the next datagram arrives.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.under_way.keys().next().map(|(when, _)| *when)
    }

    /// Takes a datagram that has arrived by `now`.
    pub fn poll_arrival(&mut self, now: Instant) -> Option<Arrival> {
        let entry = self.under_way.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// Everything hosts have sent: source and destination as the sender sees them, payload.
    pub fn log(&self) -> &[(SocketAddr, SocketAddr, BytesMut)] {
        &self.log
    }

    /// Where a datagram ends up, through the NATs it meets; `None` when nowhere.
    fn route(&mut self, from: SocketAddr, to: SocketAddr, payload: BytesMut) -> Option<Arrival> {
        if from.is_ipv4() != to.is_ipv4() {
            return None;
        }
        let home = *self.hosts.get(&from.ip())?;
        if self.hosts.get(&to.ip()).is_some_and(|realm| *realm == home) {
            return Some(Arrival { from, to, payload });
        }
        let from = match home {
            Some(NatId(nat)) => self.nats[nat].outbound(from, to, &mut self.rng),
            None => from,
        };
        if let Some(nat) = self.nats.iter_mut().find(|nat| nat.external() == to.ip()) {
            let to = nat.inbound(from, to.port())?;
            return Some(Arrival { from, to, payload });
        }
        // A private address is not reachable from outside.
        let public = self.hosts.get(&to.ip()).is_some_and(Option::is_none);
        public.then_some(Arrival { from, to, payload })
    }
}
