//! Which local addresses give candidates (RFC 8445 section 5.1.1.1).

use std::io;
use std::net::IpAddr;

use getifaddrs::{Address, InterfaceFlags, getifaddrs};
use ipop_proto::address::OverlayAddrs;
use ipop_proto::config::NodeConfig;

/// What is left out.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The overlay's own device.
    interface: String,
    /// Addresses in these networks would tunnel the overlay through itself.
    overlay: OverlayAddrs,
    ignore_interfaces: Vec<String>,
    ignore_addresses: Vec<IpAddr>,
}

impl Rules {
    /// The rules of a configuration.
    pub fn new(config: &NodeConfig) -> Self {
        Self {
            interface: config.overlay.interface.clone(),
            overlay: config.addrs(),
            ignore_interfaces: config.ice.ignore_interfaces.clone(),
            ignore_addresses: config.ice.ignore_addresses.clone(),
        }
    }

    /// Whether `addr` of the interface `name` gives a candidate.
    fn admit(&self, name: &str, addr: IpAddr) -> bool {
        let in_overlay = match addr {
            IpAddr::V4(v4) => self.overlay.ipv4.contains(v4),
            IpAddr::V6(v6) => self.overlay.ipv6.contains(v6),
        };
        let local_only = match addr {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        name != self.interface
            && !in_overlay
            && !local_only
            && !addr.is_loopback()
            && !addr.is_unspecified()
            && !addr.is_multicast()
            && !self.ignore_addresses.contains(&addr)
            && !self
                .ignore_interfaces
                .iter()
                .any(|pattern| glob(pattern, name))
    }
}

/// The addresses of interfaces that are up and that the rules admit, sorted.
pub fn addresses(rules: &Rules) -> io::Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> = getifaddrs()?
        .filter(|i| {
            i.flags.contains(InterfaceFlags::UP) && !i.flags.contains(InterfaceFlags::LOOPBACK)
        })
        .filter_map(|interface| {
            let addr = match interface.address {
                Address::V4(v4) => IpAddr::V4(v4.address),
                Address::V6(v6) => IpAddr::V6(v6.address),
                Address::Mac(_) => return None,
            };
            rules.admit(&interface.name, addr).then_some(addr)
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Whether `name` matches `pattern`, in which `*` stands for any run of characters.
fn glob(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|rest| glob(tail, rest)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            interface: "ipop0".to_owned(),
            overlay: OverlayAddrs {
                ipv4: "10.73.0.2/24".parse().expect("valid"),
                ipv6: "fd5a::2/64".parse().expect("valid"),
            },
            ignore_interfaces: vec!["docker*".to_owned()],
            ignore_addresses: vec!["192.0.2.9".parse().expect("valid")],
        }
    }

    #[test]
    fn what_cannot_reach_a_peer_gives_no_candidate() {
        for (name, addr, admitted) in [
            ("eth0", "192.0.2.1", true),
            ("eth0", "2001:db8::1", true),
            ("eth0", "fd00::1", true),
            ("eth0", "fe80::1", false),
            ("eth0", "169.254.3.4", false),
            ("lo", "127.0.0.1", false),
            ("eth0", "10.73.0.9", false),
            ("eth0", "fd5a::9", false),
            ("ipop0", "198.51.100.1", false),
            ("docker0", "172.17.0.1", false),
            ("eth0", "192.0.2.9", false),
        ] {
            let ip = addr.parse().expect("valid");
            assert_eq!(rules().admit(name, ip), admitted, "{addr} on {name}");
        }
    }

    #[test]
    fn a_star_matches_any_run_of_characters() {
        for (pattern, name, matches) in [
            ("docker*", "docker0", true),
            ("docker*", "docker", true),
            ("docker*", "eth0", false),
            ("*", "anything", true),
            ("v*-*", "veth-a", true),
            ("v*-*", "vetha", false),
            ("eth0", "eth01", false),
            ("*0", "eth0", true),
            ("e*", "é", false),
        ] {
            assert_eq!(glob(pattern, name), matches, "{pattern} {name}");
        }
    }
}
