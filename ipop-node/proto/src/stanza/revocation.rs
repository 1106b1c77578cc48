//! A revocation list, told to a node by whoever signs for the overlay's authority: an IQ `set` with
//!
//! ```text
//! <list xmlns='urn:ipop:revocation:0'>DER of the list, Base64</list>
//! ```
//!
//! answered with an empty result once it is in force, or when the node has a newer one. Nothing but the
//! signature on the list is believed.

use base64::prelude::{BASE64_STANDARD, Engine};
use xmpp_parsers::minidom::Element;

use super::NS_REVOCATION;
use crate::authority::MAX_LIST;

/// More text than this is not read, in bytes: the largest list in Base64, and line breaks.
const MAX_TEXT: usize = MAX_LIST / 3 * 4 + 4096;

/// No list can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// Another element.
    #[error("no element of {NS_REVOCATION} that is expected")]
    Absent,
    /// Too much to look at.
    #[error("text of {0} bytes, more than {MAX_TEXT}")]
    TooBig(usize),
    /// It is not Base64.
    #[error("unreadable list")]
    Base64,
}

/// What is sent, of a list's DER form.
pub fn to_element(der: &[u8]) -> Element {
    Element::builder("list", NS_REVOCATION)
        .append(BASE64_STANDARD.encode(der))
        .build()
}

/// Whether `payload` is a list.
pub fn is_list(payload: &Element) -> bool {
    payload.is("list", NS_REVOCATION)
}

/// The DER form of what was sent.
pub fn from_element(payload: &Element) -> Result<Vec<u8>, RevocationError> {
    if !is_list(payload) {
        return Err(RevocationError::Absent);
    }
    let bytes: usize = payload.texts().map(str::len).sum();
    if bytes > MAX_TEXT {
        return Err(RevocationError::TooBig(bytes));
    }
    let text = payload
        .text()
        .replace(|c: char| c.is_ascii_whitespace(), "");
    BASE64_STANDARD
        .decode(text)
        .map_err(|_| RevocationError::Base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_list_is_read_as_it_was_written() {
        let der = vec![0xa5; MAX_LIST];
        let text = String::from(&to_element(&der));
        let element: Element = text.parse().expect("XML");
        assert_eq!(from_element(&element), Ok(der));
    }

    #[test]
    fn what_is_none_is_refused() {
        let list = |text: &str| Element::builder("list", NS_REVOCATION).append(text).build();
        assert_eq!(from_element(&list(" AQ\nI= ")), Ok(vec![1, 2]));
        assert_eq!(from_element(&list("*")), Err(RevocationError::Base64));
        let much = "A".repeat(MAX_TEXT + 1);
        let too_big = RevocationError::TooBig(MAX_TEXT + 1);
        assert_eq!(from_element(&list(&much)), Err(too_big));
        let other = Element::builder("list", "urn:ipop:revocation:1").build();
        assert_eq!(from_element(&other), Err(RevocationError::Absent));
    }
}
