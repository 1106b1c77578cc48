//! A group while packets are added to it.

use std::ops::Range;

use super::flow::Flow;
use super::train::Train;
use crate::checksum::sum;
use crate::inet::Headers;
use crate::segment::{Sum, or_negative_zero};
use crate::vnet::VnetHdr;
use crate::word::write16;

/// One packet, or more of one flow.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) header: [u8; VnetHdr::LEN],
    /// Where its next range goes in the list of all.
    pub(super) next_range: usize,
    /// Where the first packet is.
    first: Range<usize>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// One packet that is not to be touched.
    Plain,
    /// One packet whose checksum is yet to be made, by the device or here.
    Unsummed(Headers),
    /// Packets that are or may be followed by others.
    Train(Train),
}

impl Draft {
    /// For a packet that nothing can be added to.
    #[inline]
    pub(super) fn alone(packet: Range<usize>, headers: Option<&Headers>, sum: Sum) -> Self {
        let kind = match headers {
            Some(headers) if sum == Sum::Partial && headers.checksum_offset().is_some() => {
                Kind::Unsummed(*headers)
            }
            _ => Kind::Plain,
        };
        Self {
            header: [0; VnetHdr::LEN],
            next_range: 0,
            first: packet,
            kind,
        }
    }

    /// For a packet that others may be added to.
    #[inline]
    pub(super) fn starting(packet: Range<usize>, train: Train) -> Self {
        Self {
            header: [0; VnetHdr::LEN],
            next_range: 0,
            first: packet,
            kind: Kind::Train(train),
        }
    }

    #[inline]
    pub(super) const fn packets(&self) -> usize {
        match &self.kind {
            Kind::Plain | Kind::Unsummed(_) => 1,
            Kind::Train(train) => train.packets(),
        }
    }

    /// Whether the flow's next packet may be added.
    #[inline]
    pub(super) const fn is_open(&self) -> bool {
        matches!(&self.kind, Kind::Train(train) if train.is_open())
    }

    /// Adds `packet` if it is the flow's next and can be added. Says where its payload is.
    #[inline]
    pub(super) fn take(
        &mut self,
        flow: &Flow,
        buffer: &[u8],
        packet: &[u8],
        sum: Sum,
    ) -> Option<usize> {
        let Kind::Train(train) = &mut self.kind else {
            return None;
        };
        let first = &buffer[self.first.clone()];
        train
            .take(flow, first, packet, sum)
            .then(|| train.headers().payload_at)
    }

    /// Nothing is added any more: makes the header, and the first packet's headers what they are to
    /// be. `device_sums` says whether the device makes checksums.
    #[inline]
    pub(super) fn seal(&mut self, buffer: &mut [u8], device_sums: bool) {
        let packet = &mut buffer[self.first.clone()];
        let header = match &self.kind {
            Kind::Train(train) if train.packets() > 1 => train.seal(packet),
            Kind::Train(train) if train.sum() == Sum::Partial => {
                unsummed(packet, train.headers(), device_sums)
            }
            Kind::Unsummed(headers) => unsummed(packet, headers, device_sums),
            Kind::Plain | Kind::Train(_) => return,
        };
        self.header = header.to_bytes();
    }
}

/// The header of a lone packet with the sum of its pseudo-header, or else the checksum itself.
fn unsummed(packet: &mut [u8], headers: &Headers, device_sums: bool) -> VnetHdr {
    let (Some(csum_offset), Ok(csum_start)) = (
        headers.checksum_offset(),
        u16::try_from(headers.transport_at),
    ) else {
        return VnetHdr::default();
    };
    if device_sums {
        return VnetHdr {
            needs_csum: true,
            csum_start,
            csum_offset,
            ..VnetHdr::default()
        };
    }
    let segment = &mut packet[headers.transport_at..headers.end];
    let checksum = or_negative_zero(!sum(segment));
    write16(segment, usize::from(csum_offset), checksum);
    VnetHdr::default()
}
