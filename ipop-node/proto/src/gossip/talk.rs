//! What is said with one peer about the list of one authority.

use std::time::{Duration, Instant};

use super::pull::Pull;

/// How long an answer is waited for before a peer is told again; the time doubles each time.
const AGAIN: Duration = Duration::from_millis(500);
/// How often a peer is told of one list at the most: for half an hour, after which it does not speak
/// this language.
const TIMES: u8 = 12;
/// Windows of pieces that a peer is sent in a second.
const WINDOWS: u8 = 8;
const SECOND: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Talk {
    /// The number of the list that the peer says it has; 0 for none.
    pub(super) heard: u64,
    /// That list on its way.
    pub(super) pull: Option<Pull>,
    /// The highest number that the peer was asked for.
    asked: u64,
    /// When the peer is told of this node's list, and how often it was.
    tell: Option<(Instant, u8)>,
    /// The peer is asked for nothing before this.
    listens: Instant,
    /// When a window was sent, and how many since then.
    sent: (Instant, u8),
}

impl Talk {
    /// With a peer that this node has just been linked to, whose own list has this number.
    pub(super) fn new(own: u64, now: Instant) -> Self {
        Self {
            heard: 0,
            pull: None,
            asked: 0,
            tell: (own > 0).then_some((now, 0)),
            listens: now,
            sent: (now, 0),
        }
    }

    /// This node has a list with this number now; whether the peer has said that it has that one,
    /// too. If it has not, it is to be told.
    pub(super) fn have(&mut self, number: u64, now: Instant) -> bool {
        if self.pull.as_ref().is_some_and(|p| p.list.number <= number) {
            self.pull = None;
        }
        let knows = self.heard >= number;
        self.tell = (!knows).then_some((now, 0));
        knows
    }

    /// The peer says which list it has; `own` is the number of this node's.
    pub(super) fn hear(&mut self, number: u64, own: u64) {
        self.heard = number;
        // It answers for no other one any more.
        if self.pull.as_ref().is_some_and(|p| p.list.number != number) {
            self.pull = None;
        }
        if number >= own {
            self.tell = None;
        }
    }

    /// Whether it is time to tell the peer of this node's list; it counts as told then.
    pub(super) fn tells(&mut self, now: Instant) -> bool {
        let Some((_, times)) = self.tell.filter(|(at, _)| *at <= now) else {
            return false;
        };
        let next = now + AGAIN * (1 << times);
        self.tell = Some((next, times + 1)).filter(|(_, times)| *times < TIMES);
        true
    }

    /// From when on the peer may be asked for its list, if that is newer than `own` and not on its way.
    pub(super) fn newer_at(&self, own: u64) -> Option<Instant> {
        (self.heard > own && self.pull.is_none()).then_some(self.listens)
    }

    /// The peer's list is asked for.
    pub(super) fn pulls(&mut self, pull: Pull) {
        self.asked = self.asked.max(pull.list.number);
        self.pull = Some(pull);
    }

    /// Whether the peer was asked for a list with this number, or a higher one, before.
    pub(super) fn has_asked(&self, number: u64) -> bool {
        number <= self.asked
    }

    /// Asks the peer for nothing for a while.
    pub(super) fn ignore(&mut self, until: Instant) {
        self.pull = None;
        self.listens = until;
    }

    /// Whether the peer is sent a window of pieces now; it counts as sent then.
    pub(super) fn sends(&mut self, now: Instant) -> bool {
        if now >= self.sent.0 + SECOND {
            self.sent = (now, 0);
        }
        self.sent.1 = self.sent.1.saturating_add(1);
        self.sent.1 <= WINDOWS
    }

    /// When something is to be said again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let tell = self.tell.map(|(at, _)| at);
        let pull = self.pull.as_ref().map(|pull| pull.again);
        tell.into_iter().chain(pull).min()
    }
}
