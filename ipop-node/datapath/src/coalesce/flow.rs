//! Whose packet it is.

use crate::checksum::fold;
use crate::inet::{Headers, Version};
use crate::word::read32;

/// Addresses, ports and protocol of a TCP or UDP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    addresses: Addresses,
    ports: u32,
    protocol: u8,
}

/// Source and destination, in words of the machine's own byte order: one for IPv4, four for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Addresses {
    version: Version,
    words: [u64; 4],
}

impl Flow {
    /// The flow of `packet`, which `headers` were found in and are of TCP or UDP.
    #[inline]
    pub(super) fn of(headers: &Headers, packet: &[u8]) -> Self {
        Self {
            addresses: Addresses::of(headers, packet),
            ports: read32(packet, headers.transport_at),
            protocol: headers.protocol,
        }
    }

    /// Whether that packet is between the same addresses.
    pub(super) fn has_addresses(&self, headers: &Headers, packet: &[u8]) -> bool {
        self.addresses == Addresses::of(headers, packet)
    }

    /// The sum of the pseudo-header of a packet with that many bytes from the transport header on.
    #[inline]
    pub(super) fn pseudo_sum(&self, transport_len: usize) -> u16 {
        let addresses: u64 = self
            .addresses
            .words
            .iter()
            .map(|word| (word >> 32) + (word & 0xffff_ffff))
            .sum();
        let addresses = u16::from_be(fold(addresses));
        fold(u64::from(addresses) + u64::from(self.protocol) + transport_len as u64)
    }
}

impl Addresses {
    #[inline]
    fn of(headers: &Headers, packet: &[u8]) -> Self {
        let mut words = [0; 4];
        let bytes = match headers.version {
            Version::V4 => &packet[headers.ip_at + 12..][..8],
            Version::V6 => &packet[headers.ip_at + 8..][..32],
        };
        let (chunks, _) = bytes.as_chunks();
        for (word, chunk) in words.iter_mut().zip(chunks) {
            *word = u64::from_ne_bytes(*chunk);
        }
        Self {
            version: headers.version,
            words,
        }
    }
}
