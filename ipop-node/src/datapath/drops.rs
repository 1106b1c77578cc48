//! Counts of what the machine would not take.

use std::collections::BTreeMap;
use std::io;

use ipop_proto::status::DropReason;

/// Drops by reason.
#[derive(Debug, Default)]
pub struct Drops(BTreeMap<DropReason, u64>);

impl Drops {
    /// Counts one.
    pub fn count(&mut self, reason: DropReason) {
        *self.0.entry(reason).or_default() += 1;
    }

    /// Counts one that the operating system would not send.
    pub fn count_error(&mut self, error: &io::Error) {
        self.count(match error.kind() {
            io::ErrorKind::WouldBlock => DropReason::QueueFull,
            _ => DropReason::SendFailed,
        });
    }

    /// Adds these to `counts`.
    pub fn add_to(&self, counts: &mut BTreeMap<DropReason, u64>) {
        for (reason, count) in &self.0 {
            *counts.entry(*reason).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_not_a_failure() {
        let mut drops = Drops::default();
        drops.count_error(&io::ErrorKind::WouldBlock.into());
        drops.count_error(&io::ErrorKind::NetworkUnreachable.into());
        let mut counts = BTreeMap::from([(DropReason::SendFailed, 1)]);
        drops.add_to(&mut counts);
        assert_eq!(
            counts,
            BTreeMap::from([(DropReason::QueueFull, 1), (DropReason::SendFailed, 2)])
        );
    }
}
