//! `provision policy`: who may reach what, by what is recorded, and other rules.

pub mod set;
pub mod tell;

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Subcommand};
use ipop_proto::config::{AllowSection, PortList, Protocol, Selector};
use ipop_proto::policy::{Answer, Member, Policy, What, reason, sentence, sentences};
use serde::Serialize;

use super::Context;
use super::group::list::{Group, groups, shown};
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;
use crate::plan::ClusterPlan;
use crate::report::Report;
use crate::state::record::NodeRecord;

const EXAMPLES: &str = "\
Examples:
  provision policy lake
  provision policy lake explain alice-laptop frontend-0 tcp/2049
  provision policy lake explain group:crew role:frontend icmp
  provision policy lake set --rules rules.toml

The rules are those of `provision cluster --rules`, or those that were set later. They say who may
begin; answers pass. Only what is recorded is looked at: what a node does at this moment says
`ipop-node policy` on it, by the certificates that it sees.";

/// Show who may reach what, and change it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PolicyArgs {
    /// The deployment
    pub name: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<PolicyCommand>,
}

/// See [`PolicyArgs`].
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Say whether one node may reach another, and by which rule
    Explain(ExplainArgs),
    /// Give the deployment other rules, or none
    Set(set::SetArgs),
}

/// See [`PolicyCommand::Explain`].
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Who begins: a node's name, or anybody who is in `group:NAME` or has `role:NAME`
    pub from: String,
    /// With whom, in the same form
    pub to: String,
    /// With what: `tcp/PORT`, `udp/PORT`, `icmp`, or a TCP port alone
    #[arg(value_parser = str::parse::<What>)]
    pub what: What,
}

/// What is recorded.
#[derive(Debug, Serialize)]
struct View {
    name: String,
    rules: Vec<Rule>,
    groups: Vec<Group>,
    /// Those that are in no group.
    in_no_group: BTreeSet<String>,
    /// Groups, nodes and roles that rules are about and that nobody is.
    nobody: BTreeSet<Selector>,
    /// Nodes that have older rules, and what these say.
    older_rules: BTreeMap<NodeName, Vec<String>>,
}

#[derive(Debug, Serialize)]
struct Rule {
    from: Selector,
    to: Selector,
    protocol: Protocol,
    port: Option<PortList>,
    text: String,
    #[serde(skip)]
    rule: AllowSection,
}

#[derive(Debug, Serialize)]
struct Explained {
    from: String,
    to: String,
    what: String,
    allowed: bool,
    /// Number of the rule, from 1, if one says so.
    rule: Option<usize>,
    why: String,
}

/// Runs the command.
pub fn run(context: &Context, args: PolicyArgs) -> Result<u8, CliError> {
    if let Some(PolicyCommand::Set(set)) = &args.command {
        return set::run(context, &args.name, set);
    }
    let database = context.database()?;
    let deployment = context.deployment(&database, &args.name)?;
    let nodes = database.nodes(deployment.id)?;
    let plan = ClusterPlan::recorded(&deployment, &nodes)?;
    let report = Report::new(context.mode(), &[]);
    match args.command {
        None => {
            let older = database.older_rules(deployment.id)?;
            report.finish(&View::of(&plan, &nodes, &older), text);
        }
        Some(PolicyCommand::Set(_)) => {}
        Some(PolicyCommand::Explain(asked)) => {
            let explained = explain(&plan, &asked)?;
            report.finish(&explained, |explained| {
                let word = if explained.allowed { "yes" } else { "no" };
                format!("{word}: {}\n", explained.why)
            });
        }
    }
    Ok(0)
}

impl View {
    fn of(
        plan: &ClusterPlan,
        nodes: &[NodeRecord],
        older: &BTreeMap<NodeName, Vec<AllowSection>>,
    ) -> Self {
        let members = plan.members();
        let rule = |rule: &AllowSection| Rule {
            from: rule.from.clone(),
            to: rule.to.clone(),
            protocol: rule.protocol,
            port: (!rule.port.is_empty()).then(|| rule.port.clone()),
            text: sentence(rule),
            rule: rule.clone(),
        };
        let nobody = |selector: &&Selector| match selector {
            Selector::Any => false,
            Selector::Group(name) => !members.iter().any(|m| m.groups.contains(name)),
            Selector::Node(name) => !members.iter().any(|m| m.name == *name),
            Selector::Role(name) => !members.iter().any(|m| m.role.as_ref() == Some(name)),
        };
        let selectors = plan.rules.iter().flat_map(|rule| [&rule.from, &rule.to]);
        let older = older.iter().filter(|(name, _)| {
            let record = nodes.iter().find(|node| node.name == **name);
            record.is_some_and(|node| node.wanted)
        });
        let older = older.map(|(name, rules)| (name.clone(), rules.iter().map(sentence).collect()));
        let lonely = members.iter().filter(|member| member.groups.is_empty());
        Self {
            name: plan.name.clone(),
            rules: plan.rules.iter().map(rule).collect(),
            groups: groups(plan, nodes),
            in_no_group: lonely.map(|member| member.name.clone()).collect(),
            nobody: selectors.filter(nobody).cloned().collect(),
            older_rules: older.collect(),
        }
    }
}

fn explain(plan: &ClusterPlan, asked: &ExplainArgs) -> Result<Explained, CliError> {
    let members = plan.members();
    let [from, to] = [&asked.from, &asked.to].map(|text| member(&plan.name, &members, text));
    let (from, to) = (from?, to?);
    let policy = Policy::new(&plan.rules);
    let answer = policy.as_ref().map(|p| p.ask(&from, &to, asked.what));
    Ok(Explained {
        allowed: answer != Some(Answer::Denied),
        rule: match answer {
            Some(Answer::Rule(number, _)) => Some(number),
            _ => None,
        },
        why: reason(answer),
        what: asked.what.to_string(),
        from: from.name,
        to: to.name,
    })
}

/// Who is meant.
fn member(deployment: &str, members: &[Member], text: &str) -> Result<Member, CliError> {
    let selector: Option<Selector> = text.parse().ok();
    if let Some(member) = selector.as_ref().and_then(Member::anybody) {
        return Ok(member);
    }
    let name = match &selector {
        Some(Selector::Node(name)) => name,
        _ => text,
    };
    let known = members.iter().find(|member| member.name == *name);
    known.cloned().ok_or_else(|| {
        CliError::new(
            ExitCode::Name,
            format!("`{deployment}` has no node `{name}`"),
        )
        .hint(format!(
            "`provision policy {deployment}` shows who is there"
        ))
        .hint(
            "`group:NAME` and `role:NAME` ask about anybody who is in that group, or has that role",
        )
    })
}

fn text(view: &View) -> String {
    let rules: Vec<_> = view.rules.iter().map(|rule| rule.rule.clone()).collect();
    let mut out = match rules.is_empty() {
        true => "no rules: everybody reaches everybody\n".to_owned(),
        false => sentences(&rules),
    };
    if !view.groups.is_empty() {
        out += &format!("\n{}", shown(&view.groups));
    }
    let list = |names: &mut dyn Iterator<Item = String>| names.collect::<Vec<_>>().join(", ");
    if !view.in_no_group.is_empty() {
        let names = list(&mut view.in_no_group.iter().cloned());
        out += &format!("\nin no group: {names}\n");
    }
    if !view.nobody.is_empty() {
        let names = list(&mut view.nobody.iter().map(Selector::to_string));
        out += &format!("\nin the rules, and nobody is that yet: {names}\n");
    }
    if !view.older_rules.is_empty() {
        let names = list(&mut view.older_rules.keys().map(ToString::to_string));
        out += &format!("\nolder rules: {names}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{demo, rules};
    use crate::plan::{NodePlan, member};

    /// The machines of alice and of a guest, besides those of the cluster.
    fn lake() -> (ClusterPlan, Vec<NodeRecord>) {
        let mut plan = ClusterPlan {
            rules: rules(),
            ..demo()
        };
        let more = "[[allow]]\nfrom = \"group:diving\"\nto = \"node:buoy\"\nport = 22\n";
        plan.rules
            .extend(crate::plan::policy::read_rules(more, "rules.toml").expect("a rule"));
        let mut nodes: Vec<_> = plan.nodes.iter().map(NodePlan::record).collect();
        for (person, groups) in [("alice", &["lake"][..]), ("guest", &[])] {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            let name = NodeName(person.to_owned());
            let node = member::invite(&plan, &nodes, &name, groups).expect("room");
            nodes.push(NodeRecord {
                person: Some(person.to_owned()),
                ..node.record()
            });
            plan.nodes.push(node);
        }
        (plan, nodes)
    }

    #[test]
    fn the_rules_are_shown_with_who_is_in_which_group() {
        let (plan, nodes) = lake();
        let older = [(NodeName("worker-0".to_owned()), rules())];
        let view = View::of(&plan, &nodes, &older.into());
        insta::assert_snapshot!("policy", text(&view));
        insta::assert_json_snapshot!("policy_json", view);
        let without = ClusterPlan {
            rules: Vec::new(),
            authority: false,
            ..plan
        };
        let shown = text(&View::of(&without, &nodes, &BTreeMap::new()));
        assert!(
            shown.starts_with("no rules: everybody reaches everybody\n"),
            "{shown}"
        );
    }

    #[test]
    fn an_answer_is_given_from_what_is_recorded() {
        let (plan, _) = lake();
        let ask = |from: &str, to: &str, what: &str| {
            let asked = ExplainArgs {
                from: from.to_owned(),
                to: to.to_owned(),
                what: what.parse().expect("valid"),
            };
            explain(&plan, &asked).map(|e| (e.allowed, e.rule, e.why))
        };
        let says = |from, to, what| {
            let (allowed, rule, _) = ask(from, to, what).expect("known");
            (allowed, rule)
        };
        assert_eq!(says("alice", "frontend-0", "tcp/2049"), (true, Some(1)));
        assert_eq!(says("alice", "frontend-0", "22"), (false, None));
        assert_eq!(says("guest", "node:frontend-0", "2049"), (false, None));
        assert_eq!(says("guest", "alice", "icmp"), (true, Some(2)));
        assert_eq!(says("group:lake", "role:frontend", "2049"), (true, Some(1)));
        let (_, _, why) = ask("worker-0", "frontend-0", "udp/7").expect("known");
        assert_eq!(why, "both are in group cluster");
        let error = ask("mallory", "frontend-0", "22").expect_err("nobody");
        assert_eq!(error.code, ExitCode::Name);
        assert_eq!(error.message, "`demo` has no node `mallory`");
    }
}
