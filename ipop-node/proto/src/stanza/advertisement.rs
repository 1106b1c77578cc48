//! A node's presence payload: `<overlay xmlns='urn:ipop:node:0'>` with a JSON container.

use xmpp_parsers::minidom::Element;

use super::NS_NODE;
use super::json::{self, JsonError};
use crate::status::Advertisement;

/// Everything up to the version number at the end of [`NS_NODE`].
const NS_ANY_VERSION: &str = "urn:ipop:node:";

/// Why a presence says nothing about a node.
#[derive(Debug, thiserror::Error)]
pub enum NotAdvertised {
    /// A client that is no node: the provisioner, or a person.
    #[error("no overlay element")]
    Absent,
    /// A node that speaks another version.
    #[error("overlay element of version `{0}` only; this node understands `{NS_NODE}`")]
    OtherVersion(String),
    /// The element is there and cannot be read.
    #[error("unreadable overlay element")]
    Unreadable(#[source] JsonError),
}

/// The presence payload.
pub fn to_element(advertisement: &Advertisement) -> Result<Element, serde_json::Error> {
    json::wrap("overlay", NS_NODE, advertisement)
}

/// Finds the advertisement among the payloads of an available presence.
pub fn find(payloads: &[Element]) -> Result<Advertisement, NotAdvertised> {
    let mut other = None;
    for payload in payloads.iter().filter(|p| p.name() == "overlay") {
        if payload.has_ns(NS_NODE) {
            return json::unwrap(payload).map_err(NotAdvertised::Unreadable);
        }
        if payload.ns().starts_with(NS_ANY_VERSION) {
            other = Some(payload.ns());
        }
    }
    Err(other.map_or(NotAdvertised::Absent, NotAdvertised::OtherVersion))
}
