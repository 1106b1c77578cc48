//! Who may be a node of an overlay, and as whom: certificates of the overlay's authority.
//!
//! An overlay with an authority believes nobody else about its nodes, the XMPP server least of all.
//! A node's certificate (X.509 version 3, RFC 5280) says
//!
//! - in its subjectAltName, as the only dNSName, `NAME.OVERLAY.ipop`: its `node.name` and the
//!   `overlay.name` that it is for, so that an authority can have several overlays;
//! - in its subjectAltName, as iPAddress, the overlay addresses that are its own, of either family at
//!   least one;
//! - in its subject, as organizationalUnitName, its role, if it has one;
//! - in its subjectDirectoryAttributes, the groups that it is in ([`groups`]), if there are any;
//! - that its key is for signatures (keyUsage digitalSignature) and for both ends of a link
//!   (extendedKeyUsage serverAuth and clientAuth), since either node may be the DTLS client.
//!
//! Paths are validated by `webpki`, which rustls has for the same purpose, against the time that the
//! caller gives; what is read here is what a validated certificate says. [`issue`] makes them.
//!
//! A certificate that is good no more is on the authority's revocation list, which nodes tell each
//! other ([`crate::gossip`]). The newest one that was [taken](Authority::take) counts in every
//! validation, and nothing makes a node go back to an older one.

mod anchor;
mod certified;
mod clock;
pub mod groups;
pub mod issue;
mod list;
pub mod proof;
mod revoke;
mod serial;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, ServerName};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage};

use self::anchor::Anchor;
pub use self::anchor::AuthorityId;
pub(crate) use self::certified::DOMAIN;
pub use self::certified::{Certified, Claim, Validity, dns_name};
pub use self::clock::WallClock;
pub use self::list::{ListError, MAX_LIST, RevocationList};
pub use self::serial::{Serial, SerialError};

/// PEM label of a certificate (RFC 7468 section 5).
pub(crate) const CERTIFICATE: &str = "CERTIFICATE";

/// The certificates that a node of one overlay has to chain to, and the newest revocation lists.
#[derive(Debug)]
pub struct Authority {
    overlay: String,
    anchors: Vec<Anchor>,
}

/// There is no authority to be had.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The text is not PEM.
    #[error("not PEM: {0}")]
    Pem(String),
    /// The text has no certificate.
    #[error("it has no `{CERTIFICATE}` section")]
    Empty,
    /// A certificate cannot be an authority's.
    #[error("certificate {at} cannot be used: {problem}")]
    Unusable {
        /// Which one, counted from 1.
        at: usize,
        /// Why.
        problem: String,
    },
}

/// Why a certificate makes nobody the node that it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is none.
    #[error("it shows no certificate")]
    None,
    /// None of the authority's own certificates is valid at this time.
    #[error("the authority's own certificate is not valid now")]
    NoAuthority,
    /// It does not chain to the authority.
    #[error("the certificate is not of this overlay's authority")]
    Stranger,
    /// It, or one between it and the authority, is not valid any more.
    #[error("the certificate ended on {0}")]
    Ended(String),
    /// It, or one between it and the authority, is not valid yet.
    #[error("the certificate begins on {0}")]
    NotYet(String),
    /// It, or one between it and the authority, is on the authority's revocation list.
    #[error("the certificate is revoked")]
    Revoked,
    /// It cannot be used for another reason.
    #[error("the certificate cannot be used: {0}")]
    Unusable(String),
    /// It is another overlay's.
    #[error("the certificate is for overlay `{certified}`, and this is `{own}`")]
    Overlay {
        /// The overlay that it is for.
        certified: String,
        /// The overlay that this is.
        own: String,
    },
    /// It says another name.
    #[error("it calls itself {claim}, and the certificate says {certified}")]
    Name {
        /// What is claimed.
        claim: String,
        /// What the certificate says.
        certified: String,
    },
    /// It says other addresses.
    #[error("it claims the addresses of {claim}, and the certificate says {certified}")]
    Address {
        /// What is claimed.
        claim: String,
        /// What the certificate says.
        certified: String,
    },
}

impl Authority {
    /// Reads the PEM text of one certificate, or of several while one follows another; other
    /// sections are passed over. Believed are nodes of `overlay` only.
    pub fn from_pem(text: &str, overlay: &str) -> Result<Self, AuthorityError> {
        let parts =
            pem::parse_many(text).map_err(|error| AuthorityError::Pem(error.to_string()))?;
        let mut anchors = Vec::new();
        for part in parts.iter().filter(|part| part.tag() == CERTIFICATE) {
            let anchor =
                Anchor::new(part.contents()).map_err(|problem| AuthorityError::Unusable {
                    at: anchors.len() + 1,
                    problem,
                })?;
            anchors.push(anchor);
        }
        if anchors.is_empty() {
            return Err(AuthorityError::Empty);
        }
        Ok(Self {
            overlay: overlay.to_owned(),
            anchors,
        })
    }

    /// Takes a revocation list, and gives it back if it is newer than the one there was.
    ///
    /// # Errors
    ///
    /// When it is older, or another authority's.
    pub fn take(&self, list: RevocationList) -> Result<Option<Arc<RevocationList>>, ListError> {
        let list = Arc::new(list);
        let mut taken = Err(ListError::Stranger);
        // Several while one certificate of the same key follows another.
        for anchor in self.anchors.iter().filter(|a| a.has_signed(&list)) {
            let is_newer = anchor.take(&list)?;
            taken = taken.map_or(Ok(is_newer), |before| Ok(before || is_newer));
        }
        Ok(taken?.then_some(list))
    }

    /// The newest lists, each with its authority; one that has none is left out.
    pub fn lists(&self) -> Vec<(AuthorityId, Arc<RevocationList>)> {
        let mut lists: Vec<(_, Arc<_>)> = Vec::new();
        for anchor in &self.anchors {
            if let Some(list) = anchor.list()
                && lists.iter().all(|(id, _)| *id != anchor.id)
            {
                lists.push((anchor.id, list));
            }
        }
        lists
    }

    /// The authorities that there are, one or, while one follows another, several.
    pub fn ids(&self) -> Vec<AuthorityId> {
        self.anchors.iter().map(|anchor| anchor.id).collect()
    }

    /// What the first certificate of `chain` (DER) says of its node, if it is one of this overlay at
    /// the time `now`; the others are those between it and the authority.
    pub fn certify(
        &self,
        chain: &[impl AsRef<[u8]>],
        now: SystemTime,
    ) -> Result<Certified, Refused> {
        let mut chain = chain.iter().map(|der| CertificateDer::from(der.as_ref()));
        let leaf = chain.next().ok_or(Refused::None)?;
        let between: Vec<_> = chain.collect();
        let end = EndEntityCert::try_from(&leaf)?;
        let mut validated = Err(Refused::NoAuthority);
        // A path ends at an anchor whatever that says of itself (RFC 5280 section 6.1.1 (d)). Each
        // is tried alone, since a list is that of one key, and two may have one name.
        for anchor in self.anchors.iter().filter(|a| a.validity.has(now)) {
            let tried = anchor.validate(|anchors, lists| {
                end.verify_for_usage(
                    ALL_VERIFICATION_ALGS,
                    anchors,
                    &between,
                    clock::unix(now),
                    KeyUsage::server_auth(),
                    lists,
                    None,
                )
                .map(|_| ())
            });
            validated = match (validated, tried) {
                (_, Ok(())) => Ok(()),
                (Err(Refused::NoAuthority | Refused::Stranger), Err(error)) => Err(error.into()),
                (before, Err(_)) => before,
            };
        }
        validated?;
        let certified = Certified::read(&leaf).map_err(Refused::Unusable)?;
        // Two parsers have to agree on every name that anything is decided by.
        let dns_name = dns_name(&certified.name, &certified.overlay);
        let dns_name =
            ServerName::try_from(dns_name).map_err(|error| Refused::Unusable(error.to_string()))?;
        let addrs = certified.addrs.iter();
        for name in addrs.map(|ip| ServerName::from(*ip)).chain([dns_name]) {
            end.verify_is_valid_for_subject_name(&name)?;
        }
        if certified.overlay != self.overlay {
            return Err(Refused::Overlay {
                certified: certified.overlay,
                own: self.overlay.clone(),
            });
        }
        Ok(certified)
    }
}

impl From<webpki::Error> for Refused {
    fn from(error: webpki::Error) -> Self {
        match error {
            // The latter when somebody else's has the authority's name.
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                Self::Stranger
            }
            webpki::Error::CertExpired { not_after, .. } => {
                Self::Ended(clock::date(not_after.as_secs()))
            }
            webpki::Error::CertNotValidYet { not_before, .. } => {
                Self::NotYet(clock::date(not_before.as_secs()))
            }
            webpki::Error::CertRevoked => Self::Revoked,
            other => Self::Unusable(other.to_string()),
        }
    }
}
