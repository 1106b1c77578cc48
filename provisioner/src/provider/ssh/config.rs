//! Settings of an SSH site.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An SSH site's settings: a fixed list of machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SshSite {
    /// `[user@]host[:port]`, one machine each; the node of slot n is on host n. The user needs
    /// root rights: be root, or `sudo` without a password.
    pub hosts: Vec<String>,
    /// Private key file; without it what `ssh` finds by itself (agent, `~/.ssh`).
    #[serde(default)]
    pub identity: Option<PathBuf>,
    /// Public host keys; without it the user's own `known_hosts`. A host that is in neither is
    /// refused.
    #[serde(default)]
    pub known_hosts: Option<PathBuf>,
    /// Whether workers mount the front end's folder at `/share`.
    #[serde(default = "yes")]
    pub share: bool,
    /// Whether the NFS client is installed, where it is missing, with the machine's own package
    /// manager. It stays when the deployment is destroyed.
    #[serde(default = "yes")]
    pub install_packages: bool,
}

fn yes() -> bool {
    true
}
