//! What can be done with a volume of data that is there, besides making, finding and removing it.

use std::time::Instant;

use super::{Resource, Tags};
use crate::deploy::interrupt::Interrupt;
use crate::error::CliError;
use crate::event::Sink;
use crate::name::NodeName;

/// A volume of kind [`DATA`](super::DATA), and how long work with it may take.
pub struct AtVolume<'a> {
    /// The deployment.
    pub tags: &'a Tags,
    /// The node whose data it has.
    pub node: &'a NodeName,
    /// The volume.
    pub resource: &'a Resource,
    /// When the call must have returned.
    pub deadline: Instant,
    /// Set when the user wants to stop.
    pub interrupt: &'a Interrupt,
    /// Where progress goes.
    pub events: &'a dyn Sink,
}

/// A site whose machines can have volumes that outlive them. Methods block, as those of
/// [`Provider`](super::Provider).
pub trait Volumes: Send + Sync {
    /// Gives a volume room for `size_bytes` in all, and never less than it has: also while its machine runs,
    /// which then sees a larger disk. The file system on it is the machine's own affair.
    fn grow(&self, at: &AtVolume<'_>, size_bytes: u64) -> Result<(), CliError>;

    /// What a snapshot is called, and none of a volume that is no snapshot. Snapshots are volumes of kind
    /// [`DATA`](super::DATA) as well, found and removed as those; one that is not whole is
    /// [`Health::Broken`](super::Health::Broken). Pure.
    fn label(&self, resource: &Resource) -> Option<String>;

    /// Copies a volume as it is at one moment, also while its machine runs: then it is what a power failure at
    /// that moment would have left. A whole snapshot of that label is never replaced.
    fn snapshot(&self, at: &AtVolume<'_>, label: &str) -> Result<(), CliError>;

    /// Makes the node's data a copy of a snapshot, which `at` names, with room for `size_bytes` at least. Its machine
    /// is stopped for that as a power failure does it, and does not run after.
    fn restore(&self, at: &AtVolume<'_>, size_bytes: u64) -> Result<(), CliError>;

    /// Starts the node's machine, if it is there and does not run.
    fn serve(&self, at: &AtVolume<'_>) -> Result<(), CliError>;
}
