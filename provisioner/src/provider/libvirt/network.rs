//! The network of a deployment on one host: a bridge with NAT and DHCP.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::Serialize;
use sha2::{Digest, Sha256};
use virt::connect::Connect;
use virt::network::Network;

use super::connection::Context;
use super::tags::attribute;
use super::{ffi, tags};
use crate::error::{CliError, ExitCode};
use crate::name::RESOURCE_PREFIX;
use crate::provider::Tags;
use crate::render::render;

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// First address.
    pub base: Ipv4Addr,
    /// Prefix length in bits.
    pub prefix: u8,
}

impl Subnet {
    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        let mask = mask(self.prefix.min(other.prefix));
        u32::from(self.base) & mask == u32::from(other.base) & mask
    }
}

/// Name of a deployment's network.
pub fn network_name(deployment: &str) -> String {
    format!("{RESOURCE_PREFIX}-{deployment}")
}

/// Name of its bridge: at most 15 bytes, whatever the deployment is called.
pub fn bridge_name(network: &str) -> String {
    let digest = Sha256::digest(network);
    format!(
        "ipop{:02x}{:02x}{:02x}{:02x}",
        digest[0], digest[1], digest[2], digest[3]
    )
}

/// The subnets to try for a network, in an order of its own, so that two networks made at the same
/// time rarely want the same: 192.168.128–254.0/24, then parts of 172.16/12 and 10/8 that other
/// tools leave alone.
pub fn candidates(network: &str) -> impl Iterator<Item = Subnet> {
    let start = u16::from(Sha256::digest(network)[0]);
    let block = |a: u8, b: u8, first: u16, count: u16| {
        (0..count).map(move |i| Subnet {
            base: Ipv4Addr::new(a, b, (first + (start + i) % count) as u8, 0),
            prefix: 24,
        })
    };
    block(192, 168, 128, 127)
        .chain(block(172, 30, 0, 256))
        .chain(block(10, 213, 0, 256))
}

/// The networks in the text of `/proc/net/route`, without the default route.
pub fn routes(proc_net_route: &str) -> Vec<Subnet> {
    proc_net_route
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            // Host byte order of a little-endian machine, as the kernel prints a __be32 with %08X.
            let address = |s: &str| u32::from_str_radix(s, 16).ok().map(u32::from_be);
            let base = address(fields.next()?)?;
            let mask = address(fields.nth(5)?)?;
            Some(Subnet {
                base: base.into(),
                prefix: mask.count_ones() as u8,
            })
        })
        .filter(|s| s.prefix > 0)
        .collect()
}

/// The IPv4 subnets in a network's XML as libvirt prints it.
pub fn subnets_of(network_xml: &str) -> Vec<Subnet> {
    network_xml
        .split("<ip ")
        .skip(1)
        .filter_map(|rest| {
            let tag = rest.split('>').next()?;
            let base: Ipv4Addr = attribute(tag, "address")?.parse().ok()?;
            let prefix = match attribute(tag, "prefix") {
                Some(prefix) => prefix.parse().ok()?,
                None => {
                    let mask: Ipv4Addr = attribute(tag, "netmask")?.parse().ok()?;
                    u32::from(mask).count_ones() as u8
                }
            };
            Some(Subnet { base, prefix })
        })
        .collect()
}

/// The XML of a network on `subnet`; the host has the subnet's first address.
pub fn network_xml(
    name: &str,
    bridge: &str,
    subnet: Subnet,
    tags: Option<&Tags>,
) -> Result<String, minijinja::Error> {
    #[derive(Serialize)]
    struct Values<'a> {
        record: Option<(&'a str, String)>,
        name: &'a str,
        bridge: &'a str,
        address: Ipv4Addr,
        first: Ipv4Addr,
        last: Ipv4Addr,
    }
    let host = |n: u32| Ipv4Addr::from(u32::from(subnet.base) + n);
    let values = Values {
        record: tags.map(|t| (tags::RECORD, tags::record(t))),
        name,
        bridge,
        address: host(1),
        first: host(2),
        last: host(254),
    };
    render("libvirt-network.xml.j2", values)
}

/// Defines and starts the network unless it runs; returns the host's address on it.
pub fn ensure(
    conn: &Connect,
    name: &str,
    local: bool,
    tags: Option<&Tags>,
) -> Result<Ipv4Addr, CliError> {
    if let Some(network) = find(conn, name)? {
        if let Some(expected) = tags {
            let theirs = tags_of(&network, name)?;
            tags::check(&format!("network \"{name}\""), theirs.as_ref(), expected)?;
        }
        start(&network, name)?;
        return host_address(&network, name);
    }
    let taken = taken(conn, local)?;
    let mut last_error = None;
    // A network of somebody else may come up between the look and the start; a few tries do.
    for subnet in candidates(name)
        .filter(|c| !taken.iter().any(|t| t.overlaps(*c)))
        .take(4)
    {
        let xml = network_xml(name, &bridge_name(name), subnet, tags).map_err(|e| {
            CliError::new(ExitCode::Internal, "cannot render a network").caused_by(e)
        })?;
        let network = conn
            .define_network_xml(&xml)
            .context(|| format!("cannot define network \"{name}\""))?;
        match start(&network, name) {
            Ok(()) => return host_address(&network, name),
            Err(e) => {
                let undefined = network.undefine();
                undefined.context(|| format!("cannot undefine network \"{name}\""))?;
                last_error = Some(e);
            }
        }
    }
    Err(last_error.unwrap_or_else(|| {
        CliError::new(
            ExitCode::Unavailable,
            format!("no free subnet for network \"{name}\""),
        )
        .hint("routes cover 192.168.128.0/17, 172.30.0.0/16 and 10.213.0.0/16: free a /24 of these")
    }))
}

/// Whose the network of this name is, if there is one and it says.
pub fn tags(conn: &Connect, name: &str) -> Result<Option<Tags>, CliError> {
    let Some(network) = find(conn, name)? else {
        return Ok(None);
    };
    let xml = network.xml_desc(0).if_exists();
    let xml = xml.context(|| format!("cannot read network \"{name}\""))?;
    Ok(xml.as_deref().and_then(tags::of_network))
}

/// The IPv4 addresses that the network's DHCP server gave, by MAC address. A network that is not
/// there gave none.
pub fn leases(conn: &Connect, name: &str) -> Result<BTreeMap<String, IpAddr>, CliError> {
    let Some(network) = find(conn, name)? else {
        return Ok(BTreeMap::new());
    };
    if !network.is_active().unwrap_or(false) {
        return Ok(BTreeMap::new());
    }
    let leases = ffi::leases(&network).if_exists();
    let leases = leases.context(|| format!("cannot read the leases of network \"{name}\""))?;
    Ok(leases.unwrap_or_default().into_iter().collect())
}

/// Stops and undefines the network. One that is gone is no error.
pub fn remove(conn: &Connect, name: &str) -> Result<(), CliError> {
    let Some(network) = find(conn, name)? else {
        return Ok(());
    };
    if network.is_active().unwrap_or(false) {
        let stopped = network.destroy().if_exists();
        stopped.context(|| format!("cannot stop network \"{name}\""))?;
    }
    network
        .undefine()
        .if_exists()
        .context(|| format!("cannot undefine network \"{name}\""))?;
    Ok(())
}

fn find(conn: &Connect, name: &str) -> Result<Option<Network>, CliError> {
    let found = conn.lookup_network_by_name(name).if_exists();
    found.context(|| format!("cannot look up network \"{name}\""))
}

fn tags_of(network: &Network, name: &str) -> Result<Option<Tags>, CliError> {
    let xml = network
        .xml_desc(0)
        .context(|| format!("cannot read network \"{name}\""))?;
    Ok(tags::of_network(&xml))
}

fn start(network: &Network, name: &str) -> Result<(), CliError> {
    if network.is_active().unwrap_or(false) {
        return Ok(());
    }
    network
        .create()
        .context(|| format!("cannot start network \"{name}\""))
        .map(drop)
        .map_err(|e| {
            e.hint("libvirt needs dnsmasq (package dnsmasq-base) and nft or iptables for it")
        })
}

fn host_address(network: &Network, name: &str) -> Result<Ipv4Addr, CliError> {
    let xml = network
        .xml_desc(0)
        .context(|| format!("cannot read network \"{name}\""))?;
    subnets_of(&xml).first().map(|s| s.base).ok_or_else(|| {
        CliError::new(
            ExitCode::Unavailable,
            format!("network \"{name}\" has no IPv4 address"),
        )
        .hint(format!(
            "remove it: `virsh net-destroy {name}; virsh net-undefine {name}`"
        ))
    })
}

fn taken(conn: &Connect, local: bool) -> Result<Vec<Subnet>, CliError> {
    let mut taken = Vec::new();
    if local {
        // Addresses need no look of their own: each has a route to its network.
        let text = std::fs::read_to_string("/proc/net/route").map_err(|e| {
            CliError::new(ExitCode::Internal, "cannot read /proc/net/route").caused_by(e)
        })?;
        taken.extend(routes(&text));
    }
    for network in conn
        .list_all_networks(0)
        .context(|| "cannot list libvirt's networks".into())?
    {
        // One that vanished meanwhile takes no subnet.
        if let Ok(xml) = network.xml_desc(0) {
            taken.extend(subnets_of(&xml));
        }
    }
    Ok(taken)
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        let (base, prefix) = text.split_once('/').unwrap();
        Subnet {
            base: base.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
        }
    }

    #[test]
    fn subnets_overlap_when_one_holds_the_other() {
        for (a, b, overlap) in [
            ("192.168.0.0/16", "192.168.7.0/24", true),
            ("192.168.7.0/24", "192.168.8.0/24", false),
            ("192.168.7.9/32", "192.168.7.0/24", true),
            ("0.0.0.0/0", "10.0.0.0/8", true),
        ] {
            assert_eq!(subnet(a).overlaps(subnet(b)), overlap, "{a} {b}");
            assert_eq!(subnet(b).overlaps(subnet(a)), overlap, "{b} {a}");
        }
    }

    #[test]
    fn the_default_route_takes_no_subnet() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
                    eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(routes(text), [subnet("192.0.2.0/24")]);
    }

    #[test]
    fn subnets_are_read_from_libvirts_xml_with_prefix_or_netmask() {
        let xml = "<network><ip address='192.168.122.1' netmask='255.255.255.0'><dhcp/></ip>\
                   <ip family='ipv6' address='fd00::1' prefix='64'/>\
                   <ip address='10.1.0.1' prefix='16'/></network>";
        assert_eq!(
            subnets_of(xml),
            [subnet("192.168.122.1/24"), subnet("10.1.0.1/16")]
        );
    }

    #[test]
    fn every_candidate_is_tried_once_and_all_are_private() {
        let all: Vec<_> = candidates("ipop-demo").collect();
        let distinct: std::collections::BTreeSet<_> = all.iter().map(|s| s.base).collect();
        assert_eq!(all.len(), 127 + 256 + 256);
        assert_eq!(distinct.len(), all.len());
        assert!(all.iter().all(|s| s.base.is_private() && s.prefix == 24));
        assert!(!distinct.contains(&Ipv4Addr::new(192, 168, 255, 0)));
    }

    #[test]
    fn bridge_names_fit_the_kernels_limit_and_differ() {
        let long = bridge_name(&network_name(&"x".repeat(60)));
        assert!(long.len() <= 15, "{long}");
        assert_ne!(long, bridge_name(&network_name("demo")));
    }

    #[test]
    fn the_network_template_renders() {
        let tags = Tags {
            owner: "0123456789abcdef".into(),
            deployment: "<demo>".into(),
            uid: "fedcba9876543210".into(),
        };
        let xml = network_xml(
            "ipop-<demo>",
            "ipop0a1b2c3d",
            subnet("192.168.200.0/24"),
            Some(&tags),
        )
        .unwrap();
        insta::assert_snapshot!(xml);
    }

    #[test]
    fn a_network_is_made_once_and_removed_once() {
        let conn = Connect::open(Some("test:///default")).unwrap();
        let first = ensure(&conn, "ipop-unit", false, None).unwrap();
        assert_eq!(ensure(&conn, "ipop-unit", false, None).unwrap(), first);
        let other = ensure(&conn, "ipop-unit2", false, None).unwrap();
        assert_ne!(first.octets()[2], other.octets()[2]);
        for name in ["ipop-unit", "ipop-unit", "ipop-unit2"] {
            remove(&conn, name).unwrap();
            assert!(conn.lookup_network_by_name(name).is_err());
        }
    }
}
