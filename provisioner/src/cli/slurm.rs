//! Slurm's commands on a deployment's front end.

use std::time::Duration;

use super::{Context, ssh};
use crate::deploy::interrupt::Interrupt;
use crate::drain::{Controller, Drain};
use crate::error::{CliError, ExitCode};
use crate::event::Sink;
use crate::plan::FRONTEND;
use crate::ssh::transport::Limits;
use crate::state::Database;
use crate::state::record::{Deployment, NodeRecord};

/// How long one command may take; an emulated machine takes seconds for each.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often to look whether jobs have ended.
const POLL: Duration = Duration::from_secs(5);

/// A deployment's front end.
pub struct Front<'a> {
    /// Directories and options.
    pub context: &'a Context,
    /// The state database.
    pub database: &'a Database,
    /// The deployment.
    pub deployment: &'a Deployment,
    /// Its nodes.
    pub nodes: &'a [NodeRecord],
}

impl<'a> Front<'a> {
    /// Draining that waits for no job.
    pub fn drain(&'a self, interrupt: &'a Interrupt, events: &'a dyn Sink) -> Drain<'a> {
        Drain {
            deployment: &self.deployment.name,
            controller: self,
            limit: Duration::ZERO,
            force: false,
            poll: POLL,
            interrupt,
            events,
        }
    }
}

impl Controller for Front<'_> {
    /// To its end even if the user wants to stop, so that what was begun can be undone.
    fn run(&self, line: &str) -> Result<String, CliError> {
        let Self {
            context,
            database,
            deployment,
            nodes,
        } = *self;
        let front = nodes.iter().find(|n| n.role == FRONTEND).ok_or_else(|| {
            let message = format!("`{}` has no front end", deployment.name);
            CliError::new(ExitCode::Internal, message)
        })?;
        let words = [line.to_owned()];
        let command = ssh::command(context, database, deployment, nodes, front, &words)?;
        crate::ssh::output(command, &Limits::within(PATIENCE)).map_err(|e| CliError {
            message: format!(
                "Slurm on `{}/{}`: {}",
                deployment.name, front.name, e.message
            ),
            ..e
        })
    }
}
