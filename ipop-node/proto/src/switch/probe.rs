//! Probe frames: how a node says on its LAN that it is there.
//!
//! After the Ethernet header (destination [`PROBE_GROUP`], EtherType [`ETHERTYPE_PROBE`]):
//!
//! | Bytes | Field |
//! |---|---|
//! | 4 | `ipop` |
//! | 1 | version, 1 |
//! | 1 | standing |
//! | 2 | zero |
//! | 16 | node |
//! | 8 | run: a random number of each start of the node |
//! | 8 | sequence, from 1 in each run |
//! | 16 | HMAC-SHA-256 of all this, cut off (RFC 2104 section 5) |
//!
//! Probes are never forwarded over the overlay. The key is the overlay's: probes of other overlays on
//! the same LAN, and whatever others make up, mean nothing. A probe can be sent again by somebody
//! who saw it, once for each node that did not; on a LAN that is no more than can be done with ARP.

use std::fmt;

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use ipop_datapath::ethernet::{ETHERTYPE_PROBE, PROBE_GROUP};
use ipop_datapath::stations::Mac;
use thiserror::Error;

const MAGIC: [u8; 4] = *b"ipop";
const VERSION: u8 = 1;
const TAG: usize = 16;
const SIGNED: usize = 40;

/// Tells a node from all others of its overlay, and which of two stands down: the greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 16]);

impl NodeId {
    /// That of the node of this name: the same in each of its runs, and known to whoever knows the
    /// name.
    pub fn of_name(name: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, name.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&digest.as_ref()[..16]);
        Self(id)
    }

    /// The address that its probes come from. It is not that of its device, which a bridge has for its
    /// own and does not expect frames from.
    pub const fn mac(self) -> Mac {
        let [a, b, c, d, e, f, ..] = self.0;
        // Of one station, locally administered (IEEE 802 section 8.4).
        [a & 0xfc | 2, b, c, d, e, f]
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What the probes of one overlay are authenticated by.
#[derive(Clone)]
pub struct ProbeKey(hmac::Key);

impl ProbeKey {
    /// A key from a secret that every node of the overlay has. From a name that others know, too, it
    /// keeps overlays apart and nothing else.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

impl fmt::Debug for ProbeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeKey(..)")
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It carries no frames between its LAN and the overlay.
    Blocked,
    /// It does.
    Forwarding,
    /// It does not any more, and will not be heard of again.
    Leaving,
}

/// What a probe says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Whose it is.
    pub node: NodeId,
    /// Which run of the node.
    pub run: u64,
    /// Greater than in the probe before.
    pub sequence: u64,
    /// How the node stands.
    pub standing: Standing,
}

/// Why a probe means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum BadProbe {
    /// It is no probe, or one of a later version.
    #[error("not a probe of this version")]
    Unknown,
    /// It was made with another key.
    #[error("a probe of another overlay")]
    Foreign,
}

impl Probe {
    /// The frame, from the address of the node's TAP device.
    pub fn frame(&self, source: Mac, key: &ProbeKey) -> Bytes {
        let mut frame = Vec::with_capacity(14 + SIGNED + TAG);
        frame.extend(PROBE_GROUP);
        frame.extend(source);
        frame.extend(ETHERTYPE_PROBE.to_be_bytes());
        let payload_at = frame.len();
        frame.extend(MAGIC);
        frame.extend([VERSION, self.standing.number(), 0, 0]);
        frame.extend(self.node.0);
        frame.extend(self.run.to_be_bytes());
        frame.extend(self.sequence.to_be_bytes());
        let tag = hmac::sign(&key.0, &frame[payload_at..]);
        frame.extend(&tag.as_ref()[..TAG]);
        frame.into()
    }

    /// Reads a probe from what is behind the Ethernet header; bytes after it are padding.
    ///
    /// # Errors
    ///
    /// When it means nothing.
    pub fn read(payload: &[u8], key: &ProbeKey) -> Result<Self, BadProbe> {
        let (signed, rest) = payload
            .split_first_chunk::<SIGNED>()
            .ok_or(BadProbe::Unknown)?;
        let tag = rest.first_chunk::<TAG>().ok_or(BadProbe::Unknown)?;
        if signed[..5] != [b'i', b'p', b'o', b'p', VERSION] {
            return Err(BadProbe::Unknown);
        }
        let expected = hmac::sign(&key.0, signed);
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected.as_ref()[..TAG], tag)
            .map_err(|_| BadProbe::Foreign)?;
        let standing = Standing::of_number(signed[5]).ok_or(BadProbe::Unknown)?;
        let (_, fields) = signed.split_at(8);
        let (node, fields) = fields.split_first_chunk().ok_or(BadProbe::Unknown)?;
        let (run, fields) = fields.split_first_chunk().ok_or(BadProbe::Unknown)?;
        let sequence = fields.first_chunk().ok_or(BadProbe::Unknown)?;
        Ok(Self {
            node: NodeId(*node),
            run: u64::from_be_bytes(*run),
            sequence: u64::from_be_bytes(*sequence),
            standing,
        })
    }
}

impl Standing {
    const fn number(self) -> u8 {
        match self {
            Self::Blocked => 0,
            Self::Forwarding => 1,
            Self::Leaving => 2,
        }
    }

    const fn of_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Blocked,
            1 => Self::Forwarding,
            2 => Self::Leaving,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use ipop_datapath::ethernet::{Class, Header, classify};
    use ipop_datapath::stations::is_station;
    use proptest::prelude::*;

    use super::*;

    fn probe(standing: Standing) -> Probe {
        Probe {
            node: NodeId([7; 16]),
            run: 1 << 40,
            sequence: 5,
            standing,
        }
    }

    #[test]
    fn a_probe_is_read_as_it_was_written_and_is_known_by_its_header() {
        let key = ProbeKey::new(b"secret");
        for standing in [Standing::Blocked, Standing::Forwarding, Standing::Leaving] {
            let mut frame = probe(standing).frame([2, 0, 0, 0, 0, 1], &key).to_vec();
            let header = Header::parse(&frame).expect("a frame");
            assert_eq!(classify(&header, &frame), Class::Probe);
            frame.extend([0; 20]);
            let read = Probe::read(&frame[header.payload_at..], &key);
            assert_eq!(read, Ok(probe(standing)));
        }
    }

    #[test]
    fn no_byte_of_a_probe_can_be_another_one() {
        let key = ProbeKey::new(b"secret");
        let frame = probe(Standing::Forwarding).frame([2, 0, 0, 0, 0, 1], &key);
        let payload = &frame[14..];
        let other = ProbeKey::new(b"another");
        assert_eq!(Probe::read(payload, &other), Err(BadProbe::Foreign));
        for at in 0..payload.len() {
            let mut changed = payload.to_vec();
            changed[at] ^= 1;
            assert!(Probe::read(&changed, &key).is_err(), "byte {at}");
            assert_eq!(Probe::read(&payload[..at], &key), Err(BadProbe::Unknown));
        }
    }

    #[test]
    fn nodes_are_told_apart_by_their_names_and_speak_from_stations_addresses() {
        let names = ["node-0", "node-1", "frontend-0", ""];
        let mut ids: Vec<_> = names.map(NodeId::of_name).into();
        assert_eq!(ids[0], NodeId::of_name("node-0"));
        assert!(
            ids.iter()
                .all(|id| is_station(id.mac()) && id.mac()[0] & 2 != 0)
        );
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), names.len());
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
            let key = ProbeKey::new(b"secret");
            prop_assert!(Probe::read(&bytes, &key).is_err());
            let marked = [&b"ipop\x01"[..], &bytes].concat();
            prop_assert!(Probe::read(&marked, &key).is_err());
        }
    }
}
