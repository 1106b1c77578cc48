//! How long to wait before trying again.

use std::time::Duration;

/// Doubling pauses between a least and a longest one.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            next: min,
        }
    }

    /// The next pause: `random`, between 0 and 1, spreads it over the upper half of its length, so
    /// that the nodes of a server that restarts do not come back all at once.
    pub fn pause(&mut self, random: f64) -> Duration {
        let pause = self.next.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        self.next = (self.next * 2).min(self.max);
        pause
    }

    /// It went well.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(2));
        let pauses: Vec<_> = (0..4).map(|_| backoff.pause(1.0).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 2000]);
        backoff.reset();
        assert_eq!(backoff.pause(0.0), Duration::from_millis(250));
    }
}
