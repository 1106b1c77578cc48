//! From the device to the underlay, for one queue.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use ipop_datapath::carry::{Carry, carry};
use ipop_datapath::ecn::Ecn;
use ipop_datapath::envelope::{ENVELOPE, Envelope, Kind};
use ipop_datapath::fragment::PATH_CONTENT;
use ipop_datapath::holders::Holders;
use ipop_datapath::inet::{ETHERNET_LEN, Layer};
use ipop_datapath::policy::Direction;
use ipop_datapath::published::Reader;
use ipop_datapath::segment::{Malformed, Segments, Sum, Sums};
use ipop_datapath::stations::{LOCAL, Stations};
use ipop_datapath::vnet::{Invalid, VnetHdr};
use ipop_proto::config::OverlayMode;
use ipop_proto::overlay::Traffic;
use ipop_proto::status::DropReason;
use ipop_proto::switch::Matter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Common;
use super::addresses::destination;
use super::duty::{Load, QUIET};
use super::handed::{Handed, HandedOver, What};
use super::inbox::{Inbox, Taken};
use super::map::{Map, Way};
use super::orders::Ordered;
use super::queue::{LARGEST, Queue};
use super::sealer::Sealer;

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
    tv_nsec: QUIET.subsec_nanos() as i64,
};

/// See the module.
pub struct Outbound {
    queue: Queue,
    map: Reader<Map>,
    inbox: Inbox,
    handed_over: Arc<HandedOver>,
    ordered: Ordered,
    /// Drops that belong to no peer.
    drops: Arc<Traffic>,
    mode: OverlayMode,
    stations: Arc<Stations>,
    holders: Reader<Holders>,
    started: Instant,
    /// Seconds since then, as of the last look.
    now_s: u32,
    /// Largest packet or frame in bytes.
    largest: usize,
    packet: Box<[u8]>,
    /// The congestion mark of what is in `packet`, which its datagrams get as well.
    ecn: Ecn,
    sealer: Sealer,
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
    pub fn new(number: usize, queue: Queue, common: &Common, ordered: Ordered, mtu: u16) -> Self {
        let largest = usize::from(mtu);
        Self {
            queue,
            map: Reader::new(common.map.clone()),
            inbox: common.inbox.clone(),
            handed_over: common.handed_over.clone(),
            ordered,
            drops: common.drops.clone(),
            mode: common.mode,
            stations: common.tables.stations.clone(),
            holders: Reader::new(common.tables.holders.clone()),
            started: common.started,
            now_s: 0,
            largest: match common.mode {
                OverlayMode::Route => largest,
                OverlayMode::Switch => largest.max(LAN_MTU) + ETHERNET_LEN + VLAN_TAGS,
            },
            packet: vec![0; LARGEST].into_boxed_slice(),
            ecn: Ecn::NotEct,
            sealer: Sealer::new(number),
            last: None,
        }
    }

    /// Works until there is little to do, and nothing that waits. Whether `stop` can be read. An
    /// error is why the device is gone.
    pub fn work(&mut self, stop: &OwnedFd) -> io::Result<bool> {
        let mut load = Load::new(Instant::now());
        loop {
            self.refresh();
            self.sealer.uplinks().resume();
            self.carry_out();
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
        self.sealer.flush();
        Ok(round)
    }

    /// Whether something waits for room in a socket.
    pub fn is_kept_waiting(&mut self) -> bool {
        !self.sealer.uplinks().is_empty()
    }

    /// What can be read when there is something to do: packets, or orders.
    pub fn sources(&self) -> [BorrowedFd<'_>; 2] {
        [self.queue.as_fd(), self.ordered.as_fd()]
    }

    /// For a thread that does not [`work`](Self::work): carries out the orders that there are.
    pub fn obey(&mut self) {
        if !self.ordered.is_empty() {
            self.ordered.awake();
            self.carry_out();
        }
    }

    /// Does what the node's task wants. With what is sealed here nothing of a later map is mixed.
    fn carry_out(&mut self) {
        let mut is_any = false;
        while let Some(order) = self.ordered.take() {
            is_any = true;
            let content = &order.content;
            let envelope = Envelope {
                kind: order.kind,
                partial_sum: false,
            };
            let traffic = &order.way.path.traffic;
            let len = ENVELOPE + content.len();
            let sealed = self.sealer.seal(&order.way, Ecn::NotEct, len, |out| {
                out[..ENVELOPE].copy_from_slice(&envelope.bytes());
                out[ENVELOPE..].copy_from_slice(content);
            });
            match sealed {
                Ok(()) if order.kind == Kind::Frame => traffic.sent(1, content.len() as u64),
                Ok(()) => {}
                Err(reason) => traffic.dropped(reason),
            }
        }
        if is_any {
            self.sealer.flush();
        }
    }

    /// Waits for a while until there is something to read or to do, or room for what waits; whether
    /// it is time to stop.
    fn wait(&mut self, stop: &OwnedFd) -> io::Result<bool> {
        let queue = self.queue.as_fd();
        let first = [
            PollFd::new(stop, PollFlags::IN),
            PollFd::new(&queue, PollFlags::IN),
            PollFd::new(&self.ordered, PollFlags::IN),
        ];
        let uplinks = self.sealer.uplinks();
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
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |at: usize| !fds[at].revents().is_empty();
        let (stops, has_orders) = (is_ready(0), is_ready(2));
        if has_orders {
            self.ordered.awake();
        }
        Ok(stops)
    }

    /// Looks at what has changed since the last round.
    pub fn refresh(&mut self) {
        let is_new = self.map.refresh();
        self.holders.refresh();
        if self.mode == OverlayMode::Switch || self.map.get().has_gates {
            self.now_s = self.started.elapsed().as_secs() as u32;
        }
        if is_new {
            self.last = None;
            let sockets = &self.map.get().sockets;
            let is_bound = |socket: &Arc<_>| sockets.values().any(|own| Arc::ptr_eq(own, socket));
            self.sealer.uplinks().retain(is_bound);
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
                    Some(way) if fits && self.admits(&way, len) => self.seal(&way, &segments, len),
                    // No peer, no link, too large, multicast, not allowed: the overlay knows what to do.
                    _ => self.hand_over(&segments, len),
                }
            }
            OverlayMode::Switch if fits => self.switch(&segments, len),
            OverlayMode::Switch => self.drops.dropped(DropReason::TooBig),
        }
    }

    /// An Ethernet frame: to the peer its destination is behind, if that is known; else the switch
    /// has to look at it.
    fn switch(&mut self, segments: &Segments, len: usize) {
        let (frame, holders) = (&self.packet[..len], self.holders.get());
        match carry(&self.stations, holders, LOCAL, frame, self.now_s) {
            Carry::ToPeer(index) => {
                let way = self.map.get().ways.get(usize::from(index));
                match way.and_then(Option::clone) {
                    Some(way) => self.seal(&way, segments, len),
                    // Its link has just ended.
                    None => self
                        .drops
                        .dropped_many(DropReason::NoLink, segments.count() as u64),
                }
            }
            // Whoever it is for has it already.
            Carry::Stays => {}
            Carry::ToDevice | Carry::HandOver => {
                for index in 0..segments.count() {
                    let frame = self.written(segments, index, len);
                    self.handed_over.put(Handed {
                        from: None,
                        what: What::Switch(Matter::Frame(frame.freeze())),
                    });
                }
            }
        }
    }

    /// Whether the packet, all of a super-packet, may go to the peer.
    fn admits(&self, way: &Way, len: usize) -> bool {
        let packet = &self.packet[..len];
        let gate = way.path.gate.as_ref();
        gate.is_none_or(|gate| gate.admits(Direction::Out, packet, self.now_s))
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
        let kind = match self.mode {
            OverlayMode::Route => Kind::Packet,
            OverlayMode::Switch => Kind::Frame,
        };
        let packet = &self.packet[..len];
        let mut bytes = 0;
        let mut packets = 0;
        for index in 0..segments.count() {
            let packet_len = segments.len(index);
            let len = ENVELOPE + packet_len;
            let sealed = self.sealer.seal(way, self.ecn, len, |content| {
                let (envelope, body) = content.split_at_mut(ENVELOPE);
                let sum = segments.write(packet, index, Sums::Partial, body);
                let partial_sum = sum == Sum::Partial;
                envelope.copy_from_slice(&Envelope { kind, partial_sum }.bytes());
            });
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

    /// Gives a packet to the node's task. Of a super-packet the first one does: what is said of it
    /// is said of all.
    fn hand_over(&mut self, segments: &Segments, len: usize) {
        let packet = self.written(segments, 0, len);
        if !self.inbox.put(Taken::Packet(packet)) {
            self.drops.dropped(DropReason::QueueFull);
        }
    }

    /// Packet `index`, for somebody who looks into it.
    fn written(&self, segments: &Segments, index: usize, len: usize) -> BytesMut {
        let mut packet = BytesMut::zeroed(segments.len(index));
        segments.write(&self.packet[..len], index, Sums::Complete, &mut packet);
        packet
    }
}
