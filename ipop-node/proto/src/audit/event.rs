//! What a record is of.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// Somebody's machine was invited.
    Invited,
    /// A certificate was signed.
    Certified,
    /// A request for a certificate was refused.
    Refused,
    /// A certificate was put on the revocation list.
    Revoked,
    /// Certificates should have been put on the list, and were not.
    NotRevoked,
    /// A node said that a revocation list is in force there.
    ListInForce,
    /// An account was closed.
    AccountClosed,
    /// The overlay was taken down.
    Destroyed,
    /// A link to a node came up.
    LinkUp,
    /// A link to a node went down.
    LinkDown,
    /// A link was refused, or what somebody claimed.
    LinkRefused,
    /// Packets were dropped that no rule allows.
    Denied,
    /// A node has its next certificate.
    CertificateRenewed,
    /// A machine has a share mounted.
    Mounted,
    /// A machine has it mounted no more.
    Unmounted,
    /// Things happened that have no record, so often.
    LeftOut,
    /// What a newer version writes.
    Other(String),
}

/// The names of those that this version writes.
const NAMES: [(Event, &str); 16] = [
    (Event::Invited, "invited"),
    (Event::Certified, "certified"),
    (Event::Refused, "refused"),
    (Event::Revoked, "revoked"),
    (Event::NotRevoked, "not-revoked"),
    (Event::ListInForce, "list-in-force"),
    (Event::AccountClosed, "account-closed"),
    (Event::Destroyed, "destroyed"),
    (Event::LinkUp, "link-up"),
    (Event::LinkDown, "link-down"),
    (Event::LinkRefused, "link-refused"),
    (Event::Denied, "denied"),
    (Event::CertificateRenewed, "certificate-renewed"),
    (Event::Mounted, "mounted"),
    (Event::Unmounted, "unmounted"),
    (Event::LeftOut, "left-out"),
];

impl Event {
    /// The names of all that this version writes.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(_, name)| *name)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = NAMES.iter().find(|(event, _)| event == self);
        match (known, self) {
            (Some((_, name)), _) => f.pad(name),
            (None, Self::Other(name)) => f.pad(name),
            (None, other) => write!(f, "{other:?}"),
        }
    }
}

impl FromStr for Event {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let known = NAMES.iter().find(|(_, name)| *name == text);
        Ok(known.map_or_else(|| Self::Other(text.to_owned()), |(event, _)| event.clone()))
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Ok(event) = String::deserialize(from)?.parse();
        Ok(event)
    }
}
