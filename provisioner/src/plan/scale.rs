//! Which nodes to add and to remove so that a deployment has the workers that are asked for. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::group::Group;
use super::roles::Roles;
use super::{ClusterPlan, NodePlan, WORKER};
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;
use crate::site::Site;
use crate::state::record::NodeRecord;

/// A change of the number of workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `+5@site`: so many more.
    More(Group),
    /// `-2@site`, or `-2` of any site: so many fewer.
    Fewer(u32, Of),
    /// `7@site`: so many in all; 0 for none.
    Exactly(u32, Of),
}

/// Which workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Of {
    /// Those of one site.
    site: Option<String>,
    /// Those of one role.
    role: Option<String>,
}

impl Of {
    fn has(&self, node: &NodePlan) -> bool {
        self.site.as_ref().is_none_or(|site| node.site == *site)
            && self.role.as_ref().is_none_or(|role| node.image == *role)
    }
}

impl From<&Group> for Of {
    fn from(group: &Group) -> Self {
        Self {
            site: Some(group.site.clone()),
            role: group.role.clone(),
        }
    }
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = self.role.iter().map(|role| format!(":{role}"));
        let site = self.site.iter().map(|site| format!("@{site}"));
        f.write_str(&role.chain(site).collect::<String>())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::More(group) => write!(f, "+{group}"),
            Self::Fewer(count, of) => write!(f, "-{count}{of}"),
            Self::Exactly(count, of) => write!(f, "{count}{of}"),
        }
    }
}

impl FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(more) = text.strip_prefix('+') {
            return more.parse().map(Self::More);
        }
        if let Some(fewer) = text.strip_prefix('-') {
            let anywhere = !fewer.contains('@');
            let group: Group = match anywhere {
                true => format!("{fewer}@any").parse()?,
                false => fewer.parse()?,
            };
            let mut of = Of::from(&group);
            of.site = of.site.filter(|_| !anywhere);
            return Ok(Self::Fewer(group.count, of));
        }
        if let Some(of) = text
            .strip_prefix('0')
            .filter(|of| of.starts_with(['@', ':']))
        {
            let one: Group = format!("1{of}").parse()?;
            return Ok(Self::Exactly(0, Of::from(&one)));
        }
        let group: Group = text.parse().map_err(|why: String| {
            format!("{why}; or +2@local for two more, -2@local for two fewer")
        })?;
        Ok(Self::Exactly(group.count, Of::from(&group)))
    }
}

/// What changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scaling {
    /// Nodes that are new.
    pub added: Vec<NodePlan>,
    /// Nodes that go.
    pub removed: Vec<NodeName>,
}

/// The defaults of a machine's size, where its site says nothing.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Memory in MiB, if asked for.
    pub memory_mib: Option<u32>,
    /// Virtual CPUs, if asked for.
    pub cpus: Option<u32>,
}

/// Plans a change of the workers that always are there. `nodes` are all that are recorded, those that
/// are on their way out included: their names, addresses and places are not free yet.
pub fn scale<'a>(
    plan: &ClusterPlan,
    nodes: &[NodeRecord],
    changes: &[Change],
    site: impl Fn(&str) -> Result<&'a Site, CliError>,
    roles: &Roles,
    size: Size,
) -> Result<Scaling, CliError> {
    let mut scaling = Scaling::default();
    let mut taken = Taken::of(plan, nodes);
    for change in changes {
        let have = |of: &Of, scaling: &Scaling| -> Vec<NodeName> {
            let there = |n: &&NodePlan| {
                n.role == WORKER
                    && of.has(n)
                    && !plan.elastic.has(&n.name)
                    && !scaling.removed.contains(&n.name)
            };
            let both = plan.nodes.iter().chain(&scaling.added);
            both.filter(there).map(|n| n.name.clone()).collect()
        };
        let (more, fewer, of) = match change {
            Change::More(group) => (group.count, 0, Of::from(group)),
            Change::Fewer(count, of) => (0, *count, of.clone()),
            Change::Exactly(count, of) => {
                let now = u32::try_from(have(of, &scaling).len()).unwrap_or(u32::MAX);
                let (more, fewer) = (count.saturating_sub(now), now.saturating_sub(*count));
                (more, fewer, of.clone())
            }
        };
        if let (Some(at), true) = (&of.site, more > 0) {
            let site = site(at)?;
            plan.scheduler.check(site)?;
            let image = roles.image(WORKER, of.role.as_deref())?;
            for _ in 0..more {
                scaling.added.push(taken.next(plan, site, &image, size)?);
            }
        }
        let mut there = have(&of, &scaling);
        if (there.len() as u64) < u64::from(fewer) {
            let role = of
                .role
                .map_or(String::new(), |role| format!(" of the role `{role}`"));
            let place = of
                .site
                .map_or(String::new(), |site| format!(" on site `{site}`"));
            return Err(CliError::new(
                ExitCode::Usage,
                format!(
                    "{fewer} workers cannot be removed: `{}` has {}{role}{place}",
                    plan.name,
                    there.len()
                ),
            )
            .hint(format!("`provision status {}` shows them", plan.name)));
        }
        there.sort_by_key(|name| std::cmp::Reverse(number(name)));
        for name in there.into_iter().take(fewer as usize) {
            match scaling.added.iter().position(|n| n.name == name) {
                Some(place) => drop(scaling.added.remove(place)),
                None => scaling.removed.push(name),
            }
        }
    }
    check_limits(plan, &scaling, site)?;
    Ok(scaling)
}

fn check_limits<'a>(
    plan: &ClusterPlan,
    scaling: &Scaling,
    site: impl Fn(&str) -> Result<&'a Site, CliError>,
) -> Result<(), CliError> {
    let sites: BTreeSet<&str> = scaling.added.iter().map(|n| n.site.as_str()).collect();
    for name in sites {
        let here = |n: &&NodePlan| n.site == name && !scaling.removed.contains(&n.name);
        let lasting = plan.nodes.iter().filter(|n| !plan.elastic.has(&n.name));
        let all = lasting.chain(&plan.elastic.workers).chain(&scaling.added);
        super::check_max(site(name)?, all.filter(here).count())?;
    }
    Ok(())
}

/// The number of a worker.
pub fn number(name: &NodeName) -> u32 {
    let digits = name.0.rsplit('-').next();
    digits.and_then(|d| d.parse().ok()).unwrap_or(0)
}

/// What is not free.
pub(super) struct Taken {
    indices: BTreeSet<u32>,
    hosts: BTreeSet<String>,
    slots: BTreeSet<(String, u32)>,
}

impl Taken {
    pub(super) fn of(plan: &ClusterPlan, nodes: &[NodeRecord]) -> Self {
        let workers = nodes.iter().filter(|n| n.role == WORKER);
        let mut taken = Self {
            indices: workers.map(|n| number(&n.name)).collect(),
            hosts: nodes.iter().map(|n| n.ipv4.clone()).collect(),
            slots: nodes.iter().map(|n| (n.site.clone(), n.slot)).collect(),
        };
        // These are theirs while they are away, too.
        for worker in &plan.elastic.workers {
            taken.indices.insert(number(&worker.name));
            taken.hosts.insert(worker.addrs.ipv4.addr.to_string());
            taken.slots.insert((worker.site.clone(), worker.slot));
        }
        taken
    }

    pub(super) fn next(
        &mut self,
        plan: &ClusterPlan,
        site: &Site,
        image: &str,
        size: Size,
    ) -> Result<NodePlan, CliError> {
        let number = (0..).find(|n| self.indices.insert(*n)).unwrap_or(u32::MAX);
        let (host, slot) = self.place(plan, site)?;
        Ok(NodePlan {
            name: NodeName(format!("{WORKER}-{number}")),
            role: WORKER.to_owned(),
            image: image.to_owned(),
            site: site.name.clone(),
            addrs: plan.host(host),
            memory_mib: size
                .memory_mib
                .or(site.memory_mib)
                .unwrap_or(super::MEMORY_MIB),
            cpus: size.cpus.or(site.cpus).unwrap_or(super::CPUS),
            disk_gib: super::DISK_GIB,
            data_gib: None,
            slot,
            groups: BTreeSet::new(),
        })
    }

    /// The next machine's host in the overlay, and its position on the site.
    pub(super) fn place(
        &mut self,
        plan: &ClusterPlan,
        site: &Site,
    ) -> Result<(u32, u32), CliError> {
        let slots = &mut self.slots;
        let slot = (0..)
            .find(|n| slots.insert((site.name.clone(), *n)))
            .unwrap_or(u32::MAX);
        let mut hosts = plan.machine_hosts();
        let room = *hosts.end();
        let host = hosts
            .find(|n| self.hosts.insert(plan.host(*n).ipv4.addr.to_string()))
            .ok_or_else(|| {
                CliError::new(
                    ExitCode::Usage,
                    format!("the overlay of `{}` has room for {room} nodes", plan.name),
                )
                .hint("ask for fewer, or launch another cluster")
            })?;
        Ok((host, slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::scheduler::Scheduler;
    use crate::plan::tests::demo;
    use crate::site::Sites;

    fn change(
        plan: &ClusterPlan,
        nodes: &[NodeRecord],
        changes: &[&str],
    ) -> Result<Scaling, CliError> {
        let sites = Sites::parse(
            "[site.lab]\nkind = \"libvirt\"\nmax = 3\ncpus = 4\n",
            "sites.toml",
        )
        .expect("valid");
        let changes: Vec<Change> = changes.iter().map(|c| c.parse().expect("valid")).collect();
        let size = Size {
            memory_mib: None,
            cpus: None,
        };
        let roles = Roles::new([("gpu".to_owned(), Ok(vec![WORKER.to_owned()]))]);
        scale(plan, nodes, &changes, |name| sites.find(name), &roles, size)
    }

    #[test]
    fn a_cluster_with_a_scheduler_does_not_grow_by_machines_with_a_system_of_their_own() {
        let sites = "[site.machines]\nkind = \"ssh\"\nhosts = [\"root@m1.example\"]\n";
        let sites = Sites::parse(sites, "sites.toml").expect("valid");
        let plan = ClusterPlan {
            scheduler: Scheduler::Slurm,
            ..demo()
        };
        let size = Size {
            memory_mib: None,
            cpus: None,
        };
        let more = ["+1@machines".parse().expect("valid")];
        let nodes = records(&plan);
        let refused = scale(
            &plan,
            &nodes,
            &more,
            |name| sites.find(name),
            &Roles::default(),
            size,
        );
        let error = refused.expect_err("refused");
        assert_eq!(error.code, ExitCode::Usage);
        assert!(error.message.contains("site `machines`"), "{error}");
    }

    fn names(scaling: &Scaling) -> (Vec<&str>, Vec<&str>) {
        (
            scaling.added.iter().map(|n| n.name.0.as_str()).collect(),
            scaling.removed.iter().map(|n| n.0.as_str()).collect(),
        )
    }

    fn records(plan: &ClusterPlan) -> Vec<NodeRecord> {
        plan.nodes.iter().map(NodePlan::record).collect()
    }

    #[test]
    fn added_workers_take_the_first_free_numbers_addresses_and_places() {
        let plan = demo();
        let mut nodes = records(&plan);
        let scaling = change(&plan, &nodes, &["+2@lab", "+1@local"]).expect("planned");
        assert_eq!(
            names(&scaling),
            (vec!["worker-2", "worker-3", "worker-4"], vec![])
        );
        let slots: Vec<_> = scaling.added.iter().map(|n| n.slot).collect();
        assert_eq!(slots, [0, 1, 3]);
        assert_eq!(scaling.added[0].cpus, 4);
        assert_eq!(u32::from(scaling.added[2].addrs.ipv4.addr) & 0xff, 6);
        nodes.remove(1);
        let scaling = change(&plan, &nodes, &["+1@local"]).expect("planned");
        assert_eq!(names(&scaling).0, ["worker-0"]);
        assert_eq!(scaling.added[0].addrs, plan.nodes[1].addrs);
    }

    #[test]
    fn the_highest_workers_go_first_and_the_front_end_never() {
        let plan = demo();
        let nodes = records(&plan);
        let removed = |changes: &[&str]| {
            let scaling = change(&plan, &nodes, changes).expect("planned");
            assert!(scaling.added.is_empty());
            scaling.removed.into_iter().map(|n| n.0).collect::<Vec<_>>()
        };
        assert_eq!(removed(&["-1"]), ["worker-1"]);
        assert_eq!(removed(&["-1", "-1@local"]), ["worker-1", "worker-0"]);
        assert_eq!(removed(&["1@local"]), ["worker-1"]);
        assert_eq!(removed(&["0@local"]), ["worker-1", "worker-0"]);
        assert_eq!(removed(&["2@local"]), [] as [&str; 0]);
        assert_eq!(removed(&["+1@local", "-1"]), [] as [&str; 0]);
    }

    #[test]
    fn workers_of_one_role_come_and_go_by_themselves() {
        let mut plan = demo();
        let scaling = change(&plan, &records(&plan), &["+2:gpu@local"]).expect("planned");
        assert_eq!(names(&scaling).0, ["worker-2", "worker-3"]);
        assert!(
            scaling
                .added
                .iter()
                .all(|n| n.image == "gpu" && n.role == WORKER)
        );
        plan.nodes.extend(scaling.added);
        let nodes = records(&plan);
        let after = |changes: &[&str]| change(&plan, &nodes, changes).expect("planned");
        assert_eq!(names(&after(&["-1:gpu"])).1, ["worker-3"]);
        assert_eq!(names(&after(&["-1:worker@local"])).1, ["worker-1"]);
        assert_eq!(names(&after(&["0:gpu@local"])).1, ["worker-3", "worker-2"]);
        assert_eq!(names(&after(&["3:gpu@local"])).0, ["worker-4"]);
        assert_eq!(names(&after(&["4@local"])), (vec![], vec![]));
    }

    #[test]
    fn a_change_that_cannot_be_made_says_what_to_do() {
        let plan = demo();
        let nodes = records(&plan);
        let refused = |changes: &[&str]| {
            change(&plan, &nodes, changes)
                .expect_err("refused")
                .to_string()
        };
        let all = [
            refused(&["-3"]),
            refused(&["-1@lab"]),
            refused(&["+4@lab"]),
            refused(&["+1@labo"]),
            refused(&["+300@local"]),
            refused(&["+1:gpo@local"]),
            refused(&["-1:gpu@local"]),
        ];
        insta::assert_snapshot!(all.join("\n\n"));
        for text in ["", "+", "-", "2", "+2", "-x@lab", "x@lab", "0@"] {
            text.parse::<Change>().expect_err(text);
        }
        for text in [
            "+5@lab",
            "-2",
            "-2@lab",
            "7@lab",
            "0@lab",
            "-2:gpu",
            "0:gpu@lab",
        ] {
            assert_eq!(text.parse::<Change>().expect(text).to_string(), text);
        }
    }
}
