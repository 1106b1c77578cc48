//! `provision user`: lets people's machines into a deployment's overlay, and has them leave.

mod invite;
mod list;
mod remove;

use std::time::Instant;

use clap::{Args, Subcommand};

use super::Context;
use super::apply::ApplyArgs;
use crate::deploy::engine::{Engine, Opened};
use crate::deploy::interrupt::Interrupt;
use crate::deploy::real::Real;
use crate::deploy::settings::Settings;
use crate::error::CliError;
use crate::report::Report;
use crate::state::Database;
use crate::state::record::Deployment;

const EXAMPLES: &str = "\
Examples:
  provision user invite lake alice --machine laptop
  provision user invite lake bob --group crew --group diving
  provision user list lake
  provision user remove lake alice --machine laptop     that machine
  provision user remove lake alice                      all of hers

An invitation is a word for `ipop-node join`, good for one machine and one use. Whose machine has
joined reaches all nodes of the overlay, and what they serve there: the shared folder of the front
end, for one. Removed, it is out at once.";

/// Let people's machines into an overlay, see who is in, and have them leave.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true)]
pub struct UserArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: UserCommand,
}

/// See [`UserArgs`].
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Invite a machine of a person's
    #[command(visible_alias = "add")]
    Invite(invite::InviteArgs),
    /// List people and their machines
    List(list::ListArgs),
    /// Close the accounts of a person's machines
    Remove(remove::RemoveArgs),
}

/// Runs the command.
pub fn run(context: &Context, args: UserArgs) -> Result<u8, CliError> {
    match args.command {
        UserCommand::Invite(args) => invite::run(context, args),
        UserCommand::List(args) => list::run(context, args),
        UserCommand::Remove(args) => remove::run(context, args),
    }
}

/// Has the engine do what the database says is wanted now, and waits for no node.
pub(super) fn settle(
    context: &Context,
    database: &Database,
    before: &Deployment,
    report: &Report,
) -> Result<(), CliError> {
    let interrupt = Interrupt::listen()?;
    let name = &before.name;
    interrupt.advise(format!("provision resume {name}"));
    let deployment = context.deployment(database, name)?;
    let settings = Settings::of(&deployment)?;
    let nodes = database.nodes(deployment.id)?;
    let wanted = nodes.iter().filter(|n| n.wanted);
    let real = Real {
        layout: &context.layout,
        name,
        settings: &settings,
        nodes: wanted.map(|n| n.name.clone()).collect(),
        tags: Some(deployment.tags()),
    };
    let engine = Engine {
        layout: &context.layout,
        database,
        deployment: &deployment,
        settings: &settings,
        parts: &real,
        interrupt: &interrupt,
        began: Instant::now(),
        events: report,
        opened: Opened::default(),
    };
    let args = ApplyArgs {
        timeout: None,
        quorum: None,
        replace: 0,
        no_wait: true,
        dry_run: false,
    };
    let result = engine.apply(&args.options(deployment.quorum));
    result.map_err(|e| e.hint(format!("`provision resume {name}` continues")))?;
    // Members are not waited for: whether the nodes had joined is as it was.
    database.set_phase(deployment.id, before.phase)
}
