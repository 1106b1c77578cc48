//! The alarms of late, for whoever asks how the switch is.

use std::collections::VecDeque;
use std::time::Instant;

use super::alarm::Alarm;
use crate::status::AlarmStatus;

/// Most different alarms that are kept of one place, so that none hides another's.
const MOST_OF_ONE: usize = 8;
/// Most that are kept.
const MOST: usize = 256;

/// Alarms, each once, in the order in which they were raised last.
#[derive(Debug, Default)]
pub struct Journal {
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    alarm: Alarm,
    at: Instant,
    count: u64,
}

impl Journal {
    /// Takes note of an alarm. When there are too many, the oldest of the same place goes.
    pub fn note(&mut self, alarm: Alarm, now: Instant) {
        let known = self.entries.iter().position(|entry| entry.alarm == alarm);
        let before = known.and_then(|at| self.entries.remove(at));
        let of_one = |entry: &&Entry| entry.alarm.origin == alarm.origin;
        if self.entries.iter().filter(of_one).count() >= MOST_OF_ONE {
            let oldest = self.entries.iter().position(|entry| of_one(&entry));
            oldest.and_then(|at| self.entries.remove(at));
        }
        if self.entries.len() >= MOST {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry {
            alarm,
            at: now,
            count: before.map_or(1, |before| before.count + 1),
        });
    }

    /// As `status` shows them, the newest last.
    pub fn status(&self, now: Instant) -> Vec<AlarmStatus> {
        let shown = |entry: &Entry| AlarmStatus {
            origin: entry.alarm.origin.clone(),
            trouble: entry.alarm.trouble.to_string(),
            holder: entry.alarm.holder.clone(),
            age_ms: now
                .saturating_duration_since(entry.at)
                .as_millis()
                .try_into()
                .unwrap_or(u64::MAX),
            count: entry.count,
        };
        self.entries.iter().map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::alarm::Trouble;
    use super::super::port::Port;
    use super::super::storm::{Flood, Storm};
    use super::*;

    fn alarm(origin: &str, number: u16) -> Alarm {
        Alarm {
            origin: origin.to_owned(),
            trouble: Trouble::Spoofed {
                station: [2, 0, 0, 0, 0, 1].into(),
                ip: std::net::Ipv4Addr::from(u32::from(number)).into(),
            },
            holder: None,
        }
    }

    #[test]
    fn what_happens_again_is_kept_once_with_how_often_and_when_last() {
        let start = Instant::now();
        let mut journal = Journal::default();
        journal.note(alarm("a", 1), start);
        journal.note(alarm("a", 2), start);
        journal.note(alarm("a", 1), start + Duration::from_secs(70));
        let shown = journal.status(start + Duration::from_secs(71));
        let summary: Vec<_> = shown.iter().map(|a| (a.count, a.age_ms)).collect();
        assert_eq!(summary, [(1, 71_000), (2, 1000)]);
        assert!(shown[1].trouble.contains("0.0.0.1"), "{shown:?}");
    }

    #[test]
    fn one_that_makes_much_trouble_hides_nobody_elses() {
        let now = Instant::now();
        let mut journal = Journal::default();
        let storm = Storm {
            port: Port::Member(1),
            flood: Flood::Broadcast,
        };
        let quiet = Alarm {
            origin: "quiet".to_owned(),
            trouble: storm.into(),
            holder: None,
        };
        journal.note(quiet, now);
        for number in 0..1000 {
            journal.note(alarm("loud", number), now);
        }
        let shown = journal.status(now);
        assert_eq!(shown.len(), 1 + MOST_OF_ONE);
        assert_eq!(shown[0].origin, "quiet");
        for member in 0..1000 {
            journal.note(alarm(&format!("member-{member}"), 1), now);
        }
        assert_eq!(journal.status(now).len(), MOST);
    }
}
