//! The form in which pins are kept: one JSON object.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{Pin, Pins};
use crate::authority::Claim;
use crate::config::is_dns_label;
use crate::signal::Fingerprint;

/// What is written now, and the only one there was.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    pins: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    account: String,
    name: String,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    fingerprint: Fingerprint,
}

/// A text has no pins in it.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// It is no JSON, or not of this form.
    #[error("it is damaged: {0}")]
    Form(#[from] serde_json::Error),
    /// A later version wrote it.
    #[error("it is of version {0}, and this program knows version {VERSION}")]
    Version(u32),
    /// A name is none.
    #[error("`{0}` is no node name")]
    Name(String),
    /// Two entries are of one account, or have a key, a name or an address in common.
    #[error("the entry of `{account}` is in the way of another one: {why}")]
    Twice {
        /// Whose.
        account: String,
        /// What they have in common.
        why: String,
    },
}

impl Pins {
    /// Reads what [`Self::text`] wrote.
    ///
    /// # Errors
    ///
    /// When it is anything else: pins that cannot be read are not none.
    pub fn parse(text: &str) -> Result<Self, PinsError> {
        let file: File = serde_json::from_str(text)?;
        if file.version != VERSION {
            return Err(PinsError::Version(file.version));
        }
        let mut pins = Self::default();
        for entry in file.pins {
            if !is_dns_label(&entry.name) {
                return Err(PinsError::Name(entry.name));
            }
            let account = entry.account.clone();
            let twice = |why| PinsError::Twice { account, why };
            if pins.of_account(&entry.account).is_some() {
                return Err(twice("it is there twice".to_owned()));
            }
            pins = pins.with(entry.into()).map_err(twice)?;
        }
        Ok(pins)
    }

    /// To be kept.
    ///
    /// # Errors
    ///
    /// Those of writing JSON, which are none.
    pub fn text(&self) -> Result<String, serde_json::Error> {
        let file = File {
            version: VERSION,
            pins: self.iter().map(Entry::from).collect(),
        };
        serde_json::to_string_pretty(&file).map(|text| text + "\n")
    }
}

impl From<Entry> for Pin {
    fn from(entry: Entry) -> Self {
        Self {
            account: entry.account,
            claim: Claim {
                name: entry.name,
                ipv4: entry.ipv4,
                ipv6: entry.ipv6,
            },
            fingerprint: entry.fingerprint,
        }
    }
}

impl From<&Pin> for Entry {
    fn from(pin: &Pin) -> Self {
        Self {
            account: pin.account.clone(),
            name: pin.claim.name.clone(),
            ipv4: pin.claim.ipv4,
            ipv6: pin.claim.ipv6,
            fingerprint: pin.fingerprint,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::pin;
    use super::*;

    #[test]
    fn pins_are_read_as_they_were_written() {
        let none = Pins::default();
        assert_eq!(
            Pins::parse(&none.text().expect("JSON")).expect("its own"),
            none
        );
        let pins = none
            .with(pin(1))
            .and_then(|pins| pins.with(pin(2)))
            .expect("two");
        let text = pins.text().expect("JSON");
        assert_eq!(Pins::parse(&text).expect("its own"), pins);
    }

    #[test]
    fn a_damaged_text_is_no_empty_one() {
        let pins = Pins::default().with(pin(1)).expect("one");
        let pins = pins.with(pin(2)).expect("two");
        let text = pins.text().expect("JSON");
        // However much of it is lost, but for the newline.
        for end in 0..text.len() - 1 {
            Pins::parse(&text[..end]).expect_err("half a file");
        }
        for (wrong, problem) in [
            (
                text.replace("\"version\": 1", "\"version\": 2"),
                "it is of version 2",
            ),
            (text.replace("node-2@demo", "node-1@demo"), "is there twice"),
            (
                text.replace("10.73.0.2", "10.73.0.1"),
                "it claims 10.73.0.1",
            ),
            (
                text.replace("\"node-2\"", "\"node 2\""),
                "`node 2` is no node name",
            ),
            (text.replace("\"name\"", "\"nick\""), "unknown field `nick`"),
        ] {
            let error = Pins::parse(&wrong).expect_err(problem).to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
