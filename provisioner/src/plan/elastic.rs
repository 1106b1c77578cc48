//! Workers that come when jobs wait and go when they are idle. Pure.
//!
//! How many there may be is for the user to say. Each has its name, its addresses and its place on its
//! site before there is a machine, so that the scheduler knows it; they stay its own while it is away.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::group::Group;
use super::roles::Roles;
use super::scale::{Scaling, Size, Taken, number};
use super::scheduler::Scheduler;
use super::{ClusterPlan, NodePlan, WORKER};
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;
use crate::site::Site;
use crate::state::record::NodeRecord;

/// How long a worker may be idle before it goes, if nobody says.
pub const IDLE: Duration = Duration::from_secs(600);

/// The workers that there may be beyond those that always are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elastic {
    /// How long one may be idle before it goes.
    pub idle: Duration,
    /// Who they are, by number.
    pub workers: Vec<NodePlan>,
}

impl Default for Elastic {
    fn default() -> Self {
        Self {
            idle: IDLE,
            workers: Vec::new(),
        }
    }
}

/// `6@site`, `2:gpu@site`: at most so many on that site; 0 for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    count: u32,
    role: Option<String>,
    site: String,
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with(['+', '-']) {
            let site = text.split_once('@').map_or("local", |(_, site)| site);
            return Err(format!("write how many there may be in all, like 6@{site}"));
        }
        let none = text
            .strip_prefix('0')
            .filter(|of| of.starts_with(['@', ':']));
        let group: Group = match none {
            Some(of) => format!("1{of}").parse()?,
            None => text.parse()?,
        };
        Ok(Self {
            count: if none.is_some() { 0 } else { group.count },
            role: group.role,
            site: group.site,
        })
    }
}

/// What a change of limits comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limited {
    /// Who there may be from now on.
    pub elastic: Elastic,
    /// Who is there and may not be any more.
    pub removed: Vec<NodeName>,
}

impl Elastic {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// Whether `node` is one of them.
    pub fn has(&self, node: &NodeName) -> bool {
        self.workers.iter().any(|worker| worker.name == *node)
    }

    /// Whom to add and whom to remove so that those who are wanted are there. Names in `wanted` that
    /// are none of them come to nothing; who is on its way out comes back once it is gone.
    pub fn follow(&self, wanted: &BTreeSet<String>, nodes: &[NodeRecord]) -> Scaling {
        let mut scaling = Scaling::default();
        for worker in &self.workers {
            let there = nodes.iter().find(|node| node.name == worker.name);
            match (wanted.contains(&worker.name.0), there) {
                (true, None) => scaling.added.push(worker.clone()),
                (false, Some(node)) if node.wanted => scaling.removed.push(node.name.clone()),
                _ => {}
            }
        }
        scaling
    }

    /// What the front end is told: how many seconds a worker may be idle, then each worker's name,
    /// address, processors, memory in MiB and site, then the end; of none the end alone.
    pub fn told(&self) -> String {
        if self.is_empty() {
            return "end\n".to_owned();
        }
        let line = |worker: &NodePlan| {
            let NodePlan {
                name,
                addrs,
                cpus,
                memory_mib,
                site,
                ..
            } = worker;
            format!("{name} {} {cpus} {memory_mib} {site}\n", addrs.ipv4.addr)
        };
        let lines: String = self.workers.iter().map(line).collect();
        format!("{}\n{lines}end\n", self.idle.as_secs())
    }
}

/// At most how many of which role on which site.
impl fmt::Display for Elastic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |worker: &NodePlan| {
            let role = match worker.image.as_str() {
                WORKER => String::new(),
                role => format!(":{role}"),
            };
            format!("{role}@{}", worker.site)
        };
        let groups: BTreeSet<String> = self.workers.iter().map(of).collect();
        let count = |group: &String| self.workers.iter().filter(|w| of(w) == *group).count();
        let texts: Vec<_> = groups.iter().map(|g| format!("{}{g}", count(g))).collect();
        f.write_str(&texts.join(", "))
    }
}

/// Plans a change of limits. `nodes` are all that are recorded, as for [`scale`](super::scale::scale).
/// Where there are to be fewer, those go first that are not there, then the highest numbers.
pub fn limit<'a>(
    plan: &ClusterPlan,
    nodes: &[NodeRecord],
    limits: &[Limit],
    site: impl Fn(&str) -> Result<&'a Site, CliError>,
    roles: &Roles,
    size: Size,
) -> Result<Limited, CliError> {
    check(plan.scheduler, limits.is_empty())?;
    let mut elastic = plan.elastic.clone();
    let mut taken = Taken::of(plan, nodes);
    for limit in limits {
        let image = roles.image(WORKER, limit.role.as_deref())?;
        let counts = |w: &NodePlan| w.site == limit.site && w.image == image;
        let have = elastic.workers.iter().filter(|w| counts(w)).count();
        let wanted = limit.count as usize;
        for _ in have..wanted {
            let site = site(&limit.site)?;
            plan.scheduler.check(site)?;
            elastic.workers.push(taken.next(plan, site, &image, size)?);
        }
        let mut going: Vec<_> = elastic.workers.iter().filter(|w| counts(w)).collect();
        let is_there = |name: &NodeName| nodes.iter().any(|n| n.name == *name);
        going.sort_by_key(|w| (is_there(&w.name), std::cmp::Reverse(number(&w.name))));
        let going = going.into_iter().take(have.saturating_sub(wanted));
        let going: BTreeSet<NodeName> = going.map(|w| w.name.clone()).collect();
        elastic.workers.retain(|w| !going.contains(&w.name));
    }
    elastic.workers.sort_by_key(|w| number(&w.name));
    for limit in limits.iter().filter(|limit| limit.count > 0) {
        let here = |n: &&NodePlan| n.site == limit.site;
        let lasting = plan.nodes.iter().filter(|n| !plan.elastic.has(&n.name));
        let all = lasting.chain(&elastic.workers);
        super::check_max(site(&limit.site)?, all.filter(here).count())?;
    }
    let gone = |n: &&NodeRecord| plan.elastic.has(&n.name) && !elastic.has(&n.name) && n.wanted;
    let removed = nodes.iter().filter(gone).map(|n| n.name.clone()).collect();
    Ok(Limited { elastic, removed })
}

/// Refuses elastic workers where nobody would call for them.
pub fn check(scheduler: Scheduler, none: bool) -> Result<(), CliError> {
    if none || scheduler == Scheduler::Slurm {
        return Ok(());
    }
    let message = "there are elastic workers only where a scheduler calls for them";
    Err(CliError::new(ExitCode::Usage, message)
        .hint("launch the cluster with --scheduler slurm, or leave out --elastic"))
}

#[cfg(test)]
mod tests;
