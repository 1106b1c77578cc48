//! Settings of a CloudLab site.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A CloudLab site's settings. The token comes from a variable, a file or a command, never from
/// this file itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloudlabSite {
    /// Portal API.
    #[serde(default = "default_api")]
    pub api: String,
    /// PEM file of the CA that signed the portal's certificate; without it the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Environment variable with the API token.
    #[serde(default)]
    pub token_env: Option<String>,
    /// File with the API token, readable by its owner only.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Command that prints the API token, run by `sh -c`.
    #[serde(default)]
    pub token_command: Option<String>,
    /// Project the experiments belong to.
    pub project: String,
    /// Parametrised profile.
    pub profile: String,
    /// Project of the profile [default: `project`].
    #[serde(default)]
    pub profile_project: Option<String>,
    /// Hardware type asked for (`m510`).
    #[serde(default)]
    pub hardware: Option<String>,
    /// Most machines of one deployment's experiment.
    #[serde(default)]
    pub machines: Option<u32>,
    /// Workers on one machine: 1 and more are virtual machines on it by libvirt; without it the
    /// machine itself is the worker.
    #[serde(default)]
    pub vms_per_machine: Option<u32>,
    /// Hours asked for at first, and by each extension.
    #[serde(default = "default_hours")]
    pub hours: u32,
    /// User on the machines.
    #[serde(default)]
    pub user: Option<String>,
    /// Private key file that the portal's user has registered; without it what `ssh` finds.
    #[serde(default)]
    pub identity: Option<PathBuf>,
    /// Whether machines that are workers themselves mount the front end's folder at `/share`.
    #[serde(default = "yes")]
    pub share: bool,
    /// Whether the NFS client is installed on such machines, where it is missing.
    #[serde(default = "yes")]
    pub install_packages: bool,
}

fn default_api() -> String {
    "https://boss.emulab.net:43794".into()
}

fn default_hours() -> u32 {
    16
}

fn yes() -> bool {
    true
}
