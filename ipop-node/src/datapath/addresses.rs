//! Whom an IP packet is from and for.

use std::net::IpAddr;

/// The destination of an IP packet, if it has one.
pub fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(*packet.get(16..)?.first_chunk::<4>()?)),
        6 => Some(IpAddr::from(*packet.get(24..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

/// Source and destination of an IP packet.
pub fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 if packet.len() >= 20 => {
            let source = *packet[12..].first_chunk::<4>()?;
            let destination = *packet[16..].first_chunk::<4>()?;
            Some((source.into(), destination.into()))
        }
        6 if packet.len() >= 40 => {
            let source = *packet[8..].first_chunk::<16>()?;
            let destination = *packet[24..].first_chunk::<16>()?;
            Some((source.into(), destination.into()))
        }
        _ => None,
    }
}
