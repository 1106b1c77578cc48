//! What a link reads from STUN messages itself, before and beside its ICE agent.
//!
//! The agent looks at ICE-CONTROLLING and USE-CANDIDATE before, or without, checking that the
//! integrity attribute covers them. Messages are therefore authenticated here first.

use std::net::SocketAddr;

use bytes::BytesMut;
use rtc_ice::attributes::control::{AttrControlled, AttrControlling};
use rtc_ice::attributes::priority::PriorityAttr;
use rtc_ice::attributes::use_candidate::UseCandidateAttr;
use rtc_stun::attributes::{
    ATTR_FINGERPRINT, ATTR_MESSAGE_INTEGRITY, ATTR_USE_CANDIDATE, ATTR_USERNAME,
};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{
    BINDING_REQUEST, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, METHOD_BINDING, Message, TransactionId,
};
use rtc_stun::message::{Getter as _, Setter};
use rtc_stun::xoraddr::XorMappedAddress;

use super::provider;

/// STUN header in bytes (RFC 8489 section 5).
const HEADER: usize = 20;
/// RFC 8489 section 5.
const MAGIC_COOKIE: [u8; 4] = 0x2112_A442_u32.to_be_bytes();

/// The two halves of a STUN message's USERNAME: the receiver's fragment, then the sender's
/// (RFC 8445 section 7.2.2). `None` when there is no such attribute, as in every response.
pub fn stun_username(payload: &[u8]) -> Option<(&str, &str)> {
    if payload.len() < HEADER || payload[4..8] != MAGIC_COOKIE {
        return None;
    }
    let mut rest = &payload[HEADER..];
    while let [t0, t1, l0, l1, value @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        if u16::from_be_bytes([*t0, *t1]) == ATTR_USERNAME.0 {
            return std::str::from_utf8(value.get(..length)?)
                .ok()?
                .split_once(':');
        }
        rest = value.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// The transaction a STUN message belongs to. `None` when it is no STUN message.
pub(super) fn transaction(payload: &[u8]) -> Option<[u8; 12]> {
    if payload.len() < HEADER || payload[4..8] != MAGIC_COOKIE {
        return None;
    }
    payload[8..HEADER].try_into().ok()
}

/// Whether an outgoing message is a Binding request.
pub(super) fn is_request(payload: &[u8]) -> bool {
    payload.starts_with(&[0x00, 0x01])
}

/// A decoded Binding request or success response.
pub(super) struct Binding {
    message: Message,
}

impl Binding {
    /// Decodes a request or success response; other classes and methods are of no use to a link.
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        transaction(payload)?;
        let mut message = Message {
            raw: payload.to_vec(),
            ..Message::default()
        };
        message.decode().ok()?;
        let known = message.typ.method == METHOD_BINDING
            && (message.typ.class == CLASS_REQUEST || message.typ.class == CLASS_SUCCESS_RESPONSE);
        known.then_some(Self { message })
    }

    /// Whether it is a request.
    pub(super) fn is_request(&self) -> bool {
        self.message.typ.class == CLASS_REQUEST
    }

    /// Its transaction.
    pub(super) fn transaction(&self) -> [u8; 12] {
        let TransactionId(id) = self.message.transaction_id;
        id
    }

    /// Whether the integrity attribute is there, was made with `pwd`, and covers every attribute
    /// that means anything (RFC 8489 section 14.5).
    pub(super) fn is_authentic(&mut self, pwd: &str) -> bool {
        let mut after = self
            .message
            .attributes
            .0
            .iter()
            .skip_while(|attribute| attribute.typ != ATTR_MESSAGE_INTEGRITY)
            .skip(1);
        if after.any(|attribute| attribute.typ != ATTR_FINGERPRINT) {
            return false;
        }
        let provider = provider();
        MessageIntegrity::check(&mut self.message, pwd.as_bytes(), provider.crypto()).is_ok()
    }

    /// PRIORITY of a request: what the candidate it came from would have as peer reflexive one
    /// (RFC 8445 section 7.1.1).
    pub(super) fn priority(&self) -> Option<u32> {
        let mut priority = PriorityAttr::default();
        priority.get_from(&self.message).ok()?;
        Some(priority.0)
    }

    /// The tie-breaker in ICE-CONTROLLED or ICE-CONTROLLING of a request (RFC 8445 section 16.1):
    /// drawn once by each agent.
    pub(super) fn tie_breaker(&self) -> Option<u64> {
        let (mut controlling, mut controlled) =
            (AttrControlling::default(), AttrControlled::default());
        if controlling.get_from(&self.message).is_ok() {
            return Some(controlling.0);
        }
        controlled.get_from(&self.message).ok()?;
        Some(controlled.0)
    }

    /// A new check like this one that nominates its pair.
    pub(super) fn nominating(&self, pwd: &str) -> Option<BytesMut> {
        let provider = provider();
        let dropped = [ATTR_MESSAGE_INTEGRITY, ATTR_FINGERPRINT, ATTR_USE_CANDIDATE];
        let mut parts: Vec<Box<dyn Setter>> =
            vec![Box::new(BINDING_REQUEST), Box::new(TransactionId::new())];
        for attribute in &self.message.attributes.0 {
            if !dropped.contains(&attribute.typ) {
                parts.push(Box::new(attribute.clone()));
            }
        }
        parts.push(Box::new(UseCandidateAttr::new()));
        let mut message = Message::new();
        message.build(&parts).ok()?;
        let integrity = MessageIntegrity::new_short_term_integrity_with_provider(
            pwd.to_owned(),
            provider.crypto(),
        );
        integrity.add_to(&mut message).ok()?;
        FINGERPRINT.add_to(&mut message).ok()?;
        Some(BytesMut::from(&message.raw[..]))
    }

    /// XOR-MAPPED-ADDRESS of a response: where the peer saw the request come from.
    pub(super) fn mapped(&self) -> Option<SocketAddr> {
        let mut mapped = XorMappedAddress::default();
        mapped.get_from(&self.message).ok()?;
        Some(SocketAddr::new(mapped.ip, mapped.port))
    }
}
