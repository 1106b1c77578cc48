//! Names of deployments, roles and nodes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A node of a deployment: `frontend-0`, `worker-3`. It is also the XMPP account's local part,
/// the guest's host name, and the name in the overlay.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeName(pub String);

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The XMPP account that `provision` itself uses; no node may be called so.
pub const OPERATOR: &str = "provision";

/// Prefix of every resource made on a host: libvirt domains are `ipop-<deployment>-<node>`.
pub const RESOURCE_PREFIX: &str = "ipop";

/// The name of a node's machine (libvirt domain, EC2 name tag): `ipop-demo-worker-0`.
pub fn machine_name(deployment: &str, node: &NodeName) -> String {
    format!("{RESOURCE_PREFIX}-{deployment}-{node}")
}
