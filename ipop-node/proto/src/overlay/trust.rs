//! An overlay with an authority: what presence claims, and what a certificate grants.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::peer::{Peer, PeerId};
use super::pinning::Unfit;
use super::{Identity, Overlay};
use crate::authority::{Authority, Claim, Refused, WallClock};
use crate::gossip::Gossip;
use crate::gossip::message::ListId;
use crate::link::Trust;

/// Whom to believe.
#[derive(Debug)]
pub(super) struct OverlayTrust {
    pub(super) authority: Arc<Authority>,
    pub(super) clock: Arc<WallClock>,
    /// What is said with peers about revocation lists.
    pub(super) gossip: Gossip<PeerId>,
}

impl OverlayTrust {
    /// Whether nobody believes this node any more, who it says it is.
    fn has_revoked(&self, identity: &Identity) -> bool {
        let certified = self.authority.certify(identity.chain(), self.clock.now());
        certified == Err(Refused::Revoked)
    }
}

impl Overlay {
    /// Believes nobody but `authority` about who peers are, from the next link on; to be called
    /// before there is one. The revocation lists that it has count, and are passed on. `time` is the
    /// time of day, see [`Self::set_time`].
    pub fn set_authority(&mut self, now: Instant, authority: Arc<Authority>, time: SystemTime) {
        let mut gossip = Gossip::new(authority.ids());
        for (authority, list) in authority.lists() {
            let number = list.number();
            gossip.hold(ListId { authority, number }, list.der(), now);
        }
        self.trust = Some(OverlayTrust {
            authority,
            clock: Arc::new(WallClock::new(time)),
            gossip,
        });
    }

    /// Whether the authority has revoked this node's own certificate: no peer has a link with it, and
    /// what it may still do is to pass the list on.
    pub fn is_revoked(&self) -> bool {
        let trust = self.trust.as_ref();
        trust.is_some_and(|trust| trust.has_revoked(&self.identity))
    }

    /// Tells the time of day, which certificates are valid by. It is looked at in each handshake, and
    /// every 15 s for each link.
    pub fn set_time(&mut self, now: SystemTime) {
        if let Some(trust) = &self.trust {
            trust.clock.set(now);
        }
    }

    /// Shows another certificate from now on: in new links, and in those there are when their keys
    /// are renewed the next time.
    pub fn set_identity(&mut self, identity: Identity) {
        self.identity = Arc::new(identity);
        for id in self.table.ids() {
            if let Some(session) = self.table.get_mut(id).and_then(|p| p.session.as_mut()) {
                session.link.set_identity(self.identity.clone());
            }
        }
    }

    /// Whose address this is; where only a link can tell, and there is none yet, somebody's who claims
    /// it.
    pub(super) fn whose(&self, addr: IpAddr) -> Option<PeerId> {
        let claimant = || self.table.claimant(addr).filter(|_| self.trust.is_some());
        self.table.route(addr).or_else(claimant)
    }

    /// Gives a peer the addresses that it claims, or says why it cannot have them. With an authority
    /// it has them when it has a link, see [`Self::grant`].
    /// Where peers have to be approved, only those that are have any.
    pub(super) fn take_claim(&mut self, id: PeerId) -> Result<(), Unfit> {
        if let Err(unfit) = self.is_approved(id) {
            self.table.release(id);
            return Err(unfit);
        }
        let taken = match self.trust {
            None => self.table.claim(id, &self.config.addrs),
            Some(_) => self.table.admits(id, &self.config.addrs),
        };
        Ok(taken?)
    }

    /// What a link to a peer has to be shown beside the fingerprint.
    pub(super) fn trust_in(&self, id: PeerId) -> Option<Trust> {
        let trust = self.trust.as_ref()?;
        Some(Trust {
            authority: trust.authority.clone(),
            clock: trust.clock.clone(),
            claim: self.table.get(id)?.claim(),
        })
    }

    /// The addresses of a peer whose link is up are its own by its certificate; whether nobody else
    /// has them by another one.
    pub(super) fn grant(&mut self, now: Instant, id: PeerId) -> Result<(), String> {
        if self.trust.is_none() {
            return Ok(());
        }
        let claimed = self.table.claim(id, &self.config.addrs);
        if let Err(why) = &claimed {
            self.refuse(now, id, why);
        }
        claimed
    }
}

impl Peer {
    /// Who it says it is.
    pub(super) fn claim(&self) -> Claim {
        Claim {
            name: self.name.clone(),
            ipv4: self.addrs.ipv4.addr,
            ipv6: self.addrs.ipv6.addr,
        }
    }
}
