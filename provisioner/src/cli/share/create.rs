//! `provision share create`.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{ShareTarget, find, member_names, mount_line, with_engine};
use crate::cli::Context;
use crate::cli::apply::ApplyArgs;
use crate::deploy::apply::Options;
use crate::deploy::interrupt::Interrupt;
use crate::deploy::outcome::{NodeOutcome, Outcome};
use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::plan::ClusterPlan;
use crate::plan::scale::Size;
use crate::plan::share::{self, EVERYONE, FOLDER, Share};
use crate::report::Report;
use crate::site::Site;
use crate::size::{Gibibytes, Mebibytes, duration};

const EXAMPLES: &str = "\
Examples:
  provision share create lake/lake-data --on local --size 20G
  provision share create lake/lake-data --on local --size 20G --members alice --members worker-0
  provision share create lake/photos --on local --size 5G --members group:diving

Whoever is let in is known by the addresses that the overlay's authority gave to that node, or to
all machines of that person; all users of all clients are one user in the share. If the data of an
earlier share of that name is there, the new share has it, as large as it was or larger.";

/// See [`super::ShareCommand::Create`].
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CreateArgs {
    /// The deployment, and the share's name in it
    #[arg(value_name = "NAME/SHARE")]
    pub target: ShareTarget,
    /// The site of its machine and its volume
    #[arg(long, value_name = "SITE")]
    pub on: String,
    /// Size of its volume: more than that is never stored
    #[arg(long, value_name = "SIZE")]
    pub size: Gibibytes,
    /// Who may mount it: nodes, persons with all their machines, `group:NAME`, or `all` of the overlay;
    /// may be repeated
    #[arg(long, value_name = "WHO", value_delimiter = ',', default_value = EVERYONE)]
    pub members: Vec<String>,
    /// Memory of its machine [default: the site's, else 512M]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Mebibytes>,
    /// Virtual CPUs of its machine [default: the site's, else 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub cpus: Option<u32>,
    /// How long it may take to join once its machine runs [default: 2m with KVM, 15m without]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Do not wait until it has joined: end when the machine is started
    #[arg(long)]
    pub no_wait: bool,
}

/// What was made.
#[derive(Debug, Serialize)]
pub(super) struct Created {
    pub deployment: String,
    pub share: Share,
    pub site: String,
    pub ipv4: String,
    pub ipv6: String,
    /// The folder, as its clients mount it.
    pub folder: &'static str,
    /// Whether it serves; false also when nobody waited for it.
    pub joined: bool,
    pub waited: bool,
}

/// Runs the command.
pub fn run(context: &Context, args: CreateArgs) -> Result<u8, CliError> {
    let interrupt = Interrupt::listen()?;
    let database = context.database()?;
    let name = &args.target.deployment;
    let (_lock, deployment) = context.locked_to_change(&database, name)?;
    let nodes = database.nodes(deployment.id)?;
    let plan = ClusterPlan::recorded(&deployment, &nodes)?;
    let mut settings = Settings::of(&deployment)?;
    let site = match settings.sites.iter().find(|s| s.name == args.on) {
        Some(site) => site.clone(),
        None => context.sites()?.find(&args.on)?.clone(),
    };
    check_site(context, &site)?;
    let share = Share {
        name: args.target.share.clone(),
        size_gib: args.size.0,
        members: args.members.iter().cloned().collect::<BTreeSet<_>>(),
        growing: false,
        restoring: None,
    };
    let size = Size {
        memory_mib: args.memory.map(|m| m.0),
        cpus: args.cpus,
    };
    let node = share::add(&plan, &nodes, &site, &share, size)?;
    if !settings.sites.iter().any(|s| s.name == site.name) {
        settings.sites.push(site);
    }
    // One that was removed while a command was stopped.
    settings.shares.retain(|s| s.name != share.name);
    settings.shares.push(share);
    database.rescale(deployment.id, &settings.to_json()?, &[node.record()], &[])?;

    interrupt.advise(format!("provision resume {name}"));
    let deployment = context.deployment(&database, name)?;
    let report = Report::new(context.mode(), std::slice::from_ref(&node.name));
    let waiting = ApplyArgs {
        timeout: args.timeout,
        quorum: None,
        replace: 0,
        no_wait: args.no_wait,
        dry_run: false,
    };
    // The share is not one of the workers of which some are enough.
    let options = Options {
        quorum: Some(u32::MAX),
        ..waiting.options(None)
    };
    let result = with_engine(
        context,
        &database,
        &deployment,
        (&interrupt, &report),
        |e| e.apply(&options),
    );
    let outcome = result.map_err(|error| {
        let error = match interrupt.is_set() {
            true => CliError::interrupted(),
            false => error,
        };
        hinted(error, &args.target)
    })?;
    let nodes = database.nodes(deployment.id)?;
    let (share, node) = find(&deployment, &nodes, &args.target.share)?;
    let own = outcome.nodes.iter().find(|n| n.name == node.name);
    let created = Created {
        deployment: deployment.name,
        share,
        site: node.site,
        ipv4: node.ipv4,
        ipv6: node.ipv6,
        folder: FOLDER,
        joined: outcome.waited && own.is_some_and(|n| n.stuck.is_none()),
        waited: outcome.waited,
    };
    let stuck = stuck(&outcome, own, &args.target);
    report.finish(&created, text);
    stuck.map_or(Ok(0), Err)
}

/// Refuses a site whose machines cannot have volumes that outlive them.
fn check_site(context: &Context, site: &Site) -> Result<(), CliError> {
    if context.provider(site)?.keeps_data() {
        return Ok(());
    }
    let message = format!(
        "machines of site `{}` cannot keep the data of a share",
        site.name
    );
    Err(CliError::new(ExitCode::Usage, message)
        .hint("a site of kind `libvirt` can; `provision site list` shows the sites"))
}

pub(super) fn hinted(error: CliError, target: &ShareTarget) -> CliError {
    let ShareTarget { deployment, share } = target;
    error
        .hint(format!("`provision resume {deployment}` continues"))
        .hint(format!(
            "`provision share destroy {deployment}/{share}` removes what was made, and keeps the data"
        ))
}

pub(super) fn stuck(
    outcome: &Outcome,
    own: Option<&NodeOutcome>,
    target: &ShareTarget,
) -> Option<CliError> {
    let stuck = own.filter(|_| outcome.waited)?.stuck.as_ref()?;
    let ShareTarget { deployment, share } = target;
    let message = format!("`{deployment}/{share}` did not join in time");
    let error = CliError::new(ExitCode::NotJoined, message)
        .caused_by(stuck.why.clone())
        .hint(format!(
            "`provision logs {deployment}/{share}` shows more of what happened"
        ));
    Some(hinted(error, target))
}

pub(super) fn text(created: &Created) -> String {
    let Created {
        deployment,
        share,
        site,
        ipv4,
        ipv6,
        ..
    } = created;
    let state = match (created.joined, created.waited) {
        (true, _) => "serves",
        (false, true) => "does not serve yet",
        (false, false) => "was started",
    };
    format!(
        "`{}` of `{deployment}` {state}: {} GiB on {site}, at {ipv4} and {ipv6}, for: {}\n\
         On a member's machine, as root, by `provision share mount {deployment}/{}` or:\n\n  {}\n",
        share.name,
        share.size_gib,
        member_names(share),
        share.name,
        mount_line(ipv4)
    )
}
