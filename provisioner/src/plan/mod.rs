//! From what was asked to what will be made. Pure: no I/O, no clock, no randomness of its own.

pub mod elastic;
pub mod exports;
pub mod group;
pub mod lan;
pub mod member;
pub mod mount;
pub mod network;
pub mod personal;
pub mod policy;
pub mod reach;
mod recorded;
pub mod roles;
pub mod scale;
pub mod scheduler;
pub mod share;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipop_proto::address::OverlayAddrs;
use ipop_proto::config::AllowSection;
use serde::{Deserialize, Serialize};

use self::elastic::Elastic;
use self::group::Group;
use self::lan::Lan;
use self::network::{Net4, OverlayNets};
use self::roles::Roles;
use self::scheduler::Scheduler;
use self::share::PlannedShare;
use crate::error::{CliError, ExitCode};
use crate::name::{NodeName, check_deployment};
use crate::site::{Site, Sites};

/// Role of the node that users sign in to and that exports the shared folder.
pub const FRONTEND: &str = "frontend";
/// Role of the nodes that do the work.
pub const WORKER: &str = "worker";

/// Role of the nodes that join their site's LAN to the front end's.
pub const GATEWAY: &str = "gateway";

/// Role of the machines of people who were invited: nothing of them is made here but an account.
pub const MEMBER: &str = "member";

/// Role of the nodes that serve a folder on a volume of its own.
pub const SHARE: &str = "share";

/// Whether nodes of the role are workers, of which a quorum is enough. Of all others each has to be there.
pub fn is_worker(role: &str) -> bool {
    !matches!(role, FRONTEND | GATEWAY | SHARE | MEMBER)
}

/// Name of a deployment when none is asked for; numbered when taken.
const DEFAULT_NAME: &str = "cluster";
/// Guests' defaults, where neither the command nor the site says otherwise.
const MEMORY_MIB: u32 = 512;
/// Memory of a gateway, whatever others have: it does nothing but carry frames.
const GATEWAY_MIB: u32 = 256;
const CPUS: u32 = 1;
const DISK_GIB: u32 = 4;

/// What was asked.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Name, if one was asked for.
    pub name: Option<String>,
    /// Front end.
    pub frontend: Vec<Group>,
    /// Workers.
    pub workers: Vec<Group>,
    /// Whether the front end gets its site's LAN.
    pub lan: bool,
    /// Gateways, for LANs of other sites.
    pub gateways: Vec<Group>,
    /// Memory of each guest in MiB, if asked for.
    pub memory_mib: Option<u32>,
    /// Virtual CPUs of each guest, if asked for.
    pub cpus: Option<u32>,
    /// Scheduler.
    pub scheduler: Scheduler,
    /// Workers that there may be besides, while jobs wait.
    pub elastic: Vec<Group>,
    /// How long one of these may be idle, if asked for.
    pub idle: Option<Duration>,
    /// Who may reach what; without any, everybody reaches everybody.
    pub rules: Vec<AllowSection>,
}

/// What the planner must know of the world.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Names of the deployments there are.
    pub names: BTreeSet<String>,
    /// Roles that machines can have.
    pub roles: Roles,
    /// The LANs that recorded deployments extend, with their names.
    pub lans: Vec<(Net4, String)>,
    /// Networks that the overlay must not overlap.
    pub used: Vec<Net4>,
    /// Randomness for the IPv6 overlay (RFC 4193 section 3.2.2).
    pub seed: [u8; 7],
}

/// Everything about a cluster that is decided before anything is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPlan {
    /// Deployment name.
    pub name: String,
    /// XMPP domain of an embedded rendezvous.
    pub domain: String,
    /// Overlay networks.
    pub nets: OverlayNets,
    /// The LAN that the overlay extends; none where it is a network of its own.
    pub lan: Option<Lan>,
    /// Scheduler.
    pub scheduler: Scheduler,
    /// Whether the overlay has an authority, which deployments from before there were any have not.
    pub authority: bool,
    /// The workers that come when jobs wait; those of them that are there are nodes too.
    pub elastic: Elastic,
    /// Who may reach what; none where everybody reaches everybody.
    pub rules: Vec<AllowSection>,
    /// The shares; each has a node of its name.
    pub shares: Vec<PlannedShare>,
    /// Nodes: the front end, the workers and shares, and the machines of members.
    pub nodes: Vec<NodePlan>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    /// Name.
    pub name: NodeName,
    /// Part in the cluster, [`FRONTEND`], [`WORKER`], [`GATEWAY`] or [`SHARE`].
    pub role: String,
    /// Role whose image its machine starts from: the same, or one that extends it.
    pub image: String,
    /// Site.
    pub site: String,
    /// Overlay addresses.
    pub addrs: OverlayAddrs,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Root disk in GiB.
    pub disk_gib: u32,
    /// Volume for data that outlives the machine, in GiB; none but of shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_gib: Option<u32>,
    /// Position among the deployment's machines on its site, from 0.
    pub slot: u32,
    /// The groups that its person is in, of a member's.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
}

impl ClusterPlan {
    /// The front end.
    pub fn frontend(&self) -> &NodePlan {
        &self.nodes[0]
    }

    /// The workers, and the gateways and shares, which are waited for as they are.
    pub fn workers(&self) -> &[NodePlan] {
        let others = &self.nodes[1..];
        &others[..others.partition_point(|n| n.role != MEMBER)]
    }

    /// How many of them are workers, of which a quorum is enough.
    pub fn worker_count(&self) -> usize {
        self.nodes.iter().filter(|n| is_worker(&n.role)).count()
    }

    /// The front end, the workers, the gateways and the shares, which are waited for.
    pub fn machines(&self) -> &[NodePlan] {
        &self.nodes[..=self.workers().len()]
    }

    /// The addresses of host number `host`, from 1, which is the front end.
    pub fn host(&self, host: u32) -> OverlayAddrs {
        addresses(&self.nets, self.lan.as_ref(), host)
    }

    /// How many hosts there is room for.
    pub fn capacity(&self) -> u32 {
        let own = self.nets.capacity();
        self.lan.as_ref().map_or(own, Lan::capacity)
    }

    /// Whether machines have addresses apart from members': what workers are given for the scheduler is
    /// given by address.
    fn is_divided(&self) -> bool {
        self.authority && self.lan.is_none() && self.scheduler != Scheduler::None
    }

    /// The numbers of hosts that machines may be.
    pub fn machine_hosts(&self) -> RangeInclusive<u32> {
        match self.is_divided() {
            true => 1..=self.nets.lower_capacity(),
            false => 1..=self.capacity(),
        }
    }

    /// The numbers of hosts that members' machines may be.
    pub fn member_hosts(&self) -> RangeInclusive<u32> {
        match self.is_divided() {
            true => self.nets.lower_capacity() + 1..=self.capacity(),
            false => 1..=self.capacity(),
        }
    }

    /// The networks that machines' addresses are in, with their prefixes.
    pub fn machine_nets(&self) -> (String, String) {
        if let Some(lan) = &self.lan {
            // What else is on the LAN is not theirs.
            return (lan.pool.to_string(), self.nets.net6());
        }
        match self.is_divided() {
            true => {
                let (ipv4, ipv6) = self.nets.lower_half();
                (ipv4.to_string(), ipv6)
            }
            false => (self.nets.ipv4.to_string(), self.nets.net6()),
        }
    }

    /// The bridge beside a node's own that its device is a port of, if it is one and no station.
    pub fn bridge_of(&self, node: &NodePlan) -> Option<&str> {
        let lan = self.lan.as_ref()?;
        match node.role.as_str() {
            FRONTEND => Some(&lan.bridge),
            GATEWAY => Some(lan::BRIDGE),
            _ => None,
        }
    }

    /// Names of all nodes.
    pub fn names(&self) -> Vec<NodeName> {
        self.nodes.iter().map(|n| n.name.clone()).collect()
    }

    /// The sites of its nodes and of those that may come.
    pub fn sites(&self) -> BTreeSet<&str> {
        let all = self.nodes.iter().chain(&self.elastic.workers);
        all.map(|n| n.site.as_str()).collect()
    }
}

/// Plans a cluster.
pub fn plan(request: &Request, sites: &Sites, world: &World) -> Result<ClusterPlan, CliError> {
    let name = name(request.name.as_deref(), &world.names)?;
    let frontends: u32 = request.frontend.iter().map(|g| g.count).sum();
    if frontends != 1 {
        return Err(CliError::new(
            ExitCode::Usage,
            format!("a cluster has exactly one front end, not {frontends}"),
        )
        .hint("write --frontend 1@SITE"));
    }
    elastic::check(request.scheduler, request.elastic.is_empty())?;
    let workers = [&request.workers[..], &request.elastic].concat();
    // Those that come when jobs wait are last.
    let roles = [
        (FRONTEND, &request.frontend),
        (GATEWAY, &request.gateways),
        (WORKER, &workers),
    ];
    let count = |groups: &[Group]| groups.iter().map(|g| g.count).sum::<u32>();
    let total = frontends + count(&request.gateways) + count(&workers);
    let room = match request.scheduler {
        Scheduler::None => total,
        // Machines get the lower half.
        _ => total.saturating_mul(2).saturating_add(1),
    };
    let mut nets = network::choose(&name, room, &world.used, world.seed)?;
    let lan = match &request.frontend[..] {
        [frontend] => lan::of(request, sites.find(&frontend.site)?)?,
        _ => None,
    };
    for group in &request.gateways {
        let frontend = request.frontend.first().map(|group| group.site.as_str());
        lan::check_gateway(lan.as_ref(), frontend, sites.find(&group.site)?)?;
    }
    if let Some(lan) = &lan {
        lan::check_free(lan, &world.lans)?;
        policy::check_lan(&request.rules)?;
        check_room(lan, total)?;
        nets.ipv4 = lan.net();
    }
    let mut nodes = Vec::new();
    for (role, groups) in roles {
        let mut index = 0;
        for group in groups {
            let site = sites.find(&group.site)?;
            // A gateway runs no jobs.
            if role != GATEWAY {
                request.scheduler.check(site)?;
            }
            let image = world.roles.image(role, group.role.as_deref())?;
            for _ in 0..group.count {
                let host = u32::try_from(nodes.len() + 1).unwrap_or(u32::MAX);
                let slot = nodes
                    .iter()
                    .filter(|n: &&NodePlan| n.site == group.site)
                    .count();
                nodes.push(NodePlan {
                    name: NodeName(format!("{role}-{index}")),
                    role: role.to_owned(),
                    image: image.clone(),
                    site: group.site.clone(),
                    addrs: addresses(&nets, lan.as_ref(), host),
                    memory_mib: match role {
                        GATEWAY => GATEWAY_MIB,
                        _ => request.memory_mib.or(site.memory_mib).unwrap_or(MEMORY_MIB),
                    },
                    cpus: request.cpus.or(site.cpus).unwrap_or(CPUS),
                    disk_gib: DISK_GIB,
                    data_gib: None,
                    slot: u32::try_from(slot).unwrap_or(u32::MAX),
                    groups: BTreeSet::new(),
                });
                index += 1;
            }
        }
    }
    for site in sites.iter() {
        check_max(site, nodes.iter().filter(|n| n.site == site.name).count())?;
    }
    let lasting = nodes.len() - count(&request.elastic) as usize;
    let elastic = Elastic {
        workers: nodes.split_off(lasting),
        idle: request.idle.unwrap_or(elastic::IDLE),
    };
    Ok(ClusterPlan {
        domain: format!("{name}.ipop"),
        name,
        nets,
        lan,
        scheduler: request.scheduler,
        authority: true,
        elastic,
        rules: request.rules.clone(),
        shares: Vec::new(),
        nodes,
    })
}

fn addresses(nets: &OverlayNets, lan: Option<&Lan>, host: u32) -> OverlayAddrs {
    let own = nets.host(host);
    OverlayAddrs {
        ipv4: lan.map_or(own.ipv4, |lan| lan.host(host)),
        ..own
    }
}

fn check_room(lan: &Lan, nodes: u32) -> Result<(), CliError> {
    if nodes <= lan.capacity() {
        return Ok(());
    }
    let message = format!("{} has no room for {nodes} nodes", lan.pool);
    Err(CliError::new(ExitCode::Usage, message)
        .hint("ask for fewer, or give the front end's site a larger network in `addresses`"))
}

/// Refuses more nodes than a site takes.
fn check_max(site: &Site, wanted: usize) -> Result<(), CliError> {
    match site.max {
        Some(max) if wanted > max as usize => Err(CliError::new(
            ExitCode::Usage,
            format!(
                "{wanted} nodes are wanted on site `{}`, which takes {max}",
                site.name
            ),
        )
        .hint("ask for fewer, or raise the site's `max` in sites.toml")),
        _ => Ok(()),
    }
}

fn name(asked: Option<&str>, taken: &BTreeSet<String>) -> Result<String, CliError> {
    if let Some(name) = asked {
        check_deployment(name).map_err(|problem| {
            CliError::new(ExitCode::Usage, format!("the name `{name}` {problem}"))
        })?;
        if taken.contains(name) {
            return Err(crate::state::name_taken(name));
        }
        return Ok(name.to_owned());
    }
    let numbered = (2..).map(|n| format!("{DEFAULT_NAME}-{n}"));
    let mut names = std::iter::once(DEFAULT_NAME.to_owned()).chain(numbered);
    Ok(names.find(|n| !taken.contains(n)).unwrap_or_default())
}

#[cfg(test)]
pub(crate) mod tests;
