//! The filtering database (IEEE 802.1Q section 8.8): who may be learned, where, and for how long.
//!
//! The threads that carry frames refresh what is in [`Stations`]; this is the exact table behind it.
//! It decides about stations that are new or elsewhere than they were, and keeps the other one in
//! step. Its bounds are per port, so that a flood of addresses behind one member keeps nobody
//! else's stations from being learned, and what a member had before the flood stays.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipop_datapath::stations::{PeerIndex, Station, Stations};
use thiserror::Error;

use super::port::Port;

/// More moves than this …
const MOVES: u32 = 4;
/// … within this time, and the address is on two machines.
const MOVES_WITHIN: Duration = Duration::from_secs(10);
/// How long such a station then stays where it is, whoever else claims to be it.
pub const HOLD_DOWN: Duration = Duration::from_secs(60);

/// Most stations that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Behind one member.
    pub member: usize,
    /// On the LAN.
    pub lan: usize,
    /// Everywhere.
    pub total: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            member: 1024,
            lan: 4096,
            total: 65_536,
        }
    }
}

/// What a frame taught of its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// It is where it was.
    Known,
    /// It was not known.
    New,
    /// It is somewhere else now.
    Moved {
        /// Where it was.
        from: Port,
    },
}

/// Why a station was not learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotLearned {
    /// As many stations are known there as may be.
    #[error("there are {limit} stations already")]
    TooMany {
        /// Where it would be.
        port: Port,
        /// The bound that was reached.
        limit: usize,
    },
    /// Two machines have one address: it was seen in two places in turns, and is held at one of them.
    #[error("{station} is somewhere else, too")]
    Duplicate {
        /// Whose address it is.
        station: Station,
        /// Where it is held.
        holder: Port,
        /// Where it was seen too.
        claimant: Port,
        /// The first time since it is held there: somebody should hear of it.
        is_new: bool,
    },
}

/// The table.
#[derive(Debug)]
pub struct Fdb {
    stations: Arc<Stations>,
    /// What the seconds in there are counted from.
    started: Instant,
    limits: Limits,
    entries: HashMap<Station, Entry>,
    counts: HashMap<Port, usize>,
}

#[derive(Debug)]
struct Entry {
    port: Port,
    seen: Instant,
    /// Moves since then.
    moves: u32,
    moves_since: Instant,
    held_until: Option<Instant>,
}

impl Entry {
    fn new(port: Port, now: Instant) -> Self {
        Self {
            port,
            seen: now,
            moves: 0,
            moves_since: now,
            held_until: None,
        }
    }

    fn is_held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }
}

impl Fdb {
    /// An empty table in front of `stations`, whose seconds are counted from `started`.
    pub fn new(stations: Arc<Stations>, started: Instant, limits: Limits) -> Self {
        Self {
            stations,
            started,
            limits,
            entries: HashMap::new(),
            counts: HashMap::new(),
        }
    }

    /// A frame of `station` came from `port`.
    ///
    /// # Errors
    ///
    /// When it is not to be learned there. Where it was known before, it still is.
    pub fn learn(
        &mut self,
        station: Station,
        port: Port,
        now: Instant,
    ) -> Result<Learned, NotLearned> {
        let known = self.locate(station, now);
        let learned = match known {
            Some(holder) if holder == port => Learned::Known,
            Some(holder) => {
                self.consider_move(station, port, now)?;
                self.has_room(port, false)?;
                Learned::Moved { from: holder }
            }
            None => {
                // One that was not heard of for so long is a new one.
                self.forget(station);
                self.has_room(port, true)?;
                Learned::New
            }
        };
        match learned {
            Learned::Known => {}
            Learned::New => *self.counts.entry(port).or_default() += 1,
            Learned::Moved { from } => {
                self.discount(from);
                *self.counts.entry(port).or_default() += 1;
            }
        }
        let entry = self
            .entries
            .entry(station)
            .or_insert_with(|| Entry::new(port, now));
        entry.port = port;
        entry.seen = now;
        let now_s = self.seconds(now);
        self.stations.learn(station, port.index(), now_s);
        Ok(learned)
    }

    /// How long a silent station is known.
    pub fn age(&self) -> Duration {
        Duration::from_secs(self.stations.age_s().into())
    }

    /// Where the station is, if it was seen lately.
    pub fn locate(&self, station: Station, now: Instant) -> Option<Port> {
        let entry = self.entries.get(&station)?;
        let seen = self.last_seen(station, entry);
        (now.saturating_duration_since(seen) <= self.age()).then_some(entry.port)
    }

    /// Forgets those that were silent for too long.
    pub fn sweep(&mut self, now: Instant) {
        let age = self.age();
        let gone: Vec<_> = self
            .entries
            .iter()
            .filter(|(station, entry)| {
                now.saturating_duration_since(self.last_seen(**station, entry)) > age
            })
            .map(|(station, _)| *station)
            .collect();
        for station in gone {
            self.forget(station);
        }
    }

    /// Forgets every station there: the member left, or its LAN is behind another one now.
    pub fn forget_port(&mut self, port: Port) {
        self.entries.retain(|_, entry| entry.port != port);
        self.counts.remove(&port);
        self.stations.forget(port.index());
    }

    /// How many stations are known there.
    pub fn count(&self, port: Port) -> usize {
        self.counts.get(&port).copied().unwrap_or(0)
    }

    /// Those that are behind members, in order.
    pub fn remote(&self) -> Vec<Station> {
        let mut remote: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.port != Port::Lan)
            .map(|(station, _)| *station)
            .collect();
        remote.sort_unstable();
        remote
    }

    /// Counts a move, and refuses it when there were too many.
    fn consider_move(
        &mut self,
        station: Station,
        claimant: Port,
        now: Instant,
    ) -> Result<(), NotLearned> {
        let Some(entry) = self.entries.get_mut(&station) else {
            return Ok(());
        };
        if !entry.is_held(now) {
            if now.saturating_duration_since(entry.moves_since) > MOVES_WITHIN {
                (entry.moves, entry.moves_since) = (0, now);
            }
            entry.moves += 1;
            if entry.moves <= MOVES {
                return Ok(());
            }
        }
        let is_new = !entry.is_held(now);
        if is_new {
            entry.held_until = Some(now + HOLD_DOWN);
            entry.moves = 0;
        }
        Err(NotLearned::Duplicate {
            station,
            holder: entry.port,
            claimant,
            is_new,
        })
    }

    fn has_room(&self, port: Port, is_new: bool) -> Result<(), NotLearned> {
        let limit = match port {
            Port::Lan => self.limits.lan,
            Port::Member(_) => self.limits.member,
        };
        if self.count(port) >= limit {
            return Err(NotLearned::TooMany { port, limit });
        }
        if is_new && self.entries.len() >= self.limits.total {
            let limit = self.limits.total;
            return Err(NotLearned::TooMany { port, limit });
        }
        Ok(())
    }

    fn forget(&mut self, station: Station) {
        if let Some(entry) = self.entries.remove(&station) {
            self.discount(entry.port);
            self.stations.forget_station(station);
        }
    }

    fn discount(&mut self, port: Port) {
        if let Some(count) = self.counts.get_mut(&port) {
            *count -= 1;
        }
    }

    /// When it was seen last, by this table or by the threads.
    fn last_seen(&self, station: Station, entry: &Entry) -> Instant {
        let by_threads = self
            .stations
            .last_seen(station)
            .filter(|(index, _): &(PeerIndex, u32)| *index == entry.port.index())
            .map(|(_, seen_s)| self.started + Duration::from_secs(seen_s.into()));
        by_threads.map_or(entry.seen, |seen| seen.max(entry.seen))
    }

    fn seconds(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.started).as_secs() as u32
    }
}

#[cfg(test)]
mod tests;
