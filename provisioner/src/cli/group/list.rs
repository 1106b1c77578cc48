//! `provision group list`.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde::Serialize;

use super::names;
use crate::cli::Context;
use crate::error::CliError;
use crate::plan::ClusterPlan;
use crate::report::Report;
use crate::report::table::table;
use crate::state::record::NodeRecord;

/// See [`super::GroupCommand::List`].
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The deployment
    pub name: String,
}

#[derive(Debug, Serialize)]
struct Groups {
    name: String,
    groups: Vec<Group>,
}

/// A group.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Group {
    pub name: String,
    /// Who is in it.
    pub people: BTreeSet<String>,
    /// Their machines; those of the cluster itself are nobody's.
    pub machines: BTreeSet<String>,
}

/// Runs the command.
pub fn run(context: &Context, args: ListArgs) -> Result<u8, CliError> {
    let database = context.database()?;
    let deployment = context.deployment(&database, &args.name)?;
    let nodes = database.nodes(deployment.id)?;
    let plan = ClusterPlan::recorded(&deployment, &nodes)?;
    let groups = Groups {
        name: deployment.name,
        groups: groups(&plan, &nodes),
    };
    Report::new(context.mode(), &[]).finish(&groups, text);
    Ok(0)
}

/// The groups that there are.
pub(in crate::cli) fn groups(plan: &ClusterPlan, nodes: &[NodeRecord]) -> Vec<Group> {
    if !plan.authority {
        return Vec::new();
    }
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for node in &plan.nodes {
        let record = nodes.iter().find(|record| record.name == node.name);
        let person = record.and_then(|record| record.person.clone());
        for name in node.certified_groups() {
            let group = groups.entry(name.clone()).or_insert_with(|| Group {
                name,
                people: BTreeSet::new(),
                machines: BTreeSet::new(),
            });
            group.people.extend(person.clone());
            group.machines.insert(node.name.0.clone());
        }
    }
    groups.into_values().collect()
}

fn text(groups: &Groups) -> String {
    if groups.groups.is_empty() {
        return format!(
            "`{}` was made before there were groups: nobody is in one\n",
            groups.name
        );
    }
    shown(&groups.groups)
}

/// Groups for people.
pub(in crate::cli) fn shown(groups: &[Group]) -> String {
    let row = |g: &Group| vec![g.name.clone(), names(&g.people), names(&g.machines)];
    let rows: Vec<_> = groups.iter().map(row).collect();
    table(&["GROUP", "PEOPLE", "MACHINES"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::NodeName;
    use crate::plan::tests::demo;
    use crate::plan::{NodePlan, member};

    #[test]
    fn groups_are_listed_with_people_and_all_their_machines() {
        let mut plan = demo();
        let mut nodes: Vec<_> = plan.nodes.iter().map(NodePlan::record).collect();
        for (person, machine, groups) in [
            ("alice", "alice-laptop", &["lake", "crew"][..]),
            ("alice", "alice-phone", &["lake", "crew"]),
            ("bob", "bob", &["crew"]),
            ("eve", "eve", &[]),
        ] {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            let name = NodeName(machine.to_owned());
            let node = member::invite(&plan, &nodes, &name, groups).expect("room");
            nodes.push(NodeRecord {
                person: Some(person.to_owned()),
                ..node.record()
            });
            plan.nodes.push(node);
        }
        let groups = Groups {
            name: "demo".to_owned(),
            groups: groups(&plan, &nodes),
        };
        insta::assert_snapshot!(text(&groups), @r"
        GROUP    PEOPLE      MACHINES
        cluster  -           frontend-0, worker-0, worker-1
        crew     alice, bob  alice-laptop, alice-phone, bob
        lake     alice       alice-laptop, alice-phone
        ");
        let none = Groups {
            groups: Vec::new(),
            ..groups
        };
        assert!(text(&none).contains("before there were groups"));
    }
}
