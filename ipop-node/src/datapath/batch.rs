//! Records for one peer that leave in one call.

use std::sync::Arc;

use ipop_datapath::ecn::Ecn;
use ipop_datapath::record::{ContentType, TAG};
use ipop_proto::status::DropReason;

use super::map::Way;
use super::message::{MAX_SEGMENTS, MAX_SEND};
use super::socket::{Socket, drop_reason};

/// TURN channel number and length (RFC 8656 section 12.4).
const CHANNEL_HEADER: usize = 4;

/// Datagrams that are ready, all for one peer, with one congestion mark, and of one size but for the
/// last.
pub struct Batch {
    bytes: Box<[u8]>,
    used: usize,
    /// Bytes of each datagram but the last.
    segment: usize,
    count: usize,
    ecn: Ecn,
    /// The last one is shorter, and must stay the last.
    is_closed: bool,
    to: Option<(Arc<Way>, Arc<Socket>)>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            bytes: vec![0; MAX_SEND].into_boxed_slice(),
            used: 0,
            segment: 0,
            count: 0,
            ecn: Ecn::NotEct,
            is_closed: false,
            to: None,
        }
    }
}

impl Batch {
    /// Adds a record whose content, of `len` bytes, is what `write` writes, in a datagram with the
    /// field `ecn`. What was ready before is sent first when this cannot go with it.
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
        if self.ecn != ecn || !self.has_room(way, datagram) {
            self.flush();
        }
        if self.to.is_none() {
            self.to = Some((way.clone(), socket.clone()));
            self.segment = datagram;
            self.ecn = ecn;
        }
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
        self.used += datagram;
        self.count += 1;
        self.is_closed = datagram < self.segment;
        Ok(())
    }

    /// Sends what is ready.
    pub fn flush(&mut self) {
        let Some((way, socket)) = self.to.take() else {
            return;
        };
        let used = std::mem::take(&mut self.used);
        self.count = 0;
        self.is_closed = false;
        if used == 0 {
            return;
        }
        let sent = socket.send_batch(&way.remote, &self.bytes[..used], self.segment, self.ecn);
        if let Err((lost, error)) = sent {
            tracing::trace!(remote = ?way.remote, %error, "datagrams not sent");
            let reason = drop_reason(&error);
            way.path.traffic.dropped_many(reason, lost as u64);
        }
    }

    /// Whether a datagram of this size may be the next.
    fn has_room(&self, way: &Arc<Way>, len: usize) -> bool {
        let Some((own, _)) = &self.to else {
            return true;
        };
        Arc::ptr_eq(own, way)
            && !self.is_closed
            && len <= self.segment
            && self.count < MAX_SEGMENTS
            && self.used + len <= MAX_SEND
    }
}
