//! What is to be done about a deployment's time, and when to look again. Pure.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::provider::Lease;

/// A lease that ends sooner than this is extended.
pub const EXTEND_BEFORE: Duration = Duration::from_secs(2 * 3600);
/// How far ahead a lease is asked to last, unless the deployment ends sooner.
pub const EXTEND_TO: Duration = Duration::from_secs(12 * 3600);
/// What stands on a lease that ends sooner than this and cannot be extended is drained.
pub const DRAIN_BEFORE: Duration = Duration::from_secs(30 * 60);
/// Interval at which a deployment is looked at when nothing is due sooner.
pub const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// First wait after a destroy that failed; doubled by every further one, up to [`INTERVAL`].
const FIRST_RETRY: Duration = Duration::from_secs(60);

/// Whether a deployment's time is over.
pub fn is_over(expires: Option<SystemTime>, now: SystemTime) -> bool {
    expires.is_some_and(|expires| expires <= now)
}

/// When to look at the deployment again, after looking at it at `looked` and failing to destroy it
/// `failures` times in a row.
pub fn next_look(expires: Option<SystemTime>, looked: SystemTime, failures: u32) -> SystemTime {
    if failures > 0 {
        let wait = FIRST_RETRY.saturating_mul(1 << (failures - 1).min(8));
        return looked + wait.min(INTERVAL);
    }
    let next = looked + INTERVAL;
    match expires {
        // One that is over and was looked at since is about to be gone.
        Some(expires) if expires > looked => next.min(expires),
        _ => next,
    }
}

/// What to do about a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Duty {
    /// It lasts long enough, or as long as the deployment.
    Nothing,
    /// Ask for more, until then.
    Extend(SystemTime),
}

/// What to do about a lease of a deployment that ends at `expires`.
pub fn duty(lease: Lease, expires: Option<SystemTime>, now: SystemTime) -> Duty {
    let wanted = expires.map_or(now + EXTEND_TO, |expires| expires.min(now + EXTEND_TO));
    if lease.ends < wanted && lease.ends < now + EXTEND_BEFORE {
        Duty::Extend(wanted)
    } else {
        Duty::Nothing
    }
}

/// Whether what stands on a lease must go now, in good order, before the site takes it.
pub fn must_drain(lease: Lease, expires: Option<SystemTime>, now: SystemTime) -> bool {
    let outlives = expires.is_some_and(|expires| expires <= lease.ends);
    lease.refused && !outlives && lease.ends < now + DRAIN_BEFORE
}

/// A time that is left, as people say it: `7 h 59 min`, `45 s`.
pub fn remaining(until: SystemTime, now: SystemTime) -> String {
    let Ok(left) = until.duration_since(now) else {
        return "over".to_owned();
    };
    let seconds = left.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn lease(left: Duration, refused: bool) -> Lease {
        Lease {
            ends: start() + left,
            refused,
        }
    }

    #[test]
    fn a_deployment_is_looked_at_when_its_time_is_over_and_again_if_destroying_it_failed() {
        let now = start();
        assert_eq!(next_look(None, now, 0), now + INTERVAL);
        assert_eq!(next_look(Some(now + MINUTE), now, 0), now + MINUTE);
        assert_eq!(next_look(Some(now + HOUR), now, 0), now + INTERVAL);
        assert_eq!(next_look(Some(now), now, 1), now + MINUTE);
        assert_eq!(next_look(Some(now), now, 3), now + 4 * MINUTE);
        assert_eq!(next_look(Some(now), now, 40), now + INTERVAL);
        assert!(is_over(Some(now), now) && !is_over(Some(now + MINUTE), now));
        assert!(!is_over(None, now));
    }

    #[test]
    fn a_lease_is_extended_before_it_ends_but_never_beyond_the_deployment() {
        let now = start();
        assert_eq!(duty(lease(3 * HOUR, false), None, now), Duty::Nothing);
        let soon = lease(HOUR, false);
        assert_eq!(duty(soon, None, now), Duty::Extend(now + EXTEND_TO));
        let expires = Some(now + 90 * MINUTE);
        assert_eq!(duty(soon, expires, now), Duty::Extend(now + 90 * MINUTE));
        assert_eq!(duty(soon, Some(now + 50 * MINUTE), now), Duty::Nothing);
    }

    #[test]
    fn what_stands_on_a_refused_lease_is_drained_before_it_ends() {
        let now = start();
        assert!(must_drain(lease(20 * MINUTE, true), None, now));
        assert!(!must_drain(lease(40 * MINUTE, true), None, now));
        assert!(!must_drain(lease(20 * MINUTE, false), None, now));
        let sooner = Some(now + 10 * MINUTE);
        assert!(!must_drain(lease(20 * MINUTE, true), sooner, now));
    }

    #[test]
    fn a_remaining_time_is_said_in_two_units_at_most() {
        let now = start();
        let said = |left| remaining(now + left, now);
        assert_eq!(said(8 * HOUR - MINUTE), "7 h 59 min");
        assert_eq!(said(59 * MINUTE), "59 min");
        assert_eq!(said(Duration::from_secs(45)), "45 s");
        assert_eq!(remaining(now, now + MINUTE), "over");
    }
}
