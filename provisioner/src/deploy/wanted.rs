//! What is wanted of every owner, for the planner. Knows no state but what it is given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Meeting;
use super::planner::{Item, Observed};
use crate::error::CliError;
use crate::name::NodeName;
use crate::plan::{ClusterPlan, NodePlan};
use crate::provider::{
    Delivery, Health, Image, Provider, Resource, Scope, SitePlan, Step, Tags, WantedMachine,
};
use crate::rendezvous::PROCESS;
use crate::state::record::{Key, Owner, ResourceRecord, ResourceState};

/// Resource kind of the deployment's own directory.
pub const DIRECTORY: &str = "directory";
/// How long files may take.
const FILES_LIMIT: Duration = Duration::from_secs(60);
/// How long the rendezvous may take, with its own limit for a server that starts.
const RENDEZVOUS_LIMIT: Duration = Duration::from_secs(180);

/// What it takes to say what is wanted.
pub struct Wanting<'a> {
    /// The deployment.
    pub tags: &'a Tags,
    /// Its nodes.
    pub plan: &'a ClusterPlan,
    /// Which machine of each node is wanted, from 1.
    pub attempts: &'a BTreeMap<NodeName, u32>,
    /// The deployment's own directory.
    pub directory: &'a Key,
    /// The providers of the plan's sites.
    pub sites: &'a BTreeMap<String, Arc<dyn Provider>>,
    /// The images that are built, by site and role.
    pub images: &'a BTreeMap<String, BTreeMap<String, Image>>,
    /// The rendezvous.
    pub meeting: &'a dyn Meeting,
    /// What is recorded.
    pub recorded: &'a [ResourceRecord],
    /// Nodes that have everything they need: what is recorded of them is what is wanted, whatever
    /// their image would be now.
    pub settled: &'a BTreeSet<NodeName>,
}

/// Nodes whose machine was made as it is wanted, and is there.
pub fn settled(
    plan: &ClusterPlan,
    attempts: &BTreeMap<NodeName, u32>,
    recorded: &[ResourceRecord],
    observed: &Observed,
) -> BTreeSet<NodeName> {
    let mut of_node: BTreeMap<&NodeName, Vec<&ResourceRecord>> = BTreeMap::new();
    for record in recorded {
        if let (Some(node), Owner::Site(_)) = (record.node(), &record.key.owner) {
            of_node.entry(node).or_default().push(record);
        }
    }
    // What outlives the node's machines is of no attempt.
    let is_of = |record: &ResourceRecord| {
        let wanted = record.node().and_then(|n| attempts.get(n));
        matches!(record.scope, Scope::Data(_)) || Some(&record.node_attempt) == wanted
    };
    let stands = |record: &&ResourceRecord| {
        record.state == ResourceState::Made
            && is_of(record)
            && (!observed.asked.contains(&record.key.owner)
                || observed.found.get(&record.key) == Some(&Health::Present))
    };
    let settled = |node: &&NodePlan| {
        let records = of_node.get(&node.name);
        records.is_some_and(|records| records.iter().all(stands))
    };
    let nodes = plan.nodes.iter().filter(settled);
    nodes.map(|n| n.name.clone()).collect()
}

impl Wanting<'_> {
    /// Everything, each thing after what it needs.
    pub fn items(&self) -> Result<Vec<Item>, CliError> {
        let mut items = vec![Item {
            key: self.directory.clone(),
            scope: Scope::Deployment,
            after: Vec::new(),
            deadline: FILES_LIMIT,
            node_attempt: 1,
            used_up: false,
        }];
        let mut of_sites = Vec::new();
        for (site, provider) in self.sites {
            of_sites.extend(self.site(site, &**provider)?);
        }
        self.join_members(&mut of_sites);
        let reached: Vec<Key> = of_sites
            .iter()
            .filter(|item| item.scope == Scope::Deployment && self.is_local(&item.key.owner))
            .map(|item| item.key.clone())
            .collect();
        // Each list is in order already; the rendezvous stands on the sites' networks, and the
        // machines on the rendezvous.
        let (machines, shared): (Vec<_>, Vec<_>) = of_sites
            .into_iter()
            .partition(|item| item.scope.node().is_some());
        items.extend(shared);
        items.extend(self.rendezvous(reached));
        items.extend(machines);
        Ok(items)
    }

    /// Has the machines of nodes come after what other sites keep for them.
    fn join_members(&self, items: &mut [Item]) {
        let mut kept: BTreeMap<NodeName, Vec<Key>> = BTreeMap::new();
        let mut own: BTreeSet<Key> = BTreeSet::new();
        for item in items.iter() {
            match &item.scope {
                Scope::Node(_) if self.is_own(item) => drop(own.insert(item.key.clone())),
                Scope::Node(node) => kept.entry(node.clone()).or_default().push(item.key.clone()),
                _ => {}
            }
        }
        for item in items.iter_mut().filter(|item| own.contains(&item.key)) {
            let Scope::Node(node) = &item.scope else {
                continue;
            };
            // The rest of the machine comes after its first part.
            let is_first = !item.after.iter().any(|key| own.contains(key));
            let keys = kept.get(node).filter(|_| is_first);
            for key in keys.into_iter().flatten() {
                if !item.after.contains(key) {
                    item.after.push(key.clone());
                }
            }
        }
    }

    /// Whether it is a part of its node's own machine.
    fn is_own(&self, item: &Item) -> bool {
        let (Scope::Node(name), Owner::Site(site)) = (&item.scope, &item.key.owner) else {
            return false;
        };
        self.node(name).is_some_and(|node| node.site == *site)
    }

    fn is_local(&self, owner: &Owner) -> bool {
        match owner {
            Owner::Site(site) => self.sites.get(site).is_some_and(|p| p.is_local()),
            _ => false,
        }
    }

    fn rendezvous(&self, reached: Vec<Key>) -> Vec<Item> {
        let mut items: Vec<Item> = Vec::new();
        let mut last = self.directory.clone();
        for (node, resource) in self.meeting.plan(&self.plan.names()) {
            let mut after = vec![last.clone()];
            if resource.kind == PROCESS {
                after.extend(reached.iter().cloned());
            }
            let key = Key {
                owner: Owner::Rendezvous,
                resource,
            };
            if node.is_none() {
                last = key.clone();
            }
            let site = node.as_ref().and_then(|n| self.node(n)).map(|n| &n.site);
            let provider = site.and_then(|site| self.sites.get(site));
            items.push(Item {
                key,
                scope: node.map_or(Scope::Deployment, Scope::Node),
                after,
                deadline: RENDEZVOUS_LIMIT,
                // Another machine of the node has the same account.
                node_attempt: 1,
                used_up: provider.is_some_and(|p| p.delivery() == Delivery::Enrolment),
            });
        }
        items
    }

    fn site(&self, site: &str, provider: &dyn Provider) -> Result<Vec<Item>, CliError> {
        let owner = Owner::Site(site.to_owned());
        let served = |n: &&NodePlan| n.site == site || provider.keeps_members();
        let nodes: Vec<_> = self.plan.nodes.iter().filter(served).collect();
        let kept = |record: &&ResourceRecord| {
            let settled = record.node().is_some_and(|n| self.settled.contains(n));
            record.key.owner == owner && record.state == ResourceState::Made && settled
        };
        let mut items: Vec<Item> = self.recorded.iter().filter(kept).map(again).collect();
        if nodes.iter().all(|n| self.settled.contains(&n.name)) {
            // What is shared with other deployments stays as long as a machine stands on it.
            let shared = |r: &&ResourceRecord| r.key.owner == owner && r.scope == Scope::Deployment;
            let shared = self.recorded.iter().filter(shared).map(again);
            return Ok(shared.chain(items).collect());
        }
        let own = nodes.iter().filter(|n| n.site == site);
        let mut machines: Vec<_> = own.map(|n| WantedMachine::from(*n)).collect();
        machines.sort_by_key(|m| m.slot);
        let none = BTreeMap::new();
        let steps = provider.plan(&SitePlan {
            tags: self.tags,
            machines: &machines,
            members: &self.plan.nodes,
            images: self.images.get(site).unwrap_or(&none),
        })?;
        let needed = self.needed(&steps);
        for step in steps {
            match &step.scope {
                Scope::Node(node) | Scope::Data(node) if self.settled.contains(node) => {}
                Scope::Site { .. } if !needed.contains(&step.resource) => {}
                _ => items.push(self.item(&owner, step)),
            }
        }
        Ok(items)
    }

    /// What the machines that are to be made need, directly or not. Images of machines that stand
    /// are not built again, so nothing can be made of them.
    fn needed(&self, steps: &[Step]) -> BTreeSet<Resource> {
        let mut needed = BTreeSet::new();
        // Each step comes after what it needs.
        for step in steps.iter().rev() {
            let made = matches!(&step.scope, Scope::Node(node) if !self.settled.contains(node));
            if made || needed.contains(&step.resource) {
                needed.extend(step.after.iter().cloned());
            }
        }
        needed
    }

    fn item(&self, owner: &Owner, step: Step) -> Item {
        let own = |resource: Resource| Key {
            owner: owner.clone(),
            resource,
        };
        let mut after: Vec<Key> = step.after.into_iter().map(own).collect();
        let mut node_attempt = 1;
        if let Scope::Node(node) = &step.scope {
            node_attempt = self.attempts.get(node).copied().unwrap_or(1);
        }
        // What a machine is given is put together for its first part, with what its account has then.
        if let Some(node) = step.scope.node() {
            // Only its own machine signs in.
            let is_own = |n: &NodePlan| *owner == Owner::Site(n.site.clone());
            let names: &[NodeName] = match self.node(node).is_some_and(is_own) {
                true => std::slice::from_ref(node),
                false => &[],
            };
            let accounts = self.meeting.plan(names);
            let own = |(of, _): &(Option<NodeName>, _)| of.as_ref() == Some(node);
            after.extend(accounts.into_iter().filter(own).map(|(_, resource)| Key {
                owner: Owner::Rendezvous,
                resource,
            }));
        }
        if after.is_empty() {
            after.push(self.directory.clone());
        }
        Item {
            key: Key {
                owner: owner.clone(),
                resource: step.resource,
            },
            scope: step.scope,
            after,
            deadline: step.deadline,
            node_attempt,
            used_up: false,
        }
    }

    fn node(&self, name: &NodeName) -> Option<&NodePlan> {
        self.plan.nodes.iter().find(|n| n.name == *name)
    }
}

impl From<&NodePlan> for WantedMachine {
    fn from(node: &NodePlan) -> Self {
        Self {
            node: node.name.clone(),
            role: node.role.clone(),
            image: node.image.clone(),
            memory_mib: node.memory_mib,
            cpus: node.cpus,
            disk_gib: node.disk_gib,
            data_gib: node.data_gib,
            slot: node.slot,
        }
    }
}

/// What is recorded, wanted as it is.
fn again(record: &ResourceRecord) -> Item {
    Item {
        key: record.key.clone(),
        scope: record.scope.clone(),
        after: record.after.clone(),
        deadline: record.deadline,
        node_attempt: record.node_attempt,
        used_up: false,
    }
}
