//! What two nodes tell each other to set up a link, apart from its XML form.
//!
//! The form on the wire is Jingle (XEP-0166) with the ICE-UDP transport (XEP-0176) and DTLS
//! fingerprints (XEP-0320); see the `stanza` module.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::candidate::Candidate;

/// Identifies one Jingle session between two nodes; chosen by the initiator, never reused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub String);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 over the DER form of a node's DTLS certificate (RFC 8122).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    /// Upper-case hex pairs joined by colons, as in RFC 8122 section 5.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(":")?;
            }
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}

/// A text is no SHA-256 fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no SHA-256 fingerprint: 32 pairs of hexadecimal digits with colons between")]
pub struct FingerprintError(String);

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// The form of [`Display`](fmt::Display), in either case, also after the name of the hash as
    /// in RFC 8122 section 5: `sha-256 AA:BB:…`.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let error = || FingerprintError(text.to_owned());
        let pairs = match text.split_once(' ') {
            Some((hash, pairs)) if hash.eq_ignore_ascii_case("sha-256") => pairs,
            Some(_) => return Err(error()),
            None => text,
        };
        let mut bytes = [0; 32];
        let mut pairs = pairs.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().ok_or_else(error)?;
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(error());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
        }
        match pairs.next() {
            Some(_) => Err(error()),
            None => Ok(Self(bytes)),
        }
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The DTLS role a side offers (RFC 5763 section 5, `a=setup`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// Offer: either role. Only in `Initiate`.
    Actpass,
    /// The side that sends the ClientHello. The answer to `Actpass`.
    Active,
    /// The side that waits for the ClientHello.
    Passive,
}

/// One side's half of a link: ICE credentials, the certificate to expect, and the candidates
/// known so far.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkDescription {
    /// ICE username fragment.
    pub ufrag: String,
    /// ICE password.
    pub pwd: String,
    /// Fingerprint of the sender's DTLS certificate.
    pub fingerprint: Fingerprint,
    /// DTLS role.
    pub setup: Setup,
    /// Candidates known when it was sent; more follow as `Signal::Candidates`.
    pub candidates: Vec<Candidate>,
}

impl fmt::Debug for LinkDescription {
    /// The ICE password stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkDescription")
            .field("ufrag", &self.ufrag)
            .field("fingerprint", &self.fingerprint)
            .field("setup", &self.setup)
            .field("candidates", &self.candidates)
            .finish_non_exhaustive()
    }
}

/// Why a session ended (XEP-0166 section 7.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TerminateReason {
    /// The node leaves or the peer is no longer a member.
    Success,
    /// No candidate pair worked, or the pair in use stopped working.
    ConnectivityError,
    /// The DTLS handshake failed or showed another certificate than signalled.
    SecurityError,
    /// The other session between the same two nodes is kept.
    AlternativeSession,
    /// The message made no sense to the sender of this reason.
    GeneralError,
}

/// One signalling message of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// `session-initiate`: the initiator's half.
    Initiate {
        /// New session.
        sid: SessionId,
        /// Initiator's half.
        description: LinkDescription,
    },
    /// `session-accept`: the responder's half.
    Accept {
        /// Session being accepted.
        sid: SessionId,
        /// Responder's half.
        description: LinkDescription,
    },
    /// `transport-info`: candidates found since.
    Candidates {
        /// Session they belong to.
        sid: SessionId,
        /// Username fragment of the half they belong to; stale ones are dropped.
        ufrag: String,
        /// The candidates.
        candidates: Vec<Candidate>,
    },
    /// `session-terminate`.
    Terminate {
        /// Session that ends.
        sid: SessionId,
        /// Why.
        reason: TerminateReason,
    },
}
