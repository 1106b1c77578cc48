//! `provision user remove`.

use std::time::SystemTime;

use clap::Args;
use serde::Serialize;

use super::settle;
use crate::audit::{Audit, By};
use crate::authority::Authority;
use crate::cli::Context;
use crate::cli::revoked::{Revoked, joined};
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
use crate::state::record::NodeRecord;

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
    let revoked = revoke(
        context,
        &deployment.name,
        &settings,
        &nodes,
        &machines,
        &report,
    );
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
    let dir = context.layout.authority(&deployment.name);
    let revocation = revocation.map(|revoked| revoked.wait(&dir, &machines));
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
    nodes: &[NodeRecord],
    machines: &[NodeName],
    report: &Report,
) -> Result<Option<Revoked>, CliError> {
    if !settings.authority {
        return Ok(None);
    }
    let now = SystemTime::now();
    let audit = Audit::new(&context.layout, name, By::Owner, nodes);
    let authority = Authority::open(&context.layout.authority(name), name, audit, now)?;
    let mut revoked: Option<Revoked> = None;
    for machine in machines {
        let revocation = authority.revoke(machine, MEMBER, now)?;
        if let Some(message) = revocation.warning(machine) {
            report.emit(Event::Warning { message });
        }
        Revoked::add(&mut revoked, &revocation);
    }
    Ok(revoked)
}

fn text(removed: &Removed) -> String {
    let (name, machines) = (&removed.name, joined(&removed.machines));
    let mut out = format!("removed from `{name}`: {machines}\n");
    if let Some(revoked) = &removed.revocation {
        out += &revoked.text(name);
    }
    out
}
