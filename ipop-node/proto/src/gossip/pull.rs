//! One list on its way from a peer, piece by piece.

use std::time::{Duration, Instant};

use super::message::{ListId, Message, PIECE};
use crate::authority::MAX_LIST;

/// Pieces that are sent for one want.
pub const WINDOW: usize = 16;
/// How long the next piece is waited for before it is asked for again.
pub const STALL: Duration = Duration::from_millis(500);
/// How often in a row that is done.
const STALLS: u8 = 8;

/// See the module. What is kept of a peer's list is bounded by [`MAX_LIST`].
#[derive(Debug)]
pub(super) struct Pull {
    pub(super) list: ListId,
    /// When what is missing is asked for again.
    pub(super) again: Instant,
    stalls: u8,
    total: Option<usize>,
    /// Up to where was asked, in bytes.
    asked: usize,
    bytes: Vec<u8>,
}

/// What came of a piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing is to be done.
    Waits,
    /// More is to be asked for.
    Asks(Message),
    /// It is whole.
    Whole(Vec<u8>),
    /// No list is cut like this.
    Misfit,
}

impl Pull {
    /// Begins, with the first thing to ask for.
    pub(super) fn begin(list: ListId, now: Instant) -> (Self, Message) {
        let mut pull = Self {
            list,
            again: now,
            stalls: 0,
            total: None,
            asked: 0,
            bytes: Vec::new(),
        };
        let want = pull.want(now);
        (pull, want)
    }

    fn want(&mut self, now: Instant) -> Message {
        self.again = now + STALL;
        self.asked = self.bytes.len() + WINDOW * PIECE;
        Message::Want {
            list: self.list,
            // No more than MAX_LIST.
            offset: self.bytes.len() as u32,
        }
    }

    /// Takes a piece. One that is not the next is passed over: those before it were lost, and will be
    /// asked for.
    pub(super) fn take(&mut self, offset: u32, total: u32, bytes: &[u8], now: Instant) -> Progress {
        let (offset, total) = (offset as usize, total as usize);
        let is_sound = (1..=MAX_LIST).contains(&total)
            && self.total.is_none_or(|known| known == total)
            && offset < total
            && bytes.len() == PIECE.min(total - offset);
        if !is_sound {
            return Progress::Misfit;
        }
        if offset != self.bytes.len() {
            return Progress::Waits;
        }
        self.total = Some(total);
        self.bytes.extend_from_slice(bytes);
        self.stalls = 0;
        self.again = now + STALL;
        if self.bytes.len() == total {
            return Progress::Whole(std::mem::take(&mut self.bytes));
        }
        if self.bytes.len() >= self.asked {
            return Progress::Asks(self.want(now));
        }
        Progress::Waits
    }

    /// Asks again for what is missing; `None` when it was asked for in vain too often.
    pub(super) fn stalled(&mut self, now: Instant) -> Option<Message> {
        self.stalls += 1;
        (self.stalls < STALLS).then(|| self.want(now))
    }
}
