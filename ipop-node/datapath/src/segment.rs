//! A packet or super-packet of the device, cut into the packets that go out.
//!
//! What comes out is what the Linux kernel's own segmentation would have made of it
//! (`tcp_gso_segment`, `__udp_gso_segment`, `inet_gso_segment`, `skb_checksum_help`): the bytes
//! differ in nothing, so that a peer cannot tell whether a device offers offloads. Only where a TCP
//! segment would need two records ([`Segments::within`]) are there more and smaller ones.

use thiserror::Error;

use crate::checksum::{combine, fold, sum, without};
use crate::inet::{Headers, Layer, Transport, Unreadable, Version};
use crate::vnet::{GsoType, Invalid, VnetHdr};
use crate::word::{read16, read32, write16, write32};

const TCP_SEQUENCE: usize = 4;
const TCP_FLAGS: usize = 12;
const TCP_CHECKSUM: usize = 16;
const FIN: u16 = 0x01;
const PSH: u16 = 0x08;
const CWR: u16 = 0x80;
const UDP_LENGTH: usize = 4;
const UDP_CHECKSUM: usize = 6;
/// What a checksum of 0 is written as where 0 means that there is none (RFC 768).
const NEGATIVE_ZERO: u16 = 0xffff;

/// What is wanted in the transport checksum's field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    /// The checksum.
    Complete,
    /// The pseudo-header's sum only, if the device gave no more than that. Whoever has an AEAD
    /// vouching for the payload may give this to a kernel that is told so (`NEEDS_CSUM`), and both
    /// ends have saved a pass over the payload.
    Partial,
}

/// What a packet has in its transport checksum's field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// All there will be, right or wrong.
    Complete,
    /// The pseudo-header's sum.
    Partial,
}

/// Why a packet of the device cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The header before the packet contradicts it.
    #[error(transparent)]
    Vnet(#[from] Invalid),
    /// A super-packet without IP.
    #[error(transparent)]
    Headers(#[from] Unreadable),
    /// A super-packet that is not of the kind its header says.
    #[error("the gso type is not that of the packet")]
    GsoType,
    /// A super-packet to be cut into segments without payload.
    #[error("a gso size of 0")]
    GsoSize,
    /// A super-packet whose checksum is not left to whoever cuts it, or not that of its transport.
    #[error("a super-packet without its checksum offloaded")]
    Checksum,
    /// A super-packet whose IP or UDP length is not its length.
    #[error("a length in the headers is not the super-packet's")]
    Length,
}

/// How a packet of the device is cut.
#[derive(Clone, Copy, Debug)]
pub struct Segments {
    count: usize,
    segment_len: usize,
    last_len: usize,
    work: Work,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Copy,
    Sum(Unsummed),
    Cut(Cut),
}

/// One packet whose checksum is left to us, of whatever protocol.
#[derive(Clone, Copy, Debug)]
struct Unsummed {
    start: usize,
    field: usize,
    /// Whether the receiver finds both by looking at the packet.
    is_evident: bool,
}

/// A super-packet. The sums are of what stays the same from segment to segment.
#[derive(Clone, Copy, Debug)]
struct Cut {
    gso_size: usize,
    version: Version,
    is_udp: bool,
    ip_at: usize,
    transport_at: usize,
    header_len: usize,
    ip_sum: u16,
    identification: u16,
    pseudo_sum: u16,
    transport_sum: u16,
    sequence: u32,
    flags: u16,
}

impl Segments {
    /// Checks `vnet` against `packet` and says how it is to be cut.
    ///
    /// # Errors
    /// When the two do not go together. Packets that nothing is to be done about may be anything.
    #[inline]
    pub fn of(layer: Layer, vnet: &VnetHdr, packet: &[u8]) -> Result<Self, Malformed> {
        vnet.check(packet.len())?;
        if vnet.gso != GsoType::None {
            return Self::cut(layer, vnet, packet);
        }
        let work = if vnet.needs_csum {
            Work::Sum(Unsummed::of(layer, vnet, packet))
        } else {
            Work::Copy
        };
        Ok(Self {
            count: 1,
            segment_len: packet.len(),
            last_len: packet.len(),
            work,
        })
    }

    fn cut(layer: Layer, vnet: &VnetHdr, packet: &[u8]) -> Result<Self, Malformed> {
        let gso_size = usize::from(vnet.gso_size);
        if gso_size == 0 {
            return Err(Malformed::GsoSize);
        }
        let headers = Headers::parse(layer, packet)?;
        let cut = Cut::of(&headers, vnet, packet)?;
        Ok(Self::every(gso_size, cut, packet.len()))
    }

    fn every(gso_size: usize, cut: Cut, packet_len: usize) -> Self {
        // A payload that fits in one segment is one, as it is to Linux (`virtio_net_hdr_to_skb`).
        let payload_len = packet_len - cut.header_len;
        let count = payload_len.div_ceil(gso_size).max(1);
        let last_len = packet_len - (count - 1) * gso_size;
        let segment_len = if count == 1 {
            last_len
        } else {
            cut.header_len + gso_size
        };
        Self {
            count,
            segment_len,
            last_len,
            work: Work::Cut(Cut { gso_size, ..cut }),
        }
    }

    /// The same bytes of a TCP stream in packets of at most `room` bytes, if they are larger and
    /// have that much room for payload. Everything else stays as it is: a datagram is not divided.
    #[must_use]
    #[inline]
    pub fn within(self, room: usize) -> Self {
        match self.work {
            Work::Cut(cut) if !cut.is_udp && self.segment_len > room && cut.header_len < room => {
                let packet_len = (self.count - 1) * cut.gso_size + self.last_len;
                Self::every(room - cut.header_len, cut, packet_len)
            }
            _ => self,
        }
    }

    /// How many packets there are: at least one.
    #[must_use]
    #[inline]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Bytes of every packet but the last.
    #[must_use]
    #[inline]
    pub const fn segment_len(&self) -> usize {
        self.segment_len
    }

    /// Bytes of the last packet.
    #[must_use]
    #[inline]
    pub const fn last_len(&self) -> usize {
        self.last_len
    }

    /// Bytes of packet `index`.
    #[must_use]
    #[inline]
    pub const fn len(&self, index: usize) -> usize {
        if index + 1 < self.count {
            self.segment_len
        } else {
            self.last_len
        }
    }

    /// Writes packet `index` of `packet`, which these are the segments of, into the start of `out`.
    ///
    /// # Panics
    /// When there is no packet `index`, or `out` is shorter than it.
    #[inline]
    pub fn write(&self, packet: &[u8], index: usize, sums: Sums, out: &mut [u8]) -> Sum {
        assert!(index < self.count, "there is no such segment");
        let out = &mut out[..self.len(index)];
        match &self.work {
            Work::Copy => {
                out.copy_from_slice(packet);
                Sum::Complete
            }
            Work::Sum(unsummed) => unsummed.write(packet, sums, out),
            Work::Cut(cut) => cut.write(packet, index, index + 1 == self.count, sums, out),
        }
    }
}

impl Unsummed {
    fn of(layer: Layer, vnet: &VnetHdr, packet: &[u8]) -> Self {
        let start = usize::from(vnet.csum_start);
        Self {
            start,
            field: start + usize::from(vnet.csum_offset),
            is_evident: Headers::parse(layer, packet)
                .is_ok_and(|headers| is_checksum_of(&headers, vnet)),
        }
    }

    #[inline]
    fn write(&self, packet: &[u8], sums: Sums, out: &mut [u8]) -> Sum {
        out.copy_from_slice(packet);
        if sums == Sums::Partial && self.is_evident {
            return Sum::Partial;
        }
        // Linux writes 0xffff for 0 here whatever the protocol; to TCP they are the same.
        write16(
            out,
            self.field,
            or_negative_zero(!sum(&packet[self.start..])),
        );
        Sum::Complete
    }
}

impl Cut {
    fn of(headers: &Headers, vnet: &VnetHdr, packet: &[u8]) -> Result<Self, Malformed> {
        let &Headers {
            version,
            transport,
            ip_at,
            transport_at,
            payload_at,
            ..
        } = headers;
        let is_udp = match (vnet.gso, version, transport) {
            (GsoType::TcpV4, Version::V4, Transport::Tcp)
            | (GsoType::TcpV6, Version::V6, Transport::Tcp) => false,
            (GsoType::UdpL4, _, Transport::Udp) => true,
            _ => return Err(Malformed::GsoType),
        };
        if !vnet.needs_csum || !is_checksum_of(headers, vnet) {
            return Err(Malformed::Checksum);
        }
        let transport_len = packet.len() - transport_at;
        let udp_len = usize::from(read16(packet, transport_at + UDP_LENGTH));
        if headers.end != packet.len() || (is_udp && udp_len != transport_len) {
            return Err(Malformed::Length);
        }

        let ip = &packet[ip_at..transport_at];
        let transport = &packet[transport_at..payload_at];
        let (ip_sum, identification) = match version {
            Version::V4 => (without(ip, &[2, 4, 10]), read16(ip, 4)),
            Version::V6 => (0, 0),
        };
        let (transport_sum, checksum, sequence, flags) = if is_udp {
            (
                without(transport, &[UDP_LENGTH, UDP_CHECKSUM]),
                UDP_CHECKSUM,
                0,
                0,
            )
        } else {
            (
                without(
                    transport,
                    &[TCP_SEQUENCE, TCP_SEQUENCE + 2, TCP_FLAGS, TCP_CHECKSUM],
                ),
                TCP_CHECKSUM,
                read32(transport, TCP_SEQUENCE),
                read16(transport, TCP_FLAGS),
            )
        };
        // The sum in the packet and not one of its addresses: behind a routing header the
        // destination is another one, and whoever made the packet has seen to that.
        let pseudo_sum =
            fold(u64::from(read16(transport, checksum)) + u64::from(!(transport_len as u16)));
        Ok(Self {
            gso_size: usize::from(vnet.gso_size),
            version,
            is_udp,
            ip_at,
            transport_at,
            header_len: payload_at,
            ip_sum,
            identification,
            pseudo_sum,
            transport_sum,
            sequence,
            flags,
        })
    }

    #[inline]
    fn write(&self, packet: &[u8], index: usize, is_last: bool, sums: Sums, out: &mut [u8]) -> Sum {
        let payload_from = index * self.gso_size;
        let payload_len = out.len() - self.header_len;
        let payload = &packet[self.header_len + payload_from..][..payload_len];
        let (headers, out_payload) = out.split_at_mut(self.header_len);
        headers.copy_from_slice(&packet[..self.header_len]);
        out_payload.copy_from_slice(payload);

        let transport_len = self.header_len + payload_len - self.transport_at;
        let (ip, transport) = headers[self.ip_at..].split_at_mut(self.transport_at - self.ip_at);
        match self.version {
            Version::V4 => {
                let total_len = (ip.len() + transport_len) as u16;
                let identification = self.identification.wrapping_add(index as u16);
                let ip_sum =
                    u64::from(self.ip_sum) + u64::from(total_len) + u64::from(identification);
                write16(ip, 2, total_len);
                write16(ip, 4, identification);
                write16(ip, 10, !fold(ip_sum));
            }
            // Extension headers count as payload.
            Version::V6 => write16(ip, 4, (ip.len() - 40 + transport_len) as u16),
        }

        let pseudo_sum = u64::from(combine(self.pseudo_sum, transport_len as u16));
        let (checksum, changed_sum) = if self.is_udp {
            write16(transport, UDP_LENGTH, transport_len as u16);
            (UDP_CHECKSUM, transport_len as u64)
        } else {
            let sequence = self.sequence.wrapping_add(payload_from as u32);
            let mut flags = self.flags;
            if index > 0 {
                flags &= !CWR;
            }
            if !is_last {
                flags &= !(FIN | PSH);
            }
            write32(transport, TCP_SEQUENCE, sequence);
            write16(transport, TCP_FLAGS, flags);
            (TCP_CHECKSUM, u64::from(sequence) + u64::from(flags))
        };
        if sums == Sums::Partial {
            write16(transport, checksum, pseudo_sum as u16);
            return Sum::Partial;
        }
        // Over the source: what has just been written in small pieces is slow to read in large ones.
        let whole_sum =
            pseudo_sum + u64::from(self.transport_sum) + changed_sum + u64::from(sum(payload));
        let whole = !fold(whole_sum);
        write16(
            transport,
            checksum,
            if self.is_udp {
                or_negative_zero(whole)
            } else {
                whole
            },
        );
        Sum::Complete
    }
}

/// Whether `vnet` points at the checksum of the transport that `headers` found.
#[inline]
fn is_checksum_of(headers: &Headers, vnet: &VnetHdr) -> bool {
    usize::from(vnet.csum_start) == headers.transport_at
        && headers.checksum_offset() == Some(vnet.csum_offset)
}

pub(crate) const fn or_negative_zero(checksum: u16) -> u16 {
    if checksum == 0 {
        NEGATIVE_ZERO
    } else {
        checksum
    }
}
