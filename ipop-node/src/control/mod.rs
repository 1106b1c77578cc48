//! The control socket: a Unix stream, one JSON request a line, one JSON answer a line.

mod client;
mod server;

use std::path::PathBuf;

use ipop_proto::config::AllowSection;
use ipop_proto::signal::Fingerprint;
use ipop_proto::status::{NodeStatus, PinnedStatus, RoleState};
use serde::{Deserialize, Serialize};

pub use client::{ClientError, ask};
pub use server::{Question, Server, ServerError};

/// Longest request line, in bytes.
const LONGEST_REQUEST: u64 = 64 * 1024;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The node's status.
    Status,
    /// The role's services report how they are.
    Role {
        /// The new state.
        role: RoleState,
    },
    /// The owner approves a peer that waits. One of `code` and `fingerprint` says which one is meant.
    Approve {
        /// Node name or account.
        peer: String,
        /// Comparison code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// Of the peer's certificate.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fingerprint: Option<Fingerprint>,
    },
    /// The owner takes it back.
    Forget {
        /// Node name or account.
        peer: String,
    },
    /// Whoever runs the machine gives the node other rules, to be kept: `policy.keep`.
    Rules {
        /// All that shall be in force; without any, everybody reaches everybody.
        rules: Vec<AllowSection>,
    },
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<NodeStatus>),
    /// Done.
    Done,
    /// To [`Request::Approve`] and [`Request::Forget`]: who that was.
    Pinned(Box<PinnedStatus>),
    /// Understood, and not done.
    NotDone {
        /// Why.
        why: String,
    },
    /// Not understood.
    Error {
        /// What is wrong with the request.
        message: String,
    },
}

/// The default of `node.control` in the configuration.
pub fn default_path() -> PathBuf {
    PathBuf::from("/run/ipop-node/control.sock")
}

#[cfg(test)]
mod tests {
    use ipop_proto::config::parse_rules;

    use super::*;

    #[test]
    fn requests_have_a_stable_form() {
        let role = Request::Role {
            role: RoleState::Failed {
                detail: "no mount".to_owned(),
            },
        };
        for (request, json) in [
            (Request::Status, r#"{"request":"status"}"#),
            (
                role,
                r#"{"request":"role","role":{"state":"failed","detail":"no mount"}}"#,
            ),
            (
                Request::Approve {
                    peer: "b".to_owned(),
                    code: Some("01234".to_owned()),
                    fingerprint: None,
                },
                r#"{"request":"approve","peer":"b","code":"01234"}"#,
            ),
            (
                Request::Forget {
                    peer: "b".to_owned(),
                },
                r#"{"request":"forget","peer":"b"}"#,
            ),
            (
                Request::Rules {
                    rules: parse_rules("[[allow]]\nfrom = \"any\"\nto = \"node:b\"\n")
                        .expect("a rule"),
                },
                r#"{"request":"rules","rules":[{"from":"any","to":"node:b"}]}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).expect("JSON"), json);
            assert_eq!(
                serde_json::from_str::<Request>(json).expect("request"),
                request
            );
        }
        assert!(serde_json::from_str::<Request>(r#"{"request":"reboot"}"#).is_err());
    }
}
