//! `provision cluster`: launches a cluster and waits until its nodes have joined.

use std::time::{Duration, Instant, SystemTime};

use clap::Args;

use super::Context;
use crate::backend::Resource;
use crate::deploy::interrupt::Interrupt;
use crate::deploy::join::Limits;
use crate::deploy::launch::{DIRECTORY, Launch};
use crate::deploy::outcome::{NodeOutcome, Outcome};
use crate::deploy::real::Real;
use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::name::check_deployment;
use crate::plan::group::{self, Group};
use crate::plan::network::{self, Net4};
use crate::plan::{ClusterPlan, Request, World, plan};
use crate::report::{Report, table};
use crate::site::Sites;
use crate::size::{Mebibytes, duration};
use crate::state::Database;
use crate::state::lock::Lock;
use crate::state::record::{NewDeployment, NodeRecord, Owner};

const EXAMPLES: &str = "\
Examples:
  provision cluster --frontend 1@local --workers 2@local
  provision cluster --name lake --frontend local --workers 4@lab --workers 2@local --memory 1G
  provision cluster --frontend local --workers 2@local --json

The front end exports /export over the overlay; every worker mounts it at /share. A node has joined
when it is signed in, linked to the front end, and its role works. When one does not join in time,
the deployment stays for inspection and the exit code is 7; `provision logs` shows why, and
`provision destroy` removes it.";

/// How often machines and consoles are looked at.
const POLL: Duration = Duration::from_secs(1);

/// Launch a cluster and wait until its nodes have joined.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ClusterArgs {
    /// The front end's site (`SITE` alone means 1@SITE)
    #[arg(long, value_name = "1@SITE", value_parser = group::frontend, required = true)]
    pub frontend: Group,
    /// How many workers on which site; may be repeated for several sites
    #[arg(long, value_name = "COUNT@SITE")]
    pub workers: Vec<Group>,
    /// Name of the deployment, at most 24 letters, digits and hyphens
    /// [default: cluster, cluster-2, …]
    #[arg(long, value_parser = name)]
    pub name: Option<String>,
    /// How long nodes may take to join once their machines run
    /// [default: 2m with KVM, 15m without]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Memory of each machine [default: the site's, else 512M]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Mebibytes>,
    /// Virtual CPUs of each machine [default: the site's, else 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub cpus: Option<u32>,
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
        memory_mib: args.memory.map(|m| m.0),
        cpus: args.cpus,
    };
    let plan = plan(&request, &sites, &world(&database)?)?;
    let settings = settings(&plan, &sites)?;
    let id = record(context, &database, &plan, &settings)?;
    let _lock = lock(context, &database, &plan.name, id)?;
    let report = Report::new(context.mode(), &plan.names());
    let launch = Launch {
        layout: &context.layout,
        database: &database,
        id,
        plan: &plan,
        settings: &settings,
        limits: Limits {
            timeout: args.timeout,
            poll: POLL,
        },
        interrupt: &interrupt,
        began,
        events: &report,
    };
    let real = Real {
        layout: &context.layout,
        name: &plan.name,
        settings: &settings,
        nodes: plan.names(),
    };
    match launch.run(&real) {
        Ok(outcome) => {
            report.finish(&outcome, table::outcome);
            finished(&outcome)
        }
        Err(error) => {
            // Ends the bars before the error is printed.
            drop(report);
            let hint = format!("`provision destroy {}` removes what was made", plan.name);
            Err(if interrupt.is_set() {
                CliError::interrupted()
            } else {
                error
            }
            .hint(hint))
        }
    }
}

fn finished(outcome: &Outcome) -> Result<u8, CliError> {
    let name = &outcome.name;
    let stuck: Vec<_> = outcome.nodes.iter().filter(|n| n.stuck.is_some()).collect();
    let Some(first) = stuck.first() else {
        return Ok(0);
    };
    let how_far = |n: &&NodeOutcome| {
        let reached = n.stuck.as_ref().and_then(|s| s.reached);
        let reached = reached.map_or("nothing".to_owned(), |stage| stage.to_string());
        format!("{} (got as far as `{reached}`)", n.name)
    };
    let names: Vec<_> = stuck.iter().map(how_far).collect();
    Err(CliError::new(
        ExitCode::NotJoined,
        format!("of `{name}` did not join in time: {}", names.join(", ")),
    )
    .hint(format!(
        "`provision logs {name}/{}` shows more of what happened",
        first.name
    ))
    .hint(format!("`provision destroy {name}` removes the deployment")))
}

/// What the planner must know.
fn world(database: &Database) -> Result<World, CliError> {
    let deployments = database.deployments()?;
    let mut used: Vec<Net4> = deployments
        .iter()
        .filter_map(|d| d.net4.parse().ok())
        .collect();
    let routes = std::path::Path::new("/proc/net/route");
    let text = std::fs::read_to_string(routes).map_err(|e| CliError::file("read", routes, e))?;
    used.extend(network::routes(&text));
    let names = deployments.into_iter().map(|d| d.name).collect();
    Ok(World {
        names,
        used,
        seed: rand::random(),
    })
}

fn settings(plan: &ClusterPlan, sites: &Sites) -> Result<Settings, CliError> {
    let used = plan
        .sites()
        .into_iter()
        .map(|name| sites.find(name).cloned());
    Ok(Settings {
        sites: used.collect::<Result<_, _>>()?,
        rendezvous: sites.rendezvous.clone(),
        tag: format!("{:08x}", rand::random::<u32>()),
    })
}

/// Locks the deployment that was just recorded.
fn lock(context: &Context, database: &Database, name: &str, id: i64) -> Result<Lock, CliError> {
    match context.locked(database, name)? {
        Some((lock, deployment)) if deployment.id == id => Ok(lock),
        _ => Err(CliError::new(
            ExitCode::Name,
            format!("another provision destroyed `{name}` before anything of it was made"),
        )
        .hint("run `provision cluster` again")),
    }
}

/// Writes the deployment to the database before anything of it exists.
fn record(
    context: &Context,
    database: &Database,
    plan: &ClusterPlan,
    settings: &Settings,
) -> Result<i64, CliError> {
    let node = |node: &crate::plan::NodePlan| NodeRecord {
        name: node.name.clone(),
        role: node.role.clone(),
        site: node.site.clone(),
        ipv4: node.addrs.ipv4.addr.to_string(),
        ipv6: node.addrs.ipv6.addr.to_string(),
        host_key: None,
        underlay: None,
        stages: Vec::new(),
    };
    let new = NewDeployment {
        name: plan.name.clone(),
        domain: plan.domain.clone(),
        net4: plan.nets.ipv4.to_string(),
        net6: plan.nets.net6(),
        settings: settings.to_json()?,
        nodes: plan.nodes.iter().map(node).collect(),
    };
    let id = database.create(&new, SystemTime::now())?;
    let directory = Resource {
        kind: DIRECTORY.to_owned(),
        id: context.layout.deployment(&plan.name).display().to_string(),
    };
    database.plan_resource(id, &Owner::Files, None, &directory)?;
    Ok(id)
}
