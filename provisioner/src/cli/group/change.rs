//! `provision group add` and `provision group remove`.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use serde::Serialize;

use super::names;
use crate::audit::{Audit, By};
use crate::authority::{Authority, Standing};
use crate::cli::Context;
use crate::cli::revoked::{Revoked, joined};
use crate::cli::share::members::refresh;
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};
use crate::name::NodeName;
use crate::plan::policy::check_groups;
use crate::plan::{ClusterPlan, NodePlan};
use crate::report::Report;
use crate::state::record::NodeRecord;

/// How long machines have to get their new certificates before the command says who has not.
const LIMIT: Duration = Duration::from_secs(5);
/// Between looks.
const PAUSE: Duration = Duration::from_millis(100);

/// See [`super::GroupCommand`].
#[derive(Debug, Args)]
pub struct ChangeArgs {
    /// The deployment
    pub name: String,
    /// The group
    pub group: String,
    /// The person
    pub person: String,
}

/// What becomes of a person's membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The person comes into the group.
    Add,
    /// The person leaves it.
    Remove,
}

#[derive(Debug, Serialize)]
struct Changed {
    name: String,
    person: String,
    /// All groups that the person is in now.
    groups: BTreeSet<String>,
    /// What became of the certificates with other groups; none if there were none.
    revocation: Option<Revoked>,
    /// Machines with a certificate that says so.
    certified: Vec<NodeName>,
    /// Machines that have not asked for it yet, and have no link until they do.
    lacking: Vec<NodeName>,
    /// Machines that have not joined yet.
    absent: Vec<NodeName>,
}

/// Runs the command.
pub fn run(context: &Context, args: ChangeArgs, change: Change) -> Result<u8, CliError> {
    let database = context.database()?;
    let (_lock, deployment) = context.locked_to_change(&database, &args.name)?;
    let nodes = database.nodes(deployment.id)?;
    let plan = ClusterPlan::recorded(&deployment, &nodes)?;
    let groups = groups(&plan, &nodes, &args, change)?;
    let only = BTreeSet::from([args.group.clone()]);
    match change {
        Change::Add => database.put_in_groups(deployment.id, &args.person, &only)?,
        Change::Remove => {
            database.take_out_of_group(deployment.id, &args.person, &args.group)?;
        }
    }
    let report = Report::new(context.mode(), &[]);
    let nodes = database.nodes(deployment.id)?;
    let plan = ClusterPlan::recorded(&deployment, &nodes)?;
    let dir = context.layout.authority(&deployment.name);
    let machines = machines(&plan, &nodes, &args.person);
    let audit = Audit::new(&context.layout, &plan.name, By::Owner, &nodes);
    let revoked = regroup(&dir, &plan.name, audit, &machines, &report);
    // What is recorded has changed: the rest can be done again.
    let (authority, revoked) = revoked
        .map_err(|error| error.hint(format!("`provision resume {}` tries it again", args.name)))?;
    refresh(context, &database, &deployment.name, &report)?;
    let revocation = revoked.map(|revoked| revoked.wait(&dir, &[]));
    let changed = Changed {
        revocation,
        ..settled(&authority, &machines)?.of(args, groups)
    };
    report.finish(&changed, text);
    Ok(0)
}

/// The groups that the person is to be in.
fn groups(
    plan: &ClusterPlan,
    nodes: &[NodeRecord],
    args: &ChangeArgs,
    change: Change,
) -> Result<BTreeSet<String>, CliError> {
    let ChangeArgs {
        name,
        group,
        person,
    } = args;
    let list = format!("`provision group list {name}` shows who is in which");
    let is_own = |node: &&NodeRecord| node.wanted && node.person.as_ref() == Some(person);
    let Some(own) = nodes.iter().find(is_own) else {
        let message = format!("`{name}` has no member `{person}`");
        return Err(CliError::new(ExitCode::Name, message).hint(format!(
            "`provision user invite {name} {person} --group {group}` invites somebody into a group"
        )));
    };
    if !plan.authority {
        let message = format!("nobody says in `{name}` who is in which group");
        return Err(CliError::new(ExitCode::Usage, message)
            .hint("there are groups in clusters that this version of provision made"));
    }
    let mut groups = own.groups.clone();
    match change {
        Change::Add => {
            groups.insert(group.clone());
            check_groups(&groups)?;
        }
        Change::Remove if !groups.remove(group) => {
            let message = format!("`{person}` is not in the group `{group}`");
            return Err(CliError::new(ExitCode::Name, message).hint(list));
        }
        Change::Remove => {}
    }
    Ok(groups)
}

/// The machines of a person.
pub(in crate::cli) fn machines(
    plan: &ClusterPlan,
    nodes: &[NodeRecord],
    person: &str,
) -> Vec<NodePlan> {
    let is_own = |node: &&NodePlan| {
        let record = nodes.iter().find(|record| record.name == node.name);
        record.is_some_and(|record| record.person.as_deref() == Some(person))
    };
    plan.nodes.iter().filter(is_own).cloned().collect()
}

/// Revokes the certificates of machines that have other groups than are recorded.
pub(in crate::cli) fn regroup(
    dir: &Path,
    overlay: &str,
    audit: Audit,
    machines: &[NodePlan],
    report: &Report,
) -> Result<(Authority, Option<Revoked>), CliError> {
    let now = SystemTime::now();
    let authority = Authority::open(dir, overlay, audit, now)?;
    let mut revoked = None;
    for machine in machines {
        let revocation = authority.regroup(machine, now)?;
        if let Some(message) = revocation.warning(&machine.name) {
            report.emit(Event::Warning { message });
        }
        Revoked::add(&mut revoked, &revocation);
    }
    Ok((authority, revoked))
}

/// How far machines are with their certificates.
#[derive(Debug, Default)]
struct Settled {
    certified: Vec<NodeName>,
    lacking: Vec<NodeName>,
    absent: Vec<NodeName>,
}

/// Waits until all that have joined have the certificate that they should, but not for long.
fn settled(authority: &Authority, machines: &[NodePlan]) -> Result<Settled, CliError> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let mut settled = Settled::default();
        for machine in machines {
            let list = match authority.standing(machine, SystemTime::now())? {
                Standing::Certified => &mut settled.certified,
                Standing::Lacking => &mut settled.lacking,
                Standing::Absent => &mut settled.absent,
            };
            list.push(machine.name.clone());
        }
        if settled.lacking.is_empty() || Instant::now() >= deadline {
            return Ok(settled);
        }
        sleep(PAUSE);
    }
}

impl Settled {
    fn of(self, args: ChangeArgs, groups: BTreeSet<String>) -> Changed {
        Changed {
            name: args.name,
            person: args.person,
            groups,
            revocation: None,
            certified: self.certified,
            lacking: self.lacking,
            absent: self.absent,
        }
    }
}

fn text(changed: &Changed) -> String {
    let Changed { name, person, .. } = changed;
    let mut out = match changed.groups.is_empty() {
        true => format!("{person} is in no group of `{name}`\n"),
        false => format!("{person} is in `{name}` in: {}\n", names(&changed.groups)),
    };
    if let Some(revoked) = &changed.revocation {
        out += &revoked.text(name);
    }
    for (machines, what) in [
        (&changed.certified, "has its new certificate"),
        (
            &changed.lacking,
            "no new certificate yet, and no link until it has asked for one, which it does when it is online",
        ),
        (
            &changed.absent,
            "has not joined yet, and will have it when it does",
        ),
    ] {
        if !machines.is_empty() {
            out += &format!("{}: {what}\n", joined(machines));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::member;
    use crate::plan::tests::demo;

    #[test]
    fn who_comes_and_who_leaves_is_somebody_who_can() {
        let mut plan = demo();
        let mut nodes: Vec<_> = plan.nodes.iter().map(NodePlan::record).collect();
        let name = NodeName("alice-laptop".to_owned());
        let lake = BTreeSet::from(["lake".to_owned()]);
        let node = member::invite(&plan, &nodes, &name, lake).expect("room");
        nodes.push(NodeRecord {
            person: Some("alice".to_owned()),
            ..node.record()
        });
        plan.nodes.push(node);
        assert_eq!(machines(&plan, &nodes, "alice").len(), 1);
        let ask = |plan: &ClusterPlan, person: &str, group: &str, change| {
            let args = ChangeArgs {
                name: "demo".to_owned(),
                group: group.to_owned(),
                person: person.to_owned(),
            };
            let groups = groups(plan, &nodes, &args, change);
            groups
                .map(|groups| names(&groups))
                .map_err(|error| (error.code, error.message))
        };
        let says = |person, group, change| ask(&plan, person, group, change);
        assert_eq!(says("alice", "crew", Change::Add), Ok("crew, lake".into()));
        assert_eq!(says("alice", "lake", Change::Add), Ok("lake".into()));
        assert_eq!(says("alice", "lake", Change::Remove), Ok("-".into()));
        for (person, group, change, code, message) in [
            (
                "bob",
                "lake",
                Change::Add,
                ExitCode::Name,
                "`demo` has no member `bob`",
            ),
            (
                "alice",
                "crew",
                Change::Remove,
                ExitCode::Name,
                "`alice` is not in the group `crew`",
            ),
            (
                "alice",
                "cluster",
                Change::Add,
                ExitCode::Usage,
                "nobody can be put in the group `cluster`",
            ),
        ] {
            assert_eq!(says(person, group, change), Err((code, message.to_owned())));
        }
        let without = ClusterPlan {
            authority: false,
            ..plan.clone()
        };
        let (code, _) = ask(&without, "alice", "crew", Change::Add).expect_err("no authority");
        assert_eq!(code, ExitCode::Usage);
    }
}
