//! Which peer an Ethernet station was last seen behind.
//!
//! Read and refreshed by the threads that carry frames, without locks: each entry is one word, in one
//! of a few places that the station decides. When all of these are taken, the entry seen longest ago
//! gives way, so that a flood of addresses costs other stations no more than a frame sent to
//! everybody.
//!
//! Who may be learned at all, and how many behind one peer, is not decided here: a thread that meets
//! a station which [`Stations::touch`] does not know where it came from hands the frame to the slow
//! path, and that one calls [`Stations::learn`].

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// VLAN identifier (IEEE 802.1Q section 9.6), 12 bits; 0 for frames without a tag, or with one that
/// has a priority only.
pub type VlanId = u16;

/// Number of a peer among those there are now.
pub type PeerIndex = u16;

/// In place of a peer: the station is on this node's own side.
pub const LOCAL: PeerIndex = u16::MAX - 1;

/// No peer: who had the number, or whatever had it, is away.
pub const NOBODY: PeerIndex = u16::MAX;

/// Places for one station.
const WAYS: usize = 4;
/// Sets of places: as many as the bits of a station's key that an entry has no room for can tell.
const SETS: usize = 1 << SET_BITS;
const SET_BITS: u32 = KEY_BITS - TAG_BITS;
/// A VLAN and an address.
const KEY_BITS: u32 = 12 + 48;
/// What an entry keeps of it, beside the 16 bits of the peer.
const TAG_BITS: u32 = 48;
/// No station; its peer is never one.
const EMPTY: u64 = u64::MAX;
/// Seconds after which a station that is silent is asked for anew, unless something else is wanted
/// (IEEE 802.1Q section 8.8.3).
pub const AGE_S: u32 = 300;

/// Who sends and receives frames: an address in a VLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Station {
    /// Of the frame's outermost tag.
    pub vlan: VlanId,
    /// Its address.
    pub mac: Mac,
}

/// Without a VLAN.
impl From<Mac> for Station {
    fn from(mac: Mac) -> Self {
        Self { vlan: 0, mac }
    }
}

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.mac;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")?;
        match self.vlan {
            0 => Ok(()),
            vlan => write!(f, " in VLAN {vlan}"),
        }
    }
}

/// What the table knows of a station that was just seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It is where it was.
    Here,
    /// It was last seen behind another peer, or on the other side.
    Elsewhere(PeerIndex),
    /// It is not in the table.
    Unknown,
}

/// The table.
#[derive(Debug)]
pub struct Stations {
    /// A part of the key (48 bits) and the peer (16 bits). The rest of the key is the number of the
    /// set, so that an entry belongs to one station and to no other.
    entries: Box<[AtomicU64]>,
    /// When each was seen last, in seconds of the caller's clock.
    seen: Box<[AtomicU32]>,
    /// How long a silent station is known, in the same seconds.
    age_s: u32,
}

impl Default for Stations {
    fn default() -> Self {
        Self::with_age(AGE_S)
    }
}

impl Stations {
    /// An empty table that knows a silent station for `age_s` seconds.
    #[must_use]
    pub fn with_age(age_s: u32) -> Self {
        Self {
            entries: (0..SETS * WAYS).map(|_| AtomicU64::new(EMPTY)).collect(),
            seen: (0..SETS * WAYS).map(|_| AtomicU32::new(0)).collect(),
            age_s,
        }
    }

    /// For how many seconds a silent station is known.
    #[must_use]
    pub const fn age_s(&self) -> u32 {
        self.age_s
    }

    /// The station is behind `peer` (or [`LOCAL`]), as of `now_s`. Group addresses are no stations.
    #[inline]
    pub fn learn(&self, station: impl Into<Station>, peer: PeerIndex, now_s: u32) {
        let station = station.into();
        if !is_station(station.mac) {
            return;
        }
        let place = Place::of(station);
        let entry = place.entry(peer);
        let places = place.places();
        let mut oldest = places.start;
        for at in places {
            let there = self.entries[at].load(Ordering::Relaxed);
            if place.is_of(there) {
                oldest = at;
                break;
            }
            let age = |at: usize| now_s.wrapping_sub(self.seen[at].load(Ordering::Relaxed));
            if there == EMPTY {
                oldest = at;
                // Its station may still come later in the set.
                continue;
            }
            if self.entries[oldest].load(Ordering::Relaxed) != EMPTY && age(at) > age(oldest) {
                oldest = at;
            }
        }
        self.refresh(oldest, now_s);
        if self.entries[oldest].load(Ordering::Relaxed) != entry {
            self.entries[oldest].store(entry, Ordering::Relaxed);
        }
    }

    /// A frame of the station came from `peer` (or [`LOCAL`]) at `now_s`. What is not known to be
    /// there is not learned.
    #[inline]
    pub fn touch(&self, station: Station, peer: PeerIndex, now_s: u32) -> Seen {
        let Some((at, there)) = self.find(station) else {
            return Seen::Unknown;
        };
        if there != peer {
            return Seen::Elsewhere(there);
        }
        self.refresh(at, now_s);
        Seen::Here
    }

    /// The peer that the station is behind, if it was seen lately.
    #[inline]
    pub fn locate(&self, station: impl Into<Station>, now_s: u32) -> Option<PeerIndex> {
        let (at, peer) = self.find(station.into())?;
        let age = now_s.wrapping_sub(self.seen[at].load(Ordering::Relaxed));
        (age <= self.age_s).then_some(peer)
    }

    /// Where the station was seen last and when, however long ago.
    pub fn last_seen(&self, station: Station) -> Option<(PeerIndex, u32)> {
        let (at, peer) = self.find(station)?;
        Some((peer, self.seen[at].load(Ordering::Relaxed)))
    }

    /// The station is not to be found any more.
    pub fn forget_station(&self, station: Station) {
        if let Some((at, peer)) = self.find(station) {
            self.clear(at, Place::of(station).entry(peer));
        }
    }

    /// The peer is gone: its number may be another one's soon.
    pub fn forget(&self, peer: PeerIndex) {
        for at in 0..self.entries.len() {
            let there = self.entries[at].load(Ordering::Relaxed);
            if there != EMPTY && there as PeerIndex == peer {
                self.clear(at, there);
            }
        }
    }

    #[inline]
    fn find(&self, station: Station) -> Option<(usize, PeerIndex)> {
        let place = Place::of(station);
        place.places().find_map(|at| {
            let there = self.entries[at].load(Ordering::Relaxed);
            place.is_of(there).then_some((at, there as PeerIndex))
        })
    }

    #[inline]
    fn refresh(&self, at: usize, now_s: u32) {
        if self.seen[at].load(Ordering::Relaxed) != now_s {
            self.seen[at].store(now_s, Ordering::Relaxed);
        }
    }

    /// Empties a place that has `there`; learned anew meanwhile, it stays.
    fn clear(&self, at: usize, there: u64) {
        let _ =
            self.entries[at].compare_exchange(there, EMPTY, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Whether an address is of a group, or of everybody.
#[inline]
pub const fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

/// Whether a frame can be from that address.
#[inline]
pub const fn is_station(mac: Mac) -> bool {
    !is_group(mac) && !matches!(mac, [0, 0, 0, 0, 0, 0])
}

/// Where a station's entry may be, and what it looks like.
#[derive(Clone, Copy)]
struct Place {
    set: usize,
    tag: u64,
}

impl Place {
    #[inline]
    fn of(station: Station) -> Self {
        let [a, b, c, d, e, f] = station.mac;
        let [g, h] = (station.vlan & 0xfff).to_be_bytes();
        let key = u64::from_be_bytes([g, h, a, b, c, d, e, f]);
        // Multiplicative hashing (Knuth): vendors number from the low end, so that all bits count.
        // By an odd number and modulo a power of two, it tells all keys apart.
        let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15) & ((1 << KEY_BITS) - 1);
        Self {
            set: (hash >> TAG_BITS) as usize,
            tag: hash & ((1 << TAG_BITS) - 1),
        }
    }

    #[inline]
    fn entry(self, peer: PeerIndex) -> u64 {
        self.tag << PeerIndex::BITS | u64::from(peer)
    }

    #[inline]
    fn is_of(self, entry: u64) -> bool {
        entry != EMPTY && entry >> PeerIndex::BITS == self.tag
    }

    #[inline]
    fn places(self) -> std::ops::Range<usize> {
        self.set * WAYS..(self.set + 1) * WAYS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mac(n: u32) -> Mac {
        let [a, b, c, d] = n.to_be_bytes();
        [2, 0, a, b, c, d]
    }

    #[test]
    fn a_station_is_found_where_it_was_seen_last() {
        let stations = Stations::default();
        assert_eq!(stations.locate(mac(1), 0), None);
        stations.learn(mac(1), 7, 10);
        stations.learn(mac(2), 8, 10);
        assert_eq!(stations.locate(mac(1), 20), Some(7));
        stations.learn(mac(1), 8, 30);
        assert_eq!(stations.locate(mac(1), 30), Some(8), "it moved");
    }

    #[test]
    fn a_silent_station_is_forgotten_and_a_gone_peers_stations_at_once() {
        let stations = Stations::default();
        stations.learn(mac(1), 7, 10);
        stations.learn(mac(2), 8, 10);
        assert_eq!(stations.locate(mac(1), 10 + AGE_S), Some(7));
        assert_eq!(stations.locate(mac(1), 11 + AGE_S), None);
        stations.forget(8);
        assert_eq!(stations.locate(mac(2), 10), None);
    }

    #[test]
    fn how_long_a_silent_station_is_known_can_be_told() {
        let stations = Stations::with_age(20);
        stations.learn(mac(1), 7, 10);
        assert_eq!(stations.locate(mac(1), 30), Some(7));
        assert_eq!(stations.locate(mac(1), 31), None);
    }

    #[test]
    fn groups_are_not_learned() {
        let stations = Stations::default();
        for group in [
            [0xff; 6],
            [1, 0, 0x5e, 0, 0, 1],
            [0x33, 0x33, 0, 0, 0, 1],
            [0; 6],
        ] {
            stations.learn(group, 1, 0);
            assert_eq!(stations.locate(group, 0), None);
        }
    }

    #[test]
    fn a_flood_of_addresses_leaves_a_station_that_speaks() {
        let stations = Stations::default();
        for n in 0..100_000 {
            let now_s = n / 1000;
            stations.learn(mac(n + 10), 1, now_s);
            if n % 10 == 0 {
                stations.learn(mac(1), 7, now_s + 1);
            }
        }
        assert_eq!(stations.locate(mac(1), 100), Some(7));
    }

    #[test]
    fn a_station_that_is_not_known_to_be_there_is_not_learned_by_its_frames() {
        let stations = Stations::default();
        let station = Station::from(mac(1));
        assert_eq!(stations.touch(station, 7, 10), Seen::Unknown);
        assert_eq!(stations.locate(station, 10), None);
        stations.learn(station, 7, 10);
        assert_eq!(stations.touch(station, LOCAL, 20), Seen::Elsewhere(7));
        assert_eq!(stations.last_seen(station), Some((7, 10)));
        assert_eq!(stations.touch(station, 7, 20), Seen::Here);
        assert_eq!(stations.locate(station, 20 + AGE_S), Some(7));
        stations.forget_station(station);
        assert_eq!(stations.last_seen(station), None);
    }

    #[test]
    fn a_station_is_written_with_its_vlan_if_it_has_one() {
        let mac = [2, 0, 0, 0xab, 0, 1];
        assert_eq!(Station::from(mac).to_string(), "02:00:00:ab:00:01");
        let tagged = Station { vlan: 5, mac };
        assert_eq!(tagged.to_string(), "02:00:00:ab:00:01 in VLAN 5");
    }

    #[test]
    fn one_address_in_two_vlans_is_two_stations() {
        let stations = Stations::default();
        for vlan in 0..4096 {
            stations.learn(Station { vlan, mac: mac(1) }, vlan, 0);
        }
        for vlan in 0..4096 {
            let located = stations.locate(Station { vlan, mac: mac(1) }, 0);
            assert_eq!(located, Some(vlan));
        }
    }

    proptest! {
        #[test]
        fn no_station_is_taken_for_another(
            known in proptest::collection::hash_map((0_u16..4096, any::<Mac>()), 0..u16::MAX - 1, 1..200),
            others in proptest::collection::vec((0_u16..4096, any::<Mac>()), 200),
        ) {
            let stations = Stations::default();
            for ((vlan, mac), peer) in &known {
                stations.learn(Station { vlan: *vlan, mac: *mac }, *peer, 0);
            }
            for key @ (vlan, mac) in others.iter().chain(known.keys()) {
                if let Some(found) = stations.locate(Station { vlan: *vlan, mac: *mac }, 0) {
                    prop_assert_eq!(Some(&found), known.get(key));
                }
            }
            let lost = known.keys().filter(|(vlan, mac)| {
                is_station(*mac) && stations.locate(Station { vlan: *vlan, mac: *mac }, 0).is_none()
            });
            prop_assert!(lost.count() <= 2, "few places are in the same set");
        }
    }
}
