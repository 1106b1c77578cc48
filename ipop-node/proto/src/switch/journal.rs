//! The alarms of late, for whoever asks how the switch is.

use super::alarm::Alarm;
use crate::journal::Noted;

/// Alarms of members and of the LAN.
pub type Journal = crate::journal::Journal<Alarm>;

impl Noted for Alarm {
    const MOST: usize = 256;

    fn origin(&self) -> &str {
        &self.origin
    }

    fn trouble(&self) -> String {
        self.trouble.to_string()
    }

    fn holder(&self) -> Option<String> {
        self.holder.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::alarm::Trouble;
    use super::super::port::Port;
    use super::super::storm::{Flood, Storm};
    use super::*;
    use crate::journal::MOST_OF_ONE;

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
        assert_eq!(journal.status(now).len(), Alarm::MOST);
    }
}
