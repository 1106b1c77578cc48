//! When to try a failed link again.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Exponential, from 1 s to 60 s, each spread over half to one and a half of itself so that nodes
/// that failed together do not come back together.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u32,
    /// No attempt before this.
    pub(super) until: Option<Instant>,
}

impl Backoff {
    /// The next attempt may be made at once.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Counts a failure.
    pub(super) fn failed(&mut self, now: Instant, rng: &mut StdRng) {
        self.failed_within(now, rng, (FIRST, LONGEST));
    }

    /// The same between other bounds.
    pub(super) fn failed_within(
        &mut self,
        now: Instant,
        rng: &mut StdRng,
        (first, longest): (Duration, Duration),
    ) {
        let delay = first.saturating_mul(1 << self.failures.min(6)).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + delay.mul_f64(rng.random_range(0.5..1.5)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn delays_double_up_to_a_minute_and_are_spread() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut backoff = Backoff::default();
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            backoff.failed(now, &mut rng);
            let delay = backoff.until.expect("set") - now;
            let middle = Duration::from_secs(seconds);
            assert!(
                delay >= middle / 2 && delay <= middle * 3 / 2,
                "{delay:?} for {middle:?}"
            );
        }
        backoff.reset();
        assert_eq!(backoff.until, None);
    }
}
