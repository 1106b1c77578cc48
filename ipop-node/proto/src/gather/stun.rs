//! STUN messages as the gatherer sends and reads them: rtc-stun's codec with our own transaction
//! ids, so that all randomness comes from the caller.

use std::fmt;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Instant;

use bytes::BytesMut;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rtc_stun::attributes::{
    ATTR_MESSAGE_INTEGRITY, ATTR_NONCE, ATTR_REALM, ATTR_USERNAME, ATTR_XORMAPPED_ADDRESS, AttrType,
};
use rtc_stun::crypto::RTCCryptoProvider;
use rtc_stun::crypto::providers::AwsLcRsProvider;
use rtc_stun::error_code::ErrorCodeAttribute;
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{
    CLASS_ERROR_RESPONSE, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter, MESSAGE_HEADER_SIZE,
    Message, MessageType, Method, Setter, TransactionId,
};
use rtc_stun::textattrs::TextAttribute;
use rtc_stun::xoraddr::XorMappedAddress;

use crate::service::ServicePassword;

static CRYPTO: LazyLock<AwsLcRsProvider> = LazyLock::new(AwsLcRsProvider::new);

/// Attributes of a request, in order.
pub(super) type Attributes = Vec<Box<dyn Setter>>;

/// A long-term credential (RFC 8489 section 9.2).
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credential {
    pub(super) username: String,
    pub(super) password: ServicePassword,
    /// When the server stops accepting it.
    pub(super) expires: Option<Instant>,
}

/// A credential bound to what the server said of itself.
#[derive(Clone)]
pub(super) struct Auth {
    username: String,
    realm: String,
    nonce: String,
    key: Vec<u8>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

impl Auth {
    /// `None` when the key cannot be derived.
    pub(super) fn new(credential: &Credential, realm: &str, nonce: &str) -> Option<Self> {
        let key = MessageIntegrity::long_term_integrity_key(
            credential.username.clone(),
            realm.to_owned(),
            credential.password.expose().to_owned(),
            CRYPTO.crypto(),
        )
        .ok()?;
        Some(Self {
            username: credential.username.clone(),
            realm: realm.to_owned(),
            nonce: nonce.to_owned(),
            key,
        })
    }
}

/// A fresh random generator drawn from another one.
pub(crate) fn fork(rng: &mut StdRng) -> StdRng {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    StdRng::from_seed(seed)
}

/// Encodes a request. `None` when an attribute does not fit its limits, which only a
/// misconfigured credential can cause.
pub(super) fn request(
    rng: &mut StdRng,
    method: Method,
    attributes: Attributes,
    auth: Option<&Auth>,
) -> Option<(TransactionId, BytesMut)> {
    let mut id = TransactionId::default();
    rng.fill_bytes(&mut id.0);
    let mut setters: Vec<Box<dyn Setter + '_>> = Vec::with_capacity(attributes.len() + 7);
    setters.push(Box::new(id));
    setters.push(Box::new(MessageType::new(method, CLASS_REQUEST)));
    setters.extend(attributes.into_iter().map(|a| a as Box<dyn Setter + '_>));
    if let Some(auth) = auth {
        for (kind, text) in [
            (ATTR_USERNAME, &auth.username),
            (ATTR_REALM, &auth.realm),
            (ATTR_NONCE, &auth.nonce),
        ] {
            setters.push(Box::new(TextAttribute::new(kind, text.clone())));
        }
        setters.push(Box::new(MessageIntegrity::new_raw_integrity_with_provider(
            auth.key.clone(),
            CRYPTO.crypto(),
        )));
    }
    setters.push(Box::new(FINGERPRINT));
    let mut message = Message::new();
    message.build(&setters).ok()?;
    Some((id, BytesMut::from(&message.raw[..])))
}

/// Decodes a datagram that looks like STUN; trailing bytes are ignored.
pub(super) fn decode(payload: &[u8]) -> Option<Message> {
    let header = payload.get(..MESSAGE_HEADER_SIZE)?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let mut message = Message::new();
    message.raw = payload.get(..MESSAGE_HEADER_SIZE + length)?.to_vec();
    message.decode().ok()?;
    Some(message)
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Success,
    Error {
        code: u16,
        realm: Option<String>,
        nonce: Option<String>,
    },
}

/// Reads a response. `None` for what is no response, and for a success to an authenticated
/// request without the right MESSAGE-INTEGRITY (RFC 8489 section 9.2.5).
pub(super) fn answer(message: &mut Message, auth: Option<&Auth>) -> Option<Answer> {
    match message.typ.class {
        CLASS_SUCCESS_RESPONSE => {
            if let Some(auth) = auth {
                MessageIntegrity::check(message, &auth.key, CRYPTO.crypto()).ok()?;
            }
            Some(Answer::Success)
        }
        CLASS_ERROR_RESPONSE => {
            if let Some(auth) = auth
                && message.contains(ATTR_MESSAGE_INTEGRITY)
            {
                MessageIntegrity::check(message, &auth.key, CRYPTO.crypto()).ok()?;
            }
            let mut code = ErrorCodeAttribute::default();
            code.get_from(message).ok()?;
            Some(Answer::Error {
                code: code.code.0,
                realm: text(message, ATTR_REALM),
                nonce: text(message, ATTR_NONCE),
            })
        }
        _ => None,
    }
}

/// XOR-MAPPED-ADDRESS.
pub(super) fn mapped_address(message: &Message) -> Option<SocketAddr> {
    address(message, ATTR_XORMAPPED_ADDRESS)
}

/// An address attribute in the XOR form.
pub(super) fn address(message: &Message, attribute: AttrType) -> Option<SocketAddr> {
    let mut addr = XorMappedAddress::default();
    addr.get_from_as(message, attribute).ok()?;
    Some(SocketAddr::new(addr.ip, addr.port))
}

fn text(message: &Message, attribute: AttrType) -> Option<String> {
    TextAttribute::get_from_as(message, attribute)
        .ok()
        .map(|a| a.text)
}
