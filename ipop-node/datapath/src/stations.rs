//! Which peer an Ethernet address was last seen behind.
//!
//! Learned by the threads that receive, read by those that send, without locks: each entry is one
//! word, in one of a few places that the address decides. When all of these are taken, the entry
//! seen longest ago gives way, so that a flood of addresses costs other stations no more than a
//! frame sent to everybody.

use std::sync::atomic::{AtomicU64, Ordering};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Number of a peer among those there are now.
pub type PeerIndex = u16;

/// Places for one address.
const WAYS: usize = 4;
/// Sets of places; a power of two.
const SETS: usize = 1024;
/// Seconds after which a station that is silent is asked for anew (IEEE 802.1Q section 8.8.3).
const AGE_S: u32 = 300;

/// The table.
#[derive(Debug)]
pub struct Stations {
    /// Address (48 bits) and peer (16 bits); 0 is empty, no station having the address 0.
    entries: Box<[AtomicU64]>,
    /// When each was seen last, in seconds of the caller's clock.
    seen: Box<[std::sync::atomic::AtomicU32]>,
}

impl Default for Stations {
    fn default() -> Self {
        Self {
            entries: (0..SETS * WAYS).map(|_| AtomicU64::new(0)).collect(),
            seen: (0..SETS * WAYS)
                .map(|_| std::sync::atomic::AtomicU32::new(0))
                .collect(),
        }
    }
}

impl Stations {
    /// A frame from `mac` came from `peer` at `now_s`. Group addresses are no stations.
    #[inline]
    pub fn learn(&self, mac: Mac, peer: PeerIndex, now_s: u32) {
        if is_group(mac) || mac == [0; 6] {
            return;
        }
        let entry = entry(mac, peer);
        let places = places(mac);
        let mut oldest = places.start;
        for at in places {
            let there = self.entries[at].load(Ordering::Relaxed);
            if there >> 16 == entry >> 16 {
                oldest = at;
                break;
            }
            let age = |at: usize| now_s.wrapping_sub(self.seen[at].load(Ordering::Relaxed));
            if there == 0 {
                oldest = at;
                // Its address may still come later in the set.
                continue;
            }
            if self.entries[oldest].load(Ordering::Relaxed) != 0 && age(at) > age(oldest) {
                oldest = at;
            }
        }
        if self.seen[oldest].load(Ordering::Relaxed) != now_s {
            self.seen[oldest].store(now_s, Ordering::Relaxed);
        }
        if self.entries[oldest].load(Ordering::Relaxed) != entry {
            self.entries[oldest].store(entry, Ordering::Relaxed);
        }
    }

    /// The peer that `mac` is behind, if it was seen lately.
    #[inline]
    pub fn locate(&self, mac: Mac, now_s: u32) -> Option<PeerIndex> {
        let wanted = entry(mac, 0) >> 16;
        places(mac).find_map(|at| {
            let there = self.entries[at].load(Ordering::Relaxed);
            let age = now_s.wrapping_sub(self.seen[at].load(Ordering::Relaxed));
            (there != 0 && there >> 16 == wanted && age <= AGE_S).then_some(there as PeerIndex)
        })
    }

    /// The peer is gone: its number may be another one's soon.
    pub fn forget(&self, peer: PeerIndex) {
        for entry in &self.entries {
            let there = entry.load(Ordering::Relaxed);
            if there != 0 && there as PeerIndex == peer {
                // Learned anew meanwhile, it stays.
                let _ = entry.compare_exchange(there, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }
}

/// Whether an address is of a group, or of everybody.
#[inline]
pub const fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

#[inline]
fn entry(mac: Mac, peer: PeerIndex) -> u64 {
    let [a, b, c, d, e, f] = mac;
    let [g, h] = peer.to_be_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[inline]
fn places(mac: Mac) -> std::ops::Range<usize> {
    // Multiplicative hashing (Knuth): vendors number from the low end, so that all bits count.
    let hash = (entry(mac, 0) >> 16).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let set = (hash >> 40) as usize % SETS;
    set * WAYS..(set + 1) * WAYS
}

#[cfg(test)]
mod tests {
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
}
