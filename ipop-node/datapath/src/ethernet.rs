//! Ethernet frames as a switch sees them: header, VLAN, and which of them it must look into.
//!
//! [`classify`] is what runs for each frame. Only [`Class::Unicast`] is carried by the table of
//! [stations](crate::stations) alone; everything else is for the slow path, which sees one frame at a
//! time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use crate::inet::{
    ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Headers, Layer, MAX_VLAN_TAGS, TCP, Transport,
    UDP, VLAN_TAG_LEN, VLAN_TAGS, Version,
};
use crate::stations::{Mac, Station, VlanId, is_group, is_station};
use crate::word::read16;

/// EtherType of ARP (RFC 826).
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of [probe frames](Class::Probe): Local Experimental EtherType 1 (IEEE 802 section
/// 9.2.4).
pub const ETHERTYPE_PROBE: u16 = 0x88b5;
/// Every station.
pub const BROADCAST: Mac = [0xff; 6];
/// Where probe frames go: a group of our own, which every bridge forwards.
pub const PROBE_GROUP: Mac = [0x03, b'i', b'p', b'o', b'p', 1];
/// What a bridge must not forward (IEEE 802.1Q table 8-1): the last four bits may be anything.
const RESERVED: Mac = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x00];

/// What is less is a length (IEEE 802.3 section 3.2.6).
const LEAST_ETHERTYPE: u16 = 0x600;

const IGMP: u8 = 2;
const ICMPV6: u8 = 58;
const IPV6_FRAGMENT: u8 = 44;
const IPV6_FRAGMENT_LEN: usize = 8;

const DHCP_SERVER_PORT: u16 = 67;
const DHCP_CLIENT_PORT: u16 = 68;
const DHCPV6_CLIENT_PORT: u16 = 546;
const DHCPV6_SERVER_PORT: u16 = 547;

/// Header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// A station or a group.
    pub destination: Mac,
    /// The station it is from.
    pub source: Mac,
    /// Of the outermost tag; 0 without one.
    pub vlan: VlanId,
    /// What the frame carries, after the tags.
    pub ethertype: u16,
    /// Where that begins.
    pub payload_at: usize,
}

/// Why a frame is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum BadFrame {
    /// It ends within its header.
    #[error("truncated")]
    Truncated,
    /// Its source is a group, or nobody.
    #[error("the source is not a station's address")]
    BadSource,
    /// More than two VLAN tags: nobody could tell what is inside.
    #[error("more than two VLAN tags")]
    TooManyTags,
}

impl Header {
    /// Reads the header at the start of `frame`.
    ///
    /// # Errors
    ///
    /// When no switch should carry the frame.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Self, BadFrame> {
        let header: &[u8; ETHERNET_LEN] = frame.first_chunk().ok_or(BadFrame::Truncated)?;
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *header;
        let (destination, source) = ([a, b, c, d, e, f], [g, h, i, j, k, l]);
        if !is_station(source) {
            return Err(BadFrame::BadSource);
        }
        let mut ethertype = read16(header, ETHERNET_LEN - 2);
        let mut payload_at = ETHERNET_LEN;
        let mut vlan = None;
        for _ in 0..MAX_VLAN_TAGS {
            if !VLAN_TAGS.contains(&ethertype) {
                break;
            }
            let tag: &[u8; VLAN_TAG_LEN] = frame
                .get(payload_at..)
                .and_then(<[u8]>::first_chunk)
                .ok_or(BadFrame::Truncated)?;
            vlan = vlan.or(Some(read16(tag, 0) & 0xfff));
            ethertype = read16(tag, 2);
            payload_at += VLAN_TAG_LEN;
        }
        if VLAN_TAGS.contains(&ethertype) {
            return Err(BadFrame::TooManyTags);
        }
        Ok(Self {
            destination,
            source,
            vlan: vlan.unwrap_or(0),
            ethertype,
            payload_at,
        })
    }

    /// Who sent it.
    #[must_use]
    #[inline]
    pub const fn sender(&self) -> Station {
        Station {
            vlan: self.vlan,
            mac: self.source,
        }
    }

    /// Which IP address the packet in `frame` says that it is from, if there is a packet.
    #[must_use]
    #[inline]
    pub fn ip_source(&self, frame: &[u8]) -> Option<IpAddr> {
        let packet = frame.get(self.payload_at..)?;
        match self.ethertype {
            ETHERTYPE_IPV4 => {
                let source: &[u8; 4] = packet.get(12..)?.first_chunk()?;
                Some(Ipv4Addr::from(*source).into())
            }
            ETHERTYPE_IPV6 => {
                let source: &[u8; 16] = packet.get(8..)?.first_chunk()?;
                Some(Ipv6Addr::from(*source).into())
            }
            _ => None,
        }
    }

    /// Whom it is for, if that is one station.
    #[must_use]
    #[inline]
    pub const fn receiver(&self) -> Option<Station> {
        if is_group(self.destination) {
            return None;
        }
        Some(Station {
            vlan: self.vlan,
            mac: self.destination,
        })
    }
}

/// How a switch has to treat a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// For one station, and of no concern to the switch.
    Unicast,
    /// For every station.
    Broadcast,
    /// For a group of stations.
    Multicast,
    /// ARP.
    Arp,
    /// Neighbour Discovery for IPv6 (RFC 4861).
    NeighbourDiscovery(Discovery),
    /// IGMP (RFC 3376).
    Igmp,
    /// Multicast Listener Discovery for IPv6 (RFC 3810).
    Mld,
    /// DHCP (RFC 2131) towards servers.
    DhcpRequest,
    /// DHCP towards clients.
    DhcpReply,
    /// DHCPv6 (RFC 8415) towards servers.
    Dhcpv6Request,
    /// DHCPv6 towards clients.
    Dhcpv6Reply,
    /// Spanning tree, LLDP, flow control and the like: for the next bridge and no farther.
    Reserved,
    /// By which nodes of one overlay find out that they are on the same LAN.
    Probe,
    /// Headers that hide what is inside: hosts and switches could take it for different things (IPv6: RFC 7113
    /// section 3; LLC and SNAP: CVE-2021-27854).
    Hidden,
}

/// Messages of Neighbour Discovery, by their ICMPv6 types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discovery {
    /// 133
    RouterSolicitation,
    /// 134
    RouterAdvertisement,
    /// 135
    NeighbourSolicitation,
    /// 136
    NeighbourAdvertisement,
    /// 137
    Redirect,
}

/// How a switch has to treat `frame`, whose header was read before.
#[inline]
pub fn classify(header: &Header, frame: &[u8]) -> Class {
    let inside = match header.ethertype {
        ..LEAST_ETHERTYPE if is_encapsulated(&frame[header.payload_at..]) => Some(Class::Hidden),
        ETHERTYPE_ARP => Some(Class::Arp),
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => ip(frame),
        ETHERTYPE_PROBE if header.destination == PROBE_GROUP => Some(Class::Probe),
        _ => None,
    };
    let addressed = match header.destination {
        destination if !is_group(destination) => Class::Unicast,
        BROADCAST => Class::Broadcast,
        [a, b, c, d, e, f] if [a, b, c, d, e, f & 0xf0] == RESERVED => return Class::Reserved,
        _ => Class::Multicast,
    };
    inside.unwrap_or(addressed)
}

/// Whether the payload of a frame that has a length in place of an EtherType has the EtherType after it (RFC 1042),
/// as some receivers take it and others do not.
#[cold]
fn is_encapsulated(payload: &[u8]) -> bool {
    payload.starts_with(&[0xaa, 0xaa, 3, 0, 0, 0])
        || payload.starts_with(&[0xaa, 0xaa, 3, 0, 0, 0xf8])
}

/// The class of an IP packet, if it has one of its own. What is no packet is nobody's, for all that
/// receive it.
#[inline]
fn ip(frame: &[u8]) -> Option<Class> {
    let headers = Headers::parse(Layer::Ethernet, frame).ok()?;
    match (headers.version, headers.transport) {
        (_, Transport::Tcp) => None,
        (version, Transport::Udp) => udp(version, frame, headers.transport_at),
        (Version::V4, Transport::Fragment) => {
            let is_first = read16(frame, headers.ip_at + 6) & 0x1fff == 0;
            (is_first && headers.protocol == UDP)
                .then(|| udp(Version::V4, frame, headers.transport_at))?
        }
        (Version::V4, _) => (headers.protocol == IGMP).then_some(Class::Igmp),
        (Version::V6, Transport::Fragment) => fragment(&frame[..headers.end], headers.transport_at),
        (Version::V6, Transport::Broken) => {
            (!matches!(headers.protocol, TCP | UDP)).then_some(Class::Hidden)
        }
        (Version::V6, Transport::Other) => match headers.protocol {
            ICMPV6 => icmpv6(&frame[..headers.end], headers.transport_at),
            _ => None,
        },
    }
}

#[inline]
fn udp(version: Version, frame: &[u8], at: usize) -> Option<Class> {
    let destination = frame.get(at + 2..)?.first_chunk::<2>()?;
    match (version, u16::from_be_bytes(*destination)) {
        (Version::V4, DHCP_SERVER_PORT) => Some(Class::DhcpRequest),
        (Version::V4, DHCP_CLIENT_PORT) => Some(Class::DhcpReply),
        (Version::V6, DHCPV6_SERVER_PORT) => Some(Class::Dhcpv6Request),
        (Version::V6, DHCPV6_CLIENT_PORT) => Some(Class::Dhcpv6Reply),
        _ => None,
    }
}

#[inline]
fn icmpv6(packet: &[u8], at: usize) -> Option<Class> {
    Some(match packet.get(at)? {
        130..=132 | 143 => Class::Mld,
        133 => Class::NeighbourDiscovery(Discovery::RouterSolicitation),
        134 => Class::NeighbourDiscovery(Discovery::RouterAdvertisement),
        135 => Class::NeighbourDiscovery(Discovery::NeighbourSolicitation),
        136 => Class::NeighbourDiscovery(Discovery::NeighbourAdvertisement),
        137 => Class::NeighbourDiscovery(Discovery::Redirect),
        _ => return None,
    })
}

/// A fragment of IPv6, its fragment header at `at`. Only the first one shows what the packet is, and
/// it has to (RFC 7112 section 5).
#[cold]
fn fragment(packet: &[u8], at: usize) -> Option<Class> {
    let Some(&[next, _, high, low]) = packet.get(at..).and_then(<[u8]>::first_chunk) else {
        return Some(Class::Hidden);
    };
    if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
        return None;
    }
    let inside = at + IPV6_FRAGMENT_LEN;
    match next {
        UDP => udp(Version::V6, packet, inside),
        // A fragment of a discovery is none to any host (RFC 6980 section 5).
        ICMPV6 => icmpv6(packet, inside),
        0 | 43 | IPV6_FRAGMENT | 60 => Some(Class::Hidden),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
