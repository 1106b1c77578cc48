//! `[authority]`: who says which node has which name and addresses.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, NodeConfig};

/// `[authority]`. With it every member has a certificate of the authority, and nobody else is linked
/// to, whatever the XMPP server says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthoritySection {
    /// PEM file with the authority's certificate, or with both while one follows another; systemd
    /// credentials are found by `$CREDENTIALS_DIRECTORY` when the path is relative. `node.identity`
    /// then holds this node's key and the certificate that the authority signed; it is read again
    /// on SIGHUP.
    pub certificate: PathBuf,
    /// PEM file with the authority's revocation list (X.509 CRL), as `ipop-node authority revoke`
    /// makes it; same rule for the path. It is read at start and on SIGHUP, and need not be there.
    /// Members tell each other of lists, so that it is enough if one of them has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<PathBuf>,
    /// File where the node keeps the newest revocation list, whoever it came from, so as not to forget
    /// it over a restart; the node has to be able to write there. When there is none:
    /// `revoked.crl` in systemd's `$STATE_DIRECTORY`, or without that beside `node.identity`, with the
    /// extension `revoked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<PathBuf>,
    /// Full JID of who signs for the authority, `provision@demo.ipop/issuer`. With it the node makes
    /// its key itself where it has none, asks there for its certificate, and again when a third of
    /// its validity is left; `node.identity` is the absolute path of a file that the node writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// File with the secret by which the issuer knows the node when it asks for the first time; found
    /// like `certificate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// File with a key and its certificate (PEM) that the node begins with, where `issuer` is asked for
    /// the next one: it is put into `node.identity` when there is none there that serves. Found like
    /// `certificate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<PathBuf>,
}

impl AuthoritySection {
    pub(super) fn check(&self, config: &NodeConfig) -> Result<(), ConfigError> {
        let value = |key, problem: &str| {
            Err(ConfigError::Value {
                key,
                problem: problem.to_owned(),
            })
        };
        let Some(identity) = &config.node.identity else {
            return value(
                "node.identity",
                "must name this node's identity file when there is an [authority]: it has the \
                 certificate that the authority signed (`ipop-node identity --request` asks for one)",
            );
        };
        let Some(issuer) = &self.issuer else {
            return match (&self.token_file, &self.given) {
                (Some(_), _) => value("authority.token_file", "is of no use without `issuer`"),
                (_, Some(_)) => value("authority.given", "is of no use without `issuer`"),
                (None, None) => Ok(()),
            };
        };
        let full = issuer
            .split_once('@')
            .and_then(|(user, rest)| Some((user, rest.split_once('/')?)));
        if !matches!(full, Some((user, (domain, resource)))
            if ![user, domain, resource].contains(&"") && !issuer.contains(char::is_whitespace))
        {
            return value(
                "authority.issuer",
                "must be a full JID, user@domain/resource",
            );
        }
        if config.xmpp.is_none() {
            return value("authority.issuer", "is asked over [xmpp], which is missing");
        }
        if !identity.is_absolute() {
            return value(
                "node.identity",
                "must be an absolute path when authority.issuer is set: the node writes it",
            );
        }
        Ok(())
    }
}
