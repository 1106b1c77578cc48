//! Writing EC2's answers.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::http::Answer;

/// The namespace of the API version that is spoken.
const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

/// The content of an element.
#[derive(Debug, Default)]
pub(super) struct Xml(String);

impl Xml {
    /// An answer that says nothing but yes.
    pub fn done() -> Self {
        let mut xml = Self::default();
        xml.leaf("return", true);
        xml
    }

    /// An element with text.
    pub fn leaf(&mut self, name: &str, value: impl Display) -> &mut Self {
        let value = escaped(&value.to_string());
        self.0.push_str(&format!("<{name}>{value}</{name}>"));
        self
    }

    /// An element with text, if there is any.
    pub fn maybe(&mut self, name: &str, value: Option<impl Display>) -> &mut Self {
        if let Some(value) = value {
            self.leaf(name, value);
        }
        self
    }

    /// An element with elements.
    pub fn nest(&mut self, name: &str, inner: impl FnOnce(&mut Self)) -> &mut Self {
        self.0.push_str(&format!("<{name}>"));
        inner(self);
        self.0.push_str(&format!("</{name}>"));
        self
    }

    /// A list, each of whose members is an `<item>`.
    pub fn items<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut inner: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        self.nest(name, |list| {
            for item in items {
                list.nest("item", |xml| inner(xml, item));
            }
        })
    }

    /// Text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.0.push_str(&escaped(text));
        self
    }

    /// A `tagSet`.
    pub fn tags(&mut self, tags: &BTreeMap<String, String>) -> &mut Self {
        self.items("tagSet", tags, |xml, (key, value)| {
            xml.leaf("key", key).leaf("value", value);
        })
    }

    /// The answer to `action`.
    pub fn answer(self, action: &str, request_id: &str) -> Answer {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{action}Response xmlns=\"{NAMESPACE}\">\
             <requestId>{request_id}</requestId>{}</{action}Response>",
            self.0
        );
        Answer {
            status: 200,
            headers: vec![("Content-Type", "text/xml;charset=UTF-8".to_owned())],
            body: body.into_bytes(),
        }
    }
}

/// Text as it may stand in an element.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
