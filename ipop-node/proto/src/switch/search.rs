//! Looking for a station that nobody is known to have.
//!
//! Frames for it wait while the members are asked. The first that has it gets them; when none has,
//! or the answers do not come in time, they go to everybody, for the station may have been silent so
//! far. What comes for it in the next [`KNOWN_SILENT`] goes to everybody at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipop_datapath::stations::{PeerIndex, Station};

/// How long answers are waited for.
pub const ANSWER: Duration = Duration::from_millis(200);
/// How long nobody is asked again after nobody had it.
pub const KNOWN_SILENT: Duration = Duration::from_secs(2);
/// Most stations that are looked for at the same time.
const MOST_STATIONS: usize = 256;
/// Most frames that wait for one station. A host sends few before the first answer.
const MOST_FRAMES: usize = 8;
/// Most bytes that wait for all of them.
const MOST_BYTES: usize = 1 << 20;

/// What is to be done with a frame for an unknown station.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sought {
    /// It waits. Ask the members.
    Ask,
    /// It waits. They have been asked.
    Waits,
    /// It cannot wait, or there is no use in it: it goes to everybody.
    Flood(Bytes),
    /// Too many wait for that station already.
    Dropped,
}

/// The stations that are looked for.
#[derive(Debug, Default)]
pub struct Search {
    sought: BTreeMap<Station, Asked>,
    silent: BTreeMap<Station, Instant>,
    bytes: usize,
}

#[derive(Debug)]
struct Asked {
    until: Instant,
    /// Those that have not answered yet.
    members: BTreeSet<PeerIndex>,
    frames: Vec<Bytes>,
}

impl Search {
    /// A frame for a station that is not known. `members` are those that can be asked.
    pub fn look_for(
        &mut self,
        station: Station,
        frame: Bytes,
        members: impl IntoIterator<Item = PeerIndex>,
        now: Instant,
    ) -> Sought {
        if self.silent.get(&station).is_some_and(|until| now < *until) {
            return Sought::Flood(frame);
        }
        let has_room = self.bytes + frame.len() <= MOST_BYTES;
        if let Some(asked) = self.sought.get_mut(&station) {
            if !has_room || asked.frames.len() >= MOST_FRAMES {
                return Sought::Dropped;
            }
            self.bytes += frame.len();
            asked.frames.push(frame);
            return Sought::Waits;
        }
        let members: BTreeSet<_> = members.into_iter().collect();
        if !has_room || self.sought.len() >= MOST_STATIONS || members.is_empty() {
            return Sought::Flood(frame);
        }
        self.bytes += frame.len();
        let asked = Asked {
            until: now + ANSWER,
            members,
            frames: vec![frame],
        };
        self.sought.insert(station, asked);
        Sought::Ask
    }

    /// Whether `member` was asked for the station and did not answer yet: nothing else is believed.
    pub fn is_asked(&self, station: Station, member: PeerIndex) -> bool {
        let asked = self.sought.get(&station);
        asked.is_some_and(|asked| asked.members.contains(&member))
    }

    /// The station was found: what waits for it.
    pub fn found(&mut self, station: Station) -> Vec<Bytes> {
        self.silent.remove(&station);
        self.take(station)
    }

    /// The member does not have it. When it was the last one to say so, what is to go to everybody.
    pub fn not_there(&mut self, station: Station, member: PeerIndex, now: Instant) -> Vec<Bytes> {
        let Some(asked) = self.sought.get_mut(&station) else {
            return Vec::new();
        };
        asked.members.remove(&member);
        if !asked.members.is_empty() {
            return Vec::new();
        }
        self.give_up(station, now)
    }

    /// The member left, and will not answer: what is to go to everybody, by station.
    pub fn left(&mut self, member: PeerIndex, now: Instant) -> Vec<(Station, Vec<Bytes>)> {
        let sought: Vec<_> = self.sought.keys().copied().collect();
        sought
            .into_iter()
            .map(|station| (station, self.not_there(station, member, now)))
            .filter(|(_, frames)| !frames.is_empty())
            .collect()
    }

    /// Nobody is looked for any more: what waited.
    pub fn clear(&mut self) -> Vec<Bytes> {
        let sought = std::mem::take(self).sought;
        sought
            .into_values()
            .flat_map(|asked| asked.frames)
            .collect()
    }

    /// What waited for long enough, by station: it is to go to everybody.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<(Station, Vec<Bytes>)> {
        self.silent.retain(|_, until| now < *until);
        let late = self.sought.iter().filter(|(_, asked)| asked.until <= now);
        let late: Vec<_> = late.map(|(station, _)| *station).collect();
        late.into_iter()
            .map(|station| (station, self.give_up(station, now)))
            .collect()
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sought.values().map(|asked| asked.until).min()
    }

    fn give_up(&mut self, station: Station, now: Instant) -> Vec<Bytes> {
        if self.silent.len() < MOST_STATIONS {
            self.silent.insert(station, now + KNOWN_SILENT);
        }
        self.take(station)
    }

    fn take(&mut self, station: Station) -> Vec<Bytes> {
        let frames = self.sought.remove(&station);
        let frames = frames.map_or_else(Vec::new, |asked| asked.frames);
        self.bytes -= frames.iter().map(Bytes::len).sum::<usize>();
        frames
    }
}

#[cfg(test)]
mod tests;
