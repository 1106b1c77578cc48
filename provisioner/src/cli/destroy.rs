//! `provision destroy`: removes a deployment.

use clap::Args;

use super::Context;
use super::context::no_such_deployment;
use crate::deploy::destroy::{Removal, destroy};
use crate::deploy::real::Real;
use crate::deploy::settings::Settings;
use crate::error::CliError;
use crate::report::Report;

const EXAMPLES: &str = "\
Examples:
  provision destroy cluster

Removes machines, disks, networks, accounts, the roster group, the rendezvous, keys and logs. What
cannot be removed is named, the exit code is then 10, and the command can be run again. Destroying
what is already destroyed is no error.";

/// Remove a deployment and everything it made.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DestroyArgs {
    /// The deployment
    pub name: String,
}

/// Runs the command.
pub fn run(context: &Context, args: DestroyArgs) -> Result<u8, CliError> {
    let database = context.database()?;
    let name = args.name;
    if database.deployment(&name)?.is_none() {
        if !database.was_destroyed(&name)? {
            let names = database
                .deployments()?
                .into_iter()
                .map(|d| d.name)
                .collect();
            return Err(no_such_deployment(&name, &names));
        }
        return Ok(nothing_left(context, name));
    }
    let Some((_lock, deployment)) = context.locked(&database, &name)? else {
        return Ok(nothing_left(context, name));
    };
    let settings = Settings::of(&deployment)?;
    let nodes = database
        .nodes(deployment.id)?
        .into_iter()
        .map(|n| n.name)
        .collect();
    let real = Real {
        layout: &context.layout,
        name: &name,
        settings: &settings,
        nodes,
    };
    let report = Report::new(context.mode(), &[]);
    let removal = destroy(&context.layout, &database, &deployment, &real, &report)?;
    report.finish(&removal, text);
    removal.check().map(|()| 0)
}

fn nothing_left(context: &Context, name: String) -> u8 {
    let removal = Removal {
        name,
        ..Removal::default()
    };
    Report::new(context.mode(), &[])
        .finish(&removal, |r| format!("nothing left of `{}`\n", r.name));
    0
}

fn text(removal: &Removal) -> String {
    format!("removed of `{}`: {}\n", removal.name, removal.summary())
}
