//! How many machines of a site start at the same time. Pure: time comes in.
//!
//! Where processors are emulated, starting a machine keeps one of the host's busy for a minute.
//! Twenty that start at once on two processors are not only slow: nothing in them is ready when
//! their own time limits run out, and they begin anew, and never end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::name::NodeName;

/// For how long one that starts keeps others waiting. It may be dead; but to start another beside
/// one that is slow makes both slower.
const PATIENCE: Duration = Duration::from_secs(600);

/// The machines that were started and may not be ready yet.
#[derive(Debug, Default)]
pub struct Starts {
    begun: BTreeMap<NodeName, Start>,
}

#[derive(Debug)]
struct Start {
    site: String,
    at: Instant,
}

impl Starts {
    /// Takes a place among the `most` of a site that start at once; whether there was one.
    /// `is_ready` says of which machines it is known that they no longer start.
    pub fn claim(
        &mut self,
        site: &str,
        node: &NodeName,
        most: usize,
        now: Instant,
        is_ready: impl Fn(&NodeName) -> bool,
    ) -> bool {
        self.begun
            .retain(|node, start| now.duration_since(start.at) < PATIENCE && !is_ready(node));
        let others = self.begun.iter();
        let others = others.filter(|(other, start)| *other != node && start.site == site);
        if others.count() >= most.max(1) {
            return false;
        }
        let site = site.to_owned();
        self.begun.insert(node.clone(), Start { site, at: now });
        true
    }

    /// Gives a place back: the machine did not start.
    pub fn release(&mut self, node: &NodeName) {
        self.begun.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: usize) -> NodeName {
        NodeName(format!("worker-{number}"))
    }

    const NOBODY: fn(&NodeName) -> bool = |_| false;

    #[test]
    fn no_more_start_at_once_than_may() {
        let (mut starts, now) = (Starts::default(), Instant::now());
        let claimed: Vec<_> = (0..4)
            .filter(|n| starts.claim("a", &node(*n), 2, now, NOBODY))
            .collect();
        assert_eq!(claimed, [0, 1]);
        assert!(starts.claim("b", &node(4), 2, now, NOBODY), "another site");
        assert!(
            starts.claim("a", &node(1), 2, now, NOBODY),
            "it has a place"
        );
        assert!(!starts.claim("a", &node(2), 2, now, NOBODY));
    }

    #[test]
    fn one_that_is_ready_or_fails_or_takes_too_long_makes_room() {
        let (mut starts, now) = (Starts::default(), Instant::now());
        assert!(starts.claim("a", &node(0), 1, now, NOBODY));
        assert!(starts.claim("a", &node(1), 1, now, |n| *n == node(0)));
        assert!(!starts.claim("a", &node(2), 1, now, NOBODY));
        starts.release(&node(1));
        assert!(starts.claim("a", &node(2), 1, now, NOBODY));
        assert!(!starts.claim("a", &node(3), 1, now + PATIENCE / 2, NOBODY));
        assert!(starts.claim("a", &node(3), 1, now + PATIENCE, NOBODY));
    }
}
