//! Whom to sign in as, and whom to trust.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tokio_xmpp::jid::{self, BareJid};

/// A password that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps the password.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// An account and the servers it lives on.
#[derive(Debug, Clone)]
pub struct Account {
    /// Bare JID, `worker-0@demo.ipop`.
    pub jid: String,
    /// Resource to bind. Should the server refuse it as taken, a random part is added.
    pub resource: String,
    /// Password.
    pub password: Password,
    /// `address:port` or `[v6]:port`, tried in order; names are not looked up.
    pub servers: Vec<String>,
    /// The CA that the server's certificate must chain to, in PEM; the only one trusted.
    pub ca_pem: Vec<u8>,
}

/// An account that cannot be signed in to whatever the server says.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The JID is none, or has a resource.
    #[error("`{jid}` is not a bare JID; write it as name@domain")]
    Jid {
        /// What was given.
        jid: String,
        /// What is wrong with it.
        #[source]
        source: jid::Error,
    },
    /// The JID is a server's.
    #[error("`{0}` names no account; write it as name@domain")]
    NoNode(String),
    /// The resource cannot be part of a JID.
    #[error("`{resource}` cannot be a resource")]
    Resource {
        /// What was given.
        resource: String,
        /// What is wrong with it.
        #[source]
        source: jid::Error,
    },
    /// The domain cannot be in a certificate.
    #[error("the domain of `{0}` is neither a DNS name nor an address")]
    Domain(String),
    /// No server to connect to.
    #[error("no server given for `{0}`; name at least one address:port")]
    NoServer(String),
    /// A server is named otherwise than by its address.
    #[error(
        "the server `{0}` is not of the form address:port or [v6]:port; names are not looked up"
    )]
    Server(String),
    /// The CA's file holds no certificate.
    #[error("no certificate in the CA's PEM text")]
    NoCa,
    /// The CA's certificate is unusable.
    #[error("unusable CA certificate")]
    Ca(#[source] rustls::Error),
    /// TLS could not be set up.
    #[error("unusable TLS configuration")]
    Tls(#[source] rustls::Error),
}

/// A checked account, with the TLS configuration made of it.
#[derive(Clone)]
pub(super) struct Login {
    pub jid: BareJid,
    pub user: String,
    pub resource: String,
    pub password: Password,
    pub servers: Vec<SocketAddr>,
    pub server_name: ServerName<'static>,
    pub tls: Arc<ClientConfig>,
}

impl Login {
    pub fn new(account: Account) -> Result<Self, AccountError> {
        let jid = BareJid::new(&account.jid).map_err(|source| AccountError::Jid {
            jid: account.jid.clone(),
            source,
        })?;
        let user = jid
            .node()
            .ok_or_else(|| AccountError::NoNode(account.jid.clone()))?
            .to_string();
        jid.with_resource_str(&account.resource)
            .map_err(|source| AccountError::Resource {
                resource: account.resource.clone(),
                source,
            })?;
        let server_name = ServerName::try_from(jid.domain().to_string())
            .map_err(|_| AccountError::Domain(account.jid.clone()))?;
        if account.servers.is_empty() {
            return Err(AccountError::NoServer(account.jid));
        }
        let servers = account
            .servers
            .iter()
            .map(|server| {
                server
                    .parse()
                    .map_err(|_| AccountError::Server(server.clone()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            user,
            resource: account.resource,
            password: account.password,
            servers,
            server_name,
            tls: Arc::new(tls_config(&account.ca_pem)?),
            jid,
        })
    }

    pub fn domain(&self) -> &str {
        self.jid.domain().as_str()
    }
}

fn tls_config(ca_pem: &[u8]) -> Result<ClientConfig, AccountError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        let certificate = certificate.map_err(|_| AccountError::NoCa)?;
        roots.add(certificate).map_err(AccountError::Ca)?;
    }
    if roots.is_empty() {
        return Err(AccountError::NoCa);
    }
    Ok(
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(AccountError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(jid: &str, servers: &[&str], ca_pem: &[u8]) -> Account {
        Account {
            jid: jid.to_owned(),
            resource: "ipop".to_owned(),
            password: Password::new("open sesame"),
            servers: servers.iter().map(|s| (*s).to_owned()).collect(),
            ca_pem: ca_pem.to_vec(),
        }
    }

    #[test]
    fn each_defect_of_an_account_is_named() {
        for (account, message) in [
            (
                account("a@b/c", &["h:1"], b""),
                "`a@b/c` is not a bare JID; write it as name@domain",
            ),
            (
                account("b.c", &["h:1"], b""),
                "`b.c` names no account; write it as name@domain",
            ),
            (
                account("a@b", &[], b""),
                "no server given for `a@b`; name at least one address:port",
            ),
            (
                account("a@b", &["192.0.2.1:1", "h:1"], b""),
                "the server `h:1` is not of the form address:port or [v6]:port; names are not \
                 looked up",
            ),
            (
                account("a@b", &["[2001:db8::1]:1"], b"x"),
                "no certificate in the CA's PEM text",
            ),
        ] {
            let error = Login::new(account).err().expect("defective");
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn a_password_is_not_in_debug_output() {
        let shown = format!("{:?}", account("a@b", &["h:1"], b""));
        assert!(!shown.contains("sesame"), "{shown}");
    }
}
