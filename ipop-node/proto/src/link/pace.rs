//! How often candidate pairs are checked.

use std::time::Duration;

/// Least time between two checks of any pairs (RFC 8445 section 14.2 allows 5 ms).
pub(super) const CHECK_PACE: Duration = Duration::from_millis(5);
/// How often every pair is checked, by time since the last candidate came.
const CHECK_ROUNDS: [(Duration, Duration); 3] = [
    (Duration::from_secs(1), Duration::from_millis(25)),
    (Duration::from_secs(5), Duration::from_millis(100)),
    (Duration::MAX, Duration::from_millis(250)),
];
/// How often a selected pair that answers is checked (RFC 7675 section 5.1).
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How often a selected pair that missed an answer is checked.
pub(super) const KEEPALIVE_SILENT: Duration = Duration::from_millis(500);

/// Time from one round of checks over `pairs` pairs to the next, `age` after the last candidate.
pub(super) fn checks(age: Duration, pairs: usize) -> Duration {
    let round = CHECK_ROUNDS.iter().find(|(until, _)| age < *until);
    let pairs = u32::try_from(pairs).unwrap_or(u32::MAX);
    round
        .map_or(KEEPALIVE_SILENT, |(_, every)| *every)
        .max(CHECK_PACE.saturating_mul(pairs))
}

/// Time from one check of the selected pair to the next, `silence` after its last answer.
pub(super) fn keepalive(silence: Duration) -> Duration {
    if silence > KEEPALIVE {
        KEEPALIVE_SILENT
    } else {
        KEEPALIVE
    }
}
