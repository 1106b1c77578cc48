//! Who gives the workers' time to jobs.

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::{Deserialize, Serialize};

use crate::error::{CliError, ExitCode};
use crate::site::Site;

/// The scheduler of a deployment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduler {
    /// Nobody: users sign in to workers.
    #[default]
    None,
    /// Slurm, with its controller on the front end; users and homes are the front end's.
    Slurm,
}

// By hand: a derived one gives each value a help of its own, and that makes all help long.
impl ValueEnum for Scheduler {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::None, Self::Slurm]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::None => "none",
            Self::Slurm => "slurm",
        }))
    }
}

impl Scheduler {
    /// The content of the credential that has the images start it.
    pub fn credential(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Slurm => Some("slurm\n"),
        }
    }

    /// Refuses a site whose machines do not have it: it is in the images, and machines with a system
    /// of their own are left as they are.
    pub fn check(self, site: &Site) -> Result<(), CliError> {
        if self == Self::None || site.kind.starts_from_images() {
            return Ok(());
        }
        let message = format!(
            "site `{}` cannot be part of a cluster with a scheduler: its machines have a system of \
             their own",
            site.name
        );
        Err(CliError::new(ExitCode::Usage, message)
            .hint("take sites of kind libvirt or ec2, or of kind cloudlab with `vms_per_machine`")
            .hint("or leave out --scheduler"))
    }
}
