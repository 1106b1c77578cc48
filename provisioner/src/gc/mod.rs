//! `provision gc`: finds what deployments left behind, from tags alone, and removes it.
//!
//! ```text
//! sites, rendezvous, this machine ──▶ look ──▶ Sightings ─┐
//!                                                         ├─▶ plan ──▶ Groups ──▶ remove
//! database (or none) ───────────────────────▶ Known ──────┘
//! ```
//!
//! A thing is left over when the deployment in its tags is not recorded and nothing that is
//! recorded uses it. Who made it is in its tags: what another installation made is shown and left
//! alone unless the user says otherwise, and what has no tags is only ever shown, unless named.
//!
//! Looking comes before reading the database: everything is recorded before it is made, so
//! whatever was seen and is not recorded afterwards belongs to nobody. After removing, it is looked
//! again for what came late.

pub mod late;
pub mod look;
pub mod plan;
pub mod remove;

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use crate::provider::Found;

/// Where a thing was seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// A site of `sites.toml`.
    Site(String),
    /// The rendezvous of `sites.toml` that somebody else runs.
    Rendezvous,
    /// This machine: processes and directories.
    Machine,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site(site) => write!(f, "site {site}"),
            Self::Rendezvous => f.write_str("rendezvous"),
            Self::Machine => f.write_str("this machine"),
        }
    }
}

/// Something that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sighting {
    /// Where.
    pub place: Place,
    /// What.
    #[serde(flatten)]
    pub found: Found,
    /// When it was made, where that is known.
    #[serde(skip)]
    pub made: Option<SystemTime>,
}

impl fmt::Display for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resource = &self.found.resource;
        write!(f, "{} `{}`", resource.kind, resource.id)?;
        if let Some(handle) = self.found.handle.as_ref().filter(|h| **h != resource.id) {
            write!(f, " ({handle})")?;
        }
        write!(f, " on {}", self.place)
    }
}
