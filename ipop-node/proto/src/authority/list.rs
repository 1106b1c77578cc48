//! Revocation lists: what the authority says of certificates that are good no more (RFC 5280 section
//! 5).
//!
//! A list is whole, with no deltas and no parts, and has a number (cRLNumber). The one with the
//! highest number counts, for as long as there is none with a higher one: nodes look at neither
//! thisUpdate nor nextUpdate, since a member that is cut off from all others for a while is not to
//! lose its links by that, and a list is only made when somebody is revoked.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pem::{EncodeConfig, LineEnding, Pem};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::Serial;

/// Largest list that nodes take, in bytes of DER: more than 1700 certificates whose serial numbers have
/// 16 octets.
pub const MAX_LIST: usize = 64 * 1024;

/// PEM label (RFC 7468 section 6).
const X509_CRL: &str = "X509 CRL";

/// Why a revocation list is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// The text is not PEM.
    #[error("not PEM: {0}")]
    Pem(String),
    /// It is larger than [`MAX_LIST`].
    #[error("it has {0} bytes, and {MAX_LIST} are the most")]
    TooLarge(usize),
    /// It is none, or has what nobody here understands and must not leave out.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It has no number, or one that is above all bounds.
    #[error("it has no number (cRLNumber) below 2^64")]
    NoNumber,
    /// It is not about all certificates of the authority.
    #[error("it is about some certificates only (issuingDistributionPoint)")]
    Partial,
    /// It is another authority's, or nobody's.
    #[error("it is not signed by this overlay's authority")]
    Stranger,
    /// Whoever sent it said that it has another number.
    #[error("it is said to have another number")]
    Misnumbered,
    /// A newer one is known.
    #[error("its number is {number}, and {held} is known")]
    Old {
        /// Its number.
        number: u64,
        /// That of the newer one.
        held: u64,
    },
}

/// A revocation list, whoever signed it.
pub struct RevocationList {
    der: Vec<u8>,
    number: u64,
    revoked: BTreeMap<Serial, SystemTime>,
    crl: CertRevocationList<'static>,
}

impl RevocationList {
    /// Reads the DER form. Who signed it is not looked at.
    pub fn from_der(der: &[u8]) -> Result<Self, ListError> {
        if der.len() > MAX_LIST {
            return Err(ListError::TooLarge(der.len()));
        }
        // What paths are validated with. All of it is read here, so that nothing in a list that
        // was taken makes certificates fail that are not on it.
        let crl = OwnedCertRevocationList::from_der(der);
        let crl = crl.map_err(|error| ListError::Unreadable(error.to_string()))?;
        let crl = CertRevocationList::from(crl);
        if crl.issuing_distribution_point().is_some() {
            return Err(ListError::Partial);
        }
        let parsed = parse(der)?;
        let number = parsed.crl_number().and_then(|n| u64::try_from(n).ok());
        let revoked = parsed.iter_revoked_certificates().map(|entry| {
            let seconds = entry.revocation_date.timestamp().try_into().unwrap_or(0);
            let serial = Serial::new(entry.raw_serial())
                .ok_or_else(|| ListError::Unreadable("a serial number is none".to_owned()))?;
            Ok((serial, UNIX_EPOCH + Duration::from_secs(seconds)))
        });
        Ok(Self {
            number: number.ok_or(ListError::NoNumber)?,
            revoked: revoked.collect::<Result<_, _>>()?,
            der: der.to_vec(),
            crl,
        })
    }

    /// Reads all lists in a PEM text; other sections are passed over.
    pub fn from_pem(text: &str) -> Result<Vec<Self>, ListError> {
        let parts = pem::parse_many(text).map_err(|error| ListError::Pem(error.to_string()))?;
        let lists = parts.iter().filter(|part| part.tag() == X509_CRL);
        lists.map(|part| Self::from_der(part.contents())).collect()
    }

    /// The PEM form.
    pub fn pem(&self) -> String {
        let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
        pem::encode_config(&Pem::new(X509_CRL, self.der.as_slice()), config)
    }

    /// The DER form.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its number: of two lists of one authority, the one with the higher number counts.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The certificates on it, and when each came there.
    pub fn revoked(&self) -> &BTreeMap<Serial, SystemTime> {
        &self.revoked
    }

    /// What paths are validated with.
    pub(super) fn crl(&self) -> &CertRevocationList<'static> {
        &self.crl
    }

    /// Whether it is the list of the authority with this name and this key (DER of the certificate's
    /// subject and subjectPublicKeyInfo).
    pub(super) fn is_signed_by(&self, subject: &[u8], key: &[u8]) -> bool {
        let Ok(list) = parse(&self.der) else {
            return false;
        };
        let key = x509_parser::x509::SubjectPublicKeyInfo::from_der(key);
        let is_signed = key.is_ok_and(|(_, key)| list.verify_signature(&key).is_ok());
        is_signed && list.issuer().as_raw() == subject
    }
}

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationList")
            .field("number", &self.number)
            .field("revoked", &self.revoked.len())
            .finish_non_exhaustive()
    }
}

fn parse(der: &[u8]) -> Result<CertificateRevocationList<'_>, ListError> {
    match CertificateRevocationList::from_der(der) {
        Ok(([], list)) => Ok(list),
        Ok(_) => Err(ListError::Unreadable("something follows it".to_owned())),
        Err(error) => Err(ListError::Unreadable(error.to_string())),
    }
}
