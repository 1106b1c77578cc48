//! Who was refused because the authority does not say what they claim, or because they are not what was approved.

use std::time::Instant;

use super::peer::{Peer, PeerId};
use super::table::bare;
use super::{Output, Overlay};
use crate::journal::{Journal, Noted};
use crate::signal::Fingerprint;
use crate::status::AlarmStatus;

/// The refusals of late.
pub(super) type Refusals = Journal<Refusal>;

/// Who was refused, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    account: String,
    why: String,
}

impl Noted for Refusal {
    const MOST: usize = 64;

    fn origin(&self) -> &str {
        &self.account
    }

    fn trouble(&self) -> String {
        self.why.clone()
    }

    fn holder(&self) -> Option<String> {
        None
    }
}

impl Overlay {
    /// A peer of an overlay with an authority, or where peers are approved, is not what it claims to be.
    pub(super) fn refuse(&mut self, now: Instant, id: PeerId, why: &str) {
        let Some(peer) = self.table.get(id) else {
            return;
        };
        let session = peer.session.as_ref();
        let shown = session.and_then(|session| session.link.shown());
        self.refuse_key(now, id, shown.or(peer.key), why);
    }

    /// The same of somebody with this key, as far as that is known.
    pub(super) fn refuse_key(
        &mut self,
        now: Instant,
        id: PeerId,
        fingerprint: Option<Fingerprint>,
        why: &str,
    ) {
        let Some(found) = self.table.get(id) else {
            return;
        };
        if self.trust.is_none() && self.approvals.is_none() {
            return;
        }
        let (account, peer, addrs) = (account(found), found.name.clone(), found.addrs);
        let session = found.session.as_ref();
        let key = session.and_then(|session| session.link.shown_key());
        let refusal = Refusal {
            account: account.clone(),
            why: why.to_owned(),
        };
        let is_new = self.refusals.note(refusal, now);
        self.outputs.push_back(Output::Refused {
            account,
            peer,
            addrs,
            fingerprint,
            key,
            why: why.to_owned(),
            is_new,
        });
    }

    /// Who was refused in an overlay with an authority, or where peers are approved, and why; the newest last.
    pub fn refusals(&self, now: Instant) -> Vec<AlarmStatus> {
        self.refusals.status(now)
    }
}

/// The bare JID; the name of a peer by configuration, which has none.
fn account(peer: &Peer) -> String {
    match peer.configured {
        Some(_) => peer.name.clone(),
        None => bare(&peer.jid).to_owned(),
    }
}
