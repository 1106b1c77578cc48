//! CloudLab: experiments whose bare-metal machines become workers, or hosts of workers.
//!
//! A deployment has one experiment on a site, created from a parametrised profile by the Portal
//! REST API ([`portal`], behind [`testbed::Testbed`]). Its steps are
//!
//! 1. a `place` for each machine, which only records that the machine is wanted, so that creating
//!    the experiment knows their number from what is recorded;
//! 2. the `experiment`: created, its machines not waited for;
//! 3. a `machine` each: waits until it is up and lets us sign in; asks for more machines where the
//!    experiment was created with fewer. One that fails keeps back its own nodes only;
//! 4. with `vms_per_machine`, a `hypervisor` each: libvirt is installed there;
//! 5. the steps of the machine's own provider ([`inner`]): [`super::ssh`] on the machine itself,
//!    [`super::libvirt`] over `qemu+ssh`.
//!
//! Everything on a machine goes with the experiment. The testbed takes no single machine back: one
//! whose node is removed stays, without its node, until the experiment ends.

pub mod api;
pub mod client;
pub mod config;
pub mod error;
pub mod experiment;
mod find;
pub mod host;
mod inner;
mod make;
pub mod place;
pub mod portal;
pub mod testbed;
pub mod token;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use self::config::CloudlabSite;
use self::host::Door;
use self::inner::Inner;
use self::place::{Placement, machines_needed};
use self::portal::Portal;
use self::testbed::{Experiment, Extension, Testbed};
use super::libvirt::{Libvirt, LibvirtSite, TCG_JOIN_LIMIT};
use super::ssh::SshProvider;
use super::ssh::config::SshSite;
use super::{
    CheckLine, Found, ImageForm, Lease, Machine, Made, Making, Provider, Removing, Resource, Scope,
    SitePlan, Step, Tags, WantedMachine,
};
use crate::error::CliError;
use crate::image::BuildOptions;
use crate::layout::Layout;
use crate::name::NodeName;

/// Resource kind: that a machine is wanted, as `experiment/node0`.
pub const PLACE: &str = "place";
/// Resource kind: an experiment, by name.
pub const EXPERIMENT: &str = "experiment";
/// Resource kind: a machine of an experiment, as `experiment/node0`.
pub const MACHINE: &str = "machine";
/// Resource kind: a machine with libvirt, as `experiment/node0`.
pub const HYPERVISOR: &str = "hypervisor";

/// Between two looks at an experiment's state, at first.
const POLL: Duration = Duration::from_secs(20);
/// The same, in milliseconds, for tests.
const POLL_VARIABLE: &str = "IPOP_CLOUDLAB_POLL_MS";
/// For calls that nobody gave a deadline.
const CALL: Duration = Duration::from_secs(60);
/// From nothing to a machine that lets us sign in.
const MACHINE_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// For the creating call, its repetitions, and the end of a failed predecessor.
const EXPERIMENT_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// For installing libvirt on a fresh system, with its updates going on.
const HYPERVISOR_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// From the installation of `ipop-node` to joined, on a machine that is up.
const BARE_JOIN_LIMIT: Duration = Duration::from_secs(300);

/// A CloudLab site.
pub struct Cloudlab {
    name: String,
    site: CloudlabSite,
    layout: Layout,
    testbed: Box<dyn Testbed>,
    build: BuildOptions,
    poll: Duration,
    /// Experiments as they were seen last, by name: threads that wait for machines of one ask once
    /// for all.
    seen: Mutex<BTreeMap<String, (Instant, Option<Experiment>)>>,
    /// Held while the number of machines is changed.
    resizing: Mutex<()>,
    /// Machines' own providers, by what they were made from.
    inner: Mutex<BTreeMap<String, Inner>>,
}

impl Cloudlab {
    /// The site called `name`; nothing is connected or read before the first call.
    pub fn new(name: &str, site: CloudlabSite, layout: &Layout) -> Self {
        let testbed = Box::new(Portal::new(site.clone()));
        let poll = std::env::var(POLL_VARIABLE).ok();
        let poll = poll.and_then(|text| text.parse().ok());
        Self {
            name: name.to_owned(),
            site,
            layout: layout.clone(),
            testbed,
            build: BuildOptions::from_env(layout.images()),
            poll: poll.map_or(POLL, Duration::from_millis),
            seen: Mutex::default(),
            resizing: Mutex::default(),
            inner: Mutex::default(),
        }
    }

    /// Looks at experiments as often as this at first.
    #[must_use]
    pub fn polling(self, poll: Duration) -> Self {
        Self { poll, ..self }
    }

    /// Installs this `ipop-node` on machines that are workers themselves.
    #[must_use]
    pub fn installing(self, build: BuildOptions) -> Self {
        Self { build, ..self }
    }

    fn is_host(&self) -> bool {
        self.site.vms_per_machine.is_some()
    }

    fn door(&self, tags: &Tags) -> Door {
        let deployment = self.layout.deployment(&tags.deployment);
        Door::new(&self.site, &deployment, tags)
    }

    /// The provider of one machine. Connections are kept with it.
    fn inner(&self, tags: &Tags, host: &str, address: &str) -> Result<Inner, CliError> {
        let key = format!("{} {host} {address}", tags.uid);
        let mut all = lock(&self.inner);
        if let Some(inner) = all.get(&key) {
            return Ok(inner.clone());
        }
        let door = self.door(tags);
        let made = if self.is_host() {
            self.on_libvirt(host, door.libvirt_uri(host, address)?)
        } else {
            let target = door.target(address)?.to_string();
            self.on_itself(host, target, Some(door.known_hosts(host)))?
        };
        all.insert(key, made.clone());
        Ok(made)
    }

    /// What plans for a machine whose address nobody knows yet.
    fn planner(&self, host: &str) -> Result<Inner, CliError> {
        if self.is_host() {
            return Ok(self.on_libvirt(host, LibvirtSite::default().uri));
        }
        self.on_itself(host, host.to_owned(), None)
    }

    fn on_libvirt(&self, host: &str, uri: String) -> Inner {
        let site = LibvirtSite {
            uri,
            ..LibvirtSite::default()
        };
        Inner {
            host: host.to_owned(),
            prefix: String::new(),
            provider: Arc::new(Libvirt::new(site, &self.layout.cache)),
        }
    }

    fn on_itself(
        &self,
        host: &str,
        target: String,
        known_hosts: Option<PathBuf>,
    ) -> Result<Inner, CliError> {
        let site = SshSite {
            hosts: vec![target.clone()],
            identity: self.site.identity.clone(),
            known_hosts,
            share: self.site.share,
            install_packages: self.site.install_packages,
        };
        Ok(Inner {
            host: host.to_owned(),
            prefix: format!("{target}/"),
            provider: Arc::new(SshProvider::new(&self.name, &site, self.build.clone())?),
        })
    }
}

impl Provider for Cloudlab {
    fn image_form(&self) -> Option<ImageForm> {
        self.is_host().then_some(ImageForm::Direct)
    }

    fn plan(&self, plan: &SitePlan<'_>) -> Result<Vec<Step>, CliError> {
        let placed = Placement::of(&self.site).of_all(plan.machines)?;
        if placed.is_empty() {
            return Ok(Vec::new());
        }
        let name = experiment::name(plan.tags);
        let places: Vec<_> = (0..machines_needed(&placed))
            .map(|machine| of_machine(PLACE, &name, machine))
            .collect();
        let experiment = Resource {
            kind: EXPERIMENT.into(),
            id: name.clone(),
        };
        let step = |resource: &Resource, after: Vec<Resource>, deadline| Step {
            resource: resource.clone(),
            scope: Scope::Deployment,
            after,
            deadline,
        };
        let mut steps: Vec<_> = places.iter().map(|p| step(p, Vec::new(), CALL)).collect();
        steps.push(step(&experiment, places.clone(), EXPERIMENT_DEADLINE));
        for (machine, nodes) in placed {
            let mut after = places.clone();
            after.push(experiment.clone());
            let resource = of_machine(MACHINE, &name, machine);
            let mut up = step(&resource, after, MACHINE_DEADLINE);
            let mut last = resource;
            if let [node] = nodes[..]
                && !self.is_host()
            {
                up.scope = Scope::Node(node.node.clone());
            }
            steps.push(up);
            if self.is_host() {
                let resource = of_machine(HYPERVISOR, &name, machine);
                steps.push(step(&resource, vec![last], HYPERVISOR_DEADLINE));
                last = resource;
            }
            let host = experiment::host_name(machine);
            let own: Vec<_> = (0..).zip(nodes).map(|(s, node)| at_slot(node, s)).collect();
            let own = SitePlan {
                machines: &own,
                ..*plan
            };
            steps.extend(self.planner(&host)?.plan(&own, &last)?);
        }
        Ok(steps)
    }

    fn make(&self, step: &Step, making: &Making<'_>) -> Result<Made, CliError> {
        match step.resource.kind.as_str() {
            // That it is recorded is all there is to it, and what has no handle is not seen to be.
            PLACE => Ok(Made {
                handle: Some(step.resource.id.clone()),
                reached_at: None,
            }),
            EXPERIMENT => self.make_experiment(making),
            MACHINE => self.make_machine(machine_of(&step.resource)?, making),
            HYPERVISOR => self.make_host(machine_of(&step.resource)?, making),
            _ => self.make_inner(step, making),
        }
    }

    fn remove(&self, removing: &Removing<'_>) -> Result<(), CliError> {
        match removing.resource.kind.as_str() {
            // They go with the experiment.
            PLACE | MACHINE | HYPERVISOR => Ok(()),
            EXPERIMENT => self.remove_experiment(removing),
            _ => self.remove_inner(removing),
        }
    }

    fn find(&self, tags: Option<&Tags>) -> Result<Vec<Found>, CliError> {
        match tags {
            Some(tags) => self.find_of(tags),
            None => self.find_all(),
        }
    }

    fn machines(&self, tags: &Tags) -> Result<BTreeMap<NodeName, Machine>, CliError> {
        self.machines_of(tags)
    }

    fn console(&self, tags: &Tags, node: &NodeName, limit: usize) -> Result<Vec<u8>, CliError> {
        self.console_of(tags, node, limit)
    }

    fn check(&self) -> Result<Vec<CheckLine>, CliError> {
        let mut lines = self.testbed.check(Instant::now() + CALL);
        lines.push(self.check_key());
        Ok(lines)
    }

    fn join_limit(&self) -> Result<Duration, CliError> {
        // Nobody has tried the machines yet when this is asked.
        Ok(match self.is_host() {
            true => TCG_JOIN_LIMIT,
            false => BARE_JOIN_LIMIT,
        })
    }

    fn extend(&self, tags: &Tags, wanted: SystemTime) -> Result<Option<Lease>, CliError> {
        let name = experiment::name(tags);
        let by = Instant::now() + CALL;
        let Some(found) = self.testbed.named(&name, by)? else {
            return Ok(None);
        };
        let Some(ends) = found.ends else {
            return Ok(None);
        };
        let Some(hours) = experiment::hours_missing(ends, wanted) else {
            let refused = false;
            return Ok(Some(Lease { ends, refused }));
        };
        let reason = format!("the cluster `{}` is still in use", tags.deployment);
        let extension = self.testbed.extend(&found.id, hours, &reason, by)?;
        let ends = match extension {
            Extension::Granted(Some(new)) => new,
            Extension::Granted(None) => ends,
            Extension::Refused(why) => {
                tracing::warn!(experiment = %name, %why, "more time was refused");
                ends
            }
        };
        let refused = experiment::hours_missing(ends, wanted).is_some();
        Ok(Some(Lease { ends, refused }))
    }
}

/// `experiment/node0`.
fn of_machine(kind: &str, experiment: &str, machine: u32) -> Resource {
    Resource {
        kind: kind.to_owned(),
        id: format!("{experiment}/{}", experiment::host_name(machine)),
    }
}

/// The machine in `experiment/node0`.
fn machine_of(resource: &Resource) -> Result<&str, CliError> {
    let name = resource.id.split_once('/').map(|(_, machine)| machine);
    name.ok_or_else(|| {
        let what = format!("`{}` is not an experiment and a machine", resource.id);
        CliError::new(crate::error::ExitCode::Internal, what)
    })
}

fn at_slot(node: &WantedMachine, slot: u32) -> WantedMachine {
    WantedMachine {
        slot,
        ..node.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
