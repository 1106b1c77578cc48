//! The XML form of what nodes, their administrator and their server tell each other.
//!
//! Pure conversions between the types of [`crate::signal`], [`crate::status`] and
//! [`crate::service`] and the payloads of XMPP stanzas. What comes in is written by others: every
//! deviation is refused with an error that names it, and no input panics.

pub mod advertisement;
pub mod certificate;
pub mod jingle;
mod jingle_parse;
mod json;
pub mod revocation;
pub mod services;
pub mod status;

pub use jingle::{JingleError, JingleFault};

/// Namespace of the Jingle application: IP packets of an overlay.
pub const NS_APPLICATION: &str = "urn:ipop:overlay:0";
/// Namespace of the presence payload that makes a client a node.
pub const NS_NODE: &str = "urn:ipop:node:0";
/// Namespace of a node's question for its certificate.
pub const NS_CERTIFICATE: &str = "urn:ipop:certificate:0";
/// Namespace of a revocation list that a node is told.
pub const NS_REVOCATION: &str = "urn:ipop:revocation:0";
/// Namespace of the status query.
pub const NS_STATUS: &str = "urn:ipop:status:0";
/// Namespace of Jingle's own error conditions (XEP-0166 section 10).
pub const NS_JINGLE_ERRORS: &str = "urn:xmpp:jingle:errors:1";
