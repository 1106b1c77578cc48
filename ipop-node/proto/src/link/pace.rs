//! How often candidate pairs are checked.

use std::time::Duration;

/// Connectivity checks may take this long before the link is given up.
pub const CHECKING_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a reflexive pair waits for a better one before it is nominated.
pub(super) const REFLEXIVE_WAIT: Duration = Duration::from_millis(150);
/// The same for a relayed pair.
pub(super) const RELAY_WAIT: Duration = Duration::from_millis(1500);
/// Least time between two checks of any pairs (RFC 8445 section 14.2 allows 5 ms).
pub(super) const CHECK_PACE: Duration = Duration::from_millis(5);
/// Shortest time from one round of checks to the next.
const FIRST_ROUND: Duration = Duration::from_millis(25);
/// Longest where the peer has signalled that it is there.
const LAST_ROUND: Duration = Duration::from_secs(2);
/// Longest for a peer by configuration, which is met by these checks alone when it starts late: half
/// the first retransmission time-out of RFC 8445 section 14.3.
const LAST_ROUND_UNTOLD: Duration = Duration::from_millis(250);
/// A round comes when this part of the time without an answer has passed once more: a peer that is
/// there is met at once, and one that takes its time is not what a processor is kept busy with.
const ROUNDS: u32 = 2;
/// How often a selected pair that carries something is checked (RFC 7675 section 5.1).
const CONSENT: Duration = Duration::from_secs(5);
/// The same for one that carries nothing: then only NATs need it (RFC 8445 section 11).
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long a pair is waited for that does not answer a check.
pub const UNANSWERED: Duration = Duration::from_secs(10);
/// A selected pair has answered this long ago at the most (RFC 7675 allows 30 s).
pub const CONSENT_TIMEOUT: Duration = KEEPALIVE.saturating_add(UNANSWERED);
/// A check unanswered for this long will not be.
pub(super) const CHECK_LIFETIME: Duration = Duration::from_secs(4);
/// How much sooner the check of a selected pair that answers may be made, so that one wake-up serves
/// many links.
pub(crate) const KEEPALIVE_EARLY: Duration = Duration::from_secs(1);
/// How often a selected pair that missed an answer is checked.
pub(super) const KEEPALIVE_SILENT: Duration = Duration::from_millis(500);

/// Time from one round of checks over `pairs` pairs to the next, `age` after the last candidate, of a
/// peer that has signalled that it is there, or has not.
pub(super) fn checks(age: Duration, pairs: usize, is_told: bool) -> Duration {
    let pairs = u32::try_from(pairs).unwrap_or(u32::MAX);
    let last = if is_told {
        LAST_ROUND
    } else {
        LAST_ROUND_UNTOLD
    };
    (age / ROUNDS)
        .clamp(FIRST_ROUND, last)
        .max(CHECK_PACE.saturating_mul(pairs))
}

/// Time from one check of a selected pair that answers to the next.
pub(super) fn keepalive(is_idle: bool) -> Duration {
    if is_idle { KEEPALIVE } else { CONSENT }
}

/// A check of the peer's brings ours forward by this much at most: both then come in one wake-up.
pub(super) fn joint(is_idle: bool) -> Duration {
    keepalive(is_idle) / 2
}

/// Time from one check of a selected pair to the next, the first of them unanswered for `silence`.
pub(super) fn unanswered(silence: Duration) -> Duration {
    if silence < CHECK_LIFETIME {
        CHECK_LIFETIME
    } else {
        KEEPALIVE_SILENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_dense_at_first_and_rare_while_nobody_answers() {
        let (mut age, mut rounds) = (Duration::ZERO, Vec::new());
        while age < Duration::from_secs(30) {
            rounds.push(age);
            age += checks(age, 1, false);
        }
        let within = |end| rounds.iter().filter(|at| **at < end).count();
        assert_eq!(within(Duration::from_millis(200)), 6);
        assert!(rounds.len() < 150, "{} rounds", rounds.len());
    }

    #[test]
    fn many_pairs_are_not_checked_faster_than_the_pace() {
        assert_eq!(checks(Duration::ZERO, 2048, true), CHECK_PACE * 2048);
    }
}
