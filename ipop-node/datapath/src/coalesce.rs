//! The packets of one flow, found among those that came out of records, to be written to the
//! device as one super-packet.
//!
//! The payload stays where it is: a group is a [`VnetHdr`], the whole first packet and the payloads
//! of the following ones, for one `writev`. Only what could be cut into the very same packets again
//! is put together, much as Linux does (`tcp_gro_receive`, `udp_gro_receive`), with two differences:
//! a FIN is never put together with anything, and with DF set the identification may be any, since
//! it has no meaning then (RFC 6864 section 4.1).

mod draft;
mod flow;
mod train;

use std::ops::Range;

use crate::inet::{Headers, Layer, Transport, Unreadable};
use crate::segment::Sum;
use crate::vnet::VnetHdr;
use draft::Draft;
use flow::Flow;
use train::Train;

/// Flows that are put together at the same time.
const MAX_OPEN: usize = 16;

/// What the device takes (`TUNSETOFFLOAD`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Super-packets of TCP, over IPv4 and IPv6.
    pub tcp: bool,
    /// Super-packets of UDP.
    pub udp: bool,
    /// Packets without their transport checksum. Nothing is put together without this.
    pub sums: bool,
}

/// What is written to the device at once.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// The [`VnetHdr`], to be written first.
    pub header: [u8; VnetHdr::LEN],
    /// The parts of the buffer to be written then: the first packet, and the payloads of the others.
    pub ranges: &'a [Range<usize>],
    /// How many packets that is.
    pub packets: usize,
}

/// Puts packets together, one batch after the other: any number of [`add`](Self::add), one
/// [`finish`](Self::finish), [`groups`](Self::groups), [`clear`](Self::clear).
///
/// Groups come in the order of their first packets, and no packet is in a group before that of an
/// earlier packet of its flow.
#[derive(Debug)]
pub struct Coalescer {
    layer: Layer,
    offload: Offload,
    drafts: Vec<Draft>,
    packets: Vec<Packet>,
    open: Vec<Open>,
    ranges: Vec<Range<usize>>,
}

/// What is to be written of a packet, and in which draft.
#[derive(Debug)]
struct Packet {
    range: Range<usize>,
    draft: usize,
}

/// A draft that the flow's next packet may be added to.
#[derive(Debug)]
struct Open {
    flow: Flow,
    /// Where the packets of the draft have their transport header.
    transport_at: usize,
    draft: usize,
}

impl Open {
    /// Whether `packet` has the ports of the flow, if it has its ports where that has them. Most
    /// packets of other flows have not.
    #[inline]
    fn may_have(&self, packet: &[u8]) -> bool {
        packet
            .get(self.transport_at..)
            .and_then(<[u8]>::first_chunk)
            == Some(&self.flow.ports())
    }
}

impl Coalescer {
    /// One for a device of that kind.
    #[must_use]
    pub fn new(layer: Layer, offload: Offload) -> Self {
        Self {
            layer,
            offload,
            drafts: Vec::new(),
            packets: Vec::new(),
            open: Vec::with_capacity(MAX_OPEN),
            ranges: Vec::new(),
        }
    }

    /// Adds the packet at `packet` in `buffer`.
    ///
    /// With [`Sum::Complete`] its checksum is verified before it is put together with another one,
    /// and a packet whose checksum is wrong goes through alone and as it is. With [`Sum::Partial`]
    /// whoever sent it is trusted.
    ///
    /// # Panics
    /// When the range is not in the buffer.
    #[inline]
    pub fn add(&mut self, buffer: &[u8], packet: Range<usize>, sum: Sum) {
        let bytes = &buffer[packet.clone()];
        // From the newest, which it is most often.
        for (at, open) in self.open.iter().enumerate().rev() {
            if !open.may_have(bytes) {
                continue;
            }
            let draft = &mut self.drafts[open.draft];
            if let Some(payload_at) = draft.take(&open.flow, buffer, bytes, sum) {
                let range = packet.start + payload_at..packet.end;
                self.packets.push(Packet {
                    range,
                    draft: open.draft,
                });
                if !draft.is_open() {
                    self.open.remove(at);
                }
                return;
            }
        }
        self.add_first(bytes, packet, sum);
    }

    /// Ends the batch: fixes up the headers of every group in `buffer`. To be called once for each
    /// batch, with the buffer that its packets were added from.
    pub fn finish(&mut self, buffer: &mut [u8]) {
        self.open.clear();
        let mut first_range = 0;
        for draft in &mut self.drafts {
            draft.seal(buffer, self.offload.sums);
            draft.next_range = first_range;
            first_range += draft.packets();
        }
        self.ranges.resize(self.packets.len(), 0..0);
        for Packet { range, draft } in self.packets.drain(..) {
            let draft = &mut self.drafts[draft];
            self.ranges[draft.next_range] = range;
            draft.next_range += 1;
        }
    }

    /// What is to be written, after [`finish`](Self::finish).
    pub fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.drafts.iter().map(|draft| Group {
            header: draft.header,
            ranges: &self.ranges[draft.next_range - draft.packets()..draft.next_range],
            packets: draft.packets(),
        })
    }

    /// Makes ready for the next batch.
    pub fn clear(&mut self) {
        self.drafts.clear();
        self.packets.clear();
        self.open.clear();
        self.ranges.clear();
    }

    /// Adds a packet that follows none of those that are open. Closes those that a later packet must
    /// not be added to any more, since it would overtake this one.
    fn add_first(&mut self, bytes: &[u8], packet: Range<usize>, sum: Sum) {
        let headers = match Headers::parse(self.layer, bytes) {
            Ok(headers) => headers,
            Err(reason) => {
                // Whose packet that is cannot be told, so that it may be anybody's.
                if reason != Unreadable::NotIp {
                    self.open.clear();
                }
                self.push(packet.clone(), Draft::alone(packet, None, sum));
                return;
            }
        };
        let is_offloaded = match headers.transport {
            Transport::Tcp => self.offload.tcp,
            Transport::Udp => self.offload.udp,
            Transport::Fragment | Transport::Broken => {
                // Of a flow whose ports are not known.
                self.open
                    .retain(|open| !open.flow.has_addresses(&headers, bytes));
                false
            }
            Transport::Other => false,
        };
        if is_offloaded && self.offload.sums {
            let flow = Flow::of(&headers, bytes);
            if let Some(at) = self.open.iter().rposition(|open| open.flow.is(&flow)) {
                self.open.remove(at);
            }
            if let Some(train) = Train::starting(&headers, bytes, sum) {
                self.start(packet, flow, train);
                return;
            }
        }
        self.push(packet.clone(), Draft::alone(packet, Some(&headers), sum));
    }

    #[inline]
    fn start(&mut self, packet: Range<usize>, flow: Flow, train: Train) {
        if train.is_open() {
            if self.open.len() == MAX_OPEN {
                self.open.remove(0);
            }
            let transport_at = train.headers().transport_at;
            self.open.push(Open {
                flow,
                transport_at,
                draft: self.drafts.len(),
            });
        }
        self.push(packet.clone(), Draft::starting(packet, train));
    }

    #[inline]
    fn push(&mut self, packet: Range<usize>, draft: Draft) {
        self.packets.push(Packet {
            range: packet,
            draft: self.drafts.len(),
        });
        self.drafts.push(draft);
    }
}

/// Writes the transport checksum of a packet that has the sum of its pseudo-header only: for whoever
/// looks into it, or does not trust the record that it came in.
pub fn complete_sum(layer: Layer, packet: &mut [u8]) {
    let mut coalescer = Coalescer::new(layer, Offload::default());
    coalescer.add(packet, 0..packet.len(), Sum::Partial);
    coalescer.finish(packet);
}
