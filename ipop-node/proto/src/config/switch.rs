//! `[switch]`: what a node in mode `switch` is bridged to, and what it allows.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipop_datapath::stations::AGE_S;
use serde::{Deserialize, Serialize};

use super::{ConfigError, NodeConfig, OverlayMode, is_dns_label, is_interface_name};
use crate::address::{MacAddr, OverlayAddrs};
use crate::switch::Settings;
use crate::switch::fdb::Limits;
use crate::switch::guard::{Allowed, Place, Policy};
use crate::switch::owners::{Carriers, Own};
use crate::switch::probe::NodeId;
use crate::switch::storm::{Allowance, Allowances, Rate};

/// In place of a node's name: every node.
const ANYBODY: &str = "*";

/// `[switch]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SwitchSection {
    /// A bridge of this machine, Linux's or one of Open vSwitch. The device becomes a port of it once there
    /// is a link, and has no addresses of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Seconds after which a station that is silent is forgotten, 10 to 86400.
    pub ageing_s: u32,
    /// Most stations that are known behind one member.
    pub member_stations: usize,
    /// Most stations that are known on this node's own side.
    pub lan_stations: usize,
    /// Most stations that are known.
    pub stations: usize,
    /// Who may answer DHCP across the overlay; nobody without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<AllowedSection>,
    /// Who may answer DHCPv6 across the overlay; nobody without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcpv6: Option<AllowedSection>,
    /// Who may be an IPv6 router across the overlay; nobody without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<AllowedSection>,
    /// The nodes that may carry frames of a LAN, by name, this one's own or others'; `*` for every node, as without
    /// it. Frames of all others come from their own addresses alone.
    #[serde(skip_serializing_if = "is_for_all")]
    pub lans: BTreeSet<String>,
    /// What each member, and this node's own side, may send to more than one.
    pub storm: StormSection,
    /// Addresses that belong to certain stations, whatever others claim.
    #[serde(rename = "address", skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AddressSection>,
}

/// `[switch.dhcp]` and the like: who may have a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedSection {
    /// The name of the node that it is behind, this one's own or another's; `*` for every node.
    pub node: String,
    /// Its Ethernet address, when it has to be that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
}

/// `[switch.storm]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StormSection {
    /// To everybody.
    pub broadcast: RateSection,
    /// To groups.
    pub multicast: RateSection,
    /// To stations that nobody knows.
    pub unknown_unicast: RateSection,
}

/// How much, in each second; twice as much at once after a silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateSection {
    /// Frames.
    pub frames: u32,
    /// Bytes.
    pub bytes: u32,
}

/// `[[switch.address]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressSection {
    /// The address.
    pub ip: IpAddr,
    /// Whose it is.
    pub mac: MacAddr,
}

impl Default for SwitchSection {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            bridge: None,
            ageing_s: AGE_S,
            member_stations: limits.member,
            lan_stations: limits.lan,
            stations: limits.total,
            dhcp: None,
            dhcpv6: None,
            router: None,
            lans: [ANYBODY.to_owned()].into(),
            storm: StormSection::default(),
            addresses: Vec::new(),
        }
    }
}

impl Default for StormSection {
    fn default() -> Self {
        let rate = |allowance: Allowance| RateSection {
            frames: allowance.frames.per_second as u32,
            bytes: allowance.bytes.per_second as u32,
        };
        let allowances = Allowances::default();
        Self {
            broadcast: rate(allowances.broadcast),
            multicast: rate(allowances.multicast),
            unknown_unicast: rate(allowances.unknown_unicast),
        }
    }
}

impl SwitchSection {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What the switch of the node `own`, which has these addresses, is to do and to allow.
    pub fn settings(&self, own: &str, addrs: OverlayAddrs) -> Settings {
        let allowed = |section: &Option<AllowedSection>| match section {
            None => Allowed::Nobody,
            Some(section) if section.node == ANYBODY => Allowed::Anybody,
            Some(AllowedSection { node, mac }) => Allowed::Only {
                place: if node == own {
                    Place::Here
                } else {
                    Place::Member(node.clone())
                },
                mac: mac.map(|mac| mac.0),
            },
        };
        Settings {
            limits: Limits {
                member: self.member_stations,
                lan: self.lan_stations,
                total: self.stations,
            },
            allowances: Allowances {
                broadcast: self.storm.broadcast.allowance(),
                multicast: self.storm.multicast.allowance(),
                unknown_unicast: self.storm.unknown_unicast.allowance(),
            },
            policy: Policy {
                dhcp: allowed(&self.dhcp),
                dhcpv6: allowed(&self.dhcpv6),
                router: allowed(&self.router),
            },
            addresses: self.addresses.iter().map(|a| (a.ip, a.mac.0)).collect(),
            own: Some(Own {
                id: NodeId::of_name(own),
                addresses: addrs.all().into(),
            }),
            carriers: if is_for_all(&self.lans) {
                Carriers::Anybody
            } else {
                Carriers::Only(self.lans.clone())
            },
        }
    }

    pub(super) fn check(&self, config: &NodeConfig) -> Result<(), ConfigError> {
        let value = |key, problem: &str| {
            Err(ConfigError::Value {
                key,
                problem: problem.to_owned(),
            })
        };
        if config.overlay.mode != OverlayMode::Switch && !self.is_default() {
            return value(
                "switch",
                "means something in `overlay.mode = \"switch\"` only",
            );
        }
        if let Some(bridge) = &self.bridge {
            if !is_interface_name(bridge) || *bridge == config.overlay.interface {
                return value("switch.bridge", "must be the name of a bridge");
            }
            if config.overlay.mtu < 1500 {
                let problem = "must be at least 1500 with `switch.bridge`, which would otherwise \
                               take on the smaller one of the device";
                return value("overlay.mtu", problem);
            }
        }
        if !(10..=86_400).contains(&self.ageing_s) {
            return value("switch.ageing_s", "must be between 10 and 86400 seconds");
        }
        if self.member_stations == 0 || self.lan_stations == 0 || self.stations == 0 {
            return value("switch.stations", "and the other limits must be at least 1");
        }
        let roles = [
            ("switch.dhcp.node", &self.dhcp),
            ("switch.dhcpv6.node", &self.dhcpv6),
            ("switch.router.node", &self.router),
        ];
        for (key, section) in roles {
            let node = section.as_ref().map(|section| section.node.as_str());
            if node.is_some_and(|node| node != ANYBODY && !is_dns_label(node)) {
                return value(key, "must be the name of a node, or `*` for every node");
            }
        }
        let is_name = |name: &&String| *name == ANYBODY || is_dns_label(name);
        if let Some(name) = self.lans.iter().find(|name| !is_name(name)) {
            let problem = format!("`{name}` is not the name of a node, nor `*` for every node");
            return value("switch.lans", &problem);
        }
        if self.bridge.is_some()
            && !is_for_all(&self.lans)
            && !self.lans.contains(&config.node.name)
        {
            let problem = "must name this node too, which is bridged to a LAN";
            return value("switch.lans", problem);
        }
        let mut seen = BTreeSet::new();
        for AddressSection { ip, .. } in &self.addresses {
            if !seen.insert(ip) {
                return value("switch.address", &format!("{ip} is there twice"));
            }
        }
        Ok(())
    }
}

fn is_for_all(lans: &BTreeSet<String>) -> bool {
    lans.contains(ANYBODY)
}

impl RateSection {
    fn allowance(self) -> Allowance {
        let rate = |per_second: u32| Rate {
            per_second: per_second.into(),
            burst: 2 * u64::from(per_second),
        };
        Allowance {
            frames: rate(self.frames),
            bytes: rate(self.bytes),
        }
    }
}
