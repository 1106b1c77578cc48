//! What the provider asks of a testbed, whatever the protocol: the Portal REST API is one
//! ([`super::portal`]); GENI AM v3, where allocation, provisioning and start are calls of their
//! own, can be another.

use std::time::{Instant, SystemTime};

use crate::error::CliError;
use crate::provider::{CheckLine, Tags};

/// An experiment that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Name, unique in the project.
    pub name: String,
    /// Whose it is; goes with it in the creating call.
    pub tags: Tags,
    /// Machines.
    pub count: u32,
    /// A public key that may log in, besides those of the testbed's user.
    pub public_key: Option<String>,
}

/// How far something is. What a testbed says in unknown words is pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// On its way; in the testbed's words.
    Pending(String),
    /// It serves.
    Ready,
    /// It will not serve; why, in the testbed's words.
    Failed(String),
    /// It is being taken away.
    Going,
}

/// A machine of an experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Name within the experiment (`node0`).
    pub name: String,
    /// Cluster.
    pub cluster: String,
    /// Host name, for people.
    pub hostname: Option<String>,
    /// Where SSH reaches it.
    pub address: Option<String>,
    /// How far it is.
    pub phase: Phase,
}

/// An experiment as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experiment {
    /// The testbed's identifier.
    pub id: String,
    /// Name.
    pub name: String,
    /// Whose it is; none for those of other tools.
    pub tags: Option<Tags>,
    /// Machines asked for.
    pub count: u32,
    /// How far it is as a whole.
    pub phase: Phase,
    /// When the testbed ends it.
    pub ends: Option<SystemTime>,
    /// Its machines, those that the testbed has chosen so far.
    pub hosts: Vec<Host>,
}

/// What came of asking for more time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extension {
    /// The end it has now, which may be the old one while somebody has to approve.
    Granted(Option<SystemTime>),
    /// No, in the testbed's words.
    Refused(String),
}

/// A testbed. Every call returns by its deadline.
pub trait Testbed: Send + Sync {
    /// Creates an experiment and does not wait for its machines.
    fn create(&self, order: &Order, deadline: Instant) -> Result<Experiment, CliError>;

    /// The experiment of this name in the site's project.
    fn named(&self, name: &str, deadline: Instant) -> Result<Option<Experiment>, CliError>;

    /// The experiment of this identifier.
    fn status(&self, id: &str, deadline: Instant) -> Result<Option<Experiment>, CliError>;

    /// All experiments of the project that carry tags.
    fn list(&self, deadline: Instant) -> Result<Vec<Experiment>, CliError>;

    /// Asks for another number of machines; those that are there stay.
    fn resize(&self, id: &str, order: &Order, deadline: Instant) -> Result<(), CliError>;

    /// Asks for more hours.
    fn extend(
        &self,
        id: &str,
        hours: u32,
        reason: &str,
        deadline: Instant,
    ) -> Result<Extension, CliError>;

    /// Begins to end an experiment; one that is gone is no error.
    fn delete(&self, id: &str, deadline: Instant) -> Result<(), CliError>;

    /// Tries token, project, profile and clock.
    fn check(&self, deadline: Instant) -> Vec<CheckLine>;
}
