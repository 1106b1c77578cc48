//! The headers of an IP packet that routing looks at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// Where a packet comes from and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

impl Addresses {
    /// Reads them. `None` for what is not IPv4 or IPv6, or whose length is not the one its header
    /// says.
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 if packet.len() >= IPV4_HEADER => {
                let header = usize::from(packet[0] & 0x0f) * 4;
                let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
                if header < IPV4_HEADER || total < header || total != packet.len() {
                    return None;
                }
                Some(Self {
                    source: Ipv4Addr::from(octets::<4>(packet, 12)?).into(),
                    destination: Ipv4Addr::from(octets::<4>(packet, 16)?).into(),
                })
            }
            6 if packet.len() >= IPV6_HEADER => {
                let payload = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
                if IPV6_HEADER + payload != packet.len() {
                    return None;
                }
                Some(Self {
                    source: Ipv6Addr::from(octets::<16>(packet, 8)?).into(),
                    destination: Ipv6Addr::from(octets::<16>(packet, 24)?).into(),
                })
            }
            _ => None,
        }
    }
}

fn octets<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_packet_of_another_length_than_its_header_says_is_refused() {
        let mut packet = [0; 24];
        packet[0] = 0x45;
        packet[3] = 24;
        assert!(Addresses::of(&packet).is_some());
        assert!(Addresses::of(&packet[..23]).is_none());
        packet[3] = 19;
        assert!(Addresses::of(&packet).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Addresses::of(&bytes);
        }
    }
}
