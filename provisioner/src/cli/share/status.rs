//! `provision share status`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::machine::{self, Said, Space};
use super::{ShareTarget, find, member_names, mount_line, with_engine};
use crate::cli::Context;
use crate::deploy::interrupt::Interrupt;
use crate::error::CliError;
use crate::event::Stage;
use crate::name::NodeName;
use crate::plan::ClusterPlan;
use crate::plan::share::{FOLDER, Share};
use crate::provider::MachineState;
use crate::report::{Report, words};
use crate::state::record::NodeRecord;

/// How long presences may take to come in.
const LOOK: Duration = Duration::from_secs(2);

/// See [`super::ShareCommand::Status`].
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The deployment and the share
    #[arg(value_name = "NAME/SHARE")]
    pub target: ShareTarget,
}

/// A share as it is now.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    pub deployment: String,
    #[serde(flatten)]
    pub share: Share,
    pub site: String,
    pub ipv4: String,
    pub ipv6: String,
    pub folder: &'static str,
    /// Unknown when the site cannot be asked.
    pub machine: Option<MachineState>,
    /// How far its node is at this moment, as the rendezvous sees it.
    pub now: Option<Stage>,
    /// Unknown when its machine cannot be asked.
    pub space: Option<Space>,
    /// The nodes that have it mounted, or addresses where it is no node's; unknown as above.
    pub mounted: Option<Vec<String>>,
    /// The addresses that may mount it: of its members' machines, or the networks of the overlay.
    pub exported_to: Vec<String>,
    /// What could not be asked, and why.
    pub unknown: Vec<String>,
}

/// Runs the command.
pub fn run(context: &Context, args: StatusArgs) -> Result<u8, CliError> {
    let database = context.database()?;
    let deployment = context.deployment(&database, &args.target.deployment)?;
    let nodes = database.nodes(deployment.id)?;
    let (share, node) = find(&deployment, &nodes, &args.target.share)?;
    let plan = ClusterPlan::recorded(&deployment, &nodes)?;
    let planned = plan.shares.iter().find(|s| s.share.name == share.name);
    let exported_to = planned.map_or_else(Vec::new, |s| s.exported_to(&plan));
    let (report, interrupt) = (Report::new(context.mode(), &[]), Interrupt::default());
    let mut unknown = Vec::new();
    let mut told = |error: CliError| unknown.push(error.one_line());
    let name: &NodeName = &share.name;
    let seen = with_engine(
        context,
        &database,
        &deployment,
        (&interrupt, &report),
        |e| e.parts.meeting()?.watch()?.look(LOOK),
    );
    let now = seen.map_err(&mut told).ok();
    let machines = with_engine(
        context,
        &database,
        &deployment,
        (&interrupt, &report),
        |e| {
            let site = e.settings.site(&node.site)?;
            e.parts.provider(site)?.machines(&e.tags())
        },
    );
    let machine = machines.map_err(&mut told).ok().map(|machines| {
        let machine = machines.get(name);
        machine.map_or(MachineState::Absent, |m| m.state)
    });
    let said = match machine {
        Some(MachineState::Running) | None => {
            let said = machine::ask(context, &database, &deployment, &nodes, &node);
            said.map_err(&mut told).ok()
        }
        Some(MachineState::Stopped | MachineState::Absent) => None,
    };
    let status = Status {
        deployment: deployment.name.clone(),
        site: node.site.clone(),
        ipv4: node.ipv4.clone(),
        ipv6: node.ipv6.clone(),
        folder: FOLDER,
        machine,
        now: now.and_then(|seen| seen.get(name).map(|s| s.stage)),
        space: said.as_ref().and_then(|said| said.space),
        mounted: said.map(|said| mounted(&said, &nodes)),
        exported_to,
        unknown,
        share,
    };
    report.finish(&status, text);
    Ok(0)
}

/// Addresses in words.
pub(super) fn exported_to(addresses: &[String]) -> String {
    match addresses.is_empty() {
        true => "nobody".to_owned(),
        false => addresses.join(", "),
    }
}

fn volume(share: &Share) -> String {
    let size = share.size_gib;
    if let Some(label) = &share.restoring {
        return format!("{size} GiB, not back to `{label}` yet: `provision resume` finishes it");
    }
    match share.growing {
        true => format!("{size} GiB, not there yet: `provision resume` finishes it"),
        false => format!("{size} GiB"),
    }
}

/// Who has it mounted, by name.
fn mounted(said: &Said, nodes: &[NodeRecord]) -> Vec<String> {
    let name = |client: &IpAddr| {
        let client = client.to_string();
        let node = nodes.iter().find(|n| n.ipv4 == client || n.ipv6 == client);
        node.map_or(client, |node| node.name.to_string())
    };
    let names: BTreeSet<_> = said.clients.iter().map(name).collect();
    names.into_iter().collect()
}

pub(super) fn text(status: &Status) -> String {
    let unknown = || "unknown".to_owned();
    let machine = match status.machine {
        Some(MachineState::Running) => "running".to_owned(),
        Some(MachineState::Stopped) => "stopped".to_owned(),
        Some(MachineState::Absent) => "not there".to_owned(),
        None => unknown(),
    };
    let now = status.now.map_or("not signed in", words);
    let space = status.space.map_or_else(unknown, |space| {
        let percent = (space.used_bytes * 100).checked_div(space.size_bytes);
        format!(
            "{} of {} MiB used ({} %)",
            space.used_bytes >> 20,
            space.size_bytes >> 20,
            percent.unwrap_or(100)
        )
    });
    let mounted = match &status.mounted {
        None => unknown(),
        Some(names) if names.is_empty() => "nobody".to_owned(),
        Some(names) => names.join(", "),
    };
    let rows = [
        (
            "share",
            format!("{}/{}", status.deployment, status.share.name),
        ),
        ("site", status.site.clone()),
        ("address", format!("{}, {}", status.ipv4, status.ipv6)),
        ("folder", status.folder.to_owned()),
        ("machine", machine),
        ("node", now.to_owned()),
        ("volume", volume(&status.share)),
        ("space", space),
        ("mounted by", mounted),
        ("members", member_names(&status.share)),
        ("exported to", exported_to(&status.exported_to)),
        ("mount by", mount_line(&status.ipv4)),
    ];
    let line = |(what, value): &(&str, String)| format!("{what:<12} {value}\n");
    let mut out: String = rows.iter().map(line).collect();
    for why in &status.unknown {
        out += &format!("warning: {why}\n");
    }
    out
}
