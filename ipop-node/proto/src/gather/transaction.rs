//! Retransmission of one STUN request over UDP (RFC 8489 section 6.2.1).

use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc_stun::message::TransactionId;

const RTO: Duration = Duration::from_millis(500);
/// Rc: how often a request is sent.
const SENDS: u32 = 7;
/// Rm times RTO: how long the last one is waited for.
const LAST_WAIT: Duration = Duration::from_secs(8);

/// A request under way.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) id: TransactionId,
    raw: BytesMut,
    sent: u32,
    /// When the next copy is due, or when to give up.
    pub(super) due: Instant,
}

/// What a transaction wants at some instant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Resend(BytesMut),
    GiveUp,
}

impl Transaction {
    /// Begins; the caller sends the first copy.
    pub(super) fn new(now: Instant, id: TransactionId, raw: BytesMut) -> Self {
        Self {
            id,
            raw,
            sent: 1,
            due: now + RTO,
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Due {
        if now < self.due {
            return Due::Nothing;
        }
        if self.sent == SENDS {
            return Due::GiveUp;
        }
        self.sent += 1;
        self.due = now
            + if self.sent == SENDS {
                LAST_WAIT
            } else {
                RTO * (1 << (self.sent - 1))
            };
        Due::Resend(self.raw.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_sent_seven_times_and_given_up_after_39_and_a_half_seconds() {
        let start = Instant::now();
        let mut tx = Transaction::new(start, TransactionId::default(), BytesMut::from(&b"x"[..]));
        let mut at = vec![Duration::ZERO];
        loop {
            let due = tx.due;
            match tx.handle_timeout(due) {
                Due::Resend(_) => at.push(due - start),
                Due::GiveUp => {
                    assert_eq!(due - start, Duration::from_millis(39_500));
                    break;
                }
                Due::Nothing => panic!("due but nothing to do"),
            }
        }
        let ms: Vec<_> = at.iter().map(Duration::as_millis).collect();
        assert_eq!(ms, [0, 500, 1500, 3500, 7500, 15_500, 31_500]);
    }
}
