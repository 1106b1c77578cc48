//! `provision resume`: continues what was stopped.

use std::time::Instant;

use clap::Args;

use super::Context;
use super::apply::{self, ApplyArgs};
use super::policy::tell;
use super::share::{grow, restore};
use super::slurm::Front;
use crate::deploy::engine::{Engine, Opened};
use crate::deploy::interrupt::Interrupt;
use crate::deploy::real::Real;
use crate::deploy::settings::Settings;
use crate::error::CliError;
use crate::name::NodeName;
use crate::plan::WORKER;
use crate::plan::scheduler::Scheduler;
use crate::report::Report;
use crate::state::Database;
use crate::state::record::{Deployment, Phase};

const EXAMPLES: &str = "\
Examples:
  provision resume cluster
  provision resume cluster --dry-run
  provision resume cluster --replace 2

Goes on where `cluster`, `scale` or `destroy` was stopped, killed or failed: makes what is missing
or broken, removes what is not wanted, and waits until the nodes have joined. What is there stays as
it is. A deployment that lacks nothing is left alone.";

/// Continue what was stopped: a launch, a change of size, a removal.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ResumeArgs {
    /// The deployment
    pub name: String,
    /// How it is carried out.
    #[command(flatten)]
    pub apply: ApplyArgs,
}

/// Runs the command.
pub fn run(context: &Context, args: ResumeArgs) -> Result<u8, CliError> {
    let began = Instant::now();
    let interrupt = Interrupt::listen()?;
    let database = context.database()?;
    let found = context.deployment(&database, &args.name)?;
    let Some((_lock, deployment)) = context.locked(&database, &args.name)? else {
        return Ok(super::destroy::nothing_left(context, args.name));
    };
    debug_assert!(
        found.id <= deployment.id,
        "names are used again by later deployments"
    );
    if deployment.phase == Phase::Destroying {
        let how = super::destroy::How {
            dry_run: args.apply.dry_run,
            ..Default::default()
        };
        return super::destroy::locked(context, &database, &deployment, how);
    }
    resume(
        context,
        &database,
        &deployment,
        &args.apply,
        &interrupt,
        began,
    )
}

/// Continues with a deployment that is locked.
pub fn resume(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    args: &ApplyArgs,
    interrupt: &Interrupt,
    began: Instant,
) -> Result<u8, CliError> {
    let name = &deployment.name;
    interrupt.advise(format!("provision resume {name}"));
    let nodes = database.nodes(deployment.id)?;
    let wanted = nodes.iter().filter(|n| n.wanted);
    let wanted: Vec<NodeName> = wanted.map(|n| n.name.clone()).collect();
    let workers = nodes.iter().filter(|n| n.wanted && n.role == WORKER);
    args.check(workers.count())?;
    let report = Report::new(context.mode(), &wanted);
    // Before a machine is made with data that is half of what it shall be.
    if !args.dry_run {
        restore::finish(context, database, name, (interrupt, &report))?;
    }
    let deployment = &context.deployment(database, name)?;
    let settings = Settings::of(deployment)?;
    let real = Real {
        layout: &context.layout,
        name,
        settings: &settings,
        nodes: wanted,
        tags: Some(deployment.tags()),
    };
    let engine = Engine {
        layout: &context.layout,
        database,
        deployment,
        settings: &settings,
        parts: &real,
        interrupt,
        began,
        events: &report,
        opened: Opened::default(),
    };
    if args.dry_run {
        let costs = engine.costs(&nodes)?;
        let todo = engine.preview(nodes)?;
        return Ok(apply::show(context, name, &todo, costs));
    }
    if args.quorum.is_some() {
        database.set_quorum(deployment.id, args.quorum)?;
    }
    let result = engine.apply(&args.options(deployment.quorum));
    drop(engine);
    // What is made anew has its size; what was there may have to be given more.
    let result = result.and_then(|outcome| {
        let grown = grow::finish(context, database, name, (interrupt, &report));
        grown.map(|()| outcome)
    });
    let result = result.and_then(|outcome| {
        tell::finish(context, database, name, &report)?;
        Ok(outcome)
    });
    let shrunk = nodes.iter().any(|n| !n.wanted);
    if settings.scheduler == Scheduler::Slurm && shrunk && result.is_ok() {
        let front = Front {
            context,
            database,
            deployment,
            nodes: &nodes,
        };
        front.drain(interrupt, &report).forget_all_but(&real.nodes);
    }
    apply::finish(report, name, interrupt, result)
}
