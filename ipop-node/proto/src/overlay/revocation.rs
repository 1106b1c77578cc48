//! Certificates that are good no more: revocation lists as they come, and what they do.

use std::sync::Arc;
use std::time::Instant;

use super::peer::PeerId;
use super::{Output, Overlay, PeerKey};
use crate::authority::{ListError, RevocationList};
use crate::gossip::message::{ListId, Message};
use crate::status::DropReason;

impl Overlay {
    /// Takes a revocation list that whoever runs this node has got; whether it is a newer one. It
    /// ends the links to peers whose certificates are on it, and is passed on to all others.
    ///
    /// # Errors
    ///
    /// When it is older than the one there is, or not of an authority that is believed here.
    pub fn revoke(&mut self, now: Instant, list: RevocationList) -> Result<bool, ListError> {
        let is_newer = self.take_list(now, list, None)?;
        self.drain_gossip(now);
        Ok(is_newer)
    }

    /// Whoever has the [`PeerPath`](super::PeerPath) of `peer` opened a record with what the peer
    /// itself says.
    pub fn handle_control(&mut self, now: Instant, peer: PeerKey, message: &[u8]) {
        self.control_arrived(now, PeerId(peer.0), message);
    }

    /// What a peer says, decrypted.
    pub(super) fn control_arrived(&mut self, now: Instant, id: PeerId, message: &[u8]) {
        let Some(peer) = self.table.get(id) else {
            return self.drop(DropReason::NoLink);
        };
        let (Some(trust), Some(message)) = (&mut self.trust, Message::read(message)) else {
            return peer.traffic.dropped(DropReason::UnknownContent);
        };
        if trust.gossip.handle_message(id, message, now).is_err() {
            peer.traffic.dropped(DropReason::BadList);
        }
        self.drain_gossip(now);
    }

    /// Does what is due about revocation lists.
    pub(super) fn gossip_timeout(&mut self, now: Instant) {
        if let Some(trust) = &mut self.trust {
            trust.gossip.handle_timeout(now);
            self.drain_gossip(now);
        }
    }

    /// A peer's link is up.
    pub(super) fn gossip_linked(&mut self, now: Instant, id: PeerId) {
        if let Some(trust) = &mut self.trust {
            trust.gossip.linked(id, now);
            self.drain_gossip(now);
        }
    }

    /// Tells peers what there is to tell, and looks at the lists that came from them.
    fn drain_gossip(&mut self, now: Instant) {
        while let Some(trust) = &mut self.trust {
            if let Some((id, message)) = trust.gossip.poll_message() {
                self.tell(now, id, &message.bytes());
            } else if let Some((id, list, der)) = trust.gossip.poll_list() {
                self.look_at_list(now, id, list, &der);
            } else {
                return;
            }
        }
    }

    pub(super) fn tell(&mut self, now: Instant, id: PeerId, message: &[u8]) {
        let Some(peer) = self.table.get_mut(id) else {
            return;
        };
        let sent = match &mut peer.session {
            Some(session) => session.link.send_control(message),
            None => Err(DropReason::NoLink),
        };
        match sent {
            Ok(()) => self.flush_link(now, id),
            Err(reason) => peer.traffic.dropped(reason),
        }
    }

    /// A list came from a peer, which said that it is this one.
    fn look_at_list(&mut self, now: Instant, id: PeerId, claimed: ListId, der: &[u8]) {
        let taken =
            RevocationList::from_der(der).and_then(|list| match list.number() == claimed.number {
                true => self.take_list(now, list, Some(id)),
                false => Err(ListError::Misnumbered),
            });
        let Err(error) = taken else {
            return;
        };
        if let Some(trust) = &mut self.trust {
            trust.gossip.distrust(id, claimed, now);
        }
        if let Some(peer) = self.table.get(id) {
            peer.traffic.dropped(DropReason::BadList);
        }
        self.refuse(
            now,
            id,
            &format!("its revocation list is not taken: {error}"),
        );
    }

    fn take_list(
        &mut self,
        now: Instant,
        list: RevocationList,
        from: Option<PeerId>,
    ) -> Result<bool, ListError> {
        let trust = self.trust.as_mut().ok_or(ListError::Stranger)?;
        let Some(list) = trust.authority.take(list)? else {
            return Ok(false);
        };
        for (authority, held) in trust.authority.lists() {
            if Arc::ptr_eq(&held, &list) {
                let number = list.number();
                trust
                    .gossip
                    .hold(ListId { authority, number }, list.der(), now);
            }
        }
        let from = from.and_then(|id| self.table.get(id));
        self.outputs.push_back(Output::Revoked {
            from: from.map(|peer| peer.name.clone()),
            list,
        });
        for id in self.table.ids() {
            if let Some(session) = self.table.get_mut(id).and_then(|p| p.session.as_mut()) {
                session.link.look_again();
                self.advance(now, id);
            }
        }
        Ok(true)
    }
}
