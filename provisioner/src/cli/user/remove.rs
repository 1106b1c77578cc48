//! `provision user remove`.

use std::time::{Duration, SystemTime};

use clap::Args;
use serde::Serialize;

use super::settle;
use crate::authority::Authority;
use crate::authority::told::Told;
use crate::cli::Context;
use crate::cli::share::members::refresh;
use crate::deploy::Parts;
use crate::deploy::real::Real;
use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};
use crate::name::NodeName;
use crate::plan::{MEMBER, member};
use crate::rendezvous::ACCOUNT;
use crate::report::Report;

/// How long nodes have to say that the list is in force.
const LIMIT: Duration = Duration::from_secs(5);

/// See [`super::UserCommand::Remove`].
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The deployment
    pub name: String,
    /// The person
    pub person: String,
    /// Which of the person's machines [default: all]
    #[arg(long)]
    pub machine: Option<String>,
}

#[derive(Debug, Serialize)]
struct Removed {
    name: String,
    person: String,
    machines: Vec<NodeName>,
    /// None where the overlay has no authority, or none of the machines ever had a certificate.
    revocation: Option<Revoked>,
}

/// What became of the machines' certificates.
#[derive(Debug, Serialize)]
struct Revoked {
    /// Number of the revocation list.
    list: u64,
    /// How many certificates of the machines it has.
    certificates: usize,
    /// Whether there may be others, signed by an older version.
    may_have_others: bool,
    /// Nodes that say that it is in force; none if nobody tells them, as long as what always runs
    /// beside the rendezvous does not.
    acknowledged: Option<Vec<NodeName>>,
    /// Nodes that are online and have not said so yet.
    silent: Vec<NodeName>,
}

/// Runs the command.
pub fn run(context: &Context, args: RemoveArgs) -> Result<u8, CliError> {
    let only = match &args.machine {
        Some(machine) => Some(member::name(&args.person, Some(machine))?),
        None => None,
    };
    let database = context.database()?;
    let (_lock, deployment) = context.locked_to_change(&database, &args.name)?;
    let nodes = database.nodes(deployment.id)?;
    let of_person = nodes
        .iter()
        .filter(|n| n.person.as_deref() == Some(&args.person));
    let machines: Vec<NodeName> = of_person
        .map(|n| n.name.clone())
        .filter(|name| only.as_ref().is_none_or(|only| only == name))
        .collect();
    if machines.is_empty() {
        let what = only.map_or_else(|| args.person.clone(), |only| only.0);
        let message = format!("`{}` has no member `{what}`", args.name);
        return Err(CliError::new(ExitCode::Name, message).hint(format!(
            "`provision user list {}` shows who is in",
            args.name
        )));
    }
    database.rescale(deployment.id, &deployment.settings, &[], &machines)?;
    let report = Report::new(context.mode(), &[]);
    // At once: what else there is to settle may take its time.
    let settings = Settings::of(&deployment)?;
    let revoked = revoke(context, &deployment.name, &settings, &machines, &report);
    let real = Real {
        layout: &context.layout,
        name: &deployment.name,
        settings: &settings,
        nodes: nodes.iter().map(|n| n.name.clone()).collect(),
        tags: Some(deployment.tags()),
    };
    let meeting = real.meeting()?;
    for (node, account) in meeting.plan(&machines) {
        if let (Some(node), ACCOUNT) = (node, account.kind.as_str()) {
            meeting.remove(&account)?;
            report.emit(Event::Step {
                message: format!("{node}: the account is closed"),
            });
        }
    }
    // Without a list their accounts are closed all the same.
    let revocation = revoked.map_err(|error| {
        let name = &deployment.name;
        error.hint(format!("`provision resume {name}` tries it again"))
    })?;
    let revocation = revocation.map(|revoked| {
        let dir = context.layout.authority(&deployment.name);
        let told = Told::wait(&dir, revoked.list, &machines, LIMIT);
        revoked.told(told)
    });
    settle(context, &database, &deployment, &report)?;
    refresh(context, &database, &deployment.name, &report)?;
    let removed = Removed {
        name: deployment.name,
        person: args.person,
        machines,
        revocation,
    };
    report.finish(&removed, text);
    Ok(0)
}

/// Puts the machines' certificates on the overlay's revocation list.
fn revoke(
    context: &Context,
    name: &str,
    settings: &Settings,
    machines: &[NodeName],
    report: &Report,
) -> Result<Option<Revoked>, CliError> {
    if !settings.authority {
        return Ok(None);
    }
    let now = SystemTime::now();
    let authority = Authority::open(&context.layout.authority(name), name, now)?;
    let mut revoked: Option<Revoked> = None;
    for machine in machines {
        let revocation = authority.revoke(machine, MEMBER, now)?;
        if let Some(message) = revocation.warning(machine) {
            report.emit(Event::Warning { message });
        }
        let (Some(list), 1..) = (revocation.list, revocation.certificates) else {
            continue;
        };
        let all = revoked.get_or_insert_with(|| Revoked::on(list));
        all.list = list;
        all.certificates += revocation.certificates;
        all.may_have_others |= revocation.may_have_others;
    }
    Ok(revoked)
}

impl Revoked {
    fn on(list: u64) -> Self {
        Self {
            list,
            certificates: 0,
            may_have_others: false,
            acknowledged: None,
            silent: Vec::new(),
        }
    }

    fn told(self, told: Option<Told>) -> Self {
        let (acknowledged, silent) = match told {
            Some(told) => (Some(told.acknowledged), told.silent),
            None => (None, Vec::new()),
        };
        Self {
            acknowledged,
            silent,
            ..self
        }
    }
}

fn text(removed: &Removed) -> String {
    let names = |nodes: &[NodeName]| {
        let names: Vec<_> = nodes.iter().map(|node| node.0.as_str()).collect();
        names.join(", ")
    };
    let (name, machines) = (&removed.name, names(&removed.machines));
    let mut out = format!("removed from `{name}`: {machines}\n");
    let Some(revoked) = &removed.revocation else {
        return out;
    };
    let Revoked { list, silent, .. } = revoked;
    match &revoked.acknowledged {
        None => {
            out += &format!(
                "nobody was told revocation list {list} yet: what runs beside the rendezvous does not \
                 answer; `provision resume {name}` starts it\n"
            );
        }
        Some(have) => {
            let (have, all) = (have.len(), have.len() + silent.len());
            out += &format!(
                "revocation list {list} is in force at {have} of {all} nodes that are online\n"
            );
        }
    }
    if !silent.is_empty() {
        let silent = names(silent);
        out += &format!("not yet: {silent}; they are told again, and by each other\n");
    }
    out
}
