//! Storm control: how much one port may have sent to everybody.
//!
//! Broadcast, other multicast, and unicast to unknown stations cost as many copies as there are
//! members. Each port has a token bucket of frames and one of bytes for each of the three; a frame
//! passes when both have enough.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::port::Port;

/// What is sent to more than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flood {
    /// To everybody.
    Broadcast,
    /// To a group.
    Multicast,
    /// To a station that nobody knows.
    UnknownUnicast,
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broadcast => "broadcast",
            Self::Multicast => "multicast",
            Self::UnknownUnicast => "unicast to unknown stations",
        })
    }
}

/// A token bucket's measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens a second.
    pub per_second: u64,
    /// Most tokens that are saved up.
    pub burst: u64,
}

/// What one port may flood in one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// In frames.
    pub frames: Rate,
    /// In bytes.
    pub bytes: Rate,
}

/// What each port may flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowances {
    /// To everybody.
    pub broadcast: Allowance,
    /// To groups.
    pub multicast: Allowance,
    /// To unknown stations.
    pub unknown_unicast: Allowance,
}

impl Default for Allowances {
    /// Enough for some hundred machines that boot at once; multicast may carry a disk image.
    fn default() -> Self {
        let allow = |frames, bytes| Allowance {
            frames: Rate {
                per_second: frames,
                burst: 2 * frames,
            },
            bytes: Rate {
                per_second: bytes,
                burst: 2 * bytes,
            },
        };
        Self {
            broadcast: allow(500, 250_000),
            multicast: allow(10_000, 12_500_000),
            unknown_unicast: allow(500, 500_000),
        }
    }
}

impl Allowances {
    fn of(&self, flood: Flood) -> Allowance {
        match flood {
            Flood::Broadcast => self.broadcast,
            Flood::Multicast => self.multicast,
            Flood::UnknownUnicast => self.unknown_unicast,
        }
    }
}

/// A frame too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("more {flood} than is allowed")]
pub struct Storm {
    /// Where it comes from.
    pub port: Port,
    /// Of what there is too much.
    pub flood: Flood,
}

/// The buckets of all ports.
#[derive(Debug, Default)]
pub struct StormControl {
    allowances: Allowances,
    buckets: BTreeMap<(Port, Flood), Pair>,
}

impl StormControl {
    /// Full buckets for everybody.
    pub fn new(allowances: Allowances) -> Self {
        Self {
            allowances,
            buckets: BTreeMap::new(),
        }
    }

    /// Whether a frame of `len` bytes from `port` may be flooded.
    ///
    /// # Errors
    ///
    /// When the port has spent what it may; the frame then costs it nothing.
    pub fn admit(
        &mut self,
        port: Port,
        flood: Flood,
        len: usize,
        now: Instant,
    ) -> Result<(), Storm> {
        let allowance = self.allowances.of(flood);
        let Pair { frames, bytes } = self.buckets.entry((port, flood)).or_insert_with(|| Pair {
            frames: Bucket::full(allowance.frames, now),
            bytes: Bucket::full(allowance.bytes, now),
        });
        frames.fill(now);
        bytes.fill(now);
        if frames.has(1) && bytes.has(len as u64) {
            frames.take(1);
            bytes.take(len as u64);
            return Ok(());
        }
        Err(Storm { port, flood })
    }

    /// The member left; another one may have its number.
    pub fn forget(&mut self, port: Port) {
        self.buckets.retain(|(of, _), _| *of != port);
    }
}

#[derive(Debug)]
struct Pair {
    frames: Bucket,
    bytes: Bucket,
}

/// Counts in thousand millionths of a token, so that no time is too short to be worth something.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    level: u128,
    filled: Instant,
}

const TOKEN: u128 = Duration::from_secs(1).as_nanos();

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self {
            rate,
            level: u128::from(rate.burst) * TOKEN,
            filled: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_nanos();
        let earned = elapsed.saturating_mul(u128::from(self.rate.per_second));
        let most = u128::from(self.rate.burst) * TOKEN;
        self.level = self.level.saturating_add(earned).min(most);
        self.filled = self.filled.max(now);
    }

    fn has(&self, tokens: u64) -> bool {
        self.level >= u128::from(tokens) * TOKEN
    }

    fn take(&mut self, tokens: u64) {
        self.level -= u128::from(tokens) * TOKEN;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: Port = Port::Member(1);

    fn allowances(frames: Rate, bytes: Rate) -> Allowances {
        let one = Allowance { frames, bytes };
        Allowances {
            broadcast: one,
            multicast: one,
            unknown_unicast: one,
        }
    }

    fn rate(per_second: u64, burst: u64) -> Rate {
        Rate { per_second, burst }
    }

    #[test]
    fn a_storm_of_one_member_in_one_class_leaves_the_others_alone() {
        let now = Instant::now();
        let mut storm = StormControl::new(allowances(rate(10, 5), rate(1_000_000, 1_000_000)));
        for n in 0..100 {
            let admitted = storm.admit(A, Flood::Broadcast, 60, now);
            assert_eq!(admitted.is_ok(), n < 5);
        }
        assert!(storm.admit(A, Flood::Multicast, 60, now).is_ok());
        assert!(storm.admit(Port::Lan, Flood::Broadcast, 60, now).is_ok());
        let later = now + Duration::from_millis(99);
        assert!(storm.admit(A, Flood::Broadcast, 60, later).is_err());
        let later = now + Duration::from_millis(100);
        assert!(storm.admit(A, Flood::Broadcast, 60, later).is_ok());
        storm.forget(A);
        assert!(storm.admit(A, Flood::Broadcast, 60, later).is_ok());
    }

    #[test]
    fn large_frames_are_held_by_their_bytes() {
        let now = Instant::now();
        let mut storm = StormControl::new(allowances(rate(1000, 1000), rate(3000, 3000)));
        let admitted = (0..10).filter(|_| storm.admit(A, Flood::Multicast, 1400, now).is_ok());
        assert_eq!(admitted.count(), 2);
        assert!(
            storm.admit(A, Flood::Multicast, 200, now).is_ok(),
            "what was refused took nothing"
        );
    }

    proptest! {
        #[test]
        fn in_no_span_of_time_passes_more_than_the_burst_and_what_was_earned(
            frames in (1_u64..50, 1_u64..20),
            arrivals in proptest::collection::vec((0_u64..200_000_000, 60_usize..1500), 1..200),
        ) {
            let bytes = rate(20_000, 6_000);
            let frames = rate(frames.0, frames.1);
            let mut storm = StormControl::new(allowances(frames, bytes));
            let mut now = Instant::now();
            let mut passed: Vec<(Instant, usize)> = Vec::new();
            for (nanos, len) in arrivals {
                now += Duration::from_nanos(nanos);
                if storm.admit(A, Flood::Broadcast, len, now).is_ok() {
                    passed.push((now, len));
                }
            }
            for (at, (start, _)) in passed.iter().enumerate() {
                let mut total = (0, 0);
                for (end, len) in &passed[at..] {
                    total = (total.0 + 1, total.1 + *len as u64);
                    let span = (*end - *start).as_secs_f64();
                    let most = |rate: Rate| rate.burst as f64 + rate.per_second as f64 * span + 1e-6;
                    prop_assert!(total.0 as f64 <= most(frames));
                    prop_assert!(total.1 as f64 <= most(bytes));
                }
            }
        }
    }
}
