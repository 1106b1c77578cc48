//! The candidates of a link, ours and the peer's, and the addresses that NATs gave ours.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use crate::candidate::{Candidate, CandidateKind, LocalCandidate};
use crate::status::PairEnd;

/// Most local candidates of a link.
const MAX_LOCAL: usize = 32;
/// Most remote candidates of a link, peer reflexive ones included.
pub(super) const MAX_REMOTE: usize = 64;

/// A base and a remote address.
pub(super) type Pair = (SocketAddr, SocketAddr);

/// See the module.
#[derive(Default)]
pub(super) struct Candidates {
    locals: Vec<LocalCandidate>,
    bases: HashSet<SocketAddr>,
    /// Bases that are gone.
    removed: HashSet<SocketAddr>,
    remotes: HashMap<SocketAddr, CandidateKind>,
    /// What the peer sees of a pair's base.
    mapped: HashMap<Pair, SocketAddr>,
}

impl Candidates {
    /// Ours, to signal.
    pub(super) fn to_signal(&self) -> Vec<Candidate> {
        let locals = self.locals.iter();
        locals.map(|local| local.candidate.clone()).collect()
    }

    /// Whether a local candidate is new and there is room for it.
    pub(super) fn takes_local(&self, local: &LocalCandidate) -> bool {
        !self.locals.contains(local) && self.locals.len() < MAX_LOCAL
    }

    /// Whether no candidate, and none that is gone, had this base.
    pub(super) fn is_new_base(&self, base: SocketAddr) -> bool {
        !self.bases.contains(&base)
    }

    pub(super) fn add_local(&mut self, local: LocalCandidate) {
        self.bases.insert(local.base);
        self.removed.remove(&local.base);
        self.locals.push(local);
    }

    /// Forgets a base.
    pub(super) fn remove_local(&mut self, base: SocketAddr) {
        self.locals.retain(|local| local.base != base);
        if self.bases.contains(&base) {
            self.removed.insert(base);
        }
    }

    /// Whether a base is there, and not gone.
    pub(super) fn has_base(&self, base: SocketAddr) -> bool {
        self.bases.contains(&base) && !self.is_removed(base)
    }

    pub(super) fn is_removed(&self, base: SocketAddr) -> bool {
        self.removed.contains(&base)
    }

    pub(super) fn has_remote(&self, addr: SocketAddr) -> bool {
        self.remotes.contains_key(&addr)
    }

    /// Whether there is room for a remote candidate.
    pub(super) fn takes_remote(&self) -> bool {
        self.remotes.len() < MAX_REMOTE
    }

    /// Adds a remote candidate, or says what the one of this address is.
    pub(super) fn set_remote(&mut self, addr: SocketAddr, kind: CandidateKind) {
        self.remotes.insert(addr, kind);
    }

    /// The peer sees a pair's base as this address.
    pub(super) fn map(&mut self, pair: Pair, mapped: SocketAddr) {
        self.mapped.insert(pair, mapped);
    }

    /// How many bases there are or were, and how many remote candidates.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.bases.len(), self.remotes.len())
    }

    /// A pair as candidates. Ours is the address the peer sees, when a check told it.
    pub(super) fn ends(&self, (base, remote): Pair) -> (PairEnd, PairEnd) {
        let addr = self.mapped.get(&(base, remote)).copied().unwrap_or(base);
        let local = self
            .locals
            .iter()
            .find(|local| local.base == base && local.candidate.addr == addr);
        let kind = match local {
            Some(local) => local.candidate.kind,
            None if addr == base => CandidateKind::Host,
            None => CandidateKind::Prflx,
        };
        let remote_kind = self.remotes.get(&remote).copied();
        (
            PairEnd { kind, addr },
            PairEnd {
                kind: remote_kind.unwrap_or(CandidateKind::Prflx),
                addr: remote,
            },
        )
    }
}
