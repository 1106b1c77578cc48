//! From a plan to running machines.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::interrupt::Interrupt;
use super::join::{Limits, Node, join};
use super::journal::Journal;
use super::outcome::Outcome;
use super::settings::Settings;
use super::{Meeting, Parts};
use crate::backend::{Backend, Image, MachineSpec, MachineState, Resource};
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink, Stage};
use crate::layout::Layout;
use crate::name::NodeName;
use crate::plan::personal::{self, Keys};
use crate::plan::{ClusterPlan, NodePlan};
use crate::provider::Delivery;
use crate::rendezvous::Endpoint;
use crate::rendezvous::config::RendezvousConfig;
use crate::ssh::keys::{CLIENT_KEY, KnownHosts};
use crate::state::Database;
use crate::state::record::{Owner, Phase};

/// Machines of one site that are launched at once: more gain nothing where disks are copied.
const PARALLEL: usize = 4;
/// Resource kind of the deployment's own directory.
pub const DIRECTORY: &str = "directory";

/// What launching needs besides the parts.
pub struct Launch<'a> {
    /// Directories.
    pub layout: &'a Layout,
    /// The state database.
    pub database: &'a Database,
    /// Row of the deployment.
    pub id: i64,
    /// What to make.
    pub plan: &'a ClusterPlan,
    /// Where, and with which rendezvous.
    pub settings: &'a Settings,
    /// How long to wait for nodes to join.
    pub limits: Limits,
    /// Whether the user wants to stop.
    pub interrupt: &'a Interrupt,
    /// When the command began.
    pub began: Instant,
    /// Where events go.
    pub events: &'a dyn Sink,
}

/// What the rendezvous will make, and for which node.
type Planned = Vec<(Option<NodeName>, Resource)>;
type Backends = BTreeMap<String, Arc<dyn Backend>>;

impl Launch<'_> {
    /// Makes everything and waits until the nodes have joined. What was made stays, whatever
    /// happens: removing it is for `destroy`.
    pub fn run(&self, parts: &dyn Parts) -> Result<Outcome, CliError> {
        let backends = self.backends(parts)?;
        self.check_names(&backends)?;
        // What can fail at once comes before what takes minutes.
        let listen = self.shared(&backends)?;
        let meeting = parts.meeting()?;
        let (endpoint, planned) = self.rendezvous(&*meeting, &listen)?;
        let images = self.images(parts)?;
        let specs = self.specs(parts, &*meeting, &endpoint, &planned, &images)?;
        self.machines(&backends, specs)?;
        self.step("waiting for the nodes to join");
        let nodes = self.plan.nodes.iter().map(|plan| Node {
            plan,
            backend: &*backends[&plan.site],
        });
        let outcome = join(self, nodes.collect(), &*meeting)?;
        let phase = if outcome.joined {
            Phase::Joined
        } else {
            Phase::Partial
        };
        self.database.set_phase(self.id, phase)?;
        Ok(outcome)
    }

    /// Notes that a node reached a stage.
    pub(super) fn reached(&self, node: &NodePlan, stage: Stage) -> Result<f64, CliError> {
        let seconds = self.began.elapsed().as_secs_f64();
        self.database
            .set_stage(self.id, &node.name, stage, seconds)?;
        self.events.emit(Event::Stage {
            node: node.name.clone(),
            stage,
            seconds,
        });
        Ok(seconds)
    }

    fn step(&self, message: impl Into<String>) {
        self.events.emit(Event::Step {
            message: message.into(),
        });
    }

    fn journal(&self) -> Journal<'_> {
        Journal {
            database: self.database,
            id: self.id,
            interrupt: self.interrupt,
        }
    }

    fn backends(&self, parts: &dyn Parts) -> Result<Backends, CliError> {
        let open = |site: &str| {
            let backend = parts.backend(self.settings.site(site)?)?;
            Ok((site.to_owned(), backend))
        };
        self.plan.sites().into_iter().map(open).collect()
    }

    /// A machine that is there already belongs to somebody else, who used the same name from
    /// another state directory: what is recorded here would be taken over, and removed by destroy.
    fn check_names(&self, backends: &Backends) -> Result<(), CliError> {
        for node in &self.plan.nodes {
            let (site, deployment) = (&node.site, &self.plan.name);
            let state = backends[site].machine_state(deployment, &node.name)?;
            if state != MachineState::Absent {
                let machine = format!("{deployment}/{}", node.name);
                let message = format!("site `{site}` already has a machine of `{machine}`");
                return Err(CliError::new(ExitCode::Name, message).hint("choose another --name"));
            }
        }
        Ok(())
    }

    /// Makes the sites' shared resources; returns where their machines reach this one.
    fn shared(&self, backends: &Backends) -> Result<Vec<IpAddr>, CliError> {
        let mut listen = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        for (site, backend) in backends {
            self.step(format!("site {site}: preparing the network"));
            let owner = Owner::Site(site.clone());
            let resources = backend.plan_shared(&self.plan.name)?;
            self.journal().plan(&owner, None, &resources)?;
            let mut reached = false;
            for resource in &resources {
                let make = || backend.create_shared(&self.plan.name, resource);
                let address = self
                    .journal()
                    .make(&owner, std::slice::from_ref(resource), make)?;
                reached |= address.is_some();
                listen.extend(address.filter(|a| !listen.contains(a)));
            }
            if !reached {
                self.check_reachable(site)?;
            }
        }
        Ok(listen)
    }

    /// A site whose machines do not share a network with this machine needs a rendezvous that
    /// listens where the configuration says.
    fn check_reachable(&self, site: &str) -> Result<(), CliError> {
        match &self.settings.rendezvous {
            RendezvousConfig::Embedded(config) if config.listen.is_empty() => Err(CliError::new(
                ExitCode::Config,
                format!("machines of site `{site}` cannot reach the rendezvous of this machine"),
            )
            .hint("set `listen` in [rendezvous] to an address of this machine that they reach")),
            _ => Ok(()),
        }
    }

    fn rendezvous(
        &self,
        meeting: &dyn Meeting,
        listen: &[IpAddr],
    ) -> Result<(Endpoint, Planned), CliError> {
        self.step("starting the rendezvous");
        let planned = meeting.plan(&self.plan.names());
        let journal = self.journal();
        for (node, resource) in &planned {
            let resource = std::slice::from_ref(resource);
            journal.plan(&Owner::Rendezvous, node.as_ref(), resource)?;
        }
        let endpoint = journal.make(&Owner::Rendezvous, &owned_by(&planned, None), || {
            let endpoint = meeting.start(listen)?;
            meeting.create_group()?;
            Ok(endpoint)
        })?;
        Ok((endpoint, planned))
    }

    fn images(&self, parts: &dyn Parts) -> Result<BTreeMap<String, Image>, CliError> {
        let mut images = BTreeMap::new();
        for role in self.plan.roles() {
            self.interrupt.check()?;
            self.step(format!("image {role}"));
            let image = parts.image(role, self.events);
            // Ctrl-C reaches the programs that build the image too.
            self.interrupt.check()?;
            images.insert(role.to_owned(), image?);
            for node in self.plan.nodes.iter().filter(|n| n.role == role) {
                self.reached(node, Stage::Image)?;
            }
        }
        Ok(images)
    }

    /// Makes keys and accounts.
    fn specs(
        &self,
        parts: &dyn Parts,
        meeting: &dyn Meeting,
        endpoint: &Endpoint,
        planned: &Planned,
        images: &BTreeMap<String, Image>,
    ) -> Result<Vec<MachineSpec>, CliError> {
        self.step("making keys and accounts");
        let dir = self.layout.ssh(&self.plan.name);
        crate::ssh::keys::private_dir(&dir)?;
        let user = parts.ssh_key(
            &dir.join(CLIENT_KEY),
            &format!("provision@{}", self.plan.name),
        )?;
        let mut known = KnownHosts::default();
        let mut specs = Vec::new();
        for node in &self.plan.nodes {
            let path = dir.join(format!("host-{}", node.name));
            let host = parts.ssh_key(&path, &node.name.0)?;
            self.database
                .set_host_key(self.id, &node.name, &host.public)?;
            known.add(&self.plan.name, &node.name, &host.public);
            let own = owned_by(planned, Some(&node.name));
            let account = self.journal().make(&Owner::Rendezvous, &own, || {
                meeting.create_account(&node.name)
            })?;
            let keys = Keys {
                account,
                host_key: Some(host.private),
                authorized_key: user.public.clone(),
            };
            specs.push(MachineSpec {
                deployment: self.plan.name.clone(),
                node: node.name.clone(),
                image: images[&node.role].clone(),
                memory_mib: node.memory_mib,
                cpus: node.cpus,
                disk_gib: node.disk_gib,
                bundle: personal::bundle(self.plan, node, endpoint, &keys, Delivery::Private)?,
            });
        }
        known.write(&dir)?;
        Ok(specs)
    }

    /// Launches the machines, several at a time on each site. After a failure no more are begun.
    fn machines(&self, backends: &Backends, specs: Vec<MachineSpec>) -> Result<(), CliError> {
        self.step("launching the machines");
        let mut queues: BTreeMap<&str, Vec<(&NodePlan, MachineSpec)>> = BTreeMap::new();
        for (node, spec) in self.plan.nodes.iter().zip(specs).rev() {
            queues.entry(&node.site).or_default().push((node, spec));
        }
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for (site, queue) in queues {
                let threads = queue.len().min(PARALLEL);
                let queue = Arc::new(Mutex::new(queue));
                for _ in 0..threads {
                    let (queue, failure) = (Arc::clone(&queue), &failure);
                    let backend = &*backends[site];
                    scope.spawn(move || {
                        loop {
                            let next = unpoisoned(&queue).pop();
                            let Some((node, spec)) = next else { break };
                            if unpoisoned(failure).is_some() {
                                break;
                            }
                            if let Err(error) = self.machine(backend, node, &spec) {
                                unpoisoned(failure).get_or_insert(error);
                            }
                        }
                    });
                }
            }
        });
        failure
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .map_or(Ok(()), Err)
    }

    fn machine(
        &self,
        backend: &dyn Backend,
        node: &NodePlan,
        spec: &MachineSpec,
    ) -> Result<(), CliError> {
        self.interrupt.check()?;
        let owner = Owner::Site(node.site.clone());
        let resources = backend.plan_machine(spec)?;
        self.journal().plan(&owner, Some(&node.name), &resources)?;
        self.journal()
            .make(&owner, &resources, || backend.launch(spec, self.events))?;
        self.reached(node, Stage::Created).map(drop)
    }
}

fn owned_by(planned: &Planned, node: Option<&NodeName>) -> Vec<Resource> {
    planned
        .iter()
        .filter(|(owner, _)| owner.as_ref() == node)
        .map(|(_, r)| r.clone())
        .collect()
}

fn unpoisoned<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
