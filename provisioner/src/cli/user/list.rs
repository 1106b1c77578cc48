//! `provision user list`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;

use crate::cli::Context;
use crate::cli::group::names;
use crate::deploy::real::Real;
use crate::deploy::settings::Settings;
use crate::deploy::{Parts, Seen};
use crate::error::CliError;
use crate::keep::plan::remaining;
use crate::name::NodeName;
use crate::plan::MEMBER;
use crate::rendezvous::Rendezvous;
use crate::report::Report;
use crate::report::table::table;
use crate::state::record::NodeRecord;

/// How long presences may take to come in.
const LOOK: Duration = Duration::from_secs(2);

/// See [`super::UserCommand::List`].
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The deployment
    pub name: String,
}

#[derive(Debug, Serialize)]
struct Members {
    name: String,
    members: Vec<Member>,
    /// Why nobody could be asked who is there.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Member {
    person: String,
    machine: NodeName,
    groups: BTreeSet<String>,
    ipv4: String,
    ipv6: String,
    #[serde(flatten)]
    state: State,
}

/// How far a member's machine is.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
enum State {
    /// It did not use its invitation yet.
    Invited { remaining_seconds: u64 },
    /// It is there.
    Online,
    /// It has joined once, or its invitation is over.
    Offline,
    /// It cannot be told.
    Unknown,
}

/// Runs the command.
pub fn run(context: &Context, args: ListArgs) -> Result<u8, CliError> {
    let database = context.database()?;
    let deployment = context.deployment(&database, &args.name)?;
    let settings = Settings::of(&deployment)?;
    let nodes = database.nodes(deployment.id)?;
    let real = Real {
        layout: &context.layout,
        name: &deployment.name,
        settings: &settings,
        nodes: nodes.iter().map(|n| n.name.clone()).collect(),
        tags: None,
    };
    let watch = real.meeting().and_then(|meeting| meeting.watch());
    let seen = watch.and_then(|mut watch| watch.look(LOOK));
    let rendezvous = Rendezvous::open(
        &context.layout,
        &deployment.name,
        &settings.tag,
        &settings.rendezvous,
    )?;
    let now = SystemTime::now();
    let members = nodes
        .into_iter()
        .filter(|n| n.wanted && n.role == MEMBER)
        .map(|node| Member {
            state: state(seen.as_ref().ok(), &rendezvous, &node, now),
            person: node.person.unwrap_or_default(),
            machine: node.name,
            groups: node.groups,
            ipv4: node.ipv4,
            ipv6: node.ipv6,
        });
    let members = Members {
        name: deployment.name,
        members: members.collect(),
        error: seen.as_ref().err().map(CliError::one_line),
    };
    Report::new(context.mode(), &[]).finish(&members, text);
    Ok(0)
}

fn state(
    seen: Option<&BTreeMap<NodeName, Seen>>,
    rendezvous: &Rendezvous,
    node: &NodeRecord,
    now: SystemTime,
) -> State {
    match (seen, rendezvous.invited_until(&node.name)) {
        (Some(seen), _) if seen.contains_key(&node.name) => State::Online,
        (_, Ok(Some(until))) if until > now => State::Invited {
            remaining_seconds: until.duration_since(now).unwrap_or_default().as_secs(),
        },
        (Some(_), Ok(_)) => State::Offline,
        _ => State::Unknown,
    }
}

fn text(members: &Members) -> String {
    let name = &members.name;
    if members.members.is_empty() {
        return format!(
            "nobody was invited to `{name}`; `provision user invite {name} PERSON` does that\n"
        );
    }
    let row = |m: &Member| {
        let state = match m.state {
            State::Invited { remaining_seconds } => {
                let left = Duration::from_secs(remaining_seconds);
                format!("invited, for {}", remaining(UNIX_EPOCH + left, UNIX_EPOCH))
            }
            State::Online => "online".to_owned(),
            State::Offline => "offline".to_owned(),
            State::Unknown => "unknown".to_owned(),
        };
        vec![
            m.person.clone(),
            m.machine.to_string(),
            names(&m.groups),
            m.ipv4.clone(),
            m.ipv6.clone(),
            state,
        ]
    };
    let rows: Vec<_> = members.members.iter().map(row).collect();
    let mut out = table(
        &["PERSON", "MACHINE", "GROUPS", "IPV4", "IPV6", "STATE"],
        &rows,
    );
    if let Some(error) = &members.error {
        out += &format!("\nthe rendezvous cannot be asked who is there: {error}\n");
    }
    out
}
