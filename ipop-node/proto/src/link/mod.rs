//! One link to one peer: an ICE agent and a DTLS association over the pair it selected.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rand::CryptoRng;

use crate::candidate::{Candidate, LocalCandidate};
use crate::net::Transmit;
use crate::signal::{Fingerprint, LinkDescription, Setup, TerminateReason};
use crate::status::{DropReason, LinkState, PairEnd};

/// This node's DTLS key and self-signed certificate.
pub struct Identity {}

/// The key or certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a DTLS certificate")]
pub struct IdentityError;

impl Identity {
    /// Makes a new ECDSA P-256 key and certificate.
    pub fn generate() -> Result<Self, IdentityError> {
        unimplemented!()
    }

    /// Fingerprint that goes into [`LinkDescription`].
    pub fn fingerprint(&self) -> Fingerprint {
        unimplemented!()
    }
}

/// ICE role (RFC 8445 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IceRole {
    /// Nominates; the Jingle initiator.
    Controlling,
    /// Accepts the nomination; the Jingle responder.
    Controlled,
}

/// What a link needs to know from the start.
#[derive(Clone)]
pub struct LinkConfig {
    /// ICE role.
    pub role: IceRole,
    /// This node's certificate.
    pub identity: Arc<Identity>,
    /// Only relayed local candidates are used.
    pub relay_only: bool,
}

/// A link cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The peer's half cannot be used.
    #[error("the peer's link description is unusable: {0}")]
    Description(&'static str),
    /// The ICE agent refused.
    #[error("the ICE agent refused to start: {0}")]
    Ice(String),
    /// The DTLS association could not start.
    #[error("DTLS cannot start: {0}")]
    Dtls(String),
}

/// What a link tells its owner.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkEvent {
    /// The state changed.
    State(LinkState),
    /// An IP packet from the peer, decrypted; its addresses are not checked here.
    Packet(BytesMut),
    /// ICE selected a candidate pair, or another one than before.
    PairSelected {
        /// Our end.
        local: PairEnd,
        /// The peer's end.
        remote: PairEnd,
    },
    /// The link is dead and will not recover; drop it.
    Failed {
        /// For people.
        why: String,
        /// For the peer.
        reason: TerminateReason,
    },
}

/// One link to one peer.
pub struct Link {}

impl Link {
    /// Makes a link with new ICE credentials; nothing is sent before [`Link::set_remote`].
    pub fn new(_now: Instant, _config: LinkConfig, _rng: &mut impl CryptoRng) -> Result<Self, LinkError> {
        unimplemented!()
    }

    /// Our half: credentials, fingerprint, and the local candidates known so far.
    pub fn description(&self, _setup: Setup) -> LinkDescription {
        unimplemented!()
    }

    /// Takes the peer's half, fixes the DTLS role, starts connectivity checks.
    pub fn set_remote(&mut self, _now: Instant, _remote: &LinkDescription) -> Result<(), LinkError> {
        unimplemented!()
    }

    /// Adds a candidate of this node; the peer must be told by signalling.
    pub fn add_local(&mut self, _now: Instant, _candidate: LocalCandidate) {}

    /// A local socket or relayed address is gone.
    pub fn remove_local(&mut self, _now: Instant, _base: SocketAddr) {}

    /// Adds a candidate the peer signalled.
    pub fn add_remote(&mut self, _now: Instant, _candidate: &Candidate) {}

    /// Username fragment of our half.
    pub fn local_ufrag(&self) -> &str {
        unimplemented!()
    }

    /// Takes a STUN or DTLS datagram that arrived on `local` (a base) from `remote`.
    pub fn handle_datagram(
        &mut self,
        _now: Instant,
        _local: SocketAddr,
        _remote: SocketAddr,
        _payload: BytesMut,
    ) -> Result<(), DropReason> {
        unimplemented!()
    }

    /// Encrypts an IP packet and queues it for the selected pair.
    pub fn send(&mut self, _now: Instant, _packet: &[u8]) -> Result<(), DropReason> {
        unimplemented!()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// When [`Link::handle_timeout`] is next due.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        unimplemented!()
    }

    /// Next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        unimplemented!()
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        unimplemented!()
    }

    /// How far the link is.
    pub fn state(&self) -> &LinkState {
        unimplemented!()
    }

    /// Our and the peer's end of the selected pair.
    pub fn pair(&self) -> Option<(PairEnd, PairEnd)> {
        unimplemented!()
    }

    /// Last round-trip time of an ICE check on the selected pair.
    pub fn rtt(&self) -> Option<Duration> {
        unimplemented!()
    }

    /// Ends the link: a DTLS close_notify is queued, nothing else is accepted.
    pub fn close(&mut self, _now: Instant) {}
}

/// The two halves of a STUN message's USERNAME: the receiver's fragment and the sender's.
pub fn stun_username(_payload: &[u8]) -> Option<(&str, &str)> {
    unimplemented!()
}
