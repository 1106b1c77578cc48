//! The DTLS key and certificate a node shows its peers.

use std::fmt;

use rtc_dtls::crypto::Certificate;
use sha2::{Digest, Sha256};

use super::provider;
use crate::signal::Fingerprint;

/// This node's DTLS key (ECDSA P-256) and self-signed certificate.
///
/// Peers know the certificate by the fingerprint that signalling told them, not by a CA, so one
/// identity serves all links of a process and need not outlive it.
pub struct Identity {
    certificate: Certificate,
    fingerprint: Fingerprint,
}

/// The key or the certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a DTLS certificate: {0}")]
pub struct IdentityError(String);

impl Identity {
    /// Makes a new key and certificate. The key comes from the crypto library's own generator.
    pub fn generate() -> Result<Self, IdentityError> {
        // ECDSA P-256 is what this constructor makes; the name in the certificate is never used.
        let certificate =
            Certificate::generate_self_signed(vec!["ipop".to_owned()], provider().crypto())
                .map_err(|error| IdentityError(error.to_string()))?;
        let der = certificate
            .certificate
            .first()
            .ok_or_else(|| IdentityError("no certificate came out".to_owned()))?;
        let fingerprint = fingerprint_of(der);
        Ok(Self {
            certificate,
            fingerprint,
        })
    }

    /// What a [`LinkDescription`](crate::signal::LinkDescription) says of this identity.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Key and certificate for a handshake.
    pub(super) fn certificate(&self) -> Certificate {
        self.certificate.clone()
    }
}

impl fmt::Debug for Identity {
    /// The key stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// SHA-256 over a certificate's DER form (RFC 8122 section 5).
pub(super) fn fingerprint_of(der: &[u8]) -> Fingerprint {
    Fingerprint(Sha256::digest(der).into())
}
