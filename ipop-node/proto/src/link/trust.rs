//! What makes whoever answers a link's handshake its peer.

use std::sync::Arc;

use super::identity::fingerprint_of;
use crate::authority::{Authority, Certified, Claim, Refused, WallClock};
use crate::signal::Fingerprint;

/// Whom an overlay with an authority believes.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Who says which node has which name and addresses.
    pub authority: Arc<Authority>,
    /// By what time certificates are valid.
    pub clock: Arc<WallClock>,
    /// Who the peer is said to be.
    pub claim: Claim,
}

/// Whose certificate a handshake has to show.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    fingerprint: Fingerprint,
    trust: Option<Trust>,
    /// The peer has shown its certificate before.
    known: bool,
}

/// The certificate that was shown makes nobody the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Untrusted {
    /// It is another one.
    #[error(
        "the peer's certificate is not the one signalled: fingerprint {}, expected {expected}",
        shown.map_or("none".to_owned(), |shown| shown.to_string())
    )]
    Fingerprint {
        /// The one shown, if there was one.
        shown: Option<Fingerprint>,
        /// The one signalled.
        expected: Fingerprint,
    },
    /// The authority does not say what the peer says.
    #[error("the peer is refused: {0}")]
    Refused(#[from] Refused),
}

impl Expected {
    /// The peer with this certificate, and where there is an authority, as whom that says.
    pub(super) fn new(fingerprint: Fingerprint, trust: Option<Trust>) -> Self {
        Self {
            fingerprint,
            trust,
            known: false,
        }
    }

    /// The same peer again. Where there is an authority, it may have been given another certificate
    /// meanwhile that says the same.
    pub(super) fn again(&self) -> Self {
        Self {
            known: true,
            ..self.clone()
        }
    }

    /// Whether the one with these certificates (DER), its own first, is the peer; and what the
    /// authority says of it, where there is one.
    pub(super) fn check(&self, chain: &[Vec<u8>]) -> Result<Option<Certified>, Untrusted> {
        let shown = chain.first().map(|der| fingerprint_of(der));
        let is_pinned = self.trust.is_none() || !self.known;
        if is_pinned && shown != Some(self.fingerprint) {
            return Err(Untrusted::Fingerprint {
                shown,
                expected: self.fingerprint,
            });
        }
        let Some(trust) = &self.trust else {
            return Ok(None);
        };
        let certified = trust.authority.certify(chain, trust.clock.now())?;
        certified.grants(&trust.claim)?;
        Ok(Some(certified))
    }

    /// Whether what `certified` says is no longer so.
    pub(super) fn has_ended(&self, certified: &Certified) -> bool {
        let now = self.trust.as_ref().map(|trust| trust.clock.now());
        now.is_some_and(|now| now > certified.validity.not_after)
    }
}
