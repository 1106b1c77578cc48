//! What is kept of a node.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipop_proto::authority::{Certified, Serial};
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
    /// The last certificate that was signed for this key (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// All certificates of the node's name that have not ended, whatever their key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signed: Vec<Signed>,
    /// Whether others may have been signed: older versions did not write down which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub may_have_others: Option<bool>,
    /// Whether its certificates are revoked and it gets no other one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_out: bool,
}

/// A secret that comes with one of the first passwords that a node's account has, one after the other.
#[derive(Serialize, Deserialize)]
pub(super) struct Token {
    /// SHA-256 of the password, in hexadecimal digits.
    pub password: String,
    /// The secret.
    pub secret: String,
}

/// A certificate that was signed.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Signed {
    /// What a revocation list knows it by.
    #[serde(with = "hexadecimal")]
    pub serial: Serial,
    /// The second of its end, since 1970.
    pub ends: u64,
    /// The groups that it has; older versions signed none.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
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

    /// Whether anything is kept.
    pub fn is_empty(&self) -> bool {
        self.identity.is_none()
            && self.token.is_none()
            && self.key.is_none()
            && self.signed.is_empty()
    }

    /// Whether there may be certificates that are not in [`Self::signed`]. Of a node with a key there
    /// are, if that was not looked at before.
    pub fn may_have_others(&self) -> bool {
        self.may_have_others
            .unwrap_or(self.key.is_some() || self.identity.is_some())
    }

    /// Notes a certificate that is about to be given to the node.
    pub fn note(&mut self, pem: &str, certified: &Certified, now: SystemTime) {
        self.may_have_others = Some(self.may_have_others());
        self.signed.retain(|signed| seconds(now) <= signed.ends);
        self.signed.push(Signed {
            serial: certified.serial.clone(),
            ends: seconds(certified.validity.not_after),
            groups: certified.groups.clone(),
        });
        self.certificate = Some(pem.to_owned());
    }

    /// What stays of it where another key may come: which certificates there are.
    pub fn renewed(&self, token: Token) -> Self {
        Self {
            token: Some(token),
            signed: self.signed.clone(),
            may_have_others: Some(self.may_have_others()),
            ..Self::default()
        }
    }

    /// The serial numbers of certificates that have not ended.
    pub fn serials(&self, now: SystemTime) -> Vec<Serial> {
        let good = self.signed.iter().filter(|s| seconds(now) <= s.ends);
        good.map(|signed| signed.serial.clone()).collect()
    }

    /// The serial numbers of those that have other groups.
    pub fn serials_without(&self, groups: &BTreeSet<String>, now: SystemTime) -> Vec<Serial> {
        let good = self.signed.iter().filter(|s| seconds(now) <= s.ends);
        let others = good.filter(|signed| signed.groups != *groups);
        others.map(|signed| signed.serial.clone()).collect()
    }
}

fn path(dir: &Path, node: &NodeName) -> PathBuf {
    dir.join("nodes").join(format!("{node}.json"))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since: Duration| since.as_secs())
}

/// Serial numbers as people write them.
mod hexadecimal {
    use ipop_proto::authority::Serial;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(serial: &Serial, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(serial)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Serial, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}
