//! `[policy]`: rules that this node is told while it runs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// `[policy]`. With it a node takes other rules from whoever runs its machine (`ipop-node policy set`), keeps
/// them, and goes by them in place of `[[allow]]`, also after a restart. For machines whose configuration
/// comes anew with each start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySection {
    /// The file, an absolute path. As long as it is not there, `[[allow]]` is in force.
    pub keep: PathBuf,
}

impl PolicySection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        match self.keep.is_absolute() {
            true => Ok(()),
            false => Err(ConfigError::Value {
                key: "policy.keep",
                problem: "must be an absolute path: the node writes it".to_owned(),
            }),
        }
    }
}
