//! Nominating the pair in use once more, for a peer that has a new agent: the library does it for
//! one agent of the peer only.

use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::stun::Binding;

/// From one nominating check to the next. A controlled agent answers none before it has had an
/// answer of its own on the pair.
const EVERY: Duration = Duration::from_millis(25);
/// A peer that has not answered for so long is checked at the usual pace only.
const WITHIN: Duration = Duration::from_secs(2);

/// Checks with USE-CANDIDATE on the selected pair, until one is answered.
#[derive(Default)]
pub(super) struct Nomination {
    /// The agent's last check.
    like: Option<BytesMut>,
    due: Option<(Instant, Instant)>,
}

impl Nomination {
    /// The agent sends this check.
    pub(super) fn learn(&mut self, check: &BytesMut) {
        self.like = Some(check.clone());
    }

    /// The peer has a new agent.
    pub(super) fn begin(&mut self, now: Instant) {
        self.due = Some((now, now + WITHIN));
    }

    /// A nominating check was answered.
    pub(super) fn done(&mut self) {
        self.due = None;
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.map(|(next, _)| next)
    }

    /// The check that is due, under the peer's password.
    pub(super) fn handle_timeout(&mut self, now: Instant, pwd: &str) -> Option<BytesMut> {
        let (next, until) = self.due.filter(|(next, _)| *next <= now)?;
        self.due = Some((next.max(now) + EVERY, until)).filter(|_| now < until);
        Binding::decode(self.like.as_ref()?)?.nominating(pwd)
    }
}
