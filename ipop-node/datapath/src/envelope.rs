//! The two bytes in front of what a data record carries: what it is, and how it is to be taken.
//!
//! Two bytes put the IP header of an Ethernet frame on a multiple of four.

/// Bytes of an envelope.
pub const ENVELOPE: usize = 2;

/// What a data record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: it shows that the sender is there and which key it uses.
    Nothing,
    /// An IP packet.
    Packet,
    /// An Ethernet frame, without its frame check sequence.
    Frame,
    /// A piece of a frame; see [`crate::fragment`].
    Fragment,
    /// What one switch tells another. What it says is not this crate's business.
    Message,
    /// What one node tells another, whatever they carry. What it says is not this crate's business.
    Control,
}

/// Envelope of a data record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// What follows.
    pub kind: Kind,
    /// The packet's transport checksum field has the sum of the pseudo-header only, as the sender
    /// had it from its kernel. The record vouches for the rest: whoever hands the packet on to a
    /// machine that does not trust the record completes the sum first.
    pub partial_sum: bool,
}

const PARTIAL_SUM: u8 = 1;

impl Envelope {
    /// The bytes.
    pub const fn bytes(self) -> [u8; ENVELOPE] {
        let kind = match self.kind {
            Kind::Nothing => 0,
            Kind::Packet => 1,
            Kind::Frame => 2,
            Kind::Fragment => 3,
            Kind::Message => 4,
            Kind::Control => 5,
        };
        [kind, if self.partial_sum { PARTIAL_SUM } else { 0 }]
    }

    /// Reads the envelope at the start of a record's content. Unknown kinds and flags are those of
    /// a later version: `None`.
    pub fn read(content: &[u8]) -> Option<Self> {
        let [kind, flags] = *content.first_chunk::<ENVELOPE>()?;
        let kind = match kind {
            0 => Kind::Nothing,
            1 => Kind::Packet,
            2 => Kind::Frame,
            3 => Kind::Fragment,
            4 => Kind::Message,
            5 => Kind::Control,
            _ => return None,
        };
        (flags & !PARTIAL_SUM == 0).then_some(Self {
            kind,
            partial_sum: flags & PARTIAL_SUM != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_read_as_it_was_written_and_others_are_refused() {
        let mut known = 0;
        for kind in 0..=u8::MAX {
            for flags in 0..=u8::MAX {
                if let Some(envelope) = Envelope::read(&[kind, flags, 9]) {
                    known += 1;
                    assert_eq!(envelope.bytes(), [kind, flags]);
                }
            }
        }
        assert_eq!(known, 12);
        assert_eq!(Envelope::read(&[1]), None);
    }
}
