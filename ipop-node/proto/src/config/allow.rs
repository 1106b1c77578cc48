//! `[[allow]]`: who may reach what.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::de::{self, SeqAccess, Visitor};
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ConfigError, NodeConfig, OverlayMode, is_dns_label};

/// `[[allow]]`, once for each rule. With at least one, members that have no group in common reach each
/// other only as the rules say; with none, everybody reaches everybody. Mode `route` only. They are read
/// again on SIGHUP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowSection {
    /// Who begins: `group:NAME`, `node:NAME`, `role:NAME` or `any`.
    pub from: Selector,
    /// With whom, in the same form.
    pub to: Selector,
    /// What.
    #[serde(default, skip_serializing_if = "Protocol::is_any")]
    pub protocol: Protocol,
    /// The ports at whom it is begun with: `2049`, `"8000-8999"`, or several, `[22, "8000-8999"]`. Without
    /// it, all; without a protocol either, TCP and UDP.
    #[serde(default, skip_serializing_if = "PortList::is_empty")]
    pub port: PortList,
}

/// Which nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// Those in a group.
    Group(String),
    /// The one with this name.
    Node(String),
    /// Those that have a role.
    Role(String),
    /// All.
    Any,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Everything; with ports, TCP and UDP.
    #[default]
    Any,
    /// TCP connections.
    Tcp,
    /// UDP datagrams, and their answers.
    Udp,
    /// ICMP and ICMPv6: pings, above all.
    Icmp,
}

/// Ports, 1 to 65535, in the order in which they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortList(pub Vec<RangeInclusive<u16>>);

impl AllowSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !self.port.is_empty() && self.protocol == Protocol::Icmp {
            return Err(ConfigError::Value {
                key: "allow.port",
                problem: "is of no use with protocol `icmp`, which has none".to_owned(),
            });
        }
        Ok(())
    }

    fn selects_role(&self) -> bool {
        [&self.from, &self.to]
            .iter()
            .any(|selector| matches!(selector, Selector::Role(_)))
    }
}

/// Checks the rules of a configuration, and that what they are about can be believed.
pub(super) fn check(config: &NodeConfig) -> Result<(), ConfigError> {
    let value = |key, problem: &str| {
        Err(ConfigError::Value {
            key,
            problem: problem.to_owned(),
        })
    };
    let of_peers = config
        .peers
        .iter()
        .map(|peer| ("peer.groups", &peer.groups));
    for (key, groups) in of_peers.chain([("node.groups", &config.node.groups)]) {
        if let Err(problem) = crate::authority::groups::check(groups) {
            return value(key, &problem);
        }
        if !groups.is_empty() && config.authority.is_some() {
            return value(
                key,
                "is for overlays without an [authority]: where there is one, the certificate says \
                 who is in which group",
            );
        }
    }
    if config.allow.is_empty() {
        return Ok(());
    }
    if config.overlay.mode == OverlayMode::Switch {
        return value(
            "allow",
            "is for mode `route` only: a switch has no such rules",
        );
    }
    if config.authority.is_none() {
        if config.xmpp.is_some() {
            return value(
                "allow",
                "needs an [authority] where there is [xmpp]: nobody else can say who a member is, \
                 and in which groups",
            );
        }
        if config.allow.iter().any(AllowSection::selects_role) {
            return value("allow", "`role:NAME` needs an [authority], which says it");
        }
    }
    config.allow.iter().try_for_each(AllowSection::check)
}

impl Protocol {
    const fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        })
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "any" {
            return Ok(Self::Any);
        }
        let wrong = || format!("`{text}` must be group:NAME, node:NAME, role:NAME or any");
        let (kind, name) = text.split_once(':').ok_or_else(wrong)?;
        if !is_dns_label(name) {
            return Err(format!(
                "`{text}`: a name has 1 to 63 lower-case letters, digits or inner hyphens"
            ));
        }
        let name = name.to_owned();
        match kind {
            "group" => Ok(Self::Group(name)),
            "node" => Ok(Self::Node(name)),
            "role" => Ok(Self::Role(name)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Node(name) => write!(f, "node:{name}"),
            Self::Role(name) => write!(f, "role:{name}"),
            Self::Any => f.write_str("any"),
        }
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl PortList {
    /// Whether there is none, which means all.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `port` is one of them, or there is none.
    pub fn has(&self, port: u16) -> bool {
        self.is_empty() || self.0.iter().any(|range| range.contains(&port))
    }
}

impl fmt::Display for PortList {
    /// `22, 8000-8999`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{}", PortRange(range))?;
        }
        Ok(())
    }
}

/// How one range is written.
struct PortRange<'a>(&'a RangeInclusive<u16>);

impl fmt::Display for PortRange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0.start(), self.0.end());
        match first == last {
            true => write!(f, "{first}"),
            false => write!(f, "{first}-{last}"),
        }
    }
}

impl Serialize for PortRange<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.start() == self.0.end() {
            true => serializer.serialize_u16(*self.0.start()),
            false => serializer.collect_str(self),
        }
    }
}

impl Serialize for PortList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let [range] = &self.0[..] {
            return PortRange(range).serialize(serializer);
        }
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for range in &self.0 {
            list.serialize_element(&PortRange(range))?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for PortList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortsVisitor)
    }
}

/// One entry of a list.
struct PortEntry(RangeInclusive<u16>);

impl<'de> Deserialize<'de> for PortEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl Visitor<'_> for EntryVisitor {
    type Value = PortEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port, or a range such as \"8000-8999\"")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<PortEntry, E> {
        let port = port(number.try_into().ok())?;
        Ok(PortEntry(port..=port))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<PortEntry, E> {
        let port = port(number.try_into().ok())?;
        Ok(PortEntry(port..=port))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PortEntry, E> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let [first, last] = [first, last].map(|text| port(text.trim().parse().ok()));
        let range = first?..=last?;
        match range.is_empty() {
            true => Err(E::custom("the first port of a range is after its last")),
            false => Ok(PortEntry(range)),
        }
    }
}

struct PortsVisitor;

impl<'de> Visitor<'de> for PortsVisitor {
    type Value = PortList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port, a range such as \"8000-8999\", or a list of these")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<PortList, E> {
        EntryVisitor.visit_i64(number).map(PortList::from)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<PortList, E> {
        EntryVisitor.visit_u64(number).map(PortList::from)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PortList, E> {
        EntryVisitor.visit_str(text).map(PortList::from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<PortList, A::Error> {
        let mut ranges = Vec::new();
        while let Some(PortEntry(range)) = list.next_element()? {
            ranges.push(range);
        }
        match ranges.is_empty() {
            true => Err(de::Error::custom("a list of ports without a port")),
            false => Ok(PortList(ranges)),
        }
    }
}

impl From<PortEntry> for PortList {
    fn from(PortEntry(range): PortEntry) -> Self {
        Self(vec![range])
    }
}

fn port<E: de::Error>(number: Option<u16>) -> Result<u16, E> {
    let number = number.filter(|port| *port > 0);
    number.ok_or_else(|| E::custom("a port is 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AllowSection, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_rule_is_read_and_written_as_it_was() {
        let rule = |rest: &str| format!("from = \"group:lake\"\nto = \"node:lake-data\"\n{rest}");
        for (rest, ports) in [
            ("", ""),
            ("protocol = \"tcp\"\nport = 2049\n", "2049"),
            ("port = \"8000-8999\"\n", "8000-8999"),
            ("protocol = \"udp\"\nport = [22, \"80-90\"]\n", "22, 80-90"),
            ("protocol = \"icmp\"\n", ""),
        ] {
            let text = rule(rest);
            let read = read(&text).expect("a rule");
            assert_eq!(read.port.to_string(), ports);
            assert_eq!(toml::to_string(&read).expect("TOML"), text);
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_by_what_is_wrong() {
        for (text, why) in [
            ("from = \"lake\"\nto = \"any\"", "`lake` must be group:NAME"),
            (
                "from = \"user:a\"\nto = \"any\"",
                "`user:a` must be group:NAME",
            ),
            ("from = \"group:A\"\nto = \"any\"", "a name has 1 to 63"),
            ("from = \"any\"", "missing field `to`"),
            (
                "from = \"any\"\nto = \"any\"\nports = 1",
                "unknown field `ports`",
            ),
            (
                "from = \"any\"\nto = \"any\"\nport = 0",
                "a port is 1 to 65535",
            ),
            (
                "from = \"any\"\nto = \"any\"\nport = 65536",
                "a port is 1 to 65535",
            ),
            (
                "from = \"any\"\nto = \"any\"\nport = \"9-8\"",
                "is after its last",
            ),
            ("from = \"any\"\nto = \"any\"\nport = []", "without a port"),
            (
                "from = \"any\"\nto = \"any\"\nport = [[1]]",
                "expected a port, or a range",
            ),
            (
                "from = \"any\"\nto = \"any\"\nport = true",
                "expected a port, a range",
            ),
            (
                "from = \"any\"\nto = \"any\"\nprotocol = \"sctp\"",
                "unknown variant `sctp`",
            ),
        ] {
            let error = read(text).expect_err(why);
            assert!(error.contains(why), "{error} instead of {why}");
        }
    }
}
