//! Kinds of host and cloud that machines can be made on, one module per kind.
//!
//! A [`Provider`] says which [`Step`]s a site needs (`plan`: pure), makes and removes one thing at
//! a time, and finds what carries this tool's tags. It decides no order, no retry, no parallelism
//! and writes no journal: that is the engine's ([`crate::deploy`]), which
//!
//! - records a step in the database before it calls `make`, and what `make` returned after it;
//! - may be killed at any moment, and then calls `make` again *with the same token*;
//! - calls `make` and `remove` from its own threads, several at a time, each with a deadline.
//!
//! So `make` of something that is there already (found by its name, tags or token) adopts it, and
//! `remove` of something that is gone succeeds.

pub mod cloudlab;
pub mod ec2;
pub mod libvirt;
mod machine;
pub mod members;
pub mod rocks;
pub mod ssh;
mod volume;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

pub use self::machine::{CheckLine, Image, MachineSpec, MachineState, Resource};
pub use self::volume::{AtVolume, Volumes};
use crate::deploy::interrupt::Interrupt;
use crate::error::CliError;
use crate::event::Sink;
use crate::image::BuildOptions;
use crate::layout::Layout;
use crate::name::NodeName;
use crate::plan::NodePlan;
use crate::site::{Site, SiteKind};

/// The provider of a site.
pub fn open(layout: &Layout, site: &Site) -> Result<Arc<dyn Provider>, CliError> {
    match &site.kind {
        SiteKind::Libvirt(libvirt) => Ok(Arc::new(libvirt::Libvirt::new(
            libvirt.clone(),
            &layout.cache,
        ))),
        SiteKind::Ssh(ssh) => {
            let build = BuildOptions::from_env(layout.images());
            Ok(Arc::new(ssh::SshProvider::new(&site.name, ssh, build)?))
        }
        SiteKind::Rocks(rocks) => {
            let build = BuildOptions::from_env(layout.images());
            let provider = rocks::RocksProvider::new(&site.name, rocks, build)?;
            Ok(Arc::new(provider))
        }
        SiteKind::Cloudlab(cloudlab) => Ok(Arc::new(cloudlab::Cloudlab::new(
            &site.name,
            cloudlab.clone(),
            layout,
        ))),
        SiteKind::Members => Ok(Arc::new(members::Members)),
        SiteKind::Ec2(ec2) => ec2::open(ec2, &layout.cache).map(Arc::from),
    }
}

/// What is written on everything that is made, in the creating call: tags, metadata, a marker
/// file. With the database lost, these alone tell what belongs to whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tags {
    /// The installation that made it: 16 hex digits, stable for a user and state directory of a
    /// machine, also when the state directory's content is lost.
    pub owner: String,
    /// Deployment name.
    pub deployment: String,
    /// Deployment, unmistakably: 16 random hex digits. A later deployment of the same name has
    /// others.
    pub uid: String,
}

/// Resource kind of a volume in which a node's data outlives its machine, on every kind of site that has any.
pub const DATA: &str = "data";

/// For whom a thing is made, which decides when it is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// For one node's machine.
    Node(NodeName),
    /// For one node, and it outlives the node: what it keeps its data in. The engine makes or finds it
    /// and never removes it; that takes a user who says so.
    Data(NodeName),
    /// For all machines of the deployment on this site (a network, an experiment).
    Deployment,
    /// For every deployment on this site (an uploaded image). The engine makes and removes it
    /// under a lock of its own and only while no other recorded deployment uses it. With `keep`
    /// even the last destroy leaves it, for `provision site prune`.
    Site {
        /// Whether it outlives the last deployment.
        keep: bool,
    },
}

impl Scope {
    /// The node it is for, if for one.
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Node(node) | Self::Data(node) => Some(node),
            Self::Deployment | Self::Site { .. } => None,
        }
    }
}

/// One thing to make. Plain data, in the database from before the first try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Kind and a name chosen beforehand, unique on the site: where the site gives identifiers of
    /// its own (`i-0abc…`), these are the [`Made::handle`].
    pub resource: Resource,
    /// For whom.
    pub scope: Scope,
    /// Resources of the same site that must be made before it and removed after it.
    pub after: Vec<Resource>,
    /// How long making it may take, all tries together.
    pub deadline: Duration,
}

/// What kind of image a provider's machines start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageForm {
    /// Kernel and root disk, booted directly ([`Image::disk`], [`Image::kernel`]).
    Direct,
    /// A raw disk that boots by itself, by BIOS and UEFI ([`Image::whole`]).
    Whole,
}

/// How a machine gets its personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// On a way that only the machine's root can read: the bundle has everything.
    Private,
    /// On a way that others may read (EC2 user data). The bundle has no secret but a single-use
    /// enrolment token, and the node makes its own keys.
    Enrolment,
}

/// A machine that is wanted on a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedMachine {
    /// Node.
    pub node: NodeName,
    /// Part in the cluster.
    pub role: String,
    /// Role whose image it starts from.
    pub image: String,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Root disk in GiB.
    pub disk_gib: u32,
    /// Volume for data that outlives the machine, in GiB; none of most.
    pub data_gib: Option<u32>,
    /// Position among the deployment's machines ever made on this site, from 0; stays with the
    /// node. Sites with fixed hosts choose the host by it.
    pub slot: u32,
}

/// Everything that is wanted of a site.
#[derive(Debug)]
pub struct SitePlan<'a> {
    /// The deployment.
    pub tags: &'a Tags,
    /// Its machines on this site, by slot.
    pub machines: &'a [WantedMachine],
    /// All its nodes, for sites that [keep something](Provider::keeps_members) for each.
    pub members: &'a [NodePlan],
    /// Images of their roles; a role whose image is not built yet (dry run) is missing.
    pub images: &'a BTreeMap<String, Image>,
}

/// What `make` is told besides the step.
pub struct Making<'a> {
    /// To be written on what is made.
    pub tags: &'a Tags,
    /// The same for every try of making this thing, another for the next thing of this name
    /// (after a removal): 32 hex digits. For APIs that take an idempotency token.
    pub token: &'a str,
    /// The machine, for steps of [`Scope::Node`] and [`Scope::Data`] whose node is on this site.
    pub machine: Option<&'a MachineSpec>,
    /// The images of [`SitePlan::images`].
    pub images: &'a BTreeMap<String, Image>,
    /// Handles of what is made already on this site, by resource.
    pub handles: &'a (dyn Fn(&Resource) -> Option<String> + Sync),
    /// When `make` must have returned, with an error that names what it waited for.
    pub deadline: Instant,
    /// Set when the user wants to stop: long waits and uploads end with `CliError::interrupted`.
    pub interrupt: &'a Interrupt,
    /// Where progress goes.
    pub events: &'a dyn Sink,
}

/// What `make` made or found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// The site's own identifier (`i-0abc…`, an experiment's UUID, a host name).
    pub handle: Option<String>,
    /// The address on which the site's machines reach this host, when the provider knows one.
    pub reached_at: Option<IpAddr>,
}

/// What `remove` is told.
pub struct Removing<'a> {
    /// The deployment that made it; of a thing of [`Scope::Site`] any that did.
    pub tags: &'a Tags,
    /// What to remove.
    pub resource: &'a Resource,
    /// Its handle, if it was recorded. Without one it is looked up by tags or name.
    pub handle: Option<&'a str>,
    /// When `remove` must have returned.
    pub deadline: Instant,
    /// Set when the user wants to stop.
    pub interrupt: &'a Interrupt,
}

/// Something found on a site by its tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// What it is.
    #[serde(flatten)]
    pub resource: Resource,
    /// The site's own identifier.
    pub handle: Option<String>,
    /// Whose it is; none where the site cannot say (then it is only ever listed, never removed
    /// without being asked for by name).
    pub tags: Option<Tags>,
    /// The node, of a machine's part.
    pub node: Option<NodeName>,
    /// Whether it serves.
    pub health: Health,
}

/// Whether a found thing serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// It is there, or on its way.
    Present,
    /// It exists and has to be made again (a stopped domain, half of an upload).
    Broken,
    /// It is being removed by the site.
    Going,
}

/// A machine as its site sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Whether it runs.
    pub state: MachineState,
    /// Its address on the underlay, once known.
    pub underlay: Option<IpAddr>,
    /// Where it stands within the site (host name, availability zone), if that is not obvious.
    pub place: Option<String>,
    /// Why it does not run, in the site's words.
    pub why: Option<String>,
}

/// What machines cost, as a table says: an estimate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// US dollars per hour for all machines of the plan.
    pub usd_per_hour: f64,
    /// US dollars per month for what is stored.
    pub usd_per_month_stored: f64,
}

/// The end of what a site lent (a CloudLab experiment).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lease {
    /// When the site takes the machines back.
    pub ends: SystemTime,
    /// Whether the last attempt to extend it was refused.
    pub refused: bool,
}

/// One site. Methods block; callers use their own threads.
pub trait Provider: Send + Sync {
    /// The image its machines start from; none where machines have a system of their own.
    fn image_form(&self) -> Option<ImageForm>;

    /// How machines get their personal data.
    fn delivery(&self) -> Delivery {
        Delivery::Private
    }

    /// Whether its machines share a network with this host, so that an embedded rendezvous that
    /// listens there is enough.
    fn is_local(&self) -> bool {
        false
    }

    /// Whether its plan has steps for nodes whose machines are on other sites too: what such a
    /// machine is to the LAN that it joins. It is made before the machine and removed after it.
    fn keeps_members(&self) -> bool {
        false
    }

    /// Whether its machines can have volumes that outlive them ([`Scope::Data`], kind [`DATA`]). They are
    /// found again by the installation, the deployment's name and the node's name, and `remove` of one
    /// deletes the data.
    fn keeps_data(&self) -> bool {
        false
    }

    /// What can be done with such volumes while they are there; none where there are none.
    fn volumes(&self) -> Option<&dyn Volumes> {
        None
    }

    /// Most things made or removed at once.
    fn parallel(&self) -> usize {
        8
    }

    /// Most machines that start at once, where each keeps a processor of the host busy; none where
    /// that is no concern.
    fn most_starting(&self) -> Result<Option<usize>, CliError> {
        Ok(None)
    }

    /// What must exist for these machines. Pure: the same plan gives the same steps, whatever is
    /// there. The last step of each node is the one that starts its machine.
    fn plan(&self, plan: &SitePlan<'_>) -> Result<Vec<Step>, CliError>;

    /// Makes one thing, or finds that it is there.
    fn make(&self, step: &Step, making: &Making<'_>) -> Result<Made, CliError>;

    /// Removes one thing; gone is no error.
    fn remove(&self, removing: &Removing<'_>) -> Result<(), CliError>;

    /// What is there of one deployment, or of all.
    fn find(&self, tags: Option<&Tags>) -> Result<Vec<Found>, CliError>;

    /// The deployment's machines, in as few calls as the site allows.
    fn machines(&self, tags: &Tags) -> Result<BTreeMap<NodeName, Machine>, CliError>;

    /// The console output kept so far, at most the last `limit` bytes. Empty where a site keeps
    /// none.
    fn console(&self, tags: &Tags, node: &NodeName, limit: usize) -> Result<Vec<u8>, CliError>;

    /// Tries the site, in seconds: log-in, permissions, quota, acceleration, disk, clock. For
    /// `site check`.
    fn check(&self) -> Result<Vec<CheckLine>, CliError>;

    /// Removes what is kept between deployments and used by none; returns the names.
    fn prune(&self) -> Result<Vec<String>, CliError> {
        Ok(Vec::new())
    }

    /// How long a machine may take from start to joined.
    fn join_limit(&self) -> Result<Duration, CliError>;

    /// What the plan's machines cost, where somebody has to pay.
    fn cost(&self, _plan: &SitePlan<'_>) -> Result<Option<Cost>, CliError> {
        Ok(None)
    }

    /// Extends what the site lent so that it lasts until `wanted`, where sites lend; says when it
    /// really ends.
    fn extend(&self, _tags: &Tags, _wanted: SystemTime) -> Result<Option<Lease>, CliError> {
        Ok(None)
    }
}
