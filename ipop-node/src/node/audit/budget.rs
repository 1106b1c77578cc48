//! How many records about one peer there may be, so that nobody fills the disk or pushes out what is said
//! of others. Knows no clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Gives each so many records at once, and one more each time `refill` is over.
#[derive(Debug)]
pub(super) struct Budget<K> {
    burst: u32,
    refill: Duration,
    /// Most of whom it is known what they have spent; all others share one budget.
    most: usize,
    spent: BTreeMap<K, Spent>,
    others: Option<Spent>,
    /// When [`Self::due`] has something to say, if nothing happens before.
    next: Option<Instant>,
}

/// What of a budget is gone.
#[derive(Debug, Clone, Copy)]
struct Spent {
    /// When all of it is there again.
    full_at: Instant,
    /// How often something happened for which there was none.
    left_out: u64,
}

/// What had no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeftOut<K> {
    /// Whose; none for all of whom too many were there.
    pub who: Option<K>,
    /// How often.
    pub count: u64,
}

impl Spent {
    fn nothing(now: Instant) -> Self {
        Self {
            full_at: now,
            left_out: 0,
        }
    }
}

impl<K: Ord + Clone> Budget<K> {
    /// `burst` is one at least.
    pub fn new(burst: u32, refill: Duration, most: usize) -> Self {
        Self {
            burst,
            refill,
            most,
            spent: BTreeMap::new(),
            others: None,
            next: None,
        }
    }

    /// Whether there may be a record of what happened `count` times. If not, that is counted.
    pub fn spend(&mut self, who: &K, count: u64, now: Instant) -> bool {
        if !self.spent.contains_key(who) && self.spent.len() >= self.most {
            self.spent
                .retain(|_, spent| spent.full_at > now || spent.left_out > 0);
        }
        let has_room = self.spent.len() < self.most || self.spent.contains_key(who);
        let (ahead, refill) = (self.ahead(), self.refill);
        let spent = match has_room {
            true => self.spent.entry(who.clone()).or_insert(Spent::nothing(now)),
            false => self.others.get_or_insert(Spent::nothing(now)),
        };
        if spent.full_at <= now + ahead {
            spent.full_at = spent.full_at.max(now) + refill;
            return true;
        }
        spent.left_out += count;
        let at = spent.full_at.checked_sub(ahead).unwrap_or(now);
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
        false
    }

    /// When to ask [`Self::due`].
    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    /// What was left out and may be told now, which is paid for.
    pub fn due(&mut self, now: Instant) -> Vec<LeftOut<K>> {
        if self.next.is_none_or(|next| now < next) {
            return Vec::new();
        }
        self.take(now, now + self.ahead())
    }

    /// All that was left out: nobody asks later.
    pub fn end(&mut self, now: Instant) -> Vec<LeftOut<K>> {
        let last = self.spent.values().chain(&self.others);
        let last = last.map(|spent| spent.full_at).max().unwrap_or(now);
        self.take(now, last)
    }

    /// What was left out of those who have spent no more than until `until`.
    fn take(&mut self, now: Instant, until: Instant) -> Vec<LeftOut<K>> {
        let (ahead, refill) = (self.ahead(), self.refill);
        let mut told = Vec::new();
        let mut next: Option<Instant> = None;
        let all = self
            .spent
            .iter_mut()
            .map(|(who, spent)| (Some(who), spent))
            .chain(self.others.iter_mut().map(|spent| (None, spent)));
        for (who, spent) in all.filter(|(_, spent)| spent.left_out > 0) {
            if spent.full_at <= until {
                spent.full_at = spent.full_at.max(now) + refill;
                told.push(LeftOut {
                    who: who.cloned(),
                    count: std::mem::take(&mut spent.left_out),
                });
            } else {
                let at = spent.full_at.checked_sub(ahead).unwrap_or(now);
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        self.next = next;
        told
    }

    /// How far ahead of the time one may be with what it spends.
    fn ahead(&self) -> Duration {
        self.refill * (self.burst - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn left_out(who: Option<&'static str>, count: u64) -> LeftOut<&'static str> {
        LeftOut { who, count }
    }

    #[test]
    fn who_does_something_all_the_time_has_few_records_and_each_time_is_counted() {
        let begun = Instant::now();
        let mut budget = Budget::new(4, MINUTE, 10);
        let (mut records, mut told, mut counted) = (0, 0, 0);
        for second in 0..3600 {
            let now = begun + Duration::from_secs(second);
            for due in budget.due(now) {
                assert_eq!(due.who, Some("a"));
                told += 1;
                counted += due.count;
            }
            records += u64::from(budget.spend(&"a", 1, now));
        }
        assert!(records + told <= 4 + 60, "{records} and {told}");
        let rest: u64 = budget.end(begun).iter().map(|due| due.count).sum();
        assert_eq!(records + counted + rest, 3600);
        assert_eq!(budget.end(begun), []);
    }

    #[test]
    fn who_is_noisy_takes_nothing_from_another() {
        let now = Instant::now();
        let mut budget = Budget::new(2, MINUTE, 10);
        let of_a = (0..50).filter(|_| budget.spend(&"a", 1, now)).count();
        let of_b = (0..2).filter(|_| budget.spend(&"b", 1, now)).count();
        assert_eq!((of_a, of_b), (2, 2));
        assert!(!budget.spend(&"b", 7, now));
        assert_eq!(budget.due(now), []);
        let next = budget.next().expect("something was left out");
        assert_eq!(next, now + MINUTE);
        let expected = [left_out(Some("a"), 48), left_out(Some("b"), 7)];
        assert_eq!(budget.due(next), expected);
        assert_eq!(budget.next(), None);
        // That was paid for.
        assert!(!budget.spend(&"a", 1, next));
        assert!(budget.spend(&"a", 1, next + MINUTE));
    }

    #[test]
    fn a_crowd_shares_one_budget_and_makes_room_when_it_is_quiet() {
        let now = Instant::now();
        let mut budget = Budget::new(2, MINUTE, 3);
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        let told = names.into_iter().filter(|who| budget.spend(who, 1, now));
        assert_eq!(told.count(), 3 + 2);
        assert_eq!(budget.spent.len(), 3);
        assert_eq!(budget.due(now + MINUTE), [left_out(None, 2)]);
        let later = now + MINUTE;
        assert!(budget.spend(&"h", 1, later) && budget.spend(&"h", 1, later));
        assert_eq!(budget.spent.len(), 1, "it keeps no one who is quiet");
    }
}
