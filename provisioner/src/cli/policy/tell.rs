//! Tells machines which rules there are, by SSH: their nodes keep them, and answer for it.

use std::collections::BTreeMap;

use ipop_proto::config::{AllowSection, write_rules};
use serde::Serialize;

use crate::cli::everywhere::all;
use crate::cli::{Context, ssh};
use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};
use crate::name::NodeName;
use crate::state::Database;
use crate::state::record::{Deployment, NodeRecord};

/// What a machine does, with the rules as its argument. A machine that keeps its own system has the program
/// elsewhere.
const TAKE: &str = "PATH=$PATH:/opt/ipop-node/bin; \
                    printf '%s' \"$1\" | ipop-node policy set - --control /run/ipop-node/control.sock";
/// The same where there shall be no rules.
const TAKE_NONE: &str = "PATH=$PATH:/opt/ipop-node/bin; \
                         ipop-node policy set --none --control /run/ipop-node/control.sock";
/// Most bytes of what a machine says of that.
const MOST: usize = 64 << 10;

/// Who has the rules that are recorded.
#[derive(Debug, Default, Serialize)]
pub(super) struct Told {
    /// Machines whose nodes go by them now.
    pub told: Vec<NodeName>,
    /// Machines that could not be told, and why.
    pub silent: BTreeMap<NodeName, String>,
    /// People's machines, which have those of their invitations.
    pub own: Vec<NodeName>,
}

/// Tells those of `nodes` that have older rules, or `every` one. The deployment must be locked.
pub(super) fn tell(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    nodes: &[NodeRecord],
    every: bool,
) -> Result<Told, CliError> {
    let rules = Settings::of(deployment)?.rules;
    let older = database.older_rules(deployment.id)?;
    let asked = nodes
        .iter()
        .filter(|node| node.wanted && (every || older.contains_key(&node.name)));
    let (own, machines): (Vec<_>, Vec<_>) = asked.partition(|node| node.person.is_some());
    let words = words(&rules)?;
    let commands = machines.iter().map(|node| {
        let command = ssh::command(context, database, deployment, nodes, node, &words);
        (&node.name, command)
    });
    let mut told = Told::default();
    for NodeRecord { name, .. } in own {
        match older.get(name) {
            // Those of its invitation are in force again.
            Some(older) if *older == rules => database.has_newest_rules(deployment.id, name)?,
            Some(_) => told.own.push(name.clone()),
            None => {}
        }
    }
    for (name, said) in all(commands.collect(), MOST) {
        match said {
            Ok(_) => {
                database.has_newest_rules(deployment.id, name)?;
                told.told.push(name.clone());
            }
            Err(error) => {
                told.silent.insert(name.clone(), error.one_line());
            }
        }
    }
    Ok(told)
}

/// Tells those machines that were not told, after a deployment was made whole. What cannot be told is a warning.
/// The deployment must be locked.
pub fn finish(
    context: &Context,
    database: &Database,
    name: &str,
    events: &dyn Sink,
) -> Result<(), CliError> {
    let deployment = context.deployment(database, name)?;
    let nodes = database.nodes(deployment.id)?;
    let told = tell(context, database, &deployment, &nodes, false)?;
    for (node, why) in &told.silent {
        events.emit(Event::Warning {
            message: format!(
                "`{node}` still has older rules of who may reach what: {why}; \
                 `provision resume {name}` tells it again"
            ),
        });
    }
    Ok(())
}

/// A program with its arguments: rules have quotes, and lines.
fn words(rules: &[AllowSection]) -> Result<Vec<String>, CliError> {
    if rules.is_empty() {
        return Ok(vec![TAKE_NONE.to_owned()]);
    }
    let text = write_rules(rules)
        .map_err(|e| CliError::new(ExitCode::Internal, "cannot write the rules").caused_by(e))?;
    let words = ["sh", "-c", TAKE, "rules", &text];
    Ok(words.map(str::to_owned).to_vec())
}
