//! The control socket: a Unix stream, one JSON request a line, one JSON answer a line.

mod client;
mod server;

use std::path::PathBuf;

use ipop_proto::status::{NodeStatus, RoleState};
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
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<NodeStatus>),
    /// Done.
    Done,
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
