//! Parts that make nothing but entries in a set.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ipop_proto::status::NodeStatus;

use crate::deploy::join::BOOTED;
use crate::deploy::{Meeting, Parts, Seen, SshKey, Watch};
use crate::error::{CliError, ExitCode};
use crate::event::{Sink, Stage};
use crate::layout::Layout;
use crate::name::{NodeName, machine_name};
use crate::provider::{
    AtVolume, CheckLine, DATA, Delivery, Found, Health, Image, ImageForm, Machine, MachineState,
    Made, Making, Provider, Removing, Resource, Scope, SitePlan, Step, Tags, Volumes,
};
use crate::rendezvous::{Account, Endpoint, State};
use crate::secret::Secret;
use crate::site::Site;
use crate::state::Database;
use crate::state::record::ResourceRecord;

/// Something that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Thing {
    tags: Option<Tags>,
    node: Option<NodeName>,
    health: Health,
}

/// How a step fails.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Error,
    Panic,
}

/// The world behind all fakes.
#[derive(Debug)]
struct World {
    layout: Layout,
    id: i64,
    /// What there is, with whose it is.
    existing: BTreeMap<String, Thing>,
    /// How often each thing was made that was not there, by its token.
    births: BTreeMap<String, BTreeSet<String>>,
    steps: usize,
    fault: Option<(usize, Fault)>,
    removals: usize,
    removal_fault: Option<usize>,
    /// No site and no rendezvous answers.
    unreachable: bool,
    silent: BTreeMap<String, String>,
    stopped: BTreeSet<String>,
    unwatchable: bool,
    /// The rendezvous dies after it was looked at so many times.
    dies_after: Option<usize>,
    /// The rendezvous stops once the machines run.
    halts: bool,
    halted: bool,
    dead: bool,
    /// The sites' machines are on no network of this host.
    remote: bool,
    /// Images outlive the last deployment.
    keep: bool,
    /// What its site refuses to make.
    refused: BTreeSet<String>,
    /// Nodes of which the first machines, so many, say nothing.
    silent_machines: BTreeMap<String, usize>,
    /// Passwords of the accounts.
    accounts: BTreeMap<String, Vec<u8>>,
    /// What machines were given last.
    given: BTreeMap<String, BTreeMap<String, Secret<Vec<u8>>>>,
    /// Machines enrol, and make their own host keys.
    enrols: bool,
    /// What nodes report as their host keys' ends.
    reported: BTreeMap<String, String>,
    /// How often it was looked for tokens that are over.
    expiries: usize,
    /// Volumes that were given more room, and how much they have.
    grown: BTreeMap<String, u64>,
    /// Nodes whose data went back to a snapshot, and with how much room.
    restored: Vec<(NodeName, String, u64)>,
    /// How often a machine was started after that.
    served: usize,
}

impl World {
    /// How many machines the node had.
    fn machines_of(&self, node: &NodeName) -> usize {
        let domain = format!("domain ipop-demo-{node}");
        self.births.get(&domain).map_or(0, BTreeSet::len)
    }
}

/// Provider, rendezvous and the rest in one.
#[derive(Debug, Clone)]
pub struct Fakes(Arc<Mutex<World>>);

impl Fakes {
    pub fn new(layout: &Layout, id: i64) -> Self {
        Self(Arc::new(Mutex::new(World {
            layout: layout.clone(),
            id,
            existing: BTreeMap::new(),
            births: BTreeMap::new(),
            steps: 0,
            fault: None,
            removals: 0,
            removal_fault: None,
            unreachable: false,
            silent: BTreeMap::new(),
            stopped: BTreeSet::new(),
            unwatchable: false,
            dies_after: None,
            halts: false,
            halted: false,
            dead: false,
            remote: false,
            keep: false,
            refused: BTreeSet::new(),
            silent_machines: BTreeMap::new(),
            accounts: BTreeMap::new(),
            given: BTreeMap::new(),
            enrols: false,
            reported: BTreeMap::new(),
            expiries: 0,
            grown: BTreeMap::new(),
            restored: Vec::new(),
            served: 0,
        })))
    }

    pub fn existing(&self) -> Vec<String> {
        self.world().existing.keys().cloned().collect()
    }

    /// Somebody else makes something.
    pub fn foreign(&self, kind: &str, id: &str) {
        let thing = Thing {
            tags: None,
            node: None,
            health: Health::Present,
        };
        self.world().existing.insert(format!("{kind} {id}"), thing);
    }

    /// Something vanishes without our doing.
    pub fn vanish(&self, kind: &str, id: &str) {
        let gone = self.world().existing.remove(&format!("{kind} {id}"));
        assert!(gone.is_some(), "{kind} {id} was never there");
    }

    /// Something serves no more.
    pub fn break_down(&self, kind: &str, id: &str) {
        let mut world = self.world();
        let thing = world.existing.get_mut(&format!("{kind} {id}"));
        thing.expect("it is there").health = Health::Broken;
    }

    /// How often a thing was made that was not there.
    pub fn births(&self, kind: &str, id: &str) -> usize {
        let world = self.world();
        world
            .births
            .get(&format!("{kind} {id}"))
            .map_or(0, BTreeSet::len)
    }

    /// How much room a volume was given after it was made, in bytes.
    pub fn grown(&self, kind: &str, id: &str) -> Option<u64> {
        self.world().grown.get(&format!("{kind} {id}")).copied()
    }

    /// Nodes whose data went back to which snapshot, with how much room, in bytes.
    pub fn restored(&self) -> Vec<(NodeName, String, u64)> {
        self.world().restored.clone()
    }

    /// How often a machine was started after that.
    pub fn served(&self) -> usize {
        self.world().served
    }

    /// How many steps were tried.
    pub fn steps(&self) -> usize {
        self.world().steps
    }

    pub fn fail_at(&self, step: usize, fault: Fault) {
        self.world().fault = Some((step, fault));
    }

    pub fn fail_removal(&self, step: usize) {
        self.world().removal_fault = Some(step);
    }

    pub fn unreachable(&self) {
        self.world().unreachable = true;
    }

    /// How many removals were tried.
    pub fn removals(&self) -> usize {
        self.world().removals
    }

    pub fn heal(&self) {
        let mut world = self.world();
        (world.fault, world.removal_fault) = (None, None);
        (world.unreachable, world.removals) = (false, 0);
    }

    /// The node's machine says this and no more.
    pub fn silent(&self, node: &str, console: &str) {
        self.world()
            .silent
            .insert(node.to_owned(), console.to_owned());
    }

    /// The site has no room for this.
    pub fn refuse(&self, name: &str) {
        self.world().refused.insert(name.to_owned());
    }

    /// So many machines of the node say nothing; the next one does.
    pub fn silent_machine(&self, node: &str, machines: usize) {
        let mut world = self.world();
        world.silent_machines.insert(node.to_owned(), machines);
    }

    /// The node's first machine stops.
    pub fn stopped(&self, node: &str) {
        self.world().stopped.insert(node.to_owned());
    }

    pub fn unwatchable(&self) {
        self.world().unwatchable = true;
    }

    pub fn dies_after(&self, looks: usize) {
        self.world().dies_after = Some(looks);
    }

    pub fn halts(&self) {
        self.world().halts = true;
    }

    /// Whether the rendezvous does not run.
    pub fn halted(&self) -> bool {
        self.world().halted
    }

    /// Images outlive the last deployment.
    pub fn keep_images(&self) {
        self.world().keep = true;
    }

    /// Machines enrol, and make their own host keys.
    pub fn enrol(&self) {
        self.world().enrols = true;
    }

    /// The node reports this after `ssh-ed25519 AAAAC3NzaC1lZDI1NTE5`, instead of its name.
    pub fn report(&self, node: &str, key: &str) {
        let mut world = self.world();
        world.reported.insert(node.to_owned(), key.to_owned());
    }

    /// The password or token that the node's account has.
    pub fn password(&self, node: &str) -> String {
        let world = self.world();
        String::from_utf8_lossy(&world.accounts[node]).into_owned()
    }

    /// A credential that the node's machine was given.
    pub fn given(&self, node: &str, credential: &str) -> Option<String> {
        let world = self.world();
        let content = world.given[node].get(credential)?.expose().clone();
        Some(String::from_utf8(content).expect("a text"))
    }

    /// The key and certificate (PEM) that the node's machine was given.
    pub fn identity(&self, node: &str) -> Option<String> {
        self.given(node, crate::bundle::IDENTITY)
    }

    /// How often it was looked for tokens that are over.
    pub fn expiries(&self) -> usize {
        self.world().expiries
    }

    pub fn remote(&self) {
        self.world().remote = true;
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One thing that may go wrong.
    fn step(&self) -> Result<(), CliError> {
        let mut world = self.world();
        world.steps += 1;
        let steps = world.steps;
        let fault = world.fault;
        drop(world);
        match fault {
            Some((at, Fault::Error)) if at == steps => Err(CliError::new(
                ExitCode::Unavailable,
                format!("step {steps} fails"),
            )),
            Some((at, Fault::Panic)) if at == steps => panic!("step {steps} panics"),
            _ => Ok(()),
        }
    }

    /// Makes a resource, which must have been recorded. May fail before and after.
    fn make_thing(
        &self,
        resource: &Resource,
        tags: Option<&Tags>,
        node: Option<&NodeName>,
        token: &str,
    ) -> Result<(), CliError> {
        let Resource { kind, id } = resource;
        self.step()?;
        let (path, deployment) = {
            let world = self.world();
            (world.layout.database(), world.id)
        };
        let recorded = Database::open(&path)?.resources(deployment)?;
        let tried = |r: &ResourceRecord| r.key.resource == *resource && r.may_exist();
        assert!(
            recorded.iter().any(tried),
            "{kind} {id} is made and was not recorded"
        );
        let mut world = self.world();
        let name = format!("{kind} {id}");
        if world.refused.contains(&name) {
            return Err(CliError::new(ExitCode::Unavailable, "out of capacity"));
        }
        let thing = world.existing.get(&name);
        if thing.is_none_or(|t| t.health == Health::Broken) {
            let new = world
                .births
                .entry(name.clone())
                .or_default()
                .insert(token.to_owned());
            assert!(
                new || token.is_empty(),
                "{name} is made a second time with the same token"
            );
        }
        let thing = Thing {
            tags: tags.cloned(),
            node: node.cloned(),
            health: Health::Present,
        };
        world.existing.insert(name, thing);
        drop(world);
        self.step()
    }

    fn take_away(&self, resource: &Resource) -> Result<(), CliError> {
        let mut world = self.world();
        world.removals += 1;
        if world.unreachable {
            return Err(CliError::new(ExitCode::Unavailable, "no route to host"));
        }
        if world.removal_fault == Some(world.removals) {
            return Err(CliError::new(ExitCode::Unavailable, "it is in use"));
        }
        let any = |kind: &str| world.existing.keys().any(|e| e.starts_with(kind));
        match resource.kind.as_str() {
            "network" => assert!(!any("domain"), "the network is removed before its machines"),
            "process" => assert!(!any("account"), "the server is removed before its accounts"),
            "volume" => {
                let domain = format!("domain {}", resource.id);
                assert!(!any(&domain), "{} has no disk any more", resource.id);
            }
            _ => {}
        }
        world
            .existing
            .remove(&format!("{} {}", resource.kind, resource.id));
        Ok(())
    }
}

fn resource(kind: &str, id: &str) -> Resource {
    Resource {
        kind: kind.to_owned(),
        id: id.to_owned(),
    }
}

impl Parts for Fakes {
    fn image(&self, role: &str, _: ImageForm, _: &dyn Sink) -> Result<Image, CliError> {
        self.step()?;
        Ok(Image {
            role: role.to_owned(),
            hash: "0".repeat(64),
            disk: "disk".into(),
            kernel: "kernel".into(),
            initrd: None,
            cmdline: String::new(),
            whole: None,
        })
    }

    fn templates(&self, _: &str) -> Result<BTreeMap<String, String>, CliError> {
        Ok(BTreeMap::new())
    }

    fn provider(&self, _: &Site) -> Result<Arc<dyn Provider>, CliError> {
        Ok(Arc::new(self.clone()))
    }

    fn meeting(&self) -> Result<Box<dyn Meeting>, CliError> {
        Ok(Box::new(self.clone()))
    }

    fn ssh_key(&self, path: &Path, comment: &str) -> Result<SshKey, CliError> {
        self.step()?;
        std::fs::write(path, comment).map_err(|e| CliError::file("write", path, e))?;
        let private = Secret::new(b"private".to_vec());
        Ok(SshKey {
            private,
            public: format!("ssh-ed25519 AAAA{comment}"),
        })
    }
}

impl Provider for Fakes {
    fn image_form(&self) -> Option<ImageForm> {
        Some(ImageForm::Direct)
    }

    fn delivery(&self) -> Delivery {
        match self.world().enrols {
            true => Delivery::Enrolment,
            false => Delivery::Private,
        }
    }

    fn is_local(&self) -> bool {
        !self.world().remote
    }

    fn keeps_data(&self) -> bool {
        true
    }

    fn volumes(&self) -> Option<&dyn Volumes> {
        Some(self)
    }

    fn plan(&self, plan: &SitePlan<'_>) -> Result<Vec<Step>, CliError> {
        let step = |resource: Resource, scope, after: &[&Resource]| Step {
            resource,
            scope,
            after: after.iter().map(|r| (*r).clone()).collect(),
            deadline: Duration::from_secs(5),
        };
        let network = resource("network", &plan.tags.deployment);
        let mut steps = vec![step(network.clone(), Scope::Deployment, &[])];
        let keep = self.world().keep;
        for image in plan.images.values() {
            let upload = resource("image", &image.role);
            steps.push(step(upload, Scope::Site { keep }, &[]));
        }
        for machine in plan.machines {
            let name = machine_name(&plan.tags.deployment, &machine.node);
            let (volume, domain) = (resource("volume", &name), resource("domain", &name));
            let node = Scope::Node(machine.node.clone());
            let image = resource("image", &machine.image);
            let needs: &[&Resource] = match plan.images.contains_key(&machine.image) {
                true => &[&image],
                false => &[],
            };
            steps.push(step(volume.clone(), node.clone(), needs));
            let data = resource(DATA, &machine.node.0);
            let mut needs = vec![&network, &volume];
            if machine.data_gib.is_some() {
                let scope = Scope::Data(machine.node.clone());
                steps.push(step(data.clone(), scope, &[]));
                needs.push(&data);
            }
            steps.push(step(domain, node, &needs));
        }
        Ok(steps)
    }

    fn make(&self, step: &Step, making: &Making<'_>) -> Result<Made, CliError> {
        let node = match &step.scope {
            Scope::Node(node) => {
                let spec = making.machine.expect("a machine for its parts");
                assert_eq!(spec.node, *node);
                let name = match self.delivery() {
                    Delivery::Enrolment => crate::bundle::ENROL_TOKEN,
                    Delivery::Private => crate::bundle::XMPP_PASSWORD,
                };
                let password = &spec.bundle.credentials[name];
                let mut world = self.world();
                let known = world.accounts.get(&node.0);
                assert_eq!(known, Some(password.expose()), "{node} cannot sign in");
                let given = spec.bundle.credentials.clone();
                world.given.insert(node.0.clone(), given);
                if step.resource.kind == "domain" {
                    world.halted = world.halts;
                }
                Some(node)
            }
            Scope::Data(node) => {
                let spec = making.machine.expect("a machine for its data");
                assert!(spec.data_gib.is_some(), "{node}");
                Some(node)
            }
            _ => None,
        };
        self.make_thing(&step.resource, Some(making.tags), node, making.token)?;
        let local = step.resource.kind == "network" && !self.world().remote;
        Ok(Made {
            handle: Some(format!("h-{}", step.resource.id)),
            reached_at: local.then_some([192, 168, 9, 1].into()),
        })
    }

    fn remove(&self, removing: &Removing<'_>) -> Result<(), CliError> {
        self.take_away(removing.resource)
    }

    fn find(&self, tags: Option<&Tags>) -> Result<Vec<Found>, CliError> {
        let world = self.world();
        if world.unreachable {
            return Err(CliError::new(ExitCode::Unavailable, "no route to host"));
        }
        let ours = |(_, thing): &(&String, &Thing)| tags.is_none() || thing.tags.as_ref() == tags;
        let found = |(name, thing): (&String, &Thing)| {
            let (kind, id) = name.split_once(' ')?;
            ["network", "image", "volume", "domain", DATA]
                .contains(&kind)
                .then(|| Found {
                    resource: resource(kind, id),
                    handle: Some(format!("h-{id}")),
                    tags: thing.tags.clone(),
                    node: thing.node.clone(),
                    health: thing.health,
                })
        };
        Ok(world
            .existing
            .iter()
            .filter(ours)
            .filter_map(found)
            .collect())
    }

    fn machines(&self, tags: &Tags) -> Result<BTreeMap<NodeName, Machine>, CliError> {
        let world = self.world();
        if world.unreachable {
            return Err(CliError::new(ExitCode::Unavailable, "no route to host"));
        }
        let ours = world.existing.iter().filter(|(name, thing)| {
            name.starts_with("domain") && thing.tags.as_ref() == Some(tags)
        });
        let machine = |(_, thing): (&String, &Thing)| {
            let node = thing.node.clone()?;
            let stopped = world.stopped.contains(&node.0) && world.machines_of(&node) == 1;
            let machine = Machine {
                state: if stopped {
                    MachineState::Stopped
                } else {
                    MachineState::Running
                },
                underlay: None,
                place: None,
                why: None,
            };
            Some((node, machine))
        };
        Ok(ours.filter_map(machine).collect())
    }

    fn console(&self, _: &Tags, node: &NodeName, _: usize) -> Result<Vec<u8>, CliError> {
        let silent = self.world().silent.get(&node.0).cloned();
        Ok(silent
            .unwrap_or_else(|| format!("Linux\r\n{BOOTED}\r\n"))
            .into_bytes())
    }

    fn check(&self) -> Result<Vec<CheckLine>, CliError> {
        Ok(Vec::new())
    }

    fn join_limit(&self) -> Result<Duration, CliError> {
        Ok(Duration::from_secs(60))
    }
}

impl Volumes for Fakes {
    fn grow(&self, at: &AtVolume<'_>, size_bytes: u64) -> Result<(), CliError> {
        let mut world = self.world();
        let name = format!("{} {}", at.resource.kind, at.resource.id);
        let thing = world.existing.get(&name).expect("it is there");
        assert_eq!(thing.node.as_ref(), Some(at.node));
        let size = world.grown.entry(name).or_default();
        *size = size_bytes.max(*size);
        Ok(())
    }

    fn label(&self, resource: &Resource) -> Option<String> {
        let (_, label) = resource.id.split_once('@')?;
        Some(label.to_owned())
    }

    fn snapshot(&self, at: &AtVolume<'_>, label: &str) -> Result<(), CliError> {
        let thing = Thing {
            tags: Some(at.tags.clone()),
            node: Some(at.node.clone()),
            health: Health::Present,
        };
        let name = format!("{DATA} {}@{label}", at.resource.id);
        let earlier = self.world().existing.insert(name, thing);
        assert_eq!(earlier, None, "a snapshot is never replaced");
        Ok(())
    }

    fn restore(&self, at: &AtVolume<'_>, size_bytes: u64) -> Result<(), CliError> {
        let label = self.label(at.resource).expect("a snapshot");
        let mut world = self.world();
        world.restored.push((at.node.clone(), label, size_bytes));
        Ok(())
    }

    fn serve(&self, _at: &AtVolume<'_>) -> Result<(), CliError> {
        self.world().served += 1;
        Ok(())
    }
}

impl Meeting for Fakes {
    fn plan(&self, nodes: &[NodeName]) -> Vec<(Option<NodeName>, Resource)> {
        let shared = [
            ("process", "demo"),
            ("roster-group", "demo"),
            ("account", "provision"),
        ];
        let mut plan: Vec<_> = shared
            .iter()
            .map(|(kind, id)| (None, resource(kind, id)))
            .collect();
        plan.extend(
            nodes
                .iter()
                .map(|n| (Some(n.clone()), resource("account", &n.0))),
        );
        plan
    }

    fn state(&self) -> State {
        if self.world().halted {
            State::Stopped
        } else {
            State::Running { pid: None }
        }
    }

    fn start(&self, listen: &[IpAddr]) -> Result<Endpoint, CliError> {
        let mut expected = vec![IpAddr::from([127, 0, 0, 1])];
        if !self.world().remote {
            expected.push([192, 168, 9, 1].into());
        }
        if std::mem::take(&mut self.world().halted) {
            expected.clear();
        }
        assert_eq!(listen, expected);
        self.endpoint()
    }

    fn endpoint(&self) -> Result<Endpoint, CliError> {
        Ok(Endpoint {
            domain: "demo.ipop".to_owned(),
            servers: vec!["192.168.9.1:5222".to_owned()],
            ca_pem: "PEM".to_owned(),
        })
    }

    fn make(
        &self,
        resource: &Resource,
        listen: &[IpAddr],
        attempt: u32,
        delivery: Delivery,
    ) -> Result<(), CliError> {
        if resource.kind == "account" && resource.id != "provision" {
            assert_eq!(delivery, self.delivery(), "{}", resource.id);
        }
        if resource.kind == "process" {
            self.start(listen)?;
        }
        if resource.kind == "account" {
            let password = format!("secret {attempt}").into_bytes();
            self.world().accounts.insert(resource.id.clone(), password);
        }
        self.make_thing(resource, None, None, "")
    }

    fn issuer(&self) -> String {
        "provision@demo.ipop/issuer".to_owned()
    }

    fn account(&self, node: &NodeName, attempt: u32) -> Result<Account, CliError> {
        Ok(Account {
            jid: format!("{node}@demo.ipop"),
            password: Secret::new(format!("secret {attempt}")),
        })
    }

    fn remove(&self, resource: &Resource) -> Result<(), CliError> {
        self.take_away(resource)
    }

    fn expire_tokens(&self, _: SystemTime) -> Result<Vec<NodeName>, CliError> {
        self.world().expiries += 1;
        Ok(Vec::new())
    }

    fn can_remove(&self) -> bool {
        !self.world().unreachable
    }

    fn watch(&self) -> Result<Box<dyn Watch>, CliError> {
        if self.world().unwatchable {
            return Err(CliError::new(ExitCode::Unavailable, "ejabberd is stopped"));
        }
        assert!(!self.world().halted, "a stopped rendezvous is watched");
        Ok(Box::new(self.clone()))
    }
}

impl Watch for Fakes {
    fn look(&mut self, _: Duration) -> Result<BTreeMap<NodeName, Seen>, CliError> {
        let mut world = self.world();
        if let Some(left) = &mut world.dies_after {
            let Some(less) = left.checked_sub(1) else {
                world.dead = true;
                return Err(CliError::new(ExitCode::Unavailable, "ejabberd died"));
            };
            *left = less;
        }
        let nodes = world.existing.values().filter_map(|t| t.node.as_ref());
        let speaks = |n: &&NodeName| {
            let silent = world.silent_machines.get(&n.0).copied().unwrap_or(0);
            let first = world.stopped.contains(&n.0) && world.machines_of(n) == 1;
            !world.silent.contains_key(&n.0) && !first && world.machines_of(n) > silent
        };
        let online = nodes.filter(speaks);
        let ready = Seen {
            stage: Stage::Ready,
        };
        Ok(online.map(|n| (n.clone(), ready.clone())).collect())
    }

    fn status(&mut self, node: &NodeName) -> Option<NodeStatus> {
        let dead = self.world().dead;
        assert!(!dead, "{node} is asked through a dead rendezvous");
        let world = self.world();
        if !world.enrols {
            return None;
        }
        let reported = world.reported.get(&node.0).unwrap_or(&node.0);
        let key: String = reported.replace('-', "+");
        Some(
            serde_json::from_value(serde_json::json!({
                "name": node, "overlay": "demo", "jid": format!("{node}@demo.ipop"),
                "version": "0", "addrs": { "ipv4": "10.73.0.2/24", "ipv6": "fd5a::2/64" },
                "interface": "ipop0", "mtu": 1400, "uptime_ms": 0,
                "sign_in": { "state": "online" }, "role": { "state": "ready" },
                "candidates": [], "peers": [], "drops": {},
                "ssh_host_key": format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5{key}\n"),
            }))
            .expect("a status"),
        )
    }
}
