//! What a machine's processors do: of `/proc`, at two moments.

use crate::sample::Load;

/// Writes what [`Ticks::of`] reads.
pub const PROBE: &str = "head -n 1 /proc/stat; \
    cat /proc/$(systemctl show --property MainPID --value ipop-node)/stat; nproc";

/// Up to a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ticks {
    /// Of all processors, busy and idle, in ticks.
    all: f64,
    idle: f64,
    /// Of ipop-node, in ticks.
    node: f64,
    /// Processors.
    count: f64,
}

impl Ticks {
    /// Of what [`PROBE`] wrote.
    pub fn of(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let stat: Vec<f64> = lines
            .next()?
            .split_whitespace()
            .skip(1)
            .filter_map(|field| field.parse().ok())
            .collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
        let all = stat.get(..8)?.iter().sum();
        let (idle, waiting) = (stat.get(3)?, stat.get(4)?);
        Some(Self {
            all,
            idle: idle + waiting,
            node: process_ticks(lines.next()?)?,
            count: lines.next()?.trim().parse().ok()?,
        })
    }

    /// What happened since an earlier moment.
    pub fn since(&self, earlier: &Self) -> Option<Load> {
        let all = self.all - earlier.all;
        (all > 0.0).then(|| Load {
            busy: 1.0 - (self.idle - earlier.idle) / all,
            node: (self.node - earlier.node) / all * self.count,
        })
    }
}

/// User and system time of a process in ticks, of its `/proc/PID/stat`.
pub fn process_ticks(stat: &str) -> Option<f64> {
    // The name of the program is in parentheses and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // proc(5) counts from 1, and two fields are gone: utime is the 14th.
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some(ticks(11)? + ticks(12)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(stat: &str, node: (u32, u32)) -> Ticks {
        let (user, system) = node;
        let process =
            format!("311 (ipop-node) S 1 311 311 0 -1 4 1 0 0 0 {user} {system} 0 0 20 0 1");
        Ticks::of(&format!("cpu  {stat}\n{process}\n2\n")).expect("a probe")
    }

    #[test]
    fn load_is_what_happened_in_between() {
        let before = ticks("100 0 100 1000 0 0 0 0 0 0", (10, 10));
        // 200 ticks of two processors: 150 busy, 50 idle or waiting; 60 of them ipop-node's.
        let after = ticks("150 0 150 1040 10 0 50 0 0 0", (40, 40));
        let load = after.since(&before).expect("a load");
        assert!((load.busy - 0.75).abs() < 1e-9, "{load:?}");
        assert!((load.node - 0.6).abs() < 1e-9, "{load:?}");
        assert_eq!(after.since(&after), None);
    }

    #[test]
    fn a_probe_that_lacks_something_is_none() {
        assert_eq!(Ticks::of(""), None);
        assert_eq!(Ticks::of("cpu 1 2 3 4 5 6 7 8 0 0\n"), None);
        assert_eq!(
            process_ticks("1 (a) b) S 1 1 1 0 -1 4 1 0 0 0 7 8 0"),
            Some(15.0)
        );
    }
}
