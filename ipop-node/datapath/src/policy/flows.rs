//! What was begun with one peer of late, so that its answers are known.
//!
//! Read and refreshed by all threads that carry the peer's packets, without a lock: an entry is one
//! word, which is a whole flow, and when it was begun or gone on with last. That is possible because the
//! addresses of both ends are those of the two nodes: what is left of a flow is 42 bits. The entry seen
//! longest ago gives way when there is no room, so that a peer that begins many loses its own.

use std::sync::atomic::{AtomicU64, Ordering};

/// Places for one flow.
const WAYS: usize = 4;
/// Sets of places.
const SETS: usize = 512;
/// Bits of an entry that are the flow; the others are seconds.
const KEY_BITS: u32 = 42;
/// Seconds are counted modulo this, 48 days: what was silent for just so long is known once more, for as
/// long as when it was new.
const SECONDS: u32 = 1 << (64 - KEY_BITS);
/// By how much the seconds of threads may differ.
const SKEW: u32 = 16;
/// No flow.
const EMPTY: u64 = u64::MAX;

/// Which flow, in the order of an entry's bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Of what there is one for each direction, whether it is that of the packets that come in.
    pub is_inward: bool,
    /// Of IPv6.
    pub is_v6: bool,
    /// Protocol number.
    pub protocol: u8,
    /// This node's port, or the identifier of what has no ports.
    pub own: u16,
    /// The peer's.
    pub peer: u16,
}

impl Flow {
    const fn key(self) -> u64 {
        (self.is_inward as u64) << 41
            | (self.is_v6 as u64) << 40
            | (self.protocol as u64) << 32
            | (self.own as u64) << 16
            | self.peer as u64
    }

    /// Where its places begin.
    const fn set(self) -> usize {
        // Fibonacci hashing: the upper bits of the product.
        let hash = self.key().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> (u64::BITS - SETS.ilog2())) as usize * WAYS
    }
}

/// The table.
#[derive(Debug)]
pub struct Flows {
    entries: Box<[AtomicU64]>,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            entries: (0..SETS * WAYS).map(|_| AtomicU64::new(EMPTY)).collect(),
        }
    }
}

impl Flows {
    /// The flow goes on at `now_s`, or begins.
    #[inline]
    pub fn keep(&self, flow: Flow, now_s: u32) {
        let entry = entry(flow, now_s);
        let set = &self.entries[flow.set()..][..WAYS];
        // Another try for each thread that could have taken the place meanwhile; without one the next
        // packet has to begin the flow.
        for _ in 0..WAYS {
            let mut place = (&set[0], 0, u32::MAX);
            for (at, slot) in set.iter().enumerate() {
                // Relaxed: an entry means nothing beyond itself.
                let there = slot.load(Ordering::Relaxed);
                if there == entry {
                    return;
                }
                let age = match there {
                    EMPTY => SECONDS,
                    _ if there >> (64 - KEY_BITS) == flow.key() => u32::MAX,
                    _ => age(there, now_s),
                };
                if at == 0 || age > place.2 {
                    place = (slot, there, age);
                }
            }
            let (slot, there, _) = place;
            let swapped = slot.compare_exchange(there, entry, Ordering::Relaxed, Ordering::Relaxed);
            if swapped.is_ok() {
                return;
            }
        }
    }

    /// Whether the flow was kept in the `within` seconds before `now_s`.
    #[inline]
    #[must_use]
    pub fn has(&self, flow: Flow, within: u32, now_s: u32) -> bool {
        self.entries[flow.set()..][..WAYS].iter().any(|slot| {
            let there = slot.load(Ordering::Relaxed);
            there != EMPTY && there >> (64 - KEY_BITS) == flow.key() && age(there, now_s) <= within
        })
    }
}

const fn entry(flow: Flow, now_s: u32) -> u64 {
    flow.key() << (64 - KEY_BITS) | (now_s % SECONDS) as u64
}

/// Seconds since the entry was written; one that another thread writes with a second that is still to
/// come here is of now.
const fn age(entry: u64, now_s: u32) -> u32 {
    let age = now_s.wrapping_sub(entry as u32) % SECONDS;
    if age >= SECONDS - SKEW { 0 } else { age }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn flow(own: u16, peer: u16) -> Flow {
        Flow {
            is_inward: false,
            is_v6: false,
            protocol: 17,
            own,
            peer,
        }
    }

    fn any_flow() -> impl Strategy<Value = Flow> {
        let protocol = prop_oneof![Just(1), Just(17), Just(44), Just(58)];
        (any::<bool>(), any::<bool>(), protocol, 0..3_u16, 0..3_u16).prop_map(
            |(is_inward, is_v6, protocol, own, peer)| Flow {
                is_inward,
                is_v6,
                protocol,
                own,
                peer,
            },
        )
    }

    proptest! {
        #[test]
        fn it_knows_what_a_map_knows(
            steps in prop::collection::vec((any_flow(), any_flow(), 0..40_u32), 1..60),
            start in prop_oneof![Just(0), Just(SECONDS - 50), Just(u32::MAX - 50)],
        ) {
            let flows = Flows::default();
            let mut model = HashMap::new();
            let mut now = start;
            for (kept, asked, later) in steps {
                now = now.wrapping_add(later);
                flows.keep(kept, now);
                model.insert(kept, now);
                // A set may be full, and then it has the newest.
                let in_set = |other: &&Flow| other.set() == asked.set();
                let crowded = model.keys().filter(in_set).count() > WAYS;
                let known = model.get(&asked).is_some_and(|at| now.wrapping_sub(*at) <= 60);
                prop_assert!(flows.has(kept, 60, now));
                let has = flows.has(asked, 60, now);
                prop_assert!(has == known || crowded && !has, "{:?} at {}", asked, now);
            }
        }
    }

    #[test]
    fn the_one_seen_longest_ago_gives_way() {
        let flows = Flows::default();
        let first = flow(0, 1);
        let others: Vec<_> = (2..u16::MAX)
            .map(|port| flow(0, port))
            .filter(|other| other.set() == first.set())
            .take(WAYS)
            .collect();
        flows.keep(first, 1);
        for (at, other) in others[..WAYS - 1].iter().enumerate() {
            flows.keep(*other, 2 + at as u32);
        }
        flows.keep(first, 9);
        flows.keep(others[WAYS - 1], 10);
        assert!(flows.has(first, 60, 10));
        assert!(!flows.has(others[0], 60, 10));
        assert!(others[1..].iter().all(|other| flows.has(*other, 60, 10)));
    }

    #[test]
    fn a_flow_is_known_for_its_time_and_not_longer() {
        let flows = Flows::default();
        flows.keep(flow(1, 2), 100);
        assert!(flows.has(flow(1, 2), 60, 160));
        assert!(!flows.has(flow(1, 2), 60, 161));
        assert!(!flows.has(flow(1, 2), 60, 100 + SECONDS / 2));
        // By a thread whose clock is a second behind.
        assert!(flows.has(flow(1, 2), 60, 99));
    }

    #[test]
    fn threads_that_keep_flows_at_once_lose_none() {
        let flows = Flows::default();
        let [mine, theirs] = [0, 1].map(|half| (0..200).map(move |port| flow(half, port)));
        std::thread::scope(|scope| {
            for half in [mine.clone(), theirs.clone()] {
                let flows = &flows;
                scope.spawn(move || half.for_each(|flow| flows.keep(flow, 1)));
            }
        });
        let mut sets = HashMap::<_, usize>::new();
        mine.clone()
            .chain(theirs.clone())
            .for_each(|flow| *sets.entry(flow.set()).or_default() += 1);
        for flow in mine.chain(theirs).filter(|flow| sets[&flow.set()] <= WAYS) {
            assert!(flows.has(flow, 60, 1), "{flow:?}");
        }
    }
}
