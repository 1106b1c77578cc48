//! How the node gets its certificate from whoever signs for the overlay's authority.
//!
//! The key is made here and stays here. Who carries the request and the certificate need not be
//! trusted: the one is signed with the key, the other is looked at as peers would.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ipop_proto::authority::issue::{IssueError, Subject};
use ipop_proto::authority::proof::Proof;
use ipop_proto::authority::{Authority, Claim, Refused};
use ipop_proto::config::NodeConfig;
use ipop_proto::link::{Identity, IdentityError};
use ipop_proto::stanza::certificate::CertificateRequest;

use crate::file::{self, SECRET};
use crate::settings::{SettingsError, claim, read_identity};
use crate::xmpp::Password;

/// See the module.
#[derive(Debug, Clone)]
pub struct Requester {
    issuer: String,
    token: Option<Password>,
    claim: Claim,
    authority: Arc<Authority>,
    overlay: String,
    identity: PathBuf,
}

/// No certificate came of it.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] SettingsError),
    /// The key cannot be made, or the certificate is another key's.
    #[error("unusable key or certificate")]
    Identity(#[from] IdentityError),
    /// The request cannot be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// Peers would refuse the certificate.
    #[error("peers would refuse the certificate that came")]
    Refused(#[from] Refused),
    /// The file cannot be written.
    #[error("cannot write the identity file {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Requester {
    /// Asks `issuer` (a full JID) for the certificate of the node with this configuration, whose key
    /// and certificate are in the file `identity`.
    pub fn new(
        issuer: &str,
        token: Option<Password>,
        config: &NodeConfig,
        authority: &Arc<Authority>,
        identity: &Path,
    ) -> Self {
        Self {
            issuer: issuer.to_owned(),
            token,
            claim: claim(config),
            authority: authority.clone(),
            overlay: config.overlay.name.clone(),
            identity: identity.to_owned(),
        }
    }

    /// Full JID of whom to ask.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Makes a key, with a certificate of its own, unless there is one.
    pub fn make_key(&self) -> Result<(), RequestError> {
        if self.identity.exists() {
            return Ok(());
        }
        self.write(&Identity::generate()?)
    }

    /// Takes a key and its certificate that were given to the node.
    pub fn begin_with(&self, given: &Identity) -> Result<(), RequestError> {
        self.write(given)
    }

    /// What to ask.
    pub fn request(&self) -> Result<CertificateRequest, RequestError> {
        let subject = Subject {
            name: self.claim.name.clone(),
            overlay: self.overlay.clone(),
            addrs: vec![self.claim.ipv4.into(), self.claim.ipv6.into()],
            role: None,
            groups: BTreeSet::new(),
        };
        let request = subject.request(&read_identity(&self.identity)?)?;
        let token = self.token.as_ref();
        let proof = token.map(|token| Proof::of(&request, token.expose()));
        Ok(CertificateRequest { request, proof })
    }

    /// Takes the certificate (PEM) that was answered, if it makes this node a member.
    pub fn take(&self, certificate: &str) -> Result<(), RequestError> {
        let identity = read_identity(&self.identity)?.certified(certificate)?;
        let certified = self
            .authority
            .certify(identity.chain(), SystemTime::now())?;
        certified.grants(&self.claim)?;
        self.write(&identity)
    }

    fn write(&self, identity: &Identity) -> Result<(), RequestError> {
        file::replace(&self.identity, &identity.to_pem()?, SECRET).map_err(|source| {
            RequestError::Write {
                path: self.identity.clone(),
                source,
            }
        })
    }
}
