//! What else the machine was doing: other work beside the benchmark makes figures worthless, and the
//! report has to say so.

use serde::{Deserialize, Serialize};

/// The share of CPU time from which on it matters what others did.
const QUIET: f64 = 0.03;

/// CPU seconds up to a moment.
#[derive(Debug, Clone, Copy)]
pub struct Activity {
    all: f64,
    processes: f64,
    stolen: f64,
    own: f64,
}

/// Shares of the machine's CPU time in between.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Disturbance {
    /// Used by processes that are not the benchmark's.
    pub others: f64,
    /// Taken by the hypervisor for other guests.
    pub stolen: f64,
}

impl Activity {
    /// Up to now.
    pub fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks: Vec<f64> = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .filter_map(|field| field.parse().ok())
            .collect();
        // SAFETY: sysconf takes a number and touches no memory.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        // user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
        let field = |index: usize| ticks.get(index).copied().unwrap_or_default() / per_second;
        Self {
            all: (0..8).map(field).sum(),
            processes: (0..3).map(field).sum(),
            stolen: field(7),
            own: cpu_seconds(libc::RUSAGE_SELF) + cpu_seconds(libc::RUSAGE_CHILDREN),
        }
    }

    /// What happened since this. Children count when they have ended.
    pub fn until_now(&self) -> Disturbance {
        self.until_now_beside(0.0)
    }

    /// The same where so many CPU seconds more were the benchmark's, of processes that are not its
    /// children.
    pub fn until_now_beside(&self, cpu_seconds: f64) -> Disturbance {
        let now = Self::now();
        let all = (now.all - self.all).max(f64::MIN_POSITIVE);
        let others = (now.processes - self.processes) - (now.own - self.own) - cpu_seconds;
        Disturbance {
            others: (others / all).clamp(0.0, 1.0),
            stolen: (now.stolen - self.stolen) / all,
        }
    }
}

impl Disturbance {
    /// What a report says of it: whether what others did was too little to matter.
    pub fn verdict(&self) -> &'static str {
        if self.others.max(self.stolen) < QUIET {
            "the machine was quiet"
        } else {
            "**it was not quiet, and these figures are not to be trusted**"
        }
    }
}

fn cpu_seconds(of: libc::c_int) -> f64 {
    // SAFETY: all zeros is a valid rusage, and getrusage only writes to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(of, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
