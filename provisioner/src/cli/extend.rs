//! `provision extend`: gives a deployment more time, or no end.

use std::time::{Duration, SystemTime};

use clap::Args;
use serde::Serialize;

use super::Context;
use super::context::no_such_deployment;
use crate::error::CliError;
use crate::keep::plan::{is_over, remaining};
use crate::keep::{Keeper, over};
use crate::report::Report;
use crate::size::duration;
use crate::state::record::Phase;

const EXAMPLES: &str = "\
Examples:
  provision extend cluster --ttl 4h     destroy it in four hours from now
  provision extend cluster --no-ttl     leave it until somebody destroys it";

/// Change when a deployment is destroyed by itself
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExtendArgs {
    /// The deployment
    pub name: String,
    /// Destroy it when this time has passed from now
    #[arg(long, value_name = "TIME", value_parser = duration, required_unless_present = "no_ttl")]
    pub ttl: Option<Duration>,
    /// Do not destroy it
    #[arg(long, conflicts_with = "ttl")]
    pub no_ttl: bool,
}

#[derive(Debug, Serialize)]
struct Extended {
    name: String,
    remaining_seconds: Option<u64>,
    kept: Option<Keeper>,
}

/// Runs the command.
pub fn run(context: &Context, args: ExtendArgs) -> Result<u8, CliError> {
    let database = context.database()?;
    let name = args.name;
    context.deployment(&database, &name)?;
    let now = SystemTime::now();
    let Some((_lock, deployment)) = context.locked(&database, &name)? else {
        return Err(no_such_deployment(&name, &Default::default()));
    };
    if deployment.phase == Phase::Destroying || is_over(deployment.expires, now) {
        return Err(over(&name, deployment.phase));
    }
    let expires = args.ttl.map(|ttl| now + ttl);
    database.set_expiry(deployment.id, expires)?;
    let keeper = context.keep(&deployment)?.start(expires)?;
    let extended = Extended {
        name,
        remaining_seconds: args.ttl.map(|ttl| ttl.as_secs()),
        kept: expires.map(|_| keeper),
    };
    Report::new(context.mode(), &[]).finish(&extended, |e| match (&e.kept, expires) {
        (Some(keeper), Some(expires)) => format!(
            "`{}` is destroyed in {} {}\n",
            e.name,
            remaining(expires, now),
            keeper.words(&e.name)
        ),
        _ => format!("`{}` is not destroyed by itself\n", e.name),
    });
    Ok(0)
}
