//! Who was refused because the authority does not say what they claim.

use std::collections::VecDeque;
use std::time::Instant;

use super::peer::{Peer, PeerId};
use super::table::bare;
use super::{Output, Overlay};
use crate::status::AlarmStatus;

/// Most refusals that are kept, and most of one account, so that one hides nobody else's.
const MOST: usize = 64;
const MOST_OF_ONE: usize = 8;

/// The refusals of late, the newest last.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    entries: VecDeque<Refusal>,
}

#[derive(Debug)]
struct Refusal {
    account: String,
    why: String,
    at: Instant,
    count: u64,
}

impl Refusals {
    /// Takes note of a refusal; whether it is a new one, of an account that has not had many.
    fn note(&mut self, now: Instant, account: &str, why: &str) -> bool {
        let of_one = |entry: &&Refusal| entry.account == account;
        let same = |entry: &Refusal| entry.account == account && entry.why == why;
        let known = self.entries.iter().position(same);
        let before = known.and_then(|at| self.entries.remove(at));
        let many = self.entries.iter().filter(of_one).count() >= MOST_OF_ONE;
        if many {
            let oldest = self.entries.iter().position(|entry| of_one(&entry));
            oldest.and_then(|at| self.entries.remove(at));
        }
        if self.entries.len() >= MOST {
            self.entries.pop_front();
        }
        self.entries.push_back(Refusal {
            account: account.to_owned(),
            why: why.to_owned(),
            at: now,
            count: before.as_ref().map_or(1, |before| before.count + 1),
        });
        before.is_none() && !many
    }
}

impl Overlay {
    /// A peer of an overlay with an authority is not what it claims to be.
    pub(super) fn refuse(&mut self, now: Instant, id: PeerId, why: &str) {
        let Some(account) = self.table.get(id).map(account) else {
            return;
        };
        if self.trust.is_some() && self.refusals.note(now, &account, why) {
            let why = why.to_owned();
            self.outputs.push_back(Output::Refused { account, why });
        }
    }

    /// Who was refused in an overlay with an authority, and why; the newest last.
    pub fn refusals(&self, now: Instant) -> Vec<AlarmStatus> {
        let shown = |entry: &Refusal| AlarmStatus {
            origin: entry.account.clone(),
            trouble: entry.why.clone(),
            holder: None,
            age_ms: now
                .saturating_duration_since(entry.at)
                .as_millis()
                .try_into()
                .unwrap_or(u64::MAX),
            count: entry.count,
        };
        self.refusals.entries.iter().map(shown).collect()
    }
}

/// The bare JID; the name of a peer by configuration, which has none.
fn account(peer: &Peer) -> String {
    match peer.configured {
        Some(_) => peer.name.clone(),
        None => bare(&peer.jid).to_owned(),
    }
}
