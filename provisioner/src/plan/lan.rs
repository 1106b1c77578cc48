//! A LAN that a deployment's overlay extends: that of a front end which stands already.

use std::net::Ipv4Addr;

use ipop_proto::address::{MacAddr, Overlay4};

use super::network::Net4;

/// The MTU of an Ethernet, and of its boot ROMs.
pub const ETHERNET_MTU: u16 = 1500;

/// The LAN, and what of it is for the deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lan {
    /// The front end's address on it, with its prefix length.
    pub address: Overlay4,
    /// Where the other nodes' addresses are taken from.
    pub pool: Net4,
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

/// The MAC address of a node on such a LAN: one of those that are for local use (IEEE 802-2014
/// section 8.4), with the node's IPv4 address, which no other station of the LAN has.
pub fn mac(address: Ipv4Addr) -> MacAddr {
    let [a, b, c, d] = address.octets();
    MacAddr([0x02, b'I', a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_end_keeps_its_address_and_the_others_come_from_the_pool() {
        let lan = Lan {
            address: "10.1.1.1/16".parse().expect("valid"),
            pool: "10.1.128.0/24".parse().expect("valid"),
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
