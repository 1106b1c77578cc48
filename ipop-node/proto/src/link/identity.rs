//! The DTLS key and certificate a node shows its peers.

use std::fmt;

use pem::{EncodeConfig, LineEnding, Pem};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::crypto_provider::SignatureScheme;
use sha2::{Digest, Sha256};

use super::provider;
use crate::signal::Fingerprint;

/// This node's DTLS key (ECDSA P-256) and self-signed certificate.
///
/// Peers know the certificate by the fingerprint that signalling or their configuration told them,
/// not by a CA. One identity serves all links of a process; it outlives the process only where peers
/// have it in their configuration.
pub struct Identity {
    certificate: Certificate,
    fingerprint: Fingerprint,
}

/// PEM labels (RFC 7468 sections 5 and 10).
const CERTIFICATE: &str = "CERTIFICATE";
const PRIVATE_KEY: &str = "PRIVATE KEY";

/// There is no identity to be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key or the certificate could not be made, or not be written as text.
    #[error("cannot make a DTLS certificate: {0}")]
    Make(String),
    /// A text is not PEM.
    #[error("not PEM: {0}")]
    Pem(String),
    /// A part is missing, or there twice.
    #[error("it must have one `{0}` section, and has {1}")]
    Sections(&'static str, usize),
    /// The key is of another kind.
    #[error("the key is not an ECDSA key on P-256: {0}")]
    Key(String),
    /// The certificate is another key's.
    #[error("the certificate is not that of the key")]
    Mismatch,
}

impl Identity {
    /// Makes a new key and certificate. The key comes from the crypto library's own generator.
    pub fn generate() -> Result<Self, IdentityError> {
        // ECDSA P-256 is what this constructor makes; the name in the certificate is never used.
        let certificate =
            Certificate::generate_self_signed(vec!["ipop".to_owned()], provider().crypto())
                .map_err(|error| IdentityError::Make(error.to_string()))?;
        Self::of(certificate)
    }

    /// Reads a PEM text with one PKCS#8 key and its certificate, in any order.
    pub fn from_pem(text: &str) -> Result<Self, IdentityError> {
        let parts = pem::parse_many(text).map_err(|error| IdentityError::Pem(error.to_string()))?;
        let only = |label| {
            let of_label: Vec<_> = parts.iter().filter(|part| part.tag() == label).collect();
            match of_label[..] {
                [part] => Ok(part.contents()),
                _ => Err(IdentityError::Sections(label, of_label.len())),
            }
        };
        let (key, der) = (only(PRIVATE_KEY)?, only(CERTIFICATE)?);
        let key = provider()
            .crypto()
            .import_signing_key(SignatureScheme::EcdsaP256Sha256, key)
            .map_err(|error| IdentityError::Key(error.to_string()))?;
        // The certificate has the key in the same form, an uncompressed point (RFC 5480 section
        // 2.2), as the last thing in a structure of its own.
        let point = key.public_key().bytes.to_vec();
        if !der.windows(point.len()).any(|part| part == point) {
            return Err(IdentityError::Mismatch);
        }
        Self::of(Certificate::from_signing_key(
            vec![der.to_vec().into()],
            key,
        ))
    }

    /// The PEM text [`Self::from_pem`] reads. It has the key: it is a secret.
    pub fn to_pem(&self) -> Result<String, IdentityError> {
        let key = self.certificate.private_key.signing_key.to_pkcs8_der();
        let key = key
            .map_err(|error| IdentityError::Make(error.to_string()))?
            .ok_or_else(|| IdentityError::Make("the key cannot be taken out".to_owned()))?;
        let mut parts = vec![Pem::new(PRIVATE_KEY, key.as_ref())];
        for der in &self.certificate.certificate {
            parts.push(Pem::new(CERTIFICATE, der.as_ref()));
        }
        let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
        Ok(pem::encode_many_config(&parts, config))
    }

    fn of(certificate: Certificate) -> Result<Self, IdentityError> {
        let der = certificate
            .certificate
            .first()
            .ok_or_else(|| IdentityError::Make("no certificate came out".to_owned()))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_being_written_in_any_order() {
        let identity = Identity::generate().expect("an identity");
        let text = identity.to_pem().expect("PEM");
        let (key, certificate) = text.split_at(text.find("-----BEGIN CERT").expect("there"));
        for text in [&text, &format!("{certificate}{key}")] {
            let read = Identity::from_pem(text).expect("its own text");
            assert_eq!(read.fingerprint(), identity.fingerprint());
        }
        let other = Identity::generate().expect("an identity");
        let foreign = other.to_pem().expect("PEM");
        let foreign = &foreign[foreign.find("-----BEGIN CERT").expect("there")..];
        for (text, problem) in [
            (String::new(), "one `PRIVATE KEY` section, and has 0"),
            (key.to_owned(), "one `CERTIFICATE` section, and has 0"),
            (
                format!("{text}{key}"),
                "one `PRIVATE KEY` section, and has 2",
            ),
            (format!("{key}{foreign}"), "not that of the key"),
            (
                text.replace("CERTIFICATE", "PRIVATE KEY").replacen(
                    "PRIVATE KEY",
                    "CERTIFICATE",
                    2,
                ),
                "not an ECDSA key",
            ),
        ] {
            let error = Identity::from_pem(&text).expect_err(problem).to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
