//! Settings of an EC2 site.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An EC2 site's settings. Credentials are found as the AWS tools find them (environment, profile,
/// `credential_process`, instance role); none are written here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ec2Site {
    /// Region (`us-west-2`).
    pub region: String,
    /// Profile of `~/.aws/config`.
    #[serde(default)]
    pub profile: Option<String>,
    /// Instance type.
    #[serde(default = "default_instance_type")]
    pub instance_type: String,
    /// Subnet to launch in; without it the default VPC's.
    #[serde(default)]
    pub subnet: Option<String>,
    /// Spot instances instead of on-demand ones.
    #[serde(default)]
    pub spot: bool,
    /// Keep AMIs and snapshots after the last destroy, so that the next launch uploads only what
    /// changed.
    #[serde(default)]
    pub keep_images: bool,
    /// Another endpoint for the EC2 and EBS APIs (a test server, a VPC endpoint).
    #[serde(default)]
    pub endpoint: Option<String>,
    /// A price table that replaces entries of the one that is shipped.
    #[serde(default)]
    pub prices: Option<PathBuf>,
}

fn default_instance_type() -> String {
    "t3.micro".into()
}
