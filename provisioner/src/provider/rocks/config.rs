//! Settings of a Rocks site.

use std::path::PathBuf;

use ipop_proto::address::Overlay4;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::lan::{ETHERNET_MTU, Lan};
use crate::plan::network::Net4;
use crate::ssh::target::Target;

/// A Rocks site's settings: one front end, which stands already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RocksSite {
    /// `[user@]host[:port]` of the front end. The user needs root rights: be root, or `sudo`
    /// without a password.
    pub host: String,
    /// Private key file; without it what `ssh` finds by itself (agent, `~/.ssh`).
    #[serde(default)]
    pub identity: Option<PathBuf>,
    /// Public host keys; without it the user's own `known_hosts`. A host that is in neither is
    /// refused.
    #[serde(default)]
    pub known_hosts: Option<PathBuf>,
    /// The network that workers join, as Rocks names it.
    #[serde(default = "network")]
    pub network: String,
    /// The bridge of the front end that this network is on.
    pub bridge: String,
    /// The front end's address on it, with its prefix length.
    #[serde(default = "address")]
    pub address: String,
    /// The part of it that workers' addresses are taken from. Rocks gives its own nodes addresses
    /// from the upper end of the network downwards.
    #[serde(default = "addresses")]
    pub addresses: String,
    /// MTU of the workers and, by DHCP, of every other machine of the network, in bytes. Without
    /// it Rocks is left as it is, which must be 1500 then.
    #[serde(default)]
    #[schemars(range(min = 1280, max = 9000))]
    pub mtu: Option<u16>,
    /// What workers are to Rocks.
    #[serde(default = "membership")]
    pub membership: String,
    /// The rack that workers are counted in: `worker-3` is `compute-RACK-3`.
    #[serde(default = "rack")]
    pub rack: u32,
}

fn network() -> String {
    "private".to_owned()
}

fn address() -> String {
    "10.1.1.1/16".to_owned()
}

fn addresses() -> String {
    "10.1.128.0/24".to_owned()
}

fn membership() -> String {
    "Compute".to_owned()
}

fn rack() -> u32 {
    90
}

impl RocksSite {
    /// The LAN that overlays extend, or which key is defective and how.
    pub fn lan(&self) -> Result<Lan, String> {
        self.host
            .parse::<Target>()
            .map_err(|e| format!("host: {e}"))?;
        let address: Overlay4 = self.address.parse().map_err(|e| format!("address: {e}"))?;
        let pool: Net4 = self.addresses.parse().map_err(|()| {
            format!(
                "addresses: `{}` is no network, like 10.1.128.0/24",
                self.addresses
            )
        })?;
        let whole = Net4::of(address.addr, address.prefix);
        if !whole.holds(pool) {
            return Err(format!("addresses: {pool} is not within {whole}"));
        }
        if pool.prefix > 30 {
            return Err(format!("addresses: {pool} has no room for workers"));
        }
        if pool.holds(Net4::of(address.addr, 32)) {
            return Err(format!("addresses: {pool} has the front end's own address"));
        }
        if self.mtu.is_some_and(|mtu| !(1280..=9000).contains(&mtu)) {
            return Err("mtu: must be between 1280 and 9000 bytes".to_owned());
        }
        // What scripts on the front end take as a word.
        let words = [("network", &self.network), ("bridge", &self.bridge)];
        let odd = |c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c);
        if let Some((key, word)) = words
            .iter()
            .find(|(_, w)| w.is_empty() || w.len() > 15 || w.starts_with('-') || w.contains(odd))
        {
            return Err(format!("{key}: `{word}` cannot be the name of one"));
        }
        Ok(Lan {
            address,
            pool,
            machines: None,
            mtu: self.mtu.unwrap_or(ETHERNET_MTU),
            bridge: self.bridge.clone(),
        })
    }

    /// What Rocks calls the worker number `rank`.
    pub fn host_name(&self, rank: u32) -> String {
        format!("compute-{}-{rank}", self.rack)
    }
}
