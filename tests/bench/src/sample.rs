//! What was measured: plain data, kept as JSON, from which the report is made.

use serde::{Deserialize, Serialize};

use crate::activity::Disturbance;
use crate::datagrams::Step;
use crate::echo::RoundTrips;
use crate::machine::Machine;
use crate::tcp::Bulk;
use crate::tunnel::Subject;

/// Everything of one run of the benchmark.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Where.
    pub machine: Machine,
    /// What else it did meanwhile.
    pub disturbance: Disturbance,
    /// How many rounds were asked for.
    pub rounds: u32,
    /// Seconds of a measurement.
    pub seconds: u32,
    /// What was compared, in the order of the report; also what is not installed.
    pub subjects: Vec<Subject>,
    /// What came out.
    pub samples: Vec<Sample>,
}

/// One subject in one round.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sample {
    /// [`Subject::name`].
    pub subject: String,
    /// Counted from 1.
    pub round: u32,
    /// MTU of the overlay's interface.
    pub mtu: Option<u32>,
    /// From the start of both sides to the first echo reply.
    pub first_reply_ms: Option<f64>,
    /// With the underlay as the kernel sets it up.
    pub offload: Transfers,
    /// Without segmentation offload on the underlay.
    pub plain: Transfers,
    /// Small UDP packets, for each offered rate.
    pub datagrams: Vec<Step>,
    /// Nothing else under way.
    pub idle: Option<RoundTrips>,
    /// While one TCP stream runs.
    pub loaded: Option<RoundTrips>,
    /// Bytes of resident memory of each daemon at the end.
    pub memory: Option<[u64; 2]>,
    /// The most there was.
    pub memory_peak: Option<[u64; 2]>,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
}

/// Bulk TCP.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Transfers {
    /// One stream.
    pub one: Option<Bulk>,
    /// One stream, the other way.
    pub one_reverse: Option<Bulk>,
    /// Four streams.
    pub four: Option<Bulk>,
    /// Four streams, the other way.
    pub four_reverse: Option<Bulk>,
}

impl Sample {
    /// The most small packets a second that arrived.
    pub fn packets_per_second(&self) -> Option<f64> {
        let received = self.datagrams.iter().map(|step| step.received);
        received.reduce(f64::max)
    }
}
