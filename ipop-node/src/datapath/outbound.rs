//! From the device to the underlay: one thread for each queue.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use bytes::BytesMut;
use ipop_datapath::envelope::{ENVELOPE, Envelope, Kind};
use ipop_datapath::inet::Layer;
use ipop_datapath::published::Reader;
use ipop_datapath::record::{ContentType, TAG};
use ipop_datapath::segment::{Malformed, Segments, Sum, Sums};
use ipop_datapath::vnet::{Invalid, VnetHdr};
use ipop_proto::overlay::Traffic;
use ipop_proto::status::DropReason;
use rustix::event::{PollFd, PollFlags, poll};

use super::inbox::{Inbox, Taken};
use super::map::{Map, Way};
use super::message::{MAX_SEGMENTS, MAX_SEND};
use super::queue::{LARGEST, Queue};

/// Packets read before what is ready is sent, however much more there is.
const BUDGET: usize = 64;
/// TURN channel number and length (RFC 8656 section 12.4).
const CHANNEL_HEADER: usize = 4;

/// See the module.
pub struct Outbound {
    /// Which of the sockets of one address is this thread's.
    number: usize,
    queue: Queue,
    map: Reader<Map>,
    inbox: Inbox,
    /// Drops that belong to no peer.
    drops: Arc<Traffic>,
    /// Overlay MTU in bytes.
    mtu: usize,
    packet: Box<[u8]>,
    batch: Batch,
    /// Where the packet before went.
    last: Option<(IpAddr, Arc<Way>)>,
}

/// Records for one peer that leave in one call.
struct Batch {
    bytes: Box<[u8]>,
    used: usize,
    /// Bytes of each datagram but the last; 0 while there is none.
    segment: usize,
    count: usize,
    /// The last one is shorter, and must stay the last.
    is_closed: bool,
    way: Option<Arc<Way>>,
}

impl Outbound {
    pub fn new(
        number: usize,
        queue: Queue,
        map: Reader<Map>,
        inbox: Inbox,
        drops: Arc<Traffic>,
        mtu: u16,
    ) -> Self {
        Self {
            number,
            queue,
            map,
            inbox,
            drops,
            mtu: usize::from(mtu),
            packet: vec![0; LARGEST].into_boxed_slice(),
            batch: Batch {
                bytes: vec![0; MAX_SEND].into_boxed_slice(),
                used: 0,
                segment: 0,
                count: 0,
                is_closed: false,
                way: None,
            },
            last: None,
        }
    }

    /// Runs until `stop` can be read, or the device is gone: then why.
    pub fn run(mut self, stop: &OwnedFd) -> io::Result<()> {
        loop {
            self.refresh();
            for _ in 0..BUDGET {
                match self.queue.read(&mut self.packet) {
                    Ok((header, len)) => self.take(header, len),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.flush();
                        if wait(&self.queue, stop)? {
                            return Ok(());
                        }
                        self.refresh();
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            self.flush();
        }
    }

    fn refresh(&mut self) {
        if self.map.refresh() {
            self.flush();
            self.last = None;
        }
    }

    /// One packet or super-packet.
    fn take(&mut self, header: Result<VnetHdr, Invalid>, len: usize) {
        let segments = header
            .map_err(Malformed::from)
            .and_then(|header| Segments::of(Layer::Ip, &header, &self.packet[..len]));
        let segments = match segments {
            Ok(segments) => segments,
            Err(error) => {
                tracing::trace!(%error, len, "packet of the device dropped");
                return self.drops.dropped(DropReason::Malformed);
            }
        };
        let way = destination(&self.packet[..len]).and_then(|addr| self.way(addr));
        let fits = segments.segment_len().max(segments.last_len()) <= self.mtu;
        match way {
            Some(way) if fits => self.seal(&way, &segments, len),
            // No peer, no link, too large, multicast: the overlay knows what to do.
            _ => self.hand_over(&segments, len),
        }
    }

    fn way(&mut self, addr: IpAddr) -> Option<Arc<Way>> {
        if let Some((last, way)) = &self.last
            && *last == addr
        {
            return Some(way.clone());
        }
        let way = self.map.get().routes.route(addr)?.clone();
        self.last = Some((addr, way.clone()));
        Some(way)
    }

    fn seal(&mut self, way: &Arc<Way>, segments: &Segments, len: usize) {
        let keys = &way.path.keys.sending;
        let traffic = &way.path.traffic;
        let count = segments.count();
        let numbers = u16::try_from(count).ok().and_then(|n| keys.reserve(n));
        let Some(mut numbers) = numbers else {
            return traffic.dropped_many(DropReason::KeysWorn, count as u64);
        };
        let head = way.path.route.channel.map_or(0, |_| CHANNEL_HEADER);
        let mut bytes = 0;
        for index in 0..count {
            let packet_len = segments.len(index);
            let datagram = head + keys.overhead() + ENVELOPE + packet_len;
            if !self.batch.has_room(way, datagram) {
                self.flush();
            }
            let out = self.batch.add(way, datagram);
            if let Some(channel) = way.path.route.channel {
                out[..2].copy_from_slice(&channel.to_be_bytes());
                let [.., high, low] = (datagram - head).to_be_bytes();
                out[2..4].copy_from_slice(&[high, low]);
            }
            let record = &mut out[head..];
            let content = keys.prefix();
            let end = record.len() - TAG;
            let sum = segments.write(
                &self.packet[..len],
                index,
                Sums::Partial,
                &mut record[content + ENVELOPE..end],
            );
            let envelope = Envelope {
                kind: Kind::Packet,
                partial_sum: sum == Sum::Partial,
            };
            record[content..content + ENVELOPE].copy_from_slice(&envelope.bytes());
            if keys
                .seal(ContentType::ApplicationData, &mut numbers, record)
                .is_err()
            {
                self.batch.take_back(datagram);
                traffic.dropped(DropReason::SendFailed);
                continue;
            }
            bytes += packet_len as u64;
        }
        traffic.sent(count as u64, bytes);
    }

    /// Gives a packet to the node's task. Of a super-packet the first one does: what is said of it
    /// is said of all.
    fn hand_over(&mut self, segments: &Segments, len: usize) {
        let mut packet = BytesMut::zeroed(segments.len(0));
        segments.write(&self.packet[..len], 0, Sums::Complete, &mut packet);
        if !self.inbox.put(Taken::Packet(packet)) {
            self.drops.dropped(DropReason::QueueFull);
        }
    }

    fn flush(&mut self) {
        let Some((way, bytes, segment)) = self.batch.take() else {
            return;
        };
        let socket = &way.sockets[self.number % way.sockets.len()];
        if let Err((lost, error)) = socket.send_batch(&way.remote, bytes, segment) {
            tracing::trace!(remote = ?way.remote, %error, "datagrams not sent");
            let reason = match error.kind() {
                io::ErrorKind::WouldBlock => DropReason::QueueFull,
                _ if error.raw_os_error() == Some(libc::ENOBUFS) => DropReason::QueueFull,
                _ => DropReason::SendFailed,
            };
            way.path.traffic.dropped_many(reason, lost as u64);
        }
    }
}

impl Batch {
    /// Whether a datagram of this size may be the next.
    fn has_room(&self, way: &Arc<Way>, len: usize) -> bool {
        match &self.way {
            None => true,
            Some(own) => {
                Arc::ptr_eq(own, way)
                    && !self.is_closed
                    && len <= self.segment
                    && self.count < MAX_SEGMENTS
                    && self.used + len <= MAX_SEND
            }
        }
    }

    /// Room for the next datagram.
    fn add(&mut self, way: &Arc<Way>, len: usize) -> &mut [u8] {
        if self.way.is_none() {
            self.way = Some(way.clone());
            self.segment = len;
        }
        self.is_closed = len < self.segment;
        let start = self.used;
        self.used += len;
        self.count += 1;
        &mut self.bytes[start..self.used]
    }

    /// Forgets the datagram added last.
    fn take_back(&mut self, len: usize) {
        self.used -= len;
        self.count -= 1;
        self.is_closed = true;
    }

    /// What is to be sent, where to, and in which pieces.
    fn take(&mut self) -> Option<(Arc<Way>, &[u8], usize)> {
        let way = self.way.take()?;
        let used = std::mem::take(&mut self.used);
        self.count = 0;
        self.is_closed = false;
        (used > 0).then(|| (way, &self.bytes[..used], self.segment))
    }
}

/// The destination of an IP packet, if it has one.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(*packet.get(16..)?.first_chunk::<4>()?)),
        6 => Some(IpAddr::from(*packet.get(24..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

/// Waits until the queue can be read; whether it is time to stop.
fn wait(queue: &Queue, stop: &OwnedFd) -> io::Result<bool> {
    let queue = queue.as_fd();
    let mut fds = [
        PollFd::new(&queue, PollFlags::IN),
        PollFd::new(stop, PollFlags::IN),
    ];
    match poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!fds[1].revents().is_empty()),
        Err(error) => Err(error.into()),
    }
}
