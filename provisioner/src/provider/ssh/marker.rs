//! What a host says about whose it is.

use serde::{Deserialize, Serialize};

use crate::name::NodeName;
use crate::provider::Tags;

/// The content of `/var/lib/ipop-node/member.json`: one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Installation and deployment.
    #[serde(flatten)]
    pub tags: Tags,
    /// Node.
    pub node: NodeName,
}

impl Marker {
    /// Reads one.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text.trim()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_has_the_form_that_scripts_look_for() {
        let marker = Marker {
            tags: Tags {
                owner: "0123456789abcdef".to_owned(),
                deployment: "demo".to_owned(),
                uid: "fedcba9876543210".to_owned(),
            },
            node: NodeName("worker-0".to_owned()),
        };
        let text = serde_json::to_string(&marker).expect("JSON");
        assert!(text.contains(r#""uid":"fedcba9876543210""#), "{text}");
        assert!(!text.contains('\n'));
        assert_eq!(Marker::parse(&format!("{text}\n")), Some(marker));
    }
}
