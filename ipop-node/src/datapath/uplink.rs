//! What waits until the kernel has room for it, by socket: each local address has its own, so that
//! a slow network does not stall another.

use std::io::IoSlice;
use std::sync::Arc;

use ipop_datapath::backlog::{Backlog, Limits};
use ipop_datapath::ecn::Ecn;
use ipop_proto::status::DropReason;

use super::map::Way;
use super::message::MAX_SEND;
use super::socket::{Sent, Socket, drop_reason};

/// A few batches for a peer: what waits longer is of no more use to anybody, and what waited
/// longer behind newer records of another thread would be out of the peer's replay window.
const LIMITS: Limits = Limits {
    peer: 256 * 1024,
    total: 4 * 1024 * 1024,
    quantum: MAX_SEND + DATAGRAM * 64,
};
/// What a datagram costs besides its bytes: headers on the wire, and keeping it here.
const DATAGRAM: usize = 64;

/// The sockets that the kernel had no room for, with what waits for each.
#[derive(Default)]
pub struct Uplinks {
    full: Vec<Uplink>,
}

struct Uplink {
    socket: Arc<Socket>,
    backlog: Backlog<Sealed>,
}

/// A batch, or what is left of one.
struct Sealed {
    way: Arc<Way>,
    bytes: Vec<u8>,
    /// Bytes of each datagram but the last.
    segment: usize,
    ecn: Ecn,
    /// Bytes that are dealt with.
    done: usize,
}

impl Uplinks {
    /// Sends a batch, of datagrams of `segment` bytes of which the last may be shorter, each with
    /// the field `ecn`; or keeps it, when there are others before it or the kernel has no room.
    pub fn send(
        &mut self,
        socket: &Arc<Socket>,
        way: &Arc<Way>,
        parts: &[IoSlice<'_>],
        segment: usize,
        ecn: Ecn,
    ) {
        let full = &mut self.full;
        if let Some(uplink) = full.iter_mut().find(|u| Arc::ptr_eq(&u.socket, socket)) {
            let sealed = Sealed::new(way, parts, segment, ecn);
            return uplink.keep(sealed);
        }
        let sent = socket.send_batch(&way.remote, parts, segment, ecn);
        count_lost(way, &sent);
        if sent.is_full {
            let mut uplink = Uplink {
                socket: socket.clone(),
                backlog: Backlog::new(LIMITS),
            };
            let mut sealed = Sealed::new(way, parts, segment, ecn);
            sealed.done = sent.bytes;
            uplink.keep(sealed);
            full.push(uplink);
        }
    }

    /// Sends what there is room for now.
    pub fn resume(&mut self) {
        self.full.retain_mut(|uplink| !uplink.resume());
    }

    /// Gives up what waits for sockets that are no longer in use.
    pub fn retain(&mut self, mut is_used: impl FnMut(&Arc<Socket>) -> bool) {
        self.full.retain_mut(|uplink| {
            let stays = is_used(&uplink.socket);
            if !stays {
                uplink.give_up();
            }
            stays
        });
    }

    /// The sockets that something waits for.
    pub fn full(&self) -> impl Iterator<Item = &Socket> {
        self.full.iter().map(|uplink| &*uplink.socket)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.full.is_empty()
    }
}

impl Uplink {
    fn keep(&mut self, sealed: Sealed) {
        let cost = sealed.bytes.len() + DATAGRAM * sealed.count();
        self.backlog.push(sealed.way.index, cost, sealed, |lost| {
            lost.drop_for(DropReason::QueueFull);
        });
    }

    /// Sends what there is room for, signalling first. Whether that is all.
    fn resume(&mut self) -> bool {
        self.socket.send_waiting();
        while let Some(sealed) = self.backlog.front() {
            let rest = [IoSlice::new(&sealed.bytes[sealed.done..])];
            let sent =
                self.socket
                    .send_batch(&sealed.way.remote, &rest, sealed.segment, sealed.ecn);
            count_lost(&sealed.way, &sent);
            sealed.done += sent.bytes;
            if sent.is_full {
                return false;
            }
            self.backlog.pop();
        }
        true
    }

    fn give_up(&mut self) {
        while let Some(sealed) = self.backlog.pop() {
            sealed.drop_for(DropReason::SendFailed);
        }
    }
}

impl Sealed {
    /// A batch of which nothing is dealt with.
    fn new(way: &Arc<Way>, parts: &[IoSlice<'_>], segment: usize, ecn: Ecn) -> Self {
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            bytes.extend_from_slice(part);
        }
        Self {
            way: way.clone(),
            bytes,
            segment,
            ecn,
            done: 0,
        }
    }

    /// Datagrams that are left.
    fn count(&self) -> usize {
        (self.bytes.len() - self.done).div_ceil(self.segment)
    }

    fn drop_for(self, reason: DropReason) {
        self.way
            .path
            .traffic
            .dropped_many(reason, self.count() as u64);
    }
}

fn count_lost(way: &Way, sent: &Sent) {
    if let Some((lost, error)) = &sent.lost {
        tracing::trace!(remote = ?way.remote, %error, "datagrams not sent");
        let traffic = &way.path.traffic;
        traffic.dropped_many(drop_reason(error), *lost as u64);
    }
}

#[cfg(test)]
mod tests;
