//! Machines, what they start from, and what they are made of on a site.

use std::path::PathBuf;

use ipop_proto::address::MacAddr;

use crate::bundle::{Bundle, LAN};
use crate::name::NodeName;
use crate::plan::lan;

/// A built image: the files and what a provider must know of them.
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

/// The machine of one node, with all that goes into it.
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
    /// Size of the volume for data that outlives the machine, in GiB; none of most.
    pub data_gib: Option<u32>,
    /// Personal data.
    pub bundle: Bundle,
}

impl MachineSpec {
    /// The MAC address of its card on the site's LAN; none where it is told of none.
    pub fn lan_card(&self) -> Option<MacAddr> {
        let is_told = self.bundle.credentials.contains_key(LAN);
        is_told.then(|| lan::card(&self.deployment, &self.node))
    }
}

/// A resource on a host, as the state database records it *before* it is made. The provider that
/// planned it can remove it knowing no more than this.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Resource {
    /// Kind, of the provider's own: `domain`, `volume`, `instance`, `experiment`.
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
