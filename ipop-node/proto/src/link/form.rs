//! Candidates and credentials in the form the ICE library takes them.

use std::net::SocketAddr;

use rand::CryptoRng;
use rtc_ice::candidate::candidate_host::CandidateHostConfig;
use rtc_ice::candidate::candidate_peer_reflexive::CandidatePeerReflexiveConfig;
use rtc_ice::candidate::candidate_relay::CandidateRelayConfig;
use rtc_ice::candidate::candidate_server_reflexive::CandidateServerReflexiveConfig;
use rtc_ice::candidate::{Candidate, CandidateConfig};
use rtc_shared::error::Error;

use crate::candidate::CandidateKind;

/// The part of a candidate's form that all kinds share.
pub(super) fn agent_config(addr: SocketAddr) -> CandidateConfig {
    CandidateConfig {
        network: "udp".to_owned(),
        address: addr.ip().to_string(),
        port: addr.port(),
        component: 1,
        ..CandidateConfig::default()
    }
}

/// A remote candidate in the library's form. Related addresses are left out: the library would
/// take one for a local base.
pub(super) fn agent_candidate(
    addr: SocketAddr,
    kind: CandidateKind,
    priority: u32,
) -> Result<Candidate, Error> {
    let base_config = CandidateConfig {
        priority,
        ..agent_config(addr)
    };
    match kind {
        CandidateKind::Host => CandidateHostConfig {
            base_config,
            ..Default::default()
        }
        .new_candidate_host(),
        CandidateKind::Srflx => CandidateServerReflexiveConfig {
            base_config,
            ..Default::default()
        }
        .new_candidate_server_reflexive(),
        CandidateKind::Prflx => CandidatePeerReflexiveConfig {
            base_config,
            ..Default::default()
        }
        .new_candidate_peer_reflexive(),
        CandidateKind::Relay => CandidateRelayConfig {
            base_config,
            ..Default::default()
        }
        .new_candidate_relay(),
    }
}

/// Random characters of RFC 8445's `ice-char` set, 6 bits each.
pub(super) fn ice_chars(rng: &mut impl CryptoRng, count: usize) -> String {
    const ICE_CHARS: &[u8; 64] =
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = vec![0; count];
    rng.fill_bytes(&mut bytes);
    bytes
        .iter()
        .map(|byte| char::from(ICE_CHARS[usize::from(byte & 63)]))
        .collect()
}
