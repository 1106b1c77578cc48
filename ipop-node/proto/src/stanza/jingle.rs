//! Signals as Jingle (XEP-0166) with the ICE-UDP transport (XEP-0176) and a DTLS fingerprint
//! (XEP-0320).
//!
//! One content named `overlay`, created by the initiator, one component, UDP, SHA-256: what a link
//! needs and nothing else. Deviations from XEP-0176: `transport-info` carries the username fragment
//! without the password, because the fragment only says which half the candidates belong to.

use xmpp_parsers::minidom::Element;
use xmpp_parsers::minidom::rxml::xml_ncname;
use xmpp_parsers::ns;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

use super::{NS_APPLICATION, NS_JINGLE_ERRORS, jingle_parse};
use crate::candidate::Candidate;
use crate::signal::{LinkDescription, SessionId, Setup, Signal, TerminateReason};

/// More candidates than this in one message are refused.
pub const MAX_CANDIDATES: usize = 64;
/// Longer session identifiers are refused, in bytes.
pub const MAX_SID: usize = 128;
/// The one content's name.
pub(super) const CONTENT: &str = "overlay";

/// What is wrong with a Jingle element.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JingleFault {
    /// The payload is no Jingle element.
    #[error("no jingle element")]
    NotJingle,
    /// An action that links do not use (XEP-0166 section 7.2).
    #[error("action `{0}` is not supported")]
    Action(String),
    /// Something that must be there exactly once is not.
    #[error("{count} <{what}/> elements instead of one")]
    Count {
        /// Element name.
        what: &'static str,
        /// How many there are.
        count: usize,
    },
    /// An attribute is missing.
    #[error("<{element}/> has no `{attribute}`")]
    Missing {
        /// Element name.
        element: &'static str,
        /// Attribute name.
        attribute: &'static str,
    },
    /// An attribute or text has a value that cannot be used.
    #[error("<{element}/> has {attribute}=`{value}`, expected {expected}")]
    Value {
        /// Element name.
        element: &'static str,
        /// Attribute name, or `text`.
        attribute: &'static str,
        /// The value, cut short; never a password.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// An application other than [`NS_APPLICATION`].
    #[error("application `{0}`, expected `{NS_APPLICATION}`")]
    Application(String),
    /// A transport other than ICE-UDP.
    #[error("transport `{0}`, expected ICE-UDP")]
    Transport(String),
    /// More than [`MAX_CANDIDATES`].
    #[error("{0} candidates, more than {MAX_CANDIDATES}")]
    TooManyCandidates(usize),
}

impl JingleFault {
    /// The error to answer the IQ with (XEP-0166 section 10).
    pub fn to_stanza_error(&self) -> StanzaError {
        let (kind, condition) = match self {
            Self::NotJingle => (ErrorType::Cancel, DefinedCondition::ServiceUnavailable),
            Self::Action(_) | Self::Application(_) | Self::Transport(_) => {
                (ErrorType::Cancel, DefinedCondition::FeatureNotImplemented)
            }
            _ => (ErrorType::Modify, DefinedCondition::BadRequest),
        };
        let mut error = StanzaError::new(kind, condition, "en", self.to_string());
        if matches!(self, Self::Action(action) if action == "session-info") {
            error.other = Some(Element::bare("unsupported-info", NS_JINGLE_ERRORS));
        }
        error
    }
}

/// Jingle's own errors (XEP-0166 section 10): a well-formed signal that does not fit the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JingleError {
    /// No session with this identifier.
    UnknownSession,
    /// The action does not fit the session's state.
    OutOfOrder,
    /// Both sides initiated at once, and the other one's session is kept.
    TieBreak,
}

impl JingleError {
    /// The error to answer the IQ with.
    pub fn to_stanza_error(self) -> StanzaError {
        let (kind, condition, text) = match self {
            Self::UnknownSession => (
                ErrorType::Cancel,
                DefinedCondition::ItemNotFound,
                "unknown session",
            ),
            Self::OutOfOrder => (
                ErrorType::Wait,
                DefinedCondition::UnexpectedRequest,
                "out of order",
            ),
            Self::TieBreak => (ErrorType::Cancel, DefinedCondition::Conflict, "tie break"),
        };
        let mut error = StanzaError::new(kind, condition, "en", text);
        error.other = Some(Element::bare(self.as_str(), NS_JINGLE_ERRORS));
        error
    }

    /// The name of the condition's element.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownSession => "unknown-session",
            Self::OutOfOrder => "out-of-order",
            Self::TieBreak => "tie-break",
        }
    }
}

/// The payload of the IQ `set` that carries `signal`.
pub fn to_element(signal: &Signal) -> Element {
    let (action, sid, child) = match signal {
        Signal::Initiate { sid, description } => (
            "session-initiate",
            sid,
            content(Some(application()), half(description)),
        ),
        Signal::Accept { sid, description } => (
            "session-accept",
            sid,
            content(Some(application()), half(description)),
        ),
        Signal::Candidates {
            sid,
            ufrag,
            candidates,
        } => {
            let transport = Element::builder("transport", ns::JINGLE_ICE_UDP)
                .attr(xml_ncname!("ufrag").to_owned(), ufrag)
                .append_all(candidates.iter().map(candidate))
                .build();
            ("transport-info", sid, content(None, transport))
        }
        Signal::Terminate { sid, reason } => ("session-terminate", sid, reason_element(*reason)),
    };
    Element::builder("jingle", ns::JINGLE)
        .attr(xml_ncname!("action").to_owned(), action)
        .attr(xml_ncname!("sid").to_owned(), &sid.0)
        .append(child)
        .build()
}

/// Reads the payload of an IQ `set`.
pub fn from_element(element: &Element) -> Result<Signal, JingleFault> {
    jingle_parse::signal(element)
}

/// The session that `signal` belongs to.
pub fn sid(signal: &Signal) -> &SessionId {
    match signal {
        Signal::Initiate { sid, .. }
        | Signal::Accept { sid, .. }
        | Signal::Candidates { sid, .. }
        | Signal::Terminate { sid, .. } => sid,
    }
}

fn content(description: Option<Element>, transport: Element) -> Element {
    Element::builder("content", ns::JINGLE)
        .attr(xml_ncname!("creator").to_owned(), "initiator")
        .attr(xml_ncname!("name").to_owned(), CONTENT)
        .append_all(description)
        .append(transport)
        .build()
}

fn application() -> Element {
    Element::bare("description", NS_APPLICATION)
}

fn half(description: &LinkDescription) -> Element {
    let setup = match description.setup {
        Setup::Actpass => "actpass",
        Setup::Active => "active",
        Setup::Passive => "passive",
    };
    let fingerprint = Element::builder("fingerprint", ns::JINGLE_DTLS)
        .attr(xml_ncname!("hash").to_owned(), "sha-256")
        .attr(xml_ncname!("setup").to_owned(), setup)
        .append(description.fingerprint.to_string())
        .build();
    Element::builder("transport", ns::JINGLE_ICE_UDP)
        .attr(xml_ncname!("ufrag").to_owned(), &description.ufrag)
        .attr(xml_ncname!("pwd").to_owned(), &description.pwd)
        .append(fingerprint)
        .append_all(description.candidates.iter().map(candidate))
        .build()
}

fn candidate(candidate: &Candidate) -> Element {
    let ip = candidate.addr.ip().to_canonical();
    // Unique within a session, as XEP-0176 wants, and a function of the candidate alone.
    let id = format!(
        "{}-{}-{}",
        candidate.kind, candidate.foundation, candidate.addr
    );
    Element::builder("candidate", ns::JINGLE_ICE_UDP)
        .attr(xml_ncname!("component").to_owned(), 1u8)
        .attr(xml_ncname!("foundation").to_owned(), &candidate.foundation)
        .attr(xml_ncname!("generation").to_owned(), 0u8)
        .attr(xml_ncname!("id").to_owned(), id)
        .attr(xml_ncname!("ip").to_owned(), ip.to_string())
        .attr(xml_ncname!("port").to_owned(), candidate.addr.port())
        .attr(xml_ncname!("priority").to_owned(), candidate.priority)
        .attr(xml_ncname!("protocol").to_owned(), "udp")
        .attr(
            xml_ncname!("rel-addr").to_owned(),
            candidate.related.map(|a| a.ip().to_string()),
        )
        .attr(
            xml_ncname!("rel-port").to_owned(),
            candidate.related.map(|a| a.port()),
        )
        .attr(xml_ncname!("type").to_owned(), candidate.kind.as_str())
        .build()
}

fn reason_element(reason: TerminateReason) -> Element {
    let name = match reason {
        TerminateReason::Success => "success",
        TerminateReason::ConnectivityError => "connectivity-error",
        TerminateReason::SecurityError => "security-error",
        TerminateReason::AlternativeSession => "alternative-session",
        TerminateReason::GeneralError => "general-error",
    };
    Element::builder("reason", ns::JINGLE)
        .append(Element::bare(name, ns::JINGLE))
        .build()
}
