//! What the data path needs to carry a peer's packets without asking: told whenever it changes.

use std::sync::Arc;
use std::time::Instant;

use ipop_datapath::fragment::Fragments;
use ipop_datapath::policy::Gate;

use super::peer::{Peer, PeerId};
use super::traffic::Traffic;
use super::{Output, Overlay};
use crate::address::OverlayAddrs;
use crate::link::Keys;
use crate::net::Route;
use crate::status::LinkState;

/// The way to a peer whose link is up.
#[derive(Debug, Clone)]
pub struct PeerPath {
    /// Overlay addresses that are the peer's, and nobody else's.
    pub addrs: OverlayAddrs,
    /// Where datagrams go.
    pub route: Route,
    /// What seals and opens its records.
    pub keys: Keys,
    /// What packets of the peer, and for it, have to pass; everything does where there is none. Its
    /// seconds are counted from when the overlay was made.
    pub gate: Option<Arc<Gate>>,
    /// Its packets in pieces.
    pub fragments: Arc<Fragments>,
    /// Where to count.
    pub traffic: Arc<Traffic>,
}

/// Names the peer of a [`PeerPath`] for as long as the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerKey(pub u64);

impl From<PeerId> for PeerKey {
    fn from(id: PeerId) -> Self {
        Self(id.0)
    }
}

impl Overlay {
    /// Tells the way to a peer if it is another one than was told last.
    pub(super) fn tell_path(&mut self, id: PeerId) {
        let is_up = self.table.get(id).is_some_and(Peer::is_up);
        let gate = if is_up { self.gate(id) } else { None };
        let Some(peer) = self.table.get_mut(id) else {
            return;
        };
        let link = peer.session.as_mut().map(|session| &mut session.link);
        let Some(link) = link.filter(|link| *link.state() == LinkState::Up) else {
            if peer.path.take().is_some() {
                self.outputs.push_back(Output::Path {
                    peer: id.into(),
                    path: None,
                });
            }
            return;
        };
        let route = link.selected().and_then(|(local, remote)| {
            // Through a relay only in a channel: until there is one, packets go by the overlay.
            self.gatherer.route(local, remote)
        });
        let fragments = link.fragments().clone();
        let keys = link.poll_keys();
        if keys.is_some() {
            peer.keys = keys;
        } else if peer.path == route && is_same(peer.told_gate.as_ref(), gate.as_ref()) {
            return;
        }
        let told = peer.path.is_some();
        peer.path = route;
        peer.told_gate.clone_from(&gate);
        let path = route.zip(peer.keys.clone()).map(|(route, keys)| PeerPath {
            addrs: peer.addrs,
            route,
            keys,
            gate,
            fragments,
            traffic: peer.traffic.clone(),
        });
        if told || path.is_some() {
            self.outputs.push_back(Output::Path {
                peer: id.into(),
                path,
            });
        }
    }

    /// A record of a peer made with new keys was opened outside.
    pub(super) fn keys_heard(&mut self, now: Instant, peer: PeerKey) {
        let id = PeerId(peer.0);
        if let Some(session) = self.table.get_mut(id).and_then(|p| p.session.as_mut()) {
            session.link.confirm_keys(now);
            self.advance(now, id);
        }
    }

    /// A peer's session ends: so does the way to it.
    pub(super) fn withdraw_path(&mut self, id: PeerId) {
        let Some(peer) = self.table.get_mut(id) else {
            return;
        };
        peer.keys = None;
        if peer.path.take().is_some() {
            self.outputs.push_back(Output::Path {
                peer: id.into(),
                path: None,
            });
        }
    }

    /// Channels may have come or gone.
    pub(super) fn tell_paths(&mut self) {
        for id in self.table.ids() {
            self.tell_path(id);
        }
    }
}

fn is_same(one: Option<&Arc<Gate>>, other: Option<&Arc<Gate>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}
