//! Amazon EC2: an AMI made from the role's image by the EBS direct APIs, and instances that enrol
//! themselves.
//!
//! Everything that is made is tagged in the creating call ([`tags`]), named by the plan
//! ([`plan`]), and can be asked for again: each kind's module looks for what is there before it
//! makes anything. The SDK is asynchronous and retries nothing here; [`api`] is the only place
//! that repeats a call, so that no wait is hidden in another.

pub mod config;

#[cfg(feature = "ec2")]
mod api;
#[cfg(feature = "ec2")]
mod blocks;
#[cfg(feature = "ec2")]
mod check;
#[cfg(feature = "ec2")]
mod cost;
#[cfg(feature = "ec2")]
mod error;
#[cfg(feature = "ec2")]
mod find;
#[cfg(feature = "ec2")]
mod group;
#[cfg(feature = "ec2")]
mod image;
#[cfg(feature = "ec2")]
mod instance;
#[cfg(feature = "ec2")]
mod plan;
#[cfg(feature = "ec2")]
mod provider;
#[cfg(feature = "ec2")]
mod resume;
#[cfg(feature = "ec2")]
mod snapshot;
#[cfg(feature = "ec2")]
mod tags;
#[cfg(feature = "ec2")]
mod upload;
#[cfg(feature = "ec2")]
mod user_data;

use std::path::Path;

#[cfg(feature = "ec2")]
pub use self::provider::Ec2;

use self::config::Ec2Site;
use super::Provider;
use crate::error::CliError;

/// The site as a provider. `cache` is the cache directory: what an upload remembers is kept in a
/// folder of its own there. Calls no server.
#[cfg(feature = "ec2")]
pub fn open(site: &Ec2Site, cache: &Path) -> Result<Box<dyn Provider>, CliError> {
    Ok(Box::new(Ec2::new(site.clone(), cache)?))
}

/// Without the feature `ec2` there is an error instead of the site.
#[cfg(not(feature = "ec2"))]
pub fn open(site: &Ec2Site, _cache: &Path) -> Result<Box<dyn Provider>, CliError> {
    Err(CliError::new(
        crate::error::ExitCode::Missing,
        format!(
            "this `provision` was built without Amazon EC2, region {} cannot be used",
            site.region
        ),
    )
    .hint("build it with the cargo feature `ec2`, which is on by default"))
}
