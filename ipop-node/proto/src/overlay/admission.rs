//! How many links are set up at once.
//!
//! Each asks for checks of every pair and for a handshake, on both sides. A node that joins many
//! others would have all of theirs to answer at once: on a slow machine answers then come so late
//! that none counts any more, and no link comes up at all. So only some are begun together, and an
//! offer is answered when it is its turn; until then its sender checks nothing either.

use std::collections::VecDeque;
use std::time::Instant;

use super::Overlay;
use super::peer::PeerId;
use super::session::Session;

/// Most links that are set up at once.
const AT_ONCE: usize = 4;

/// Which links are being set up, and which are to be.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// Those begun of late.
    young: Vec<PeerId>,
    /// Who is next.
    waiting: VecDeque<PeerId>,
}

impl Overlay {
    /// Whether one more link may be begun. One that takes long, as to a peer that cannot be reached,
    /// keeps no others waiting.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        let table = &self.table;
        let session = |id| table.get(id).and_then(|peer| peer.session.as_ref());
        self.admission
            .young
            .retain(|id| session(*id).is_some_and(|s| s.is_young(now)));
        self.admission.young.len() < AT_ONCE
    }

    /// A link to a peer is begun.
    pub(super) fn begun(&mut self, id: PeerId) {
        if !self.admission.young.contains(&id) {
            self.admission.young.push(id);
        }
    }

    /// A link to a peer is to be begun when there is room.
    pub(super) fn wait(&mut self, id: PeerId) {
        if !self.admission.waiting.contains(&id) {
            self.admission.waiting.push_back(id);
        }
    }

    /// Begins those links that there is room for.
    pub(super) fn admit(&mut self, now: Instant) {
        while !self.admission.waiting.is_empty() && self.has_room(now) {
            if let Some(id) = self.admission.waiting.pop_front() {
                self.advance(now, id);
            }
        }
    }

    /// When there is room at the latest, if anybody waits for it.
    pub(super) fn next_admission(&self) -> Option<Instant> {
        if self.admission.waiting.is_empty() {
            return None;
        }
        let young = self.admission.young.iter();
        let sessions = young.filter_map(|id| self.table.get(*id)?.session.as_ref());
        sessions.map(Session::young_until).min()
    }
}
