//! `[site.NAME.lan]`: a network of a site's host that machines beside the deployment's own are on.

use ipop_proto::address::Overlay4;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::lan::{BRIDGE, ETHERNET_MTU, Lan};
use crate::plan::network::Net4;

/// A LAN of a site. With `bridge` alone a gateway can be there; the rest is for a front end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteLan {
    /// An existing bridge of the host, which the LAN is on.
    pub bridge: String,
    /// The address on it of a front end that is launched here, with its prefix length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The part of the LAN that workers' and gateways' addresses are taken from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<String>,
    /// The part of the LAN that addresses of machines are taken from which boot from the front end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machines: Option<String>,
}

impl SiteLan {
    /// Which key is defective and how, if one is.
    pub fn check(&self) -> Result<(), String> {
        let odd = |c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c);
        let name = &self.bridge;
        if name.is_empty() || name.len() > 15 || name.starts_with(['-', '.']) || name.contains(odd)
        {
            return Err(format!("bridge: `{name}` cannot be the name of one"));
        }
        self.frontend().map(drop)
    }

    /// The LAN of a front end that is launched here; none where the table has nothing but the bridge.
    pub fn frontend(&self) -> Result<Option<Lan>, String> {
        let (address, pool, machines) = match (&self.address, &self.addresses, &self.machines) {
            (None, None, None) => return Ok(None),
            (Some(address), Some(pool), Some(machines)) => (address, pool, machines),
            _ => {
                return Err(
                    "address: a front end's LAN has all of `address`, `addresses` and `machines`"
                        .to_owned(),
                );
            }
        };
        let address: Overlay4 = address.parse().map_err(|e| format!("address: {e}"))?;
        let whole = Net4::of(address.addr, address.prefix);
        let own = Net4::of(address.addr, 32);
        if !(8..=29).contains(&address.prefix) {
            return Err(format!("address: {whole} must be a /8 to a /29"));
        }
        if [whole.first(), whole.last()].contains(&address.addr) {
            return Err(format!("address: {} is no host's of {whole}", address.addr));
        }
        let part = |key: &str, text: &str| {
            let part: Net4 = text
                .parse()
                .map_err(|()| format!("{key}: `{text}` is no network, like 10.1.0.64/26"))?;
            if !whole.holds(part) {
                return Err(format!("{key}: {part} is not within {whole}"));
            }
            if part.prefix > 30 {
                return Err(format!("{key}: {part} has no room"));
            }
            if part.holds(own) {
                return Err(format!("{key}: {part} has the front end's own address"));
            }
            Ok(part)
        };
        let (pool, machines) = (part("addresses", pool)?, part("machines", machines)?);
        if pool.overlaps(machines) {
            return Err(format!(
                "machines: {machines} and {pool} have addresses in common"
            ));
        }
        Ok(Some(Lan {
            address,
            pool,
            machines: Some(machines),
            mtu: ETHERNET_MTU,
            bridge: BRIDGE.to_owned(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lan(address: &str, addresses: &str, machines: &str) -> Result<Option<Lan>, String> {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let lan = SiteLan {
            bridge: "br-lab".to_owned(),
            address: given(address),
            addresses: given(addresses),
            machines: given(machines),
        };
        lan.check().and_then(|()| lan.frontend())
    }

    #[test]
    fn a_bridge_alone_is_for_gateways_and_a_front_end_needs_the_rest() {
        assert_eq!(lan("", "", ""), Ok(None));
        let whole = lan("10.1.0.254/24", "10.1.0.128/26", "10.1.0.64/26");
        let whole = whole.expect("valid").expect("a LAN");
        assert_eq!(whole.bridge, BRIDGE, "the guest's, not the host's");
        assert_eq!(whole.host(2).to_string(), "10.1.0.130/24");
        assert_eq!(
            whole.machines.map(|m| m.to_string()).as_deref(),
            Some("10.1.0.64/26")
        );
    }

    #[test]
    fn each_defect_of_a_lan_is_named() {
        let defects = [
            lan("10.1.0.254/24", "", "10.1.0.64/26"),
            lan("10.1.0.254", "10.1.0.128/26", "10.1.0.64/26"),
            lan("10.1.0.255/24", "10.1.0.128/26", "10.1.0.64/26"),
            lan("10.1.0.254/30", "10.1.0.128/26", "10.1.0.64/26"),
            lan("10.1.0.254/24", "10.2.0.128/26", "10.1.0.64/26"),
            lan("10.1.0.254/24", "10.1.0.128/26", "10.1.0.101"),
            lan("10.1.0.254/24", "10.1.0.128/26", "10.1.0.64/31"),
            lan("10.1.0.254/24", "10.1.0.128/26", "10.1.0.192/26"),
            lan("10.1.0.254/24", "10.1.0.0/25", "10.1.0.64/26"),
        ];
        let messages = defects.map(|d| d.expect_err("defective"));
        insta::assert_snapshot!(messages.join("\n"));
        for name in ["", "br 0", "-br", "..", "a-very-long-name-of-one"] {
            let lan = SiteLan {
                bridge: name.to_owned(),
                address: None,
                addresses: None,
                machines: None,
            };
            lan.check().expect_err(name);
        }
    }
}
