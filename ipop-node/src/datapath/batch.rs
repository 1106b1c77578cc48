//! Records that leave together: those of one peer in one call.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use ipop_datapath::ecn::Ecn;
use ipop_datapath::record::{ContentType, TAG};
use ipop_proto::status::DropReason;

use super::map::Way;
use super::message::{MAX_SEGMENTS, MAX_SEND};
use super::socket::Socket;
use super::uplink::Uplinks;

/// TURN channel number and length (RFC 8656 section 12.4).
const CHANNEL_HEADER: usize = 4;
/// Bytes of all batches: how long a record can wait for others of its peer while many peers are
/// sent to, about half a millisecond.
const ROOM: usize = 512 * 1024;
/// Peers that have a batch at the same time.
const MAX_OPEN: usize = 256;

/// A batch for each of the peers that were sent to since the last [`flush`](Self::flush).
pub struct Batches {
    /// Datagrams, one after the other, whosever they are.
    bytes: Box<[u8]>,
    used: usize,
    /// Made once, used again and again.
    batches: Vec<Batch>,
    /// How many of them belong to a peer.
    open: usize,
    /// How many of those have something to send.
    ready: usize,
    /// By a peer's number, which one is its.
    by_peer: Vec<Option<u16>>,
    uplinks: Uplinks,
}

/// Datagrams for one peer, with one congestion mark, and of one size but for the last.
#[derive(Default)]
struct Batch {
    to: Option<(Arc<Way>, Arc<Socket>)>,
    /// Where they are; what stands together is one part.
    parts: Vec<Range<usize>>,
    /// Bytes of all.
    len: usize,
    /// Bytes of each but the last.
    segment: usize,
    count: usize,
    ecn: Ecn,
    /// The last one is shorter, and must stay the last.
    is_closed: bool,
}

impl Batches {
    /// No batches; what the kernel has no room for goes to `uplinks`.
    pub fn new(uplinks: Uplinks) -> Self {
        Self {
            bytes: vec![0; ROOM].into_boxed_slice(),
            used: 0,
            batches: Vec::new(),
            open: 0,
            ready: 0,
            by_peer: Vec::new(),
            uplinks,
        }
    }

    /// Adds a record whose content, of `len` bytes, is what `write` writes, in a datagram with the
    /// field `ecn`. The peer's batch is sent first when this cannot go with it, and all are when
    /// there is no room for it.
    pub fn seal(
        &mut self,
        socket: &Arc<Socket>,
        way: &Arc<Way>,
        ecn: Ecn,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), DropReason> {
        let keys = &way.path.keys.sending;
        let head = way.path.route.channel.map_or(0, |_| CHANNEL_HEADER);
        let datagram = head + keys.overhead() + len;
        let at = self.batch_for(socket, way, ecn, datagram);
        let out = &mut self.bytes[self.used..self.used + datagram];
        if let Some(channel) = way.path.route.channel {
            out[..2].copy_from_slice(&channel.to_be_bytes());
            let [.., high, low] = (datagram - head).to_be_bytes();
            out[2..4].copy_from_slice(&[high, low]);
        }
        let record = &mut out[head..];
        let end = record.len() - TAG;
        write(&mut record[keys.prefix()..end]);
        // One at a time: what a batch left over would wear the keys out, and kept for the next it
        // would fall behind the numbers of other threads, and out of the peer's window.
        let mut number = keys.reserve(1).ok_or(DropReason::KeysWorn)?;
        keys.seal(ContentType::ApplicationData, &mut number, record)
            .map_err(|_| DropReason::SendFailed)?;
        let batch = &mut self.batches[at];
        self.ready += usize::from(batch.count == 0);
        batch.add(ecn, self.used..self.used + datagram);
        self.used += datagram;
        Ok(())
    }

    /// Sends what is ready.
    pub fn flush(&mut self) {
        for at in 0..self.open {
            self.send(at);
            if let Some((way, _)) = self.batches[at].to.take() {
                self.by_peer[usize::from(way.index)] = None;
            }
        }
        self.open = 0;
    }

    /// What waits for the kernel.
    pub fn uplinks(&mut self) -> &mut Uplinks {
        &mut self.uplinks
    }

    /// The peer's batch, with room for a datagram of this size and mark.
    fn batch_for(
        &mut self,
        socket: &Arc<Socket>,
        way: &Arc<Way>,
        ecn: Ecn,
        datagram: usize,
    ) -> usize {
        let index = usize::from(way.index);
        if self.by_peer.len() <= index {
            self.by_peer.resize(index + 1, None);
        }
        if let Some(at) = self.by_peer[index].map(usize::from) {
            let goes_there = self.batches[at].goes(way);
            if !goes_there || !self.batches[at].has_room(ecn, datagram) {
                self.send(at);
            }
            if self.used + datagram <= ROOM {
                if !goes_there {
                    self.batches[at].to = Some((way.clone(), socket.clone()));
                }
                return at;
            }
            self.flush();
        } else if self.open == MAX_OPEN || self.used + datagram > ROOM {
            self.flush();
        }
        let at = self.open;
        self.open += 1;
        if self.batches.len() == at {
            self.batches.push(Batch::default());
        }
        self.batches[at].to = Some((way.clone(), socket.clone()));
        self.by_peer[index] = Some(at as u16);
        at
    }

    /// Sends a batch, which stays its peer's.
    fn send(&mut self, at: usize) {
        let batch = &mut self.batches[at];
        let Some((way, socket)) = batch.to.as_ref().filter(|_| batch.count > 0) else {
            return;
        };
        let mut parts = [IoSlice::new(&[]); MAX_SEGMENTS];
        for (part, range) in parts.iter_mut().zip(&batch.parts) {
            *part = IoSlice::new(&self.bytes[range.clone()]);
        }
        let parts = &parts[..batch.parts.len()];
        self.uplinks
            .send(socket, way, parts, batch.segment, batch.ecn);
        batch.clear();
        self.ready -= 1;
        if self.ready == 0 {
            self.used = 0;
        }
    }
}

impl Batch {
    /// Adds a datagram, for which there is room.
    fn add(&mut self, ecn: Ecn, datagram: Range<usize>) {
        let len = datagram.len();
        if self.count == 0 {
            self.segment = len;
            self.ecn = ecn;
        }
        match self.parts.last_mut() {
            Some(last) if last.end == datagram.start => last.end = datagram.end,
            _ => self.parts.push(datagram),
        }
        self.len += len;
        self.count += 1;
        self.is_closed = len < self.segment;
    }

    /// Whether it goes this way, and not one that the peer had before, or that another peer had whose
    /// number it got.
    fn goes(&self, way: &Arc<Way>) -> bool {
        self.to.as_ref().is_some_and(|(to, _)| Arc::ptr_eq(to, way))
    }

    /// Whether a datagram of this size and mark may be the next.
    fn has_room(&self, ecn: Ecn, len: usize) -> bool {
        self.count == 0
            || !self.is_closed
                && ecn == self.ecn
                && len <= self.segment
                && self.count < MAX_SEGMENTS
                && self.len + len <= MAX_SEND
    }

    fn clear(&mut self) {
        self.parts.clear();
        self.len = 0;
        self.count = 0;
        self.is_closed = false;
    }
}

#[cfg(test)]
mod tests;
