//! `provision rendezvous run NAME`: what always runs beside a rendezvous. Not for people.

use clap::{Args, Subcommand};

use super::Context;
use crate::deploy::settings::Settings;
use crate::error::CliError;
use crate::rendezvous::attendant::attend;
use crate::rendezvous::config::RendezvousConfig;
use crate::rendezvous::supervise;

/// Keep the embedded rendezvous of a deployment running, and sign its nodes' certificates.
#[derive(Debug, Args)]
pub struct RendezvousArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: RendezvousCommand,
}

/// What to do with a rendezvous.
#[derive(Debug, Subcommand)]
pub enum RendezvousCommand {
    /// Run the server in the foreground, and start it again when it dies; beside somebody else's, only
    /// sign certificates
    Run {
        /// The deployment
        name: String,
    },
}

/// Runs the command.
pub fn run(context: &Context, args: RendezvousArgs) -> Result<u8, CliError> {
    let RendezvousCommand::Run { name } = args.command;
    let deployment = context.database()?.deployment(&name)?;
    let settings = deployment.as_ref().map(Settings::of).transpose()?;
    match settings.map(|settings| settings.rendezvous) {
        Some(RendezvousConfig::External(_)) => attend(&context.layout, &name)?,
        _ => supervise(&context.layout, &name)?,
    }
    Ok(0)
}
