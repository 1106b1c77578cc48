//! What IGMP (RFC 1112, 2236, 3376) and MLD (RFC 2710, 3810) messages say, as far as a switch that
//! listens to them is concerned (RFC 4541).

use std::net::IpAddr;

use ipop_datapath::checksum::{combine, pseudo_v6, sum};
use ipop_datapath::inet::{Headers, Layer, Transport, Version};

const IGMP: u8 = 2;
const ICMPV6: u8 = 58;
/// Most records of one report that are looked at. A full frame of 1500 bytes has 184 of IPv4.
const MOST_RECORDS: usize = 512;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// A querier asks who wants what.
    Query {
        /// Whether it is a router's. A switch that asks in the place of one has no address
        /// (RFC 4541 section 2.1.1).
        is_router: bool,
    },
    /// A host says what it wants.
    Report(Vec<Record>),
}

/// What a host says of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The group.
    pub group: IpAddr,
    /// Whether it wants what is sent to it, from whomever.
    pub is_wanted: bool,
}

impl Membership {
    /// Reads the message in a frame; `None` for what no router takes for one.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let headers = Headers::parse(Layer::Ethernet, frame).ok()?;
        if headers.transport != Transport::Other {
            return None;
        }
        let source = headers.source(frame)?;
        let destination = headers.destination(frame)?;
        let message = frame.get(headers.transport_at..headers.end)?;
        let pseudo = match (source, destination, headers.protocol) {
            (IpAddr::V4(_), IpAddr::V4(_), IGMP) => 0,
            (IpAddr::V6(source), IpAddr::V6(to), ICMPV6) => {
                pseudo_v6(source.octets(), to.octets(), ICMPV6, message.len() as u32)
            }
            _ => return None,
        };
        if combine(pseudo, sum(message)) != 0xffff {
            return None;
        }
        let is_router = !source.is_unspecified();
        match (headers.version, *message.first()?) {
            (Version::V4, 0x11) if message.len() >= 8 => Some(Self::Query { is_router }),
            (Version::V6, 130) if message.len() >= 24 => Some(Self::Query { is_router }),
            (Version::V4, 0x12 | 0x16) => one(headers.version, message.get(4..)?, true),
            (Version::V4, 0x17) => one(headers.version, message.get(4..)?, false),
            (Version::V6, 131) => one(headers.version, message.get(8..)?, true),
            (Version::V6, 132) => one(headers.version, message.get(8..)?, false),
            (Version::V4, 0x22) | (Version::V6, 143) => many(headers.version, message),
            _ => None,
        }
    }
}

/// A report of the older versions, its group at the start of `bytes`.
fn one(version: Version, bytes: &[u8], is_wanted: bool) -> Option<Membership> {
    let (group, _) = split_address(version, bytes)?;
    let record = group
        .is_multicast()
        .then_some(Record { group, is_wanted })?;
    Some(Membership::Report(vec![record]))
}

/// A report of IGMPv3 or MLDv2 (RFC 3376 section 4.2, RFC 3810 section 5.2).
fn many(version: Version, message: &[u8]) -> Option<Membership> {
    let (header, mut rest) = message.split_first_chunk::<8>()?;
    let count = usize::from(u16::from_be_bytes([header[6], header[7]]));
    let mut records = Vec::new();
    for _ in 0..count.min(MOST_RECORDS) {
        let ([kind, auxiliary, high, low], after) = rest.split_first_chunk()?;
        let sources = usize::from(u16::from_be_bytes([*high, *low]));
        let (group, after) = split_address(version, after)?;
        let skipped = sources * address_len(version) + usize::from(*auxiliary) * 4;
        rest = after.get(skipped..)?;
        if let Some(is_wanted) = is_wanted(*kind, sources)
            && group.is_multicast()
        {
            records.push(Record { group, is_wanted });
        }
    }
    Some(Membership::Report(records))
}

/// What a record's type says of the group: `None` when it does not change whether it is wanted.
fn is_wanted(kind: u8, sources: usize) -> Option<bool> {
    const IS_INCLUDE: u8 = 1;
    const IS_EXCLUDE: u8 = 2;
    const TO_INCLUDE: u8 = 3;
    const TO_EXCLUDE: u8 = 4;
    const ALLOW: u8 = 5;
    match kind {
        IS_EXCLUDE | TO_EXCLUDE => Some(true),
        IS_INCLUDE | TO_INCLUDE => Some(sources > 0),
        ALLOW => (sources > 0).then_some(true),
        _ => None,
    }
}

const fn address_len(version: Version) -> usize {
    match version {
        Version::V4 => 4,
        Version::V6 => 16,
    }
}

fn split_address(version: Version, bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    match version {
        Version::V4 => {
            let (address, rest) = bytes.split_first_chunk::<4>()?;
            Some((IpAddr::from(*address), rest))
        }
        Version::V6 => {
            let (address, rest) = bytes.split_first_chunk::<16>()?;
            Some((IpAddr::from(*address), rest))
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
