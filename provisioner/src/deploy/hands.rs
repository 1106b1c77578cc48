//! Does single actions: records, calls the owner, records what came of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Instant, SystemTime};

use ipop_proto::audit;

use super::engine::Engine;
use super::executor::Doer;
use super::fault;
use super::planner::Action;
use super::starts::Starts;
use super::wanted::DIRECTORY;
use crate::authority;
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Stage};
use crate::name::NodeName;
use crate::plan::ClusterPlan;
use crate::plan::personal::{self, First, Keys, Membership};
use crate::provider::{
    Delivery, Image, MachineSpec, Made, Making, Provider, Removing, Resource, Scope, Step,
};
use crate::rendezvous::ACCOUNT;
use crate::ssh::keys::CLIENT_KEY;
use crate::state::record::{Key, Owner, ResourceRecord, ResourceState, Verb};
use crate::state::resources::{Begun, token};

/// Actions of the rendezvous, and of files, at once.
const PARALLEL: usize = 4;

/// Does the actions of one deployment.
pub(super) struct Hands<'a> {
    engine: &'a Engine<'a>,
    plan: Option<&'a ClusterPlan>,
    images: &'a BTreeMap<String, BTreeMap<String, Image>>,
    /// Attempts of the nodes' accounts.
    accounts: Mutex<BTreeMap<NodeName, u32>>,
    handles: RwLock<BTreeMap<Key, String>>,
    /// Where the sites' machines reach this host.
    reached: Mutex<Vec<IpAddr>>,
    /// What nodes' machines are made from, put together when the first part of one is made.
    specs: BTreeMap<NodeName, Mutex<Option<Arc<MachineSpec>>>>,
    /// How many parts of each node's machine are still to be made.
    parts_left: Mutex<BTreeMap<NodeName, usize>>,
    starts: Mutex<Starts>,
    /// Most machines of each site that start at once; sites without such a limit are not here.
    most_starting: BTreeMap<String, usize>,
}

impl<'a> Hands<'a> {
    pub fn new(
        engine: &'a Engine<'a>,
        plan: Option<&'a ClusterPlan>,
        images: &'a BTreeMap<String, BTreeMap<String, Image>>,
        recorded: &[ResourceRecord],
        actions: &[Action],
    ) -> Self {
        let mut parts_left = BTreeMap::new();
        let made = actions.iter().filter(|action| action.verb == Verb::Make);
        for (node, _) in made.filter_map(machine_part) {
            *parts_left.entry(node.clone()).or_insert(0) += 1;
        }
        let account = |r: &ResourceRecord| match (&r.key.owner, r.node()) {
            (Owner::Rendezvous, Some(node)) => Some((node.clone(), r.attempt)),
            _ => None,
        };
        let there = recorded.iter().filter(|r| r.may_exist());
        let handle = |r: &ResourceRecord| Some((r.key.clone(), r.handle.clone()?));
        let nodes = plan.into_iter().flat_map(|plan| &plan.nodes);
        let specs = nodes.map(|n| (n.name.clone(), Mutex::default()));
        Self {
            engine,
            plan,
            images,
            accounts: Mutex::new(recorded.iter().filter_map(account).collect()),
            handles: RwLock::new(there.filter_map(handle).collect()),
            reached: Mutex::new(reached(recorded)),
            specs: specs.collect(),
            parts_left: Mutex::new(parts_left),
            starts: Mutex::default(),
            most_starting: BTreeMap::new(),
        }
    }

    /// Lets only so many machines of a site start at once as it says. Somebody has to watch which
    /// of them are up ([`Early`](super::early::Early)).
    pub fn paced(mut self) -> Result<Self, CliError> {
        let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
        let parts_left = self.parts_left.get_mut();
        let parts_left = parts_left.unwrap_or_else(PoisonError::into_inner);
        let nodes = self.plan.into_iter().flat_map(|plan| &plan.nodes);
        for node in nodes.filter(|node| parts_left.contains_key(&node.name)) {
            *counts.entry(&node.site).or_default() += 1;
        }
        for (site, count) in counts.into_iter().filter(|(_, count)| *count > 1) {
            let Some(most) = self.engine.provider(site)?.most_starting()? else {
                continue;
            };
            if count > most {
                self.engine.step(format!(
                    "{site}: {most} machines start at a time, as starting keeps processors busy"
                ));
            }
            self.most_starting.insert(site.clone(), most);
        }
        Ok(self)
    }

    /// The node and site of an action that makes the last part of a machine, which starts it.
    fn starts<'b>(&self, action: &'b Action) -> Option<(&'b NodeName, &'b String)> {
        let (node, site) = machine_part(action).filter(|_| action.verb == Verb::Make)?;
        (unpoisoned(&self.parts_left).get(node) == Some(&1)).then_some((node, site))
    }

    fn make(&self, action: &Action, deadline: Instant) -> Result<(), CliError> {
        let (id, uid) = (self.engine.deployment.id, &self.engine.deployment.uid);
        let record = record_of(action, uid);
        let _lock = self.lock_shared(action)?;
        let begun = self.engine.database.begin_making(id, &record)?;
        let made = self.make_by_owner(action, &record.token, deadline);
        let made = self.ended(action, begun, made)?;
        self.engine.database.made(id, &action.key, begun, &made)?;
        if let Some(handle) = made.handle {
            let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
            handles.insert(action.key.clone(), handle);
        }
        if let Some(address) = made.reached_at {
            let mut reached = unpoisoned(&self.reached);
            if !reached.contains(&address) {
                reached.push(address);
            }
        }
        self.tell(action, "made");
        self.machine_part_made(action)
    }

    fn make_by_owner(
        &self,
        action: &Action,
        token: &str,
        deadline: Instant,
    ) -> Result<Made, CliError> {
        let resource = &action.key.resource;
        match &action.key.owner {
            Owner::Files => {
                let dir = self.own_directory(resource)?;
                crate::ssh::keys::private_dir(dir).map(|()| Made::default())
            }
            Owner::Rendezvous => {
                let reached = unpoisoned(&self.reached).clone();
                let meeting = self.engine.meeting()?;
                let delivery = self.delivery(action.node())?;
                meeting.make(resource, &reached, action.attempt, delivery)?;
                if let Some(node) = action.node() {
                    unpoisoned(&self.accounts).insert(node.clone(), action.attempt);
                }
                Ok(Made::default())
            }
            Owner::Site(site) => {
                let provider = self.engine.provider(site)?;
                let spec = match action.node().filter(|node| self.is_on(node, site)) {
                    Some(node) => Some(self.spec(&*provider, site, node)?),
                    None => None,
                };
                let own = |key: &Key| {
                    let same = key.owner == action.key.owner;
                    same.then(|| key.resource.clone())
                };
                let step = Step {
                    resource: resource.clone(),
                    scope: action.scope.clone(),
                    after: action.after.iter().filter_map(own).collect(),
                    deadline: action.deadline,
                };
                let none = BTreeMap::new();
                provider.make(
                    &step,
                    &Making {
                        tags: &self.engine.tags(),
                        token,
                        machine: spec.as_deref(),
                        images: self.images.get(site).unwrap_or(&none),
                        handles: &|resource| self.handle(&action.key.owner, resource),
                        deadline,
                        interrupt: self.engine.interrupt,
                        events: self.engine.events,
                    },
                )
            }
        }
    }

    fn remove(&self, action: &Action, deadline: Instant) -> Result<(), CliError> {
        let (id, key) = (self.engine.deployment.id, &action.key);
        let _lock = self.lock_shared(action)?;
        if matches!(action.scope, Scope::Site { .. }) && self.engine.others_use(key)? {
            // Another deployment came to use it since this was planned.
            return self.engine.database.release(id, std::slice::from_ref(key));
        }
        let begun = self
            .engine
            .database
            .begin_removing(id, key, action.node(), action.attempt)?;
        let removed = self.remove_by_owner(action, deadline);
        self.ended(action, begun, removed)?;
        self.engine.database.removed(id, key, begun)?;
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        handles.remove(key);
        drop(handles);
        self.tell(action, "removed");
        Ok(())
    }

    fn remove_by_owner(&self, action: &Action, deadline: Instant) -> Result<(), CliError> {
        let resource = &action.key.resource;
        match &action.key.owner {
            Owner::Files => {
                let own = self.own_directory(resource)?;
                let name = &self.engine.deployment.name;
                authority::custody::forget(&self.engine.layout.authority(name));
                remove_directory(own)
            }
            Owner::Rendezvous => {
                // Where nothing is to stay, the authority goes as well.
                if let (Some(node), Some(_)) = (action.node(), self.plan) {
                    self.engine.revoke(node)?;
                }
                self.engine.meeting()?.remove(resource)?;
                if let (Some(node), Some(_), ACCOUNT) =
                    (action.node(), self.plan, resource.kind.as_str())
                {
                    let audit = self.engine.audit()?;
                    audit.note(audit::Event::AccountClosed, node, None, SystemTime::now());
                }
                let dir = self.engine.layout.authority(&self.engine.deployment.name);
                match action.node() {
                    Some(node) => Ok(authority::forget(&dir, node)?),
                    None => Ok(()),
                }
            }
            Owner::Site(site) => self.engine.provider(site)?.remove(&Removing {
                tags: &self.engine.tags(),
                resource,
                handle: self.handle(&action.key.owner, resource).as_deref(),
                deadline,
                interrupt: self.engine.interrupt,
            }),
        }
    }

    /// Records a failure; what succeeded passes a fault point before that is recorded.
    fn ended<T>(
        &self,
        action: &Action,
        begun: Begun,
        result: Result<T, CliError>,
    ) -> Result<T, CliError> {
        match result {
            Ok(value) => {
                fault::point("after", action);
                Ok(value)
            }
            Err(error) => {
                let (id, why) = (self.engine.deployment.id, error.one_line());
                self.engine.database.failed(id, &action.key, begun, &why)?;
                Err(error)
            }
        }
    }

    fn tell(&self, action: &Action, verb: &str) {
        let Resource { kind, id } = &action.key.resource;
        self.engine.events.emit(Event::Step {
            message: format!("{verb} {} `{id}`", super::destroy::plain(kind)),
        });
    }

    fn machine_part_made(&self, action: &Action) -> Result<(), CliError> {
        let Some((node, _)) = machine_part(action) else {
            return Ok(());
        };
        let left = {
            let mut parts = unpoisoned(&self.parts_left);
            let left = parts.entry(node.clone()).or_insert(1);
            *left = left.saturating_sub(1);
            *left
        };
        if left == 0 {
            self.engine.reached(node, Stage::Created)?;
        }
        Ok(())
    }

    /// What a node's machine is made from: the same every time it is asked for, also by another
    /// process, since keys and password are kept.
    fn spec(
        &self,
        provider: &dyn Provider,
        site: &str,
        name: &NodeName,
    ) -> Result<Arc<MachineSpec>, CliError> {
        let nodes = self.plan.into_iter().flat_map(|plan| &plan.nodes);
        let planned = nodes.into_iter().find(|n| n.name == *name);
        let (Some(plan), Some(node), Some(cell)) = (self.plan, planned, self.specs.get(name))
        else {
            let message = format!("`{name}` is not wanted");
            return Err(CliError::new(ExitCode::Internal, message));
        };
        let mut cell = unpoisoned(cell);
        if let Some(spec) = &*cell {
            return Ok(Arc::clone(spec));
        }
        let image = match provider.image_form() {
            Some(_) => self
                .images
                .get(site)
                .and_then(|roles| roles.get(&node.image)),
            None => None,
        };
        let image = match (provider.image_form(), image) {
            (Some(_), None) => {
                let message = format!("there is no image of role `{}`", node.image);
                return Err(CliError::new(ExitCode::Internal, message));
            }
            (_, image) => image.cloned(),
        };
        let image = image.unwrap_or_else(|| Image::none(&node.image));
        let templates = match provider.image_form() {
            Some(_) => self.engine.parts.templates(&node.image)?,
            None => BTreeMap::new(),
        };
        let keys = self.keys(provider, node)?;
        let endpoint = self.engine.meeting()?.endpoint()?;
        let spec = Arc::new(MachineSpec {
            deployment: plan.name.clone(),
            node: node.name.clone(),
            image,
            memory_mib: node.memory_mib,
            cpus: node.cpus,
            disk_gib: node.disk_gib,
            data_gib: node.data_gib,
            bundle: personal::bundle(plan, node, &endpoint, &keys, provider.delivery())?
                .with(personal::of_role(plan, node, &templates)?),
        });
        *cell = Some(Arc::clone(&spec));
        Ok(spec)
    }

    /// Whether a node's machine is on a site, which may keep something for others too.
    fn is_on(&self, node: &NodeName, site: &str) -> bool {
        let mut nodes = self.plan.into_iter().flat_map(|plan| &plan.nodes);
        nodes
            .find(|n| n.name == *node)
            .is_none_or(|n| n.site == site)
    }

    fn keys(
        &self,
        provider: &dyn Provider,
        node: &crate::plan::NodePlan,
    ) -> Result<Keys, CliError> {
        let engine = self.engine;
        let dir = engine.layout.ssh(&engine.deployment.name);
        let user = engine.user_key(&dir.join(CLIENT_KEY))?;
        let host_key = match provider.delivery() {
            Delivery::Enrolment => None,
            Delivery::Private => {
                let path = dir.join(format!("host-{}", node.name));
                let host = engine.parts.ssh_key(&path, &node.name.0)?;
                engine
                    .database
                    .set_host_key(engine.deployment.id, &node.name, &host.public)?;
                Some(host.private)
            }
        };
        let attempt = unpoisoned(&self.accounts).get(&node.name).copied();
        let meeting = engine.meeting()?;
        let account = meeting.account(&node.name, attempt.unwrap_or(1))?;
        let membership = match engine.authority()? {
            None => None,
            Some(authority) => Some(Membership {
                authority_pem: authority.certificate_pem().to_owned(),
                issuer: meeting.issuer(),
                first: match provider.delivery() {
                    Delivery::Private => First::Given(authority.identity(node, SystemTime::now())?),
                    Delivery::Enrolment => {
                        let now = SystemTime::now();
                        let entry = authority.token(node, &account.password, now)?;
                        engine.tell_revocation(&node.name, &entry.revocation);
                        First::Asked(entry.secret)
                    }
                },
            }),
        };
        Ok(Keys {
            account,
            host_key,
            authorized_key: user,
            membership,
        })
    }

    /// How a node gets its account.
    fn delivery(&self, node: Option<&NodeName>) -> Result<Delivery, CliError> {
        let nodes = self.plan.into_iter().flat_map(|plan| &plan.nodes);
        match nodes.into_iter().find(|n| Some(&n.name) == node) {
            Some(node) => Ok(self.engine.provider(&node.site)?.delivery()),
            None => Ok(Delivery::Private),
        }
    }

    fn handle(&self, owner: &Owner, resource: &Resource) -> Option<String> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        let key = Key {
            owner: owner.clone(),
            resource: resource.clone(),
        };
        handles.get(&key).cloned()
    }

    /// Never more than the deployment's own directory, whatever the database says.
    fn own_directory<'r>(&self, resource: &'r Resource) -> Result<&'r Path, CliError> {
        let path = Path::new(&resource.id);
        let own = self.engine.layout.deployment(&self.engine.deployment.name);
        if resource.kind == DIRECTORY && path == own {
            return Ok(path);
        }
        let message = format!("`{}` is no deployment's directory", resource.id);
        Err(CliError::new(ExitCode::Internal, message))
    }

    /// What deployments share is made and removed by one at a time.
    fn lock_shared(&self, action: &Action) -> Result<Option<File>, CliError> {
        let Scope::Site { .. } = action.scope else {
            return Ok(None);
        };
        let dir = self.engine.layout.locks();
        crate::ssh::keys::private_dir(&dir)?;
        // By the resource alone: the same host may have several names.
        let name = token("", &shared_key(&action.key), 0);
        let path = dir.join(name);
        let lock = File::create(&path).and_then(|file| file.lock().map(|()| file));
        lock.map(Some).map_err(|e| CliError::file("lock", &path, e))
    }
}

impl Doer for Hands<'_> {
    fn parallel(&self, owner: &Owner) -> usize {
        match owner {
            Owner::Site(site) => {
                let asked = self
                    .engine
                    .settings
                    .site(site)
                    .ok()
                    .and_then(|s| s.parallel);
                let own = || self.engine.provider(site).map_or(1, |p| p.parallel());
                asked.map_or_else(own, |n| n as usize)
            }
            Owner::Rendezvous | Owner::Files => PARALLEL,
        }
    }

    fn may_begin(&self, action: &Action) -> bool {
        let Some((node, site)) = self.starts(action) else {
            return true;
        };
        let Some(most) = self.most_starting.get(site) else {
            return true;
        };
        let early = &self.engine.opened.early;
        // What is left after that, a mount, is little work.
        let is_up = |node: &NodeName| early.of(node).is_some_and(|n| n.stage >= Stage::Linked);
        let frontend = self.plan.map(|plan| &plan.frontend().name);
        // All others link to it: it must not wait for them.
        let most = if frontend == Some(node) {
            usize::MAX
        } else {
            *most
        };
        unpoisoned(&self.starts).claim(site, node, most, Instant::now(), is_up)
    }

    fn act(&self, action: &Action, deadline: Instant) -> Result<(), CliError> {
        match action.verb {
            Verb::Make => self.make(action, deadline).inspect_err(|_| {
                if let Some(node) = action.node() {
                    unpoisoned(&self.starts).release(node);
                }
            }),
            Verb::Remove => self.remove(action, deadline),
        }
    }

    fn is_needless(&self, action: &Action) -> bool {
        action.verb == Verb::Make && action.node().is_some() && self.engine.opened.early.is_enough()
    }

    fn answers(&self, owner: &Owner) -> bool {
        match owner {
            Owner::Site(site) => {
                let asked = self
                    .engine
                    .provider(site)
                    .and_then(|provider| provider.machines(&self.engine.tags()));
                !asked.is_err_and(|e| e.code == ExitCode::Unavailable)
            }
            Owner::Rendezvous => self.engine.meeting().is_ok_and(|m| m.can_remove()),
            Owner::Files => true,
        }
    }
}

/// The addresses of this host that are recorded as reached, this machine's own first.
pub(super) fn reached(recorded: &[ResourceRecord]) -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    for address in recorded.iter().filter_map(|r| r.reached_at) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// The node and site of an action on a part of a machine.
fn machine_part(action: &Action) -> Option<(&NodeName, &String)> {
    match &action.key.owner {
        Owner::Site(site) => Some((action.node()?, site)),
        Owner::Rendezvous | Owner::Files => None,
    }
}

/// As an action will be recorded.
pub(super) fn record_of(action: &Action, uid: &str) -> ResourceRecord {
    ResourceRecord {
        key: action.key.clone(),
        scope: action.scope.clone(),
        after: action.after.clone(),
        deadline: action.deadline,
        state: ResourceState::Wanted,
        attempt: action.attempt,
        node_attempt: action.node_attempt,
        token: token(uid, &action.key, action.attempt),
        handle: None,
        reached_at: None,
        error: None,
    }
}

fn shared_key(key: &Key) -> Key {
    Key {
        owner: Owner::Files,
        resource: key.resource.clone(),
    }
}

pub(super) fn remove_directory(path: &Path) -> Result<(), CliError> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(CliError::file("remove", path, e))
        }
        _ => Ok(()),
    }
}

fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
