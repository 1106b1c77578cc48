//! Bounds on records of what strangers do, so that nobody fills a disk or hides something in a crowd.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The time for which the same is one record.
const PERIOD: Duration = Duration::from_secs(60);
/// Most different things of one period that have records of their own.
const MOST: usize = 64;

/// Lets the first of each kind through at once, and counts the others of a minute. Knows no clock.
#[derive(Debug)]
pub struct Limiter<K> {
    seen: BTreeMap<K, Seen>,
    /// What had no place.
    others: Option<Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    since: Instant,
    more: u64,
}

/// What happened again, and is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeats<K> {
    /// What; none for all that had no place.
    pub what: Option<K>,
    /// How often, besides the first time if that had its record.
    pub count: u64,
}

impl<K> Default for Limiter<K> {
    fn default() -> Self {
        Self {
            seen: BTreeMap::new(),
            others: None,
        }
    }
}

impl<K: Ord + Clone> Limiter<K> {
    /// Whether it gets a record now. What does not is counted for [`Self::due`], which is asked first.
    pub fn allow(&mut self, what: &K, now: Instant) -> bool {
        if let Some(seen) = self.seen.get_mut(what) {
            seen.more += 1;
            return false;
        }
        if self.seen.len() >= MOST {
            let others = self.others.get_or_insert(Seen {
                since: now,
                more: 0,
            });
            others.more += 1;
            return false;
        }
        let first = Seen {
            since: now,
            more: 0,
        };
        self.seen.insert(what.clone(), first);
        true
    }

    /// What was counted in a minute that is over. To be asked now and then.
    pub fn due(&mut self, now: Instant) -> Vec<Repeats<K>> {
        let is_over = |seen: &Seen| now.saturating_duration_since(seen.since) >= PERIOD;
        let over = self.seen.extract_if(.., |_, seen| is_over(seen));
        let mut due: Vec<_> = over
            .filter(|(_, seen)| seen.more > 0)
            .map(|(what, seen)| Repeats {
                what: Some(what),
                count: seen.more,
            })
            .collect();
        if let Some(others) = self.others.take_if(|others| is_over(others)) {
            due.push(Repeats {
                what: None,
                count: others.more,
            });
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_has_two_records_a_minute_at_most_and_none_is_lost() {
        let begun = Instant::now();
        let mut limiter = Limiter::default();
        let (mut records, mut counted) = (0, 0);
        for second in 0..600 {
            let now = begun + Duration::from_secs(second);
            for repeats in limiter.due(now) {
                assert_eq!(repeats.what, Some("thief"));
                (records, counted) = (records + 1, counted + repeats.count);
            }
            for _ in 0..5 {
                if limiter.allow(&"thief", now) {
                    (records, counted) = (records + 1, counted + 1);
                }
            }
        }
        for repeats in limiter.due(begun + Duration::from_secs(660)) {
            (records, counted) = (records + 1, counted + repeats.count);
        }
        assert_eq!((records, counted), (20, 3000));
        assert!(limiter.seen.is_empty(), "it keeps nothing of the past");
    }

    #[test]
    fn many_names_have_few_records_and_the_rest_is_counted() {
        let now = Instant::now();
        let mut limiter = Limiter::default();
        let allowed = (0..10_000).filter(|n| limiter.allow(n, now)).count();
        assert_eq!(allowed, MOST);
        assert_eq!(limiter.due(now), []);
        let others = Repeats {
            what: None,
            count: 10_000 - 64,
        };
        assert_eq!(limiter.due(now + PERIOD), [others]);
        assert!(limiter.allow(&10_001, now + PERIOD));
    }
}
