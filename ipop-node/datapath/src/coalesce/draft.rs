//! A group while packets are added to it.

use std::ops::Range;

use super::candidate::{Candidate, PSH};
use super::flow::Flow;
use crate::checksum::{sum, update};
use crate::inet::{Headers, Transport, Version};
use crate::segment::{Sum, or_negative_zero};
use crate::vnet::{GsoType, VnetHdr};
use crate::word::{read16, write16};

/// As many as Linux lets a UDP super-packet have, and enough for 64 KiB at usual MTUs.
const MAX_PACKETS: usize = 64;
/// The largest length that an IPv4 header can say.
const MAX_IP_LEN: usize = 65_535;

/// One or more packets of one flow.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) packets: usize,
    pub(super) header: [u8; VnetHdr::LEN],
    /// Where its next range goes in the list of all.
    pub(super) next_range: usize,
    /// Where the first packet is.
    first: Range<usize>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// One packet that is not to be touched.
    Plain,
    /// One packet whose checksum is yet to be made, by the device or here.
    Unsummed(Headers),
    /// Packets that are or may be followed by others.
    Growing(Growing),
}

#[derive(Debug)]
struct Growing {
    flow: Flow,
    first: Candidate,
    /// Whether the checksums of the first packet are known to be right.
    is_checked: bool,
    next_sequence: u32,
    /// From the IP header on.
    ip_len: usize,
    is_pushed: bool,
    is_closed: bool,
}

impl Draft {
    /// For a packet that nothing can be added to.
    #[inline]
    pub(super) fn alone(packet: Range<usize>, headers: Option<&Headers>, sum: Sum) -> Self {
        let kind = match headers {
            Some(headers) if sum == Sum::Partial && headers.checksum_offset().is_some() => {
                Kind::Unsummed(*headers)
            }
            _ => Kind::Plain,
        };
        Self {
            packets: 1,
            header: [0; VnetHdr::LEN],
            next_range: 0,
            first: packet,
            kind,
        }
    }

    /// For a packet that others may be added to.
    #[inline]
    pub(super) fn starting(packet: Range<usize>, flow: Flow, first: Candidate) -> Self {
        let growing = Growing {
            flow,
            is_checked: false,
            next_sequence: first.next_sequence,
            ip_len: first.headers.end - first.headers.ip_at,
            is_pushed: first.is_pushed,
            is_closed: first.is_pushed,
            first,
        };
        Self {
            packets: 1,
            header: [0; VnetHdr::LEN],
            next_range: 0,
            first: packet,
            kind: Kind::Growing(growing),
        }
    }

    /// Whether the flow's next packet may be added.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        matches!(&self.kind, Kind::Growing(growing) if !growing.is_closed)
    }

    /// Adds `packet`, if it follows those that are here and is like them.
    #[inline]
    pub(super) fn join(&mut self, buffer: &[u8], next: &Candidate, packet: &[u8]) -> bool {
        let Kind::Growing(growing) = &mut self.kind else {
            return false;
        };
        let first_packet = &buffer[self.first.clone()];
        let first = &growing.first;
        let ip_len = growing.ip_len + next.payload_len;
        let follows = next.payload_len <= first.payload_len
            && next.sequence == growing.next_sequence
            && self.packets < MAX_PACKETS
            && ip_len <= MAX_IP_LEN
            && next.is_identified_after(first, self.packets)
            && next.is_like(packet, first, first_packet);
        if !follows {
            return false;
        }
        // Most packets stay alone, so that the first one is checked when there is a second.
        if !growing.is_checked {
            growing.is_checked = first.is_sound(&growing.flow, first_packet);
        }
        if !growing.is_checked || !next.is_sound(&growing.flow, packet) {
            return false;
        }
        growing.is_pushed = next.is_pushed;
        growing.is_closed = next.is_pushed || next.payload_len < first.payload_len;
        growing.next_sequence = next.next_sequence;
        growing.ip_len = ip_len;
        self.packets += 1;
        true
    }

    /// Nothing is added any more: makes the header, and the first packet's headers what they are to
    /// be. `device_sums` says whether the device makes checksums.
    #[inline]
    pub(super) fn seal(&mut self, buffer: &mut [u8], device_sums: bool) {
        let packet = &mut buffer[self.first.clone()];
        let header = match &self.kind {
            Kind::Plain => return,
            Kind::Unsummed(headers) => unsummed(packet, headers, device_sums),
            Kind::Growing(growing) if self.packets > 1 => growing.seal(packet),
            Kind::Growing(growing) if growing.first.sum == Sum::Partial => {
                unsummed(packet, &growing.first.headers, device_sums)
            }
            Kind::Growing(_) => return,
        };
        self.header = header.to_bytes();
    }
}

impl Growing {
    fn seal(&self, first_packet: &mut [u8]) -> VnetHdr {
        let Headers {
            version,
            transport,
            ip_at,
            transport_at,
            payload_at,
            ..
        } = self.first.headers;
        let transport_len = self.ip_len - (transport_at - ip_at);
        let (ip, segment) = first_packet[ip_at..].split_at_mut(transport_at - ip_at);
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
                (GsoType::UdpL4, 6)
            }
            (_, Version::V4) => (GsoType::TcpV4, 16),
            (_, Version::V6) => (GsoType::TcpV6, 16),
        };
        if self.is_pushed {
            let flags = read16(segment, 12) | PSH;
            write16(segment, 12, flags);
        }
        write16(segment, csum_offset, self.flow.pseudo_sum(transport_len));
        VnetHdr {
            needs_csum: true,
            gso,
            hdr_len: payload_at as u16,
            gso_size: self.first.payload_len as u16,
            csum_start: transport_at as u16,
            csum_offset: csum_offset as u16,
            ..VnetHdr::default()
        }
    }
}

/// The header of a lone packet with the sum of its pseudo-header, or else the checksum itself.
fn unsummed(packet: &mut [u8], headers: &Headers, device_sums: bool) -> VnetHdr {
    let (Some(csum_offset), Ok(csum_start)) = (
        headers.checksum_offset(),
        u16::try_from(headers.transport_at),
    ) else {
        return VnetHdr::default();
    };
    if device_sums {
        return VnetHdr {
            needs_csum: true,
            csum_start,
            csum_offset,
            ..VnetHdr::default()
        };
    }
    let segment = &mut packet[headers.transport_at..headers.end];
    let checksum = or_negative_zero(!sum(segment));
    write16(segment, usize::from(csum_offset), checksum);
    VnetHdr::default()
}
