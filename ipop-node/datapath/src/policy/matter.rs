//! What a packet is to the rules.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::inet::{Headers, TCP, Transport, UDP, Version};
use crate::word::{read16, read32};

pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;
/// The protocol number of the IPv6 fragment header, which no packet has as its transport.
pub(super) const FRAGMENT: u8 = 44;

/// Bytes of a TCP header without options; a first fragment has to have them, and no later one may begin
/// in them (RFC 3128).
const TCP_LEN: usize = 20;
/// Bytes of the headers of UDP, and of ICMP with an identifier.
const SHORT_LEN: usize = 8;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;

/// What is asked whether it may pass. Ports are the sender's and the receiver's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matter {
    /// A TCP segment; `opens` those that a connection begins with.
    Tcp { from: u16, to: u16, opens: bool },
    /// A UDP datagram.
    Udp { from: u16, to: u16 },
    /// An ICMP echo request, or the answer to one.
    Echo { id: u16, is_reply: bool },
    /// An ICMP error, and what it is about if that can be told.
    Error(Option<Quoted>),
    /// Another ICMP message.
    Icmp,
    /// Of another protocol.
    Other(u8),
    /// It cannot be told.
    Unclear,
}

/// The packet that an ICMP error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quoted {
    pub(super) addrs: Addrs,
    pub(super) what: Asked,
}

/// What it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Tcp { from: u16, to: u16 },
    Udp { from: u16, to: u16 },
    Echo { id: u16 },
}

/// Source and destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Addrs {
    V4([Ipv4Addr; 2]),
    V6([Ipv6Addr; 2]),
}

/// A piece of a packet that the sender's kernel cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Which packet's, as two halves.
    pub(super) id: (u16, u16),
    /// The first one has what the whole is judged by.
    pub(super) is_first: bool,
}

/// The addresses of a packet that these headers were found in.
#[inline]
pub(super) fn addrs(headers: &Headers, packet: &[u8]) -> Option<Addrs> {
    addrs_of(headers.version, packet)
}

#[inline]
fn addrs_of(version: Version, packet: &[u8]) -> Option<Addrs> {
    Some(match version {
        Version::V4 => {
            let [a, b, c, d, e, f, g, h] = *packet.get(12..)?.first_chunk::<8>()?;
            Addrs::V4([[a, b, c, d].into(), [e, f, g, h].into()])
        }
        Version::V6 => {
            let source = *packet.get(8..)?.first_chunk::<16>()?;
            let destination = *packet.get(24..)?.first_chunk::<16>()?;
            Addrs::V6([source.into(), destination.into()])
        }
    })
}

/// What a packet is, and which piece of it this is if it is not whole.
#[inline]
pub(super) fn read(headers: &Headers, packet: &[u8]) -> (Matter, Option<Piece>) {
    match headers.transport {
        Transport::Fragment => fragment(headers, packet),
        Transport::Broken => (Matter::Unclear, None),
        Transport::Tcp | Transport::Udp | Transport::Other => {
            let bytes = &packet[headers.transport_at..headers.end];
            (transport(headers.version, headers.protocol, bytes), None)
        }
    }
}

#[inline]
fn transport(version: Version, protocol: u8, bytes: &[u8]) -> Matter {
    match (protocol, version) {
        (TCP, _) if bytes.len() >= TCP_LEN => Matter::Tcp {
            from: read16(bytes, 0),
            to: read16(bytes, 2),
            opens: bytes[13] & (SYN | ACK) == SYN,
        },
        (UDP, _) if bytes.len() >= SHORT_LEN => Matter::Udp {
            from: read16(bytes, 0),
            to: read16(bytes, 2),
        },
        (ICMP, Version::V4) | (ICMPV6, Version::V6) if bytes.len() >= SHORT_LEN => {
            icmp(version, bytes)
        }
        (TCP | UDP | FRAGMENT, _) | (ICMP, Version::V4) | (ICMPV6, Version::V6) => Matter::Unclear,
        (other, _) => Matter::Other(other),
    }
}

fn icmp(version: Version, bytes: &[u8]) -> Matter {
    let id = read16(bytes, 4);
    match (version, bytes[0]) {
        (Version::V4, 8) | (Version::V6, 128) => Matter::Echo {
            id,
            is_reply: false,
        },
        (Version::V4, 0) | (Version::V6, 129) => Matter::Echo { id, is_reply: true },
        // Destination unreachable, time exceeded, parameter problem; what asks for less or for another
        // way (source quench, redirect) is no error that a flow needs.
        (Version::V4, 3 | 11 | 12) | (Version::V6, 1..=4) => {
            Matter::Error(quoted(version, &bytes[SHORT_LEN..]))
        }
        _ => Matter::Icmp,
    }
}

/// Reads what an error has of the packet that it is about: at least eight bytes of its transport.
fn quoted(version: Version, packet: &[u8]) -> Option<Quoted> {
    let (protocol, at) = match version {
        Version::V4 => {
            let header = packet.first_chunk::<IPV4_LEN>()?;
            // Of a later piece nobody can tell whose it was.
            let is_later = read16(header, 6) & 0x1fff != 0;
            let is_v4 = header[0] >> 4 == 4 && !is_later;
            (
                is_v4.then_some(header[9])?,
                usize::from(header[0] & 0xf) * 4,
            )
        }
        Version::V6 => {
            let header = packet.first_chunk::<IPV6_LEN>()?;
            ((header[0] >> 4 == 6).then_some(header[6])?, IPV6_LEN)
        }
    };
    let bytes = packet.get(at..)?.first_chunk::<SHORT_LEN>()?;
    let (from, to) = (read16(bytes, 0), read16(bytes, 2));
    let what = match (protocol, version, bytes[0]) {
        (TCP, ..) => Asked::Tcp { from, to },
        (UDP, ..) => Asked::Udp { from, to },
        (ICMP, Version::V4, 0 | 8) | (ICMPV6, Version::V6, 128 | 129) => Asked::Echo {
            id: read16(bytes, 4),
        },
        _ => return None,
    };
    let addrs = addrs_of(version, packet)?;
    Some(Quoted { addrs, what })
}

fn fragment(headers: &Headers, packet: &[u8]) -> (Matter, Option<Piece>) {
    const UNCLEAR: (Matter, Option<Piece>) = (Matter::Unclear, None);
    let (protocol, offset, id, at) = match headers.version {
        Version::V4 => {
            let Some(header) = packet.first_chunk::<IPV4_LEN>() else {
                return UNCLEAR;
            };
            let id = (u16::from(header[9]), read16(header, 4));
            let offset = usize::from(read16(header, 6) & 0x1fff) * 8;
            (header[9], offset, id, headers.transport_at)
        }
        Version::V6 => {
            let rest = packet.get(headers.transport_at..headers.end);
            let Some(header) = rest.and_then(<[u8]>::first_chunk::<8>) else {
                return UNCLEAR;
            };
            let id = read32(header, 4);
            let offset = usize::from(read16(header, 2) & 0xfff8);
            let id = ((id >> 16) as u16, id as u16);
            (header[0], offset, id, headers.transport_at + 8)
        }
    };
    let piece = Piece {
        id,
        is_first: offset == 0,
    };
    if offset > 0 {
        let is_in_header = offset < TCP_LEN;
        return (Matter::Unclear, (!is_in_header).then_some(piece));
    }
    let bytes = packet.get(at..headers.end).unwrap_or_default();
    (transport(headers.version, protocol, bytes), Some(piece))
}
