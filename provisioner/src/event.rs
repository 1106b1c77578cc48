//! What happens to a deployment, as it happens. `--json` prints one event a line; on a terminal
//! the same events move progress bars.

use serde::Serialize;

use crate::name::NodeName;

/// The stages of a node, in order. A node has *joined* when it reached the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The image of its role is there.
    Image,
    /// Its machine was made and started.
    Created,
    /// Its system came up.
    Booted,
    /// It signed in to the rendezvous.
    SignedIn,
    /// It has a link to the front end (the front end: to every worker that signed in).
    Linked,
    /// Its role's health check passed.
    Ready,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A step that belongs to no single node.
    Step {
        /// What is being done.
        message: String,
    },
    /// A node reached a stage.
    Stage {
        /// The node.
        node: NodeName,
        /// What it reached.
        stage: Stage,
        /// Seconds since the command began.
        seconds: f64,
    },
    /// Progress within a long step.
    Progress {
        /// The step (`image worker: packages`).
        what: String,
        /// Units done.
        done: u64,
        /// Units in all, 0 when not known.
        total: u64,
    },
    /// Something is off but the work goes on.
    Warning {
        /// What.
        message: String,
    },
}

/// Where events go. Implemented by the reports; tests collect into a vector.
pub trait Sink: Send + Sync {
    /// Takes one event. Must not block for long.
    fn emit(&self, event: Event);
}

impl<F: Fn(Event) + Send + Sync> Sink for F {
    fn emit(&self, event: Event) {
        self(event);
    }
}
