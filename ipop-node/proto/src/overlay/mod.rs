//! The peer table: one link to every member, and the route from an IP packet to its link.
//!
//! Driven from outside: after every call that takes `&mut self`, the caller drains
//! [`Overlay::poll_output`] until it gives `None`, then asks [`Overlay::poll_timeout`] when to call
//! [`Overlay::handle_timeout`] next.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;

use crate::address::OverlayAddrs;
use crate::service::IceServer;
use crate::signal::{SessionId, Signal};
use crate::status::{Advertisement, DropReason, PairEnd, PeerStatus};

/// This node's certificate and key.
#[derive(Debug)]
pub struct Identity {}

impl Identity {
    /// A new key and self-signed certificate.
    pub fn generate() -> Self {
        Self {}
    }
}

/// A UDP datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The socket it leaves from: one of those given to [`Overlay::set_sockets`].
    pub local: SocketAddr,
    /// Where it goes.
    pub remote: SocketAddr,
    /// What it carries.
    pub payload: BytesMut,
}

/// What does not change while a node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayConfig {
    /// Node name.
    pub name: String,
    /// This node's overlay addresses.
    pub addrs: OverlayAddrs,
    /// Overlay MTU in bytes; larger packets are refused with an ICMP error.
    pub mtu: u16,
    /// Offer and use relay candidates only.
    pub relay_only: bool,
}

/// What the caller has to do.
#[derive(Debug)]
pub enum Output {
    /// Send a datagram.
    Transmit(Transmit),
    /// Write one IP packet to the TUN device.
    Packet(BytesMut),
    /// Send a signal to a full JID.
    Signal {
        /// Full JID.
        to: String,
        /// What to say.
        signal: Signal,
    },
    /// A link came up; to log, and to publish [`Overlay::linked`] anew.
    LinkUp {
        /// The peer's node name.
        peer: String,
    },
    /// A link went down after having been up.
    LinkDown {
        /// The peer's node name.
        peer: String,
        /// Why.
        why: String,
    },
}

/// The overlay as one node sees it.
#[derive(Debug)]
pub struct Overlay {}

impl Overlay {
    /// An overlay with no peers. All randomness comes from `seed`, which must be unpredictable:
    /// ICE passwords are drawn from it.
    pub fn new(now: Instant, config: OverlayConfig, identity: Identity, seed: [u8; 32]) -> Self {
        let _ = (now, config, identity, seed);
        Self {}
    }

    /// The UDP sockets there are now, each by the address it is bound to.
    pub fn set_sockets(&mut self, now: Instant, sockets: Vec<SocketAddr>) {
        let _ = (now, sockets);
    }

    /// The STUN and TURN servers to use from now on, with fresh credentials.
    pub fn set_ice_servers(&mut self, now: Instant, servers: Vec<IceServer>) {
        let _ = (now, servers);
    }

    /// Signed in to the XMPP server under `full_jid`; signals can be sent from now on.
    pub fn online(&mut self, now: Instant, full_jid: String) {
        let _ = (now, full_jid);
    }

    /// No longer signed in. Links that work go on working.
    pub fn offline(&mut self, now: Instant) {
        let _ = now;
    }

    /// A member's presence, first or repeated.
    pub fn peer_present(&mut self, now: Instant, jid: String, advertisement: Advertisement) {
        let _ = (now, jid, advertisement);
    }

    /// A member became unavailable. Its link is kept while it works.
    pub fn peer_gone(&mut self, now: Instant, jid: &str) {
        let _ = (now, jid);
    }

    /// A signal from the full JID `from`.
    pub fn handle_signal(&mut self, now: Instant, from: &str, signal: Signal) {
        let _ = (now, from, signal);
    }

    /// A signal of session `sid` to `to` came back with the stanza error `condition`
    /// (RFC 6120 section 8.3.3), or was never answered.
    pub fn signal_failed(&mut self, now: Instant, to: &str, sid: &SessionId, condition: &str) {
        let _ = (now, to, sid, condition);
    }

    /// A datagram that came in on the socket bound to `local`.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        payload: BytesMut,
    ) {
        let _ = (now, local, remote, payload);
    }

    /// One IP packet read from the TUN device.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        let _ = (now, packet);
    }

    /// The deadline given by [`Self::poll_timeout`] has passed. Calling early does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// When to call [`Self::handle_timeout`] next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        None
    }

    /// The next thing to do; ask until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// Every known peer, sorted by name.
    pub fn peers(&self, now: Instant) -> Vec<PeerStatus> {
        let _ = now;
        Vec::new()
    }

    /// Drops that belong to no peer; a peer's own are in its [`PeerStatus`].
    pub fn drops(&self) -> &BTreeMap<DropReason, u64> {
        static NONE: BTreeMap<DropReason, u64> = BTreeMap::new();
        &NONE
    }

    /// This node's candidates.
    pub fn candidates(&self) -> Vec<PairEnd> {
        Vec::new()
    }

    /// Names of the members with a link that is up, sorted; for the advertisement.
    pub fn linked(&self) -> Vec<String> {
        Vec::new()
    }

    /// Ends every session with a `session-terminate` and every allocation; drain the outputs once
    /// more and send them before exiting.
    pub fn leave(&mut self, now: Instant) {
        let _ = now;
    }
}
