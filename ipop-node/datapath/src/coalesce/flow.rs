//! Whose packet it is.

use crate::checksum::fold;
use crate::inet::{Headers, Version};
use crate::word::{read32, read64};

/// Addresses, ports and protocol of a TCP or UDP packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    addresses: Addresses,
    /// As they are in packets.
    ports: [u8; 4],
    protocol: u8,
}

/// Source and destination: one word for IPv4, four for IPv6.
#[derive(Clone, Copy, Debug)]
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
            ports: read32(packet, headers.transport_at).to_be_bytes(),
            protocol: headers.protocol,
        }
    }

    #[inline]
    pub(super) fn is(&self, other: &Self) -> bool {
        self.ports == other.ports
            && self.protocol == other.protocol
            && self.addresses.are(&other.addresses)
    }

    #[inline]
    pub(super) fn ports(&self) -> [u8; 4] {
        self.ports
    }

    /// Whether that packet is between the same addresses.
    pub(super) fn has_addresses(&self, headers: &Headers, packet: &[u8]) -> bool {
        self.addresses.are(&Addresses::of(headers, packet))
    }

    /// The sum of the pseudo-header without its length.
    #[inline]
    pub(super) fn pseudo_sum(&self) -> u16 {
        let halves = self
            .addresses
            .words
            .map(|word| (word >> 32) + (word & 0xffff_ffff));
        fold(halves.iter().sum::<u64>() + u64::from(self.protocol))
    }
}

impl Addresses {
    #[inline]
    fn of(headers: &Headers, packet: &[u8]) -> Self {
        let version = headers.version;
        let words = match version {
            Version::V4 => [read64(packet, headers.ip_at + 12), 0, 0, 0],
            Version::V6 => [0, 1, 2, 3].map(|index| read64(packet, headers.ip_at + 8 + 8 * index)),
        };
        Self { version, words }
    }

    /// Not derived, which would be a call of `memcmp` for every flow that is looked at.
    #[inline]
    fn are(&self, other: &Self) -> bool {
        let [a, b, c, d] = self.words;
        let [e, f, g, h] = other.words;
        self.version == other.version && ((a ^ e) | (b ^ f) | (c ^ g) | (d ^ h)) == 0
    }
}
