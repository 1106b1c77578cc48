//! When a link's candidate pairs are checked, and for how long an answer is waited for: pacing (RFC
//! 8445 section 14) until a pair is selected, consent freshness (RFC 7675) from then on.

use std::time::{Duration, Instant};

use super::pace::{
    self, CHECK_PACE, CHECKING_TIMEOUT, KEEPALIVE_EARLY, REFLEXIVE_WAIT, RELAY_WAIT, UNANSWERED,
};

/// Rounds of checks, of which each checks every pair or, when one is selected, that.
pub(super) struct Schedule {
    started: Option<Instant>,
    /// When a candidate came last.
    changed: Instant,
    /// When the last round was.
    ticked: Instant,
    /// The first check of the selected pair that has no answer yet.
    asked: Option<Instant>,
    /// What had been carried when the pair was checked last.
    carried: u64,
    /// Nothing was carried from the check before it to that.
    is_idle: bool,
    /// Both sides know each other's candidates from the start: whatever answers is nominated.
    all_known: bool,
    /// The next round is due as soon as the pace allows.
    hurries: bool,
}

impl Schedule {
    pub(super) fn new(now: Instant, all_known: bool) -> Self {
        Self {
            started: None,
            changed: now,
            ticked: now,
            asked: None,
            carried: 0,
            is_idle: false,
            all_known,
            hurries: false,
        }
    }

    /// Checks begin.
    pub(super) fn start(&mut self, now: Instant) {
        self.started = Some(now);
        self.ticked = now;
    }

    pub(super) fn is_started(&self) -> bool {
        self.started.is_some()
    }

    /// There is a candidate more.
    pub(super) fn candidate_came(&mut self, now: Instant) {
        self.changed = now;
    }

    /// The peer is there now, before a pair was selected: checks that went unanswered will be
    /// answered (RFC 8445 section 7.3.1.4).
    pub(super) fn peer_came(&mut self, now: Instant) {
        self.changed = now;
        self.hurries = self.all_known;
    }

    /// The peer checked a pair that has answered. A round that is due at `next` is made now if that is not
    /// much sooner, so that both sides' checks come in one wake-up.
    pub(super) fn checked_by_peer(&mut self, now: Instant, next: Option<Instant>) {
        let soon = now + pace::joint(self.is_idle);
        self.hurries |= next.is_some_and(|next| next <= soon);
    }

    /// A pair answered while none was selected: it is nominated in the next round.
    pub(super) fn found(&mut self) {
        self.hurries |= self.all_known;
    }

    /// The selected pair is checked.
    pub(super) fn ask(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
    }

    /// The selected pair has answered, or is another one than before.
    pub(super) fn settle(&mut self) {
        self.asked = None;
    }

    /// Whether every check of the selected pair was answered.
    pub(super) fn awaits_nothing(&self) -> bool {
        self.asked.is_none()
    }

    /// A round is made. `carried` grows when the link carries something.
    pub(super) fn tick(&mut self, now: Instant, carried: u64) {
        self.ticked = now;
        self.hurries = false;
        self.is_idle = self.carried == carried;
        self.carried = carried;
    }

    /// When the next round is due of checks of so many pairs. The agent `wants` one in the past when
    /// a candidate has come since the last.
    pub(super) fn next(&self, wants: Instant, pairs: usize, is_selected: bool) -> Instant {
        if wants <= self.ticked {
            return self.ticked;
        }
        if self.hurries {
            return self.ticked + CHECK_PACE;
        }
        if is_selected {
            return self.ticked + self.consent();
        }
        let age = self.ticked.saturating_duration_since(self.changed);
        let round = self.ticked + pace::checks(age, pairs, !self.all_known);
        // The agent nominates in its own time only, and not just then.
        let nominates = self.started.and_then(|started| {
            [REFLEXIVE_WAIT, RELAY_WAIT]
                .into_iter()
                .map(|wait| started + wait + CHECK_PACE)
                .find(|at| *at > self.ticked)
        });
        nominates.map_or(round, |at| round.min(at))
    }

    /// Whether a round that is due at `next` is made now, `is_patient` for one that need not be on
    /// time.
    pub(super) fn is_due(now: Instant, next: Option<Instant>, is_patient: bool) -> bool {
        let early = if is_patient {
            KEEPALIVE_EARLY
        } else {
            Duration::ZERO
        };
        next.is_some_and(|next| next <= now + early)
    }

    /// When the link is given up unless a pair answers.
    pub(super) fn gives_up(&self, is_selected: bool) -> Option<Instant> {
        if is_selected {
            self.asked.map(|at| at + UNANSWERED)
        } else {
            self.started.map(|at| at + CHECKING_TIMEOUT)
        }
    }

    /// From one check of the selected pair to the next.
    fn consent(&self) -> Duration {
        match self.asked {
            Some(asked) => pace::unanswered(self.ticked.saturating_duration_since(asked)),
            None => pace::keepalive(self.is_idle),
        }
    }
}
