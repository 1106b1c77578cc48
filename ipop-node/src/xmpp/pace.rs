//! How often others are told how this node is.
//!
//! Each change of its links is one, and each goes to every member: when many join at once, all of them
//! would hear of the square of their number. A few changes are told as they come; after that those of a
//! while are told together.

use std::time::Duration;

use tokio::time::Instant;

/// Changes that are told at once, after a silence.
const BURST: u32 = 5;
/// Advertisements that a member hears in a second at the most, on average, of all the others.
const HEARD: u32 = 20;
/// Shortest time between advertisements after a burst.
const SHORTEST: Duration = Duration::from_secs(1);

/// What one node may say.
#[derive(Debug)]
pub(super) struct Pace {
    /// When a whole burst is free again.
    settled: Instant,
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self { settled: now }
    }

    /// When others may be told next; a time that has passed means now.
    pub fn next(&self, members: usize) -> Instant {
        let burst = interval(members) * (BURST - 1);
        self.settled.checked_sub(burst).unwrap_or(self.settled)
    }

    /// Others are told.
    pub fn told(&mut self, members: usize, now: Instant) {
        self.settled = self.settled.max(now) + interval(members);
    }
}

fn interval(members: usize) -> Duration {
    let members = u32::try_from(members).unwrap_or(u32::MAX);
    SHORTEST.max(Duration::from_secs(1) * members / HEARD)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds, rounded down, at which a node with something new in every millisecond tells it.
    fn said(members: usize, seconds: u64) -> Vec<u64> {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut said = Vec::new();
        for ms in 0..seconds * 1000 {
            let now = start + Duration::from_millis(ms);
            if pace.next(members) <= now {
                pace.told(members, now);
                said.push(ms / 1000);
            }
        }
        said
    }

    #[test]
    fn a_few_changes_are_told_at_once_and_then_one_a_second() {
        assert_eq!(said(3, 4), [0, 0, 0, 0, 0, 1, 2, 3]);
    }

    #[test]
    fn nobody_hears_more_of_many_members_than_of_few() {
        assert_eq!(said(200, 30), [0, 0, 0, 0, 0, 10, 20]);
    }

    #[test]
    fn after_a_silence_a_burst_is_free_again() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for _ in 0..BURST {
            pace.told(3, start);
        }
        assert!(pace.next(3) > start);
        let later = start + Duration::from_secs(u64::from(BURST));
        for _ in 0..BURST {
            assert!(pace.next(3) <= later);
            pace.told(3, later);
        }
        assert!(pace.next(3) > later);
    }
}
