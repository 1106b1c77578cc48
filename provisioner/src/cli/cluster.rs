//! `provision cluster`: launches a cluster and waits until its nodes have joined.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;

use super::Context;
use super::apply::{self, ApplyArgs};
use crate::deploy::engine::{Engine, Opened, directory};
use crate::deploy::interrupt::Interrupt;
use crate::deploy::preview;
use crate::deploy::real::Real;
use crate::deploy::settings::{Settings, TAG_DIGITS};
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};
use crate::image::BuildOptions;
use crate::keep::plan::remaining;
use crate::name::check_deployment;
use crate::plan::group::{self, Group};
use crate::plan::lan::Lan;
use crate::plan::network::{self, Net4};
use crate::plan::scheduler::Scheduler;
use crate::plan::{ClusterPlan, NodePlan, Request, World, plan};
use crate::provider::{Scope, libvirt};
use crate::report::Report;
use crate::site::{SiteKind, Sites};
use crate::size::{Mebibytes, duration};
use crate::state::Database;
use crate::state::lock::Lock;
use crate::state::record::{Deployment, NewDeployment, Phase, ResourceRecord, ResourceState};

const EXAMPLES: &str = "\
Examples:
  provision cluster --frontend 1@local --workers 2@local
  provision cluster --name lake --frontend local --workers 4@lab --workers 2@local --memory 1G
  provision cluster --frontend local --workers 2@local --workers 1:gpu@lab
  provision cluster --frontend local --workers 20@lab --quorum 18 --replace 4
  provision cluster --frontend local --workers 4@local --scheduler slurm
  provision cluster --frontend local --elastic 8@lab --scheduler slurm
  provision cluster --frontend local --workers 2@local --rules rules.toml
  provision cluster --frontend local --lan --gateways lab --scheduler slurm
  provision cluster --frontend local --workers 2@local --dry-run
  provision cluster --frontend local --workers 2@local --json

The front end exports /export over the overlay; every worker mounts it at /share. A node has joined
when it is signed in, linked to the front end, and its role works. When one does not join in time,
the deployment stays for inspection and the exit code is 7; `provision logs` shows why,
`provision resume` continues, and `provision destroy` removes it. So it is when the command is
stopped or killed at any moment.";

/// Launch a cluster and wait until its nodes have joined.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ClusterArgs {
    /// The front end's site (`SITE` alone means 1@SITE), and its role if not `frontend`
    #[arg(long, value_name = "[ROLE@]SITE", value_parser = group::frontend, required = true)]
    pub frontend: Group,
    /// How many workers on which site, and of which role if not `worker`; may be repeated
    #[arg(long, value_name = "COUNT[:ROLE]@SITE")]
    pub workers: Vec<Group>,
    /// Put the front end on its site's LAN (`[site.NAME.lan]`), as DHCP and boot server of machines there;
    /// the overlay extends that LAN
    #[arg(long)]
    pub lan: bool,
    /// Have a gateway join this site's LAN to the front end's (`SITE` alone means 1@SITE); may be repeated
    #[arg(long, value_name = "[COUNT[:ROLE]@]SITE", value_parser = group::gateways)]
    pub gateways: Vec<Group>,
    /// Name of the deployment, at most 24 letters, digits and hyphens
    /// [default: cluster, cluster-2, …]
    #[arg(long, value_parser = name)]
    pub name: Option<String>,
    /// Memory of each machine [default: the site's, else 512M]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Mebibytes>,
    /// Virtual CPUs of each machine [default: the site's, else 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub cpus: Option<u32>,
    /// Who gives the workers' time to users' jobs
    #[arg(long, value_enum, default_value_t, value_name = "SCHEDULER")]
    pub scheduler: Scheduler,
    /// How many workers more there may be on which site while jobs wait, where there is a scheduler;
    /// may be repeated
    #[arg(long, value_name = "COUNT[:ROLE]@SITE")]
    pub elastic: Vec<Group>,
    /// How long one of these may be idle before it goes [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "elastic")]
    pub idle: Option<Duration>,
    /// Who may reach what: `[[allow]]` tables in this file, as docs/policy.md says; without it, everybody
    /// reaches everybody
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Destroy it when this time has passed from now; `provision extend` changes that
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub ttl: Option<Duration>,
    /// How it is carried out.
    #[command(flatten)]
    pub apply: ApplyArgs,
}

fn name(text: &str) -> Result<String, String> {
    check_deployment(text).map(|()| text.to_owned())
}

/// Runs the command.
pub fn run(context: &Context, args: ClusterArgs) -> Result<u8, CliError> {
    let began = Instant::now();
    let interrupt = Interrupt::listen()?;
    let sites = context.sites()?;
    let database = context.database()?;
    let request = Request {
        name: args.name,
        frontend: vec![args.frontend],
        workers: args.workers,
        lan: args.lan,
        gateways: args.gateways,
        memory_mib: args.memory.map(|m| m.0),
        cpus: args.cpus,
        scheduler: args.scheduler,
        elastic: args.elastic,
        idle: args.idle,
        rules: match &args.rules {
            Some(path) => super::policy::set::read(path)?,
            None => Vec::new(),
        },
    };
    let plan = plan(&request, &sites, &world(context, &database, request.lan)?)?;
    args.apply.check(plan.worker_count())?;
    check_bridges(&plan, &sites)?;
    let settings = settings(&plan, &sites)?;
    let new = new(&plan, &settings, args.apply.quorum)?;
    let (deployment, _lock) = if args.apply.dry_run {
        (unrecorded(&new, &database), None)
    } else {
        interrupt.advise(format!("provision resume {}", plan.name));
        let (deployment, lock) = record(context, &database, &new)?;
        let deployment = Deployment {
            expires: args.ttl.map(|ttl| SystemTime::now() + ttl),
            ..deployment
        };
        database.set_expiry(deployment.id, deployment.expires)?;
        context.keep(&deployment)?.start_if_needed(&deployment)?;
        (deployment, Some(lock))
    };
    let report = Report::new(context.mode(), &plan.names());
    let real = Real {
        layout: &context.layout,
        name: &plan.name,
        settings: &settings,
        nodes: plan.names(),
        tags: Some(deployment.tags()),
    };
    let engine = Engine {
        layout: &context.layout,
        database: &database,
        deployment: &deployment,
        settings: &settings,
        parts: &real,
        interrupt: &interrupt,
        began,
        events: &report,
        opened: Opened::default(),
    };
    if args.apply.dry_run {
        let costs = engine.costs(&new.nodes)?;
        let todo = engine.preview(new.nodes)?;
        return Ok(apply::show(context, &plan.name, &todo, costs));
    }
    for (site, cost) in engine.costs(&new.nodes)? {
        report.emit(Event::Step {
            message: preview::cost(&site, cost),
        });
    }
    let result = engine.apply(&args.apply.options(deployment.quorum));
    drop(engine);
    if let (Some(expires), Ok(_)) = (deployment.expires, &result) {
        let left = remaining(expires, SystemTime::now());
        let keeper = context.keep(&deployment)?.find();
        let message = format!(
            "it is destroyed in {left} {}",
            keeper.words(&deployment.name)
        );
        report.emit(Event::Step { message });
    }
    apply::finish(report, &plan.name, &interrupt, result)
}

/// Refuses a LAN whose bridge is not there, before anything is made.
fn check_bridges(plan: &ClusterPlan, sites: &Sites) -> Result<(), CliError> {
    for node in plan.nodes.iter().filter(|n| plan.bridge_of(n).is_some()) {
        if let SiteKind::Libvirt(site) = &sites.find(&node.site)?.kind {
            libvirt::lan::check(site)?;
        }
    }
    Ok(())
}

/// What the planner must know; of others' LANs only if there is to be one.
fn world(context: &Context, database: &Database, lan: bool) -> Result<World, CliError> {
    let deployments = database.deployments()?;
    let mut used: Vec<Net4> = deployments
        .iter()
        .filter_map(|d| d.net4.parse().ok())
        .collect();
    let routes = Path::new("/proc/net/route");
    let text = std::fs::read_to_string(routes).map_err(|e| CliError::file("read", routes, e))?;
    used.extend(network::routes(&text));
    Ok(World {
        names: deployments.iter().map(|d| d.name.clone()).collect(),
        // A record that cannot be read is in the way of no other cluster.
        lans: match lan {
            true => lans(&deployments)?,
            false => Vec::new(),
        },
        roles: BuildOptions::from_env(context.layout.images()).lineages()?,
        used,
        seed: rand::random(),
    })
}

/// The LANs that deployments extend.
fn lans(deployments: &[Deployment]) -> Result<Vec<(Net4, String)>, CliError> {
    let mut lans = Vec::new();
    for deployment in deployments {
        if let (true, Ok(net)) = (Settings::of(deployment)?.lan, deployment.net4.parse()) {
            lans.push((net, deployment.name.clone()));
        }
    }
    Ok(lans)
}

fn settings(plan: &ClusterPlan, sites: &Sites) -> Result<Settings, CliError> {
    let used = plan
        .sites()
        .into_iter()
        .map(|name| sites.find(name).cloned());
    Ok(Settings {
        sites: used.collect::<Result<_, _>>()?,
        rendezvous: sites.rendezvous.clone(),
        tag: format!("{:0TAG_DIGITS$x}", rand::random::<u32>()),
        scheduler: plan.scheduler,
        authority: plan.authority,
        elastic: plan.elastic.clone(),
        rules: plan.rules.clone(),
        lan: plan.lan.as_ref().is_some_and(Lan::is_launched),
        shares: Vec::new(),
    })
}

/// Locks the deployment that was just recorded.
fn lock(
    context: &Context,
    database: &Database,
    name: &str,
    id: i64,
) -> Result<(Deployment, Lock), CliError> {
    match context.locked(database, name)? {
        Some((lock, deployment)) if deployment.id == id => Ok((deployment, lock)),
        _ => Err(CliError::new(
            ExitCode::Name,
            format!("another provision destroyed `{name}` before anything of it was made"),
        )
        .hint("run `provision cluster` again")),
    }
}

fn new(
    plan: &ClusterPlan,
    settings: &Settings,
    quorum: Option<u32>,
) -> Result<NewDeployment, CliError> {
    Ok(NewDeployment {
        name: plan.name.clone(),
        uid: format!("{:016x}", rand::random::<u64>()),
        quorum,
        domain: plan.domain.clone(),
        net4: plan.nets.ipv4.to_string(),
        net6: plan.nets.net6(),
        settings: settings.to_json()?,
        nodes: plan.nodes.iter().map(NodePlan::record).collect(),
    })
}

/// As it would be recorded.
fn unrecorded(new: &NewDeployment, database: &Database) -> Deployment {
    Deployment {
        id: 0,
        name: new.name.clone(),
        uid: new.uid.clone(),
        owner: database.owner(),
        expires: None,
        quorum: new.quorum,
        created: SystemTime::now(),
        phase: Phase::Creating,
        domain: new.domain.clone(),
        net4: new.net4.clone(),
        net6: new.net6.clone(),
        settings: new.settings.clone(),
    }
}

/// Writes the deployment to the database before anything of it exists, and locks it.
fn record(
    context: &Context,
    database: &Database,
    new: &NewDeployment,
) -> Result<(Deployment, Lock), CliError> {
    let id = database.create(new, SystemTime::now())?;
    // Taking the lock makes the directory.
    let directory = ResourceRecord {
        key: directory(&context.layout, &new.name),
        scope: Scope::Deployment,
        after: Vec::new(),
        deadline: Duration::from_secs(60),
        state: ResourceState::Wanted,
        attempt: 1,
        node_attempt: 1,
        token: String::new(),
        handle: None,
        reached_at: None,
        error: None,
    };
    database.want(id, &[directory])?;
    lock(context, database, &new.name, id)
}
