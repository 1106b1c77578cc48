//! ICE candidates (RFC 8445 section 5.1) in the form signalling and links share.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// How a candidate was obtained (RFC 8445 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CandidateKind {
    /// An address of an interface of this machine.
    Host,
    /// The address a STUN server saw (RFC 8489).
    Srflx,
    /// An address first seen in a connectivity check.
    Prflx,
    /// An address allocated on a TURN server (RFC 8656).
    Relay,
}

impl CandidateKind {
    /// The token of RFC 8839 section 5.1 and XEP-0176.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Srflx => "srflx",
            Self::Prflx => "prflx",
            Self::Relay => "relay",
        }
    }
}

impl fmt::Display for CandidateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One UDP candidate of component 1. Overlay links have no other component and no other protocol.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Equal for candidates of one kind, base and server (RFC 8445 section 5.1.1.3).
    pub foundation: String,
    /// How it was obtained.
    pub kind: CandidateKind,
    /// The transport address to send to.
    pub addr: SocketAddr,
    /// RFC 8445 section 5.1.2.
    pub priority: u32,
    /// Related address of srflx, prflx and relay candidates, for diagnosis only.
    pub related: Option<SocketAddr>,
}

/// A candidate of this node together with where its datagrams leave from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LocalCandidate {
    /// What the peer is told.
    pub candidate: Candidate,
    /// The base (RFC 8445 section 4): the local socket's address for host and srflx candidates,
    /// the relayed address itself for relay candidates.
    pub base: SocketAddr,
}
