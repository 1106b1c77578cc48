//! One node of an overlay carries frames for a LAN, however many are bridged to it.
//!
//! Two that did would carry each other's frames round and round. Every node that is bridged to a LAN
//! sends [probes](Probe) on it, and begins blocked. It forwards once it has listened for
//! [`Timing::hold`] and heard in all that time neither a lower node nor one that forwards. It stops
//! at once when it hears a lower node. A node whose probes come back to it has a loop that is
//! not of the overlay's making, and is blocked while they do.
//!
//! As long as of all the probes that are sent within `hold`, less one interval, one arrives, no two
//! nodes forward at any time, whenever they start or restart: of any two, one heard the other
//! before it began. When they have heard each other for twice `hold`, the lowest forwards. Two LANs
//! that are joined while a node forwards on each have a loop until the first probe passes.
//!
//! Only untagged probes are sent: LANs that have some VLAN in common, and not the untagged one, are not
//! found out.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipop_datapath::stations::Mac;
use thiserror::Error;

use super::probe::{BadProbe, NodeId, Probe, ProbeKey, Standing};

/// Most nodes on one LAN that are kept in mind. Those beyond give way to lower ones: it is these that
/// matter.
const MOST_OTHERS: usize = 64;

/// How often probes are sent and how long they count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two probes.
    pub interval: Duration,
    /// For how long a node that is not heard of is taken to be there.
    pub hold: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(500),
            hold: Duration::from_millis(2500),
        }
    }
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Change {
    /// This node carries the LAN's frames from now on.
    #[error("this node forwards for it")]
    Forwards,
    /// It does not any more: this node, a lower one, is on the LAN.
    #[error("node {to} is on it, too, and forwards for it")]
    StoodDown {
        /// The lower one.
        to: NodeId,
    },
    /// It does not any more: its own probe came back.
    #[error("it has a loop; this node does not forward for it")]
    Looped,
    /// It does not any more: it has no links.
    #[error("this node has no links to forward over")]
    Unready,
}

/// See the module.
#[derive(Debug)]
pub struct LoopGuard {
    me: (NodeId, u64),
    mac: Mac,
    key: ProbeKey,
    timing: Timing,
    sequence: u64,
    state: State,
    others: BTreeMap<NodeId, Heard>,
    /// When the own probe came back last.
    echo: Option<Instant>,
    next_probe: Option<Instant>,
    frames: VecDeque<Bytes>,
    changes: VecDeque<Change>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No links: nothing to carry.
    Unready,
    Blocked {
        since: Instant,
    },
    Forwarding,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    run: u64,
    sequence: u64,
    is_forwarding: bool,
    at: Instant,
}

impl LoopGuard {
    /// Of this node in this run, a random number, whose probes come from `mac`. It is not [ready](Self::set_ready).
    pub fn new(node: NodeId, run: u64, mac: Mac, key: ProbeKey, timing: Timing) -> Self {
        Self {
            me: (node, run),
            mac,
            key,
            timing,
            sequence: 0,
            state: State::Unready,
            others: BTreeMap::new(),
            echo: None,
            next_probe: None,
            frames: VecDeque::new(),
            changes: VecDeque::new(),
        }
    }

    /// Whether frames may pass between the LAN and the overlay.
    pub fn is_forwarding(&self) -> bool {
        self.state == State::Forwarding
    }

    /// Which node forwards for the LAN while this one does not, if any is heard that does.
    pub fn stands_by_for(&self) -> Option<NodeId> {
        let State::Blocked { .. } = self.state else {
            return None;
        };
        let mut others = self.others.iter();
        others
            .find(|(_, heard)| heard.is_forwarding)
            .map(|(node, _)| *node)
    }

    /// Whether this node has links. One that has none leaves the LAN to others.
    pub fn set_ready(&mut self, is_ready: bool, now: Instant) {
        match (self.state, is_ready) {
            (State::Unready, true) => {
                self.state = State::Blocked { since: now };
                self.probe(Standing::Blocked, now);
            }
            (State::Unready, false) | (_, true) => {}
            (was, false) => {
                self.state = State::Unready;
                self.probe(Standing::Leaving, now);
                self.next_probe = None;
                if was == State::Forwarding {
                    self.changes.push_back(Change::Unready);
                }
            }
        }
    }

    /// A probe frame came from the LAN; this is what was behind its Ethernet header.
    ///
    /// # Errors
    ///
    /// When it means nothing.
    pub fn handle_probe(&mut self, payload: &[u8], now: Instant) -> Result<(), BadProbe> {
        let probe = Probe::read(payload, &self.key)?;
        if (probe.node, probe.run) == self.me {
            // What was heard long ago may be somebody's recording.
            if probe.sequence + 16 > self.sequence && probe.sequence <= self.sequence {
                self.echo = Some(now);
            }
        } else {
            self.heard(&probe, now);
        }
        self.decide(now);
        Ok(())
    }

    /// Sends what is due, and takes over when nobody else forwards.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.decide(now);
        if self.next_probe.is_some_and(|at| at <= now) {
            self.probe_standing(now);
        }
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let takes_over = match self.state {
            State::Blocked { since } => Some(self.blocked_until(since)),
            State::Unready | State::Forwarding => None,
        };
        [self.next_probe, takes_over].into_iter().flatten().min()
    }

    /// A frame for the LAN.
    pub fn poll_frame(&mut self) -> Option<Bytes> {
        self.frames.pop_front()
    }

    /// What changed, once.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    fn heard(&mut self, probe: &Probe, now: Instant) {
        if let Some(known) = self.others.get(&probe.node)
            && known.run == probe.run
            && known.sequence >= probe.sequence
        {
            return;
        }
        if probe.standing == Standing::Leaving {
            self.others.remove(&probe.node);
            return;
        }
        let heard = Heard {
            run: probe.run,
            sequence: probe.sequence,
            is_forwarding: probe.standing == Standing::Forwarding,
            at: now,
        };
        self.others.insert(probe.node, heard);
        if self.others.len() > MOST_OTHERS {
            self.others.pop_last();
        }
    }

    fn decide(&mut self, now: Instant) {
        let hold = self.timing.hold;
        self.others.retain(|_, heard| now < heard.at + hold);
        self.echo = self.echo.filter(|at| now < *at + hold);
        match self.state {
            State::Unready => {}
            State::Blocked { since } => {
                if self.blocked_until(since) <= now {
                    self.state = State::Forwarding;
                    self.changes.push_back(Change::Forwards);
                    self.probe_standing(now);
                }
            }
            State::Forwarding => {
                let why = match (self.echo, self.lowest()) {
                    (Some(_), _) => Change::Looped,
                    (None, Some(to)) => Change::StoodDown { to },
                    (None, None) => return,
                };
                self.state = State::Blocked { since: now };
                self.changes.push_back(why);
                self.probe_standing(now);
            }
        }
    }

    /// When a blocked node may forward if nothing more is heard.
    fn blocked_until(&self, since: Instant) -> Instant {
        let others = self.others.iter();
        let in_the_way =
            others.filter(|(node, heard)| heard.is_forwarding || self.is_lower(**node, heard));
        let last = in_the_way.map(|(_, heard)| heard.at).chain(self.echo).max();
        last.map_or(since, |last| last.max(since)) + self.timing.hold
    }

    /// The lowest node on the LAN, if that is not this one.
    fn lowest(&self) -> Option<NodeId> {
        let mut others = self.others.iter();
        others
            .find(|(node, heard)| self.is_lower(**node, heard))
            .map(|(node, _)| *node)
    }

    /// Two runs under one id (a node that was copied) are told apart as well.
    fn is_lower(&self, node: NodeId, heard: &Heard) -> bool {
        (node, heard.run) < self.me
    }

    fn probe_standing(&mut self, now: Instant) {
        let standing = match self.state {
            State::Forwarding => Standing::Forwarding,
            State::Unready | State::Blocked { .. } => Standing::Blocked,
        };
        self.probe(standing, now);
    }

    fn probe(&mut self, standing: Standing, now: Instant) {
        self.sequence += 1;
        let (node, run) = self.me;
        let probe = Probe {
            node,
            run,
            sequence: self.sequence,
            standing,
        };
        self.frames.push_back(probe.frame(self.mac, &self.key));
        self.next_probe = Some(now + self.timing.interval);
    }
}

#[cfg(test)]
mod tests;
