//! Shares: nodes that serve a folder on a volume of its own to those who were let in. Pure.

use std::collections::BTreeSet;

use ipop_proto::address::OverlayAddrs;
use ipop_proto::config::is_dns_label;
use serde::{Deserialize, Serialize};

use super::scale::{Size, Taken};
use super::{ClusterPlan, FRONTEND, NodePlan, SHARE, WORKER};
use crate::error::{CliError, ExitCode};
use crate::name::{NodeName, OPERATOR, machine_name, suggestion};
use crate::site::Site;
use crate::state::record::NodeRecord;

/// Among a share's members: the whole overlay.
pub const EVERYONE: &str = "all";
/// Among a share's members: whoever is in the group of this name, now or later.
const GROUP: &str = "group:";
/// What a share exports, as a path on its machine.
pub const FOLDER: &str = "/srv/share";

/// A share, as it is kept in the deployment's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Its name, and its node's.
    pub name: NodeName,
    /// Size of its volume in GiB.
    pub size_gib: u32,
    /// Who may mount it: nodes and persons by name, groups as `group:NAME`, or [`EVERYONE`].
    pub members: BTreeSet<String>,
    /// Whether its size is what it shall have, and its machine may not have it yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub growing: bool,
    /// The snapshot to which its data goes back, while that is not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restoring: Option<String>,
}

/// A share with the addresses that its members have now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedShare {
    /// The share.
    pub share: Share,
    /// Who may mount it, by address; none: whoever is in the overlay.
    pub clients: Option<Vec<OverlayAddrs>>,
}

impl PlannedShare {
    /// The clients as exports(5) has them: addresses, or the overlay's networks.
    pub fn exported_to(&self, plan: &ClusterPlan) -> Vec<String> {
        let own = |addrs: &OverlayAddrs| {
            let OverlayAddrs { ipv4, ipv6 } = addrs;
            [ipv4.addr.to_string(), ipv6.addr.to_string()]
        };
        match &self.clients {
            None => vec![plan.nets.ipv4.to_string(), plan.nets.net6()],
            Some(clients) => clients.iter().flat_map(own).collect(),
        }
    }
}

impl ClusterPlan {
    /// Whether a share's member is somebody: a node or a person that is wanted, a worker that may come when
    /// jobs wait, a group, in which nobody need be yet, or [`EVERYONE`].
    pub fn has_member(&self, records: &[NodeRecord], member: &str) -> bool {
        let mut wanted = records.iter().filter(|r| r.wanted);
        if let Some(group) = member.strip_prefix(GROUP) {
            return is_dns_label(group);
        }
        member == EVERYONE
            || self.elastic.workers.iter().any(|w| w.name.0 == member)
            || wanted.any(|r| r.name.0 == member || r.person.as_deref() == Some(member))
    }
}

/// The shares with their members' addresses: those of nodes, of all machines of persons, and of whoever is
/// in a group, that are wanted. `nodes` are planned from `records`.
pub(super) fn planned(
    shares: Vec<Share>,
    records: &[NodeRecord],
    nodes: &[NodePlan],
) -> Vec<PlannedShare> {
    let clients = |share: &Share| {
        let is_member = |node: &&NodePlan| {
            let record = records.iter().find(|r| r.name == node.name);
            let person = record.and_then(|r| r.person.as_ref());
            let groups = node.certified_groups().into_iter();
            person
                .into_iter()
                .chain([&node.name.0])
                .cloned()
                .chain(groups.map(|group| format!("{GROUP}{group}")))
                .any(|name| share.members.contains(&name))
        };
        (!share.members.contains(EVERYONE)).then(|| {
            let members = nodes.iter().filter(is_member);
            members.map(|n| n.addrs).collect()
        })
    };
    let planned = shares.into_iter().map(|share| PlannedShare {
        clients: clients(&share),
        share,
    });
    planned.collect()
}

/// The node of a new share. `records` are all that are recorded: names and addresses of those that are on
/// their way out are not free yet.
pub fn add(
    plan: &ClusterPlan,
    records: &[NodeRecord],
    site: &Site,
    share: &Share,
    size: Size,
) -> Result<NodePlan, CliError> {
    if plan.lan.is_some() {
        let message = format!("`{}` extends the LAN of its front end", plan.name);
        return Err(CliError::new(ExitCode::Usage, message)
            .hint("a cluster whose overlay is a network of its own can have shares"));
    }
    check_name(plan, records, &share.name)?;
    check_members(plan, records, &share.members)?;
    let on_site = plan.nodes.iter().filter(|n| n.site == site.name).count();
    super::check_max(site, on_site + 1)?;
    let (host, slot) = Taken::of(plan, records).place(plan, site)?;
    let Size { memory_mib, cpus } = size;
    Ok(NodePlan {
        name: share.name.clone(),
        role: SHARE.to_owned(),
        image: SHARE.to_owned(),
        site: site.name.clone(),
        addrs: plan.host(host),
        memory_mib: memory_mib.or(site.memory_mib).unwrap_or(super::MEMORY_MIB),
        cpus: cpus.or(site.cpus).unwrap_or(super::CPUS),
        disk_gib: super::DISK_GIB,
        data_gib: Some(share.size_gib),
        slot,
        groups: BTreeSet::new(),
    })
}

fn check_name(plan: &ClusterPlan, records: &[NodeRecord], name: &NodeName) -> Result<(), CliError> {
    let machine = machine_name(&plan.name, name);
    if !is_dns_label(&name.0)
        || !is_dns_label(&machine)
        || name.0 == EVERYONE
        || [FRONTEND, WORKER, OPERATOR]
            .iter()
            .any(|word| name.0.starts_with(word))
    {
        let message = format!("a share cannot be called `{name}`");
        return Err(CliError::new(ExitCode::Usage, message)
            .hint("use lower-case letters, digits and inner hyphens, like lake-data")
            .hint(format!(
                "names that begin like nodes' are not for shares, nor is one for which \
                 `{machine}` has more than 63 characters"
            )));
    }
    let is_taken = |r: &&NodeRecord| r.name == *name || r.person.as_ref() == Some(&name.0);
    match records.iter().find(is_taken) {
        None => Ok(()),
        Some(record) => {
            let message = format!("the name `{name}` is taken in `{}`", plan.name);
            let error = CliError::new(ExitCode::Name, message);
            Err(match (record.wanted, record.role == SHARE) {
                (true, true) => error.hint(format!(
                    "it is a share already: `provision resume {}` continues if it was not finished",
                    plan.name
                )),
                (true, false) => error.hint("choose another name for the share"),
                (false, _) => error.hint(format!(
                    "it was just removed: `provision resume {}` finishes that",
                    plan.name
                )),
            })
        }
    }
}

/// Refuses members that nobody is.
pub fn check_members(
    plan: &ClusterPlan,
    records: &[NodeRecord],
    members: &BTreeSet<String>,
) -> Result<(), CliError> {
    let Some(unknown) = members.iter().find(|m| !plan.has_member(records, m)) else {
        return Ok(());
    };
    if let Some(group) = unknown.strip_prefix(GROUP) {
        let message = format!("`{group}` cannot be the name of a group");
        return Err(CliError::new(ExitCode::Usage, message)
            .hint("it has 1 to 63 lower-case letters, digits and inner hyphens"));
    }
    let message = format!("`{}` has no node and no person `{unknown}`", plan.name);
    let error = CliError::new(ExitCode::Name, message);
    let wanted = records.iter().filter(|r| r.wanted);
    let known: BTreeSet<&str> = wanted
        .flat_map(|r| r.person.as_deref().into_iter().chain([r.name.0.as_str()]))
        .collect();
    Err(match suggestion(unknown, &known) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(format!(
            "`provision status {0}` and `provision user list {0}` show who is in; \
             `provision user invite {0} {unknown}` invites somebody",
            plan.name
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::member;
    use crate::plan::tests::demo;
    use crate::site::Sites;

    const SIZE: Size = Size {
        memory_mib: None,
        cpus: None,
    };

    fn share(name: &str, members: &[&str]) -> Share {
        Share {
            name: NodeName(name.to_owned()),
            size_gib: 20,
            members: members.iter().map(|m| (*m).to_owned()).collect(),
            growing: false,
            restoring: None,
        }
    }

    /// The front end, two workers, two machines of alice's and one of bob's.
    fn people() -> (ClusterPlan, Vec<NodeRecord>) {
        let mut plan = demo();
        let mut records: Vec<_> = plan.nodes.iter().map(NodePlan::record).collect();
        for (person, machine) in [("alice", None), ("alice", Some("lab")), ("bob", None)] {
            let name = member::name(person, machine).expect("a name");
            let node = member::invite(&plan, &records, &name, BTreeSet::new()).expect("room");
            records.push(NodeRecord {
                person: Some(person.to_owned()),
                ..node.record()
            });
            plan.nodes.push(node);
        }
        (plan, records)
    }

    fn last_bytes(planned: &PlannedShare) -> Option<Vec<u8>> {
        let clients = planned.clients.as_ref()?;
        let last = |addrs: &OverlayAddrs| addrs.ipv4.addr.octets()[3];
        Some(clients.iter().map(last).collect())
    }

    #[test]
    fn members_are_nodes_and_all_machines_of_persons_and_nobody_else() {
        let (plan, mut records) = people();
        let of = |members: &[&str], records: &[NodeRecord]| {
            let planned = planned(vec![share("data", members)], records, &plan.nodes);
            last_bytes(&planned[0])
        };
        assert_eq!(
            of(&["alice", "worker-1"], &records),
            Some(vec![3, 254, 253])
        );
        assert_eq!(of(&["bob"], &records), Some(vec![252]));
        assert_eq!(of(&["bob", EVERYONE], &records), None, "whoever is in");
        assert_eq!(of(&["group:cluster"], &records), Some(vec![1, 2, 3]));
        assert_eq!(of(&["group:lake"], &records), Some(vec![]), "nobody yet");
        let mut grouped = plan.clone();
        for node in grouped.nodes.iter_mut().skip(3).take(2) {
            node.groups.insert("lake".to_owned());
        }
        let of_lake = share("data", &["group:lake", "bob"]);
        let planned_for = planned(vec![of_lake], &records, &grouped.nodes);
        assert_eq!(last_bytes(&planned_for[0]), Some(vec![254, 253, 252]));
        // An address is another's when the person is out: it is the machine that is asked about.
        records.pop();
        assert_eq!(of(&["carol"], &records), Some(vec![]));
        let everyone = planned(vec![share("data", &[EVERYONE])], &records, &plan.nodes);
        let nets = [plan.nets.ipv4.to_string(), plan.nets.net6()];
        assert_eq!(everyone[0].exported_to(&plan), nets);
    }

    #[test]
    fn a_share_is_a_machine_with_the_first_free_address_and_a_volume() {
        let (plan, mut records) = people();
        let sites = Sites::default();
        let site = sites.find("local").expect("there");
        let node = add(&plan, &records, site, &share("data", &["alice"]), SIZE).expect("room");
        assert_eq!((node.role.as_str(), node.image.as_str()), (SHARE, SHARE));
        assert_eq!((node.data_gib, node.slot), (Some(20), 3));
        assert_eq!(node.addrs.ipv4.addr.octets()[3], 4);
        records.push(node.record());
        let next = add(&plan, &records, site, &share("more", &["all"]), SIZE).expect("room");
        assert_eq!((next.slot, next.addrs.ipv4.addr.octets()[3]), (4, 5));
    }

    #[test]
    fn names_and_members_that_cannot_be_are_refused_with_a_way_out() {
        let (plan, mut records) = people();
        let sites = Sites::default();
        let site = sites.find("local").expect("there");
        let refused = |records: &[NodeRecord], name: &str, members: &[&str]| {
            let refused = add(&plan, records, site, &share(name, members), SIZE);
            refused.expect_err(name).to_string()
        };
        let mut said: Vec<String> = ["Data", "worker-7", "frontends", "all", &"d".repeat(60)]
            .iter()
            .map(|name| refused(&records, name, &["all"]))
            .collect();
        said.push(refused(&records, "alice", &["all"]));
        said.push(refused(&records, "data", &["alise"]));
        said.push(refused(&records, "data", &["somebody-else"]));
        said.push(refused(&records, "data", &["group:Lake"]));
        records.push(NodeRecord {
            role: SHARE.to_owned(),
            name: NodeName("data".to_owned()),
            ..records[1].clone()
        });
        said.push(refused(&records, "data", &["all"]));
        for record in &mut records {
            record.wanted = record.role != SHARE;
        }
        said.push(refused(&records, "data", &["all"]));
        insta::assert_snapshot!(said.join("\n\n"));
    }
}
