//! What an instance is told at its first boot.
//!
//! User data can be read by whoever may call DescribeInstanceAttribute, so nothing in it is secret
//! but the enrolment token, which dies with its use. The guest's reader is in the image.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use crate::bundle::{Bundle, SSH_HOST_KEY, XMPP_PASSWORD};
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;

/// EC2's limit, before the API's own Base64.
const LIMIT: usize = 16 * 1024;
/// Version of the document.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    credentials: BTreeMap<&'a str, String>,
}

/// The document, in the Base64 that RunInstances takes.
pub fn encode(bundle: &Bundle, node: &NodeName) -> Result<String, CliError> {
    Ok(BASE64_STANDARD.encode(document(bundle, node)?))
}

fn document(bundle: &Bundle, node: &NodeName) -> Result<Vec<u8>, CliError> {
    let internal = |what: String| CliError::new(ExitCode::Internal, what);
    for secret in [XMPP_PASSWORD, SSH_HOST_KEY] {
        if bundle.credentials.contains_key(secret) {
            return Err(internal(format!(
                "the personal data of {node} has the secret `{secret}`, which user data must not"
            )));
        }
    }
    let credentials = bundle
        .credentials
        .iter()
        .map(|(name, content)| (*name, BASE64_STANDARD.encode(content.expose())))
        .collect();
    let document = Document {
        version: VERSION,
        credentials,
    };
    let text = serde_json::to_vec(&document)
        .map_err(|e| internal(format!("cannot write the user data of {node}")).caused_by(e))?;
    if text.len() > LIMIT {
        return Err(internal(format!(
            "the personal data of {node} does not fit: {} bytes of user data, EC2 takes {LIMIT}",
            text.len()
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{NODE_CONFIG, ROLE_ENV};

    fn node() -> NodeName {
        NodeName("worker-0".into())
    }

    #[test]
    fn credentials_are_base64_in_a_versioned_document() {
        let mut bundle = Bundle::default();
        bundle.set(NODE_CONFIG, "a");
        bundle.set(ROLE_ENV, "X=1\n");
        let document = document(&bundle, &node()).unwrap();
        assert_eq!(
            String::from_utf8(document).unwrap(),
            r#"{"version":1,"credentials":{"ipop.config":"YQ==","ipop.env":"WD0xCg=="}}"#
        );
    }

    #[test]
    fn a_secret_and_too_much_data_are_refused() {
        let mut bundle = Bundle::default();
        bundle.set(XMPP_PASSWORD, "hush");
        let error = document(&bundle, &node()).unwrap_err().to_string();
        assert!(
            error.contains("`ipop.password`") && !error.contains("hush"),
            "{error}"
        );
        let mut bundle = Bundle::default();
        bundle.set(NODE_CONFIG, vec![b'x'; 16 * 1024]);
        let error = document(&bundle, &node()).unwrap_err().to_string();
        assert!(error.contains("does not fit"), "{error}");
    }
}
