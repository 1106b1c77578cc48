//! What went wrong of late, each thing once, for whoever asks how a node is.

use std::collections::VecDeque;
use std::time::Instant;

use crate::status::AlarmStatus;

/// Most different things that are kept of one origin, so that none hides another's.
pub(crate) const MOST_OF_ONE: usize = 8;

/// Something that went wrong.
pub trait Noted: PartialEq {
    /// Most that are kept.
    const MOST: usize;

    /// Whose doing it is.
    fn origin(&self) -> &str;

    /// What it is.
    fn trouble(&self) -> String;

    /// To whom it is done, if to somebody.
    fn holder(&self) -> Option<String>;
}

/// Troubles, each once, in the order in which they came last.
#[derive(Debug)]
pub struct Journal<T> {
    entries: VecDeque<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    what: T,
    at: Instant,
    count: u64,
}

impl<T> Default for Journal<T> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
        }
    }
}

impl<T: Noted> Journal<T> {
    /// Takes note of something; whether it is new, of an origin that has not had many. When there
    /// are too many, the oldest of the same origin goes.
    pub fn note(&mut self, what: T, now: Instant) -> bool {
        let known = self.entries.iter().position(|entry| entry.what == what);
        let before = known.and_then(|at| self.entries.remove(at));
        let of_one = |entry: &&Entry<T>| entry.what.origin() == what.origin();
        let many = self.entries.iter().filter(of_one).count() >= MOST_OF_ONE;
        if many {
            let oldest = self.entries.iter().position(|entry| of_one(&entry));
            oldest.and_then(|at| self.entries.remove(at));
        }
        if self.entries.len() >= T::MOST {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry {
            what,
            at: now,
            count: before.as_ref().map_or(1, |before| before.count + 1),
        });
        before.is_none() && !many
    }

    /// As `status` shows them, the newest last.
    pub fn status(&self, now: Instant) -> Vec<AlarmStatus> {
        let shown = |entry: &Entry<T>| AlarmStatus {
            origin: entry.what.origin().to_owned(),
            trouble: entry.what.trouble(),
            holder: entry.what.holder(),
            age_ms: now
                .saturating_duration_since(entry.at)
                .as_millis()
                .try_into()
                .unwrap_or(u64::MAX),
            count: entry.count,
        };
        self.entries.iter().map(shown).collect()
    }
}
