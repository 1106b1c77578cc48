//! A LAN that a deployment's overlay extends: that of a front end which stands already, or of one
//! that is launched with a card on it.

use std::net::Ipv4Addr;

use ipop_proto::address::{MacAddr, Overlay4};

use sha2::{Digest, Sha256};

use super::Request;
use super::network::Net4;
use crate::error::{CliError, ExitCode};
use crate::name::{NodeName, machine_name};
use crate::site::Site;

/// The bridge of our own images that the LAN's card and the node's device are ports of.
pub const BRIDGE: &str = "br0";
/// The MTU of an Ethernet, and of its boot ROMs.
pub const ETHERNET_MTU: u16 = 1500;

/// The LAN, and what of it is for the deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lan {
    /// The front end's address on it, with its prefix length.
    pub address: Overlay4,
    /// Where the other nodes' addresses are taken from.
    pub pool: Net4,
    /// Where a front end that is launched takes addresses for machines without a node from; none where
    /// it stands already.
    pub machines: Option<Net4>,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// The bridge of the front end that it is on.
    pub bridge: String,
}

impl Lan {
    /// The whole LAN.
    pub fn net(&self) -> Net4 {
        Net4::of(self.address.addr, self.address.prefix)
    }

    /// Whether its front end is launched, and not one that stands already.
    pub fn is_launched(&self) -> bool {
        self.machines.is_some()
    }

    /// The address of host number `host`: the front end is 1, the others are in the pool.
    pub fn host(&self, host: u32) -> Overlay4 {
        match host {
            1 => self.address,
            n => Overlay4 {
                addr: Ipv4Addr::from(u32::from(self.pool.addr) + n),
                prefix: self.address.prefix,
            },
        }
    }

    /// How many hosts there are numbers for, the pool's first and last address left out.
    pub fn capacity(&self) -> u32 {
        (1_u32 << (32 - self.pool.prefix)) - 2
    }

    /// The MTU of the front end's port: a bridge takes the smallest of its ports' for its own, and
    /// the machines beside the front end are to keep theirs.
    pub fn port_mtu(&self) -> u16 {
        self.mtu.max(ETHERNET_MTU)
    }
}

/// The LAN of a cluster whose front end is to be on `site`; none where nobody asked and none stands.
pub fn of(request: &Request, site: &Site) -> Result<Option<Lan>, CliError> {
    let lan = site.lan(request.lan);
    if lan.is_some() || !request.lan {
        return Ok(lan);
    }
    let name = &site.name;
    if !site.kind.is_libvirt() {
        let message = format!("a front end on site `{name}` cannot have a LAN");
        return Err(CliError::new(ExitCode::Usage, message)
            .hint("take a site of kind libvirt, which has `[site.NAME.lan]`, or of kind rocks"));
    }
    let message = format!("site `{name}` does not say which LAN its front end gets");
    Err(CliError::new(ExitCode::Usage, message).hint(format!(
        "write `bridge`, `address`, `addresses` and `machines` into [site.{name}.lan] of sites.toml"
    )))
}

/// Refuses a gateway where there is nothing for it to join, or where it would join a LAN to itself.
pub fn check_gateway(
    lan: Option<&Lan>,
    frontend: Option<&str>,
    site: &Site,
) -> Result<(), CliError> {
    let refused = |message: String| CliError::new(ExitCode::Usage, message);
    let name = &site.name;
    if lan.is_none() {
        return Err(refused("a gateway needs a front end with a LAN".to_owned())
            .hint("give the front end one by --lan, or leave out --gateways"));
    }
    if !site.kind.is_libvirt() {
        let message = format!("site `{name}` cannot have a gateway: it has no LAN of its own");
        return Err(refused(message).hint("gateways are on sites of kind libvirt"));
    }
    if site.lan_bridge().is_none() {
        let message = format!("site `{name}` does not say which LAN its gateway is for");
        return Err(refused(message).hint(format!(
            "write `bridge` into [site.{name}.lan] of sites.toml"
        )));
    }
    if frontend == Some(name) {
        let message = format!("site `{name}` has the front end, which is on that LAN itself");
        return Err(refused(message).hint("gateways are for the LANs of other sites"));
    }
    Ok(())
}

/// Refuses a LAN that another deployment's front end has an address of, where it is ours to give.
pub fn check_free(lan: &Lan, taken: &[(Net4, String)]) -> Result<(), CliError> {
    let whole = lan.net();
    let other = taken.iter().find(|(net, _)| net.overlaps(whole));
    match other.filter(|_| lan.is_launched()) {
        None => Ok(()),
        Some((net, name)) => {
            let message = format!("the LAN {whole} has a front end already: `{name}`, of {net}");
            Err(CliError::new(ExitCode::Usage, message).hint(format!(
                "`provision destroy {name}` removes it, or take another LAN"
            )))
        }
    }
}

/// The MAC address of a node on such a LAN: one of those that are for local use (IEEE 802-2014
/// section 8.4), with the node's IPv4 address, which no other station of the LAN has.
pub fn mac(address: Ipv4Addr) -> MacAddr {
    let [a, b, c, d] = address.octets();
    MacAddr([0x02, b'I', a, b, c, d])
}

/// The MAC address of a machine's card on its site's LAN, by which the machine finds it: one for local use,
/// always the same.
pub fn card(deployment: &str, node: &NodeName) -> MacAddr {
    let digest = Sha256::digest(format!("{}.lan", machine_name(deployment, node)));
    MacAddr([0x52, 0x54, digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_end_keeps_its_address_and_the_others_come_from_the_pool() {
        let lan = Lan {
            address: "10.1.1.1/16".parse().expect("valid"),
            pool: "10.1.128.0/24".parse().expect("valid"),
            machines: None,
            mtu: 1400,
            bridge: "br0".to_owned(),
        };
        let hosts: Vec<_> = [1, 2, lan.capacity()]
            .map(|n| lan.host(n).to_string())
            .into();
        assert_eq!(hosts, ["10.1.1.1/16", "10.1.128.2/16", "10.1.128.254/16"]);
        assert_eq!(lan.net().to_string(), "10.1.0.0/16");
        assert_eq!(lan.port_mtu(), 1500);
        assert_eq!(mac(lan.host(2).addr).to_string(), "02:49:0a:01:80:02");
    }
}
