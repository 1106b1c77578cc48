//! Who a deployment's nodes are to the rules of who may reach what. Pure.

use std::collections::BTreeSet;

use ipop_proto::authority::groups;

use super::{MEMBER, NodePlan};
use crate::error::{CliError, ExitCode};

/// The group of the front end and the workers, which nobody else is in: whatever the rules are, they
/// reach each other.
pub const CLUSTER: &str = "cluster";

impl NodePlan {
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
