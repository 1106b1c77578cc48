//! What nodes say to each other about revocation lists, over their links.
//!
//! | Byte | Meaning |
//! |---|---|
//! | 0 | version, 1 |
//! | 1 | what follows: 0 tell, 1 told, 2 want, 3 piece |
//! | 2–33 | the authority: SHA-256 over its subjectPublicKeyInfo |
//! | 34–41 | number of the list; 0 for none |
//! | 42–45 | want and piece: where in the list's DER form, in bytes |
//! | 46–49 | piece: how long that form is |
//! | 50– | piece: what is there |
//!
//! The link that a message comes over says whose it is.

use crate::authority::AuthorityId;

const VERSION: u8 = 1;
/// Bytes of every message but a piece's and a want's.
const HEAD: usize = 42;
/// Bytes of a want.
const WANT: usize = 46;
/// Bytes of a piece before what it is a piece of.
const PIECE_HEAD: usize = 50;
/// Most bytes of a list in one message: it passes on every path in one datagram.
pub const PIECE: usize = 1024;

/// Names a list among all lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListId {
    /// Whose it is.
    pub authority: AuthorityId,
    /// Its number, 0 for none.
    pub number: u64,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// This is the newest that I have. Which do you have?
    Tell(ListId),
    /// This is the newest that I have.
    Told(ListId),
    /// Send me the list from here on.
    Want {
        /// Which.
        list: ListId,
        /// From where, in bytes.
        offset: u32,
    },
    /// A part of the list.
    Piece {
        /// Of which.
        list: ListId,
        /// Where it begins, in bytes.
        offset: u32,
        /// Bytes of the whole list.
        total: u32,
        /// The part.
        bytes: Vec<u8>,
    },
}

impl Message {
    /// The list that it is about.
    pub fn list(&self) -> ListId {
        match self {
            Self::Tell(list) | Self::Told(list) => *list,
            Self::Want { list, .. } | Self::Piece { list, .. } => *list,
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let kind = match self {
            Self::Tell(_) => 0,
            Self::Told(_) => 1,
            Self::Want { .. } => 2,
            Self::Piece { .. } => 3,
        };
        let ListId { authority, number } = self.list();
        let mut out = vec![VERSION, kind];
        out.extend(authority.0);
        out.extend(number.to_be_bytes());
        match self {
            Self::Tell(_) | Self::Told(_) => {}
            Self::Want { offset, .. } => out.extend(offset.to_be_bytes()),
            Self::Piece {
                offset,
                total,
                bytes,
                ..
            } => {
                out.extend(offset.to_be_bytes());
                out.extend(total.to_be_bytes());
                out.extend(bytes);
            }
        }
        out
    }

    /// Reads a message; `None` for one of a later version, or one that says nothing.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let [VERSION, kind] = *bytes.first_chunk::<2>()? else {
            return None;
        };
        let list = ListId {
            authority: AuthorityId(*bytes.get(2..)?.first_chunk()?),
            number: u64::from_be_bytes(*bytes.get(34..)?.first_chunk()?),
        };
        let word = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        match (kind, bytes.len()) {
            (0, HEAD) => Some(Self::Tell(list)),
            (1, HEAD) => Some(Self::Told(list)),
            (2, WANT) => Some(Self::Want {
                list,
                offset: word(HEAD)?,
            }),
            (3, len) if (PIECE_HEAD + 1..=PIECE_HEAD + PIECE).contains(&len) => Some(Self::Piece {
                list,
                offset: word(HEAD)?,
                total: word(WANT)?,
                bytes: bytes[PIECE_HEAD..].to_vec(),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written_and_no_other_length_is() {
        let list = ListId {
            authority: AuthorityId([7; 32]),
            number: 0x0102_0304_0506_0708,
        };
        let piece = |bytes: &[u8]| Message::Piece {
            list,
            offset: 1024,
            total: 5000,
            bytes: bytes.to_vec(),
        };
        for message in [
            Message::Tell(list),
            Message::Told(list),
            Message::Want { list, offset: 9 },
            piece(&[1]),
            piece(&[3; PIECE]),
        ] {
            let bytes = message.bytes();
            assert_eq!(Message::read(&bytes), Some(message.clone()));
            assert_ne!(Message::read(&bytes[..bytes.len() - 1]), Some(message));
            let mut later = bytes.clone();
            later[0] = 2;
            assert_eq!(Message::read(&later), None);
        }
        assert_eq!(Message::read(&piece(&[]).bytes()), None);
        assert_eq!(Message::read(&piece(&[0; PIECE + 1]).bytes()), None);
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_the_same(
            kind in 0_u8..5,
            rest in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let bytes = [&[VERSION, kind][..], &rest].concat();
            if let Some(message) = Message::read(&bytes) {
                prop_assert_eq!(message.bytes(), bytes);
            }
        }
    }
}
