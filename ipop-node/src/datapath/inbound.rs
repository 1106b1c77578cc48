//! From the underlay to the device: one thread for each set of sockets.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use ipop_datapath::carry::{Carry, carry};
use ipop_datapath::coalesce::{Coalescer, Offload, complete_sum};
use ipop_datapath::ecn::Ecn;
use ipop_datapath::envelope::{ENVELOPE, Envelope, Kind};
use ipop_datapath::generation::Refused;
use ipop_datapath::holders::Holders;
use ipop_datapath::inet::Layer;
use ipop_datapath::policy::Direction;
use ipop_datapath::published::Reader;
use ipop_datapath::record::{ContentType, RecordHeader};
use ipop_datapath::segment::Sum;
use ipop_datapath::stations::Stations;
use ipop_proto::address::OverlayAddrs;
use ipop_proto::config::OverlayMode;
use ipop_proto::net::DatagramClass;
use ipop_proto::overlay::Traffic;
use ipop_proto::status::DropReason;
use ipop_proto::switch::Matter;
use ipop_proto::switch::message::Message;
use rustix::event::epoll;

use super::Common;
use super::addresses::addresses;
use super::duty::{DEVICE, Duty};
use super::handed::{Handed, HandedOver, What};
use super::inbox::{Inbox, Taken};
use super::map::{Map, Way};
use super::message::{MESSAGE, Received, Receiver};
use super::queue::Queue;
use super::socket::Socket;

/// Messages taken in by one call.
const MESSAGES: usize = 8;
/// Calls for one socket before others get their turn.
const TURNS: usize = 8;
/// Where in the buffer the messages end.
const WHOLE_START: usize = MESSAGES * MESSAGE;
/// Bytes after that for what came in pieces: twice as much as one message can bring.
const WHOLE: usize = 2 * MESSAGE;
/// The number that `epoll` gives for the end.
pub const STOP: u64 = u64::MAX;
/// TURN channel number and length (RFC 8656 section 12.4).
const CHANNEL_HEADER: usize = 4;

/// See the module.
pub struct Inbound {
    queue: Queue,
    map: Reader<Map>,
    inbox: Inbox,
    handed_over: Arc<HandedOver>,
    /// Drops that belong to no peer.
    drops: Arc<Traffic>,
    me: OverlayAddrs,
    mode: OverlayMode,
    layer: Layer,
    /// The congestion mark of the message that is looked at.
    ecn: Ecn,
    stations: Arc<Stations>,
    holders: Reader<Holders>,
    started: Instant,
    /// Seconds since then, as of the last look.
    now_s: u32,
    receiver: Receiver,
    /// Messages, and after them what was put together from pieces, up to here.
    whole_end: usize,
    buffer: Box<[u8]>,
    coalescer: Coalescer,
}

/// What a peer sent in one message.
#[derive(Default)]
struct Count {
    packets: u64,
    bytes: u64,
}

/// Why a datagram goes nowhere from here.
enum Other {
    /// The node's task is to look at it.
    Task,
    Dropped(DropReason),
}

impl Inbound {
    pub fn new(queue: Queue, common: &Common, me: OverlayAddrs, offload: Offload) -> Self {
        let layer = match common.mode {
            OverlayMode::Route => Layer::Ip,
            OverlayMode::Switch => Layer::Ethernet,
        };
        Self {
            queue,
            map: Reader::new(common.map.clone()),
            inbox: common.inbox.clone(),
            handed_over: common.handed_over.clone(),
            drops: common.drops.clone(),
            me,
            mode: common.mode,
            layer,
            ecn: Ecn::NotEct,
            stations: common.tables.stations.clone(),
            holders: Reader::new(common.tables.holders.clone()),
            started: common.started,
            now_s: 0,
            whole_end: WHOLE_START,
            receiver: Receiver::new(MESSAGES),
            buffer: vec![0; WHOLE_START + WHOLE].into_boxed_slice(),
            coalescer: Coalescer::new(layer, offload),
        }
    }

    /// Runs until the event [`STOP`], or the device is gone: then why.
    pub fn run(mut self, epoll: &OwnedFd, duty: &Duty) -> io::Result<()> {
        let mut events = Vec::with_capacity(16);
        loop {
            events.clear();
            match epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            self.map.refresh();
            self.holders.refresh();
            if self.mode == OverlayMode::Switch || self.map.get().has_gates {
                self.now_s = self.started.elapsed().as_secs() as u32;
            }
            for event in &events {
                let number = event.data.u64();
                if number == STOP {
                    return Ok(());
                }
                if number == DEVICE {
                    duty.readable()?;
                    continue;
                }
                // One that was closed since then has nothing more to say.
                if let Some(socket) = self.map.get().sockets.get(&number).cloned() {
                    self.drain(&socket, duty)?;
                }
            }
        }
    }

    fn drain(&mut self, socket: &Socket, duty: &Duty) -> io::Result<()> {
        for _ in 0..TURNS {
            let received = match self.receiver.receive(socket.as_fd(), &mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP error that some earlier datagram brought: ICE finds out itself.
                Err(error) => {
                    tracing::trace!(%error, "receive error ignored");
                    continue;
                }
            };
            for at in 0..received {
                if let Some(message) = self.receiver.message(at) {
                    self.take(socket, at * MESSAGE, &message);
                }
                if self.whole_end > WHOLE_START + WHOLE / 2 {
                    self.deliver();
                }
            }
            self.deliver();
            if received < self.receiver.capacity() {
                break;
            }
            duty.is_late()?;
        }
        Ok(())
    }

    /// One message: datagrams of one sender.
    fn take(&mut self, socket: &Socket, start: usize, message: &Received) {
        self.ecn = message.ecn;
        let mut from = None;
        let mut count = Count::default();
        let end = start + message.len.min(MESSAGE);
        let mut at = start;
        while at < end {
            let datagram = at..(at + message.segment).min(end);
            at = datagram.end;
            let origin = (socket.local(), message.remote);
            let taken = self.open(origin, datagram.clone(), &mut from, &mut count);
            match taken {
                Ok(()) => {}
                Err(Other::Dropped(reason)) => match &from {
                    Some((_, way)) => way.path.traffic.dropped(reason),
                    None => self.drops.dropped(reason),
                },
                Err(Other::Task) => self.hand_over(origin, datagram),
            }
        }
        if let Some((_, way)) = from.filter(|_| count.packets > 0) {
            way.path.traffic.received(count.packets, count.bytes);
        }
    }

    /// Opens one datagram and files its packet. `from` is whose the one before was.
    fn open(
        &mut self,
        (local, remote): (SocketAddr, SocketAddr),
        datagram: Range<usize>,
        from: &mut Option<(Option<u16>, Arc<Way>)>,
        count: &mut Count,
    ) -> Result<(), Other> {
        let bytes = &self.buffer[datagram.clone()];
        let (channel, mut records) = match DatagramClass::of(bytes) {
            DatagramClass::Dtls => (None, datagram),
            DatagramClass::TurnChannel if self.map.get().has_channels => {
                let (channel, len) = channel_header(bytes).ok_or(Other::Task)?;
                let start = datagram.start + CHANNEL_HEADER;
                (Some(channel), start..start + len)
            }
            _ => return Err(Other::Task),
        };
        RecordHeader::read(&self.buffer[records.clone()])
            .filter(|header| header.content == ContentType::ApplicationData)
            .ok_or(Other::Task)?;
        let way = match from {
            Some((known, way)) if *known == channel => way,
            _ => {
                let way = self.map.get().origins.get(&(local, remote, channel));
                let way = way.and_then(Option::clone).ok_or(Other::Task)?;
                &from.insert((channel, way)).1
            }
        };
        while !records.is_empty() {
            let bytes = &mut self.buffer[records.clone()];
            let header = RecordHeader::read(bytes).ok_or(Other::Dropped(DropReason::BadRecord))?;
            let receiving = &way.path.keys.receiving;
            let keys = receiving
                .iter()
                .find(|keys| keys.owns(header.sequence))
                .or_else(|| {
                    let newest = receiving.first()?;
                    newest.may_own(header.sequence).then_some(newest)
                })
                // Keys that the task knows first.
                .ok_or(Other::Task)?;
            let content = keys.open(&header, bytes).map_err(|refused| {
                Other::Dropped(match refused {
                    Refused::Bad => DropReason::BadRecord,
                    Refused::Replayed => DropReason::Replayed,
                })
            })?;
            if keys.hear() {
                // If there is no room, the next keys will tell.
                self.inbox.put(Taken::NewKeys(way.peer));
            }
            let content = records.start + content.start..records.start + content.end;
            records.start += header.len;
            self.file(&way.clone(), header.sequence, content, count)
                .map_err(Other::Dropped)?;
        }
        Ok(())
    }

    /// Files what a record with this number carried.
    fn file(
        &mut self,
        way: &Arc<Way>,
        sequence: u64,
        content: Range<usize>,
        count: &mut Count,
    ) -> Result<(), DropReason> {
        let envelope =
            Envelope::read(&self.buffer[content.clone()]).ok_or(DropReason::UnknownContent)?;
        let packet = content.start + ENVELOPE..content.end;
        let carry = match (envelope.kind, self.mode) {
            (Kind::Nothing, _) => return Ok(()),
            (Kind::Fragment, _) => {
                return match self.assemble(way, sequence, packet)? {
                    Some(content) => self.file(way, sequence, content, count),
                    None => Ok(()),
                };
            }
            (Kind::Packet, OverlayMode::Route) => {
                self.admit_packet(way, &packet)?;
                Carry::ToDevice
            }
            (Kind::Frame, OverlayMode::Switch) => {
                let frame = &self.buffer[packet.clone()];
                let holders = self.holders.get();
                carry(&self.stations, holders, way.index, frame, self.now_s)
            }
            (Kind::Message, OverlayMode::Switch) => return self.hand_message(way, packet),
            (Kind::Control, _) => {
                let message = Bytes::copy_from_slice(&self.buffer[packet]);
                self.hand(way, What::Control(message));
                return Ok(());
            }
            // The other node is in another mode.
            (Kind::Packet | Kind::Frame | Kind::Message, _) => return Err(DropReason::WrongMode),
        };
        self.ecn
            .mark(self.layer, &mut self.buffer[packet.clone()])
            .map_err(|_| DropReason::Congested)?;
        count.packets += 1;
        count.bytes += packet.len() as u64;
        let sum = if envelope.partial_sum {
            Sum::Partial
        } else {
            Sum::Complete
        };
        match carry {
            Carry::ToDevice => self.coalescer.add(&self.buffer, packet, sum),
            _ => self.hand_frame(way, packet, sum),
        }
        Ok(())
    }

    /// Gives a frame to the switch.
    fn hand_frame(&mut self, way: &Arc<Way>, frame: Range<usize>, sum: Sum) {
        let frame = &mut self.buffer[frame];
        if sum == Sum::Partial {
            complete_sum(self.layer, frame);
        }
        let frame = Bytes::copy_from_slice(frame);
        self.hand(way, What::Switch(Matter::Frame(frame)));
    }

    /// Gives what another switch says to this node's.
    fn hand_message(&self, way: &Arc<Way>, message: Range<usize>) -> Result<(), DropReason> {
        let message = Message::read(&self.buffer[message]).ok_or(DropReason::UnknownContent)?;
        self.hand(way, What::Switch(Matter::Message(message)));
        Ok(())
    }

    fn hand(&self, way: &Arc<Way>, what: What) {
        self.handed_over.put(Handed {
            from: Some(way.clone()),
            what,
        });
    }

    /// Whether the packet is from the peer and for this node, and may pass.
    fn admit_packet(&self, way: &Way, packet: &Range<usize>) -> Result<(), DropReason> {
        let bytes = &self.buffer[packet.clone()];
        let (source, destination) = addresses(bytes).ok_or(DropReason::Malformed)?;
        if !way.path.addrs.is(source) {
            return Err(DropReason::WrongSource);
        }
        if !self.me.is(destination) {
            return Err(DropReason::WrongDestination);
        }
        match &way.path.gate {
            Some(gate) if !gate.admits(Direction::In, bytes, self.now_s) => {
                Err(DropReason::NotAllowed)
            }
            _ => Ok(()),
        }
    }

    /// Takes a piece; where the whole is when it was the last one missing.
    fn assemble(
        &mut self,
        way: &Way,
        sequence: u64,
        fragment: Range<usize>,
    ) -> Result<Option<Range<usize>>, DropReason> {
        let taken = way.path.fragments.take(sequence, &self.buffer[fragment]);
        let Some(whole) = taken.map_err(|_| DropReason::Malformed)? else {
            return Ok(None);
        };
        let range = self.whole_end..self.whole_end + whole.len();
        let room = self.buffer.get_mut(range.clone());
        room.ok_or(DropReason::Malformed)?.copy_from_slice(&whole);
        self.whole_end = range.end;
        Ok(Some(range))
    }

    fn hand_over(&self, (local, remote): (SocketAddr, SocketAddr), datagram: Range<usize>) {
        let payload = BytesMut::from(&self.buffer[datagram]);
        let taken = Taken::Datagram {
            local,
            remote,
            payload,
        };
        if !self.inbox.put(taken) {
            self.drops.dropped(DropReason::QueueFull);
        }
    }

    /// Writes what came together to the device.
    fn deliver(&mut self) {
        self.coalescer.finish(&mut self.buffer);
        for group in self.coalescer.groups() {
            let mut parts = [IoSlice::new(&[]); 1 + MAX_PARTS];
            parts[0] = IoSlice::new(&group.header);
            let count = group.ranges.len().min(MAX_PARTS);
            for (part, range) in parts[1..].iter_mut().zip(group.ranges) {
                *part = IoSlice::new(&self.buffer[range.clone()]);
            }
            if let Err(error) = self.queue.write(&parts[..=count]) {
                tracing::trace!(%error, "packets not delivered");
                self.drops
                    .dropped_many(DropReason::SendFailed, group.packets as u64);
            }
        }
        self.coalescer.clear();
        self.whole_end = WHOLE_START;
    }
}

/// Packets in one group at the most.
const MAX_PARTS: usize = 64;

/// Number of a TURN channel message, and bytes of what it carries.
fn channel_header(message: &[u8]) -> Option<(u16, usize)> {
    let [a, b, c, d] = *message.first_chunk::<CHANNEL_HEADER>()?;
    let len = usize::from(u16::from_be_bytes([c, d]));
    (len <= message.len() - CHANNEL_HEADER).then_some((u16::from_be_bytes([a, b]), len))
}
