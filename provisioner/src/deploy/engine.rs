//! One way from what is recorded and observed to what is wanted: create, resume and scale are the
//! same, with different nodes wanted. `destroy` wants nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Instant, SystemTime};

use ipop_proto::status::NodeStatus;

use super::early::Early;
use super::executor::{Run, execute};
use super::hands::{Hands, reached, record_of};
use super::interrupt::Interrupt;
use super::planner::{self, Action, Item, Observed, Plan, Why};
use super::settings::Settings;
use super::wanted::{DIRECTORY, Wanting, settled};
use super::{Meeting, Parts, kept};
use crate::audit::{Audit, By};
use crate::authority::Authority;
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink, Stage};
use crate::layout::Layout;
use crate::name::NodeName;
use crate::plan::{ClusterPlan, personal};
use crate::provider::{
    Cost, Found, Health, Image, ImageForm, Provider, Resource, Scope, SitePlan, Tags, WantedMachine,
};
use crate::rendezvous::DIR;
use crate::rendezvous::config::RendezvousConfig;
use crate::ssh::keys::{KnownHosts, private_dir};
use crate::state::Database;
use crate::state::record::{
    Deployment, Key, NodeRecord, Owner, ResourceRecord, ResourceState, Verb,
};

/// Images by site and role.
pub(super) type Images = BTreeMap<String, BTreeMap<String, Image>>;
type Sites = BTreeMap<String, Arc<dyn Provider>>;

/// One deployment and everything it takes to change it.
pub struct Engine<'a> {
    /// Directories.
    pub layout: &'a Layout,
    /// The state database.
    pub database: &'a Database,
    /// The deployment.
    pub deployment: &'a Deployment,
    /// Its sites and rendezvous.
    pub settings: &'a Settings,
    /// What it is made of.
    pub parts: &'a dyn Parts,
    /// Whether the user wants to stop.
    pub interrupt: &'a Interrupt,
    /// When the command began.
    pub began: Instant,
    /// Where events go.
    pub events: &'a dyn Sink,
    /// What was opened of the parts.
    pub opened: Opened,
}

/// Parts that were opened, each once, and what was seen of the nodes meanwhile.
#[derive(Default)]
pub struct Opened {
    providers: Mutex<Sites>,
    meeting: Mutex<Option<Arc<dyn Meeting>>>,
    user_key: Mutex<Option<String>>,
    authority: Mutex<Option<Arc<Authority>>>,
    pub(super) early: Early,
}

/// What is recorded of a deployment.
pub(super) struct Scene {
    pub nodes: Vec<NodeRecord>,
    pub plan: ClusterPlan,
    pub attempts: BTreeMap<NodeName, u32>,
    /// With what was removed: its attempts count.
    pub recorded: Vec<ResourceRecord>,
}

/// What could not be done.
#[derive(Debug, Default)]
pub(super) struct Converged {
    /// Nodes of which a part could not be made.
    pub failed: BTreeMap<NodeName, CliError>,
    /// What of nodes that are not wanted could not be removed.
    pub leftover: Vec<(Key, CliError)>,
}

impl Engine<'_> {
    /// Brings everything to what is wanted. Nodes that fail keep no other back. With a quorum nodes
    /// are noted as they join, and once it has joined launches that failed are not repeated.
    pub(super) fn converge(&self, quorum: Option<usize>) -> Result<Converged, CliError> {
        let scene = self.scene(self.database.nodes(self.deployment.id)?)?;
        let sites = self.sites(&scene.plan)?;
        self.check_reachable(&sites)?;
        self.check_restored(&scene.nodes)?;
        self.revoke_unwanted(&scene.nodes);
        self.regroup(&scene.plan)?;
        // From the look at what is there until the machines are.
        let _kept = kept::using(self.layout)?;
        let mut observed = self.observe(&scene, &sites)?;
        // What can fail at once comes before what takes minutes.
        let plan = self.plan(&scene, &sites, &observed, &Images::new())?;
        self.tell_lost_data(&plan);
        let run = self.carry_out(
            &scene,
            &foundation(plan),
            &Images::new(),
            false,
            &mut observed,
        )?;
        self.check_shared(run)?;
        let scene = self.scene(scene.nodes)?;
        self.serve(&scene)?;
        self.expire_tokens();
        let images = self.images(&scene, &sites, &observed)?;
        let plan = self.plan(&scene, &sites, &observed, &images)?;
        let run = std::thread::scope(|scope| {
            let (running, done) = mpsc::channel();
            if let Some(quorum) = quorum {
                let (early, plan) = (&self.opened.early, &scene.plan);
                scope.spawn(move || early.watch(self, plan, quorum, &done));
            }
            let run = self.carry_out(&scene, &plan, &images, quorum.is_some(), &mut observed);
            drop(running);
            run
        })?;
        let run = self.check_shared(run)?;
        self.forget_removed()?;
        self.write_known_hosts()?;
        Ok(run.converged())
    }

    /// What would be done to have these nodes; nothing is changed.
    pub fn preview(&self, nodes: Vec<NodeRecord>) -> Result<Plan, CliError> {
        let scene = self.scene(nodes)?;
        let sites = self.sites(&scene.plan)?;
        self.check_reachable(&sites)?;
        let observed = self.observe(&scene, &sites)?;
        self.plan(&scene, &sites, &observed, &Images::new())
    }

    /// What the nodes cost on the sites where somebody has to pay, as estimates.
    pub fn costs(&self, nodes: &[NodeRecord]) -> Result<BTreeMap<String, Cost>, CliError> {
        let nodes = nodes.iter().filter(|n| n.wanted).cloned().collect();
        let scene = self.scene(nodes)?;
        let (tags, images) = (self.tags(), BTreeMap::new());
        let mut costs = BTreeMap::new();
        for (site, provider) in self.sites(&scene.plan)? {
            let own = scene.plan.nodes.iter().filter(|n| n.site == site);
            let machines: Vec<_> = own.map(WantedMachine::from).collect();
            let cost = provider.cost(&SitePlan {
                tags: &tags,
                machines: &machines,
                members: &scene.plan.nodes,
                images: &images,
            })?;
            costs.extend(cost.map(|cost| (site, cost)));
        }
        Ok(costs)
    }

    pub(super) fn scene(&self, nodes: Vec<NodeRecord>) -> Result<Scene, CliError> {
        Ok(Scene {
            plan: ClusterPlan::recorded(self.deployment, &nodes)?,
            attempts: nodes.iter().map(|n| (n.name.clone(), n.attempt)).collect(),
            nodes,
            recorded: self.database.all_resources(self.deployment.id)?,
        })
    }

    /// What everything the deployment makes is marked with.
    pub fn tags(&self) -> Tags {
        self.deployment.tags()
    }

    /// Notes that a node reached a stage.
    pub(super) fn reached(&self, node: &NodeName, stage: Stage) -> Result<f64, CliError> {
        let seconds = self.began.elapsed().as_secs_f64();
        let id = self.deployment.id;
        self.database.set_stage(id, node, stage, seconds)?;
        self.events.emit(Event::Stage {
            node: node.clone(),
            stage,
            seconds,
        });
        Ok(seconds)
    }

    pub(super) fn step(&self, message: impl Into<String>) {
        self.events.emit(Event::Step {
            message: message.into(),
        });
    }

    /// The provider of one of the deployment's sites.
    pub(super) fn provider(&self, site: &str) -> Result<Arc<dyn Provider>, CliError> {
        let mut providers = unpoisoned(&self.opened.providers);
        if let Some(provider) = providers.get(site) {
            return Ok(Arc::clone(provider));
        }
        let provider = self.parts.provider(self.settings.site(site)?)?;
        providers.insert(site.to_owned(), Arc::clone(&provider));
        Ok(provider)
    }

    /// The deployment's rendezvous.
    pub(super) fn meeting(&self) -> Result<Arc<dyn Meeting>, CliError> {
        let mut meeting = unpoisoned(&self.opened.meeting);
        if let Some(meeting) = &*meeting {
            return Ok(Arc::clone(meeting));
        }
        let opened: Arc<dyn Meeting> = Arc::from(self.parts.meeting()?);
        *meeting = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// The authority of the overlay, where it has one.
    pub(super) fn authority(&self) -> Result<Option<Arc<Authority>>, CliError> {
        if !self.settings.authority {
            return Ok(None);
        }
        let mut authority = unpoisoned(&self.opened.authority);
        if let Some(authority) = &*authority {
            return Ok(Some(Arc::clone(authority)));
        }
        let name = &self.deployment.name;
        let dir = self.layout.authority(name);
        let opened = Authority::open(&dir, name, self.audit()?, SystemTime::now())?;
        let opened = Arc::new(opened);
        *authority = Some(Arc::clone(&opened));
        Ok(Some(opened))
    }

    /// Where what happens to its nodes is written down.
    pub(super) fn audit(&self) -> Result<Audit, CliError> {
        let nodes = self.database.nodes(self.deployment.id)?;
        let name = &self.deployment.name;
        Ok(Audit::new(self.layout, name, By::Owner, &nodes))
    }

    /// The public key that may sign in to nodes.
    pub(super) fn user_key(&self, path: &Path) -> Result<String, CliError> {
        let mut key = unpoisoned(&self.opened.user_key);
        if let Some(key) = &*key {
            return Ok(key.clone());
        }
        if let Some(dir) = path.parent() {
            private_dir(dir)?;
        }
        let comment = format!("provision@{}", self.deployment.name);
        let public = self.parts.ssh_key(path, &comment)?.public;
        *key = Some(public.clone());
        Ok(public)
    }

    /// Whether another deployment is recorded to use a resource that deployments share. The same
    /// host may have another name there.
    pub(super) fn others_use(&self, key: &Key) -> Result<bool, CliError> {
        let Owner::Site(site) = &key.owner else {
            return Ok(false);
        };
        let host = &self.settings.site(site)?.kind;
        for other in self.database.deployments()? {
            if other.id == self.deployment.id {
                continue;
            }
            let settings = Settings::of(&other)?;
            let same = settings.sites.iter().filter(|s| s.kind == *host);
            let owners: Vec<_> = same.map(|s| Owner::Site(s.name.clone())).collect();
            let used = self.database.resources(other.id)?;
            let uses = |r: &ResourceRecord| {
                r.key.resource == key.resource && owners.contains(&r.key.owner)
            };
            if used.iter().any(uses) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn sites(&self, plan: &ClusterPlan) -> Result<Sites, CliError> {
        let open = |site: &str| Ok((site.to_owned(), self.provider(site)?));
        plan.sites().into_iter().map(open).collect()
    }

    /// A site whose machines do not share a network with this machine needs a rendezvous that
    /// listens where the configuration says.
    fn check_reachable(&self, sites: &Sites) -> Result<(), CliError> {
        let RendezvousConfig::Embedded(config) = &self.settings.rendezvous else {
            return Ok(());
        };
        match sites.iter().find(|(_, provider)| !provider.is_local()) {
            Some((site, _)) if config.listen.is_empty() => Err(CliError::new(
                ExitCode::Config,
                format!("machines of site `{site}` cannot reach the rendezvous of this machine"),
            )
            .hint("set `listen` in [rendezvous] to an address of this machine that they reach")),
            _ => Ok(()),
        }
    }

    /// Asks the sites what is there. Of a deployment that never made anything everything with one
    /// of its names is somebody else's.
    fn observe(&self, scene: &Scene, sites: &Sites) -> Result<Observed, CliError> {
        let tags = self.tags();
        let is_new = !scene
            .recorded
            .iter()
            .any(|r| r.may_exist() && r.key.owner != Owner::Files);
        let mut names: BTreeSet<Key> = BTreeSet::new();
        if is_new {
            let items = self.items(scene, sites, &Observed::default(), &Images::new())?;
            let own = items
                .into_iter()
                .filter(|i| !matches!(i.scope, Scope::Site { .. } | Scope::Data(_)));
            names.extend(own.map(|item| item.key));
        }
        let mut observed = Observed::default();
        for (site, provider) in sites {
            self.interrupt.check()?;
            let owner = Owner::Site(site.clone());
            for found in provider.find((!is_new).then_some(&tags))? {
                let key = Key {
                    owner: owner.clone(),
                    resource: found.resource.clone(),
                };
                let others = found.tags.as_ref().is_some_and(|t| t.uid != tags.uid);
                if is_new && names.contains(&key) && found.tags.as_ref() != Some(&tags) {
                    return Err(taken(site, &found));
                }
                if others {
                    continue;
                }
                // Of two things of one name the one that serves counts.
                let health = observed.found.entry(key).or_insert(found.health);
                if found.health == Health::Present {
                    *health = Health::Present;
                }
            }
            observed.asked.insert(owner);
        }
        Ok(observed)
    }

    fn items(
        &self,
        scene: &Scene,
        sites: &Sites,
        observed: &Observed,
        images: &Images,
    ) -> Result<Vec<Item>, CliError> {
        let meeting = self.meeting()?;
        Wanting {
            tags: &self.tags(),
            plan: &scene.plan,
            attempts: &scene.attempts,
            directory: &self.directory(),
            sites,
            images,
            meeting: &*meeting,
            recorded: &scene.recorded,
            settled: &settled(
                &scene.plan,
                &scene.attempts,
                &left(&scene.recorded),
                observed,
            ),
        }
        .items()
    }

    fn plan(
        &self,
        scene: &Scene,
        sites: &Sites,
        observed: &Observed,
        images: &Images,
    ) -> Result<Plan, CliError> {
        let items = self.items(scene, sites, observed, images)?;
        Ok(self.planned(&items, &scene.recorded, observed))
    }

    pub(super) fn planned(
        &self,
        items: &[Item],
        recorded: &[ResourceRecord],
        observed: &Observed,
    ) -> Plan {
        // What cannot be told is as if it were used: it is not removed.
        let others = |key: &Key| self.others_use(key).unwrap_or(true);
        planner::plan(items, recorded, observed, &others)
    }

    /// Records what is decided, and does it.
    fn carry_out(
        &self,
        scene: &Scene,
        plan: &Plan,
        images: &Images,
        watched: bool,
        observed: &mut Observed,
    ) -> Result<Done, CliError> {
        let run = self.run(Some(&scene.plan), &scene.recorded, plan, images, watched)?;
        for index in &run.done {
            let action = &plan.actions[*index];
            match action.verb {
                Verb::Make => observed.found.insert(action.key.clone(), Health::Present),
                Verb::Remove => observed.found.remove(&action.key),
            };
        }
        if run.interrupted {
            return Err(CliError::interrupted());
        }
        let failed = run.failed.into_iter().map(|(index, error)| {
            let action = plan.actions[index].clone();
            (action, error)
        });
        Ok(Done {
            failed: failed.collect(),
        })
    }

    pub(super) fn run(
        &self,
        plan: Option<&ClusterPlan>,
        recorded: &[ResourceRecord],
        todo: &Plan,
        images: &Images,
        watched: bool,
    ) -> Result<Run, CliError> {
        let id = self.deployment.id;
        self.database.release(id, &todo.released)?;
        let new = |a: &&Action| a.verb == Verb::Make && a.why == Why::New;
        let new = todo.actions.iter().filter(new);
        let new: Vec<_> = new.map(|a| record_of(a, &self.deployment.uid)).collect();
        self.database.want(id, &new)?;
        let mut hands = Hands::new(self, plan, images, recorded, &todo.actions);
        if watched {
            hands = hands.paced()?;
        }
        let run = execute(&todo.actions, &hands, self.interrupt);
        for (index, error) in &run.failed {
            self.events.emit(Event::Warning {
                message: failure(&todo.actions[*index], error),
            });
        }
        Ok(run)
    }

    /// Fails with what failed of what all nodes need.
    fn check_shared(&self, run: Done) -> Result<Done, CliError> {
        let frontend = |node: &NodeName| node.0.starts_with(crate::plan::FRONTEND);
        let shared = |(action, _): &&(Action, CliError)| {
            action.verb == Verb::Make && action.node().is_none_or(frontend)
        };
        let mut run = run;
        match run.failed.iter().position(|f| shared(&f)) {
            Some(index) => {
                let (action, error) = run.failed.swap_remove(index);
                Err(about(&action, error))
            }
            None => Ok(run),
        }
    }

    /// Starts the rendezvous if it stopped, or must listen for another site's machines too.
    fn serve(&self, scene: &Scene) -> Result<(), CliError> {
        let prepared = |r: &ResourceRecord| {
            r.key.owner == Owner::Rendezvous
                && r.key.resource.kind == DIR
                && r.state == ResourceState::Made
        };
        if scene.recorded.iter().any(prepared) {
            self.meeting()?.start(&reached(&scene.recorded))?;
        }
        Ok(())
    }

    /// Kills enrolment tokens that were not used in time. That it cannot be done keeps nothing
    /// back: it is tried again and again.
    pub(super) fn expire_tokens(&self) {
        let expired = self
            .meeting()
            .and_then(|meeting| meeting.expire_tokens(SystemTime::now()));
        match expired {
            Ok(nodes) => {
                for node in nodes {
                    self.events.emit(Event::Warning {
                        message: format!("{node}: its enrolment token was not used in time"),
                    });
                }
            }
            Err(error) => {
                tracing::warn!(error = error.one_line(), "enrolment tokens not looked at");
            }
        }
    }

    /// Records the public SSH host key that a node made for itself and reports. A key that is none
    /// is warned of and never trusted.
    pub(super) fn learn_host_key(
        &self,
        node: &NodeName,
        status: &NodeStatus,
    ) -> Result<(), CliError> {
        match personal::reported_host_key(status) {
            Ok(Some(key)) => self.database.set_host_key(self.deployment.id, node, &key),
            Ok(None) => Ok(()),
            Err(error) => {
                self.events.emit(Event::Warning {
                    message: error.one_line(),
                });
                Ok(())
            }
        }
    }

    /// Builds the images of the machines that are to be made.
    fn images(
        &self,
        scene: &Scene,
        sites: &Sites,
        observed: &Observed,
    ) -> Result<Images, CliError> {
        let settled = settled(
            &scene.plan,
            &scene.attempts,
            &left(&scene.recorded),
            observed,
        );
        let mut images = Images::new();
        let mut built: Vec<(&str, ImageForm, Image)> = Vec::new();
        for node in &scene.plan.nodes {
            let form = sites.get(&node.site).and_then(|p| p.image_form());
            let (false, Some(form)) = (settled.contains(&node.name), form) else {
                continue;
            };
            let role = node.image.as_str();
            let known = built.iter().find(|(r, f, _)| (*r, *f) == (role, form));
            let image = match known {
                Some((_, _, image)) => image.clone(),
                None => {
                    self.interrupt.check()?;
                    self.step(format!("image {role}"));
                    let image = self.parts.image(role, form, self.events);
                    // Ctrl-C reaches the programs that build the image too.
                    self.interrupt.check()?;
                    let image = image?;
                    built.push((role, form, image.clone()));
                    image
                }
            };
            let roles = images.entry(node.site.clone()).or_default();
            roles.insert(role.to_owned(), image);
            self.reached(&node.name, Stage::Image)?;
        }
        Ok(images)
    }

    /// Forgets nodes that were not wanted and of which nothing is left.
    fn forget_removed(&self) -> Result<(), CliError> {
        let id = self.deployment.id;
        let resources = self.database.resources(id)?;
        let with: BTreeSet<&NodeName> = resources.iter().filter_map(|r| r.node()).collect();
        let nodes = self.database.nodes(id)?;
        let gone = nodes
            .iter()
            .filter(|n| !n.wanted && !with.contains(&n.name));
        let gone: Vec<_> = gone.map(|n| n.name.clone()).collect();
        for node in &gone {
            let path = self
                .layout
                .ssh(&self.deployment.name)
                .join(format!("host-{node}"));
            // Another node may have this name one day, and must not have this one's key.
            for path in [path.with_file_name(format!("host-{node}.pub")), path] {
                match std::fs::remove_file(&path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(CliError::file("remove", &path, e));
                    }
                    _ => {}
                }
            }
        }
        self.database.forget_nodes(id, &gone)
    }

    /// Writes the host keys that are recorded to where `provision ssh` looks.
    pub(super) fn write_known_hosts(&self) -> Result<(), CliError> {
        let dir = self.layout.ssh(&self.deployment.name);
        private_dir(&dir)?;
        let mut known = KnownHosts::default();
        for node in self.database.nodes(self.deployment.id)? {
            if let Some(key) = &node.host_key {
                known.add(&self.deployment.name, &node.name, key);
            }
        }
        known.write(&dir)
    }

    /// The deployment's own directory.
    pub(super) fn directory(&self) -> Key {
        directory(self.layout, &self.deployment.name)
    }
}

/// The directory of the deployment called `name`, as a resource.
pub fn directory(layout: &Layout, name: &str) -> Key {
    Key {
        owner: Owner::Files,
        resource: Resource {
            kind: DIRECTORY.to_owned(),
            id: layout.deployment(name).display().to_string(),
        },
    }
}

/// What failed of a plan.
struct Done {
    failed: Vec<(Action, CliError)>,
}

impl Done {
    fn converged(self) -> Converged {
        let mut converged = Converged::default();
        for (action, error) in self.failed {
            match (action.verb, action.node()) {
                (Verb::Remove, _) if action.why == Why::Unwanted => {
                    converged.leftover.push((action.key, error));
                }
                (_, Some(node)) => {
                    let node = node.clone();
                    let error = about(&action, error);
                    converged.failed.entry(node).or_insert(error);
                }
                (_, None) => converged.leftover.push((action.key, error)),
            }
        }
        converged
    }
}

/// The part of a plan that all nodes stand on: what needs no image and removes nothing.
fn foundation(plan: Plan) -> Plan {
    let mut new_index = vec![None; plan.actions.len()];
    let mut actions: Vec<Action> = Vec::new();
    for (index, action) in plan.actions.iter().enumerate() {
        let needs: Option<Vec<usize>> = action.needs.iter().map(|n| new_index[*n]).collect();
        if let (Verb::Make, Scope::Deployment, Some(needs)) = (action.verb, &action.scope, needs) {
            new_index[index] = Some(actions.len());
            actions.push(Action {
                needs,
                ..action.clone()
            });
        }
    }
    Plan {
        actions,
        released: Vec::new(),
    }
}

fn left(recorded: &[ResourceRecord]) -> Vec<ResourceRecord> {
    let left = recorded
        .iter()
        .filter(|r| r.state != ResourceState::Removed);
    left.cloned().collect()
}

/// A machine that is there already belongs to somebody else, who used the same name from another
/// state directory: what is recorded here would be taken over, and removed by destroy.
fn taken(site: &str, found: &Found) -> CliError {
    let Resource { kind, id } = &found.resource;
    let whose = match &found.tags {
        Some(tags) => format!(" of another deployment `{}`", tags.deployment),
        None => String::new(),
    };
    let message = format!("site `{site}` already has a {kind} `{id}`{whose}");
    CliError::new(ExitCode::Name, message).hint("choose another --name")
}

/// What a failed action was about.
fn failure_name(action: &Action) -> String {
    let Resource { kind, id } = &action.key.resource;
    let thing = format!("{} `{id}`", super::destroy::plain(kind));
    match action.node() {
        Some(node) => format!("{node}: {thing}"),
        None => thing,
    }
}

fn failure(action: &Action, error: &CliError) -> String {
    let name = failure_name(action);
    format!("{name}: cannot {} it: {}", action.verb, error.one_line())
}

/// The error, with what it is about.
fn about(action: &Action, error: CliError) -> CliError {
    let name = failure_name(action);
    CliError {
        message: format!("{name}: {}", error.message),
        ..error
    }
}

fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
