//! From the device to the underlay, for one queue.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use ipop_datapath::ecn::Ecn;
use ipop_datapath::envelope::{ENVELOPE, Envelope, Kind};
use ipop_datapath::fragment::{FRAGMENT_HEADER, FragmentHeader, PATH_CONTENT, Pieces};
use ipop_datapath::inet::{ETHERNET_LEN, Layer};
use ipop_datapath::published::Reader;
use ipop_datapath::segment::{Malformed, Segments, Sum, Sums};
use ipop_datapath::stations::Stations;
use ipop_datapath::vnet::{Invalid, VnetHdr};
use ipop_proto::config::OverlayMode;
use ipop_proto::overlay::Traffic;
use ipop_proto::status::DropReason;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Common;
use super::batch::Batches;
use super::duty::Load;
use super::inbox::{Inbox, Taken};
use super::map::{Map, Way};
use super::queue::{LARGEST, Queue};
use super::uplink::Uplinks;

/// Packets read before what is ready is sent, however much more there is: some for each of many
/// peers.
const BUDGET: usize = 512;
/// MTU of an Ethernet that may be behind this node.
const LAN_MTU: usize = 1500;
/// Bytes of two VLAN tags.
const VLAN_TAGS: usize = 8;
/// Longest wait of a thread for something to do, before it sees that there is little.
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};
const FRAGMENT: Envelope = Envelope {
    kind: Kind::Fragment,
    partial_sum: false,
};

/// See the module.
pub struct Outbound {
    /// Which of the sockets of one address is this thread's.
    number: usize,
    queue: Queue,
    map: Reader<Map>,
    inbox: Inbox,
    /// Drops that belong to no peer.
    drops: Arc<Traffic>,
    mode: OverlayMode,
    stations: Arc<Stations>,
    started: Instant,
    /// Seconds since then, as of the last look.
    now_s: u32,
    /// Largest packet or frame in bytes.
    largest: usize,
    /// Number of the next packet that goes in pieces.
    next_id: u16,
    /// Where such a packet is written first.
    whole: Vec<u8>,
    packet: Box<[u8]>,
    /// The congestion mark of what is in `packet`, which its datagrams get as well.
    ecn: Ecn,
    batches: Batches,
    /// Where the packet before went.
    last: Option<(IpAddr, Arc<Way>)>,
}

/// What was taken from the device at one time.
#[derive(Debug, Default)]
pub struct Round {
    pub packets: usize,
    pub bytes: usize,
    /// There is nothing more.
    pub is_dry: bool,
}

impl Outbound {
    pub fn new(number: usize, queue: Queue, common: &Common, mtu: u16) -> Self {
        let largest = usize::from(mtu);
        Self {
            number,
            queue,
            map: Reader::new(common.map.clone()),
            inbox: common.inbox.clone(),
            drops: common.drops.clone(),
            mode: common.mode,
            stations: common.stations.clone(),
            started: common.started,
            now_s: 0,
            largest: match common.mode {
                OverlayMode::Route => largest,
                OverlayMode::Switch => largest.max(LAN_MTU) + ETHERNET_LEN + VLAN_TAGS,
            },
            next_id: 0,
            whole: Vec::new(),
            packet: vec![0; LARGEST].into_boxed_slice(),
            ecn: Ecn::NotEct,
            batches: Batches::new(Uplinks::default()),
            last: None,
        }
    }

    /// Works until there is little to do, and nothing that waits. Whether `stop` can be read. An
    /// error is why the device is gone.
    pub fn work(&mut self, stop: &OwnedFd) -> io::Result<bool> {
        let mut load = Load::new(Instant::now());
        loop {
            self.refresh();
            self.batches.uplinks().resume();
            let round = self.round(BUDGET, usize::MAX)?;
            load.add(round.packets, round.bytes);
            if !round.is_dry {
                continue;
            }
            if load.is_little(Instant::now()) && !self.is_kept_waiting() {
                return Ok(false);
            }
            if self.wait(stop)? {
                return Ok(true);
            }
        }
    }

    /// Takes up to so many packets, or bytes, and sends them.
    pub fn round(&mut self, most: usize, most_bytes: usize) -> io::Result<Round> {
        let mut round = Round::default();
        while round.packets < most && round.bytes < most_bytes {
            match self.queue.read(&mut self.packet) {
                Ok((header, len)) => {
                    self.take(header, len);
                    round.packets += 1;
                    round.bytes += len;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    round.is_dry = true;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.batches.flush();
        Ok(round)
    }

    /// Whether something waits for room in a socket.
    pub fn is_kept_waiting(&mut self) -> bool {
        !self.batches.uplinks().is_empty()
    }

    /// The queue that is read.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Waits for a while until there is something to read, or room for what waits; whether it is
    /// time to stop.
    fn wait(&mut self, stop: &OwnedFd) -> io::Result<bool> {
        let queue = self.queue.as_fd();
        let first = [
            PollFd::new(stop, PollFlags::IN),
            PollFd::new(&queue, PollFlags::IN),
        ];
        let uplinks = self.batches.uplinks();
        let (mut few, mut many);
        let fds: &mut [PollFd<'_>] = if uplinks.is_empty() {
            few = first;
            &mut few
        } else {
            let full = uplinks.full();
            many = Vec::from(first);
            many.extend(full.map(|socket| PollFd::new(socket, PollFlags::OUT)));
            &mut many
        };
        match poll(fds, Some(&PAUSE)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!fds[0].revents().is_empty()),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks at what has changed since the last round.
    pub fn refresh(&mut self) {
        if self.mode == OverlayMode::Switch {
            self.now_s = self.started.elapsed().as_secs() as u32;
        }
        if self.map.refresh() {
            self.last = None;
            let sockets = &self.map.get().sockets;
            let is_bound = |socket: &Arc<_>| sockets.values().any(|own| Arc::ptr_eq(own, socket));
            self.batches.uplinks().retain(is_bound);
        }
    }

    /// One packet or super-packet.
    fn take(&mut self, header: Result<VnetHdr, Invalid>, len: usize) {
        let layer = match self.mode {
            OverlayMode::Route => Layer::Ip,
            OverlayMode::Switch => Layer::Ethernet,
        };
        self.ecn = Ecn::of(layer, &self.packet[..len]);
        let segments = header
            .map_err(Malformed::from)
            .and_then(|header| Segments::of(layer, &header, &self.packet[..len]));
        let segments = match segments {
            Ok(segments) => segments,
            Err(error) => {
                tracing::trace!(%error, len, "packet of the device dropped");
                return self.drops.dropped(DropReason::Malformed);
            }
        };
        let fits = segments.segment_len().max(segments.last_len()) <= self.largest;
        match self.mode {
            OverlayMode::Route => {
                let way = destination(&self.packet[..len]).and_then(|addr| self.way(addr));
                match way {
                    Some(way) if fits => self.seal(&way, &segments, len),
                    // No peer, no link, too large, multicast: the overlay knows what to do.
                    _ => self.hand_over(&segments, len),
                }
            }
            OverlayMode::Switch if fits => self.switch(&segments, len),
            OverlayMode::Switch => self.drops.dropped(DropReason::TooBig),
        }
    }

    /// An Ethernet frame: to the peer its destination is behind, or to all.
    fn switch(&mut self, segments: &Segments, len: usize) {
        let Some(to) = self.packet[..len]
            .first_chunk::<6>()
            .filter(|_| len >= ETHERNET_LEN)
        else {
            return self.drops.dropped(DropReason::Malformed);
        };
        let located = self.stations.locate(*to, self.now_s);
        let map = self.map.get().clone();
        let way = located.and_then(|index| map.ways.get(usize::from(index))?.as_ref());
        if let Some(way) = way {
            return self.seal(way, segments, len);
        }
        let mut sent = false;
        for way in map.ways.iter().flatten() {
            self.seal(way, segments, len);
            sent = true;
        }
        if !sent {
            self.drops.dropped(DropReason::NoLink);
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
        let segments = &segments.within(PATH_CONTENT - ENVELOPE);
        let mut bytes = 0;
        let mut packets = 0;
        for index in 0..segments.count() {
            let packet_len = segments.len(index);
            let sealed = if ENVELOPE + packet_len <= PATH_CONTENT {
                self.seal_whole(way, segments, index, len)
            } else {
                self.seal_pieces(way, segments, index, len)
            };
            match sealed {
                Ok(()) => {
                    packets += 1;
                    bytes += packet_len as u64;
                }
                Err(reason) => way.path.traffic.dropped(reason),
            }
        }
        way.path.traffic.sent(packets, bytes);
    }

    /// Seals packet `index` as one record.
    fn seal_whole(
        &mut self,
        way: &Arc<Way>,
        segments: &Segments,
        index: usize,
        len: usize,
    ) -> Result<(), DropReason> {
        let kind = self.kind();
        let packet = &self.packet[..len];
        let content_len = ENVELOPE + segments.len(index);
        let socket = &way.sockets[self.number % way.sockets.len()];
        self.batches
            .seal(socket, way, self.ecn, content_len, |content| {
                let (envelope, body) = content.split_at_mut(ENVELOPE);
                let sum = segments.write(packet, index, Sums::Partial, body);
                let partial_sum = sum == Sum::Partial;
                envelope.copy_from_slice(&Envelope { kind, partial_sum }.bytes());
            })
    }

    /// Seals packet `index` as several records, none larger than a path takes. Congestion may not
    /// be marked on these: the receiver would have to remember it until it has all of them.
    fn seal_pieces(
        &mut self,
        way: &Arc<Way>,
        segments: &Segments,
        index: usize,
        len: usize,
    ) -> Result<(), DropReason> {
        let kind = self.kind();
        self.whole.resize(ENVELOPE + segments.len(index), 0);
        let (envelope, body) = self.whole.split_at_mut(ENVELOPE);
        let sum = segments.write(&self.packet[..len], index, Sums::Partial, body);
        let partial_sum = sum == Sum::Partial;
        envelope.copy_from_slice(&Envelope { kind, partial_sum }.bytes());
        let room = PATH_CONTENT - ENVELOPE - FRAGMENT_HEADER;
        let pieces = Pieces::of(self.whole.len(), room).ok_or(DropReason::TooBig)?;
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let socket = &way.sockets[self.number % way.sockets.len()];
        for at in 0..pieces.count {
            let piece = &self.whole[pieces.range(at)];
            let header = FragmentHeader {
                id,
                index: at as u8,
                count: pieces.count as u8,
            };
            let content_len = ENVELOPE + FRAGMENT_HEADER + piece.len();
            let ecn = Ecn::NotEct;
            self.batches
                .seal(socket, way, ecn, content_len, |content| {
                    content[..ENVELOPE].copy_from_slice(&FRAGMENT.bytes());
                    content[ENVELOPE..][..FRAGMENT_HEADER].copy_from_slice(&header.bytes());
                    content[ENVELOPE + FRAGMENT_HEADER..].copy_from_slice(piece);
                })?;
        }
        Ok(())
    }

    fn kind(&self) -> Kind {
        match self.mode {
            OverlayMode::Route => Kind::Packet,
            OverlayMode::Switch => Kind::Frame,
        }
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
}

/// The destination of an IP packet, if it has one.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(*packet.get(16..)?.first_chunk::<4>()?)),
        6 => Some(IpAddr::from(*packet.get(24..)?.first_chunk::<16>()?)),
        _ => None,
    }
}
