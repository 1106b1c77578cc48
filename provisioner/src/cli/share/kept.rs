//! Data that is kept of deployments that are gone: found by its name on the sites of `sites.toml`.

use std::time::{Duration, Instant};

use crate::cli::Context;
use crate::deploy::data::Deleted;
use crate::deploy::interrupt::Interrupt;
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;
use crate::provider::{DATA, Found, Removing};
use crate::state::Database;
use crate::state::lock::Lock;

/// How long deleting a volume may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Deletes what is kept for a deployment that does not exist: of one share, or of all.
pub fn delete(
    context: &Context,
    database: &Database,
    deployment: &str,
    share: Option<&NodeName>,
) -> Result<Deleted, CliError> {
    crate::name::check_deployment(deployment).map_err(|why| {
        let message = format!("`{deployment}` is no deployment's name: {why}");
        CliError::new(ExitCode::Usage, message)
    })?;
    // Nobody makes it meanwhile.
    let dir = context.layout.deployment(deployment);
    let lock = Lock::take(&dir, deployment)?;
    if database.deployment(deployment)?.is_some() {
        let message = format!("`{deployment}` was made meanwhile");
        return Err(CliError::new(ExitCode::Unavailable, message));
    }
    let deleted = delete_all(context, deployment, share);
    std::fs::remove_dir_all(&dir).map_err(|e| CliError::file("remove", &dir, e))?;
    drop(lock);
    deleted
}

fn delete_all(
    context: &Context,
    deployment: &str,
    share: Option<&NodeName>,
) -> Result<Deleted, CliError> {
    let (owner, interrupt) = (context.owner(), Interrupt::default());
    let mut all = Deleted::default();
    for site in context.sites()?.iter() {
        let provider = context.provider(site)?;
        if !provider.keeps_data() {
            continue;
        }
        let is_wanted = |data: &Found| {
            let tags = data.tags.as_ref();
            data.resource.kind == DATA
                && tags.is_some_and(|t| t.owner == owner && t.deployment == deployment)
                && (share.is_none() || data.node.as_ref() == share)
        };
        for data in provider.find(None)?.into_iter().filter(is_wanted) {
            let Some(tags) = &data.tags else { continue };
            let removed = provider.remove(&Removing {
                tags,
                resource: &data.resource,
                handle: data.handle.as_deref(),
                deadline: Instant::now() + LIMIT,
                interrupt: &interrupt,
            });
            match removed {
                Ok(()) => all.deleted.push(data.resource),
                Err(error) => all.failed.push((data.resource, error)),
            }
        }
    }
    Ok(all)
}
