//! Who was let in, refused or taken out: records that are kept in a file, one line of JSON each, and can be
//! exported.
//!
//! Names, accounts and reasons may be what a stranger sent: they are data, and shortened to [`MOST_TEXT`].
//! No record has a secret; a key is known by the SHA-256 of its SubjectPublicKeyInfo.

mod event;
mod limit;
mod time;

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use event::Event;
pub use limit::{Limiter, Repeats};
pub use time::{BadTime, Timestamp};

/// Characters of a text that a stranger may have chosen.
pub const MOST_TEXT: usize = 300;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, by the clock of whoever wrote it.
    pub time: Timestamp,
    /// What.
    pub event: Event,
    /// The node that it is about, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The person whose machine that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// The account (a bare JID) that it came by, or the peer's name by configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The node's key: SHA-256 of its SubjectPublicKeyInfo in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The serial number of its certificate, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The number of a revocation list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<u64>,
    /// Overlay addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addrs: Vec<String>,
    /// Who did it, or says so: `owner` (a command), `registrar`, or a node's name.
    #[serde(default)]
    pub by: String,
    /// Why, or how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How often, where one record stands for several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Record {
    /// A record without details.
    pub fn new(event: Event, now: SystemTime) -> Self {
        Self {
            time: Timestamp(now),
            event,
            node: None,
            person: None,
            account: None,
            key: None,
            serial: None,
            list: None,
            addrs: Vec::new(),
            by: String::new(),
            why: None,
            count: None,
        }
    }

    /// The record as it is kept: one line with its end.
    ///
    /// # Errors
    ///
    /// Those of `serde_json`, which has none for a record.
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        let mut record = self.clone();
        let texts = [
            &mut record.node,
            &mut record.person,
            &mut record.account,
            &mut record.why,
        ];
        for text in texts.into_iter().flatten() {
            shorten(text);
        }
        let mut line = serde_json::to_string(&record)?;
        line.push('\n');
        Ok(line)
    }

    /// Reads a line that was kept. Fields that a newer version added are left out.
    ///
    /// # Errors
    ///
    /// When it is no record.
    pub fn from_line(line: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(line)
    }
}

/// What a key is known by: SHA-256 of its SubjectPublicKeyInfo (DER) in hexadecimal digits.
pub fn key_id(subject_public_key_info: &[u8]) -> String {
    let digest = Sha256::digest(subject_public_key_info);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(MOST_TEXT) {
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn record() -> Record {
        Record {
            node: Some("alice-laptop".to_owned()),
            person: Some("alice".to_owned()),
            key: Some(key_id(b"key")),
            serial: Some("01ff".to_owned()),
            by: "registrar".to_owned(),
            ..Record::new(
                Event::Certified,
                UNIX_EPOCH + Duration::from_millis(1_764_202_901_007),
            )
        }
    }

    #[test]
    fn a_record_is_one_line_that_is_read_as_it_was_written() {
        let record = record();
        let line = record.to_line().expect("JSON");
        assert_eq!(
            line,
            format!(
                "{{\"time\":\"2025-11-27T00:21:41.007Z\",\"event\":\"certified\",\
                 \"node\":\"alice-laptop\",\"person\":\"alice\",\"key\":\"{}\",\"serial\":\"01ff\",\
                 \"by\":\"registrar\"}}\n",
                key_id(b"key")
            )
        );
        assert_eq!(Record::from_line(&line).expect("a record"), record);
        // As a newer version may write it.
        let newer = line
            .replace("certified", "promoted")
            .replace("{", "{\"more\":1,");
        let read = Record::from_line(&newer).expect("a record");
        assert_eq!(read.event.to_string(), "promoted");
        assert_eq!(
            read.to_line().expect("JSON"),
            newer.replace("\"more\":1,", "")
        );
    }

    #[test]
    fn what_a_stranger_sends_is_one_line_and_short() {
        let sent = Record {
            account: Some("x\ny\u{1b}[2J".to_owned()),
            why: Some("ü".repeat(10_000)),
            ..record()
        };
        let line = sent.to_line().expect("JSON");
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.contains('\u{1b}') && line.len() < 1200, "{line}");
        let read = Record::from_line(&line).expect("a record");
        assert_eq!(read.account, sent.account);
        assert_eq!(read.why.map(|why| why.chars().count()), Some(MOST_TEXT + 1));
    }
}
