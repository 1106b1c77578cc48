//! Machines of people who are let into a deployment's overlay. Pure.

use std::collections::BTreeSet;

use ipop_proto::config::is_dns_label;

use super::scheduler::Scheduler;
use super::{ClusterPlan, FRONTEND, MEMBER, NodePlan, WORKER};
use crate::error::{CliError, ExitCode};
use crate::name::{NodeName, OPERATOR};
use crate::provider::members::ELSEWHERE;
use crate::state::record::NodeRecord;

/// The name of a person's machine in the overlay: `alice`, or `alice-laptop`.
pub fn name(person: &str, machine: Option<&str>) -> Result<NodeName, CliError> {
    for part in std::iter::once(person).chain(machine) {
        if !is_dns_label(part) {
            let message = format!("`{part}` cannot be a name in the overlay");
            return Err(CliError::new(ExitCode::Usage, message)
                .hint("use lower-case letters, digits and inner hyphens, like alice"));
        }
    }
    let name = machine.map_or_else(|| person.to_owned(), |m| format!("{person}-{m}"));
    let first = person.split('-').next().unwrap_or_default();
    if [FRONTEND, WORKER, OPERATOR].contains(&first) || !is_dns_label(&name) {
        let message = format!("a member's machine cannot be called `{name}`");
        return Err(CliError::new(ExitCode::Usage, message)
            .hint("the names of nodes, and those of more than 63 characters, are not for people"));
    }
    Ok(NodeName(name))
}

/// The machine of somebody in `groups`, with the next free address. `nodes` are all that are recorded: addresses of those that
/// are on their way out are not free yet.
pub fn invite(
    plan: &ClusterPlan,
    nodes: &[NodeRecord],
    name: &NodeName,
    groups: BTreeSet<String>,
) -> Result<NodePlan, CliError> {
    if plan.lan.is_some() {
        let message = format!("`{}` extends the LAN of its front end", plan.name);
        return Err(CliError::new(ExitCode::Usage, message)
            .hint("people can be invited to clusters whose overlay is a network of its own"));
    }
    if plan.scheduler != Scheduler::None && !plan.authority {
        // Nothing but the member's word says which address it has, and workers' addresses are what
        // the front end hands its key to.
        let message = format!(
            "`{}` has a scheduler, whose key a member could ask for",
            plan.name
        );
        return Err(CliError::new(ExitCode::Usage, message)
            .hint("invite people to a cluster that this version of provision made"));
    }
    let taken: BTreeSet<&str> = nodes.iter().map(|n| n.ipv4.as_str()).collect();
    let free = |host: &u32| !taken.contains(plan.host(*host).ipv4.addr.to_string().as_str());
    // From the end: workers that come later have numbers and addresses that belong together.
    let Some(host) = plan.member_hosts().rev().find(free) else {
        let message = format!("the overlay of `{}` has no free address", plan.name);
        return Err(CliError::new(ExitCode::Usage, message).hint(format!(
            "`provision user list {}` shows who has one",
            plan.name
        )));
    };
    Ok(NodePlan {
        name: name.clone(),
        role: MEMBER.to_owned(),
        image: MEMBER.to_owned(),
        site: ELSEWHERE.to_owned(),
        addrs: plan.host(host),
        memory_mib: 0,
        cpus: 0,
        disk_gib: 0,
        data_gib: None,
        slot: host,
        groups,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::demo;

    #[test]
    fn a_machine_is_called_after_its_owner_and_never_like_a_node() {
        let name = |person, machine| name(person, machine).map(|n| n.0).map_err(|e| e.message);
        assert_eq!(name("alice", None).as_deref(), Ok("alice"));
        assert_eq!(name("alice", Some("laptop")).as_deref(), Ok("alice-laptop"));
        for person in [
            "Alice",
            "",
            "a b",
            "-a",
            "worker-3",
            "frontend",
            "provision",
            "a@b",
        ] {
            name(person, None).expect_err(person);
        }
        name("alice", Some("../x")).expect_err("no label");
        name(&"a".repeat(40), Some(&"b".repeat(40))).expect_err("too long");
    }

    #[test]
    fn no_member_has_an_address_that_a_schedulers_key_is_handed_to() {
        let plan = ClusterPlan {
            scheduler: Scheduler::Slurm,
            ..demo()
        };
        let all = plan.machine_hosts().chain(plan.member_hosts());
        assert!(all.eq(1..=plan.capacity()));
        let mut taken: Vec<_> = plan.nodes.iter().map(NodePlan::record).collect();
        let nets: crate::plan::network::Net4 = plan.machine_nets().0.parse().expect("a network");
        for number in plan.member_hosts() {
            let name = NodeName(format!("m{number}"));
            let member = invite(&plan, &taken, &name, Default::default()).expect("room");
            let own = crate::plan::network::Net4::of(member.addrs.ipv4.addr, 32);
            assert!(!nets.holds(own), "{own} is in {nets}");
            taken.push(member.record());
        }
        let name = NodeName("late".to_owned());
        invite(&plan, &taken, &name, Default::default()).expect_err("the rest is for workers");
    }

    #[test]
    fn members_take_free_addresses_from_the_end_and_are_no_workers() {
        let mut plan = demo();
        let mut nodes: Vec<_> = plan.nodes.iter().map(NodePlan::record).collect();
        let mut next = |plan: &mut ClusterPlan, name: &str| {
            let name = NodeName(name.to_owned());
            let node = invite(plan, &nodes, &name, Default::default()).expect("room");
            nodes.push(node.record());
            plan.nodes.push(node.clone());
            u32::from(node.addrs.ipv4.addr) & 0xff
        };
        assert_eq!(next(&mut plan, "alice"), 254);
        assert_eq!(next(&mut plan, "bob"), 253);
        assert_eq!((plan.workers().len(), plan.machines().len()), (2, 3));
        plan.scheduler = Scheduler::Slurm;
        plan.authority = false;
        invite(&plan, &[], &NodeName("eve".to_owned()), Default::default())
            .expect_err("the scheduler's key");
    }
}
