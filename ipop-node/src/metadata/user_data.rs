//! The form of the user data: `{"version":1,"credentials":{"name":"base64",…}}`.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;

/// The one version there is.
const VERSION: u32 = 1;
/// Longest name of a file.
const NAME_LIMIT: usize = 255;

/// The user data is something else. The content, which is personal, is not shown.
#[derive(Debug, thiserror::Error)]
pub enum UserDataError {
    /// Not JSON, or a key is unknown, missing, twice there or of the wrong type.
    #[error("not in the form expected, at line {line}, column {column}")]
    Form {
        /// Line, from 1.
        line: usize,
        /// Column.
        column: usize,
    },
    /// A version that this program does not know.
    #[error("version {0} is not known to this ipop-node, which knows version {VERSION}")]
    Version(u32),
    /// A name that systemd would not take for a credential's.
    #[error("`{}` is not the name of a credential", .0.escape_debug())]
    Name(String),
    /// A credential's content is not base64.
    #[error("the credential `{0}` is not base64")]
    Content(String),
    /// There are none.
    #[error("no credentials")]
    Empty,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserData {
    version: u32,
    credentials: Credentials,
}

/// A map whose keys occur once.
struct Credentials(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Credentials {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Credentials;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("credentials by name")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Credentials, A::Error> {
                let mut credentials = BTreeMap::new();
                while let Some((name, content)) = map.next_entry()? {
                    if credentials.insert(name, content).is_some() {
                        return Err(serde::de::Error::custom("twice"));
                    }
                }
                Ok(Credentials(credentials))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// Reads user data: credentials by name.
pub fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, UserDataError> {
    let data: UserData = serde_json::from_slice(bytes).map_err(|e| UserDataError::Form {
        line: e.line(),
        column: e.column(),
    })?;
    if data.version != VERSION {
        return Err(UserDataError::Version(data.version));
    }
    if data.credentials.0.is_empty() {
        return Err(UserDataError::Empty);
    }
    let mut credentials = BTreeMap::new();
    for (name, content) in data.credentials.0 {
        if !is_name(&name) {
            return Err(UserDataError::Name(name));
        }
        let content = BASE64_STANDARD
            .decode(content)
            .map_err(|_| UserDataError::Content(name.clone()))?;
        credentials.insert(name, content);
    }
    Ok(credentials)
}

fn is_name(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=NAME_LIMIT).contains(&name.len()) && !name.starts_with('.') && name.chars().all(ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_by_name() {
        let text = r#"{"version":1,"credentials":{"ipop.ca":"eAo=","system.hostname":"YQ=="}}"#;
        let credentials = parse(text.as_bytes()).expect("good");
        assert_eq!(credentials["ipop.ca"], b"x\n");
        assert_eq!(credentials["system.hostname"], b"a");
    }

    #[test]
    fn everything_else_is_refused_by_what_is_wrong_with_it() {
        let cases = [
            "#!/bin/sh",
            "{}",
            r#"{"version":1,"credentials":{},"more":1}"#,
            r#"{"version":1,"credentials":{}}"#,
            r#"{"version":2,"credentials":{"a":"eA=="}}"#,
            r#"{"version":1,"credentials":{"a":7}}"#,
            r#"{"version":1,"credentials":{"a":"eA==","a":"eQ=="}}"#,
            r#"{"version":1,"credentials":{"../a":"eA=="}}"#,
            r#"{"version":1,"credentials":{"..":"eA=="}}"#,
            r#"{"version":1,"credentials":{"":"eA=="}}"#,
            r#"{"version":1,"credentials":{"a":"e"}}"#,
            r#"{"version":1,"credentials":{"a":"eA=="}} {}"#,
        ];
        let said: Vec<_> = cases
            .iter()
            .map(|text| format!("{text}\n  {}", parse(text.as_bytes()).expect_err(text)))
            .collect();
        insta::assert_snapshot!(said.join("\n"));
    }
}
