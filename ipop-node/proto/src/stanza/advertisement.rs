//! A node's presence payload: `<overlay xmlns='urn:ipop:node:0'>` with a JSON container.

use xmpp_parsers::minidom::Element;

use super::NS_NODE;
use super::json::{self, JsonError};
use crate::config::is_dns_label;
use crate::status::{Advertisement, RoleState};

/// Everything up to the version number at the end of [`NS_NODE`].
const NS_ANY_VERSION: &str = "urn:ipop:node:";

/// Most members a node may be linked to.
const MAX_LINKED: usize = 2048;
/// Longest version, in bytes.
const MAX_VERSION: usize = 64;
/// Longest detail of a failed role that is kept, in characters.
const MAX_DETAIL: usize = 200;
/// How much of a name that is none is shown, in characters.
const SHOWN: usize = 64;

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
    /// The name of the node, or of a member it is linked to, is no DNS label.
    #[error("`{0}` is no node name")]
    Name(String),
    /// More links than an overlay has members.
    #[error("links to {0} members, more than {MAX_LINKED}")]
    Linked(usize),
    /// The version is too long, or not printable ASCII.
    #[error("version of {0} bytes, or not printable; at most {MAX_VERSION} bytes of ASCII")]
    Version(usize),
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
            return json::unwrap(payload)
                .map_err(NotAdvertised::Unreadable)
                .and_then(checked);
        }
        if payload.ns().starts_with(NS_ANY_VERSION) {
            other = Some(payload.ns());
        }
    }
    Err(other.map_or(NotAdvertised::Absent, NotAdvertised::OtherVersion))
}

/// What a peer says is shown, logged and told on: nothing in it may be longer than it can be.
fn checked(mut advertisement: Advertisement) -> Result<Advertisement, NotAdvertised> {
    let linked = &advertisement.linked;
    if linked.len() > MAX_LINKED {
        return Err(NotAdvertised::Linked(linked.len()));
    }
    let mut names = std::iter::once(&advertisement.name).chain(linked);
    if let Some(name) = names.find(|name| !is_dns_label(name)) {
        return Err(NotAdvertised::Name(name.chars().take(SHOWN).collect()));
    }
    let version = &advertisement.version;
    if version.len() > MAX_VERSION || !version.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Err(NotAdvertised::Version(version.len()));
    }
    if let RoleState::Failed { detail } = &mut advertisement.role {
        *detail = detail
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(MAX_DETAIL)
            .collect();
    }
    Ok(advertisement)
}
