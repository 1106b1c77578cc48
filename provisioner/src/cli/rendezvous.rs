//! `provision rendezvous run NAME`: the supervisor of an embedded rendezvous. Not for people.

use clap::{Args, Subcommand};

use super::Context;
use crate::error::CliError;
use crate::rendezvous::supervise;

/// Keep the embedded rendezvous of a deployment running.
#[derive(Debug, Args)]
pub struct RendezvousArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: RendezvousCommand,
}

/// What to do with a rendezvous.
#[derive(Debug, Subcommand)]
pub enum RendezvousCommand {
    /// Run the server in the foreground, and start it again when it dies
    Run {
        /// The deployment
        name: String,
    },
}

/// Runs the command.
pub fn run(context: &Context, args: RendezvousArgs) -> Result<u8, CliError> {
    let RendezvousCommand::Run { name } = args.command;
    supervise(&context.layout, &name)?;
    Ok(0)
}
