//! Congestion marks (ECN) through a tunnel, as RFC 6040 has it.
//!
//! On the way out the field of the packet is copied to the datagram that it travels in (section
//! 4.1, normal mode); on the way in the two are combined (section 4.2), so that a mark that the
//! underlay made reaches the ends.

use thiserror::Error;

use crate::checksum;
use crate::inet::{Layer, ip_at};
use crate::word::{read16, write16};

const MASK: u8 = 0b11;
const IPV4_CHECKSUM: usize = 10;

/// A value of the ECN field (RFC 3168 section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// The ends do not know of ECN.
    #[default]
    NotEct = 0b00,
    /// The ends know of ECN.
    Ect1 = 0b01,
    /// The same (RFC 8311 tells the two apart).
    Ect0 = 0b10,
    /// There was congestion on the way.
    Ce = 0b11,
}

/// There was congestion on the way of a packet whose ends can only be told by its loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("marked as congested, but not ECN-capable")]
pub struct NotCapable;

impl Ecn {
    /// The field in the second byte of an IPv4 header (TOS), or in a traffic class of IPv6.
    #[must_use]
    #[inline]
    pub const fn of_class(class: u8) -> Self {
        match class & MASK {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// The field of `packet`; [`Ecn::NotEct`] for what is not IP.
    #[must_use]
    #[inline]
    pub fn of(layer: Layer, packet: &[u8]) -> Self {
        class(layer, packet).map_or(Self::NotEct, |(_, class)| Self::of_class(class))
    }

    /// What a packet with this field has after it was in a datagram with the field `outer` (RFC
    /// 6040 section 4.2, figure 4).
    ///
    /// # Errors
    /// When the packet is to be dropped.
    #[inline]
    pub const fn after(self, outer: Self) -> Result<Self, NotCapable> {
        match (self, outer) {
            (Self::NotEct, Self::Ce) => Err(NotCapable),
            (Self::NotEct, _) => Ok(Self::NotEct),
            (Self::Ce, _) | (_, Self::Ce) => Ok(Self::Ce),
            (Self::Ect0, Self::Ect1) => Ok(Self::Ect1),
            (inner, _) => Ok(inner),
        }
    }

    /// Gives `packet`, which came in a datagram with this field, the field that it is to have.
    /// Other than IP stays as it is.
    ///
    /// # Errors
    /// When the packet is to be dropped.
    #[inline]
    pub fn mark(self, layer: Layer, packet: &mut [u8]) -> Result<(), NotCapable> {
        // No packet is changed by the other two.
        if matches!(self, Self::NotEct | Self::Ect0) {
            return Ok(());
        }
        let Some((at, class)) = class(layer, packet) else {
            return Ok(());
        };
        let inner = Self::of_class(class);
        let ecn = inner.after(self)?;
        if ecn != inner {
            set(packet, at, class & !MASK | ecn as u8);
        }
        Ok(())
    }
}

/// Where the IP header is, and the TOS or traffic class in it.
#[inline]
fn class(layer: Layer, packet: &[u8]) -> Option<(usize, u8)> {
    let at = ip_at(layer, packet).ok()?;
    let [first, second] = *packet.get(at..)?.first_chunk()?;
    match first >> 4 {
        4 => Some((at, second)),
        6 => Some((at, first << 4 | second >> 4)),
        _ => None,
    }
}

fn set(packet: &mut [u8], at: usize, class: u8) {
    if packet[at] >> 4 == 6 {
        packet[at] = 6 << 4 | class >> 4;
        packet[at + 1] = class << 4 | packet[at + 1] & 0xf;
        return;
    }
    let old = read16(packet, at);
    packet[at + 1] = class;
    if packet.len() >= at + IPV4_CHECKSUM + 2 {
        let checksum = read16(packet, at + IPV4_CHECKSUM);
        let checksum = checksum::update(checksum, old, read16(packet, at));
        write16(packet, at + IPV4_CHECKSUM, checksum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Ecn::{Ce, Ect0, Ect1, NotEct};

    #[test]
    fn fields_combine_as_in_rfc_6040() {
        // Rows by the packet's field, columns by the datagram's, in the order of figure 4.
        let columns = [NotEct, Ect0, Ect1, Ce];
        let table = [
            (
                NotEct,
                [Ok(NotEct), Ok(NotEct), Ok(NotEct), Err(NotCapable)],
            ),
            (Ect0, [Ok(Ect0), Ok(Ect0), Ok(Ect1), Ok(Ce)]),
            (Ect1, [Ok(Ect1), Ok(Ect1), Ok(Ect1), Ok(Ce)]),
            (Ce, [Ok(Ce), Ok(Ce), Ok(Ce), Ok(Ce)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in columns.into_iter().zip(row) {
                assert_eq!(inner.after(outer), expected, "{inner:?} in {outer:?}");
            }
        }
    }

    fn v4(class: u8) -> Vec<u8> {
        let mut packet = vec![0x45, class, 0, 20, 0, 1, 0, 0, 64, 6, 0, 0];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        let checksum = !checksum::sum(&packet);
        write16(&mut packet, IPV4_CHECKSUM, checksum);
        packet
    }

    fn v6(class: u8) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[..4].copy_from_slice(&(6 << 28 | u32::from(class) << 20 | 0xabcde).to_be_bytes());
        packet
    }

    fn framed(packet: &[u8], ethertype: u16) -> Vec<u8> {
        let tag = [0x81, 0, 0, 5];
        [&[2; 12], &tag[..], &ethertype.to_be_bytes(), packet].concat()
    }

    #[test]
    fn a_mark_changes_the_field_and_the_checksum_and_nothing_else() {
        for outer in [NotEct, Ect0, Ect1, Ce] {
            for class in 0..=u8::MAX {
                let Ok(after) = Ecn::of_class(class).after(outer) else {
                    continue;
                };
                let wanted = class & !MASK | after as u8;
                for (layer, mut packet, expected) in [
                    (Layer::Ip, v4(class), v4(wanted)),
                    (Layer::Ip, v6(class), v6(wanted)),
                    (
                        Layer::Ethernet,
                        framed(&v4(class), 0x0800),
                        framed(&v4(wanted), 0x0800),
                    ),
                    (
                        Layer::Ethernet,
                        framed(&v6(class), 0x86dd),
                        framed(&v6(wanted), 0x86dd),
                    ),
                ] {
                    assert_eq!(Ecn::of(layer, &packet), Ecn::of_class(class));
                    assert_eq!(outer.mark(layer, &mut packet), Ok(()));
                    assert_eq!(packet, expected, "{outer:?} on {class:#04x}");
                }
            }
        }
    }

    #[test]
    fn a_packet_that_is_not_capable_is_to_be_dropped_and_other_than_ip_stays() {
        for mut packet in [v4(0), v6(0)] {
            assert_eq!(Ce.mark(Layer::Ip, &mut packet), Err(NotCapable));
        }
        let arp = framed(&[0; 28], 0x0806);
        let mut marked = arp.clone();
        assert_eq!(Ce.mark(Layer::Ethernet, &mut marked), Ok(()));
        assert_eq!(marked, arp);
    }

    #[test]
    fn what_is_cut_short_is_no_packet() {
        for packet in [v4(2), v6(2)] {
            for len in 0..packet.len() {
                let _ = Ce.mark(Layer::Ip, &mut packet[..len].to_vec());
                let _ = Ce.mark(
                    Layer::Ethernet,
                    &mut framed(&packet, 0x0800)[..len].to_vec(),
                );
            }
        }
    }
}
