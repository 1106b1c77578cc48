//! Kinds of host that machines can be launched on, one module per kind.

pub use crate::provider::libvirt;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::bundle::Bundle;
use crate::error::CliError;
use crate::event::Sink;
use crate::name::NodeName;

/// A built image: the files and what a backend must know of them.
#[derive(Debug, Clone)]
pub struct Image {
    /// Role (`worker`).
    pub role: String,
    /// Content hash, 64 hex digits: equal hash, equal image.
    pub hash: String,
    /// qcow2 root disk (one ext4 file system, no partition table).
    pub disk: PathBuf,
    /// Kernel for direct boot.
    pub kernel: PathBuf,
    /// Initial RAM disk for direct boot. Without one the kernel must have what the root file
    /// system needs built in (Debian's cloud kernel: NVMe and ext4), and `cmdline` must name the
    /// NVMe disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line the image wants (`root=… console=ttyS0 …`).
    pub cmdline: String,
    /// Raw disk with a partition table and boot loaders for BIOS and UEFI, when that form was
    /// asked for.
    pub whole: Option<PathBuf>,
}

impl Image {
    /// For a machine that has a system of its own: only the role means something.
    pub fn none(role: &str) -> Self {
        Self {
            role: role.to_owned(),
            hash: String::new(),
            disk: PathBuf::new(),
            kernel: PathBuf::new(),
            initrd: None,
            cmdline: String::new(),
            whole: None,
        }
    }
}

/// What a backend is asked to make for one node.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// Deployment name.
    pub deployment: String,
    /// Node name.
    pub node: NodeName,
    /// Image of its role.
    pub image: Image,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Size of the root disk in GiB; the file system grows into it at boot.
    pub disk_gib: u32,
    /// Personal data.
    pub bundle: Bundle,
}

/// A resource on a host, as the state database records it *before* it is made. The backend that
/// planned it can remove it knowing no more than this.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Resource {
    /// Backend-specific kind: `domain`, `volume`, `network`, `file`, `process`.
    pub kind: String,
    /// Identifier on the host, chosen by us so that it is known beforehand.
    pub id: String,
}

/// Whether a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineState {
    /// It runs.
    Running,
    /// It exists and does not run.
    Stopped,
    /// It does not exist.
    Absent,
}

/// One host (or cloud) that can launch machines. Methods block; callers use their own threads.
pub trait Backend: Send + Sync {
    /// What must exist for the deployment before its machines (a network), in creation order.
    fn plan_shared(&self, deployment: &str) -> Result<Vec<Resource>, CliError>;

    /// Makes one of the shared resources; making it twice is no error. Returns the address on
    /// which machines of this site reach this host, when the backend knows one.
    fn create_shared(
        &self,
        deployment: &str,
        resource: &Resource,
    ) -> Result<Option<IpAddr>, CliError>;

    /// What launching `spec` will make, in creation order.
    fn plan_machine(&self, spec: &MachineSpec) -> Result<Vec<Resource>, CliError>;

    /// Launches the machine, making everything `plan_machine` named.
    fn launch(&self, spec: &MachineSpec, events: &dyn Sink) -> Result<(), CliError>;

    /// Removes a resource. One that is already gone is no error.
    fn remove(&self, resource: &Resource) -> Result<(), CliError>;

    /// Whether the node's machine runs.
    fn machine_state(&self, deployment: &str, node: &NodeName) -> Result<MachineState, CliError>;

    /// The machine's address on the host's network, for the SSH jump to a front end.
    fn underlay_address(
        &self,
        deployment: &str,
        node: &NodeName,
    ) -> Result<Option<IpAddr>, CliError>;

    /// The console output kept so far, at most the last `limit` bytes.
    fn console(&self, deployment: &str, node: &NodeName, limit: usize)
    -> Result<Vec<u8>, CliError>;

    /// Tries the host: connection, permissions, acceleration, disk. For `site check`.
    fn check(&self) -> Result<Vec<CheckLine>, CliError>;

    /// Removes what launches left for the next ones (uploaded images) and no machine uses. Returns
    /// the names of what was removed. A backend that leaves nothing has nothing to do.
    fn prune(&self) -> Result<Vec<String>, CliError> {
        Ok(Vec::new())
    }

    /// How long a machine may take from start to joined on this host, judged by its acceleration.
    fn join_limit(&self) -> Result<Duration, CliError>;
}

/// One line of `site check`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CheckLine {
    /// What was tried.
    pub what: String,
    /// Whether it serves.
    pub ok: bool,
    /// What was found, and if it does not serve, what to do.
    pub found: String,
}
