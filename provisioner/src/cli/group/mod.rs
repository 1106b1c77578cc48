//! `provision group`: the groups that people are in.

pub(super) mod list;

use std::collections::BTreeSet;

use clap::{Args, Subcommand};

use super::Context;
use crate::error::CliError;

const EXAMPLES: &str = "\
Examples:
  provision user invite lake bob --group crew      bob is in the group `crew`, with all his machines
  provision group list lake

A group is there while somebody is in it. The front end and the workers are in one of their own,
`cluster`. What groups may reach is for rules to say: docs/policy.md.";

/// Show which people are in which groups.
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
}

/// Runs the command.
pub fn run(context: &Context, args: GroupArgs) -> Result<u8, CliError> {
    match args.command {
        GroupCommand::List(args) => list::run(context, args),
    }
}

/// Names for people.
pub(super) fn names(names: &BTreeSet<String>) -> String {
    match names.is_empty() {
        true => "-".to_owned(),
        false => names.iter().cloned().collect::<Vec<_>>().join(", "),
    }
}
