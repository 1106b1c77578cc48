//! What to do with a stanza that came in: decided here, done by the task.

use ipop_proto::signal::Signal;
use ipop_proto::stanza;
use ipop_proto::stanza::advertisement::NotAdvertised;
use ipop_proto::stanza::certificate::CertificateRequest;
use ipop_proto::status::Advertisement;
use tokio_xmpp::jid::Jid;
use tokio_xmpp::minidom::Element;
use tokio_xmpp::parsers::disco::{DiscoInfoResult, Identity};
use tokio_xmpp::parsers::ns;
use tokio_xmpp::parsers::presence::{Presence, Type as PresenceType};
use tokio_xmpp::parsers::roster::Roster;
use tokio_xmpp::parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};
use tokio_xmpp::parsers::version::VersionResult;

/// Who sent a stanza, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// The server, on its own or the account's behalf.
    Server,
    /// A client of another member.
    Member,
    /// Another client of this account.
    Own,
    /// Anybody else.
    Stranger,
}

/// What an IQ `get` or `set` asks for.
#[derive(Debug)]
pub(super) enum Request {
    /// Answer with a result.
    Result(Option<Element>),
    /// Answer with an error.
    Error(StanzaError),
    /// Acknowledge, and pass on.
    Signal(Signal),
    /// Pass on; the owner answers.
    StatusQuery,
    /// Pass on; the owner answers.
    Certificate(CertificateRequest),
    /// Pass on; the owner answers.
    Revocations(Vec<u8>),
    /// Acknowledge, and take the roster's items.
    RosterPush(Roster),
}

/// What a presence means.
#[derive(Debug)]
pub(super) enum Seen {
    Node(Advertisement),
    Gone,
    /// Present and no node.
    NoNode(NotAdvertised),
    /// Not to be looked at.
    Nothing,
}

/// Reads an IQ `set`.
pub(super) fn set(sender: Sender, payload: Element) -> Request {
    if payload.is("query", ns::ROSTER) {
        // Anybody can send one; only the server's counts (RFC 6121 section 2.1.6).
        return match Roster::try_from(payload) {
            Ok(roster) if sender == Sender::Server => Request::RosterPush(roster),
            _ => Request::Error(service_unavailable()),
        };
    }
    if payload.is("jingle", ns::JINGLE) && sender == Sender::Member {
        return match stanza::jingle::from_element(&payload) {
            Ok(signal) => Request::Signal(signal),
            Err(fault) => {
                tracing::debug!(error = %fault, "signal refused");
                Request::Error(fault.to_stanza_error())
            }
        };
    }
    if stanza::certificate::is_request(&payload) && sender == Sender::Member {
        return match stanza::certificate::from_element(&payload) {
            Ok(request) => Request::Certificate(request),
            Err(error) => {
                tracing::debug!(%error, "question for a certificate refused");
                Request::Error(bad_request())
            }
        };
    }
    if stanza::revocation::is_list(&payload) && sender == Sender::Member {
        return match stanza::revocation::from_element(&payload) {
            Ok(list) => Request::Revocations(list),
            Err(error) => {
                tracing::debug!(%error, "revocation list refused");
                Request::Error(bad_request())
            }
        };
    }
    Request::Error(service_unavailable())
}

/// Reads an IQ `get`. Strangers get the same answer as if nobody was here.
pub(super) fn get(sender: Sender, payload: &Element) -> Request {
    if sender == Sender::Stranger {
        return Request::Error(service_unavailable());
    }
    if payload.is("ping", ns::PING) {
        return Request::Result(None);
    }
    if payload.is("query", ns::DISCO_INFO) {
        return Request::Result(Some(
            features(payload.attr("node").map(str::to_owned)).into(),
        ));
    }
    if payload.is("query", ns::VERSION) {
        return Request::Result(Some(version().into()));
    }
    if stanza::status::is_query(payload) && sender != Sender::Server {
        return Request::StatusQuery;
    }
    Request::Error(service_unavailable())
}

/// Reads a presence.
pub(super) fn presence(sender: Sender, presence: &Presence) -> Seen {
    if sender != Sender::Member || !presence.from.as_ref().is_some_and(Jid::is_full) {
        return Seen::Nothing;
    }
    match presence.type_ {
        PresenceType::Unavailable => Seen::Gone,
        PresenceType::None => match stanza::advertisement::find(&presence.payloads) {
            Ok(advertisement) => Seen::Node(advertisement),
            Err(why) => Seen::NoNode(why),
        },
        _ => Seen::Nothing,
    }
}

/// The answer to what cannot be parsed (RFC 6120 section 8.3.3.1).
pub(super) fn bad_request() -> StanzaError {
    StanzaError::new(
        ErrorType::Modify,
        DefinedCondition::BadRequest,
        "en",
        "unreadable stanza",
    )
}

/// The answer to what can be read and is not taken (RFC 6120 section 8.3.3.10).
pub(super) fn not_acceptable() -> StanzaError {
    let mut error = StanzaError::new(ErrorType::Modify, DefinedCondition::NotAcceptable, "", "");
    error.texts.clear();
    error
}

/// The answer to what the one who asks may not have, or say (RFC 6120 section 8.3.3.4).
pub(super) fn forbidden() -> StanzaError {
    let mut error = StanzaError::new(ErrorType::Auth, DefinedCondition::Forbidden, "", "");
    error.texts.clear();
    error
}

/// The answer to what is not for us (RFC 6120 section 8.3.3.19). It has no text, so that it does
/// not differ from the server's own.
pub(super) fn service_unavailable() -> StanzaError {
    let mut error = StanzaError::new(
        ErrorType::Cancel,
        DefinedCondition::ServiceUnavailable,
        "",
        "",
    );
    error.texts.clear();
    error
}

/// XEP-0030: what XEP-0166, 0176 and 0320 want to be listed, and what else is answered.
fn features(node: Option<String>) -> DiscoInfoResult {
    let features = [
        ns::DISCO_INFO,
        ns::JINGLE,
        ns::JINGLE_ICE_UDP,
        ns::JINGLE_DTLS,
        ns::PING,
        ns::VERSION,
        stanza::NS_APPLICATION,
        stanza::NS_NODE,
        stanza::NS_STATUS,
    ];
    DiscoInfoResult {
        node,
        identities: vec![Identity::new_anonymous::<_, _, &str, &str>("client", "bot")],
        features: features.into_iter().map(str::to_owned).collect(),
        extensions: Vec::new(),
    }
}

fn version() -> VersionResult {
    VersionResult {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        os: None,
    }
}
