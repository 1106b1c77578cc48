//! How a launch ended.

use ipop_proto::candidate::CandidateKind;
use serde::Serialize;

use crate::event::Stage;
use crate::name::NodeName;
use crate::plan::NodePlan;

/// How a launch ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Deployment.
    pub name: String,
    /// Whether every node joined.
    pub joined: bool,
    /// Whether as many joined as were asked for, or nobody waited for them.
    pub enough: bool,
    /// Whether anybody waited.
    pub waited: bool,
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

impl NodeOutcome {
    /// A node of which nothing is known but its plan.
    pub fn of(plan: &NodePlan) -> Self {
        Self {
            name: plan.name.clone(),
            role: plan.image.clone(),
            site: plan.site.clone(),
            ipv4: plan.addrs.ipv4.addr.to_string(),
            ipv6: plan.addrs.ipv6.addr.to_string(),
            link: None,
            rtt_us: None,
            joined_seconds: None,
            stuck: None,
        }
    }

    /// With its link to the front end.
    #[must_use]
    pub fn with_link(self, link: Option<CandidateKind>, rtt_us: Option<u64>) -> Self {
        Self {
            link,
            rtt_us,
            ..self
        }
    }

    /// With how it ended.
    #[must_use]
    pub fn with_end(self, joined_seconds: Option<f64>, stuck: Option<Stuck>) -> Self {
        Self {
            joined_seconds,
            stuck,
            ..self
        }
    }
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
