//! What does not fit a datagram, in pieces.
//!
//! A data record of [`Kind::Fragment`](crate::envelope::Kind::Fragment) has after its envelope
//! `id (2) · index (1) · count (1)` and a piece of what another record would have carried,
//! envelope included. All pieces but the last have the same length. The fragments of one packet
//! have one `id`; nothing is asked for again.
//!
//! At some 10^5 packets per second an `id` comes again within a second, and a piece whose others
//! were lost would be completed with those of another packet (RFC 4963), which the record vouches
//! for. The records' sequence numbers do not come again, and tell the packets apart.

use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::envelope::{Envelope, Kind};

/// Bytes in front of a piece, after the envelope.
pub const FRAGMENT_HEADER: usize = 4;
/// Bytes of one datagram's content that pass on a path with an MTU of 1500 B, over IPv6 (48 B) and
/// in a TURN channel (4 B), sealed with AES-GCM (37 B).
pub const PATH_CONTENT: usize = 1500 - 48 - 4 - 37;
/// Most pieces: a packet of 9000 bytes, and some.
pub const MAX_PIECES: usize = 16;
/// Packets of one peer that are put together at the same time.
const OPEN: usize = 8;
/// Pieces of one packet have sequence numbers that are closer than this: they are sealed one after
/// the other, with what other threads seal in between. An `id` comes again after 2^16 packets, and
/// those took two numbers each at the least.
const NEAR: u64 = 1 << 16;

/// How something is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pieces {
    /// How many.
    pub count: usize,
    /// Bytes of every piece but the last.
    pub piece_len: usize,
    len: usize,
}

impl Pieces {
    /// How `len` bytes are cut when a record may carry `room`, its envelope and
    /// [`FRAGMENT_HEADER`] not counted; `None` when that would be too many pieces.
    pub fn of(len: usize, room: usize) -> Option<Self> {
        let count = len.div_ceil(room.max(1)).max(1);
        // Even pieces leave as datagrams of one size.
        (count <= MAX_PIECES).then(|| Self {
            count,
            piece_len: len.div_ceil(count),
            len,
        })
    }

    /// Where piece `index` is.
    pub fn range(&self, index: usize) -> Range<usize> {
        let start = (index * self.piece_len).min(self.len);
        start..(start + self.piece_len).min(self.len)
    }
}

/// The fields in front of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Of which packet.
    pub id: u16,
    /// Which piece.
    pub index: u8,
    /// Of how many.
    pub count: u8,
}

impl FragmentHeader {
    /// The bytes.
    pub const fn bytes(self) -> [u8; FRAGMENT_HEADER] {
        let [high, low] = self.id.to_be_bytes();
        [high, low, self.index, self.count]
    }

    /// Reads the fields; `None` when they contradict each other.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let [high, low, index, count] = *bytes.first_chunk()?;
        let is_sound = index < count && usize::from(count) <= MAX_PIECES;
        is_sound.then_some(Self {
            id: u16::from_be_bytes([high, low]),
            index,
            count,
        })
    }
}

/// One link's packets in pieces, both ways. Shared by everybody who seals or opens its records.
#[derive(Debug, Default)]
pub struct Fragments {
    next_id: AtomicU16,
    arrived: Mutex<Reassembly>,
}

impl Fragments {
    /// An `id` for the next packet that goes in pieces.
    pub fn next_id(&self) -> u16 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes what a record with this sequence number carried after its envelope, and gives the
    /// whole, with an envelope of its own, when it was the last piece missing.
    ///
    /// # Errors
    ///
    /// When it is no piece or contradicts the others, or the whole is itself a piece.
    pub fn take(&self, sequence: u64, fragment: &[u8]) -> Result<Option<Vec<u8>>, Misfit> {
        let header = FragmentHeader::read(fragment).ok_or(Misfit)?;
        // What is put together is whole whatever happened to whoever held it.
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = arrived.add(sequence, header, &fragment[FRAGMENT_HEADER..])?;
        let envelope = whole.as_deref().and_then(Envelope::read);
        match envelope {
            Some(envelope) if envelope.kind == Kind::Fragment => Err(Misfit),
            _ => Ok(whole),
        }
    }
}

/// One peer's packets that are not whole yet.
#[derive(Debug, Default)]
pub struct Reassembly {
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    id: u16,
    /// Of the piece that came first.
    sequence: u64,
    count: u8,
    /// Bit `i` is piece `i`.
    have: u16,
    piece_len: usize,
    last_len: usize,
    bytes: Vec<u8>,
}

/// A piece does not fit what came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fragment that does not fit the others")]
pub struct Misfit;

impl Reassembly {
    /// Takes a piece that came in a record with this sequence number, and gives the whole when it
    /// was the last one missing. Packets that lack a piece give way to newer ones.
    ///
    /// # Errors
    ///
    /// When it contradicts the pieces that came before; these are dropped with it.
    pub fn add(
        &mut self,
        sequence: u64,
        header: FragmentHeader,
        piece: &[u8],
    ) -> Result<Option<Vec<u8>>, Misfit> {
        let is_its = |open: &Open| open.is_of(sequence, header.id);
        let at = match self.open.iter().position(is_its) {
            Some(at) => at,
            None => {
                if self.open.len() == OPEN {
                    self.open.remove(0);
                }
                self.open.push(Open::new(sequence, header));
                self.open.len() - 1
            }
        };
        match self.open[at].add(header, piece) {
            Ok(false) => Ok(None),
            Ok(true) => Ok(Some(self.open.remove(at).bytes)),
            Err(misfit) => {
                self.open.remove(at);
                Err(misfit)
            }
        }
    }
}

impl Open {
    fn new(sequence: u64, header: FragmentHeader) -> Self {
        Self {
            id: header.id,
            sequence,
            count: header.count,
            have: 0,
            piece_len: 0,
            last_len: 0,
            bytes: Vec::new(),
        }
    }

    fn is_of(&self, sequence: u64, id: u16) -> bool {
        self.id == id && self.sequence.abs_diff(sequence) < NEAR
    }

    /// Whether all are there.
    fn add(&mut self, header: FragmentHeader, piece: &[u8]) -> Result<bool, Misfit> {
        let bit = 1_u16.checked_shl(u32::from(header.index)).ok_or(Misfit)?;
        let is_last = header.index + 1 == header.count;
        if header.count != self.count
            || self.have & bit != 0
            || piece.is_empty()
            || piece.len() > PATH_CONTENT
        {
            return Err(Misfit);
        }
        if is_last {
            self.last_len = piece.len();
        } else if self.piece_len == 0 {
            self.piece_len = piece.len();
        } else if self.piece_len != piece.len() {
            return Err(Misfit);
        }
        self.have |= bit;
        // Until another piece has shown how long they are, the last one waits at the start.
        let room = usize::from(self.count) * PATH_CONTENT;
        self.bytes.resize(room, 0);
        let at = if is_last && self.count > 1 {
            room - piece.len()
        } else {
            usize::from(header.index) * self.piece_len
        };
        self.bytes[at..at + piece.len()].copy_from_slice(piece);
        if self.have.count_ones() != u32::from(self.count) {
            return Ok(false);
        }
        if self.count > 1 {
            if self.last_len > self.piece_len {
                return Err(Misfit);
            }
            let start = usize::from(self.count - 1) * self.piece_len;
            self.bytes.copy_within(room - self.last_len.., start);
            self.bytes.truncate(start + self.last_len);
        } else {
            self.bytes.truncate(self.last_len);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(id: u16, index: usize, count: usize) -> FragmentHeader {
        FragmentHeader {
            id,
            index: index as u8,
            count: count as u8,
        }
    }

    #[test]
    fn a_frame_of_a_lan_is_cut_into_two_even_pieces() {
        let room = PATH_CONTENT - 2 - FRAGMENT_HEADER;
        let pieces = Pieces::of(1518 + 2, room).expect("few");
        assert_eq!((pieces.count, pieces.piece_len), (2, 760));
        assert_eq!(Pieces::of(room, room).expect("few").count, 1);
        assert_eq!(Pieces::of(MAX_PIECES * room + 1, room), None);
    }

    #[test]
    fn pieces_that_contradict_each_other_are_refused() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.add(9, header(1, 0, 3), &[1; 10]), Ok(None));
        assert_eq!(reassembly.add(9, header(1, 1, 3), &[1; 11]), Err(Misfit));
        assert_eq!(reassembly.add(9, header(1, 0, 3), &[1; 10]), Ok(None));
        assert_eq!(reassembly.add(9, header(1, 0, 3), &[1; 10]), Err(Misfit));
        assert_eq!(reassembly.add(9, header(1, 1, 2), &[1; 11]), Ok(None));
        assert_eq!(
            reassembly.add(9, header(1, 0, 2), &[1; 10]),
            Err(Misfit),
            "last longer"
        );
        assert_eq!(reassembly.add(9, header(2, 0, 2), &[]), Err(Misfit));
        assert_eq!(FragmentHeader::read(&[0, 1, 2, 2]), None);
        assert_eq!(FragmentHeader::read(&[0, 1, 0, 17]), None);
    }

    #[test]
    fn packets_that_lack_a_piece_give_way() {
        let mut reassembly = Reassembly::default();
        for id in 0..1000 {
            assert_eq!(reassembly.add(9, header(id, 0, 2), &[1; 700]), Ok(None));
        }
        assert_eq!(reassembly.open.len(), OPEN);
        let whole = reassembly
            .add(9, header(999, 1, 2), &[2; 600])
            .expect("fits");
        assert_eq!(whole, Some([&[1; 700][..], &[2; 600]].concat()));
    }

    /// What came first and lost a piece is never completed by a packet that has the same `id`, nor
    /// in the way of it.
    #[test]
    fn an_id_that_comes_again_is_another_packets() {
        let mut reassembly = Reassembly::default();
        let mut sequence = 7_u64 << 32;
        assert_eq!(
            reassembly.add(sequence, header(5, 1, 2), &[1; 600]),
            Ok(None)
        );
        for packet in 2..5 {
            sequence += 2 << 16;
            let first = reassembly.add(sequence, header(5, 0, 2), &[packet; 700]);
            assert_eq!(first, Ok(None), "packet {packet}");
            let whole = reassembly.add(sequence + 1, header(5, 1, 2), &[packet; 600]);
            assert_eq!(whole, Ok(Some(vec![packet; 1300])));
        }
    }

    #[test]
    fn numbers_of_packets_are_given_out_once() {
        let fragments = Fragments::default();
        let ids: Vec<_> = (0..1000).map(|_| fragments.next_id()).collect();
        assert!(ids.iter().copied().eq(0..1000));
    }

    #[test]
    fn a_piece_of_a_piece_is_refused_and_a_later_versions_whole_is_not() {
        for (kind, taken) in [(3, false), (2, true), (99, true)] {
            let fragments = Fragments::default();
            let piece =
                |index: u8, body: &[u8]| [&header(1, index.into(), 2).bytes()[..], body].concat();
            assert_eq!(fragments.take(1, &piece(0, &[kind, 0, 1])), Ok(None));
            let whole = fragments.take(2, &piece(1, &[2, 3]));
            assert_eq!(whole.is_ok(), taken, "{kind}");
        }
        assert_eq!(Fragments::default().take(1, &[0, 1, 0]), Err(Misfit));
    }

    proptest! {
        #[test]
        fn what_is_cut_comes_together_in_whatever_order(
            len in 1_usize..9100,
            order in any::<prop::sample::Index>(),
        ) {
            let bytes: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            let pieces = Pieces::of(len, PATH_CONTENT - 6).expect("few");
            let mut indexes: Vec<_> = (0..pieces.count).collect();
            indexes.rotate_left(order.index(pieces.count));
            if order.index(2) == 1 {
                indexes.reverse();
            }
            let mut reassembly = Reassembly::default();
            let mut whole = None;
            for (n, index) in indexes.iter().enumerate() {
                prop_assert!(whole.is_none());
                let header = header(7, *index, pieces.count);
                prop_assert_eq!(FragmentHeader::read(&header.bytes()), Some(header));
                whole = reassembly
                    .add(n as u64, header, &bytes[pieces.range(*index)])
                    .expect("fits");
                prop_assert_eq!(whole.is_some(), n + 1 == pieces.count);
            }
            prop_assert_eq!(whole, Some(bytes));
        }
    }
}
