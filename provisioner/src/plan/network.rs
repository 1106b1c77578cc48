//! Overlay addresses of a deployment.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipop_proto::address::{Overlay4, Overlay6, OverlayAddrs};
use sha2::{Digest, Sha256};

use crate::error::{CliError, ExitCode};

/// Overlays are taken from 10.128.0.0/9: the upper half of 10/8 is the less used one.
const POOL: Net4 = Net4 {
    addr: Ipv4Addr::new(10, 128, 0, 0),
    prefix: 9,
};
/// Overlays are at least this big, so that nodes can be added.
const SMALLEST: u8 = 24;
/// And at most this big.
const LARGEST: u8 = 16;
const PREFIX6: u8 = 64;

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net4 {
    /// First address.
    pub addr: Ipv4Addr,
    /// Prefix length in bits.
    pub prefix: u8,
}

impl Net4 {
    fn mask(prefix: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
    }

    /// The network that an address is in.
    pub fn of(addr: Ipv4Addr, prefix: u8) -> Self {
        Self {
            addr: Ipv4Addr::from(u32::from(addr) & Self::mask(prefix)),
            prefix,
        }
    }

    /// Its first address, which is no host's.
    pub fn first(self) -> Ipv4Addr {
        self.addr
    }

    /// Its last address, which is no host's.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.addr) | !Self::mask(self.prefix))
    }

    /// Whether every address of `other` is one of it.
    pub fn holds(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.overlaps(other)
    }

    /// Whether the two have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        let mask = Self::mask(self.prefix.min(other.prefix));
        u32::from(self.addr) & mask == u32::from(other.addr) & mask
    }
}

impl fmt::Display for Net4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl FromStr for Net4 {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (addr, prefix) = text.split_once('/').ok_or(())?;
        let addr: Ipv4Addr = addr.parse().map_err(drop)?;
        let prefix = prefix.parse().ok().filter(|p| *p <= 32).ok_or(())?;
        Ok(Self::of(addr, prefix))
    }
}

/// Reads the networks of the kernel's IPv4 routes (`/proc/net/route`); the default route is none.
pub fn routes(text: &str) -> Vec<Net4> {
    let read = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // The kernel prints the big-endian words as it finds them in memory.
        let word = |i: usize| u32::from_str_radix(fields.get(i)?, 16).ok().map(u32::to_be);
        let prefix = u8::try_from(word(7)?.leading_ones())
            .ok()
            .filter(|p| *p > 0)?;
        Some(Net4 {
            addr: Ipv4Addr::from(word(1)?),
            prefix,
        })
    };
    text.lines().skip(1).filter_map(read).collect()
}

/// The two networks of an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlayNets {
    /// IPv4.
    pub ipv4: Net4,
    /// First address of the IPv6 /64.
    pub ipv6: Ipv6Addr,
}

impl OverlayNets {
    /// The addresses of host number `host`, from 1.
    pub fn host(&self, host: u32) -> OverlayAddrs {
        OverlayAddrs {
            ipv4: Overlay4 {
                addr: Ipv4Addr::from(u32::from(self.ipv4.addr) + host),
                prefix: self.ipv4.prefix,
            },
            ipv6: Overlay6 {
                addr: Ipv6Addr::from(u128::from(self.ipv6) + u128::from(host)),
                prefix: PREFIX6,
            },
        }
    }

    /// How many hosts there is room for: all but the network's own and the broadcast address.
    pub fn capacity(&self) -> u32 {
        (1_u32 << (32 - self.ipv4.prefix)) - 2
    }

    /// The lower half of both, IPv6 with its prefix: as many addresses of each.
    pub fn lower_half(&self) -> (Net4, String) {
        let ipv4 = Net4 {
            prefix: self.ipv4.prefix + 1,
            ..self.ipv4
        };
        let bits = 32 - ipv4.prefix;
        (ipv4, format!("{}/{}", self.ipv6, 128 - bits))
    }

    /// How many hosts there is room for in the lower half.
    pub fn lower_capacity(&self) -> u32 {
        (1_u32 << (31 - self.ipv4.prefix)) - 1
    }

    /// The IPv6 network with its prefix.
    pub fn net6(&self) -> String {
        format!("{}/{PREFIX6}", self.ipv6)
    }
}

/// Chooses networks for `nodes` nodes: the same name gets the same IPv4 network again, unless one
/// of `used` is in the way.
pub fn choose(
    name: &str,
    nodes: u32,
    used: &[Net4],
    seed: [u8; 7],
) -> Result<OverlayNets, CliError> {
    // Without the network's own and the broadcast address.
    let fits = |prefix: &u8| (1_u32 << (32 - prefix)) - 2 >= nodes;
    let prefix = (LARGEST..=SMALLEST).rev().find(fits).ok_or_else(|| {
        CliError::new(
            ExitCode::Usage,
            format!("{nodes} nodes do not fit into one overlay"),
        )
        .hint(format!(
            "an overlay takes {} nodes",
            (1_u32 << (32 - LARGEST)) - 2
        ))
    })?;
    let count = 1_u32 << (prefix - POOL.prefix);
    let digest = Sha256::digest(name);
    let start = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % count;
    let ipv4 = (0..count)
        .map(|i| (start + i) % count)
        .map(|index| u32::from(POOL.addr) + (index << (32 - prefix)))
        .map(|addr| Net4 {
            addr: addr.into(),
            prefix,
        })
        .find(|net| !used.iter().any(|u| u.overlaps(*net)))
        .ok_or_else(|| {
            CliError::new(
                ExitCode::Unavailable,
                format!("no /{prefix} is free in {POOL}"),
            )
            .hint("destroy a deployment, or remove the route that covers the network")
        })?;
    // RFC 4193 section 3.2: fd, 40 bits of global ID, 16 bits of subnet.
    let mut ipv6 = [0; 16];
    ipv6[0] = 0xfd;
    ipv6[1..8].copy_from_slice(&seed);
    Ok(OverlayNets {
        ipv4,
        ipv6: ipv6.into(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_same_name_gets_the_same_network_unless_it_is_used() {
        let first = choose("demo", 3, &[], [1; 7]).expect("free");
        assert_eq!(
            choose("demo", 3, &[], [2; 7]).expect("free").ipv4,
            first.ipv4
        );
        let other = choose("demo", 3, &[first.ipv4], [1; 7]).expect("free");
        assert!(!other.ipv4.overlaps(first.ipv4));
    }

    #[test]
    fn the_lower_half_has_the_same_hosts_in_both_families() {
        let nets = OverlayNets {
            ipv4: "10.130.2.0/24".parse().expect("valid"),
            ipv6: "fd5a:1:2:3::".parse().expect("valid"),
        };
        let (ipv4, ipv6) = nets.lower_half();
        assert_eq!(ipv4.to_string(), "10.130.2.0/25");
        assert_eq!(ipv6, "fd5a:1:2:3::/121");
        let last = nets.host(nets.lower_capacity());
        assert_eq!(last.ipv4.to_string(), "10.130.2.127/24");
        assert_eq!(last.ipv6.to_string(), "fd5a:1:2:3::7f/64");
    }

    #[test]
    fn a_pool_that_is_covered_by_a_route_is_an_error() {
        let vpn = "10.0.0.0/8".parse().expect("valid");
        let error = choose("demo", 3, &[vpn], [1; 7]).expect_err("covered");
        assert_eq!(error.message, "no /24 is free in 10.128.0.0/9");
    }

    #[test]
    fn routes_are_read_as_the_kernel_prints_them() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
                    eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\n\
                    eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\n";
        let expected: Net4 = "172.17.0.0/16".parse().expect("valid");
        assert_eq!(routes(text), [expected]);
    }

    proptest! {
        #[test]
        fn every_host_lies_in_the_overlay_and_the_overlay_in_the_pool(
            name in "[a-z]{1,24}", nodes in 1_u32..60_000, seed: [u8; 7]
        ) {
            let nets = choose(&name, nodes, &[], seed).expect("free");
            let (first, last) = (nets.host(1), nets.host(nodes));
            prop_assert!(POOL.overlaps(nets.ipv4));
            prop_assert!(first.ipv4.contains(last.ipv4.addr));
            prop_assert!(first.ipv6.contains(last.ipv6.addr));
            let broadcast = u32::from(nets.ipv4.addr) | !Net4::mask(nets.ipv4.prefix);
            prop_assert!(u32::from(last.ipv4.addr) < broadcast);
            prop_assert_eq!(first.ipv6.addr.octets()[0], 0xfd);
        }
    }
}
