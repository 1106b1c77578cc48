//! How soon something is tried again. Pure: time comes in.

use std::time::{Duration, Instant};

use crate::error::Retry;

/// First wait before another try of one action, and the longest.
const SOON: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));
/// The same where the other side asked for patience.
const THROTTLED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Between two calls to a site that has just asked for patience, and the most.
const SLOW: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long an action waits after its `tries`-th failed try, from 1; none when another has no
/// prospect. `jitter` is between 0 and 1: of many that failed together not all come back together.
pub fn wait(retry: Retry, tries: u32, jitter: f64) -> Option<Duration> {
    let (first, longest) = match retry {
        Retry::Never => return None,
        Retry::Soon => SOON,
        Retry::Throttled => THROTTLED,
    };
    let doubled = first.saturating_mul(1 << (tries.saturating_sub(1)).min(16));
    Some(
        doubled
            .min(longest)
            .mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0),
    )
}

/// The pace of everything that is done on one site: slower with each request for patience, faster
/// again with each success.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    between: Duration,
    next: Option<Instant>,
}

impl Pace {
    /// When the next call may begin: now, or later.
    pub fn next(&self, now: Instant) -> Instant {
        self.next.map_or(now, |next| next.max(now))
    }

    /// A call begins.
    pub fn begin(&mut self, now: Instant) {
        self.next = (!self.between.is_zero()).then(|| now + self.between);
    }

    /// The site asked for patience.
    pub fn throttled(&mut self, now: Instant) {
        self.between = (self.between * 2).clamp(SLOW.0, SLOW.1);
        self.next = Some(now + self.between);
    }

    /// A call succeeded.
    pub fn succeeded(&mut self) {
        self.between = self.between.mul_f64(0.9);
        if self.between < SLOW.0 / 4 {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_what_has_no_prospect_is_not_tried_again() {
        assert_eq!(wait(Retry::Never, 1, 1.0), None);
        let waits: Vec<_> = (1..=9).filter_map(|n| wait(Retry::Soon, n, 1.0)).collect();
        assert_eq!(waits[..3], [200, 400, 800].map(Duration::from_millis));
        assert_eq!(waits[8], Duration::from_secs(15));
        assert_eq!(wait(Retry::Soon, 1, 0.0), Some(Duration::from_millis(100)));
        assert!(wait(Retry::Throttled, 1, 0.5) > wait(Retry::Soon, 1, 0.5));
        assert_eq!(
            wait(Retry::Throttled, 4_000_000_000, 1.0),
            Some(THROTTLED.1)
        );
    }

    #[test]
    fn a_site_that_asks_for_patience_is_called_less_often_until_calls_succeed_again() {
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.begin(now);
        assert_eq!(pace.next(now), now);
        pace.throttled(now);
        assert_eq!(pace.next(now), now + SLOW.0);
        for _ in 0..20 {
            pace.throttled(now);
        }
        assert_eq!(pace.next(now), now + SLOW.1);
        for _ in 0..100 {
            pace.succeeded();
        }
        pace.begin(now);
        assert_eq!(pace.next(now), now);
    }
}
