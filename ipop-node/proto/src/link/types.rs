//! What goes into a link and what comes out of it, beside datagrams and packets.

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;

use super::identity::Identity;
use super::trust::Trust;
use crate::signal::TerminateReason;
use crate::status::{LinkState, PairEnd};

/// ICE role (RFC 8445 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IceRole {
    /// Nominates; the Jingle initiator.
    Controlling,
    /// Accepts the nomination; the Jingle responder.
    Controlled,
}

/// Username fragment and password of one side (RFC 8445 section 5.3).
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// Username fragment.
    pub ufrag: String,
    /// Password.
    pub pwd: String,
}

impl fmt::Debug for IceCredentials {
    /// The password stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceCredentials")
            .field("ufrag", &self.ufrag)
            .finish_non_exhaustive()
    }
}

/// What a link needs to know from the start.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// ICE role.
    pub role: IceRole,
    /// This node's certificate.
    pub identity: Arc<Identity>,
    /// Only relayed local candidates are signalled and used.
    pub relay_only: bool,
    /// Ours, when the peer knows them without signalling: then all of its candidates are known
    /// too, and a pair need not wait for a better one. Random ones otherwise.
    pub credentials: Option<IceCredentials>,
    /// Whom to believe that the peer is who it is said to be, beside its fingerprint.
    pub trust: Option<Trust>,
}

/// A link cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The peer's half cannot be used.
    #[error("the peer's link description is unusable: {0}")]
    Description(&'static str),
    /// The ICE agent refused.
    #[error("the ICE agent refused to start: {0}")]
    Ice(String),
    /// The DTLS association could not be prepared.
    #[error("DTLS cannot start: {0}")]
    Dtls(String),
    /// The link has had its remote half, or is over.
    #[error("the link takes no remote description any more")]
    NotWaiting,
}

/// What a link tells its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// The state changed.
    State(LinkState),
    /// An IP packet from the peer, decrypted; its addresses are not checked here.
    Packet(BytesMut),
    /// An Ethernet frame from the peer, decrypted, with a complete checksum.
    Frame(BytesMut),
    /// What the peer's switch says, decrypted.
    Message(BytesMut),
    /// What the peer itself says, decrypted.
    Control(BytesMut),
    /// ICE selected a candidate pair, or another one than before.
    PairSelected {
        /// Our end.
        local: PairEnd,
        /// The peer's end.
        remote: PairEnd,
    },
    /// The link is over and will not recover; drop it after sending what it still has to send.
    Failed {
        /// For people.
        why: String,
        /// For the peer.
        reason: TerminateReason,
        /// Whoever answered in the peer's place showed no certificate that makes it the peer.
        untrusted: bool,
    },
}
