//! Rules as people read them.

use std::fmt;

use ipop_datapath::policy::Allowed;

use super::{Answer, What};
use crate::config::{AllowSection, Protocol, Selector};

/// A rule as a sentence without an end: `members of group lake may reach lake-data on TCP port 2049`.
pub fn sentence(rule: &AllowSection) -> String {
    let from = whom(&rule.from);
    let to = whom(&rule.to);
    format!("{from} may reach {to} {}", how(rule))
}

/// Rules with their numbers, a line each, and what is so besides. There is at least one.
pub fn sentences(rules: &[AllowSection]) -> String {
    let mut out = String::new();
    for (at, rule) in rules.iter().enumerate() {
        out += &format!("{:>3}  {}\n", at + 1, sentence(rule));
    }
    out += "     members with a group in common reach each other with everything\n";
    out += "     all else is denied; answers pass\n";
    out
}

/// Why somebody may, or may not; there is no answer where there are no rules.
pub fn reason(answer: Option<Answer<'_>>) -> String {
    match answer {
        None => "there are no rules".to_owned(),
        Some(Answer::Common(group)) => format!("both are in group {group}"),
        Some(Answer::Rule(number, rule)) => format!("by rule {number}, {}", sentence(rule)),
        Some(Answer::Denied) => "no rule allows it, and they have no group in common".to_owned(),
    }
}

/// What may be begun, in short: `tcp/22, udp/53, icmp`.
pub fn summary(allowed: &Allowed) -> String {
    if *allowed == Allowed::everything() {
        return "everything".to_owned();
    }
    let of = |protocol: &'static str, (first, last): (u16, u16)| match (first, last) {
        (..=1, u16::MAX) => protocol.to_owned(),
        (first, last) if first == last => format!("{protocol}/{first}"),
        (first, last) => format!("{protocol}/{first}-{last}"),
    };
    let tcp = allowed.tcp.ranges().iter().map(|range| of("tcp", *range));
    let udp = allowed.udp.ranges().iter().map(|range| of("udp", *range));
    let icmp = allowed.icmp.then(|| "icmp".to_owned());
    let parts: Vec<_> = tcp.chain(udp).chain(icmp).collect();
    match parts.is_empty() {
        true => "nothing".to_owned(),
        false => parts.join(", "),
    }
}

fn whom(selector: &Selector) -> String {
    match selector {
        Selector::Group(name) => format!("members of group {name}"),
        Selector::Node(name) => name.clone(),
        Selector::Role(name) => format!("nodes with role {name}"),
        Selector::Any => "everybody".to_owned(),
    }
}

fn how(rule: &AllowSection) -> String {
    let protocols = match rule.protocol {
        Protocol::Any if rule.port.is_empty() => return "with everything".to_owned(),
        Protocol::Icmp => return "with ICMP (ping)".to_owned(),
        Protocol::Any => "TCP and UDP",
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    };
    match &rule.port.0[..] {
        [] => format!("on every {protocols} port"),
        [range] if range.start() == range.end() => format!("on {protocols} port {}", rule.port),
        _ => format!("on {protocols} ports {}", rule.port),
    }
}

impl fmt::Display for What {
    /// `tcp/2049`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp/{port}"),
            Self::Udp(port) => write!(f, "udp/{port}"),
            Self::Icmp => f.write_str("icmp"),
        }
    }
}
