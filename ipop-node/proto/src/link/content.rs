//! What the records carry that a link opens itself: those that arrive while it comes up, while its
//! keys change, or through a relay without a channel. All others are opened by the threads of the
//! data path; a packet whose pieces are opened by both comes together all the same.

use bytes::BytesMut;
use ipop_datapath::coalesce::complete_sum;
use ipop_datapath::envelope::{ENVELOPE, Envelope, Kind};
use ipop_datapath::inet::Layer;

use super::{Link, LinkEvent, MAX_EVENTS};
use crate::status::DropReason;

/// What came out of a record.
pub(super) struct Content {
    /// The record's sequence number.
    pub(super) sequence: u64,
    pub(super) envelope: Envelope,
    pub(super) bytes: BytesMut,
}

impl Link {
    /// Tells what a record carried, or what has come together with it.
    pub(super) fn take(&mut self, content: Content) {
        if let Err(reason) = self.tell(content) {
            *self.drops.entry(reason).or_default() += 1;
        }
    }

    fn tell(&mut self, content: Content) -> Result<(), DropReason> {
        let Content {
            sequence,
            envelope,
            mut bytes,
        } = content;
        if envelope.kind == Kind::Fragment {
            let taken = self.fragments.take(sequence, &bytes);
            let Some(whole) = taken.map_err(|_| DropReason::Malformed)? else {
                return Ok(());
            };
            return self.tell(Content {
                sequence,
                envelope: Envelope::read(&whole).ok_or(DropReason::UnknownContent)?,
                bytes: BytesMut::from(&whole[ENVELOPE..]),
            });
        }
        if self.events.len() >= MAX_EVENTS {
            return Err(DropReason::QueueFull);
        }
        let mut complete = |layer| {
            if envelope.partial_sum {
                complete_sum(layer, &mut bytes);
            }
        };
        let event = match envelope.kind {
            Kind::Packet => {
                complete(Layer::Ip);
                LinkEvent::Packet(bytes)
            }
            Kind::Frame => {
                complete(Layer::Ethernet);
                LinkEvent::Frame(bytes)
            }
            Kind::Message => LinkEvent::Message(bytes),
            Kind::Control => LinkEvent::Control(bytes),
            Kind::Nothing | Kind::Fragment => return Ok(()),
        };
        self.events.push_back(event);
        Ok(())
    }
}
