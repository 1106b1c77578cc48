//! Packets of one flow that follow one another.

use crate::checksum::{combine, fold, sum, update, without};
use crate::inet::{Headers, Transport, Version};
use crate::segment::Sum;
use crate::vnet::{GsoType, VnetHdr};
use crate::word::{read16, read32, read64, write16};

use super::flow::Flow;

/// As many as Linux lets a UDP super-packet have, and enough for 64 KiB at usual MTUs.
const MAX_PACKETS: usize = 64;
/// The largest length that an IPv4 header can say.
const MAX_IP_LEN: usize = 65_535;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_LEN: usize = 20;
const TCP_CHECKSUM: usize = 16;
const UDP_LEN: usize = 8;
const UDP_CHECKSUM: usize = 6;
const PSH: u16 = 0x08;
const ACK: u16 = 0x10;
const ECE: u16 = 0x40;
const FLAGS: u16 = 0xff;
const DF: u16 = 0x4000;

/// One packet or more.
#[derive(Debug)]
pub(super) struct Train {
    /// Of the first packet, and so of every one.
    headers: Headers,
    /// What the first packet has in its checksum's field.
    sum: Sum,
    /// Known as soon as the checksums of the first packet are known to be right.
    constant: Option<Constant>,
    packets: usize,
    /// Of the first packet: no other has more.
    payload_len: usize,
    /// From the IP header of the first packet to the end of the last one's payload.
    ip_len: usize,
    next_sequence: u32,
    next_identification: u16,
    /// Whether the identification means something.
    is_identified: bool,
    is_pushed: bool,
    is_closed: bool,
}

/// The sums of what is the same in every packet.
#[derive(Clone, Copy, Debug)]
struct Constant {
    /// Of the IPv4 header without its length, identification and checksum.
    ip_sum: u16,
    /// Of the pseudo-header without its length.
    pseudo_sum: u16,
}

impl Train {
    /// The train that `packet` is the first of, unless it has more to say than its payload.
    #[inline]
    pub(super) fn starting(headers: &Headers, packet: &[u8], sum: Sum) -> Option<Self> {
        let payload_len = headers.end - headers.payload_at;
        if !headers.is_plain_ip() || headers.end != packet.len() || payload_len == 0 {
            return None;
        }
        let mut train = Self {
            headers: *headers,
            sum,
            constant: None,
            packets: 1,
            payload_len,
            ip_len: headers.end - headers.ip_at,
            next_sequence: 0,
            next_identification: 0,
            is_identified: false,
            is_pushed: false,
            is_closed: false,
        };
        if headers.version == Version::V4 {
            let ip = packet[headers.ip_at..].first_chunk::<IPV4_LEN>()?;
            train.next_identification = read16(ip, 4).wrapping_add(1);
            train.is_identified = read16(ip, 6) & DF == 0;
        }
        let segment = &packet[headers.transport_at..];
        if headers.transport == Transport::Tcp {
            let tcp = segment.first_chunk::<TCP_LEN>()?;
            let flags = read16(tcp, 12);
            if flags & FLAGS & !(PSH | ECE) != ACK {
                return None;
            }
            train.next_sequence = read32(tcp, 4).wrapping_add(payload_len as u32);
            train.is_pushed = flags & PSH != 0;
            train.is_closed = train.is_pushed;
        } else {
            let udp = segment.first_chunk::<UDP_LEN>()?;
            let has_checksum = read16(udp, UDP_CHECKSUM) != 0;
            if !has_checksum || usize::from(read16(udp, 4)) != segment.len() {
                return None;
            }
        }
        Some(train)
    }

    /// Whether the flow's next packet may be added.
    #[inline]
    pub(super) const fn is_open(&self) -> bool {
        !self.is_closed
    }

    #[inline]
    pub(super) const fn sum(&self) -> Sum {
        self.sum
    }

    #[inline]
    pub(super) const fn headers(&self) -> &Headers {
        &self.headers
    }

    #[inline]
    pub(super) const fn packets(&self) -> usize {
        self.packets
    }

    /// Adds `packet` if it follows those that are here: if cutting would give it, to the byte.
    /// `first` and `flow` are the first packet and what it is of.
    ///
    /// Nothing needs to be known of the packet before that: its headers are equal to those of the
    /// first one, or it is of no concern what they are.
    #[inline]
    pub(super) fn take(&mut self, flow: &Flow, first: &[u8], packet: &[u8], sum: Sum) -> bool {
        // Code of its own for each, in which all offsets are known.
        match (self.headers.version, self.headers.transport) {
            (Version::V4, Transport::Tcp) => {
                self.take_as::<{ IPV4_LEN + TCP_LEN }, true, true>(flow, first, packet, sum)
            }
            (Version::V6, Transport::Tcp) => {
                self.take_as::<{ IPV6_LEN + TCP_LEN }, false, true>(flow, first, packet, sum)
            }
            (Version::V4, _) => {
                self.take_as::<{ IPV4_LEN + UDP_LEN }, true, false>(flow, first, packet, sum)
            }
            (Version::V6, _) => {
                self.take_as::<{ IPV6_LEN + UDP_LEN }, false, false>(flow, first, packet, sum)
            }
        }
    }

    /// With headers of `LEN` bytes but for TCP's options.
    #[inline(always)]
    fn take_as<const LEN: usize, const IS_V4: bool, const IS_TCP: bool>(
        &mut self,
        flow: &Flow,
        first: &[u8],
        packet: &[u8],
        sum: Sum,
    ) -> bool {
        let Headers {
            ip_at, payload_at, ..
        } = self.headers;
        let (Some((first_link, first_ip)), Some((link, ip))) = (
            first.split_at_checked(ip_at),
            packet.split_at_checked(ip_at),
        ) else {
            return false;
        };
        let (Some(first_header), Some(header)) =
            (first_ip.first_chunk::<LEN>(), ip.first_chunk::<LEN>())
        else {
            return false;
        };
        let ip_header_len = if IS_V4 { IPV4_LEN } else { IPV6_LEN };
        let (_, first_transport) = first_header.split_at(ip_header_len);
        let (_, transport) = header.split_at(ip_header_len);
        let transport_len = ip.len() - ip_header_len;

        let is_ip_next = if IS_V4 {
            is_like_v4(first_header, header)
                && usize::from(read16(header, 2)) == ip.len()
                && (!self.is_identified || read16(header, 4) == self.next_identification)
        } else {
            is_like_v6(first_header, header) && usize::from(read16(header, 4)) == transport_len
        };
        let is_transport_next = read32(first_transport, 0) == read32(transport, 0)
            && if IS_TCP {
                is_like_tcp(first_transport, transport)
                    && read32(transport, 4) == self.next_sequence
            } else {
                usize::from(read16(transport, 4)) == transport_len
            };
        if !is_ip_next || !is_transport_next || packet.len() <= payload_at {
            return false;
        }
        let payload_len = packet.len() - payload_at;
        let ip_len = self.ip_len + payload_len;
        if payload_len > self.payload_len || self.packets == MAX_PACKETS || ip_len > MAX_IP_LEN {
            return false;
        }
        if (ip_at != 0 && first_link != link)
            || (IS_TCP && !are_equal(first, packet, ip_at + LEN, payload_at))
        {
            return false;
        }

        // Most packets stay alone, so that the first one is looked at when there is a second.
        if self.constant.is_none() {
            self.constant = Constant::of_sound(&self.headers, flow, first, self.sum);
        }
        let Some(constant) = self.constant else {
            return false;
        };
        if !constant.is_sound::<IS_V4, IS_TCP>(header, transport, &ip[ip_header_len..], sum) {
            return false;
        }

        if IS_TCP {
            self.next_sequence = self.next_sequence.wrapping_add(payload_len as u32);
            self.is_pushed = read16(transport, 12) & PSH != 0;
        }
        self.is_closed = self.is_pushed || payload_len < self.payload_len;
        self.next_identification = self.next_identification.wrapping_add(1);
        self.ip_len = ip_len;
        self.packets += 1;
        true
    }

    /// Makes the headers of the first packet those of the super-packet.
    pub(super) fn seal(&self, first: &mut [u8]) -> VnetHdr {
        let Headers {
            version,
            transport,
            ip_at,
            transport_at,
            payload_at,
            ..
        } = self.headers;
        let transport_len = self.ip_len - self.headers.ip_len();
        let (ip, segment) = first[ip_at..].split_at_mut(transport_at - ip_at);
        match version {
            Version::V4 => {
                let len = self.ip_len as u16;
                let checksum = update(read16(ip, 10), read16(ip, 2), len);
                write16(ip, 2, len);
                write16(ip, 10, checksum);
            }
            Version::V6 => write16(ip, 4, transport_len as u16),
        }
        let (gso, csum_offset) = match (transport, version) {
            (Transport::Udp, _) => {
                write16(segment, 4, transport_len as u16);
                (GsoType::UdpL4, UDP_CHECKSUM)
            }
            (_, Version::V4) => (GsoType::TcpV4, TCP_CHECKSUM),
            (_, Version::V6) => (GsoType::TcpV6, TCP_CHECKSUM),
        };
        if self.is_pushed {
            let flags = read16(segment, 12) | PSH;
            write16(segment, 12, flags);
        }
        if let Some(Constant { pseudo_sum, .. }) = self.constant {
            write16(
                segment,
                csum_offset,
                combine(pseudo_sum, transport_len as u16),
            );
        }
        VnetHdr {
            needs_csum: true,
            gso,
            hdr_len: payload_at as u16,
            gso_size: self.payload_len as u16,
            csum_start: transport_at as u16,
            csum_offset: csum_offset as u16,
            ..VnetHdr::default()
        }
    }
}

impl Constant {
    /// Those of `packet`, if its checksums are right.
    #[cold]
    fn of_sound(headers: &Headers, flow: &Flow, packet: &[u8], kind: Sum) -> Option<Self> {
        let (ip, segment) = (&packet[headers.ip_at..], &packet[headers.transport_at..]);
        let ip_sum = match headers.version {
            Version::V4 => without(&ip[..IPV4_LEN], &[2, 4, 10]),
            Version::V6 => 0,
        };
        let constant = Self {
            ip_sum,
            pseudo_sum: flow.pseudo_sum(),
        };
        let is_sound = match (headers.version, headers.transport) {
            (Version::V4, Transport::Tcp) => Self::is_sound::<true, true>,
            (Version::V6, Transport::Tcp) => Self::is_sound::<false, true>,
            (Version::V4, _) => Self::is_sound::<true, false>,
            (Version::V6, _) => Self::is_sound::<false, false>,
        };
        is_sound(&constant, ip, segment, segment, kind).then_some(constant)
    }

    /// Whether the checksums of a packet are exactly those that cutting would write. `segment` is
    /// all from `transport` on.
    #[inline(always)]
    fn is_sound<const IS_V4: bool, const IS_TCP: bool>(
        &self,
        ip: &[u8],
        transport: &[u8],
        segment: &[u8],
        kind: Sum,
    ) -> bool {
        if IS_V4 {
            let changing_sum = u64::from(read16(ip, 2)) + u64::from(read16(ip, 4));
            if read16(ip, 10) != !fold(u64::from(self.ip_sum) + changing_sum) {
                return false;
            }
        }
        // A checksum of zero may be written in two ways: one for UDP, the other for all else.
        let (checksum, other_zero) = if IS_TCP {
            (read16(transport, TCP_CHECKSUM), 0xffff)
        } else {
            (read16(transport, UDP_CHECKSUM), 0)
        };
        let pseudo_sum = combine(self.pseudo_sum, segment.len() as u16);
        match kind {
            Sum::Partial => checksum == pseudo_sum,
            Sum::Complete => checksum != other_zero && combine(pseudo_sum, sum(segment)) == 0xffff,
        }
    }
}

/// Addresses; version and TOS; flags, TTL and protocol.
#[inline]
fn is_like_v4(a: &[u8], b: &[u8]) -> bool {
    read64(a, 12) == read64(b, 12) && read16(a, 0) == read16(b, 0) && read32(a, 6) == read32(b, 6)
}

/// Addresses; version, traffic class and flow label; next header and hop limit.
#[inline]
fn is_like_v6(a: &[u8], b: &[u8]) -> bool {
    [32, 24, 16, 8]
        .iter()
        .all(|&at| read64(a, at) == read64(b, at))
        && read32(a, 0) == read32(b, 0)
        && read16(a, 6) == read16(b, 6)
}

/// Acknowledgement, flags and window; urgent pointer. A first packet that others follow has no PSH.
#[inline]
fn is_like_tcp(first: &[u8], next: &[u8]) -> bool {
    read64(first, 8) == read64(next, 8) & !(u64::from(PSH) << 16)
        && read16(first, 18) == read16(next, 18)
}

/// Whether two packets are equal between these offsets, which are a multiple of four apart. Most
/// have no TCP options there, or twelve bytes, for which a call of `memcmp` takes longer.
#[inline]
fn are_equal(packet: &[u8], other: &[u8], from: usize, to: usize) -> bool {
    let (Some(packet), Some(other)) = (packet.get(from..to), other.get(from..to)) else {
        return false;
    };
    let ((words, _), (other_words, _)) = (packet.as_chunks::<4>(), other.as_chunks::<4>());
    words
        .iter()
        .zip(other_words)
        .all(|(word, other)| word == other)
}
