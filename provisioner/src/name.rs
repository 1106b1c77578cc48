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

/// Longest name of a deployment: `ipop-<deployment>-<node>` must stay a DNS label.
pub const MAX_DEPLOYMENT: usize = 24;

/// Checks a deployment's name: a DNS label (RFC 1123 section 2.1) of at most 24 characters.
pub fn check_deployment(name: &str) -> Result<(), String> {
    if name.len() <= MAX_DEPLOYMENT && ipop_proto::config::is_dns_label(name) {
        return Ok(());
    }
    Err(format!(
        "must be 1 to {MAX_DEPLOYMENT} lower-case letters, digits or inner hyphens, like lake-1"
    ))
}

/// The name among `names` that `wrong` was most likely meant to be.
pub fn suggestion<'a, S: AsRef<str> + 'a>(
    wrong: &str,
    names: impl IntoIterator<Item = &'a S>,
) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| (distance(wrong, name.as_ref()), name.as_ref()))
        .filter(|(distance, name)| *distance <= 2.max(name.len() / 3))
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.chars().count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        let names = ["local".to_owned(), "lab".to_owned()];
        assert_eq!(suggestion("locale", &names), Some("local"));
        assert_eq!(suggestion("lba", &names), Some("lab"));
        assert_eq!(suggestion("frankfurt", &names), None);
    }

    #[test]
    fn deployment_names_are_short_dns_labels() {
        for good in ["a", "demo", "lake-1", "abcdefghijklmnopqrstuvwx"] {
            assert_eq!(check_deployment(good), Ok(()));
        }
        for bad in ["", "-a", "a-", "Demo", "a.b", "abcdefghijklmnopqrstuvwxy"] {
            assert!(check_deployment(bad).is_err(), "{bad}");
        }
    }
}
