//! `provision scale`: adds workers, or removes them.

use std::time::{Duration, Instant};

use clap::Args;

use super::Context;
use super::apply::{self, ApplyArgs};
use super::share::members::refresh;
use super::slurm::Front;
use crate::deploy::engine::{Engine, Opened};
use crate::deploy::interrupt::Interrupt;
use crate::deploy::real::Real;
use crate::deploy::settings::Settings;
use crate::drain::Drain;
use crate::error::CliError;
use crate::image::BuildOptions;
use crate::plan::elastic::{self, Limit};
use crate::plan::scale::{Change, Scaling, Size, scale};
use crate::plan::scheduler::Scheduler;
use crate::plan::{ClusterPlan, NodePlan};
use crate::report::Report;
use crate::site::{Site, Sites};
use crate::size::{Mebibytes, duration};
use crate::state::record::{Deployment, NodeRecord};

const EXAMPLES: &str = "\
Examples:
  provision scale cluster --workers +5@lab
  provision scale cluster --workers -2            the two with the highest numbers
  provision scale cluster --workers -2@lab --workers +2@local
  provision scale cluster --workers 7@lab         so that there are seven
  provision scale cluster --workers +5@lab --dry-run
  provision scale cluster --elastic 8@lab         so that there may be eight more while jobs wait

Where there is a scheduler, workers that go are drained first: no job begins on them, and those that
run may end. New workers take the first free numbers and addresses; the front end and the other
workers go on meanwhile. Stopped or killed at any moment, `provision resume` continues.";

/// Add workers to a cluster, or remove some.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ScaleArgs {
    /// The deployment
    pub name: String,
    /// How many more (+5@SITE), how many fewer (-2, -2@SITE), or how many there shall be (7@SITE), of
    /// one role if it is named (+1:gpu@SITE); may be repeated
    #[arg(
        long,
        value_name = "CHANGE",
        required_unless_present_any = ["elastic", "idle"],
        allow_hyphen_values = true
    )]
    pub workers: Vec<Change>,
    /// How many workers more there may be on which site while jobs wait, 0@SITE for none; may be
    /// repeated
    #[arg(long, value_name = "COUNT[:ROLE]@SITE")]
    pub elastic: Vec<Limit>,
    /// How long one of these may be idle before it goes
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub idle: Option<Duration>,
    /// Memory of each new machine [default: the site's, else 512M]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Mebibytes>,
    /// Virtual CPUs of each new machine [default: the site's, else 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub cpus: Option<u32>,
    /// How long jobs may go on that run on workers which are removed, where there is a scheduler
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "15m")]
    pub drain_timeout: Duration,
    /// Remove workers even if jobs still run on them then
    #[arg(long)]
    pub force: bool,
    /// How it is carried out.
    #[command(flatten)]
    pub apply: ApplyArgs,
}

/// Runs the command.
pub fn run(context: &Context, args: ScaleArgs) -> Result<u8, CliError> {
    let began = Instant::now();
    let interrupt = Interrupt::listen()?;
    let database = context.database()?;
    let (_lock, deployment) = context.locked_to_change(&database, &args.name)?;
    let nodes = database.nodes(deployment.id)?;
    let mut plan = ClusterPlan::recorded(&deployment, &nodes)?;
    let mut settings = Settings::of(&deployment)?;
    let sites = context.sites()?;
    let known = settings.sites.clone();
    let size = Size {
        memory_mib: args.memory.map(|m| m.0),
        cpus: args.cpus,
    };
    let roles = BuildOptions::from_env(context.layout.images()).lineages()?;
    let site = |name: &str| site(&known, &sites, name);
    let limited = elastic::limit(&plan, &nodes, &args.elastic, site, &roles, size)?;
    plan.elastic = limited.elastic;
    plan.elastic.idle = args.idle.unwrap_or(plan.elastic.idle);
    let mut scaling = scale(&plan, &nodes, &args.workers, site, &roles, size)?;
    scaling.removed.extend(limited.removed);
    settings.elastic = plan.elastic;
    for node in scaling.added.iter().chain(&settings.elastic.workers) {
        if !settings.sites.iter().any(|s| s.name == node.site) {
            settings.sites.push(sites.find(&node.site)?.clone());
        }
    }
    if args.apply.dry_run {
        return preview(context, &deployment, &settings, nodes, &scaling);
    }
    if settings.scheduler == Scheduler::Slurm && !scaling.removed.is_empty() {
        let report = Report::new(context.mode(), &[]);
        let front = Front {
            context,
            database: &database,
            deployment: &deployment,
            nodes: &nodes,
        };
        let drain = Drain {
            limit: args.drain_timeout,
            force: args.force,
            ..front.drain(&interrupt, &report)
        };
        drain.drain(&scaling.removed)?;
    }
    let added: Vec<_> = scaling.added.iter().map(NodePlan::record).collect();
    let text = settings.to_json()?;
    let is_other = !added.is_empty() || !scaling.removed.is_empty();
    if !is_other && text != deployment.settings {
        database.set_settings(deployment.id, &text)?;
    }
    if is_other {
        database.rescale(deployment.id, &text, &added, &scaling.removed)?;
    }
    let deployment = context.deployment(&database, &args.name)?;
    let code = super::resume::resume(
        context,
        &database,
        &deployment,
        &args.apply,
        &interrupt,
        began,
    )?;
    if is_other {
        let report = Report::new(context.mode(), &[]);
        refresh(context, &database, &deployment.name, &report)?;
    }
    Ok(code)
}

/// The site as it was when the deployment was made, or a new one as the sites file has it.
fn site<'a>(known: &'a [Site], sites: &'a Sites, name: &str) -> Result<&'a Site, CliError> {
    match known.iter().find(|s| s.name == name) {
        Some(site) => Ok(site),
        None => sites.find(name),
    }
}

fn preview(
    context: &Context,
    deployment: &Deployment,
    settings: &Settings,
    nodes: Vec<NodeRecord>,
    scaling: &Scaling,
) -> Result<u8, CliError> {
    let database = context.database()?;
    let mut nodes = nodes;
    for node in &mut nodes {
        node.wanted &= !scaling.removed.contains(&node.name);
    }
    nodes.extend(scaling.added.iter().map(NodePlan::record));
    let real = Real {
        layout: &context.layout,
        name: &deployment.name,
        settings,
        nodes: nodes.iter().map(|n| n.name.clone()).collect(),
        tags: Some(deployment.tags()),
    };
    let engine = Engine {
        layout: &context.layout,
        database: &database,
        deployment,
        settings,
        parts: &real,
        interrupt: &Interrupt::default(),
        began: Instant::now(),
        events: &|_| {},
        opened: Opened::default(),
    };
    let costs = engine.costs(&nodes)?;
    let todo = engine.preview(nodes)?;
    Ok(apply::show(context, &deployment.name, &todo, costs))
}
