//! What a peer tried and was denied.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::matter::{FRAGMENT, ICMP, ICMPV6};
use crate::inet::{TCP, UDP};

const HAS_PORT: u64 = 1 << 56;

/// What one packet was after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial {
    /// Protocol number.
    pub protocol: u8,
    /// The port that it was for.
    pub port: Option<u16>,
}

impl fmt::Display for Denial {
    /// `tcp/22`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            TCP => f.write_str("tcp")?,
            UDP => f.write_str("udp")?,
            ICMP | ICMPV6 => f.write_str("icmp")?,
            FRAGMENT => f.write_str("a piece of a packet")?,
            other => write!(f, "protocol {other}")?,
        }
        match self.port {
            Some(port) => write!(f, "/{port}"),
            None => Ok(()),
        }
    }
}

/// How many packets of one peer were denied, and what the last one was after. It outlives the peer's
/// links.
#[derive(Debug, Default)]
pub struct Denials {
    count: AtomicU64,
    /// Seconds (32 bits), port (16), protocol (8), whether there is a port.
    last: AtomicU64,
}

impl Denials {
    pub(super) fn note(&self, denial: Denial, now_s: u32) {
        let port = denial
            .port
            .map_or(0, |port| HAS_PORT | u64::from(port) << 32);
        let last = u64::from(denial.protocol) << 48 | port | u64::from(now_s);
        self.last.store(last, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The last one, and the second when it was, if there was one.
    pub fn last(&self) -> Option<(Denial, u32)> {
        if self.count() == 0 {
            return None;
        }
        let last = self.last.load(Ordering::Relaxed);
        let denial = Denial {
            protocol: (last >> 48) as u8,
            port: (last & HAS_PORT != 0).then_some((last >> 32) as u16),
        };
        Some((denial, last as u32))
    }
}
