//! `provision share`: folders on volumes of their own, for those who were let in.

mod create;
mod destroy;
pub mod grow;
mod here;
pub mod kept;
mod list;
mod machine;
pub mod members;
mod mount;
pub mod restore;
mod snapshot;
mod status;
mod unmount;

use std::str::FromStr;
use std::time::Instant;

use clap::{Args, Subcommand};

use super::Context;
use super::target::Target;
use crate::deploy::engine::{Engine, Opened};
use crate::deploy::interrupt::Interrupt;
use crate::deploy::real::Real;
use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::name::{NodeName, suggestion};
use crate::plan::SHARE;
use crate::plan::share::{FOLDER, Share};
use crate::report::Report;
use crate::state::Database;
use crate::state::record::{Deployment, NodeRecord};

const EXAMPLES: &str = "\
Examples:
  provision share create lake/lake-data --on local --size 20G
  provision share create lake/lake-data --on local --size 20G --members alice,worker-0
  provision share list
  provision share status lake/lake-data
  provision share members lake/lake-data --add bob --remove alice
  provision share grow lake/lake-data --size 40G
  provision share snapshot lake/lake-data before-the-move
  provision share mount lake/lake-data                    on a member's machine
  provision share destroy lake/lake-data                  the data is kept
  provision share destroy lake/lake-data --delete-data    and now it is gone

A share is a machine of its deployment that serves one folder by NFSv4.2, over the overlay alone.
The folder is on a volume of its own, which outlives the machine and the deployment: a share of the
same deployment and name has the data again.";

/// Make, list and remove shares: folders for those who were let in.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true)]
pub struct ShareArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ShareCommand,
}

/// See [`ShareArgs`].
#[derive(Debug, Subcommand)]
pub enum ShareCommand {
    /// Make a share, or make it anew with the data that it had
    Create(create::CreateArgs),
    /// List shares, and data that is kept without one
    List(list::ListArgs),
    /// Show how a share is: its machine, how full it is, who may mount it
    Status(status::StatusArgs),
    /// Change who may mount a share, while it serves
    Members(members::MembersArgs),
    /// Give a share more room, while it serves
    Grow(grow::GrowArgs),
    /// Copy a share's data as it is now; list and delete such copies, and go back to one
    Snapshot(snapshot::SnapshotArgs),
    /// Mount a share on this machine, which is a member of its overlay
    Mount(mount::MountArgs),
    /// Unmount a share from this machine
    Unmount(unmount::UnmountArgs),
    /// Remove a share's machine; its data is kept unless it is said otherwise
    Destroy(destroy::DestroyArgs),
}

/// Runs the command.
pub fn run(context: &Context, args: ShareArgs) -> Result<u8, CliError> {
    match args.command {
        ShareCommand::Create(args) => create::run(context, args),
        ShareCommand::List(args) => list::run(context, args),
        ShareCommand::Status(args) => status::run(context, args),
        ShareCommand::Members(args) => members::run(context, args),
        ShareCommand::Grow(args) => grow::run(context, args),
        ShareCommand::Snapshot(args) => snapshot::run(context, args),
        ShareCommand::Mount(args) => mount::run(context, args),
        ShareCommand::Unmount(args) => unmount::run(context, args),
        ShareCommand::Destroy(args) => destroy::run(context, args),
    }
}

/// A share of a deployment, `NAME/SHARE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareTarget {
    /// The deployment.
    pub deployment: String,
    /// The share.
    pub share: NodeName,
}

impl FromStr for ShareTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Target { deployment, node } = text
            .parse()
            .map_err(|_| "write it as NAME/SHARE, like lake/lake-data".to_owned())?;
        Ok(Self {
            deployment,
            share: NodeName(node),
        })
    }
}

/// A recorded share and its node, or which it might have been.
fn find(
    deployment: &Deployment,
    nodes: &[NodeRecord],
    name: &NodeName,
) -> Result<(Share, NodeRecord), CliError> {
    let shares = Settings::of(deployment)?.shares;
    let is_node = |n: &&NodeRecord| n.name == *name && n.role == SHARE && n.wanted;
    let share = shares.iter().find(|s| s.name == *name);
    if let (Some(share), Some(node)) = (share, nodes.iter().find(is_node)) {
        return Ok((share.clone(), node.clone()));
    }
    let message = format!("`{}` has no share `{name}`", deployment.name);
    let error = CliError::new(ExitCode::Name, message);
    let names: Vec<_> = shares.iter().map(|s| &s.name.0).collect();
    Err(match suggestion(&name.0, names.iter().copied()) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint("`provision share list` shows the shares there are"),
    })
}

/// Records a share as it is now.
fn record(database: &Database, deployment: &Deployment, share: &Share) -> Result<(), CliError> {
    let mut settings = Settings::of(deployment)?;
    for known in settings.shares.iter_mut().filter(|s| s.name == share.name) {
        known.clone_from(share);
    }
    database.set_settings(deployment.id, &settings.to_json()?)
}

/// Does something with a deployment's engine.
fn with_engine<T>(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    (interrupt, report): (&Interrupt, &Report),
    work: impl FnOnce(&Engine<'_>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let settings = Settings::of(deployment)?;
    let nodes = database.nodes(deployment.id)?;
    let wanted = nodes.into_iter().filter(|n| n.wanted);
    let real = Real {
        layout: &context.layout,
        name: &deployment.name,
        settings: &settings,
        nodes: wanted.map(|n| n.name).collect(),
        tags: Some(deployment.tags()),
    };
    let engine = Engine {
        layout: &context.layout,
        database,
        deployment,
        settings: &settings,
        parts: &real,
        interrupt,
        began: Instant::now(),
        events: report,
        opened: Opened::default(),
    };
    work(&engine)
}

/// Members in words.
fn member_names(share: &Share) -> String {
    let names: Vec<_> = share.members.iter().map(String::as_str).collect();
    names.join(", ")
}

/// How a member's machine mounts a share without `provision`.
fn mount_line(ipv4: &str) -> String {
    format!("mount -t nfs4 -o nosuid,nodev {ipv4}:{FOLDER} /mnt")
}

#[cfg(test)]
mod tests;
