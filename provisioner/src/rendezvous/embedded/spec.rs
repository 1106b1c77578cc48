//! What an embedded server listens on: chosen once, kept, rendered.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Paths;
use crate::render::render;
use crate::rendezvous::config::EmbeddedConfig;
use crate::rendezvous::{RendezvousError, files, password};

/// The API's socket, in the server's working directory. ejabberd 24.12 first makes a socket whose
/// name in the directory `socket` encodes this one, and cuts it at a socket address's 107 bytes, so
/// it has to be short, and Mnesia's directory too.
pub const API_SOCKET: &str = "api.sock";

/// Networks that TURN must not relay to, with their prefix lengths: this machine's loopback, link
/// local (cloud metadata services), "this network", multicast and broadcast. Not `::ffff:0:0/96`:
/// ejabberd would take it for the whole of IPv4.
const NOT_RELAYED_TO: &[(&str, u8)] = &[
    ("0.0.0.0", 8),
    ("127.0.0.0", 8),
    ("169.254.0.0", 16),
    ("224.0.0.0", 4),
    ("240.0.0.0", 4),
    ("::", 128),
    ("::1", 128),
    ("fd00:ec2::254", 128),
    ("fe80::", 10),
    ("ff00::", 8),
];

/// Addresses, ports and the secret of one embedded server. A file of mode 0600.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// XMPP domain.
    pub domain: String,
    /// Addresses that XMPP, STUN and TURN are served on.
    pub listen: Vec<IpAddr>,
    /// TCP port of XMPP.
    pub c2s_port: u16,
    /// UDP port of STUN and TURN.
    pub stun_port: u16,
    /// First and last UDP port that TURN relays from.
    pub turn_ports: (u16, u16),
    /// What STUN credentials are derived from.
    stun_secret: String,
}

#[derive(Serialize)]
struct Context<'a> {
    deployment: &'a str,
    domain: &'a str,
    listen: Vec<Listener>,
    /// Addresses that clients are told of.
    offered: Vec<IpAddr>,
    c2s_port: u16,
    stun_port: u16,
    turn: Turn,
    certificate: String,
    ca: String,
    api_socket: &'a str,
    stun_secret: &'a str,
}

/// One address, and the addresses that those who come to it relay from.
#[derive(Serialize)]
struct Listener {
    ip: IpAddr,
    turn_ipv4: Option<IpAddr>,
    turn_ipv6: Option<IpAddr>,
}

#[derive(Serialize)]
struct Turn {
    min_port: u16,
    max_port: u16,
    blacklist: Vec<String>,
}

impl Spec {
    /// Reads the file; none when there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, RendezvousError> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|source| {
                RendezvousError::Damaged {
                    path: path.to_owned(),
                    source,
                }
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RendezvousError::file(path, source)),
        }
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<(), RendezvousError> {
        let json =
            serde_json::to_string_pretty(self).map_err(|source| RendezvousError::Damaged {
                path: path.to_owned(),
                source,
            })?;
        files::write(path, json.as_bytes(), 0o600)
            .map_err(|source| RendezvousError::file(path, source))
    }

    /// Chooses addresses and ports, keeping those of `old` that the configuration does not rule
    /// out: nodes know them.
    pub fn choose(
        deployment: &str,
        domain: &str,
        listen: &[IpAddr],
        config: &EmbeddedConfig,
        old: Option<Self>,
    ) -> Result<Self, RendezvousError> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        let kept = old
            .as_ref()
            .map(|old| old.listen.as_slice())
            .unwrap_or_default();
        for address in listen.iter().chain(kept) {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        if addresses.is_empty() {
            return Err(RendezvousError::NoAddress(deployment.to_owned()));
        }
        let c2s_port = match config.c2s_port.or(old.as_ref().map(|old| old.c2s_port)) {
            Some(port) => port,
            None => free_port("TCP", &addresses, bind_tcp)?,
        };
        let stun_port = match config.stun_port.or(old.as_ref().map(|old| old.stun_port)) {
            Some(port) => port,
            None => free_port("UDP", &addresses, bind_udp)?,
        };
        let stun_secret = match old {
            Some(old) => old.stun_secret,
            None => password::generate()
                .map_err(RendezvousError::Entropy)?
                .expose()
                .clone(),
        };
        Ok(Self {
            domain: domain.to_owned(),
            listen: addresses,
            c2s_port,
            stun_port,
            turn_ports: config.turn_ports,
            stun_secret,
        })
    }

    /// Whether every address and port can be had now.
    pub fn check_ports(&self) -> Result<(), RendezvousError> {
        for ip in &self.listen {
            let address = SocketAddr::new(*ip, self.c2s_port);
            bind_tcp(address).map_err(|source| RendezvousError::Port {
                proto: "TCP",
                address,
                source,
            })?;
            let address = SocketAddr::new(*ip, self.stun_port);
            bind_udp(address).map_err(|source| RendezvousError::Port {
                proto: "UDP",
                address,
                source,
            })?;
        }
        Ok(())
    }

    /// Where XMPP clients connect.
    pub fn servers(&self) -> Vec<String> {
        let port = self.c2s_port;
        self.offered()
            .map(|ip| SocketAddr::new(ip, port).to_string())
            .collect()
    }

    /// Addresses that others can reach; loopback is one only when there is nothing else.
    fn offered(&self) -> impl Iterator<Item = IpAddr> {
        let only_loopback = self.listen.iter().all(IpAddr::is_loopback);
        self.listen
            .iter()
            .copied()
            .filter(move |ip| only_loopback || !ip.is_loopback())
    }

    fn listeners(&self) -> Vec<Listener> {
        let relay = |ip: IpAddr, family: fn(&IpAddr) -> bool| {
            if family(&ip) {
                Some(ip)
            } else {
                self.offered().find(family)
            }
        };
        let listener = |ip: &IpAddr| Listener {
            ip: *ip,
            turn_ipv4: relay(*ip, IpAddr::is_ipv4),
            turn_ipv6: relay(*ip, IpAddr::is_ipv6),
        };
        self.listen.iter().map(listener).collect()
    }

    /// ejabberd's configuration file.
    pub fn render(&self, deployment: &str, paths: &Paths) -> Result<String, minijinja::Error> {
        let text = |path: &Path| path.display().to_string();
        let (min_port, max_port) = self.turn_ports;
        render(
            "ejabberd.yml.j2",
            Context {
                deployment,
                domain: &self.domain,
                listen: self.listeners(),
                offered: self.offered().collect(),
                c2s_port: self.c2s_port,
                stun_port: self.stun_port,
                turn: Turn {
                    min_port,
                    max_port,
                    blacklist: self.blacklist(),
                },
                certificate: text(&paths.server_pem()),
                ca: text(&paths.ca_pem()),
                api_socket: API_SOCKET,
                stun_secret: &self.stun_secret,
            },
        )
    }

    /// Networks without those that the server itself is on: relays are on its addresses, and two
    /// nodes that are both behind a relay meet there.
    fn blacklist(&self) -> Vec<String> {
        NOT_RELAYED_TO
            .iter()
            .filter(|(network, prefix)| {
                !self
                    .offered()
                    .any(|ip| network_contains(network, *prefix, ip))
            })
            .map(|(network, prefix)| format!("{network}/{prefix}"))
            .collect()
    }
}

fn network_contains(network: &str, prefix: u8, ip: IpAddr) -> bool {
    match (network.parse(), ip) {
        (Ok(IpAddr::V4(network)), IpAddr::V4(ip)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            u32::from(network) & mask == u32::from(ip) & mask
        }
        (Ok(IpAddr::V6(network)), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            u128::from(network) & mask == u128::from(ip) & mask
        }
        _ => false,
    }
}

fn bind_tcp(address: SocketAddr) -> std::io::Result<u16> {
    Ok(TcpListener::bind(address)?.local_addr()?.port())
}

fn bind_udp(address: SocketAddr) -> std::io::Result<u16> {
    Ok(UdpSocket::bind(address)?.local_addr()?.port())
}

/// A port that is free on all addresses: the first address's choice, tried on the others.
fn free_port(
    proto: &'static str,
    addresses: &[IpAddr],
    bind: fn(SocketAddr) -> std::io::Result<u16>,
) -> Result<u16, RendezvousError> {
    const TRIES: usize = 20;
    let mut tries = 0;
    'next: loop {
        let mut port = 0;
        for ip in addresses {
            let address = SocketAddr::new(*ip, port);
            match bind(address) {
                Ok(bound) => port = bound,
                Err(_) if port != 0 && tries < TRIES => {
                    tries += 1;
                    continue 'next;
                }
                Err(source) => {
                    return Err(RendezvousError::Port {
                        proto,
                        address,
                        source,
                    });
                }
            }
        }
        return Ok(port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;

    fn spec(listen: &[&str]) -> Spec {
        Spec {
            domain: "demo.ipop".to_owned(),
            listen: listen.iter().map(|ip| ip.parse().expect("valid")).collect(),
            c2s_port: 41222,
            stun_port: 41478,
            turn_ports: (49152, 65535),
            stun_secret: "0123456789abcdef".to_owned(),
        }
    }

    #[test]
    fn the_configuration_is_rendered() {
        let layout = Layout {
            state: "/var/lib/x".into(),
            cache: "/var/cache/x".into(),
        };
        let text = spec(&["192.0.2.1", "2001:db8::1"])
            .render("demo", &Paths::new(&layout, "demo"))
            .expect("the template fits");
        insta::assert_snapshot!("ejabberd.yml", text);
    }

    #[test]
    fn turn_relays_to_no_loopback_unless_it_serves_there() {
        let public = spec(&["192.0.2.1"]).blacklist();
        assert!(
            public.contains(&"127.0.0.0/8".to_owned()) && public.contains(&"::1/128".to_owned())
        );
        let local = spec(&["127.0.0.1"]).blacklist();
        assert!(!local.contains(&"127.0.0.0/8".to_owned()));
        assert!(local.contains(&"169.254.0.0/16".to_owned()));
        let both = spec(&["127.0.0.1", "192.0.2.1"]);
        assert_eq!(both.blacklist(), public);
        assert_eq!(both.servers(), ["192.0.2.1:41222"]);
    }

    #[test]
    fn ports_and_the_secret_stay_and_new_addresses_are_added() {
        let config = EmbeddedConfig::default();
        let old = spec(&["127.0.0.1"]);
        let listen = ["127.0.0.2".parse().expect("valid")];
        let new = Spec::choose("demo", "demo.ipop", &listen, &config, Some(old.clone()))
            .expect("nothing to choose");
        assert_eq!((new.c2s_port, new.stun_port), (old.c2s_port, old.stun_port));
        assert_eq!(new.stun_secret, old.stun_secret);
        assert_eq!(new.servers(), ["127.0.0.2:41222", "127.0.0.1:41222"]);
        assert!(matches!(
            Spec::choose("demo", "demo.ipop", &[], &config, None),
            Err(RendezvousError::NoAddress(_))
        ));
    }
}
