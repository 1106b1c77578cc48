//! ICMP errors for packets of this node that cannot be carried (RFC 792, 1191, 4443), so that its
//! kernel learns the path MTU and does not wait for members that are not there.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{BufMut, BytesMut};

use super::packet::Addresses;

/// Why the packet cannot be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreachable {
    /// It is larger than this many bytes.
    TooBig(u16),
    /// Nobody has that address.
    NoMember,
    /// The rules do not let it pass.
    Prohibited,
}

/// Least time between two ICMP unreachables (RFC 4443 section 2.4 (f)).
pub(super) const PACE: Duration = Duration::from_millis(10);
/// RFC 4443 section 2.4 (c): as much of the packet as fits the minimum IPv6 MTU.
const IPV6_MIN_MTU: usize = 1280;
/// RFC 1812 section 4.3.2.3.
const IPV4_ERROR: usize = 576;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The error for `packet`. `None` for those that must not be answered with one: ICMP errors, and
/// fragments other than the first (RFC 1122 section 3.2.2).
///
/// Its source is the unreachable destination itself: an error from one of this node's own
/// addresses would be dropped by its kernel as a martian.
pub(super) fn error(packet: &[u8], addresses: Addresses, why: Unreachable) -> Option<BytesMut> {
    match (addresses.destination, addresses.source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let later_fragment = packet.get(6)? & 0x1f != 0 || *packet.get(7)? != 0;
            let is_error = packet.get(9) == Some(&ICMP)
                && packet
                    .get(header)
                    .is_some_and(|kind| !matches!(kind, 0 | 8 | 13 | 14));
            if later_fragment || is_error || to.is_unspecified() {
                return None;
            }
            let (code, mtu) = match why {
                Unreachable::TooBig(mtu) => (4, mtu),
                Unreachable::NoMember => (1, 0),
                // RFC 1812 section 5.2.7.1.
                Unreachable::Prohibited => (13, 0),
            };
            let quoted = &packet[..packet.len().min(IPV4_ERROR - 28)];
            let mut icmp = BytesMut::with_capacity(8 + quoted.len());
            icmp.put_slice(&[3, code, 0, 0, 0, 0]);
            icmp.put_u16(mtu);
            icmp.put_slice(quoted);
            let sum = checksum(&[&icmp]);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());

            let mut out = BytesMut::with_capacity(20 + icmp.len());
            out.put_slice(&[0x45, 0]);
            out.put_u16(u16::try_from(20 + icmp.len()).ok()?);
            out.put_slice(&[0, 0, 0, 0, 64, ICMP, 0, 0]);
            out.put_slice(&from.octets());
            out.put_slice(&to.octets());
            let sum = checksum(&[&out]);
            out[10..12].copy_from_slice(&sum.to_be_bytes());
            out.extend_from_slice(&icmp);
            Some(out)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let is_error =
                packet.get(6) == Some(&ICMPV6) && packet.get(40).is_some_and(|kind| *kind < 128);
            if is_error || to.is_unspecified() || to.is_multicast() {
                return None;
            }
            let (kind, code, value) = match why {
                Unreachable::TooBig(mtu) => (2, 0, u32::from(mtu)),
                Unreachable::NoMember => (1, 3, 0),
                Unreachable::Prohibited => (1, 1, 0),
            };
            let quoted = &packet[..packet.len().min(IPV6_MIN_MTU - 48)];
            let mut icmp = BytesMut::with_capacity(8 + quoted.len());
            icmp.put_slice(&[kind, code, 0, 0]);
            icmp.put_u32(value);
            icmp.put_slice(quoted);
            let length = u16::try_from(icmp.len()).ok()?;
            let pseudo = [0, 0, (length >> 8) as u8, length as u8, 0, 0, 0, ICMPV6];
            let sum = checksum(&[&from.octets(), &to.octets(), &pseudo, &icmp]);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());

            let mut out = BytesMut::with_capacity(40 + icmp.len());
            out.put_slice(&[0x60, 0, 0, 0]);
            out.put_u16(length);
            out.put_slice(&[ICMPV6, 64]);
            out.put_slice(&from.octets());
            out.put_slice(&to.octets());
            out.extend_from_slice(&icmp);
            Some(out)
        }
        _ => None,
    }
}

/// The Internet checksum (RFC 1071) over parts of even length but the last.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut p = vec![
            0x45,
            0,
            0,
            20 + payload.len() as u8,
            0,
            0,
            0x40,
            0,
            64,
            protocol,
            0,
            0,
        ];
        p.extend([10, 73, 0, 1, 10, 73, 0, 9]);
        p.extend(payload);
        p
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut p = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 64];
        p.extend(
            "fd5a::1"
                .parse::<std::net::Ipv6Addr>()
                .expect("valid")
                .octets(),
        );
        p.extend(
            "fd5a::9"
                .parse::<std::net::Ipv6Addr>()
                .expect("valid")
                .octets(),
        );
        p.extend(payload);
        p
    }

    #[test]
    fn fragmentation_needed_names_the_mtu_and_sums_to_zero() {
        let packet = v4(17, b"odd");
        let addresses = Addresses::of(&packet).expect("valid");
        let out = error(&packet, addresses, Unreachable::TooBig(1400)).expect("an error");
        let back = Addresses::of(&out).expect("a packet");
        assert_eq!(
            (back.source, back.destination),
            (addresses.destination, addresses.source)
        );
        assert_eq!(&out[20..22], &[3, 4]);
        assert_eq!(&out[26..28], &1400_u16.to_be_bytes());
        assert_eq!(&out[28..], &packet[..]);
        assert_eq!(checksum(&[&out[..20]]), 0);
        assert_eq!(checksum(&[&out[20..]]), 0);
    }

    #[test]
    fn packet_too_big_names_the_mtu_and_sums_to_zero_with_its_pseudo_header() {
        let packet = v6(17, b"abc");
        let addresses = Addresses::of(&packet).expect("valid");
        let out = error(&packet, addresses, Unreachable::TooBig(1280)).expect("an error");
        assert!(Addresses::of(&out).is_some());
        assert_eq!(&out[40..42], &[2, 0]);
        assert_eq!(&out[44..48], &1280_u32.to_be_bytes());
        let pseudo = [0, 0, 0, (out.len() - 40) as u8, 0, 0, 0, ICMPV6];
        assert_eq!(checksum(&[&out[8..40], &pseudo, &out[40..]]), 0);
    }

    #[test]
    fn an_error_is_never_answered_with_an_error_but_a_ping_is() {
        for (packet, answered) in [
            (v4(ICMP, &[3, 1, 0, 0]), false),
            (v4(ICMP, &[8, 0, 0, 0]), true),
            (v6(ICMPV6, &[1, 0, 0, 0]), false),
            (v6(ICMPV6, &[128, 0, 0, 0]), true),
        ] {
            let addresses = Addresses::of(&packet).expect("valid");
            let out = error(&packet, addresses, Unreachable::NoMember);
            assert_eq!(out.is_some(), answered, "{packet:?}");
        }
    }
}
