//! How a launch ended.

use ipop_proto::candidate::CandidateKind;
use serde::Serialize;

use crate::event::Stage;
use crate::name::NodeName;

/// How a launch ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Deployment.
    pub name: String,
    /// Whether every node joined.
    pub joined: bool,
    /// Seconds from the command's start to its end.
    pub seconds: f64,
    /// Its nodes, the front end first.
    pub nodes: Vec<NodeOutcome>,
}

/// How one node ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeOutcome {
    /// Name.
    pub name: NodeName,
    /// Role.
    pub role: String,
    /// Site.
    pub site: String,
    /// IPv4 overlay address.
    pub ipv4: String,
    /// IPv6 overlay address.
    pub ipv6: String,
    /// Kind of its link to the front end.
    pub link: Option<CandidateKind>,
    /// Round-trip time to the front end in microseconds.
    pub rtt_us: Option<u64>,
    /// Seconds from the command's start to having joined.
    pub joined_seconds: Option<f64>,
    /// Where it is stuck, if it did not join.
    pub stuck: Option<Stuck>,
}

/// A node that did not join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stuck {
    /// The last stage it reached.
    pub reached: Option<Stage>,
    /// What is known of why it went no further.
    pub why: String,
    /// The end of its console.
    pub console: Vec<String>,
}
