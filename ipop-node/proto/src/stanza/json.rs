//! JSON inside stanzas (XEP-0335).

use serde::Serialize;
use serde::de::DeserializeOwned;
use xmpp_parsers::minidom::Element;
use xmpp_parsers::ns;

/// More JSON than this is not read: a node's status is about 1 KiB for each peer.
const MAX_BYTES: usize = 256 * 1024;

/// A JSON container cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// No `<json xmlns='urn:xmpp:json:0'/>` child, or more than one.
    #[error("{0} JSON containers instead of one")]
    Count(usize),
    /// Too much to look at.
    #[error("JSON of {0} bytes, more than {MAX_BYTES}")]
    TooBig(usize),
    /// Not the JSON that is expected.
    #[error("unexpected JSON")]
    Content(#[source] serde_json::Error),
}

/// `<name xmlns='namespace'><json xmlns='urn:xmpp:json:0'>value</json></name>`
pub(super) fn wrap(
    name: &str,
    namespace: &str,
    value: &impl Serialize,
) -> Result<Element, serde_json::Error> {
    let text = ascii(&serde_json::to_string(value)?);
    let json = Element::builder("json", ns::JSON_CONTAINERS)
        .append(text)
        .build();
    Ok(Element::builder(name, namespace).append(json).build())
}

/// The value in the one JSON container of `element`.
pub(super) fn unwrap<T: DeserializeOwned>(element: &Element) -> Result<T, JsonError> {
    let mut containers = element
        .children()
        .filter(|c| c.is("json", ns::JSON_CONTAINERS));
    let (Some(container), 0) = (containers.next(), containers.count()) else {
        let all = element
            .children()
            .filter(|c| c.is("json", ns::JSON_CONTAINERS));
        return Err(JsonError::Count(all.count()));
    };
    let bytes: usize = container.texts().map(str::len).sum();
    if bytes > MAX_BYTES {
        return Err(JsonError::TooBig(bytes));
    }
    serde_json::from_str(&container.text()).map_err(JsonError::Content)
}

/// The same JSON with every character outside printable ASCII as `\uXXXX`: JSON allows characters
/// that XML 1.0 does not (U+FFFE), and outside strings JSON is ASCII anyway.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, ' '..='~') {
            out.push(c);
            continue;
        }
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    out
}
