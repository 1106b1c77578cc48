//! What switches say to each other over their links.
//!
//! | Byte | Meaning |
//! |---|---|
//! | 0 | version, 1 |
//! | 1 | what follows: 0 question, 1 here, 2 not here, 3 flush |
//! | 2–9 | station: VLAN (2), address (6); all zero in a flush |
//!
//! The link that a message comes over says whose it is.

use ipop_datapath::stations::{Mac, Station, VlanId, is_station};

const VERSION: u8 = 1;
/// Bytes of a message.
pub const MESSAGE: usize = 10;

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
}

impl Message {
    /// The bytes.
    pub fn bytes(self) -> [u8; MESSAGE] {
        let (kind, station) = match self {
            Self::WhoHas(station) => (0, station),
            Self::Here(station) => (1, station),
            Self::NotHere(station) => (2, station),
            Self::Flush => (3, Station::from([0; 6])),
        };
        let [high, low] = station.vlan.to_be_bytes();
        let [a, b, c, d, e, f] = station.mac;
        [VERSION, kind, high, low, a, b, c, d, e, f]
    }

    /// Reads a message; `None` for one of a later version, or one that says nothing.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let [version, kind, high, low, a, b, c, d, e, f] = *bytes.first_chunk::<MESSAGE>()?;
        let vlan: VlanId = u16::from_be_bytes([high, low]);
        let mac: Mac = [a, b, c, d, e, f];
        let is_sound = version == VERSION && bytes.len() == MESSAGE && vlan < 0x1000;
        let station = Station { vlan, mac };
        match kind {
            _ if !is_sound => None,
            0 if is_station(mac) => Some(Self::WhoHas(station)),
            1 if is_station(mac) => Some(Self::Here(station)),
            2 if is_station(mac) => Some(Self::NotHere(station)),
            3 if station == Station::from([0; 6]) => Some(Self::Flush),
            _ => None,
        }
    }
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
        ] {
            let bytes = message.bytes();
            assert_eq!(Message::read(&bytes), Some(message));
            assert_eq!(Message::read(&bytes[..MESSAGE - 1]), None);
            assert_eq!(Message::read(&[&bytes[..], &[0]].concat()), None);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_the_same(
            bytes in proptest::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..12),
        ) {
            if let Some(message) = Message::read(&bytes) {
                prop_assert_eq!(&message.bytes()[..], &bytes[..]);
            }
        }
    }
}
