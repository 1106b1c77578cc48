//! What a front end is like, and whether it serves. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::config::RocksSite;
use super::table::{self, Row};
use crate::plan::lan::Lan;
use crate::plan::network::Net4;
use crate::provider::ssh::facts::{Facts, Verdict, bad, good};
use crate::ssh::room::Full;

/// Versions of Rocks that are tried.
const TRIED: [&str; 2] = ["6", "7"];
/// Ranks that are shown as free.
const SHOWN: usize = 3;

/// What the verdict on free space is called.
pub const ROOM: &str = "room for its files";

/// A front end.
#[derive(Debug)]
pub struct FrontEnd {
    facts: Facts,
    memberships: Vec<Row>,
    networks: Vec<Row>,
    hosts: Vec<Row>,
    interfaces: Vec<Row>,
}

impl FrontEnd {
    /// Reads what the script `probe` printed.
    pub fn parse(text: &str) -> Self {
        let facts = Facts::parse(text);
        let rows = |key: &str| table::parse(&facts.all(key).collect::<Vec<_>>().join("\n"));
        Self {
            memberships: rows("membership"),
            networks: rows("network"),
            hosts: rows("host"),
            interfaces: rows("interface"),
            facts,
        }
    }

    /// Judges it for a site with these settings; `own` are the hosts that this deployment, or
    /// another one, has registered there.
    pub fn judge(&self, site: &RocksSite, lan: &Lan, own: &BTreeSet<String>) -> Vec<Verdict> {
        if !self.facts.has("rocks") {
            return vec![bad(
                "Rocks",
                "there is no command `rocks`".to_owned(),
                "name a Rocks front end in `host` of the site; for other machines there is kind = \
                 \"ssh\"",
            )];
        }
        vec![
            self.version(),
            self.membership(site),
            self.network(site, lan),
            self.mtu(site, lan),
            self.bridge(site, lan),
            self.addresses(lan, own),
            self.ranks(site, own),
            self.room(),
            self.uefi(),
        ]
    }

    fn version(&self) -> Verdict {
        let version = self.facts.one("rocks").unwrap_or_default();
        let name = self.facts.one("release").unwrap_or(version);
        let glibc = self.facts.one("glibc").unwrap_or("libc unknown");
        let major = version.split('.').next().unwrap_or_default();
        // The node is static, and does with what systemd 219 knows.
        if TRIED.contains(&major) {
            good("Rocks", format!("{name}, {glibc}"))
        } else {
            good("Rocks", format!("{name}, {glibc}, which is not tried"))
        }
    }

    fn membership(&self, site: &RocksSite) -> Verdict {
        let what = "membership";
        let name = |row: &Row| row.get("membership").cloned();
        let names: Vec<_> = self.memberships.iter().filter_map(name).collect();
        let found = self
            .memberships
            .iter()
            .find(|r| name(r).as_ref() == Some(&site.membership));
        match found.and_then(|row| row.get("appliance")) {
            Some(appliance) if appliance == "compute" => good(what, site.membership.clone()),
            Some(appliance) => bad(
                what,
                format!("hosts of `{}` are named {appliance}-…", site.membership),
                "set `membership` of the site to one whose appliance is `compute`",
            ),
            None => bad(
                what,
                format!(
                    "Rocks has no `{}`, but {}",
                    site.membership,
                    names.join(", ")
                ),
                "set `membership` of the site to one of these",
            ),
        }
    }

    fn of_network(&self, site: &RocksSite) -> Option<&Row> {
        let own = |row: &&Row| row.get("network") == Some(&site.network);
        // A table of one network does not name it.
        let one = |rows: &[Row]| rows.len() == 1 && !rows[0].contains_key("network");
        let only = self.networks.first().filter(|_| one(&self.networks));
        self.networks.iter().find(own).or(only)
    }

    fn network(&self, site: &RocksSite, lan: &Lan) -> Verdict {
        let what = "network";
        let Some(row) = self.of_network(site) else {
            return bad(
                what,
                format!("Rocks has no network `{}`", site.network),
                "`rocks list network` there shows them: set `network` of the site",
            );
        };
        let mask = row.get("netmask").and_then(|m| m.parse::<Ipv4Addr>().ok());
        let prefix = mask.map(|m| u32::from(m).leading_ones());
        let subnet = row.get("subnet").cloned().unwrap_or_default();
        let found = format!("{subnet}/{}", prefix.unwrap_or(0));
        if found == lan.net().to_string() {
            good(what, format!("{} is {found}", site.network))
        } else {
            bad(
                what,
                format!("{} is {found}, not {}", site.network, lan.net()),
                "set `address` of the site to the front end's on that network",
            )
        }
    }

    fn mtu(&self, site: &RocksSite, lan: &Lan) -> Verdict {
        let what = "MTU";
        let rocks = self.of_network(site).and_then(|row| row.get("mtu"));
        let rocks: Option<u16> = rocks.and_then(|m| m.parse().ok());
        let device: Option<u16> = self.facts.one("mtu").and_then(|m| m.parse().ok());
        match (rocks, site.mtu) {
            _ if device.is_some_and(|mtu| mtu > lan.port_mtu()) => bad(
                what,
                format!(
                    "the bridge has {}, and a port with {} would lower it",
                    device.unwrap_or(0),
                    lan.port_mtu()
                ),
                "set `mtu` of the site to that of the bridge",
            ),
            (Some(now), Some(mtu)) if now != mtu => good(
                what,
                format!("{now}, which is set to {mtu} while a cluster stands"),
            ),
            (Some(now), _) if now == lan.mtu => good(what, now.to_string()),
            (Some(now), _) => bad(
                what,
                format!("{now}, not {}", lan.mtu),
                "set `mtu` of the site to it, or to 1500",
            ),
            (None, _) => bad(
                what,
                "unknown to Rocks".to_owned(),
                "`rocks set network mtu` there sets it",
            ),
        }
    }

    fn bridge(&self, site: &RocksSite, lan: &Lan) -> Verdict {
        let what = "bridge";
        let bridge = &site.bridge;
        let named = |row: &&Row| row.get("subnet") == Some(&site.network);
        let own = |row: &&Row| row.get("ip") == Some(&lan.address.addr.to_string());
        let known = self.interfaces.iter().filter(named).find(own);
        let Some(interface) = known.and_then(|row| row.get("iface")) else {
            return bad(
                what,
                format!(
                    "no interface of Rocks has {} on `{}`",
                    lan.address.addr, site.network
                ),
                "`rocks list host interface` there shows the front end's: set `address` of the site",
            );
        };
        let wanted = lan.address.to_string();
        if !self.facts.has("bridge") {
            let found = match self.facts.has("device") {
                true => format!("{bridge} is no bridge"),
                false => format!("there is no {bridge}"),
            };
            return bad(
                what,
                format!("{found}, and the network is on {interface}"),
                "only a bridge can have the overlay as a port: make one there with this interface \
                 as its port and its address, tell Rocks (`rocks set host interface iface`, `rocks \
                 sync config`), and set `bridge` of the site",
            );
        }
        if interface != bridge || !self.facts.all("address").any(|a| a == wanted) {
            return bad(
                what,
                format!("{bridge} has not {wanted}; to Rocks the network is on {interface}"),
                "set `bridge` of the site to the one that the network is on",
            );
        }
        good(what, format!("{bridge} with {wanted}"))
    }

    fn addresses(&self, lan: &Lan, own: &BTreeSet<String>) -> Verdict {
        let what = "addresses";
        let inside = |row: &&Row| {
            let ip = row.get("ip").and_then(|ip| ip.parse::<Ipv4Addr>().ok());
            let others = !row.get("host").is_some_and(|host| own.contains(host));
            others && ip.is_some_and(|ip| lan.pool.holds(Net4::of(ip, 32)))
        };
        match self.interfaces.iter().find(inside) {
            None => good(what, format!("{} is free", lan.pool)),
            Some(row) => bad(
                what,
                format!(
                    "{} of {} is {}'s",
                    row.get("ip").map_or("", String::as_str),
                    lan.pool,
                    row.get("host").map_or("another host", String::as_str),
                ),
                "set `addresses` of the site to a part of the network that Rocks uses nothing of",
            ),
        }
    }

    /// Whether Rocks can write what it writes for workers: it leaves half a file where it cannot.
    fn room(&self) -> Verdict {
        match self.facts.one("full").and_then(Full::parse) {
            None => good(ROOM, "there"),
            Some(full) => bad(ROOM, full.why(), &full.hint()),
        }
    }

    /// Whether machines with UEFI can boot from it; workers of a deployment do not need that.
    fn uefi(&self) -> Verdict {
        let lacking: Vec<_> = self.facts.all("lacking").collect();
        let found = match (self.facts.has("uefi"), &lacking[..]) {
            (false, _) => {
                "machines with it are given nothing: Rocks serves them since 7".to_owned()
            }
            (true, []) => "machines with it are served".to_owned(),
            (true, _) => format!(
                "machines with it are offered what is not there: copy {} to \
                 /tftpboot/pxelinux/uefi.cfg",
                lacking.join(" and ")
            ),
        };
        good("UEFI", found)
    }

    fn ranks(&self, site: &RocksSite, own: &BTreeSet<String>) -> Verdict {
        let taken: BTreeSet<u32> = self
            .hosts
            .iter()
            .filter(|row| row.get("rack") == Some(&site.rack.to_string()))
            .filter(|row| !row.get("host").is_some_and(|host| own.contains(host)))
            .filter_map(|row| row.get("rank")?.parse().ok())
            .collect();
        let what = "ranks";
        match taken.first() {
            None => {
                let names: Vec<_> = (0..).take(SHOWN).map(|n| site.host_name(n)).collect();
                good(what, format!("{}, … are free", names.join(", ")))
            }
            Some(rank) => bad(
                what,
                format!("{} is another node's", site.host_name(*rank)),
                "set `rack` of the site to one that Rocks has no node in",
            ),
        }
    }
}
