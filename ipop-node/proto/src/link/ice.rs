//! The ICE agent of a link (RFC 8445), with the parts the library leaves out: authentication before
//! interpretation, which address a NAT gave a pair, and when to check ([`Schedule`]).
//!
//! Deviations: a server reflexive local candidate is signalled but not paired, as its pairs are
//! those of its base (RFC 8445 section 6.1.2.4). There is no renomination: a link keeps the pair
//! it selected until that pair dies, which a NAT's loss of its mapping makes it do. A relayed pair
//! is therefore nominated late ([`RELAY_WAIT`]).

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rand::CryptoRng;
use rtc_ice::agent::Agent;
use rtc_ice::mdns::MulticastDnsMode;
use rtc_ice::{AgentConfig, Credentials};
use rtc_shared::{TaggedBytesMut, TransportContext};
use sansio::Protocol as _;

use super::candidates::{Candidates, MAX_REMOTE, Pair};
use super::form::{agent_candidate, ice_chars};
use super::nomination::Nomination;
use super::pace::{
    CHECK_LIFETIME, CHECK_PACE, CHECKING_TIMEOUT, KEEPALIVE_SILENT, REFLEXIVE_WAIT, RELAY_WAIT,
    UNANSWERED,
};
use super::schedule::Schedule;
use super::stun::{self, Binding};
use super::{IceCredentials, IceRole, provider};
use crate::candidate::{Candidate, CandidateKind, LocalCandidate};
use crate::net::Transmit;
use crate::signal::LinkDescription;
use crate::status::{DropReason, PairEnd};

/// Most checks of a link that wait for an answer.
const MAX_PENDING: usize = 2048;

/// Length of a new username fragment and password in characters of 6 random bits; RFC 8445
/// section 5.3 asks for 24 and 128 bits.
const UFRAG_CHARS: usize = 8;
const PWD_CHARS: usize = 32;

/// A check that waits for its answer.
struct Check {
    sent: Instant,
    pair: Pair,
    /// It is not the agent's.
    nominates: bool,
}

/// The ICE agent and what it is told.
pub(super) struct Ice {
    agent: Agent,
    role: IceRole,
    local: Credentials,
    remote: Option<Credentials>,
    relay_only: bool,
    candidates: Candidates,
    /// Remote candidates that came before the remote credentials.
    early: Vec<Candidate>,
    pending: HashMap<[u8; 12], Check>,
    out: VecDeque<Transmit>,
    schedule: Schedule,
    selected: Option<Pair>,
    rtt: Option<Duration>,
    /// The peer's, as its last check had it.
    tie_breaker: Option<u64>,
    /// It has become another one.
    anew: bool,
    nomination: Nomination,
}

impl Ice {
    pub(super) fn new(
        now: Instant,
        role: IceRole,
        relay_only: bool,
        credentials: Option<IceCredentials>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, String> {
        let all_known = credentials.is_some();
        let reflexive_wait = if all_known {
            Duration::ZERO
        } else {
            REFLEXIVE_WAIT
        };
        let IceCredentials { ufrag, pwd } = credentials.unwrap_or_else(|| IceCredentials {
            ufrag: ice_chars(rng, UFRAG_CHARS),
            pwd: ice_chars(rng, PWD_CHARS),
        });
        let local = Credentials { ufrag, pwd };
        let config = AgentConfig {
            local_ufrag: local.ufrag.clone(),
            local_pwd: local.pwd.clone(),
            is_controlling: role == IceRole::Controlling,
            // Names of the peer's choosing are not looked up.
            multicast_dns_mode: MulticastDnsMode::Disabled,
            // Both are counted here: the library counts a path as alive on any traffic.
            disconnected_timeout: Some(Duration::ZERO),
            failed_timeout: Some(Duration::ZERO),
            // The pace is set by when its timer is called; these only must not be longer.
            check_interval: CHECK_PACE,
            keepalive_interval: Some(KEEPALIVE_SILENT),
            max_binding_requests: Some(u16::MAX - 1),
            host_acceptance_min_wait: Some(Duration::ZERO),
            srflx_acceptance_min_wait: Some(reflexive_wait),
            prflx_acceptance_min_wait: Some(reflexive_wait),
            relay_acceptance_min_wait: Some(RELAY_WAIT),
            ..AgentConfig::default()
        };
        let agent = Agent::new(now, Arc::new(config), provider()).map_err(|e| e.to_string())?;
        Ok(Self {
            agent,
            role,
            local,
            remote: None,
            relay_only,
            candidates: Candidates::default(),
            early: Vec::new(),
            pending: HashMap::new(),
            out: VecDeque::new(),
            schedule: Schedule::new(now, all_known),
            selected: None,
            rtt: None,
            tie_breaker: None,
            anew: false,
            nomination: Nomination::default(),
        })
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.local
    }

    /// Candidates to signal.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        self.candidates.to_signal()
    }

    /// Starts checks. The library's own starting call is not used: it logs the peer's password.
    pub(super) fn start(&mut self, now: Instant, remote: &LinkDescription) -> Result<(), String> {
        let refused = |error: rtc_shared::error::Error| error.to_string();
        self.agent.apply_restart(now, true).map_err(refused)?;
        self.agent
            .set_remote_credentials(remote.ufrag.clone(), remote.pwd.clone())
            .map_err(refused)?;
        self.remote = Some(Credentials {
            ufrag: remote.ufrag.clone(),
            pwd: remote.pwd.clone(),
        });
        self.schedule.start(now);
        for candidate in std::mem::take(&mut self.early)
            .iter()
            .chain(&remote.candidates)
        {
            self.add_remote(now, candidate);
        }
        Ok(())
    }

    pub(super) fn add_local(&mut self, now: Instant, local: LocalCandidate) {
        let kind = local.candidate.kind;
        let excluded = self.relay_only && kind != CandidateKind::Relay;
        if excluded || !self.candidates.takes_local(&local) {
            return;
        }
        if self.candidates.is_new_base(local.base) {
            // A reflexive candidate stands for its base, which may itself not be signalled.
            let as_kind = match kind {
                CandidateKind::Relay => CandidateKind::Relay,
                _ => CandidateKind::Host,
            };
            let candidate = agent_candidate(local.base, as_kind, local.candidate.priority);
            let added = candidate.and_then(|candidate| self.agent.add_local_candidate(candidate));
            if added.is_err() {
                return;
            }
            self.schedule.candidate_came(now);
        }
        self.candidates.add_local(local);
    }

    /// Forgets a base; whether the selected pair was on it.
    pub(super) fn remove_local(&mut self, base: SocketAddr) -> bool {
        self.candidates.remove_local(base);
        self.selected.is_some_and(|(local, _)| local == base)
    }

    pub(super) fn add_remote(&mut self, now: Instant, candidate: &Candidate) {
        if self.remote.is_none() {
            if self.early.len() < MAX_REMOTE {
                self.early.push(candidate.clone());
            }
            return;
        }
        let ip = candidate.addr.ip();
        if candidate.addr.port() == 0 || ip.is_unspecified() || ip.is_multicast() {
            return;
        }
        if self.candidates.has_remote(candidate.addr) {
            // Met before it was signalled.
            return self.candidates.set_remote(candidate.addr, candidate.kind);
        }
        self.insert_remote(now, candidate.addr, candidate.kind, candidate.priority);
    }

    /// Whether datagrams between these addresses belong to this link.
    pub(super) fn knows(&self, base: SocketAddr, remote: SocketAddr) -> bool {
        self.candidates.has_base(base) && self.candidates.has_remote(remote)
    }

    pub(super) fn awaits(&self, transaction: &[u8; 12]) -> bool {
        self.pending.contains_key(transaction)
    }

    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        base: SocketAddr,
        remote: SocketAddr,
        payload: BytesMut,
    ) -> Result<(), DropReason> {
        let unknown = DropReason::UnknownDatagram;
        let peer = self.remote.as_ref().ok_or(unknown)?;
        if !self.candidates.has_base(base) {
            return Err(unknown);
        }
        let mut binding = Binding::decode(&payload).ok_or(unknown)?;
        if binding.is_request() {
            let addressed = stun::stun_username(&payload)
                == Some((self.local.ufrag.as_str(), peer.ufrag.as_str()));
            if !addressed || !binding.is_authentic(&self.local.pwd) {
                return Err(unknown);
            }
            let priority = binding.priority().ok_or(unknown)?;
            let tie_breaker = binding.tie_breaker();
            if !self.candidates.has_remote(remote) {
                // Type preference 0 is a relayed candidate whose signal is still on its way.
                let kind = match priority >> 24 {
                    0 => CandidateKind::Relay,
                    _ => CandidateKind::Prflx,
                };
                if !self.insert_remote(now, remote, kind, priority) {
                    return Err(DropReason::QueueFull);
                }
            }
            self.feed(now, base, remote, payload)?;
            self.met(now, tie_breaker);
            if self.is_patient() {
                let next = self.next_round();
                self.schedule.checked_by_peer(now, next);
            }
            Ok(())
        } else {
            let awaited = self.pending.get(&binding.transaction());
            if awaited.is_none_or(|check| check.pair != (base, remote))
                || !binding.is_authentic(&peer.pwd)
            {
                return Err(unknown);
            }
            let mapped = binding.mapped();
            if awaited.is_some_and(|check| check.nominates) {
                self.nomination.done();
            } else {
                self.feed(now, base, remote, payload)?;
            }
            if self.selected.is_none() {
                self.schedule.found();
            }
            let Some(check) = self.pending.remove(&binding.transaction()) else {
                return Err(unknown);
            };
            if let Some(mapped) = mapped {
                self.candidates.map(check.pair, mapped);
            }
            if self.selected == Some(check.pair) {
                self.schedule.settle();
                self.rtt = Some(now.saturating_duration_since(check.sent));
            }
            Ok(())
        }
    }

    /// Whether the peer has begun anew since this was last asked.
    pub(super) fn take_anew(&mut self) -> bool {
        std::mem::take(&mut self.anew)
    }

    /// An authentic check came, with this tie-breaker.
    fn met(&mut self, now: Instant, tie_breaker: Option<u64>) {
        let Some(tie_breaker) = tie_breaker else {
            return;
        };
        let before = self.tie_breaker.replace(tie_breaker);
        if before == Some(tie_breaker) {
            return;
        }
        self.anew |= before.is_some();
        if self.selected.is_none() {
            self.schedule.peer_came(now);
        } else if before.is_some() && self.role == IceRole::Controlling {
            self.nomination.begin(now);
            self.nominate(now);
        }
    }

    /// Nominates the selected pair once more, if that is due.
    fn nominate(&mut self, now: Instant) {
        let (Some(pair), Some(peer)) = (self.selected, &self.remote) else {
            return;
        };
        let Some(payload) = self.nomination.handle_timeout(now, &peer.pwd) else {
            return;
        };
        let Some(transaction) = stun::transaction(&payload) else {
            return;
        };
        let check = Check {
            sent: now,
            pair,
            nominates: true,
        };
        self.pending.insert(transaction, check);
        let (local, remote) = pair;
        self.out.push_back(Transmit {
            local,
            remote,
            payload,
        });
    }

    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        if !self.schedule.is_started() {
            return None;
        }
        let gives_up = self.schedule.gives_up(self.selected.is_some());
        [self.next_round(), self.nomination.poll_timeout(), gives_up]
            .into_iter()
            .flatten()
            .min()
    }

    /// Runs what is due. `carried` grows when the link carries something. An error is why the link
    /// has no path and will get none.
    pub(super) fn handle_timeout(&mut self, now: Instant, carried: u64) -> Result<(), String> {
        if !self.schedule.is_started() {
            return Ok(());
        }
        let gives_up = self.schedule.gives_up(self.selected.is_some());
        if gives_up.is_some_and(|at| at <= now) {
            return Err(self.why_given_up());
        }
        self.nominate(now);
        if Schedule::is_due(now, self.next_round(), self.is_patient()) {
            self.schedule.tick(now, carried);
            self.pending
                .retain(|_, check| now < check.sent + CHECK_LIFETIME);
            // The agent's timer only fails over mDNS, which is off.
            let _ = self.agent.handle_timeout(now);
            self.drain(now);
        }
        Ok(())
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front()
    }

    /// Base and remote address of the selected pair.
    pub(super) fn selected(&self) -> Option<Pair> {
        self.selected
    }

    /// The selected pair as candidates.
    pub(super) fn pair(&self) -> Option<(PairEnd, PairEnd)> {
        self.selected.map(|pair| self.candidates.ends(pair))
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Makes a remote candidate known to the agent; whether there was room.
    fn insert_remote(
        &mut self,
        now: Instant,
        addr: SocketAddr,
        kind: CandidateKind,
        priority: u32,
    ) -> bool {
        if !self.candidates.takes_remote() {
            return false;
        }
        let candidate = agent_candidate(addr, kind, priority)
            .and_then(|candidate| self.agent.add_remote_candidate(candidate));
        if candidate.is_err() {
            return false;
        }
        self.candidates.set_remote(addr, kind);
        self.schedule.candidate_came(now);
        true
    }

    fn feed(
        &mut self,
        now: Instant,
        base: SocketAddr,
        remote: SocketAddr,
        payload: BytesMut,
    ) -> Result<(), DropReason> {
        let transport = TransportContext {
            local_addr: base,
            peer_addr: remote,
            ..Default::default()
        };
        let result = self.agent.handle_read(TaggedBytesMut {
            now,
            transport,
            message: payload,
        });
        self.drain(now);
        result.map_err(|_| DropReason::UnknownDatagram)
    }

    /// Takes out what the agent wants sent, and whether it has selected a pair.
    fn drain(&mut self, now: Instant) {
        while let Some(message) = self.agent.poll_write() {
            let (base, remote) = (message.transport.local_addr, message.transport.peer_addr);
            if self.candidates.is_removed(base) {
                continue;
            }
            if stun::is_request(&message.message)
                && self.pending.len() < MAX_PENDING
                && let Some(transaction) = stun::transaction(&message.message)
            {
                if self.selected == Some((base, remote)) {
                    self.schedule.ask(now);
                }
                self.pending.insert(
                    transaction,
                    Check {
                        sent: now,
                        pair: (base, remote),
                        nominates: false,
                    },
                );
                self.nomination.learn(&message.message);
            }
            self.out.push_back(Transmit {
                local: base,
                remote,
                payload: message.message,
            });
        }
        while self.agent.poll_event().is_some() {}
        let selected = self
            .agent
            .get_selected_candidate_pair()
            .map(|(local, remote)| (local.base_addr(), remote.addr()));
        if selected != self.selected {
            self.selected = selected;
            self.schedule.settle();
        }
    }

    /// Whether the next check is due at some time within [`KEEPALIVE_EARLY`], not at one of its own.
    pub(super) fn is_patient(&self) -> bool {
        let settled = self.selected.is_some() && self.nomination.poll_timeout().is_none();
        settled && self.schedule.awaits_nothing()
    }

    /// When the next round of checks is due, if there is anything to check.
    fn next_round(&mut self) -> Option<Instant> {
        let (bases, remotes) = self.candidates.count();
        // Without pairs the agent could only complain.
        if bases == 0 || remotes == 0 {
            return None;
        }
        let wants = self.agent.poll_timeout()?;
        let is_selected = self.selected.is_some();
        Some(self.schedule.next(wants, bases * remotes, is_selected))
    }

    fn why_given_up(&self) -> String {
        let unanswered = |time: Duration| {
            let seconds = time.as_secs();
            format!("no answer on any candidate pair for {seconds} s")
        };
        match (self.selected, self.candidates.count()) {
            (Some(_), _) => unanswered(UNANSWERED),
            (None, (0, _)) => "this node has no candidate".to_owned(),
            (None, (_, 0)) => "the peer signalled no candidate".to_owned(),
            (None, _) => unanswered(CHECKING_TIMEOUT),
        }
    }
}
