//! What does not fit a datagram, in pieces.
//!
//! A data record of [`Kind::Fragment`](crate::envelope::Kind::Fragment) has after its envelope
//! `id (2) · index (1) · count (1)` and a piece of what another record would have carried,
//! envelope included. All pieces but the last have the same length. The fragments of one packet
//! have one `id`; nothing is asked for again.

use std::ops::Range;

/// Bytes in front of a piece, after the envelope.
pub const FRAGMENT_HEADER: usize = 4;
/// Bytes of one datagram's content that pass on a path with an MTU of 1500 B, over IPv6 (48 B) and
/// in a TURN channel (4 B), sealed with AES-GCM (37 B).
pub const PATH_CONTENT: usize = 1500 - 48 - 4 - 37;
/// Most pieces: a packet of 9000 bytes, and some.
pub const MAX_PIECES: usize = 16;
/// Packets of one peer that are put together at the same time.
const OPEN: usize = 8;

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

/// One peer's packets that are not whole yet.
#[derive(Debug, Default)]
pub struct Reassembly {
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    id: u16,
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
    /// Takes a piece, and gives the whole when it was the last one missing. Packets that lack a
    /// piece give way to newer ones.
    ///
    /// # Errors
    ///
    /// When it contradicts the pieces that came before; these are dropped with it.
    pub fn add(&mut self, header: FragmentHeader, piece: &[u8]) -> Result<Option<Vec<u8>>, Misfit> {
        let at = match self.open.iter().position(|open| open.id == header.id) {
            Some(at) => at,
            None => {
                if self.open.len() == OPEN {
                    self.open.remove(0);
                }
                self.open.push(Open::new(header));
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
    fn new(header: FragmentHeader) -> Self {
        Self {
            id: header.id,
            count: header.count,
            have: 0,
            piece_len: 0,
            last_len: 0,
            bytes: Vec::new(),
        }
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
        assert_eq!(reassembly.add(header(1, 0, 3), &[1; 10]), Ok(None));
        assert_eq!(reassembly.add(header(1, 1, 3), &[1; 11]), Err(Misfit));
        assert_eq!(reassembly.add(header(1, 0, 3), &[1; 10]), Ok(None));
        assert_eq!(reassembly.add(header(1, 0, 3), &[1; 10]), Err(Misfit));
        assert_eq!(reassembly.add(header(1, 1, 2), &[1; 11]), Ok(None));
        assert_eq!(
            reassembly.add(header(1, 0, 2), &[1; 10]),
            Err(Misfit),
            "last longer"
        );
        assert_eq!(reassembly.add(header(2, 0, 2), &[]), Err(Misfit));
        assert_eq!(FragmentHeader::read(&[0, 1, 2, 2]), None);
        assert_eq!(FragmentHeader::read(&[0, 1, 0, 17]), None);
    }

    #[test]
    fn packets_that_lack_a_piece_give_way() {
        let mut reassembly = Reassembly::default();
        for id in 0..1000 {
            assert_eq!(reassembly.add(header(id, 0, 2), &[1; 700]), Ok(None));
        }
        assert_eq!(reassembly.open.len(), OPEN);
        let whole = reassembly.add(header(999, 1, 2), &[2; 600]).expect("fits");
        assert_eq!(whole, Some([&[1; 700][..], &[2; 600]].concat()));
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
                whole = reassembly.add(header, &bytes[pieces.range(*index)]).expect("fits");
                prop_assert_eq!(whole.is_some(), n + 1 == pieces.count);
            }
            prop_assert_eq!(whole, Some(bytes));
        }
    }
}
