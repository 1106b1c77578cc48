//! What switches say to each other over their links.
//!
//! | Byte | Meaning |
//! |---|---|
//! | 0 | version, 1 |
//! | 1 | what follows: 0 question, 1 here, 2 not here, 3 flush, 4 behind |
//! | 2–9 | station: VLAN (2), address (6); all zero in a flush |
//! | 2–17 | instead, in the last one: a node; all zero for none |
//!
//! The link that a message comes over says whose it is.

use bytes::Bytes;
use ipop_datapath::stations::{Mac, Station, VlanId, is_station};

use super::probe::NodeId;

const VERSION: u8 = 1;
/// Bytes of the longest message.
pub const LONGEST: usize = HEADER + 16;
const HEADER: usize = 2;
const STATION: usize = 8;
const NOBODY: NodeId = NodeId([0; 16]);

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Is the station on your LAN?
    WhoHas(Station),
    /// It is.
    Here(Station),
    /// It is not, as far as is known.
    NotHere(Station),
    /// No station is behind the sender any more: forget those that were.
    Flush,
    /// The sender does not forward for its LAN, and the named node does: frames of the sender's machine
    /// come from there. None: it knows of no other.
    Behind(Option<NodeId>),
}

impl Message {
    /// The bytes.
    pub fn bytes(self) -> Bytes {
        let mut bytes = vec![VERSION];
        let (kind, station) = match self {
            Self::WhoHas(station) => (0, station),
            Self::Here(station) => (1, station),
            Self::NotHere(station) => (2, station),
            Self::Flush => (3, Station::from([0; 6])),
            Self::Behind(node) => {
                bytes.push(4);
                bytes.extend(node.unwrap_or(NOBODY).0);
                return bytes.into();
            }
        };
        bytes.push(kind);
        bytes.extend(station.vlan.to_be_bytes());
        bytes.extend(station.mac);
        bytes.into()
    }

    /// Reads a message; `None` for one of a later version, or one that says nothing.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let ([version, kind], rest) = bytes.split_first_chunk::<HEADER>()?;
        match kind {
            _ if *version != VERSION => None,
            0 => station(rest).map(Self::WhoHas),
            1 => station(rest).map(Self::Here),
            2 => station(rest).map(Self::NotHere),
            3 => (rest == [0; STATION]).then_some(Self::Flush),
            4 => {
                let node = NodeId(rest.try_into().ok()?);
                Some(Self::Behind(Some(node).filter(|node| *node != NOBODY)))
            }
            _ => None,
        }
    }
}

fn station(bytes: &[u8]) -> Option<Station> {
    let [high, low, a, b, c, d, e, f]: [u8; STATION] = bytes.try_into().ok()?;
    let vlan: VlanId = u16::from_be_bytes([high, low]);
    let mac: Mac = [a, b, c, d, e, f];
    (vlan < 0x1000 && is_station(mac)).then_some(Station { vlan, mac })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let station = Station {
            vlan: 0xfff,
            mac: [2, 1, 2, 3, 4, 5],
        };
        for message in [
            Message::WhoHas(station),
            Message::Here(station),
            Message::NotHere(station),
            Message::Flush,
            Message::Behind(None),
            Message::Behind(Some(NodeId([7; 16]))),
        ] {
            let bytes = message.bytes();
            assert_eq!(Message::read(&bytes), Some(message));
            assert_eq!(Message::read(&bytes[..bytes.len() - 1]), None);
            assert_eq!(Message::read(&[&bytes[..], &[0]].concat()), None);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_the_same(
            bytes in proptest::collection::vec(prop_oneof![0_u8..5, any::<u8>()], 0..20),
        ) {
            if let Some(message) = Message::read(&bytes) {
                prop_assert_eq!(&message.bytes()[..], &bytes[..]);
            }
        }
    }
}
