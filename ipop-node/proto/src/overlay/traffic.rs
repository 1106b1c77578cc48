//! What passed a link and what did not, counted by whoever carries it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::status::DropReason;

/// Counters of one peer. They outlive its links, and are shared with the threads of the data path.
#[derive(Debug, Default)]
pub struct Traffic {
    tx: Flow,
    rx: Flow,
    drops: [AtomicU64; DropReason::ALL.len()],
}

#[derive(Debug, Default)]
struct Flow {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Flow {
    fn add(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Packets and bytes.
    fn read(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.packets), read(&self.bytes))
    }
}

impl Traffic {
    /// Packets were sent, with so many bytes before encryption.
    pub fn sent(&self, packets: u64, bytes: u64) {
        self.tx.add(packets, bytes);
    }

    /// Packets were received, with so many bytes after decryption.
    pub fn received(&self, packets: u64, bytes: u64) {
        self.rx.add(packets, bytes);
    }

    /// A packet was dropped.
    pub fn dropped(&self, reason: DropReason) {
        self.dropped_many(reason, 1);
    }

    /// Packets were dropped.
    pub fn dropped_many(&self, reason: DropReason, count: u64) {
        self.drops[reason as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// Packets and bytes sent.
    pub fn tx(&self) -> (u64, u64) {
        self.tx.read()
    }

    /// Packets and bytes received.
    pub fn rx(&self) -> (u64, u64) {
        self.rx.read()
    }

    /// Drops that there were.
    pub fn drops(&self) -> BTreeMap<DropReason, u64> {
        DropReason::ALL
            .into_iter()
            .map(|reason| (reason, self.drops[reason as usize].load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let traffic = Traffic::default();
        for (at, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            traffic.dropped_many(reason, at as u64 + 1);
        }
        let drops = traffic.drops();
        assert_eq!(drops.len(), DropReason::ALL.len());
        let expected: u64 = (1..=drops.len() as u64).sum();
        assert_eq!(drops.values().sum::<u64>(), expected);
    }
}
