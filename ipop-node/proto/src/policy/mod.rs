//! Who may reach what: what the rules of a configuration ([`AllowSection`]) say of two nodes.
//!
//! Members that have a group in common may reach each other with everything. All others may do what
//! some rule allows, and nothing else. Rules say who may *begin*: answers pass by themselves, as
//! [`ipop_datapath::policy`] says, which is also what looks at packets.
//!
//! A rule is about names and groups, and these are only worth something if somebody vouches for them:
//! the authority, in a node's certificate, or this node's own configuration for a peer that it knows by
//! its fingerprint.

mod text;

use std::collections::BTreeSet;
use std::str::FromStr;

pub use ipop_datapath::policy::Allowed;
use ipop_datapath::policy::Ports;

pub use self::text::{reason, sentence, sentences, summary};
use crate::authority::Certified;
use crate::config::{AllowSection, Protocol, Selector};

/// A node, as rules see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// The groups that it is in.
    pub groups: BTreeSet<String>,
    /// What it does in the overlay.
    pub role: Option<String>,
}

/// The rules that are in force; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<AllowSection>,
}

/// What somebody may want to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A TCP connection to a port.
    Tcp(u16),
    /// A UDP datagram to a port.
    Udp(u16),
    /// An ICMP echo request.
    Icmp,
}

/// Whether it may, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Both are in this group.
    Common(&'a str),
    /// This rule says so, counted from 1.
    Rule(usize, &'a AllowSection),
    /// Nothing says so.
    Denied,
}

impl Member {
    /// What the authority says of a node.
    pub fn of(certified: &Certified) -> Self {
        Self {
            name: certified.name.clone(),
            groups: certified.groups.clone(),
            role: certified.role.clone(),
        }
    }

    /// Anybody of whom no more is known than that it is in a group, or has a role.
    pub fn anybody(selector: &Selector) -> Option<Self> {
        let name = selector.to_string();
        match selector {
            Selector::Group(group) => Some(Self {
                name,
                groups: [group.clone()].into(),
                role: None,
            }),
            Selector::Role(role) => Some(Self {
                name,
                groups: BTreeSet::new(),
                role: Some(role.clone()),
            }),
            Selector::Node(_) | Selector::Any => None,
        }
    }

    fn common<'a>(&'a self, other: &Self) -> Option<&'a str> {
        let mut own = self.groups.iter().map(String::as_str);
        own.find(|group| other.groups.contains(*group))
    }
}

impl Selector {
    fn selects(&self, member: &Member) -> bool {
        match self {
            Self::Group(name) => member.groups.contains(name),
            Self::Node(name) => member.name == *name,
            Self::Role(name) => member.role.as_ref() == Some(name),
            Self::Any => true,
        }
    }
}

impl AllowSection {
    fn selects(&self, from: &Member, to: &Member) -> bool {
        self.from.selects(from) && self.to.selects(to)
    }

    fn allows(&self, what: What) -> bool {
        match (self.protocol, what) {
            (Protocol::Any | Protocol::Tcp, What::Tcp(port))
            | (Protocol::Any | Protocol::Udp, What::Udp(port)) => self.port.has(port),
            (Protocol::Any | Protocol::Icmp, What::Icmp) => self.port.is_empty(),
            _ => false,
        }
    }

    /// Adds what it allows.
    fn add_to(&self, allowed: &mut Allowed) {
        let add = |ports: &mut Ports| match self.port.is_empty() {
            true => *ports = Ports::all(),
            false => {
                for range in &self.port.0 {
                    ports.add(*range.start(), *range.end());
                }
            }
        };
        match self.protocol {
            Protocol::Any if self.port.is_empty() => *allowed = Allowed::everything(),
            Protocol::Any => {
                add(&mut allowed.tcp);
                add(&mut allowed.udp);
            }
            Protocol::Tcp => add(&mut allowed.tcp),
            Protocol::Udp => add(&mut allowed.udp),
            Protocol::Icmp => allowed.icmp = true,
        }
    }
}

impl Policy {
    /// These rules; without any there is no policy, and everybody reaches everybody.
    pub fn new(rules: &[AllowSection]) -> Option<Self> {
        (!rules.is_empty()).then(|| Self {
            rules: rules.to_vec(),
        })
    }

    /// The rules.
    pub fn rules(&self) -> &[AllowSection] {
        &self.rules
    }

    /// What `from` may begin with `to`, for whoever carries packets.
    pub fn allowed(&self, from: &Member, to: &Member) -> Allowed {
        if from.common(to).is_some() {
            return Allowed::everything();
        }
        let mut allowed = Allowed::default();
        for rule in self.rules.iter().filter(|rule| rule.selects(from, to)) {
            rule.add_to(&mut allowed);
        }
        allowed
    }

    /// Whether `from` may begin `what` with `to`, for people: by the first rule that says so.
    pub fn ask<'a>(&'a self, from: &'a Member, to: &Member, what: What) -> Answer<'a> {
        if let Some(group) = from.common(to) {
            return Answer::Common(group);
        }
        let says = |rule: &AllowSection| rule.selects(from, to) && rule.allows(what);
        match self.rules.iter().position(says) {
            Some(at) => Answer::Rule(at + 1, &self.rules[at]),
            None => Answer::Denied,
        }
    }
}

impl FromStr for What {
    type Err = String;

    /// `tcp/2049`, `udp/53`, `icmp`, or a TCP port alone.
    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| {
            let port = text.parse().ok().filter(|port: &u16| *port > 0);
            port.ok_or_else(|| format!("`{text}` is no port, 1 to 65535"))
        };
        match text.split_once('/') {
            None if text == "icmp" => Ok(Self::Icmp),
            None if text.starts_with(|c: char| c.is_ascii_digit()) => port(text).map(Self::Tcp),
            Some(("tcp", number)) => port(number).map(Self::Tcp),
            Some(("udp", number)) => port(number).map(Self::Udp),
            _ => Err(format!("`{text}` must be tcp/PORT, udp/PORT or icmp")),
        }
    }
}

#[cfg(test)]
mod tests;
