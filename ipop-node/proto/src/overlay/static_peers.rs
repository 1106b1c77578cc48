//! Peers by configuration: both halves of a link are known beforehand, and nothing is signalled.
//!
//! Each side derives the ICE credentials of both from the two fingerprints. These are no secrets
//! (a certificate is shown in the clear by a DTLS 1.2 handshake), so the credentials keep checks
//! of strangers out, not those of whoever has seen the two meet: trust comes from the certificate
//! alone. The side whose fingerprint is the smaller one controls ICE and is the DTLS client.
//!
//! Every link to a peer has the same credentials. A peer that made a new one, by a restart for
//! one, is met by the link there is: see [`crate::link`].

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::Overlay;
use super::peer::{Peer, PeerId};
use super::session::Session;
use crate::address::OverlayAddrs;
use crate::candidate::{Candidate, CandidateKind};
use crate::link::{IceCredentials, IceRole};
use crate::signal::{Fingerprint, LinkDescription, SessionId, Setup};

/// First and longest pause after a link that could not be made, or did not last.
pub(super) const PAUSES: (Duration, Duration) =
    (Duration::from_millis(250), Duration::from_secs(4));

/// A peer that is known without signalling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticPeer {
    /// Node name.
    pub name: String,
    /// Overlay addresses that are its own.
    pub addrs: OverlayAddrs,
    /// Of its certificate.
    pub fingerprint: Fingerprint,
    /// Where it can be reached, best first. Without any, it is waited for.
    pub endpoints: Vec<SocketAddr>,
    /// The groups that it is in, for rules.
    pub groups: BTreeSet<String>,
}

impl Overlay {
    /// Adds a peer that is linked to for as long as this node runs, signed in or not. Whether its
    /// addresses are free is seen in its [`PeerStatus`](crate::status::PeerStatus).
    pub fn add_static(&mut self, now: Instant, peer: StaticPeer) {
        let mut refused = None;
        if peer.fingerprint == self.identity.fingerprint() {
            refused = Some("it has this node's own certificate".to_owned());
        }
        let id = self.table.insert(Peer::configured(now, peer));
        let refused = refused.or_else(|| self.take_claim(id).err().map(|unfit| unfit.why));
        if let Some(peer) = self.table.get_mut(id) {
            peer.refused = refused;
        }
        self.advance(now, id);
    }

    /// Makes a link to a peer by configuration; it begins its checks at once.
    pub(super) fn link_static(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.table.get(id).and_then(|p| p.configured.clone()) else {
            return;
        };
        let (me, other) = (self.identity.fingerprint(), peer.fingerprint);
        let (role, setup) = if me.0 < other.0 {
            (IceRole::Controlling, Setup::Passive)
        } else {
            (IceRole::Controlled, Setup::Active)
        };
        let IceCredentials { ufrag, pwd } = credentials(other, me);
        let remote = LinkDescription {
            ufrag: ufrag.clone(),
            pwd,
            fingerprint: other,
            setup,
            candidates: candidates(&peer.endpoints),
        };
        let ours = Some(credentials(me, other));
        let Some(link) = self.link(now, id, role, ours) else {
            return self.schedule(id);
        };
        let mut session = Session::new(now, SessionId("configured".to_owned()), role, link);
        if let Err(error) = session.link.set_remote(now, &remote) {
            let rng = &mut self.rng;
            if let Some(peer) = self.table.get_mut(id) {
                peer.failure = Some(error.to_string());
                peer.backoff.failed_within(now, rng, PAUSES);
            }
            return self.schedule(id);
        }
        session.answered(now, ufrag);
        self.install(now, id, session);
    }
}

/// What `from` uses towards `to`.
fn credentials(from: Fingerprint, to: Fingerprint) -> IceCredentials {
    const ICE_CHARS: &[u8; 64] =
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let derive = |label: &str| {
        let digest = Sha256::new()
            .chain_update(label)
            .chain_update(from.0)
            .chain_update(to.0)
            .finalize();
        digest
            .iter()
            .map(|byte| char::from(ICE_CHARS[usize::from(byte & 63)]))
            .collect::<String>()
    };
    let mut ufrag = derive("ipop static peer, ICE username fragment");
    ufrag.truncate(16);
    IceCredentials {
        ufrag,
        pwd: derive("ipop static peer, ICE password"),
    }
}

/// Endpoints as host candidates, the first with the highest priority (RFC 8445 section 5.1.2.1).
fn candidates(endpoints: &[SocketAddr]) -> Vec<Candidate> {
    const HOST: u32 = 126 << 24;
    let preferences = (0..=65_535_u32).rev();
    let candidate = |(addr, preference): (&SocketAddr, u32)| Candidate {
        foundation: format!("configured{}", addr.ip()),
        kind: CandidateKind::Host,
        addr: *addr,
        priority: HOST + (preference << 8) + 255,
        related: None,
    };
    endpoints.iter().zip(preferences).map(candidate).collect()
}
