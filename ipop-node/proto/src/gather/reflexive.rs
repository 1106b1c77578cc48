//! The server-reflexive address of one socket as one server sees it (RFC 8445 section 5.1.1.2),
//! asked again and again so that the NAT keeps its mapping and a new one is noticed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rand::RngExt;
use rand::rngs::StdRng;
use rtc_stun::message::{METHOD_BINDING, Message};

use super::stun::{self, Answer};
use super::transaction::{Due, Transaction};

/// Between an answer and the next request. Linux drops a UDP mapping after 30 s.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Between giving up on a server and asking it again.
const RETRY: Duration = Duration::from_secs(30);

/// One socket and one server.
#[derive(Debug)]
pub(super) struct Reflexive {
    pub(super) socket: SocketAddr,
    pub(super) server: SocketAddr,
    /// What the server saw last.
    pub(super) mapped: Option<SocketAddr>,
    /// The server answered, if only with an error: it can be reached from this socket.
    pub(super) reachable: bool,
    transaction: Option<Transaction>,
    next: Instant,
}

impl Reflexive {
    /// Asks at the next [`Self::handle_timeout`].
    pub(super) fn new(now: Instant, socket: SocketAddr, server: SocketAddr) -> Self {
        Self {
            socket,
            server,
            mapped: None,
            reachable: false,
            transaction: None,
            next: now,
        }
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        self.transaction.as_ref().map_or(self.next, |t| t.due)
    }

    /// Gives the datagram to send, if one is due.
    pub(super) fn handle_timeout(&mut self, now: Instant, rng: &mut StdRng) -> Option<BytesMut> {
        if let Some(transaction) = &mut self.transaction {
            return match transaction.handle_timeout(now) {
                Due::Nothing => None,
                Due::Resend(raw) => Some(raw),
                Due::GiveUp => {
                    self.transaction = None;
                    self.mapped = None;
                    self.reachable = false;
                    self.next = now + RETRY + jitter(rng);
                    None
                }
            };
        }
        if now < self.next {
            return None;
        }
        let (id, raw) = stun::request(rng, METHOD_BINDING, Vec::new(), None)?;
        self.transaction = Some(Transaction::new(now, id, raw.clone()));
        Some(raw)
    }

    /// Whether `message` answered this one's request.
    pub(super) fn handle_answer(
        &mut self,
        now: Instant,
        message: &mut Message,
        rng: &mut StdRng,
    ) -> bool {
        if self
            .transaction
            .as_ref()
            .is_none_or(|t| t.id != message.transaction_id)
        {
            return false;
        }
        let Some(answer) = stun::answer(message, None) else {
            return false;
        };
        self.transaction = None;
        self.reachable = true;
        self.mapped = match answer {
            Answer::Success => stun::mapped_address(message)
                .filter(|a| a.is_ipv4() == self.socket.is_ipv4() && a.port() != 0),
            Answer::Error { .. } => None,
        };
        self.next = now + KEEPALIVE + jitter(rng);
        true
    }
}

/// Up to a second, so that many nodes started together do not ask together.
fn jitter(rng: &mut StdRng) -> Duration {
    Duration::from_millis(rng.random_range(0..1000))
}
