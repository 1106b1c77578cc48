//! `provision keep NAME`: does what is due for a deployment. Not for people.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use clap::Args;

use super::Context;
use super::destroy;
use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::keep::plan::{Duty, duty, is_over, must_drain, next_look};
use crate::keep::{Keep, Time};
use crate::plan::NodePlan;
use crate::provider::Lease;
use crate::rendezvous::{ACCOUNT, Rendezvous};
use crate::state::Database;
use crate::state::record::{Deployment, Phase};

/// How long jobs may go on when a lease ends, within [`crate::keep::plan::DRAIN_BEFORE`].
const DRAIN: &str = "15m";

/// How soon a changed end is seen by a process that stays.
const LOOK: Duration = Duration::from_secs(10);

/// Extend what a deployment's sites lend, and destroy it when its time is over
#[derive(Debug, Args)]
pub struct KeepArgs {
    /// The deployment
    pub name: String,
    /// Stay, and do it again and again until the deployment is gone
    #[arg(long)]
    pub stay: bool,
}

/// Runs the command.
pub fn run(context: &Context, args: KeepArgs) -> Result<u8, CliError> {
    if !args.stay {
        return once(context, &args.name);
    }
    let (mut looked, mut failures) = (SystemTime::now(), 0);
    loop {
        let now = SystemTime::now();
        let expires = match Time::read(&context.layout, &args.name) {
            Ok(Time::Gone) => return Ok(0),
            Ok(time) => time.end(),
            // Without the database `provision gc` removes the deployment, its directory at last.
            Err(_) if !context.layout.deployment(&args.name).exists() => return Ok(0),
            // Nothing is known now; a look fails and says so.
            Err(_) => None,
        };
        if next_look(expires, looked, failures) <= now {
            failures = match once(context, &args.name) {
                Ok(_) => 0,
                Err(error) => {
                    eprintln!("{error}");
                    failures + 1
                }
            };
            looked = SystemTime::now();
        }
        let left = expires.and_then(|end| end.duration_since(now).ok());
        std::thread::sleep(left.filter(|l| !l.is_zero()).unwrap_or(LOOK).min(LOOK));
    }
}

fn once(context: &Context, name: &str) -> Result<u8, CliError> {
    if Time::read(&context.layout, name)? == Time::Gone {
        // A timer that outlived its deployment.
        let keep = Keep {
            layout: &context.layout,
            sites: None,
            deployment: name,
            owner: context.owner(),
            embedded: true,
        };
        return keep.stop().map(|()| 0);
    }
    let database = context.database()?;
    let deployment = context.deployment(&database, name)?;
    if is_over(deployment.expires, SystemTime::now()) {
        if let Err(error) = refuse(context, &database, &deployment) {
            // Destroying it ends them too, only later.
            tracing::warn!(error = error.one_line(), "members could not be refused");
        }
        return expire(context, &database, name);
    }
    if deployment.phase == Phase::Destroying {
        return Ok(0);
    }
    if let Err(error) = expire_tokens(context, &deployment) {
        // Leases are not to wait for it.
        tracing::warn!(error = error.one_line(), "enrolment tokens not looked at");
    }
    leases(context, &database, &deployment).map(|()| 0)
}

/// Kills enrolment tokens that were not used in time, on somebody else's server. One of the
/// deployment's own has a supervisor that does.
fn expire_tokens(context: &Context, deployment: &Deployment) -> Result<(), CliError> {
    let rendezvous = open(context, deployment)?;
    if rendezvous.is_ours() {
        return Ok(());
    }
    for node in rendezvous.expire_tokens(SystemTime::now())? {
        eprintln!("{node}: its enrolment token was not used in time");
    }
    Ok(())
}

fn open(context: &Context, deployment: &Deployment) -> Result<Rendezvous, CliError> {
    let settings = Settings::of(deployment)?;
    Ok(Rendezvous::open(
        &context.layout,
        &deployment.name,
        &settings.tag,
        &settings.rendezvous,
    )?)
}

/// Destroys a deployment, unless it was given more time before its lock was had.
fn expire(context: &Context, database: &Database, name: &str) -> Result<u8, CliError> {
    let Some((_lock, deployment)) = destroy::lock(context, database, name)? else {
        return Ok(0);
    };
    if !is_over(deployment.expires, SystemTime::now()) {
        return Ok(0);
    }
    eprintln!("the time of `{name}` is over: destroying it");
    destroy::locked(context, database, &deployment, destroy::How::default())
}

/// On somebody else's server no member may sign in any more. A server of the deployment's own is
/// stopped by its supervisor.
fn refuse(context: &Context, database: &Database, deployment: &Deployment) -> Result<(), CliError> {
    let rendezvous = open(context, deployment)?;
    if rendezvous.is_ours() {
        return Ok(());
    }
    let records = database.resources(deployment.id)?;
    let accounts = records.iter().map(|r| &r.key.resource);
    for account in accounts.filter(|r| r.kind == ACCOUNT) {
        rendezvous.ban(&account.id)?;
    }
    Ok(())
}

/// Extends what sites lend; drains what stands on a lease that ends.
fn leases(context: &Context, database: &Database, deployment: &Deployment) -> Result<(), CliError> {
    let settings = Settings::of(deployment)?;
    let (now, tags) = (SystemTime::now(), deployment.tags());
    let mut failed = Vec::new();
    for site in &settings.sites {
        let provider = context.provider(site)?;
        let extended = || -> Result<Option<Lease>, CliError> {
            let Some(lease) = provider.extend(&tags, now)? else {
                return Ok(None);
            };
            match duty(lease, deployment.expires, now) {
                Duty::Nothing => Ok(Some(lease)),
                Duty::Extend(until) => provider.extend(&tags, until),
            }
        };
        match extended() {
            Ok(None) => {}
            Ok(Some(lease)) => {
                database.set_lease(deployment.id, &site.name, lease)?;
                if lease.refused {
                    let left = crate::keep::plan::remaining(lease.ends, now);
                    eprintln!(
                        "warning: site `{}` refuses to lend longer: `{}` ends there in {left}",
                        site.name, deployment.name
                    );
                }
                if must_drain(lease, deployment.expires, now) {
                    drain(context, database, deployment, &site.name)?;
                }
            }
            Err(error) => failed.push(format!("site `{}`: {}", site.name, error.one_line())),
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the leases of `{}` could not be extended: {}",
        deployment.name,
        failed.join("; ")
    );
    Err(CliError::new(ExitCode::Unavailable, message))
}

/// Says that no elastic workers may be on a site, of any role.
fn none_elastic(deployment: &Deployment, site: &str) -> Result<Vec<String>, CliError> {
    let workers = Settings::of(deployment)?.elastic.workers;
    let here = workers.iter().filter(|worker| worker.site == site);
    let limit = |worker: &NodePlan| format!("--elastic=0:{}@{site}", worker.image);
    let limits: BTreeSet<_> = here.map(limit).collect();
    Ok(limits.into_iter().collect())
}

/// Removes the workers of a site in good order before the site does. A front end cannot go.
fn drain(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    site: &str,
) -> Result<(), CliError> {
    let nodes = database.nodes(deployment.id)?;
    let mut here = nodes.iter().filter(|n| n.site == site && n.wanted);
    let workers = here.clone().any(|n| n.role == crate::plan::WORKER);
    if here.any(|n| n.role == crate::plan::FRONTEND) {
        eprintln!(
            "warning: the front end of `{}` is on site `{site}`, and ends with its lease",
            deployment.name
        );
    }
    if !workers {
        return Ok(());
    }
    eprintln!("draining site `{site}`: its lease ends and is not extended");
    let mut command = std::process::Command::new(crate::keep::own_program()?);
    command
        .args(["scale", &deployment.name, "--workers", &format!("0@{site}")])
        .args(none_elastic(deployment, site)?)
        // Of the time that is left jobs have half; then the machines end, whatever runs there.
        .args(["--no-wait", "--force", "--drain-timeout", DRAIN])
        .env("IPOP_STATE_DIR", &context.layout.state)
        .env("IPOP_CACHE_DIR", &context.layout.cache);
    let output = command
        .output()
        .map_err(|e| CliError::program("provision", "provision", e))?;
    if output.status.success() {
        return Ok(());
    }
    Err(CliError::child(ExitCode::Leftover, &command, &output))
}
