//! Where what goes to peers is sealed, whole or in pieces.

use std::sync::Arc;

use ipop_datapath::ecn::Ecn;
use ipop_datapath::envelope::{ENVELOPE, Envelope, Kind};
use ipop_datapath::fragment::{FRAGMENT_HEADER, FragmentHeader, PATH_CONTENT, Pieces};
use ipop_proto::status::DropReason;

use super::batch::Batches;
use super::map::Way;
use super::uplink::Uplinks;

const FRAGMENT: Envelope = Envelope {
    kind: Kind::Fragment,
    partial_sum: false,
};

/// Seals for one thread.
pub struct Sealer {
    /// Which of the sockets of one address is this thread's.
    number: usize,
    batches: Batches,
    /// Where a packet is written first that goes in pieces.
    whole: Vec<u8>,
}

impl Sealer {
    /// For the thread of that number.
    pub fn new(number: usize) -> Self {
        Self {
            number,
            batches: Batches::new(Uplinks::default()),
            whole: Vec::new(),
        }
    }

    /// Seals content of `len` bytes, envelope included, as one record or as several. `write` writes
    /// it; datagrams have the field `ecn`.
    pub fn seal(
        &mut self,
        way: &Arc<Way>,
        ecn: Ecn,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), DropReason> {
        if len > PATH_CONTENT {
            return self.seal_pieces(way, len, write);
        }
        let socket = &way.sockets[self.number % way.sockets.len()];
        self.batches.seal(socket, way, ecn, len, write)
    }

    /// Seals content as several records, none larger than a path takes. Congestion may not be marked
    /// on these: the receiver would have to remember it until it has all of them.
    fn seal_pieces(
        &mut self,
        way: &Arc<Way>,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), DropReason> {
        let room = PATH_CONTENT - ENVELOPE - FRAGMENT_HEADER;
        let pieces = Pieces::of(len, room).ok_or(DropReason::TooBig)?;
        self.whole.resize(len, 0);
        write(&mut self.whole);
        let id = way.path.fragments.next_id();
        let socket = &way.sockets[self.number % way.sockets.len()];
        for at in 0..pieces.count {
            let piece = &self.whole[pieces.range(at)];
            let header = FragmentHeader {
                id,
                index: at as u8,
                count: pieces.count as u8,
            };
            let content_len = ENVELOPE + FRAGMENT_HEADER + piece.len();
            let ecn = Ecn::NotEct;
            self.batches
                .seal(socket, way, ecn, content_len, |content| {
                    content[..ENVELOPE].copy_from_slice(&FRAGMENT.bytes());
                    content[ENVELOPE..][..FRAGMENT_HEADER].copy_from_slice(&header.bytes());
                    content[ENVELOPE + FRAGMENT_HEADER..].copy_from_slice(piece);
                })?;
        }
        Ok(())
    }

    /// Sends what is sealed.
    pub fn flush(&mut self) {
        self.batches.flush();
    }

    /// What waits for the kernel.
    pub fn uplinks(&mut self) -> &mut Uplinks {
        self.batches.uplinks()
    }
}
