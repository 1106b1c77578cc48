//! A node's configuration file (TOML).
//!
//! Unknown keys are errors. Secrets are never in this file: it names the files that hold them, so
//! it can be shown, logged and kept in a manifest.

mod allow;
mod audit;
mod authority;
mod names;
mod pinning;
mod policy;
mod rules;
mod switch;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::address::{MacAddr, Overlay4, Overlay6, OverlayAddrs};
use crate::signal::Fingerprint;

pub use self::allow::{AllowSection, PortList, Protocol, Selector};
pub use self::audit::AuditSection;
pub use self::authority::AuthoritySection;
pub use self::names::{NamesSection, ResolverKind};
pub use self::pinning::PinningSection;
pub use self::policy::PolicySection;
pub use self::rules::{RulesError, parse_rules, write_rules};
pub use self::switch::{AddressSection, AllowedSection, RateSection, StormSection, SwitchSection};

/// Overlay MTU when none is configured, in bytes: leaves room for DTLS (37 B), IPv6 and UDP (48 B)
/// and a TURN channel header (4 B) on a path of 1500 B.
pub const DEFAULT_MTU: u16 = 1400;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// `[node]`
    pub node: NodeSection,
    /// `[overlay]`
    pub overlay: OverlaySection,
    /// `[authority]`; without it a peer is who its account or its `[[peer]]` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<AuthoritySection>,
    /// `[pinning]`; without it, and without an authority, whoever has a member's account is that member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinning: Option<PinningSection>,
    /// `[xmpp]`; without it the only peers are those in `[[peer]]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xmpp: Option<XmppSection>,
    /// `[ice]`
    #[serde(default)]
    pub ice: IceSection,
    /// `[offload]`
    #[serde(default, skip_serializing_if = "OffloadSection::is_default")]
    pub offload: OffloadSection,
    /// `[switch]`, for mode `switch`.
    #[serde(default, skip_serializing_if = "SwitchSection::is_default")]
    pub switch: SwitchSection,
    /// `[names]`; without it members are known by their addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<NamesSection>,
    /// `[audit]`; without it what happens to links is in the log alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditSection>,
    /// `[policy]`; without it the rules are those of `[[allow]]` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicySection>,
    /// `[[peer]]`, once for each.
    #[serde(default, rename = "peer", skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerSection>,
    /// `[[allow]]`, once for each rule; without any, everybody reaches everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<AllowSection>,
}

/// `[node]`: who this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSection {
    /// Unique in the overlay; a DNS label (letters, digits, hyphens; 1 to 63 characters).
    pub name: String,
    /// Control socket.
    #[serde(default = "default_control")]
    pub control: PathBuf,
    /// PEM file with the key (PKCS#8, ECDSA P-256) and the certificate that peers know this node
    /// by, as `ipop-node identity --create` makes it; systemd credentials are found by
    /// `$CREDENTIALS_DIRECTORY` when the path is relative. Made anew for each run when there is
    /// none; `[[peer]]` and `[authority]` need one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
    /// OpenSSH public key file whose content is told in the node's status, for machines that make
    /// their own host key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_host_key: Option<PathBuf>,
    /// The groups that this node is in, in an overlay without an authority, for `[[allow]]`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
}

/// `[overlay]`: the network it joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlaySection {
    /// Overlay name, for people; a DNS label.
    pub name: String,
    /// This node's IPv4 overlay address, `10.73.0.2/24`.
    pub ipv4: Overlay4,
    /// This node's IPv6 overlay address, `fd5a::2/64`.
    pub ipv6: Overlay6,
    /// TUN device name, at most 15 bytes, without space, `/`, `%` and `:`.
    #[serde(default = "default_interface")]
    pub interface: String,
    /// What is carried.
    #[serde(default, skip_serializing_if = "OverlayMode::is_default")]
    pub mode: OverlayMode,
    /// Overlay MTU in bytes, 1280 to 9000. In mode `switch` this is the MTU of the device, the
    /// Ethernet header not counted; larger frames of a LAN behind it pass all the same.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
    /// MAC address of the TAP device in mode `switch`, for a LAN whose DHCP server knows its
    /// stations by it; another one at each start when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
}

/// What the overlay carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverlayMode {
    /// IP packets between members' addresses, by a TUN device.
    #[default]
    Route,
    /// Ethernet frames, as a switch that all members are plugged into, by a TAP device.
    Switch,
}

impl OverlayMode {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// `[xmpp]`: the rendezvous.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XmppSection {
    /// Bare JID of the node's account, `worker-0@demo.ipop`.
    pub jid: String,
    /// Where to connect, `address:port` or `[v6]:port`, tried in order; names are not looked up.
    /// STARTTLS; the certificate must be valid for the JID's domain under the pinned CA.
    pub servers: Vec<String>,
    /// File with the password; systemd credentials are found by `$CREDENTIALS_DIRECTORY` when the
    /// path is relative.
    pub password_file: PathBuf,
    /// File with a single-use token; same rule for the path. With it the node makes its own
    /// password on first start, exchanges the token for it, and keeps it in `password_file`, which
    /// is then an absolute path in a folder that the node may write to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrol_token_file: Option<PathBuf>,
    /// PEM file with the CA that the server's certificate must chain to; same rule for the path.
    pub ca_file: PathBuf,
}

/// `[ice]`: gathering.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IceSection {
    /// UDP port to bind on every address, 0 for any.
    pub port: u16,
    /// Interfaces that give no candidates, `docker*`-style globs.
    pub ignore_interfaces: Vec<String>,
    /// Addresses that give no candidates.
    pub ignore_addresses: Vec<IpAddr>,
    /// Only relay candidates are offered and used.
    pub relay_only: bool,
}

/// `[offload]`: what the kernel is asked to do for the data path. It is tried, and done without
/// where the kernel has it not; this is for a kernel or a driver that has it and does it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OffloadSection {
    /// Super-packets, checksums and several queues of the TUN or TAP device.
    pub device: bool,
    /// Batches that the kernel, or the network card, cuts into datagrams (UDP_SEGMENT).
    pub segmentation: bool,
    /// Received datagrams that the kernel puts together (UDP_GRO).
    pub coalescing: bool,
}

impl Default for OffloadSection {
    fn default() -> Self {
        Self {
            device: true,
            segmentation: true,
            coalescing: true,
        }
    }
}

impl OffloadSection {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// `[[peer]]`: a node that is known without a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSection {
    /// Its `node.name`.
    pub name: String,
    /// Its IPv4 overlay address, without prefix length.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 overlay address, without prefix length.
    pub ipv6: Ipv6Addr,
    /// SHA-256 fingerprint of its certificate, as `ipop-node identity` prints it there.
    pub fingerprint: Fingerprint,
    /// Where it can be reached, best first, `address:port` or `[v6]:port`; names are not looked up.
    /// A peer without one is waited for: this node is then to be in its configuration with one.
    #[serde(default)]
    pub endpoints: Vec<SocketAddr>,
    /// The groups that it is in, in an overlay without an authority, for `[[allow]]`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
}

fn default_control() -> PathBuf {
    PathBuf::from("/run/ipop-node/control.sock")
}

fn default_interface() -> String {
    "ipop0".to_owned()
}

fn default_mtu() -> u16 {
    DEFAULT_MTU
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, a key is unknown or missing, or a value has the wrong type. The text has line,
    /// column and key.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// A value is out of range.
    #[error("{key}: {problem}")]
    Value {
        /// Dotted key.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl NodeConfig {
    /// Reads and checks the text of a configuration file.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    /// The same with other rules, where this node can go by them.
    pub fn with_rules(&self, allow: Vec<AllowSection>) -> Result<Self, ConfigError> {
        let config = Self {
            allow,
            ..self.clone()
        };
        config.check()?;
        Ok(config)
    }

    /// Both overlay addresses.
    pub fn addrs(&self) -> OverlayAddrs {
        OverlayAddrs {
            ipv4: self.overlay.ipv4,
            ipv6: self.overlay.ipv6,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let value = |key, problem: &str| {
            Err(ConfigError::Value {
                key,
                problem: problem.to_owned(),
            })
        };
        if !is_dns_label(&self.node.name) {
            return value(
                "node.name",
                "must be 1 to 63 lower-case letters, digits or inner hyphens",
            );
        }
        if !is_dns_label(&self.overlay.name) {
            return value(
                "overlay.name",
                "must be 1 to 63 lower-case letters, digits or inner hyphens",
            );
        }
        if !is_interface_name(&self.overlay.interface) {
            return value(
                "overlay.interface",
                "must have 1 to 15 printable ASCII characters, none of them `/`, `%` or `:`",
            );
        }
        if !(1280..=9000).contains(&self.overlay.mtu) {
            return value("overlay.mtu", "must be between 1280 and 9000 bytes");
        }
        if self.overlay.mac.is_some() && self.overlay.mode != OverlayMode::Switch {
            return value(
                "overlay.mac",
                "is for mode `switch` only: a TUN device has none",
            );
        }
        match &self.xmpp {
            Some(xmpp) => xmpp.check()?,
            None if self.peers.is_empty() => {
                return value(
                    "xmpp",
                    "is missing, and there is no [[peer]] either: one of them must say how this \
                     node meets others",
                );
            }
            None => {}
        }
        if !self.peers.is_empty() && self.node.identity.is_none() {
            return value(
                "node.identity",
                "must name this node's identity file when there is a [[peer]]: its peers know it \
                 by that (`ipop-node identity --create FILE` makes one)",
            );
        }
        if let Some(authority) = &self.authority {
            authority.check(self)?;
        }
        if self.pinning.is_some() {
            PinningSection::check(self)?;
        }
        self.switch.check(self)?;
        if let Some(names) = &self.names {
            names.check()?;
        }
        if let Some(audit) = &self.audit {
            audit.check()?;
        }
        if let Some(policy) = &self.policy {
            policy.check()?;
        }
        for (at, peer) in self.peers.iter().enumerate() {
            self.check_peer(peer, &self.peers[..at])?;
        }
        allow::check(self)
    }

    /// Checks a peer against this node and the peers `before` it.
    fn check_peer(&self, peer: &PeerSection, before: &[PeerSection]) -> Result<(), ConfigError> {
        let name = &peer.name;
        let value = |key, problem: String| Err(ConfigError::Value { key, problem });
        if !is_dns_label(name) {
            let problem = "must be 1 to 63 lower-case letters, digits or inner hyphens";
            return value("peer.name", format!("`{name}` {problem}"));
        }
        if *name == self.node.name || before.iter().any(|other| other.name == *name) {
            return value("peer.name", format!("`{name}` is the name of another node"));
        }
        let own = &self.overlay;
        if !own.ipv4.contains(peer.ipv4) || !own.ipv6.contains(peer.ipv6) {
            return value(
                if own.ipv4.contains(peer.ipv4) {
                    "peer.ipv6"
                } else {
                    "peer.ipv4"
                },
                format!("the address of `{name}` must be in the overlay's network"),
            );
        }
        if peer.ipv4 == own.ipv4.addr || before.iter().any(|other| other.ipv4 == peer.ipv4) {
            let problem = format!("`{name}` has the address of another node, {}", peer.ipv4);
            return value("peer.ipv4", problem);
        }
        if peer.ipv6 == own.ipv6.addr || before.iter().any(|other| other.ipv6 == peer.ipv6) {
            let problem = format!("`{name}` has the address of another node, {}", peer.ipv6);
            return value("peer.ipv6", problem);
        }
        if let Some(other) = before.iter().find(|o| o.fingerprint == peer.fingerprint) {
            let problem = format!("`{name}` and `{}` have the same", other.name);
            return value("peer.fingerprint", problem);
        }
        let unusable = |addr: &&SocketAddr| {
            addr.port() == 0 || addr.ip().is_unspecified() || addr.ip().is_multicast()
        };
        if let Some(addr) = peer.endpoints.iter().find(unusable) {
            let problem = format!("`{name}` cannot be reached at {addr}");
            return value("peer.endpoints", problem);
        }
        Ok(())
    }
}

impl XmppSection {
    fn check(&self) -> Result<(), ConfigError> {
        let value = |key, problem: &str| {
            Err(ConfigError::Value {
                key,
                problem: problem.to_owned(),
            })
        };
        if self.servers.is_empty() {
            return value("xmpp.servers", "must name at least one address:port");
        }
        for server in &self.servers {
            if server.parse::<SocketAddr>().is_err() {
                let problem = format!(
                    "`{server}` must be address:port or [v6]:port; names are not looked up"
                );
                return value("xmpp.servers", &problem);
            }
        }
        let parts: Vec<_> = self.jid.split('@').collect();
        let bare = !self.jid.contains(|c: char| c == '/' || c.is_whitespace());
        if parts.len() != 2 || parts.contains(&"") || !bare {
            return value("xmpp.jid", "must be a bare JID, node@domain");
        }
        if self.enrol_token_file.is_some() && !self.password_file.is_absolute() {
            return value(
                "xmpp.password_file",
                "must be an absolute path when enrol_token_file is set: the node writes it",
            );
        }
        Ok(())
    }
}

/// Whether the kernel takes `text` as the name of a device; it takes `%` as a template, and `:` and
/// `.` alone as something else.
fn is_interface_name(text: &str) -> bool {
    let ok = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '%' | ':');
    (1..=15).contains(&text.len()) && text.chars().all(ok) && text != "." && text != ".."
}

/// Whether `text` is a lower-case DNS label (RFC 1123 section 2.1).
pub fn is_dns_label(text: &str) -> bool {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(ok)
        && !text.starts_with('-')
        && !text.ends_with('-')
}
