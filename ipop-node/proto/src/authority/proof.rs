//! That a request for a certificate comes from whom the owner gave a secret.
//!
//! The authority's owner and the node share a secret that nobody else is told, the XMPP server's
//! operator least of all. The code is HMAC-SHA256 (RFC 2104) over the request, so that whoever carries
//! the request can neither use the secret for a key of their own nor learn it.

use std::fmt;

use aws_lc_rs::hmac;
use base64::prelude::{BASE64_STANDARD, Engine};

/// Sets these codes apart from others that are ever made with the same secret.
const CONTEXT: &[u8] = b"ipop certificate request\0";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof(Vec<u8>);

impl Proof {
    /// The code of a request, in the text that is sent, by who knows `secret`.
    pub fn of(request: &str, secret: &str) -> Self {
        let tag = hmac::sign(&key(secret), &said(request));
        Self(tag.as_ref().to_vec())
    }

    /// Whether it is that of this request and this secret. Takes the same time whatever it is.
    pub fn proves(&self, request: &str, secret: &str) -> bool {
        hmac::verify(&key(secret), &said(request), &self.0).is_ok()
    }

    /// Reads the text that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        BASE64_STANDARD.decode(text).ok().map(Self)
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(&self.0))
    }
}

fn key(secret: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

fn said(request: &str) -> Vec<u8> {
    [CONTEXT, request.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_of_one_request_and_one_secret() {
        let proof = Proof::of("request", "sesame");
        let read = Proof::parse(&proof.to_string()).expect("its own text");
        assert!(read.proves("request", "sesame"));
        assert!(!read.proves("request of another key", "sesame"));
        assert!(!read.proves("request", "simsim"));
        let cut = Proof::parse("").expect("base64");
        assert!(!cut.proves("request", "sesame"));
        assert_eq!(Proof::parse("*"), None);
    }
}
