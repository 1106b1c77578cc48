//! The status query: an IQ `get` with `<status xmlns='urn:ipop:status:0'/>`, answered with the
//! same element around the JSON of a [`NodeStatus`].

use xmpp_parsers::minidom::Element;

use super::NS_STATUS;
use super::json;
pub use super::json::JsonError;
use crate::status::NodeStatus;

/// The answer to a status query is none.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Another element, or no element.
    #[error("no status element in the answer")]
    Absent,
    /// The element is there and cannot be read.
    #[error("unreadable status")]
    Unreadable(#[source] JsonError),
}

/// The query.
pub fn query() -> Element {
    Element::bare("status", NS_STATUS)
}

/// Whether `payload` is the query.
pub fn is_query(payload: &Element) -> bool {
    payload.is("status", NS_STATUS)
}

/// The answer.
pub fn to_element(status: &NodeStatus) -> Result<Element, serde_json::Error> {
    json::wrap("status", NS_STATUS, status)
}

/// Reads the answer.
pub fn from_element(payload: Option<&Element>) -> Result<NodeStatus, StatusError> {
    let payload = payload.filter(|p| is_query(p)).ok_or(StatusError::Absent)?;
    json::unwrap(payload).map_err(StatusError::Unreadable)
}
