//! Which peer a datagram from the underlay belongs to.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::peer::PeerId;

/// A base of this node and a remote transport address.
pub(super) type Pair = (SocketAddr, SocketAddr);

/// Pairs remembered for one peer; what it signals decides how many there are, so there is a limit.
const MAX_PAIRS: usize = 512;

/// Looks datagrams up by pair, STUN requests by username fragment.
#[derive(Debug, Default)]
pub(super) struct Demux {
    ufrags: HashMap<String, PeerId>,
    /// Peers that a pair was used for. One, unless a peer signals another one's address as its
    /// own: then each is asked, so that it cannot take what is not meant for it.
    pairs: HashMap<Pair, Vec<PeerId>>,
    used: HashMap<PeerId, Vec<Pair>>,
}

impl Demux {
    /// A link of `peer` uses `ufrag` from now on.
    pub(super) fn add_ufrag(&mut self, ufrag: &str, peer: PeerId) {
        self.ufrags.insert(ufrag.to_owned(), peer);
    }

    /// The link of `peer` sent to, or accepted something from, a pair.
    pub(super) fn add_pair(&mut self, pair: Pair, peer: PeerId) {
        let peers = self.pairs.entry(pair).or_default();
        if peers.contains(&peer) {
            return;
        }
        let used = self.used.entry(peer).or_default();
        if used.len() < MAX_PAIRS {
            used.push(pair);
            peers.push(peer);
        } else if peers.is_empty() {
            self.pairs.remove(&pair);
        }
    }

    /// The link of `peer` is over.
    pub(super) fn remove(&mut self, ufrag: &str, peer: PeerId) {
        self.ufrags.remove(ufrag);
        for pair in self.used.remove(&peer).into_iter().flatten() {
            if let Some(peers) = self.pairs.get_mut(&pair) {
                peers.retain(|p| *p != peer);
                if peers.is_empty() {
                    self.pairs.remove(&pair);
                }
            }
        }
    }

    /// Whose check carries this username fragment of ours.
    pub(super) fn by_ufrag(&self, ufrag: &str) -> Option<PeerId> {
        self.ufrags.get(ufrag).copied()
    }

    /// Who uses a pair.
    pub(super) fn by_pair(&self, pair: Pair) -> &[PeerId] {
        self.pairs.get(&pair).map_or(&[], Vec::as_slice)
    }
}
