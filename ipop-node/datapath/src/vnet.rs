//! `virtio_net_hdr`, which stands before every packet of a device opened with `IFF_VNET_HDR`.
//!
//! The form is Linux's default for TUN and TAP: ten bytes, without `num_buffers`, numbers in the
//! machine's own byte order (`TUNSETVNETHDRSZ`, `TUNSETVNETLE` and `TUNSETVNETBE` change that).

use thiserror::Error;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What a super-packet is to be cut into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GsoType {
    /// Nothing: it is one packet.
    #[default]
    None,
    /// TCP segments over IPv4.
    TcpV4,
    /// TCP segments over IPv6.
    TcpV6,
    /// UDP datagrams over IPv4 or IPv6.
    UdpL4,
}

/// The header of one packet or super-packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHdr {
    /// The transport checksum is not there yet: its field holds the pseudo-header's sum only.
    pub needs_csum: bool,
    /// Whoever sent the packet has checked the checksum.
    pub data_valid: bool,
    /// What the packet is to be cut into.
    pub gso: GsoType,
    /// The super-packet starts with a TCP segment that has CWR set.
    pub gso_ecn: bool,
    /// A hint at the length of all headers. Linux gives here what happens to be in one piece.
    pub hdr_len: u16,
    /// Bytes of payload in each segment but the last.
    pub gso_size: u16,
    /// Where the bytes under the checksum start.
    pub csum_start: u16,
    /// Where the checksum is, from there.
    pub csum_offset: u16,
}

/// Why a [`VnetHdr`] makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    /// A kind of segmentation that was not agreed on with the device.
    #[error("unknown gso type {0:#04x}")]
    GsoType(u8),
    /// `hdr_len` points past the packet's end.
    #[error("headers of {0} bytes end after the packet")]
    HdrLen(u16),
    /// `csum_start` and `csum_offset` point past the packet's end.
    #[error("a checksum at {start} + {offset} is after the packet")]
    Csum {
        /// `csum_start`
        start: u16,
        /// `csum_offset`
        offset: u16,
    },
}

impl VnetHdr {
    /// Bytes in front of each packet.
    pub const LEN: usize = 10;

    /// Reads a header. Flags that are not known are of no concern; a kind of segmentation is.
    ///
    /// # Errors
    /// [`Invalid::GsoType`]
    #[inline]
    pub const fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, Invalid> {
        let &[flags, gso_type, a, b, c, d, e, f, g, h] = bytes;
        Ok(Self {
            needs_csum: flags & NEEDS_CSUM != 0,
            data_valid: flags & DATA_VALID != 0,
            gso: match gso_type & !GSO_ECN {
                GSO_NONE => GsoType::None,
                GSO_TCP_V4 => GsoType::TcpV4,
                GSO_TCP_V6 => GsoType::TcpV6,
                GSO_UDP_L4 => GsoType::UdpL4,
                _ => return Err(Invalid::GsoType(gso_type)),
            },
            gso_ecn: gso_type & GSO_ECN != 0,
            hdr_len: u16::from_ne_bytes([a, b]),
            gso_size: u16::from_ne_bytes([c, d]),
            csum_start: u16::from_ne_bytes([e, f]),
            csum_offset: u16::from_ne_bytes([g, h]),
        })
    }

    /// Checks that what the header points at is inside a packet of `packet_len` bytes.
    ///
    /// # Errors
    /// [`Invalid::HdrLen`], [`Invalid::Csum`]
    #[inline]
    pub const fn check(&self, packet_len: usize) -> Result<(), Invalid> {
        let (start, offset) = (self.csum_start, self.csum_offset);
        if self.needs_csum && start as usize + offset as usize + 2 > packet_len {
            return Err(Invalid::Csum { start, offset });
        }
        if !matches!(self.gso, GsoType::None) && self.hdr_len as usize > packet_len {
            return Err(Invalid::HdrLen(self.hdr_len));
        }
        Ok(())
    }

    /// The header's bytes.
    #[must_use]
    #[inline]
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        let mut flags = 0;
        if self.needs_csum {
            flags |= NEEDS_CSUM;
        }
        if self.data_valid {
            flags |= DATA_VALID;
        }
        let mut gso_type = match self.gso {
            GsoType::None => GSO_NONE,
            GsoType::TcpV4 => GSO_TCP_V4,
            GsoType::TcpV6 => GSO_TCP_V6,
            GsoType::UdpL4 => GSO_UDP_L4,
        };
        if self.gso_ecn {
            gso_type |= GSO_ECN;
        }
        let [a, b] = self.hdr_len.to_ne_bytes();
        let [c, d] = self.gso_size.to_ne_bytes();
        let [e, f] = self.csum_start.to_ne_bytes();
        let [g, h] = self.csum_offset.to_ne_bytes();
        [flags, gso_type, a, b, c, d, e, f, g, h]
    }
}

#[cfg(test)]
mod tests {
    use super::{GsoType, Invalid, VnetHdr};

    #[test]
    fn a_written_header_reads_as_the_same() {
        for gso in [
            GsoType::None,
            GsoType::TcpV4,
            GsoType::TcpV6,
            GsoType::UdpL4,
        ] {
            for bits in 0..8 {
                let header = VnetHdr {
                    needs_csum: bits & 1 != 0,
                    data_valid: bits & 2 != 0,
                    gso,
                    gso_ecn: bits & 4 != 0,
                    hdr_len: 54,
                    gso_size: 1360,
                    csum_start: 34,
                    csum_offset: 16,
                };
                assert_eq!(VnetHdr::parse(&header.to_bytes()), Ok(header));
            }
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_kernels_struct() {
        let header = VnetHdr {
            needs_csum: true,
            gso: GsoType::TcpV6,
            gso_ecn: true,
            hdr_len: 0x102,
            gso_size: 0x304,
            csum_start: 0x506,
            csum_offset: 0x708,
            ..VnetHdr::default()
        };
        let mut expected = vec![1, 0x84];
        for word in [0x102_u16, 0x304, 0x506, 0x708] {
            expected.extend(word.to_ne_bytes());
        }
        assert_eq!(header.to_bytes().as_slice(), expected);
    }

    #[test]
    fn a_segmentation_nobody_asked_for_is_refused() {
        // 3 is UFO, 0x20 and 0x40 are UDP tunnels.
        for gso_type in [2, 3, 6, 0x21, 0x41, 0x7f] {
            let bytes = [0, gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(VnetHdr::parse(&bytes), Err(Invalid::GsoType(gso_type)));
        }
    }

    #[test]
    fn what_points_past_the_packet_is_refused() {
        let mut header = VnetHdr {
            needs_csum: true,
            csum_start: 20,
            csum_offset: 16,
            ..VnetHdr::default()
        };
        assert_eq!(header.check(38), Ok(()));
        assert_eq!(
            header.check(37),
            Err(Invalid::Csum {
                start: 20,
                offset: 16
            })
        );
        header.gso = GsoType::TcpV4;
        header.hdr_len = 41;
        assert_eq!(header.check(40), Err(Invalid::HdrLen(41)));
        header.csum_start = u16::MAX;
        header.csum_offset = u16::MAX;
        assert!(header.check(65_535).is_err());
    }
}
