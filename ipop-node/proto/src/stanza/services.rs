//! STUN and TURN services as the server names them (XEP-0215), before name resolution.

use std::time::SystemTime;

use xmpp_parsers::date::DateTime;
use xmpp_parsers::minidom::Element;
use xmpp_parsers::ns;

use crate::service::{IceServerKind, ServicePassword};

/// Services beyond this many are not read.
const MAX_SERVICES: usize = 32;
/// The default port of STUN and TURN over UDP (RFC 8489 section 18.6).
const DEFAULT_PORT: u16 = 3478;

/// How a service is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceTransport {
    /// UDP: the one that overlay links can use.
    Udp,
    /// TCP, TLS over TCP (`stuns`, `turns`), or something unknown: listed, not used.
    Other(String),
}

/// One STUN or TURN service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What it does.
    pub kind: IceServerKind,
    /// Host name or address.
    pub host: String,
    /// Port; 3478 when the server names none.
    pub port: u16,
    /// How it is reached.
    pub transport: ServiceTransport,
    /// Long-term credential's user name.
    pub username: Option<String>,
    /// Long-term credential's password.
    pub password: Option<ServicePassword>,
    /// When the credential stops being good, by the server's clock.
    pub expires: Option<SystemTime>,
}

/// The answer to a services query cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServicesError {
    /// Another element, or no element.
    #[error("no services element in the answer")]
    Absent,
}

/// The query, an IQ `get` to the server's domain.
pub fn query() -> Element {
    Element::bare("services", ns::EXT_DISCO)
}

/// Reads the answer. A service of another type, or one that is defective, is left out: the others
/// are as good as before.
pub fn from_element(payload: Option<&Element>) -> Result<Vec<Service>, ServicesError> {
    let payload = payload
        .filter(|p| p.is("services", ns::EXT_DISCO))
        .ok_or(ServicesError::Absent)?;
    let services = payload
        .children()
        .filter(|c| c.is("service", ns::EXT_DISCO));
    Ok(services.filter_map(service).take(MAX_SERVICES).collect())
}

fn service(element: &Element) -> Option<Service> {
    let (kind, secured) = match element.attr("type")? {
        "stun" => (IceServerKind::Stun, false),
        "turn" => (IceServerKind::Turn, false),
        "stuns" => (IceServerKind::Stun, true),
        "turns" => (IceServerKind::Turn, true),
        _ => return None,
    };
    let transport = match element.attr("transport").unwrap_or("udp") {
        "udp" if !secured => ServiceTransport::Udp,
        other if secured => ServiceTransport::Other(format!("tls over {other}")),
        other => ServiceTransport::Other(other.to_owned()),
    };
    let host = element.attr("host").filter(|host| !host.is_empty())?;
    let port = match element.attr("port") {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None => DEFAULT_PORT,
    };
    Some(Service {
        kind,
        host: host.to_owned(),
        port,
        transport,
        username: element.attr("username").map(str::to_owned),
        password: element.attr("password").map(ServicePassword::new),
        expires: element
            .attr("expires")
            .and_then(|text| text.parse::<DateTime>().ok())
            .map(|time| SystemTime::from(time.0)),
    })
}
