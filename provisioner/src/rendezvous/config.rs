//! `[rendezvous]` of a deployment: the embedded server, or one that exists already.

use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// First port of the TURN relay range when none is configured (RFC 8656 section 7.2 advises the
/// dynamic range).
pub const TURN_FIRST_PORT: u16 = 49152;
/// Last port of the TURN relay range when none is configured.
pub const TURN_LAST_PORT: u16 = 65535;

/// The table `[rendezvous]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RendezvousConfig {
    /// An ejabberd that `provision` runs itself, one for each deployment.
    Embedded(EmbeddedConfig),
    /// An ejabberd that somebody else runs.
    External(ExternalConfig),
}

impl Default for RendezvousConfig {
    fn default() -> Self {
        Self::Embedded(EmbeddedConfig::default())
    }
}

/// `kind = "embedded"`. Everything has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// Addresses of this machine to serve on, besides those on which the sites' machines reach it.
    pub listen: Vec<IpAddr>,
    /// TCP port for XMPP; a free one is chosen when none is given.
    pub c2s_port: Option<u16>,
    /// UDP port for STUN and TURN; a free one is chosen when none is given.
    pub stun_port: Option<u16>,
    /// First and last UDP port that TURN may relay from.
    pub turn_ports: (u16, u16),
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            c2s_port: None,
            stun_port: None,
            turn_ports: (TURN_FIRST_PORT, TURN_LAST_PORT),
        }
    }
}

/// `kind = "external"`: an ejabberd with `mod_http_api`, `mod_admin_extra` and
/// `mod_shared_roster`, and an administrator's account on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalConfig {
    /// Where `mod_http_api` answers: `https://host:5443/api`, or `unix:/path` (then `/api`).
    pub api: String,
    /// XMPP domain on which accounts are made.
    pub domain: String,
    /// Where nodes connect, `host:port` or `[v6]:port`, tried in order; names are resolved here, not on the nodes.
    pub servers: Vec<String>,
    /// PEM file with the CA that both the XMPP server's and the API's certificate chain to.
    pub ca_file: PathBuf,
    /// JID of the administrator's account that the API is called with. Not needed for `unix:`.
    #[serde(default)]
    pub admin: Option<String>,
    /// Environment variable that holds that account's password.
    #[serde(default)]
    pub password_env: Option<String>,
    /// File that holds it, mode 0600.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_embedded_server_has_a_default_and_unknown_ones_are_errors() {
        let parse = toml::from_str::<RendezvousConfig>;
        assert_eq!(
            parse("kind = 'embedded'").expect("valid"),
            RendezvousConfig::default()
        );
        let with_port = parse("kind = 'embedded'\nc2s_port = 5222").expect("valid");
        assert!(matches!(with_port, RendezvousConfig::Embedded(c) if c.c2s_port == Some(5222)));
        let error = parse("kind = 'embedded'\nport = 5222")
            .expect_err("unknown key")
            .to_string();
        assert!(error.contains("unknown field `port`"), "{error}");
        let error = parse("kind = 'external'")
            .expect_err("incomplete")
            .to_string();
        assert!(error.contains("missing field `api`"), "{error}");
    }
}
