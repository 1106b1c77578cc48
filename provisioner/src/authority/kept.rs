//! What is kept of a node.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{AuthorityError, file};
use crate::name::NodeName;
use crate::rendezvous::files;

/// See the module.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Kept {
    /// Key and certificate (PEM), where they are made here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The secret by which a node that makes its key itself is known when it asks first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The node's key, once it is known, by the SHA-256 of its SubjectPublicKeyInfo in hexadecimal
    /// digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A secret that comes with one of the first passwords that a node's account has, one after the other.
#[derive(Serialize, Deserialize)]
pub(super) struct Token {
    /// SHA-256 of the password, in hexadecimal digits.
    pub password: String,
    /// The secret.
    pub secret: String,
}

impl Kept {
    /// Of a node of which nothing is kept it is empty.
    pub fn read(dir: &Path, node: &NodeName) -> Result<Self, AuthorityError> {
        let path = path(dir, node);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| AuthorityError::Damaged { path, source }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(file(&path)(error)),
        }
    }

    pub fn write(&self, dir: &Path, node: &NodeName) -> Result<(), AuthorityError> {
        let path = path(dir, node);
        let json = serde_json::to_vec(self).map_err(|source| AuthorityError::Damaged {
            path: path.clone(),
            source,
        })?;
        files::write(&path, &json, 0o600).map_err(file(&path))
    }

    pub fn remove(dir: &Path, node: &NodeName) -> Result<(), AuthorityError> {
        let path = path(dir, node);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file(&path)(error)),
            _ => Ok(()),
        }
    }
}

fn path(dir: &Path, node: &NodeName) -> PathBuf {
    dir.join("nodes").join(format!("{node}.json"))
}
