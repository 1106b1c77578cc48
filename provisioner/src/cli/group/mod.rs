//! `provision group`: the groups that people are in.

pub(super) mod change;
pub(super) mod list;

use std::collections::BTreeSet;

use clap::{Args, Subcommand};

use self::change::Change;
use super::Context;
use crate::error::CliError;

const EXAMPLES: &str = "\
Examples:
  provision user invite lake bob --group crew      bob is in the group `crew`, with all his machines
  provision group list lake
  provision group add lake diving bob
  provision group remove lake diving bob

A group is there while somebody is in it. The front end and the workers are in one of their own,
`cluster`. What groups may reach is for rules to say: docs/policy.md. Machines that have joined get
new certificates by themselves: their links end, and come back within seconds.";

/// Put people in groups, take them out, and show who is in which.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true)]
pub struct GroupArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: GroupCommand,
}

/// See [`GroupArgs`].
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List groups, and who is in them
    List(list::ListArgs),
    /// Put a person in a group
    Add(change::ChangeArgs),
    /// Take a person out of a group
    Remove(change::ChangeArgs),
}

/// Runs the command.
pub fn run(context: &Context, args: GroupArgs) -> Result<u8, CliError> {
    match args.command {
        GroupCommand::List(args) => list::run(context, args),
        GroupCommand::Add(args) => change::run(context, args, Change::Add),
        GroupCommand::Remove(args) => change::run(context, args, Change::Remove),
    }
}

/// Names for people.
pub(super) fn names(names: &BTreeSet<String>) -> String {
    match names.is_empty() {
        true => "-".to_owned(),
        false => names.iter().cloned().collect::<Vec<_>>().join(", "),
    }
}
