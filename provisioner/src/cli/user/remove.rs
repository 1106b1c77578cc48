//! `provision user remove`.

use clap::Args;
use serde::Serialize;

use super::settle;
use crate::cli::Context;
use crate::deploy::Parts;
use crate::deploy::real::Real;
use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};
use crate::name::NodeName;
use crate::plan::member;
use crate::rendezvous::ACCOUNT;
use crate::report::Report;

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
    settle(context, &database, &deployment, &report)?;
    let removed = Removed {
        name: deployment.name,
        person: args.person,
        machines,
    };
    report.finish(&removed, |r| {
        let names: Vec<_> = r.machines.iter().map(|m| m.0.as_str()).collect();
        format!("removed from `{}`: {}\n", r.name, names.join(", "))
    });
    Ok(0)
}
