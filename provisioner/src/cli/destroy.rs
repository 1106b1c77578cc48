//! `provision destroy`: removes a deployment.

use std::collections::BTreeMap;
use std::time::Instant;

use clap::Args;

use super::context::no_such_deployment;
use super::share::kept;
use super::{Context, apply};
use crate::deploy::data::Deleted;
use crate::deploy::destroy::{Leftover, Removal, plain};
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
  provision destroy cluster --delete-data     the data of its shares as well, for good

Removes machines, disks, networks, accounts, the roster group, the rendezvous, keys and logs. The
volumes with the data of shares stay and are named: a share of the same deployment and name has the
data again. What cannot be removed is named, the exit code is then 10, and the command can be run
again. Destroying what is already destroyed is no error.";

/// Remove a deployment and everything it made.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DestroyArgs {
    /// The deployment
    pub name: String,
    /// Show what would be removed, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Delete also the data of its shares
    #[arg(long)]
    pub delete_data: bool,
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
        return gone(context, &database, name, args.delete_data);
    }
    let locking = if args.dry_run {
        context.locked(&database, &name)
    } else {
        lock(context, &database, &name)
    };
    let Some((_lock, deployment)) = locking? else {
        return Ok(nothing_left(context, name));
    };
    let how = How {
        dry_run: args.dry_run,
        delete_data: args.delete_data,
    };
    locked(context, &database, &deployment, how)
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

/// How a deployment is destroyed.
#[derive(Debug, Clone, Copy, Default)]
pub struct How {
    /// Only show what would be removed.
    pub dry_run: bool,
    /// Delete also data that outlives machines.
    pub delete_data: bool,
}

/// Destroys a deployment that is locked.
pub fn locked(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    how: How,
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
    if how.dry_run {
        let todo = engine.preview_destroy()?;
        return Ok(apply::show(context, name, &todo, BTreeMap::new()));
    }
    let result = match how.delete_data {
        true => engine.destroy_with_data(),
        false => engine.destroy(),
    };
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

/// Ends a destroy of what is destroyed: at most data is left of it.
fn gone(
    context: &Context,
    database: &Database,
    name: String,
    delete_data: bool,
) -> Result<u8, CliError> {
    if !delete_data {
        return Ok(nothing_left(context, name));
    }
    let Deleted { deleted, failed } = kept::delete(context, database, &name, None)?;
    let leftover = failed.into_iter().map(|(resource, error)| Leftover {
        resource,
        why: error.one_line(),
    });
    let removal = Removal {
        name,
        removed: deleted,
        leftover: leftover.collect(),
        kept: Vec::new(),
    };
    Report::new(context.mode(), &[]).finish(&removal, text);
    removal.check().map(|()| 0)
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
    let mut out = format!("removed of `{}`: {}\n", removal.name, removal.summary());
    for data in &removal.kept {
        out += &format!("kept: {} `{}`\n", plain(&data.kind), data.id);
    }
    if !removal.kept.is_empty() {
        out += "a share of the same deployment and name has this data again; `provision gc` lists it\n";
    }
    out
}
