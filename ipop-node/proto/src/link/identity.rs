//! The DTLS key and certificate a node shows its peers.

use std::fmt;

use pem::{EncodeConfig, LineEnding, Pem};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::crypto_provider::SignatureScheme;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::provider;
use crate::audit::key_id;
use crate::authority::CERTIFICATE;
use crate::signal::Fingerprint;

/// This node's DTLS key (ECDSA P-256) and certificate.
///
/// Peers know the certificate by the fingerprint that signalling or their configuration told them,
/// and in an overlay with an authority by what it says. One identity serves all links of a process;
/// it outlives the process only where it is in a file.
pub struct Identity {
    certificate: Certificate,
    fingerprint: Fingerprint,
}

/// PEM label (RFC 7468 section 10).
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
    /// The key is missing, or there twice.
    #[error("it must have one `PRIVATE KEY` section, and has {0}")]
    Keys(usize),
    /// There is no certificate.
    #[error("it has no `CERTIFICATE` section")]
    NoCertificate,
    /// The key is of another kind.
    #[error("the key is not an ECDSA key on P-256: {0}")]
    Key(String),
    /// The certificate is another key's.
    #[error("the first certificate is not that of the key")]
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

    /// Reads a PEM text with one PKCS#8 key, before or after its certificate and those between that
    /// and the authority, if there are any.
    pub fn from_pem(text: &str) -> Result<Self, IdentityError> {
        let parts = sections(text)?;
        let key: Vec<_> = parts.iter().filter(|p| p.tag() == PRIVATE_KEY).collect();
        let [key] = key[..] else {
            return Err(IdentityError::Keys(key.len()));
        };
        Self::of_key(key.contents(), &parts)
    }

    /// The same key with the certificates in another PEM text, as [`Self::from_pem`] has them.
    pub fn certified(&self, text: &str) -> Result<Self, IdentityError> {
        Self::of_key(&self.key_der()?, &sections(text)?)
    }

    fn of_key(key: &[u8], parts: &[Pem]) -> Result<Self, IdentityError> {
        let chain = parts.iter().filter(|part| part.tag() == CERTIFICATE);
        let chain: Vec<_> = chain.map(|part| part.contents().to_vec()).collect();
        let der = chain.first().ok_or(IdentityError::NoCertificate)?;
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
        let chain = chain.into_iter().map(Into::into).collect();
        Self::of(Certificate::from_signing_key(chain, key))
    }

    /// The PEM text [`Self::from_pem`] reads. It has the key: it is a secret.
    pub fn to_pem(&self) -> Result<String, IdentityError> {
        let mut parts = vec![Pem::new(PRIVATE_KEY, self.key_der()?)];
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

    /// What its key is known by in records ([`crate::audit::key_id`]).
    pub fn key_id(&self) -> Option<String> {
        self.certificate
            .certificate
            .first()
            .and_then(|der| key_of(der))
    }

    /// The certificate and those between it and the authority, as DER.
    pub fn chain(&self) -> &[impl AsRef<[u8]> + use<>] {
        &self.certificate.certificate
    }

    /// The key, to sign a request with.
    pub(crate) fn key_pair(&self) -> Result<rcgen::KeyPair, rcgen::Error> {
        let key = self
            .key_der()
            .map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        rcgen::KeyPair::try_from(key)
    }

    /// The key in PKCS#8 form (RFC 5208).
    fn key_der(&self) -> Result<Vec<u8>, IdentityError> {
        let key = self.certificate.private_key.signing_key.to_pkcs8_der();
        let key = key
            .map_err(|error| IdentityError::Make(error.to_string()))?
            .ok_or_else(|| IdentityError::Make("the key cannot be taken out".to_owned()))?;
        Ok(key.as_ref().to_vec())
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

fn sections(text: &str) -> Result<Vec<Pem>, IdentityError> {
    pem::parse_many(text).map_err(|error| IdentityError::Pem(error.to_string()))
}

/// What the key of a certificate (DER) is known by in records; nothing where that cannot be read.
pub(super) fn key_of(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(key_id(certificate.public_key().raw))
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
            (key.to_owned(), "no `CERTIFICATE` section"),
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
