//! Parts that make nothing but entries in a set.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipop_proto::status::NodeStatus;

use crate::backend::{Backend, CheckLine, Image, MachineSpec, MachineState, Resource};
use crate::deploy::join::BOOTED;
use crate::deploy::{Meeting, Parts, Seen, SshKey, Watch};
use crate::error::{CliError, ExitCode};
use crate::event::{Sink, Stage};
use crate::layout::Layout;
use crate::name::{NodeName, machine_name};
use crate::rendezvous::{Account, Endpoint, State};
use crate::secret::Secret;
use crate::site::Site;
use crate::state::Database;

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
    existing: BTreeSet<String>,
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
}

/// Backend, rendezvous and the rest in one.
#[derive(Debug, Clone)]
pub struct Fakes(Arc<Mutex<World>>);

impl Fakes {
    pub fn new(layout: &Layout, id: i64) -> Self {
        Self(Arc::new(Mutex::new(World {
            layout: layout.clone(),
            id,
            existing: BTreeSet::new(),
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
        })))
    }

    pub fn existing(&self) -> Vec<String> {
        self.world().existing.iter().cloned().collect()
    }

    /// Somebody else makes something.
    pub fn foreign(&self, kind: &str, id: &str) {
        self.world().existing.insert(format!("{kind} {id}"));
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
    fn make(&self, kind: &str, id: &str) -> Result<(), CliError> {
        self.step()?;
        let (path, deployment) = {
            let world = self.world();
            (world.layout.database(), world.id)
        };
        let recorded = Database::open(&path)?.resources(deployment)?;
        assert!(
            recorded
                .iter()
                .any(|r| r.resource.kind == kind && r.resource.id == id),
            "{kind} {id} is made and was not recorded"
        );
        self.world().existing.insert(format!("{kind} {id}"));
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
        if resource.kind == "network" && world.removal_fault.is_none() {
            let used = world.existing.iter().any(|e| e.starts_with("domain"));
            assert!(!used, "the network is removed before its machines");
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
    fn image(&self, role: &str, _: &dyn Sink) -> Result<Image, CliError> {
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

    fn backend(&self, _: &Site) -> Result<Arc<dyn Backend>, CliError> {
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

impl Backend for Fakes {
    fn plan_shared(&self, deployment: &str) -> Result<Vec<Resource>, CliError> {
        self.step()?;
        Ok(vec![resource("network", deployment)])
    }

    fn create_shared(&self, _: &str, resource: &Resource) -> Result<Option<IpAddr>, CliError> {
        self.make(&resource.kind, &resource.id)?;
        Ok((!self.world().remote).then_some([192, 168, 9, 1].into()))
    }

    fn plan_machine(&self, spec: &MachineSpec) -> Result<Vec<Resource>, CliError> {
        self.step()?;
        let name = machine_name(&spec.deployment, &spec.node);
        Ok(vec![resource("volume", &name), resource("domain", &name)])
    }

    fn launch(&self, spec: &MachineSpec, _: &dyn Sink) -> Result<(), CliError> {
        let name = machine_name(&spec.deployment, &spec.node);
        self.make("volume", &name)?;
        self.make("domain", &name)?;
        let mut world = self.world();
        world.halted = world.halts;
        Ok(())
    }

    fn remove(&self, resource: &Resource) -> Result<(), CliError> {
        self.take_away(resource)
    }

    fn machine_state(&self, deployment: &str, node: &NodeName) -> Result<MachineState, CliError> {
        let world = self.world();
        if world.unreachable {
            return Err(CliError::new(ExitCode::Unavailable, "no route to host"));
        }
        let domain = format!("domain {}", machine_name(deployment, node));
        Ok(if !world.existing.contains(&domain) {
            MachineState::Absent
        } else if world.stopped.contains(&node.0) {
            MachineState::Stopped
        } else {
            MachineState::Running
        })
    }

    fn underlay_address(&self, _: &str, _: &NodeName) -> Result<Option<IpAddr>, CliError> {
        Ok(None)
    }

    fn console(&self, _: &str, node: &NodeName, _: usize) -> Result<Vec<u8>, CliError> {
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
        self.make("process", "demo")?;
        Ok(Endpoint {
            domain: "demo.ipop".to_owned(),
            servers: vec!["192.168.9.1:5222".to_owned()],
            ca_pem: "PEM".to_owned(),
        })
    }

    fn create_group(&self) -> Result<(), CliError> {
        self.make("roster-group", "demo")?;
        self.make("account", "provision")
    }

    fn create_account(&self, node: &NodeName) -> Result<Account, CliError> {
        self.make("account", &node.0)?;
        let password = Secret::new("secret".to_owned());
        Ok(Account {
            jid: format!("{node}@demo.ipop"),
            password,
        })
    }

    fn remove(&self, resource: &Resource) -> Result<(), CliError> {
        self.take_away(resource)
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
        let names = ["frontend-0", "worker-0", "worker-1"];
        let online = names.iter().filter(|n| !world.silent.contains_key(**n));
        Ok(online
            .map(|n| {
                (
                    NodeName((*n).to_owned()),
                    Seen {
                        stage: Stage::Ready,
                    },
                )
            })
            .collect())
    }

    fn status(&mut self, node: &NodeName) -> Option<NodeStatus> {
        let dead = self.world().dead;
        assert!(!dead, "{node} is asked through a dead rendezvous");
        None
    }
}
