//! `NAME/NODE`, as `ssh` and `logs` take it.

use std::str::FromStr;

/// A node of a deployment, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The deployment.
    pub deployment: String,
    /// The node, or `all`.
    pub node: String,
}

/// The word that means every node of the deployment.
pub const ALL: &str = "all";

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((deployment, node)) if !deployment.is_empty() && !node.is_empty() => Ok(Self {
                deployment: deployment.to_owned(),
                node: node.to_owned(),
            }),
            _ => Err("write it as NAME/NODE, like cluster/worker-0".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_a_deployment_and_a_node() {
        let target: Target = "demo/worker-0".parse().expect("valid");
        assert_eq!(
            (target.deployment.as_str(), target.node.as_str()),
            ("demo", "worker-0")
        );
        for bad in ["demo", "/worker-0", "demo/", ""] {
            assert!(
                bad.parse::<Target>()
                    .expect_err("defective")
                    .contains("NAME/NODE")
            );
        }
    }
}
