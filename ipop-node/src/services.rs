//! From the server's STUN and TURN services (XEP-0215) to servers with addresses.
//!
//! Only services whose host is an IP address are used: the binary is linked statically and must
//! not call the C library's resolver, and the rendezvous names itself by its addresses. A service
//! named by a host name is left out with a warning.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use ipop_proto::service::IceServer;
use ipop_proto::stanza::services::{Service, ServiceTransport};

/// The servers to use. `now` is what credential lifetimes count from.
pub fn ice_servers(services: &[Service], now: SystemTime) -> Vec<IceServer> {
    services
        .iter()
        .filter_map(|service| ice_server(service, now))
        .collect()
}

fn ice_server(service: &Service, now: SystemTime) -> Option<IceServer> {
    if let ServiceTransport::Other(transport) = &service.transport {
        tracing::debug!(
            host = service.host,
            transport,
            "service not reached over UDP, not used"
        );
        return None;
    }
    let Ok(ip) = service
        .host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>()
    else {
        tracing::warn!(
            host = service.host,
            "STUN or TURN service not used: its host is a name; \
             configure the XMPP server to name it by its IP address"
        );
        return None;
    };
    Some(IceServer {
        kind: service.kind,
        addr: SocketAddr::new(ip, service.port),
        username: service.username.clone(),
        password: service.password.clone(),
        expires_in: service
            .expires
            .map(|at| at.duration_since(now).unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ipop_proto::service::IceServerKind;

    use super::*;

    fn service(host: &str, transport: ServiceTransport) -> Service {
        Service {
            kind: IceServerKind::Turn,
            host: host.to_owned(),
            port: 3478,
            transport,
            username: None,
            password: None,
            expires: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(90)),
        }
    }

    #[test]
    fn only_udp_services_with_an_address_are_used() {
        let services = [
            service("192.0.2.1", ServiceTransport::Udp),
            service("turn.example", ServiceTransport::Udp),
            service("192.0.2.2", ServiceTransport::Other("tcp".to_owned())),
            service("2001:db8::1", ServiceTransport::Udp),
        ];
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(30);
        let servers = ice_servers(&services, now);
        let addrs: Vec<_> = servers.iter().map(|s| s.addr.to_string()).collect();
        assert_eq!(addrs, ["192.0.2.1:3478", "[2001:db8::1]:3478"]);
        assert_eq!(servers[0].expires_in, Some(Duration::from_secs(60)));
    }
}
