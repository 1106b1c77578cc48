//! A packet that others may follow or that may follow others.

use super::flow::Flow;
use crate::checksum::{fold, sum};
use crate::inet::{Headers, Transport, Version};
use crate::segment::Sum;
use crate::word::{read16, read32};

const TCP_SEQUENCE: usize = 4;
const TCP_ACKNOWLEDGEMENT: usize = 8;
const TCP_FLAGS: usize = 12;
const TCP_URGENT: usize = 18;
const TCP_OPTIONS: usize = 20;
pub(super) const PSH: u16 = 0x08;
const ACK: u16 = 0x10;
const ECE: u16 = 0x40;
const FLAGS: u16 = 0xff;
const DF: u16 = 0x4000;

/// A packet with nothing but payload to give, in the plainest of headers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) headers: Headers,
    pub(super) sum: Sum,
    pub(super) payload_len: usize,
    /// What TCP numbers its payload by, and has after it. UDP has but zeros.
    pub(super) sequence: u32,
    pub(super) next_sequence: u32,
    pub(super) is_pushed: bool,
    identification: u16,
    is_identified: bool,
}

impl Candidate {
    /// Looks at what can be told from `packet` alone, but for its checksums.
    #[inline]
    pub(super) fn of(headers: &Headers, packet: &[u8], sum: Sum) -> Option<Self> {
        let at = headers.transport_at;
        let payload_len = headers.end - headers.payload_at;
        if !headers.is_plain_ip() || headers.end != packet.len() || payload_len == 0 {
            return None;
        }
        let (sequence, next_sequence, is_pushed) = if headers.transport == Transport::Tcp {
            let flags = read16(packet, at + TCP_FLAGS);
            if flags & FLAGS & !(PSH | ECE) != ACK {
                return None;
            }
            let sequence = read32(packet, at + TCP_SEQUENCE);
            (
                sequence,
                sequence.wrapping_add(payload_len as u32),
                flags & PSH != 0,
            )
        } else {
            let has_checksum = read16(packet, at + 6) != 0;
            if !has_checksum || usize::from(read16(packet, at + 4)) != headers.end - at {
                return None;
            }
            (0, 0, false)
        };
        let (identification, is_identified) = match headers.version {
            Version::V4 => {
                let ip = headers.ip_at;
                (read16(packet, ip + 4), read16(packet, ip + 6) & DF == 0)
            }
            Version::V6 => (0, false),
        };
        Some(Self {
            headers: *headers,
            sum,
            payload_len,
            sequence,
            next_sequence,
            is_pushed,
            identification,
            is_identified,
        })
    }

    /// Whether this packet, `index` packets after `first`, has the identification that it would be
    /// given if it were cut off there.
    #[inline]
    pub(super) fn is_identified_after(&self, first: &Self, index: usize) -> bool {
        !self.is_identified
            || self.identification == first.identification.wrapping_add(index as u16)
    }

    /// Whether all is equal that would be made equal by cutting.
    #[inline]
    pub(super) fn is_like(&self, packet: &[u8], first: &Self, first_packet: &[u8]) -> bool {
        let headers = &self.headers;
        if (headers.transport_at, headers.payload_at)
            != (first.headers.transport_at, first.headers.payload_at)
        {
            return false;
        }
        let ip = headers.ip_at;
        let is_ip_like = match headers.version {
            // Version and TOS; flags, TTL and protocol.
            Version::V4 => {
                read16(packet, ip) == read16(first_packet, ip)
                    && read32(packet, ip + 6) == read32(first_packet, ip + 6)
            }
            // Version, traffic class and flow label; next header and hop limit.
            Version::V6 => {
                read32(packet, ip) == read32(first_packet, ip)
                    && read16(packet, ip + 6) == read16(first_packet, ip + 6)
            }
        };
        is_ip_like
            && packet[..ip] == first_packet[..ip]
            && (headers.transport == Transport::Udp || self.is_like_tcp(packet, first_packet))
    }

    #[inline]
    fn is_like_tcp(&self, packet: &[u8], first_packet: &[u8]) -> bool {
        let from_to = self.headers.transport_at..self.headers.payload_at;
        let (tcp, first) = (&packet[from_to.clone()], &first_packet[from_to]);
        let pushed = u32::from(PSH) << 16;
        // Flags and window.
        (read32(tcp, TCP_FLAGS) | pushed) == (read32(first, TCP_FLAGS) | pushed)
            && read32(tcp, TCP_ACKNOWLEDGEMENT) == read32(first, TCP_ACKNOWLEDGEMENT)
            && read16(tcp, TCP_URGENT) == read16(first, TCP_URGENT)
            && tcp[TCP_OPTIONS..] == first[TCP_OPTIONS..]
    }

    /// Whether the checksums of `packet` are exactly those that cutting would write.
    #[inline]
    pub(super) fn is_sound(&self, flow: &Flow, packet: &[u8]) -> bool {
        let Headers {
            version,
            transport,
            ip_at,
            transport_at,
            ..
        } = self.headers;
        if version == Version::V4 {
            let ip = &packet[ip_at..transport_at];
            // 0 is written as 0, though 0xffff would verify as well.
            if sum(ip) != 0xffff || read16(ip, 10) == 0xffff {
                return false;
            }
        }
        let pseudo_sum = flow.pseudo_sum(packet.len() - transport_at);
        let segment = &packet[transport_at..];
        let (field, alias_of_zero) = match transport {
            Transport::Udp => (read16(segment, 6), 0),
            _ => (read16(segment, 16), 0xffff),
        };
        match self.sum {
            Sum::Partial => field == pseudo_sum,
            Sum::Complete => {
                field != alias_of_zero
                    && fold(u64::from(pseudo_sum) + u64::from(sum(segment))) == 0xffff
            }
        }
    }
}
