//! Who is there, and which of them are refused.

use std::time::Instant;

use super::Overlay;
use super::peer::{Peer, PeerId};
use super::pinning::Unfit;
use super::table::bare;
use crate::authority::Claim;
use crate::link::IceRole;
use crate::pinning::Standing;
use crate::signal::TerminateReason;
use crate::status::Advertisement;

impl Overlay {
    pub(super) fn present(&mut self, now: Instant, jid: String, advertisement: Advertisement) {
        let own = self.me.as_deref().is_some_and(|me| bare(me) == bare(&jid));
        if self.left || self.me.is_none() || own {
            return;
        }
        let standing = self.advertised(bare(&jid), &advertisement);
        // What somebody else says who has the account does not matter to the approved peer.
        let is_heard = !matches!(&standing, Some(it) if *it != Standing::Approved);
        let key = advertisement.fingerprint;
        let id = match self.table.by_jid(&jid) {
            Some(id) => id,
            None if !self.has_place(&jid, &advertisement) => return,
            None => self
                .table
                .insert(Peer::new(now, jid.clone(), &advertisement)),
        };
        let me = self.config.name.clone();
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let names_me = advertisement.linked.contains(&me);
        let known = peer
            .resources
            .iter_mut()
            .find(|(resource, _)| *resource == jid);
        let came = known.is_none();
        let named_me = known.as_ref().is_some_and(|(_, a)| a.linked.contains(&me));
        match known {
            Some((_, known)) => *known = advertisement,
            None => peer.resources.push((jid, advertisement)),
        }
        let lost = is_heard
            && peer.session.as_ref().is_some_and(|s| {
                (came && s.was_up && !names_me) || (named_me && !names_me && s.is_settled(now))
            });
        // What was asked of it before it came (back) will not be answered.
        let moot = is_heard
            && came
            && peer
                .session
                .as_ref()
                .is_some_and(|s| s.role == IceRole::Controlling && !s.was_up);
        if came && is_heard {
            peer.backoff.reset();
            if peer.session.is_none() {
                peer.since = now;
                peer.failure = None;
            }
        }
        if lost {
            self.end(
                now,
                id,
                "the peer no longer has the link; it may have restarted",
                None,
            );
        }
        if moot {
            self.end(now, id, "the peer signed in anew", None);
        }
        self.trim_resources(id);
        self.take_newest(now, id);
        let Some(Standing::Changed(why) | Standing::Refused(why)) = standing else {
            return;
        };
        // Otherwise it was told with the peer itself.
        if self.table.get(id).is_some_and(|it| it.refused.is_none()) {
            self.refuse_key(now, id, key, &why);
        }
    }

    pub(super) fn gone(&mut self, now: Instant, jid: &str) {
        let Some(id) = self.table.by_jid(jid) else {
            return;
        };
        if let Some(peer) = self.peer_mut(id) {
            peer.resources.retain(|(resource, _)| resource != jid);
        }
        self.take_newest(now, id);
    }

    pub(super) fn expelled(&mut self, now: Instant, bare: &str) {
        let Some(id) = self.table.by_jid(bare) else {
            return;
        };
        let why = "the peer is no longer a member";
        self.end(now, id, why, Some(TerminateReason::Success));
        self.table.remove(id);
        self.settle_refused(now);
    }

    /// A session with the resource that counts came to nothing: should the peer have others, this
    /// one may be what is left of a connection that died, and it is the next one's turn.
    pub(super) fn take_next(&mut self, now: Instant, id: PeerId) {
        if let Some(peer) = self.peer_mut(id)
            && peer.resources.len() > 1
        {
            peer.resources.rotate_right(1);
        }
        self.take_newest(now, id);
    }

    /// Makes the newest resource of a peer the one that counts, and sees to its addresses.
    pub(super) fn take_newest(&mut self, now: Instant, id: PeerId) {
        let counting = self.table.get(id).and_then(|peer| self.counting(peer));
        let Some(peer) = self.table.get_mut(id) else {
            return;
        };
        if let Some((jid, advertisement)) = counting.and_then(|at| peer.resources.get(at)) {
            // A session that never worked was with the older resource.
            let stale = peer.jid != *jid && peer.session.as_ref().is_some_and(|s| !s.was_up);
            let claim = Claim::of(advertisement);
            let is_other = peer.claim() != claim || peer.key != advertisement.fingerprint;
            let is_vouched_for = self.trust.is_some() || self.approvals.is_some();
            let is_new = is_vouched_for && is_other;
            if is_new && self.approvals.is_some() && peer.is_up() {
                // Whoever that is, it was told when it came.
                return self.advance(now, id);
            }
            peer.jid.clone_from(jid);
            if is_new && peer.is_up() {
                // Whoever says so, the certificate of the link says otherwise.
                let why = format!(
                    "it now claims to be {claim}, and has a link as {}",
                    peer.claim()
                );
                self.refuse(now, id, &why);
                return self.advance(now, id);
            }
            let moved = peer.addrs != advertisement.addrs;
            peer.name.clone_from(&advertisement.name);
            peer.key = advertisement.fingerprint;
            let addrs = advertisement.addrs;
            if moved {
                self.table.release(id);
                if let Some(peer) = self.table.get_mut(id) {
                    peer.addrs = addrs;
                }
            }
            if stale {
                self.end(now, id, "the peer signed in anew", None);
            }
            if is_new {
                self.end(now, id, "the peer claims to be another one", None);
            }
            self.settle(now, id);
            if moved {
                self.settle_refused(now);
            }
        }
        self.advance(now, id);
    }

    /// Claims a peer's addresses, or refuses the peer.
    fn settle(&mut self, now: Instant, id: PeerId) {
        let refused = self.take_claim(id).err();
        let Some(peer) = self.table.get_mut(id) else {
            return;
        };
        let why = refused.as_ref().map(|unfit| unfit.why.clone());
        let newly = peer.refused != why;
        peer.refused = why;
        if let (true, Some(Unfit { why, is_alarm })) = (newly, refused) {
            match is_alarm {
                true => self.refuse(now, id, &why),
                false => self.tell_waiting(id),
            }
            self.end(now, id, &why, Some(TerminateReason::GeneralError));
        }
    }

    /// Addresses may have become free: looks at the refused peers again.
    pub(super) fn settle_refused(&mut self, now: Instant) {
        for id in self.table.ids() {
            if self.table.get(id).is_some_and(|p| p.refused.is_some()) {
                self.settle(now, id);
                self.advance(now, id);
            }
        }
    }
}
