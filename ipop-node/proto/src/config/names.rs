//! `[names]`: members by name.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// `[names]`. With it the node answers DNS questions of this machine for `NODE.OVERLAY.ipop`, and has
/// the system's resolver ask it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NamesSection {
    /// Where it answers: a loopback address and a port. When there is none, port 53 of the first of
    /// 127.0.73.1 to 127.0.73.16 that is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// How the system's resolver learns of it.
    pub resolver: ResolverKind,
}

/// What the system resolves names by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResolverKind {
    /// systemd-resolved where it runs, otherwise `/etc/resolv.conf`. Without D-Bus systemd-resolved cannot be
    /// told, and nobody is.
    #[default]
    Auto,
    /// systemd-resolved where it runs and can be told, otherwise nobody: nothing of the machine is written
    /// to.
    Volatile,
    /// systemd-resolved asks for names of this overlay here, and for all others where it did
    /// (`resolvectl`).
    Resolved,
    /// A `nameserver` line before those that are in `/etc/resolv.conf`. What is no name of the overlay is
    /// refused here, and the C library asks the next server.
    ResolvConf,
    /// Nobody is told; the machine's administrator has seen to it.
    None,
}

impl NamesSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let Some(listen) = self.listen else {
            return Ok(());
        };
        let problem = if !listen.ip().is_loopback() {
            "must be a loopback address: what is a name here is nobody else's business"
        } else if listen.port() != 53 && self.resolver != ResolverKind::None {
            "must have port 53, unless `names.resolver` is `none`: resolvers ask no other"
        } else {
            return Ok(());
        };
        Err(ConfigError::Value {
            key: "names.listen",
            problem: problem.to_owned(),
        })
    }
}
