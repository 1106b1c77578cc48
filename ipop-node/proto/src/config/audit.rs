//! `[audit]`: what happened to links, for whoever asks later.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// `[audit]`. With it the node keeps records of links that came up, went down and were refused, and of
/// what the rules did not let through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditSection {
    /// The file, an absolute path: one line of JSON each. It is made with mode 0600, and becomes `FILE.1`
    /// when it is full.
    pub file: PathBuf,
}

impl AuditSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        match self.file.is_absolute() {
            true => Ok(()),
            false => Err(ConfigError::Value {
                key: "audit.file",
                problem: "must be an absolute path: the node writes it".to_owned(),
            }),
        }
    }
}
