//! STUN and TURN services as the XMPP server names them (XEP-0215), after name resolution.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// What a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IceServerKind {
    /// Binding requests only (RFC 8489).
    Stun,
    /// Binding requests and allocations (RFC 8656).
    Turn,
}

/// A password that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct ServicePassword(String);

impl ServicePassword {
    /// Wraps the password.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    /// The password itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ServicePassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// One STUN or TURN server at one address, reached over UDP. A host name with several addresses
/// becomes several of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceServer {
    /// What it does.
    pub kind: IceServerKind,
    /// Where it is.
    pub addr: SocketAddr,
    /// Long-term credential's user name (RFC 8489 section 9.2); TURN needs one.
    pub username: Option<String>,
    /// Long-term credential's password.
    pub password: Option<ServicePassword>,
    /// How long the credential is good for, counted from when it is handed over.
    pub expires_in: Option<Duration>,
}
