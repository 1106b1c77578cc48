//! Who was refused because the authority does not say what they claim.

use std::time::Instant;

use super::peer::{Peer, PeerId};
use super::table::bare;
use super::{Output, Overlay};
use crate::journal::{Journal, Noted};
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
    /// A peer of an overlay with an authority is not what it claims to be.
    pub(super) fn refuse(&mut self, now: Instant, id: PeerId, why: &str) {
        let Some(found) = self.table.get(id) else {
            return;
        };
        let (account, peer, addrs) = (account(found), found.name.clone(), found.addrs);
        if self.trust.is_none() {
            return;
        }
        let session = self.table.get(id).and_then(|peer| peer.session.as_ref());
        let fingerprint = session.and_then(|session| session.link.shown());
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

    /// Who was refused in an overlay with an authority, and why; the newest last.
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
