//! What an instance is told at its first boot.
//!
//! User data can be read by whoever may call DescribeInstanceAttribute, so nothing in it is secret
//! but the enrolment token, which dies with its use.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::bundle::{Bundle, IDENTITY, SSH_HOST_KEY, XMPP_PASSWORD};
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;

/// EC2's limit, before the API's own Base64.
const LIMIT: usize = 16 * 1024;

/// The document, in the Base64 that RunInstances takes.
pub fn encode(bundle: &Bundle, node: &NodeName) -> Result<String, CliError> {
    let refused = |what: String| {
        CliError::new(
            ExitCode::Internal,
            format!("the personal data of {node} {what}"),
        )
    };
    for secret in [XMPP_PASSWORD, SSH_HOST_KEY, IDENTITY] {
        if bundle.credentials.contains_key(secret) {
            return Err(refused(format!(
                "has the secret `{secret}`, which user data must not"
            )));
        }
    }
    let document = bundle.user_data();
    let len = document.expose().len();
    if len > LIMIT {
        return Err(refused(format!(
            "does not fit: {len} bytes of user data, EC2 takes {LIMIT}"
        )));
    }
    Ok(BASE64_STANDARD.encode(document.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::NODE_CONFIG;
    use crate::plan::personal::{First, Keys, Membership, bundle};
    use crate::plan::{Request, World, plan};
    use crate::provider::Delivery;
    use crate::rendezvous::{Account, Endpoint};
    use crate::secret::Secret;
    use crate::site::Sites;

    fn node() -> NodeName {
        NodeName("worker-0".into())
    }

    #[test]
    fn a_secret_and_too_much_data_are_refused() {
        let mut bundle = Bundle::default();
        bundle.set(NODE_CONFIG, "a");
        assert!(encode(&bundle, &node()).is_ok());
        bundle.set(XMPP_PASSWORD, "hush");
        let error = encode(&bundle, &node()).unwrap_err().to_string();
        assert!(error.contains("`ipop.password`"), "{error}");
        assert!(!error.contains("hush"), "{error}");
        let mut bundle = Bundle::default();
        bundle.set(NODE_CONFIG, vec![b'x'; 16 * 1024]);
        let error = encode(&bundle, &node()).unwrap_err().to_string();
        assert!(error.contains("does not fit"), "{error}");
    }

    #[test]
    fn the_personal_data_of_every_node_of_a_large_cluster_fits() {
        let request = Request {
            name: Some("n".repeat(24)),
            frontend: vec!["1@local".parse().unwrap()],
            workers: vec!["200@local".parse().unwrap()],
            ..Request::default()
        };
        let plan = plan(&request, &Sites::default(), &World::default()).unwrap();
        assert_eq!(plan.nodes.len(), 201);
        let endpoint = Endpoint {
            domain: plan.domain.clone(),
            servers: vec!["[2001:db8:1111:2222:3333:4444:5555:6666]:5222".to_owned(); 8],
            // As long as the certificate of a CA with an RSA key.
            ca_pem: "x".repeat(2048),
        };
        for node in &plan.nodes {
            let keys = Keys {
                account: Account {
                    jid: format!("{}@{}", node.name, plan.domain),
                    password: Secret::new("t".repeat(64)),
                },
                host_key: None,
                // The user's, of 4096 bits.
                authorized_key: "k".repeat(768),
                membership: Some(Membership {
                    authority_pem: "a".repeat(2048),
                    issuer: format!("provision@{}/issuer", plan.domain),
                    first: First::Asked(Secret::new("t".repeat(64))),
                }),
            };
            let bundle = bundle(&plan, node, &endpoint, &keys, Delivery::Enrolment).unwrap();
            encode(&bundle, &node.name).unwrap();
        }
    }
}
