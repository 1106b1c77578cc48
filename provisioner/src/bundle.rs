//! A node's personal data, as systemd credentials (systemd.exec(5), systemd-creds(1)).
//!
//! An image is the same for every node of a role; what makes it one node is this bundle. A
//! provider hands the credentials to the machine without putting them where others can read them.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::json;

use crate::secret::Secret;

/// `ipop-node`'s configuration file (TOML, no secrets).
pub const NODE_CONFIG: &str = "ipop.config";
/// Password of the node's XMPP account.
pub const XMPP_PASSWORD: &str = "ipop.password";
/// Single-use token that the node exchanges for a password of its own, instead of
/// [`XMPP_PASSWORD`] where others may read the bundle.
pub const ENROL_TOKEN: &str = "ipop.enrol-token";
/// PEM certificate of the deployment's CA.
pub const CA: &str = "ipop.ca";
/// PEM certificate of the overlay's authority, where there is one.
pub const AUTHORITY: &str = "ipop.authority";
/// The node's key and its certificate of the authority (PEM).
pub const IDENTITY: &str = "ipop.identity";
/// Secret by which the authority's owner knows the node when it asks for the certificate of a key of
/// its own, instead of [`IDENTITY`] where others may read the bundle. It serves one key.
pub const CERTIFICATE_TOKEN: &str = "ipop.certificate-token";
/// `KEY=value` lines for the role's units: `IPOP_DEPLOYMENT`, `IPOP_NODE`, `IPOP_ROLE`,
/// `IPOP_SITE`, `IPOP_INTERFACE`, `IPOP_ADDR4`, `IPOP_ADDR6` (own, without prefix), `IPOP_NET4`, `IPOP_NET6`
/// (the overlay, with prefix), `IPOP_FRONTEND4`, `IPOP_FRONTEND6` (the front end, without prefix); of a
/// worker that comes when jobs wait also `IPOP_ELASTIC`.
pub const ROLE_ENV: &str = "ipop.env";
/// Rendered `/etc/exports.d/ipop.exports` (roles `frontend` and `share`).
pub const EXPORTS: &str = "ipop.exports";
/// `LAN_KEY=value` lines for what a machine's second card is for (roles `frontend` and `gateway`):
/// `LAN_PORT` (the card, by its MAC address), `LAN_WORKERS` (network that workers' addresses are of),
/// `LAN_ADDRESS` (its own, with prefix); of a front end also `LAN_MACHINES`, `LAN_MACHINES_END` (first and last
/// address for machines that boot from it), of a gateway `LAN_FRONTEND` (the front end's address)
/// and `LAN_GATEWAYS` (addresses of others on the same LAN, with commas between them).
pub const LAN: &str = "ipop.lan";
/// The scheduler's name; none where there is no scheduler.
pub const SCHEDULER: &str = "ipop.scheduler";
/// OpenSSH private host key (ed25519). Without it the node makes one of its own.
pub const SSH_HOST_KEY: &str = "ipop.ssh-host-key";
/// Public keys that may log in as root; systemd's own credential name.
pub const SSH_AUTHORIZED_KEYS: &str = "ssh.authorized_keys.root";
/// Host name; systemd's own credential name (systemd 254 and later).
pub const HOSTNAME: &str = "system.hostname";

/// All credentials of one node, by credential name.
#[derive(Debug, Clone, Default)]
pub struct Bundle {
    /// Name to content.
    pub credentials: BTreeMap<String, Secret<Vec<u8>>>,
}

impl Bundle {
    /// Adds or replaces a credential.
    pub fn set(&mut self, name: &str, content: impl Into<Vec<u8>>) {
        let content = Secret::new(content.into());
        self.credentials.insert(name.to_owned(), content);
    }

    /// With more credentials, by name.
    #[must_use]
    pub fn with(mut self, more: BTreeMap<String, String>) -> Self {
        for (name, content) in more {
            self.set(&name, content);
        }
        self
    }

    /// The bundle as user data of a cloud instance, which `ipop-node metadata` in the image reads:
    /// `{"version":1,"credentials":{"name":"base64",…}}`.
    pub fn user_data(&self) -> Secret<Vec<u8>> {
        let credentials: BTreeMap<_, _> = self
            .credentials
            .iter()
            .map(|(name, content)| (name.as_str(), BASE64_STANDARD.encode(content.expose())))
            .collect();
        let json = json!({ "version": 1, "credentials": credentials });
        Secret::new(json.to_string().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_names_its_version_and_holds_each_credential_in_base64() {
        let mut bundle = Bundle::default();
        bundle.set(HOSTNAME, "worker-0");
        bundle.set(CA, "x\n");
        assert_eq!(
            String::from_utf8_lossy(bundle.user_data().expose()),
            r#"{"credentials":{"ipop.ca":"eAo=","system.hostname":"d29ya2VyLTA="},"version":1}"#
        );
    }
}
