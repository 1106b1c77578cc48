//! `[pinning]`: peers by account need this node's owner.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, NodeConfig};

/// `[pinning]`, for overlays without an authority. With it a peer that comes by an account has no link before
/// this node's owner has approved its key (`ipop-node approve`), and nobody else is that peer afterwards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PinningSection {
    /// File where the node keeps who was approved; it has to be able to write there. When there is none:
    /// `pins.json` in systemd's `$STATE_DIRECTORY`, or without that beside `node.identity`, with the
    /// extension `pins`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<PathBuf>,
}

impl PinningSection {
    pub(super) fn check(config: &NodeConfig) -> Result<(), ConfigError> {
        let value = |key, problem: &str| {
            Err(ConfigError::Value {
                key,
                problem: problem.to_owned(),
            })
        };
        if config.authority.is_some() {
            return value(
                "pinning",
                "is for overlays without an [authority], which says itself who a peer is: remove one of \
                 the two",
            );
        }
        if config.xmpp.is_none() {
            return value(
                "pinning",
                "is for peers that come over [xmpp], which is missing: those in [[peer]] are known by \
                 their `fingerprint` already",
            );
        }
        if config.node.identity.is_none() {
            return value(
                "node.identity",
                "must name this node's identity file when there is [pinning]: its peers approve the key \
                 in it (`ipop-node identity --create FILE` makes one)",
            );
        }
        Ok(())
    }
}
