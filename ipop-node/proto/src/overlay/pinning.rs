//! An overlay without an authority, where this node's owner approves every peer that comes by an account: see
//! [`crate::pinning`].
//!
//! Each end sees to it by itself, so that a link comes up when both owners have approved. Presence only
//! shows who waits. What makes a peer the approved one is the key that its handshake shows, which has to be
//! that of the pin, whatever was signalled.

use std::time::Instant;

use super::peer::{Peer, PeerId};
use super::table::{bare, fits};
use super::{Output, Overlay};
use crate::address::OverlayAddrs;
use crate::authority::Claim;
use crate::pinning::{Pins, Standing};
use crate::signal::{Fingerprint, TerminateReason};
use crate::status::Advertisement;

/// Most accounts that are looked at and not approved: whoever runs the server can make up any number.
const MOST_WAITING: usize = 64;
/// Most resources of one account that are not what was approved.
const MOST_RESOURCES: usize = 4;

/// Who was approved.
#[derive(Debug, Default)]
pub(super) struct Approvals {
    pub(super) pins: Pins,
    /// How often somebody came who is not looked at.
    pub(super) unheard: u64,
}

/// Why a peer has no link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) why: String,
    /// Not only that nobody has approved it yet.
    pub(super) is_alarm: bool,
}

impl From<String> for Unfit {
    fn from(why: String) -> Self {
        Self {
            why,
            is_alarm: true,
        }
    }
}

impl Overlay {
    /// Has a link to nobody who comes by an account and is not in `pins`, from now on. Links to others end.
    pub fn set_pins(&mut self, now: Instant, pins: Pins) {
        self.approvals.get_or_insert_default().pins = pins;
        for id in self.table.ids() {
            self.judge_again(now, id);
        }
        self.admit(now);
    }

    /// What the owners of other nodes approve this one by; none where this node approves nobody.
    pub fn pinned_by(&self) -> Option<Fingerprint> {
        let approvals = self.approvals.as_ref();
        approvals.map(|_| self.identity.fingerprint())
    }

    /// What somebody is to this node who comes by `account` and advertises this; none where nobody has to be
    /// approved.
    pub(super) fn standing(
        &self,
        account: &str,
        name: &str,
        addrs: &OverlayAddrs,
        key: Option<Fingerprint>,
    ) -> Option<Standing> {
        let approvals = self.approvals.as_ref()?;
        if key == Some(self.identity.fingerprint()) {
            return Some(Standing::Refused("it has this node's own key".to_owned()));
        }
        if name == self.config.name {
            let why = format!("it calls itself {name}, as this node does");
            return Some(Standing::Refused(why));
        }
        if let Err(why) = fits(addrs, &self.config.addrs) {
            return Some(Standing::Refused(why));
        }
        let configured = self.table.iter().filter_map(|it| it.configured.as_ref());
        for other in configured {
            let taken = match () {
                () if key == Some(other.fingerprint) => "the key",
                () if name == other.name => "the name",
                () if addrs.is(other.addrs.ipv4.addr.into())
                    || addrs.is(other.addrs.ipv6.addr.into()) =>
                {
                    "an address"
                }
                () => continue,
            };
            let why = format!("it has {taken} of {}, a peer by configuration", other.name);
            return Some(Standing::Refused(why));
        }
        let claim = Claim {
            name: name.to_owned(),
            ipv4: addrs.ipv4.addr,
            ipv6: addrs.ipv6.addr,
        };
        Some(approvals.pins.standing(account, &claim, key))
    }

    /// The same of one advertisement.
    pub(super) fn advertised(
        &self,
        account: &str,
        advertisement: &Advertisement,
    ) -> Option<Standing> {
        let Advertisement {
            name,
            addrs,
            fingerprint,
            ..
        } = advertisement;
        self.standing(account, name, addrs, *fingerprint)
    }

    /// Whether a peer is what was approved, where it has to be. A peer by configuration does not have to.
    pub(super) fn is_approved(&self, id: PeerId) -> Result<(), Unfit> {
        let Some(peer) = self.table.get(id).filter(|it| it.configured.is_none()) else {
            return Ok(());
        };
        match self.standing(bare(&peer.jid), &peer.name, &peer.addrs, peer.key) {
            None | Some(Standing::Approved) => Ok(()),
            Some(Standing::Waits) => Err(Unfit {
                why: match peer.key {
                    None => NO_KEY.to_owned(),
                    Some(_) => "its key is not approved yet, see `ipop-node peers`".to_owned(),
                },
                is_alarm: false,
            }),
            Some(Standing::Changed(why) | Standing::Refused(why)) => Err(why.into()),
        }
    }

    /// Whether one more account is looked at. Those that were approved always are.
    pub(super) fn has_place(&mut self, jid: &str, advertisement: &Advertisement) -> bool {
        let account = bare(jid);
        let standing = self.advertised(account, advertisement);
        let Some(approvals) = &mut self.approvals else {
            return true;
        };
        if standing == Some(Standing::Approved) {
            return true;
        }
        let refused = |it: &&Peer| it.configured.is_none() && it.refused.is_some();
        let has_place = self.table.iter().filter(refused).count() < MOST_WAITING;
        approvals.unheard += u64::from(!has_place);
        has_place
    }

    /// Forgets the oldest of a peer's resources that are not what was approved, when there are many.
    pub(super) fn trim_resources(&mut self, id: PeerId) {
        let Some(peer) = self.table.get(id).filter(|_| self.approvals.is_some()) else {
            return;
        };
        let is_other = |(jid, it): &(String, Advertisement)| {
            self.advertised(bare(jid), it) != Some(Standing::Approved)
        };
        let others = || peer.resources.iter().filter(|it| is_other(it));
        if others().count() <= MOST_RESOURCES {
            return;
        }
        let oldest = peer.resources.iter().position(is_other);
        if let (Some(oldest), Some(peer)) = (oldest, self.table.get_mut(id)) {
            peer.resources.remove(oldest);
        }
    }

    /// Which of a peer's resources counts: the last, but where peers have to be approved the last that was.
    pub(super) fn counting(&self, peer: &Peer) -> Option<usize> {
        let last = peer.resources.len().checked_sub(1)?;
        let is_approved = |(jid, it): &(String, Advertisement)| {
            self.advertised(bare(jid), it) == Some(Standing::Approved)
        };
        let approved = match self.approvals {
            Some(_) => peer.resources.iter().rposition(is_approved),
            None => None,
        };
        Some(approved.unwrap_or(last))
    }

    /// Whether what a peer advertises is what was approved, where it has to be.
    pub(super) fn stands(&self, peer: &Peer) -> bool {
        if self.approvals.is_none() || peer.configured.is_some() {
            return true;
        }
        let counting = self.counting(peer).and_then(|at| peer.resources.get(at));
        counting.is_some_and(|(jid, it)| self.advertised(bare(jid), it) == Some(Standing::Approved))
    }

    /// Why a link with a certificate of this fingerprint, as it was signalled, is not one to the approved peer.
    pub(super) fn is_other_key(&self, id: PeerId, signalled: Fingerprint) -> Option<String> {
        let approvals = self.approvals.as_ref()?;
        let peer = self.table.get(id).filter(|it| it.configured.is_none())?;
        let pin = approvals.pins.of_account(bare(&peer.jid));
        let Some(pin) = pin else {
            return Some("its key is not approved".to_owned());
        };
        (pin.fingerprint != signalled).then(|| {
            format!(
                "another key was signalled than the approved one: fingerprint {signalled}, approved {}",
                pin.fingerprint
            )
        })
    }

    /// Tells that somebody waits to be approved.
    pub(super) fn tell_waiting(&mut self, id: PeerId) {
        let Some(peer) = self.table.get(id) else {
            return;
        };
        self.outputs.push_back(Output::Waits {
            account: bare(&peer.jid).to_owned(),
            peer: peer.name.clone(),
            fingerprint: peer.key,
        });
    }

    /// What was approved has changed.
    fn judge_again(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.table.get(id).filter(|it| it.configured.is_none()) else {
            return;
        };
        let was_refused = peer.refused.is_some();
        if self.is_approved(id).is_err() {
            let why = "this node's owner has not approved the peer as it is";
            self.end(now, id, why, Some(TerminateReason::GeneralError));
        }
        self.take_newest(now, id);
        let Some(peer) = self.table.get_mut(id) else {
            return;
        };
        if was_refused && peer.refused.is_none() {
            // The other side may have been refused before, and is in no hurry to ask again.
            peer.asks = true;
            peer.backoff.reset();
            peer.since = now;
            peer.failure = None;
            self.advance(now, id);
        }
    }
}

/// Of a peer that cannot be approved.
pub(super) const NO_KEY: &str =
    "it does not say which key it has: its configuration has no [pinning]";
