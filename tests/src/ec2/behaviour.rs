//! How the double behaves: as awkwardly as the real thing may, by default.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Settings, all of which may be changed while it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// The only access key that may call.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// The only region.
    pub region: String,
    /// For how many calls a new instance, image, group or snapshot cannot be found.
    pub unseen_calls: u32,
    /// How long an instance is `pending`.
    pub pending: Duration,
    /// How often a running instance is described without its address.
    pub address_after: u32,
    /// How long an instance is `shutting-down`.
    pub shutting_down: Duration,
    /// How long a terminated instance can still be described.
    pub forgotten_after: Duration,
    /// How long a snapshot cannot be found after StartSnapshot.
    pub snapshot_unseen: Duration,
    /// How long a snapshot is `pending` after CompleteSnapshot.
    pub snapshot_pending: Duration,
    /// How long an image is `pending` after RegisterImage.
    pub image_pending: Duration,
    /// Largest page of any list.
    pub page: usize,
    /// How long every call takes at least.
    pub latency: Duration,
    /// Calls of the EC2 API that may come at once, and how many may follow each second.
    pub throttle: Option<Throttle>,
    /// The same for the blocks of the EBS API.
    pub throttle_blocks: Option<Throttle>,
    /// Virtual CPUs that may run at once.
    pub vcpus: u32,
    /// Actions that the key may not call.
    pub denied: Vec<String>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Throttle {
    /// Tokens at most.
    pub burst: f64,
    /// Tokens that come back each second.
    pub per_second: f64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            access_key: "AKIAIOSFODNN7DOUBLE0".to_owned(),
            secret_key: "not/a/secret/of/anybody".to_owned(),
            region: "us-west-2".to_owned(),
            unseen_calls: 1,
            pending: Duration::from_millis(300),
            address_after: 2,
            shutting_down: Duration::from_millis(500),
            forgotten_after: Duration::from_secs(60),
            snapshot_unseen: Duration::from_millis(200),
            snapshot_pending: Duration::from_millis(300),
            image_pending: Duration::from_millis(100),
            page: 5,
            latency: Duration::ZERO,
            throttle: None,
            throttle_blocks: None,
            vcpus: 1024,
            denied: Vec::new(),
        }
    }
}

/// How full a bucket is.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    spent: f64,
    at: Duration,
}

impl Bucket {
    /// Takes a token at the time `now`, if there is one.
    pub fn take(&mut self, throttle: Throttle, now: Duration) -> bool {
        let back = now.saturating_sub(self.at).as_secs_f64() * throttle.per_second;
        self.spent = (self.spent - back).max(0.0);
        self.at = now;
        let there = self.spent + 1.0 <= throttle.burst;
        if there {
            self.spent += 1.0;
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let throttle = Throttle {
            burst: 2.0,
            per_second: 1.0,
        };
        let mut bucket = Bucket::default();
        let mut at = |ms| bucket.take(throttle, Duration::from_millis(ms));
        assert!(at(0) && at(0));
        assert!(!at(500));
        assert!(at(1100));
        assert!(!at(1100));
    }
}
