//! Names of an overlay's members, and what DNS says of them (RFC 1034, RFC 1035).
//!
//! `NODE.OVERLAY.ipop` has the node's two overlay addresses, and the addresses have that name (PTR).
//! Everything else is refused, so that whoever asks asks its other servers. Every answer fits into
//! 512 bytes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::{A, AAAA, NS, OPT, PTR, RData, SOA};
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord,
};

use crate::address::OverlayAddrs;
use crate::authority::DOMAIN;

/// How long answers may be kept, in seconds; a name that there is not yet is asked for again sooner.
const TTL: u32 = 30;
const NEGATIVE_TTL: u32 = 5;
/// Most members that are known by name.
const CAPACITY: usize = 4096;
/// Bytes of a datagram that are told to be readable here (RFC 6891 section 6.2.5).
const PAYLOAD: u16 = 1232;

/// The members of one overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    overlay: String,
    networks: OverlayAddrs,
    members: BTreeMap<String, (Ipv4Addr, Ipv6Addr)>,
}

/// What is said of a name: records with the owner's, or why there are none.
enum Said {
    Records(Vec<RData<'static>>),
    NoSuchName,
    NotOurs,
}

impl Names {
    /// Those of the overlay with this name, which has so far this node only.
    pub fn new(overlay: &str, node: &str, addrs: OverlayAddrs) -> Self {
        let own = (addrs.ipv4.addr, addrs.ipv6.addr);
        Self {
            overlay: overlay.to_owned(),
            networks: addrs,
            members: BTreeMap::from([(node.to_owned(), own)]),
        }
    }

    /// The domain that all names are in, `demo.ipop`.
    pub fn domain(&self) -> String {
        format!("{}.{DOMAIN}", self.overlay)
    }

    /// All domains that this answers for: the names', and the addresses' where their networks end between
    /// labels.
    pub fn domains(&self) -> Vec<String> {
        let OverlayAddrs { ipv4, ipv6 } = self.networks;
        let labels4 = ipv4.addr.octets().map(|octet| octet.to_string());
        let labels6 = format!("{:032x}", u128::from(ipv6.addr));
        let labels6: Vec<String> = labels6.chars().map(String::from).collect();
        let reverse = |labels: &[String], bits: u8, label: u8, zone: &str| {
            let count = usize::from(bits / label);
            let mut labels: Vec<_> = labels[..count].iter().rev().map(String::as_str).collect();
            labels.push(zone);
            (bits > 0 && bits.is_multiple_of(label)).then(|| labels.join("."))
        };
        [
            Some(self.domain()),
            reverse(&labels4, ipv4.prefix, 8, "in-addr.arpa"),
            reverse(&labels6, ipv6.prefix, 4, "ip6.arpa"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// How many have a name, this node included.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody has; this node always has.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A member showed that this is its name and these are its addresses. Whoever had one of them before
    /// has it no more. The value says whether that is news.
    pub fn learn(&mut self, name: &str, addrs: OverlayAddrs) -> bool {
        let (ipv4, ipv6) = (addrs.ipv4.addr, addrs.ipv6.addr);
        if self.members.get(name) == Some(&(ipv4, ipv6)) {
            return false;
        }
        self.members
            .retain(|_, (other4, other6)| *other4 != ipv4 && *other6 != ipv6);
        if self.members.len() >= CAPACITY && !self.members.contains_key(name) {
            return false;
        }
        self.members.insert(name.to_owned(), (ipv4, ipv6));
        true
    }

    /// The answer to a DNS message; none to one that is no question.
    pub fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let Ok(query) = Packet::parse(message) else {
            return malformed(message);
        };
        if query.has_flags(PacketFlag::RESPONSE) {
            return None;
        }
        let mut reply = Packet::new_reply(query.id());
        *reply.opcode_mut() = query.opcode();
        if query.has_flags(PacketFlag::RECURSION_DESIRED) {
            reply.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        if query.opt().is_some() {
            *reply.opt_mut() = Some(OPT {
                opt_codes: Vec::new(),
                udp_packet_size: PAYLOAD,
                version: 0,
            });
        }
        *reply.rcode_mut() = match query.questions.as_slice() {
            _ if query.opcode() != OPCODE::StandardQuery => RCODE::NotImplemented,
            _ if query.opt().is_some_and(|opt| opt.version != 0) => RCODE::BADVERS,
            [question] => self.reply_to(question, &mut reply),
            _ => RCODE::FormatError,
        };
        reply.questions = query.questions;
        reply.build_bytes_vec_compressed().ok()
    }

    fn reply_to<'a>(&self, question: &Question<'a>, reply: &mut Packet<'a>) -> RCODE {
        if !matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY) {
            return RCODE::Refused;
        }
        let records = match self.say(&question.qname) {
            Said::NotOurs => return RCODE::Refused,
            Said::NoSuchName => None,
            Said::Records(records) => Some(records),
        };
        reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        let owner = |data| ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, data);
        let fits = |record: &ResourceRecord<'_>| match question.qtype {
            QTYPE::TYPE(wanted) => record.rdata.type_code() == wanted,
            other => other == QTYPE::ANY,
        };
        let all = records.iter().flatten().cloned().map(owner);
        reply.answers = all.filter(fits).collect();
        if reply.answers.is_empty() {
            reply.name_servers.extend(self.start_of_authority());
        }
        match records {
            Some(_) => RCODE::NoError,
            None => RCODE::NameError,
        }
    }

    fn say(&self, name: &Name<'_>) -> Said {
        let labels: Vec<String> = name
            .as_bytes()
            .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
            .collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match labels.as_slice() {
            [below @ .., overlay, domain] if *overlay == self.overlay && *domain == DOMAIN => {
                match below {
                    [] => Said::Records(self.apex().into_iter().flatten().collect()),
                    [member] => match self.members.get(*member) {
                        Some(&(ipv4, ipv6)) => Said::Records(vec![
                            RData::A(A::from(ipv4)),
                            RData::AAAA(AAAA::from(ipv6)),
                        ]),
                        None => Said::NoSuchName,
                    },
                    _ => Said::NoSuchName,
                }
            }
            [digits @ .., "in-addr", "arpa"] => self.say_of(address4(digits).map(IpAddr::V4)),
            [digits @ .., "ip6", "arpa"] => self.say_of(address6(digits).map(IpAddr::V6)),
            _ => Said::NotOurs,
        }
    }

    /// What is said of an address.
    fn say_of(&self, address: Option<IpAddr>) -> Said {
        let is_ours = match address {
            Some(IpAddr::V4(addr)) => self.networks.ipv4.contains(addr),
            Some(IpAddr::V6(addr)) => self.networks.ipv6.contains(addr),
            None => false,
        };
        if !is_ours {
            return Said::NotOurs;
        }
        let has = |(ipv4, ipv6): &(Ipv4Addr, Ipv6Addr)| {
            address == Some((*ipv4).into()) || address == Some((*ipv6).into())
        };
        let holder = self.members.iter().find(|(_, addrs)| has(addrs));
        let name = holder.and_then(|(name, _)| owned(&format!("{name}.{}", self.domain())));
        match name {
            Some(name) => Said::Records(vec![RData::PTR(PTR(name))]),
            None => Said::NoSuchName,
        }
    }

    /// NS and SOA of the domain, in the place of which this node stands (RFC 1035 section 3.3.13).
    fn apex(&self) -> Option<[RData<'static>; 2]> {
        let domain = owned(&self.domain())?;
        let soa = SOA {
            mname: domain.clone(),
            rname: owned(&format!("nobody.{}", self.domain()))?,
            serial: 1,
            refresh: 3600,
            retry: 600,
            expire: 86400,
            minimum: NEGATIVE_TTL,
        };
        Some([RData::SOA(soa), RData::NS(NS(domain))])
    }

    /// Says how long it may be kept that there is nothing (RFC 2308 section 3).
    fn start_of_authority(&self) -> Option<ResourceRecord<'static>> {
        let [soa, _] = self.apex()?;
        let domain = owned(&self.domain())?;
        Some(ResourceRecord::new(domain, CLASS::IN, NEGATIVE_TTL, soa))
    }
}

/// To a question that cannot be read, if as much as its header can.
fn malformed(message: &[u8]) -> Option<Vec<u8>> {
    let (&id, rest) = message.split_first_chunk::<2>()?;
    let is_query = message.len() >= 12 && rest[0] & 0x80 == 0;
    let mut reply = Packet::new_reply(u16::from_be_bytes(id));
    *reply.rcode_mut() = RCODE::FormatError;
    is_query.then(|| reply.build_bytes_vec().ok()).flatten()
}

fn owned(name: &str) -> Option<Name<'static>> {
    Name::new(name).ok().map(Name::into_owned)
}

/// Of `4.3.2.1.in-addr.arpa` (RFC 1035 section 3.5).
fn address4(labels: &[&str]) -> Option<Ipv4Addr> {
    let octets: Option<Vec<u8>> = labels.iter().rev().map(|l| l.parse().ok()).collect();
    Some(<[u8; 4]>::try_from(octets?).ok()?.into())
}

/// Of 32 nibbles below `ip6.arpa` (RFC 3596 section 2.5).
fn address6(labels: &[&str]) -> Option<Ipv6Addr> {
    if labels.len() != 32 || labels.iter().any(|label| label.len() != 1) {
        return None;
    }
    let nibbles: String = labels.iter().rev().copied().collect();
    u128::from_str_radix(&nibbles, 16).ok().map(Into::into)
}

#[cfg(test)]
mod tests;
