//! What was measured: plain data, kept as JSON, from which the report is made.

use ipop_bench::activity::Disturbance;
use ipop_bench::machine::Machine;
use serde::{Deserialize, Serialize};

use crate::way::Way;

/// Everything of one run of the benchmark.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Where.
    pub machine: Machine,
    /// What else that machine did meanwhile.
    pub disturbance: Disturbance,
    /// Client and server.
    pub guests: Guests,
    /// How many rounds were asked for.
    pub rounds: u32,
    /// Seconds of one of fio's jobs.
    pub seconds: u32,
    /// Files of the metadata's measurement.
    pub files: u32,
    /// What came out, in the order in which it was measured.
    pub turns: Vec<Turn>,
}

/// What the two machines are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Guests {
    /// How they are run, as `systemd-detect-virt` names it: `qemu` is emulation.
    pub virtualization: String,
    /// Kernel release.
    pub kernel: String,
    /// Virtual processors of each.
    pub cpus: u32,
    /// Memory of each, as `provision` was told.
    pub memory: String,
    /// The version of fio.
    pub fio: String,
    /// The version of ipop-node.
    pub node: String,
}

/// One way in one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Turn {
    /// Which way.
    pub way: Way,
    /// Counted from 1.
    pub round: u32,
    /// MTU of the interface that the way goes by.
    pub mtu: u32,
    /// What the kernel agreed with the server on, of /proc/mounts.
    pub mount: String,
    /// Round-trip times in milliseconds, in their order.
    pub echoes_ms: Vec<f64>,
    /// fio's jobs and the loop over many files.
    pub works: Vec<Work>,
}

/// One piece of work by one way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Work {
    /// Its name, of [`crate::job::JOBS`] or [`crate::job::PHASES`].
    pub name: String,
    /// MiB or operations in a second.
    pub rate: f64,
    /// What the processors did meanwhile; the phases of the loop over files have that of all phases.
    pub load: [Load; 2],
}

/// What one machine's processors did: the client's, then the server's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The part of all its processors' time in which they were busy, 0 to 1.
    pub busy: f64,
    /// The part of one processor that ipop-node used, from 0 on.
    pub node: f64,
}
