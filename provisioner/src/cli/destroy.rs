//! `provision destroy`: removes a deployment.

use std::collections::BTreeMap;
use std::time::Instant;

use clap::Args;

use super::context::no_such_deployment;
use super::{Context, apply};
use crate::deploy::destroy::Removal;
use crate::deploy::engine::{Engine, Opened};
use crate::deploy::interrupt::Interrupt;
use crate::deploy::real::Real;
use crate::deploy::settings::Settings;
use crate::error::CliError;
use crate::power::Directory;
use crate::report::Report;
use crate::state::Database;
use crate::state::lock::Lock;
use crate::state::record::Deployment;

/// How often what works on elastic workers is ended before the lock is given up.
const TRIES: u32 = 3;

const EXAMPLES: &str = "\
Examples:
  provision destroy cluster
  provision destroy cluster --dry-run

Removes machines, disks, networks, accounts, the roster group, the rendezvous, keys and logs. What
cannot be removed is named, the exit code is then 10, and the command can be run again. Destroying
what is already destroyed is no error.";

/// Remove a deployment and everything it made.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DestroyArgs {
    /// The deployment
    pub name: String,
    /// Show what would be removed, and do nothing
    #[arg(long)]
    pub dry_run: bool,
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
    let locking = if args.dry_run {
        context.locked(&database, &name)
    } else {
        lock(context, &database, &name)
    };
    let Some((_lock, deployment)) = locking? else {
        return Ok(nothing_left(context, name));
    };
    locked(context, &database, &deployment, args.dry_run)
}

/// Locks a deployment that is to go, even if elastic workers are just being made or removed: that need
/// not be finished.
pub fn lock(
    context: &Context,
    database: &Database,
    name: &str,
) -> Result<Option<(Lock, Deployment)>, CliError> {
    let power = Directory::new(&context.layout, name);
    let mut tries = 1..TRIES;
    loop {
        power.end()?;
        // Another may have been started since.
        match context.locked(database, name) {
            Err(error) if power.runs() && tries.next().is_some() => drop(error),
            result => return result,
        }
    }
}

/// Destroys a deployment that is locked.
pub fn locked(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    dry_run: bool,
) -> Result<u8, CliError> {
    let name = &deployment.name;
    let interrupt = Interrupt::listen()?;
    interrupt.advise(format!("provision destroy {name}"));
    let settings = Settings::of(deployment)?;
    let nodes = database.nodes(deployment.id)?;
    let real = Real {
        layout: &context.layout,
        name,
        settings: &settings,
        nodes: nodes.into_iter().map(|n| n.name).collect(),
        tags: None,
    };
    let report = Report::new(context.mode(), &[]);
    let engine = Engine {
        layout: &context.layout,
        database,
        deployment,
        settings: &settings,
        parts: &real,
        interrupt: &interrupt,
        began: Instant::now(),
        events: &report,
        opened: Opened::default(),
    };
    if dry_run {
        let todo = engine.preview_destroy()?;
        return Ok(apply::show(context, name, &todo, BTreeMap::new()));
    }
    let result = engine.destroy();
    drop(engine);
    match result {
        Ok(removal) => {
            report.finish(&removal, text);
            removal.check()?;
            context.keep(deployment)?.stop().map(|()| 0)
        }
        Err(error) => {
            drop(report);
            Err(error.hint(format!("`provision destroy {name}` goes on")))
        }
    }
}

/// Says that there is nothing to remove.
pub fn nothing_left(context: &Context, name: String) -> u8 {
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
