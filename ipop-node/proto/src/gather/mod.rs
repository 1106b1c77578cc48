//! The candidates of this node (RFC 8445 section 5.1.1), gathered once for all links.
//!
//! Host candidates are the bound sockets. Every server is asked for the reflexive address of every
//! socket of its family; the socket from which a TURN server answers first makes the allocation.
//! Candidates are reported as they are found and when they are lost, so nothing waits for a server
//! that does not answer.
//!
//! Deviations: requests are not paced (RFC 8445 section 14.2 asks for 50 ms between them), since
//! a node sends few of them and all links share them.

mod allocation;
mod offer;
mod permission;
mod preference;
mod reflexive;
mod request;
pub(crate) mod stun;
mod transaction;
mod turn;

#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;
use rand::rngs::StdRng;
use rtc_stun::message::{CLASS_INDICATION, METHOD_DATA};

use self::allocation::{Allocation, Context};
use self::preference::Foundations;
use self::reflexive::Reflexive;
use self::stun::Credential;
use crate::candidate::LocalCandidate;
use crate::net::{DatagramClass, Route, Transmit};
use crate::service::{IceServer, IceServerKind};
use crate::status::DropReason;

/// What the gatherer tells its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatherEvent {
    /// A new candidate.
    Found(LocalCandidate),
    /// A candidate is no longer valid.
    Lost(LocalCandidate),
    /// A datagram that [`Gatherer::send`] had taken could not be sent after all.
    Dropped(DropReason),
}

/// What a datagram turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Inbound {
    /// It does not come from a server.
    Direct(BytesMut),
    /// A server's answer; nothing more to do.
    Consumed,
    /// A peer's datagram that came through a relay.
    Relayed {
        /// The relayed address it was sent to.
        local: SocketAddr,
        /// The peer.
        remote: SocketAddr,
        /// What the peer sent.
        payload: BytesMut,
    },
    /// From a server, but not to be understood.
    Unknown,
}

/// A TURN server and the credential for it.
struct TurnServer {
    addr: SocketAddr,
    credential: Credential,
}

/// The gatherer of one node.
pub struct Gatherer {
    rng: StdRng,
    sockets: Vec<SocketAddr>,
    servers: HashSet<SocketAddr>,
    turn: Vec<TurnServer>,
    reflexive: Vec<Reflexive>,
    allocations: Vec<Allocation>,
    foundations: Foundations,
    candidates: Vec<LocalCandidate>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<GatherEvent>,
    /// Earliest deadline; `None` when it must be found anew.
    deadline: Option<Option<Instant>>,
}

impl fmt::Debug for Gatherer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gatherer")
            .field("sockets", &self.sockets)
            .field("candidates", &self.candidates)
            .finish_non_exhaustive()
    }
}

impl Gatherer {
    /// A gatherer with no sockets and no servers.
    pub fn new(rng: StdRng) -> Self {
        Self {
            rng,
            sockets: Vec::new(),
            servers: HashSet::new(),
            turn: Vec::new(),
            reflexive: Vec::new(),
            allocations: Vec::new(),
            foundations: Foundations::default(),
            candidates: Vec::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            deadline: None,
        }
    }

    /// The sockets there are now, best first. Allocations made from a socket that is gone are lost.
    pub fn set_sockets(&mut self, now: Instant, sockets: Vec<SocketAddr>) {
        self.allocations.retain(|a| sockets.contains(&a.socket));
        self.sockets = sockets;
        self.set_reflexive(now);
        self.update(now);
    }

    /// The servers to use from now on. Those named before keep their allocations.
    pub fn set_servers(&mut self, now: Instant, servers: Vec<IceServer>) {
        self.turn = servers
            .iter()
            .filter(|s| s.kind == IceServerKind::Turn)
            .filter_map(|s| {
                let credential = Credential {
                    username: s.username.clone()?,
                    password: s.password.clone()?,
                    expires: s.expires_in.and_then(|e| now.checked_add(e)),
                };
                Some(TurnServer {
                    addr: s.addr,
                    credential,
                })
            })
            .collect();
        self.servers = servers.iter().map(|s| s.addr).collect();
        for i in 0..self.allocations.len() {
            let server = self.allocations[i].server;
            let credential = self
                .turn
                .iter()
                .find(|t| t.addr == server)
                .map(|t| t.credential.clone());
            self.with_allocation(now, i, |allocation, cx| match credential {
                Some(credential) => allocation.set_credential(cx, credential),
                None => allocation.close(cx),
            });
        }
        self.set_reflexive(now);
        self.update(now);
    }

    /// Gives every allocation back. Only what [`Self::poll_transmit`] gives is left to do.
    pub fn close(&mut self, now: Instant) {
        for i in 0..self.allocations.len() {
            self.with_allocation(now, i, |allocation, cx| allocation.close(cx));
        }
        self.reflexive.clear();
        self.turn.clear();
        self.sockets.clear();
        self.update(now);
    }

    /// The candidates there are now.
    pub fn candidates(&self) -> &[LocalCandidate] {
        &self.candidates
    }

    /// Sorts out a datagram that arrived at the socket `local`.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        payload: BytesMut,
    ) -> Inbound {
        if !self.servers.contains(&remote) && !self.allocations.iter().any(|a| a.server == remote) {
            return Inbound::Direct(payload);
        }
        match DatagramClass::of(&payload) {
            DatagramClass::TurnChannel => self.handle_channel(local, remote, payload),
            DatagramClass::Stun => self.handle_stun(now, local, remote, &payload),
            DatagramClass::Dtls | DatagramClass::Unknown => Inbound::Unknown,
        }
    }

    /// Sends a datagram, through the relay when `transmit.local` is a relayed address.
    pub fn send(&mut self, now: Instant, transmit: Transmit) -> Result<(), DropReason> {
        let relay = self
            .allocations
            .iter()
            .position(|a| a.relayed() == Some(transmit.local));
        let Some(i) = relay else {
            if !self.sockets.contains(&transmit.local) {
                return Err(DropReason::SendFailed);
            }
            self.transmits.push_back(transmit);
            return Ok(());
        };
        let mut result = Ok(());
        let (deadline, requests) = (self.deadline, self.allocations[i].requests());
        self.with_allocation(now, i, |allocation, cx| {
            result = allocation.send(cx, transmit.remote, transmit.payload);
        });
        if self.allocations[i].requests() == requests {
            // Data alone changes no deadline, and finding it anew for every packet would be slow.
            self.deadline = deadline;
        }
        result
    }

    /// How datagrams from `local` to `remote` travel, when it takes no more than a header: straight
    /// from a socket, or in a bound channel of an allocation.
    pub fn route(&self, local: SocketAddr, remote: SocketAddr) -> Option<Route> {
        if self.sockets.contains(&local) {
            return Some(Route {
                local,
                remote,
                channel: None,
            });
        }
        let allocation = self
            .allocations
            .iter()
            .find(|a| a.relayed() == Some(local))?;
        Some(Route {
            local: allocation.socket,
            remote: allocation.server,
            channel: Some(allocation.channel_to(remote)?),
        })
    }

    /// Whether there is any allocation.
    pub fn relays(&self) -> bool {
        !self.allocations.is_empty()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        for reflexive in &mut self.reflexive {
            if let Some(payload) = reflexive.handle_timeout(now, &mut self.rng) {
                let (local, remote) = (reflexive.socket, reflexive.server);
                self.transmits.push_back(Transmit {
                    local,
                    remote,
                    payload,
                });
            }
        }
        for i in 0..self.allocations.len() {
            self.with_allocation(now, i, |allocation, cx| allocation.handle_timeout(cx));
        }
        self.update(now);
    }

    /// When [`Self::handle_timeout`] is next due.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        *self.deadline.get_or_insert_with(|| {
            let reflexive = self.reflexive.iter().map(Reflexive::poll_timeout);
            let allocations = self.allocations.iter().filter_map(Allocation::poll_timeout);
            reflexive.chain(allocations).min()
        })
    }

    /// Next datagram for a socket.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<GatherEvent> {
        self.events.pop_front()
    }

    fn handle_channel(&self, local: SocketAddr, remote: SocketAddr, payload: BytesMut) -> Inbound {
        let allocation = self
            .allocations
            .iter()
            .find(|a| a.socket == local && a.server == remote);
        let unwrapped = allocation.and_then(|allocation| {
            let (number, payload) = turn::parse_channel_data(payload)?;
            Some((
                allocation.relayed()?,
                allocation.channel_peer(number)?,
                payload,
            ))
        });
        match unwrapped {
            Some((local, remote, payload)) => Inbound::Relayed {
                local,
                remote,
                payload,
            },
            None => Inbound::Unknown,
        }
    }

    fn handle_stun(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        payload: &[u8],
    ) -> Inbound {
        let Some(mut message) = stun::decode(payload) else {
            return Inbound::Unknown;
        };
        let at = self
            .allocations
            .iter()
            .position(|a| a.socket == local && a.server == remote);
        if message.typ.class == CLASS_INDICATION && message.typ.method == METHOD_DATA {
            let unwrapped = at.and_then(|i| {
                let (peer, payload) = turn::parse_data_indication(&message)?;
                let allocation = &self.allocations[i];
                allocation
                    .expects(peer)
                    .then_some((allocation.relayed()?, peer, payload))
            });
            return match unwrapped {
                Some((local, remote, payload)) => Inbound::Relayed {
                    local,
                    remote,
                    payload,
                },
                None => Inbound::Unknown,
            };
        }
        let reflexive = self
            .reflexive
            .iter_mut()
            .find(|r| r.socket == local && r.server == remote);
        let mut taken =
            reflexive.is_some_and(|r| r.handle_answer(now, &mut message, &mut self.rng));
        if let Some(i) = at
            && !taken
        {
            self.with_allocation(now, i, |allocation, cx| {
                taken = allocation.handle_answer(cx, &mut message);
            });
        }
        if !taken {
            return Inbound::Unknown;
        }
        self.update(now);
        Inbound::Consumed
    }

    /// One [`Reflexive`] for every socket and every server it can reach.
    fn set_reflexive(&mut self, now: Instant) {
        let servers = &self.servers;
        self.reflexive
            .retain(|r| self.sockets.contains(&r.socket) && servers.contains(&r.server));
        for socket in &self.sockets {
            for server in servers {
                let known = self
                    .reflexive
                    .iter()
                    .any(|r| r.socket == *socket && r.server == *server);
                if !known && can_reach(*socket, *server) {
                    self.reflexive.push(Reflexive::new(now, *socket, *server));
                }
            }
        }
    }

    /// Begins allocations that have become possible and reports how the candidates changed.
    fn update(&mut self, now: Instant) {
        // One that failed where the server has gone silent makes room for another socket.
        let reflexive = &self.reflexive;
        self.allocations.retain(|a| {
            let reachable =
                |r: &Reflexive| r.socket == a.socket && r.server == a.server && r.reachable;
            !a.is_waiting() || reflexive.iter().any(reachable)
        });
        for turn in &self.turn {
            let started = self.allocations.iter().any(|a| a.server == turn.addr);
            let from = self
                .reflexive
                .iter()
                .find(|r| r.server == turn.addr && r.reachable);
            if let (false, Some(from)) = (started, from) {
                let credential = turn.credential.clone();
                self.allocations
                    .push(Allocation::new(now, from.socket, turn.addr, credential));
            }
        }
        self.allocations.retain(|a| !a.is_finished());
        let wanted = offer::candidates(
            &self.sockets,
            &self.reflexive,
            &self.allocations,
            &mut self.foundations,
        );
        for gone in self.candidates.iter().filter(|c| !wanted.contains(c)) {
            self.events.push_back(GatherEvent::Lost(gone.clone()));
        }
        for new in wanted.iter().filter(|c| !self.candidates.contains(c)) {
            self.events.push_back(GatherEvent::Found(new.clone()));
        }
        self.candidates = wanted;
        self.deadline = None;
    }

    /// Runs `f` on an allocation and queues what it wants sent to its server.
    fn with_allocation(
        &mut self,
        now: Instant,
        i: usize,
        f: impl FnOnce(&mut Allocation, &mut Context<'_>),
    ) {
        let mut out = Vec::new();
        let mut dropped = Vec::new();
        let allocation = &mut self.allocations[i];
        f(
            allocation,
            &mut Context {
                now,
                rng: &mut self.rng,
                out: &mut out,
                dropped: &mut dropped,
            },
        );
        self.events
            .extend(dropped.into_iter().map(GatherEvent::Dropped));
        let (local, remote) = (allocation.socket, allocation.server);
        self.transmits
            .extend(out.into_iter().map(|payload| Transmit {
                local,
                remote,
                payload,
            }));
        self.deadline = None;
    }
}

/// Whether a datagram from `socket` can arrive at `server` at all.
fn can_reach(socket: SocketAddr, server: SocketAddr) -> bool {
    socket.is_ipv4() == server.is_ipv4()
        && offer::is_offered(socket)
        && socket.ip().is_loopback() == server.ip().is_loopback()
}
