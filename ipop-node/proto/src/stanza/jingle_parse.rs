//! Reads Jingle strictly: what a link does not use is an error and not a surprise later.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use xmpp_parsers::minidom::Element;
use xmpp_parsers::ns;

use super::NS_APPLICATION;
use super::jingle::{CONTENT, JingleFault, MAX_CANDIDATES, MAX_SID};
use crate::candidate::{Candidate, CandidateKind};
use crate::signal::{Fingerprint, LinkDescription, SessionId, Setup, Signal, TerminateReason};

/// Values shown in errors are cut to this many characters.
const SHOWN: usize = 40;

pub(super) fn signal(element: &Element) -> Result<Signal, JingleFault> {
    if !element.is("jingle", ns::JINGLE) {
        return Err(JingleFault::NotJingle);
    }
    let sid = SessionId(sid(element)?);
    match attr(element, "jingle", "action")? {
        "session-initiate" => Ok(Signal::Initiate {
            sid,
            description: described_half(element, true)?,
        }),
        "session-accept" => Ok(Signal::Accept {
            sid,
            description: described_half(element, false)?,
        }),
        "transport-info" => {
            let transport = transport(content(element)?)?;
            Ok(Signal::Candidates {
                sid,
                ufrag: ice_chars(transport, "transport", "ufrag", 4, 256)?.to_owned(),
                candidates: candidates(transport)?,
            })
        }
        "session-terminate" => Ok(Signal::Terminate {
            sid,
            reason: reason(element),
        }),
        other => Err(JingleFault::Action(shown(other))),
    }
}

fn sid(element: &Element) -> Result<String, JingleFault> {
    let sid = attr(element, "jingle", "sid")?;
    if sid.is_empty() || sid.len() > MAX_SID {
        return Err(value("jingle", "sid", sid, "1 to 128 bytes"));
    }
    Ok(sid.to_owned())
}

fn content(element: &Element) -> Result<&Element, JingleFault> {
    let content = one(element, "content", ns::JINGLE)?;
    match attr(content, "content", "creator")? {
        "initiator" => {}
        other => return Err(value("content", "creator", other, "`initiator`")),
    }
    match attr(content, "content", "name")? {
        CONTENT => {}
        other => return Err(value("content", "name", other, "`overlay`")),
    }
    match content.attr("senders").unwrap_or("both") {
        "both" => Ok(content),
        other => Err(value("content", "senders", other, "`both`")),
    }
}

fn transport(content: &Element) -> Result<&Element, JingleFault> {
    let transport = one_named(content, "transport")?;
    if !transport.has_ns(ns::JINGLE_ICE_UDP) {
        return Err(JingleFault::Transport(shown(&transport.ns())));
    }
    Ok(transport)
}

fn described_half(element: &Element, offer: bool) -> Result<LinkDescription, JingleFault> {
    let content = content(element)?;
    let application = one_named(content, "description")?;
    if !application.has_ns(NS_APPLICATION) {
        return Err(JingleFault::Application(shown(&application.ns())));
    }
    let transport = transport(content)?;
    let fingerprint = one(transport, "fingerprint", ns::JINGLE_DTLS)?;
    match attr(fingerprint, "fingerprint", "hash")? {
        "sha-256" => {}
        other => return Err(value("fingerprint", "hash", other, "`sha-256`")),
    }
    let setup = match attr(fingerprint, "fingerprint", "setup")? {
        "actpass" if offer => Setup::Actpass,
        "active" => Setup::Active,
        "passive" => Setup::Passive,
        other if offer => {
            return Err(value(
                "fingerprint",
                "setup",
                other,
                "`actpass`, `active` or `passive`",
            ));
        }
        other => {
            return Err(value(
                "fingerprint",
                "setup",
                other,
                "`active` or `passive`",
            ));
        }
    };
    Ok(LinkDescription {
        ufrag: ice_chars(transport, "transport", "ufrag", 4, 256)?.to_owned(),
        pwd: ice_chars(transport, "transport", "pwd", 22, 256)?.to_owned(),
        fingerprint: digest(&fingerprint.text())?,
        setup,
        candidates: candidates(transport)?,
    })
}

/// Pairs of hexadecimal digits joined by colons (RFC 8122 section 5), in either case.
fn digest(text: &str) -> Result<Fingerprint, JingleFault> {
    let wrong = || {
        value(
            "fingerprint",
            "text",
            text,
            "32 hexadecimal pairs joined by colons",
        )
    };
    let mut bytes = [0; 32];
    let mut pairs = text.trim().split(':');
    for byte in &mut bytes {
        let pair = pairs.next().ok_or_else(wrong)?;
        if pair.len() != 2 || !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    match pairs.next() {
        None => Ok(Fingerprint(bytes)),
        Some(_) => Err(wrong()),
    }
}

fn candidates(transport: &Element) -> Result<Vec<Candidate>, JingleFault> {
    let elements = || {
        transport
            .children()
            .filter(|c| c.is("candidate", ns::JINGLE_ICE_UDP))
    };
    let count = elements().count();
    if count > MAX_CANDIDATES {
        return Err(JingleFault::TooManyCandidates(count));
    }
    let read = elements().map(candidate);
    read.filter_map(Result::transpose).collect()
}

/// Reads a candidate; `None` for one that only a later version can use: of another component,
/// transport or type (RFC 8839 section 5.1).
fn candidate(element: &Element) -> Result<Option<Candidate>, JingleFault> {
    const NAME: &str = "candidate";
    let component = number::<u8>(element, NAME, "component", "1")?;
    let protocol = attr(element, NAME, "protocol")?;
    if component != 1 || !protocol.eq_ignore_ascii_case("udp") {
        return Ok(None);
    }
    let kind = match attr(element, NAME, "type")? {
        "host" => CandidateKind::Host,
        "srflx" => CandidateKind::Srflx,
        "prflx" => CandidateKind::Prflx,
        "relay" => CandidateKind::Relay,
        _ => return Ok(None),
    };
    let ip: IpAddr = number(element, NAME, "ip", "an IP address")?;
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(value(NAME, "ip", &ip.to_string(), "a unicast address"));
    }
    let port = match number::<u16>(element, NAME, "port", "1 to 65535")? {
        0 => return Err(value(NAME, "port", "0", "1 to 65535")),
        port => port,
    };
    Ok(Some(Candidate {
        foundation: ice_chars(element, NAME, "foundation", 1, 32)?.to_owned(),
        kind,
        addr: SocketAddr::new(ip.to_canonical(), port),
        priority: number(element, NAME, "priority", "0 to 4294967295")?,
        related: related(element)?,
    }))
}

/// The related address: both attributes or none.
fn related(element: &Element) -> Result<Option<SocketAddr>, JingleFault> {
    if element.attr("rel-addr").is_none() && element.attr("rel-port").is_none() {
        return Ok(None);
    }
    let ip = number(element, "candidate", "rel-addr", "an IP address")?;
    let port = number(element, "candidate", "rel-port", "0 to 65535")?;
    Ok(Some(SocketAddr::new(ip, port)))
}

/// A session ends whatever the reason; those that links do not use mean the nearest one they do.
fn reason(element: &Element) -> TerminateReason {
    let condition = element.get_child("reason", ns::JINGLE).and_then(|reason| {
        reason
            .children()
            .find(|c| c.has_ns(ns::JINGLE) && c.name() != "text")
    });
    match condition.map(Element::name) {
        Some("success" | "gone" | "cancel" | "decline") => TerminateReason::Success,
        Some("connectivity-error" | "timeout" | "expired" | "failed-transport") => {
            TerminateReason::ConnectivityError
        }
        Some("security-error") => TerminateReason::SecurityError,
        Some("alternative-session") => TerminateReason::AlternativeSession,
        _ => TerminateReason::GeneralError,
    }
}

fn one<'a>(
    parent: &'a Element,
    what: &'static str,
    namespace: &'static str,
) -> Result<&'a Element, JingleFault> {
    only(what, || {
        parent.children().filter(move |c| c.is(what, namespace))
    })
}

/// The one child of that name in whatever namespace.
fn one_named<'a>(parent: &'a Element, what: &'static str) -> Result<&'a Element, JingleFault> {
    only(what, || parent.children().filter(move |c| c.name() == what))
}

fn only<'a, I: Iterator<Item = &'a Element>>(
    what: &'static str,
    found: impl Fn() -> I,
) -> Result<&'a Element, JingleFault> {
    match (found().next(), found().count()) {
        (Some(element), 1) => Ok(element),
        (_, count) => Err(JingleFault::Count { what, count }),
    }
}

fn attr<'a>(
    element: &'a Element,
    name: &'static str,
    attribute: &'static str,
) -> Result<&'a str, JingleFault> {
    element.attr(attribute).ok_or(JingleFault::Missing {
        element: name,
        attribute,
    })
}

fn number<T: FromStr>(
    element: &Element,
    name: &'static str,
    attribute: &'static str,
    expected: &'static str,
) -> Result<T, JingleFault> {
    let text = attr(element, name, attribute)?;
    text.parse()
        .map_err(|_| value(name, attribute, text, expected))
}

/// `ice-char`s of RFC 8839 section 5.1 and 5.4, `min` to `max` of them.
fn ice_chars<'a>(
    element: &'a Element,
    name: &'static str,
    attribute: &'static str,
    min: usize,
    max: usize,
) -> Result<&'a str, JingleFault> {
    let text = attr(element, name, attribute)?;
    let ice_char = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    if (min..=max).contains(&text.len()) && text.bytes().all(ice_char) {
        return Ok(text);
    }
    let expected = match attribute {
        "foundation" => "1 to 32 letters, digits, `+` or `/`",
        "ufrag" => "4 to 256 letters, digits, `+` or `/`",
        _ => "22 to 256 letters, digits, `+` or `/`",
    };
    let shown = if attribute == "pwd" { "…" } else { text };
    Err(value(name, attribute, shown, expected))
}

fn value(
    element: &'static str,
    attribute: &'static str,
    value: &str,
    expected: &'static str,
) -> JingleFault {
    JingleFault::Value {
        element,
        attribute,
        value: shown(value),
        expected,
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
