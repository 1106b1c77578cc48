//! Where the headers of a packet are: Ethernet with up to two VLAN tags, IPv4 and IPv6, TCP and UDP.

use std::net::IpAddr;

use thiserror::Error;

use crate::word::read16;

/// The protocol number of TCP.
pub const TCP: u8 = 6;
/// The protocol number of UDP.
pub const UDP: u8 = 17;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// More than RFC 8200 section 4.1 has in mind. A bound, since the sender chooses the number.
const MAX_EXTENSION_HEADERS: usize = 6;

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
pub(crate) const VLAN_TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
pub(crate) const MAX_VLAN_TAGS: usize = 2;
/// Bytes of an Ethernet header without VLAN tags.
pub const ETHERNET_LEN: usize = 14;
pub(crate) const VLAN_TAG_LEN: usize = 4;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_LEN: usize = 20;
const UDP_LEN: usize = 8;

/// What a packet of the device starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The IP header: TUN.
    Ip,
    /// The Ethernet header: TAP.
    Ethernet,
}

/// The version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// What is inside the IP packet, as far as this crate is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A whole TCP segment.
    Tcp,
    /// A whole UDP datagram.
    Udp,
    /// A part of something, be it the first.
    Fragment,
    /// TCP or UDP by its number, but with a header that does not fit, or behind too many headers.
    Broken,
    /// Anything else.
    Other,
}

/// Where the headers of a packet are. Offsets are from the packet's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The version of IP.
    pub version: Version,
    /// What the IP packet has inside.
    pub transport: Transport,
    /// The number of the protocol after the IP headers.
    pub protocol: u8,
    /// Where the IP header starts.
    pub ip_at: usize,
    /// Where the transport header starts, after options and extension headers.
    pub transport_at: usize,
    /// Where the transport's payload starts; the same as `transport_at` for what is not
    /// [`Transport::Tcp`] or [`Transport::Udp`].
    pub payload_at: usize,
    /// Where the packet ends by its IP header. Bytes after that are padding of the link.
    pub end: usize,
}

/// Why a packet's headers cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// Not IP at all, such as ARP.
    #[error("not an IP packet")]
    NotIp,
    /// The packet ends inside a header, or before the length in its IP header.
    #[error("truncated")]
    Truncated,
    /// A length in the IP header is below what the header itself takes.
    #[error("the IP header contradicts itself")]
    Contradictory,
}

impl Headers {
    /// Finds the headers of `packet`.
    ///
    /// # Errors
    /// When there is no whole IP packet.
    #[inline]
    pub fn parse(layer: Layer, packet: &[u8]) -> Result<Self, Unreadable> {
        let ip_at = ip_at(layer, packet)?;
        let first = *packet.get(ip_at).ok_or(Unreadable::Truncated)?;
        match first >> 4 {
            4 => ipv4(packet, ip_at),
            6 => ipv6(packet, ip_at),
            _ if layer == Layer::Ip => Err(Unreadable::NotIp),
            _ => Err(Unreadable::Contradictory),
        }
    }

    /// Bytes of the IP header with its options or extension headers.
    #[must_use]
    #[inline]
    pub const fn ip_len(&self) -> usize {
        self.transport_at - self.ip_at
    }

    /// Whether the IP header has neither options nor extension headers.
    #[must_use]
    #[inline]
    pub const fn is_plain_ip(&self) -> bool {
        self.ip_len()
            == match self.version {
                Version::V4 => IPV4_LEN,
                Version::V6 => IPV6_LEN,
            }
    }

    /// Where the transport checksum is, from the transport header on.
    #[must_use]
    #[inline]
    pub const fn checksum_offset(&self) -> Option<u16> {
        match self.transport {
            Transport::Tcp => Some(16),
            Transport::Udp => Some(6),
            Transport::Fragment | Transport::Broken | Transport::Other => None,
        }
    }

    /// The source address in `packet`, which these headers were found in.
    #[must_use]
    #[inline]
    pub fn source(&self, packet: &[u8]) -> Option<IpAddr> {
        self.address(packet, 0)
    }

    /// The destination address in `packet`, which these headers were found in.
    #[must_use]
    #[inline]
    pub fn destination(&self, packet: &[u8]) -> Option<IpAddr> {
        self.address(packet, 1)
    }

    #[inline]
    fn address(&self, packet: &[u8], index: usize) -> Option<IpAddr> {
        Some(match self.version {
            Version::V4 => IpAddr::from(
                *packet
                    .get(self.ip_at + 12 + 4 * index..)?
                    .first_chunk::<4>()?,
            ),
            Version::V6 => IpAddr::from(
                *packet
                    .get(self.ip_at + 8 + 16 * index..)?
                    .first_chunk::<16>()?,
            ),
        })
    }
}

/// Where the IP header of a packet starts, if it has one.
#[inline]
pub(crate) fn ip_at(layer: Layer, packet: &[u8]) -> Result<usize, Unreadable> {
    match layer {
        Layer::Ip => Ok(0),
        Layer::Ethernet => ethernet_len(packet),
    }
}

/// Where the IP header of an Ethernet frame starts.
#[inline]
fn ethernet_len(frame: &[u8]) -> Result<usize, Unreadable> {
    let mut len = ETHERNET_LEN;
    let mut tags = 0;
    loop {
        if frame.len() < len {
            return Err(Unreadable::Truncated);
        }
        let version = match read16(frame, len - 2) {
            ETHERTYPE_IPV4 => 4,
            ETHERTYPE_IPV6 => 6,
            tag if VLAN_TAGS.contains(&tag) && tags < MAX_VLAN_TAGS => {
                tags += 1;
                len += VLAN_TAG_LEN;
                continue;
            }
            _ => return Err(Unreadable::NotIp),
        };
        let first = *frame.get(len).ok_or(Unreadable::Truncated)?;
        return if first >> 4 == version {
            Ok(len)
        } else {
            Err(Unreadable::Contradictory)
        };
    }
}

#[inline]
fn ipv4(packet: &[u8], ip_at: usize) -> Result<Headers, Unreadable> {
    let rest = packet.get(ip_at..).ok_or(Unreadable::Truncated)?;
    let header = rest
        .first_chunk::<IPV4_LEN>()
        .ok_or(Unreadable::Truncated)?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    let total_len = usize::from(read16(header, 2));
    if header_len < IPV4_LEN || total_len < header_len {
        return Err(Unreadable::Contradictory);
    }
    if total_len > rest.len() {
        return Err(Unreadable::Truncated);
    }
    let protocol = header[9];
    let transport_at = ip_at + header_len;
    let end = ip_at + total_len;
    // Every bit but those reserved and "don't fragment".
    let is_fragment = read16(header, 6) & 0x3fff != 0;
    let (transport, payload_at) = if is_fragment {
        (Transport::Fragment, transport_at)
    } else {
        transport(packet, protocol, transport_at, end)
    };
    Ok(Headers {
        version: Version::V4,
        transport,
        protocol,
        ip_at,
        transport_at,
        payload_at,
        end,
    })
}

#[inline]
fn ipv6(packet: &[u8], ip_at: usize) -> Result<Headers, Unreadable> {
    let rest = packet.get(ip_at..).ok_or(Unreadable::Truncated)?;
    let header = rest
        .first_chunk::<IPV6_LEN>()
        .ok_or(Unreadable::Truncated)?;
    let payload_len = usize::from(read16(header, 4));
    if IPV6_LEN + payload_len > rest.len() {
        return Err(Unreadable::Truncated);
    }
    let transport_at = ip_at + IPV6_LEN;
    let end = transport_at + payload_len;
    let (transport, protocol, transport_at, payload_at) = match header[6] {
        protocol @ (HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT) => {
            extended(packet, protocol, transport_at, end)
        }
        protocol => {
            let (transport, payload_at) = transport(packet, protocol, transport_at, end);
            (transport, protocol, transport_at, payload_at)
        }
    };
    Ok(Headers {
        version: Version::V6,
        transport,
        protocol,
        ip_at,
        transport_at,
        payload_at,
        end,
    })
}

/// Walks IPv6 extension headers. Gives the transport, its protocol, where it starts and where its
/// payload does.
#[cold]
fn extended(
    packet: &[u8],
    mut protocol: u8,
    mut at: usize,
    end: usize,
) -> (Transport, u8, usize, usize) {
    for _ in 0..MAX_EXTENSION_HEADERS {
        match protocol {
            FRAGMENT => return (Transport::Fragment, protocol, at, at),
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let Some(&[next, len]) = packet.get(at..end).and_then(<[u8]>::first_chunk) else {
                    return (Transport::Broken, protocol, at, at);
                };
                let after = at + (usize::from(len) + 1) * 8;
                if after > end {
                    return (Transport::Broken, protocol, at, at);
                }
                (protocol, at) = (next, after);
            }
            _ => {
                let (transport, payload_at) = transport(packet, protocol, at, end);
                return (transport, protocol, at, payload_at);
            }
        }
    }
    (Transport::Broken, protocol, at, at)
}

/// What the transport is, and where its payload starts.
#[inline]
fn transport(packet: &[u8], protocol: u8, at: usize, end: usize) -> (Transport, usize) {
    match protocol {
        TCP => {
            let Some(header) = packet.get(at..end).and_then(<[u8]>::first_chunk::<TCP_LEN>) else {
                return (Transport::Broken, at);
            };
            let payload_at = at + usize::from(header[12] >> 4) * 4;
            if payload_at < at + TCP_LEN || payload_at > end {
                return (Transport::Broken, at);
            }
            (Transport::Tcp, payload_at)
        }
        UDP => {
            let Some(header) = packet.get(at..end).and_then(<[u8]>::first_chunk::<UDP_LEN>) else {
                return (Transport::Broken, at);
            };
            let len = usize::from(read16(header, 4));
            if len < UDP_LEN || at + len > end {
                return (Transport::Broken, at);
            }
            (Transport::Udp, at + UDP_LEN)
        }
        _ => (Transport::Other, at),
    }
}
