//! Settings of a libvirt site.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::storage::DEFAULT_POOL_PATH;
use crate::name::RESOURCE_PREFIX;
use crate::site::lan::SiteLan;

/// A libvirt site's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LibvirtSite {
    /// libvirt connection URI: `qemu:///system`, `qemu+ssh://user@host/system`,
    /// `qemu+tls://host/system?pkipath=/directory/with/certificates`. The host's own programs and
    /// files are used; nothing is shared with this machine.
    pub uri: String,
    /// Private key file for `qemu+ssh`; without it what `ssh` finds by itself (agent, `~/.ssh`).
    pub identity: Option<PathBuf>,
    /// File with the host's public key for `qemu+ssh`; without it the user's own `known_hosts`. A
    /// host that is not in it is refused.
    pub known_hosts: Option<PathBuf>,
    /// An existing storage pool of type `dir`. Without it the pool `ipop` is used, and made if
    /// there is none.
    pub pool: Option<String>,
    /// Directory on the host to make the pool in, if there is no pool of that name.
    pub pool_path: Option<PathBuf>,
    /// A LAN of the host, for a front end or a gateway with a card on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lan: Option<SiteLan>,
}

impl Default for LibvirtSite {
    fn default() -> Self {
        Self {
            uri: "qemu:///system".into(),
            identity: None,
            known_hosts: None,
            pool: None,
            pool_path: None,
            lan: None,
        }
    }
}

impl LibvirtSite {
    /// The pool's name.
    pub(super) fn pool_name(&self) -> &str {
        self.pool.as_deref().unwrap_or(RESOURCE_PREFIX)
    }

    /// Where to make the pool, if it may be made.
    pub(super) fn pool_path(&self) -> Option<&Path> {
        match (&self.pool_path, &self.pool) {
            (Some(path), _) => Some(path),
            (None, None) => Some(Path::new(DEFAULT_POOL_PATH)),
            (None, Some(_)) => None,
        }
    }
}
