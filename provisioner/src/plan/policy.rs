//! Who may reach what in a deployment, and who its nodes are to such rules. Pure.

use std::collections::BTreeSet;

use ipop_proto::authority::groups;
use ipop_proto::config::{AllowSection, parse_rules};
use ipop_proto::policy::{Answer, Member, Policy, What};
use serde::Serialize;

use super::{ClusterPlan, MEMBER, NodePlan};
use crate::error::{CliError, ExitCode};

/// The group of the front end and the workers, which nobody else is in: whatever the rules are, they
/// reach each other.
pub const CLUSTER: &str = "cluster";

/// Longest rules, in bytes of TOML: they are in an invitation, and in user data on EC2, with all else.
const MOST_RULES: usize = 4096;

/// Reads the text of a file of rules called `name`.
pub fn read_rules(text: &str, name: &str) -> Result<Vec<AllowSection>, CliError> {
    let wrong = |what: String| {
        CliError::new(ExitCode::Config, format!("`{name}` {what}"))
            .hint("docs/policy.md says what a rule is")
    };
    let rules = parse_rules(text).map_err(|error| wrong(error.to_string()))?;
    if rules.is_empty() {
        return Err(wrong("has no rule: not one [[allow]]".to_owned())
            .hint("without --rules everybody reaches everybody"));
    }
    #[derive(Serialize)]
    struct Section<'a> {
        allow: &'a [AllowSection],
    }
    let written = toml::to_string(&Section { allow: &rules });
    let written = written
        .map_err(|e| CliError::new(ExitCode::Internal, "cannot write the rules").caused_by(e))?;
    if written.len() > MOST_RULES {
        return Err(CliError::new(
            ExitCode::Config,
            format!(
                "the rules in `{name}` are {} bytes long, and {MOST_RULES} are the most",
                written.len()
            ),
        )
        .hint("groups in place of nodes, and lists of ports, make for fewer rules"));
    }
    Ok(rules)
}

/// Refuses rules where the overlay extends a LAN.
pub(super) fn check_lan(rules: &[AllowSection]) -> Result<(), CliError> {
    if rules.is_empty() {
        return Ok(());
    }
    let message = "there are no rules in an overlay that extends the LAN of its front end";
    Err(CliError::new(ExitCode::Usage, message).hint(
        "leave --rules out, or put the front end on a site whose machines are not on such a LAN",
    ))
}

impl ClusterPlan {
    /// All that are there, and the workers that may come, as rules see them.
    pub fn members(&self) -> Vec<Member> {
        let away = self.elastic.workers.iter();
        let away = away.filter(|worker| self.nodes.iter().all(|node| node.name != worker.name));
        let all = self.nodes.iter().chain(away);
        all.map(NodePlan::member).collect()
    }

    /// Whether the rules keep `from` from beginning `what` with `to`.
    pub fn denies(&self, from: &NodePlan, to: &NodePlan, what: What) -> bool {
        let policy = Policy::new(&self.rules);
        policy.is_some_and(|p| p.ask(&from.member(), &to.member(), what) == Answer::Denied)
    }
}

impl NodePlan {
    /// As rules see it.
    pub fn member(&self) -> Member {
        Member {
            name: self.name.0.clone(),
            groups: self.certified_groups(),
            role: Some(self.role.clone()),
        }
    }

    /// The groups that its certificate says it is in.
    pub fn certified_groups(&self) -> BTreeSet<String> {
        match self.role.as_str() {
            MEMBER => self.groups.clone(),
            _ => BTreeSet::from([CLUSTER.to_owned()]),
        }
    }
}

/// Checks that somebody may be in these groups.
pub fn check_groups(groups: &BTreeSet<String>) -> Result<(), CliError> {
    if groups.contains(CLUSTER) {
        let message = format!("nobody can be put in the group `{CLUSTER}`");
        return Err(CliError::new(ExitCode::Usage, message)
            .hint("it is that of the front end and the workers: choose another name"));
    }
    groups::check(groups).map_err(|problem| CliError::new(ExitCode::Usage, problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::demo;

    #[test]
    fn machines_are_in_a_group_of_their_own_and_people_in_theirs() {
        let plan = demo();
        for node in &plan.nodes {
            assert_eq!(node.certified_groups(), ["cluster".to_owned()].into());
        }
        let groups = BTreeSet::from(["lake".to_owned()]);
        let name = crate::name::NodeName("alice".to_owned());
        let member = super::super::member::invite(&plan, &[], &name, groups.clone());
        assert_eq!(member.expect("room").certified_groups(), groups);
    }

    #[test]
    fn a_file_of_rules_is_refused_by_what_is_wrong_with_it() {
        let rule = "[[allow]]\nfrom = \"any\"\nto = \"any\"\nprotocol = \"icmp\"\n";
        assert_eq!(read_rules(rule, "rules.toml").expect("a rule").len(), 1);
        let most = MOST_RULES / rule.len();
        let mistakes = [
            String::new(),
            "[[allow]]\nfrom = \"lake\"\nto = \"any\"\n".to_owned(),
            format!("{rule}port = 1\n"),
            format!("{rule}[node]\n"),
            rule.repeat(most + 1),
        ];
        let refuse = |text: &String| {
            let error = read_rules(text, "rules.toml").expect_err(text);
            assert_eq!(error.code, ExitCode::Config);
            error.to_string()
        };
        let all: Vec<_> = mistakes.iter().map(refuse).collect();
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn rules_are_in_the_configuration_of_every_node() {
        let plan = ClusterPlan {
            rules: crate::plan::tests::rules(),
            ..demo()
        };
        for node in &plan.nodes {
            let config = crate::plan::tests::config(&plan, node);
            assert_eq!(config.allow, plan.rules, "{}", node.name);
        }
    }

    #[test]
    fn machines_reach_each_other_whatever_the_rules_are_and_members_what_these_say() {
        let mut plan = ClusterPlan {
            rules: crate::plan::tests::rules(),
            ..demo()
        };
        let mut invite = |name: &str, groups: &[&str]| {
            let records: Vec<_> = plan.nodes.iter().map(NodePlan::record).collect();
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            let name = crate::name::NodeName(name.to_owned());
            let node = super::super::member::invite(&plan, &records, &name, groups);
            plan.nodes.push(node.expect("room"));
        };
        invite("alice", &["lake"]);
        invite("bob", &["crew"]);
        let [frontend, worker, _, alice, bob] = &plan.nodes[..] else {
            panic!("five nodes");
        };
        for (from, to, what, is_denied) in [
            (frontend, worker, What::Tcp(6817), false),
            (worker, frontend, What::Udp(1), false),
            (alice, frontend, What::Tcp(2049), false),
            (alice, frontend, What::Tcp(22), true),
            (alice, worker, What::Tcp(2049), true),
            (bob, frontend, What::Tcp(2049), true),
            (bob, frontend, What::Icmp, false),
            (frontend, bob, What::Tcp(22), true),
        ] {
            let is = plan.denies(from, to, what);
            assert_eq!(is, is_denied, "{} {} {what}", from.name, to.name);
        }
        plan.rules.clear();
        assert!(!plan.denies(&plan.nodes[4], &plan.nodes[0], What::Tcp(2049)));
    }

    #[test]
    fn a_group_has_a_name_that_nodes_take_and_not_the_one_of_the_machines() {
        let check = |groups: &[&str]| {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            check_groups(&groups)
        };
        check(&["lake", "field-crew", "frontend"]).expect("names");
        for group in ["cluster", "Lake", "", "a b", "-a"] {
            let error = check(&["lake", group]).expect_err(group);
            assert_eq!(error.code, ExitCode::Usage);
        }
        let many: Vec<_> = (0..=groups::MAX_GROUPS).map(|n| format!("g{n}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        check(&many).expect_err("too many");
    }
}
