//! Neighbour Solicitations and Advertisements (RFC 4861 sections 4.3 and 4.4).

use std::net::Ipv6Addr;

use bytes::Bytes;
use ipop_datapath::checksum::{combine, pseudo_v6, sum};
use ipop_datapath::ethernet::Header;
use ipop_datapath::inet::{Headers, Layer, Transport, Version};
use ipop_datapath::stations::Mac;

use super::frame::reply_header;

const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// ICMPv6 header, flags, and the target's address.
const FIXED: usize = 24;
/// Discovery is believed only with the hop limit that no router leaves.
const HOP_LIMIT: u8 = 255;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// All nodes on the link, and their Ethernet group (RFC 2464 section 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovered {
    /// A question.
    Solicitation(Solicitation),
    /// An answer, or news.
    Advertisement(Advertisement),
}

/// Who has the target's address?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Solicitation {
    /// Who asks; unspecified in Duplicate Address Detection.
    pub source: Ipv6Addr,
    /// The address that is asked for.
    pub target: Ipv6Addr,
    /// The link-layer address that the asker says is its own.
    pub link_layer: Option<Mac>,
}

/// The target's address is the sender's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertisement {
    /// The address.
    pub target: Ipv6Addr,
    /// The link-layer address that the sender says is its own.
    pub link_layer: Option<Mac>,
    /// Whether it says that it is a router.
    pub is_router: bool,
}

impl Discovered {
    /// Reads the message in a frame; `None` for what no host takes for one (RFC 4861 sections 7.1.1
    /// and 7.1.2, RFC 6980).
    pub fn read(frame: &[u8]) -> Option<Self> {
        let headers = Headers::parse(Layer::Ethernet, frame).ok()?;
        let is_whole = headers.version == Version::V6 && headers.transport == Transport::Other;
        if !is_whole || headers.protocol != ICMPV6 {
            return None;
        }
        let ip = frame.get(headers.ip_at..headers.transport_at)?;
        if *ip.get(7)? != HOP_LIMIT {
            return None;
        }
        let source: [u8; 16] = *ip.get(8..)?.first_chunk()?;
        let destination: [u8; 16] = *ip.get(24..)?.first_chunk()?;
        let message = frame.get(headers.transport_at..headers.end)?;
        let fixed: &[u8; FIXED] = message.first_chunk()?;
        let pseudo = pseudo_v6(source, destination, ICMPV6, message.len() as u32);
        if combine(pseudo, sum(message)) != 0xffff || fixed[1] != 0 {
            return None;
        }
        let target = Ipv6Addr::from(*fixed[8..].first_chunk::<16>()?);
        if target.is_multicast() {
            return None;
        }
        let option = |wanted| link_layer(&message[FIXED..], wanted);
        match fixed[0] {
            SOLICITATION => {
                let source = Ipv6Addr::from(source);
                let link_layer = option(SOURCE_LINK_LAYER)?;
                if source.is_unspecified() && link_layer.is_some() {
                    return None;
                }
                Some(Self::Solicitation(Solicitation {
                    source,
                    target,
                    link_layer,
                }))
            }
            ADVERTISEMENT => {
                if destination[0] == 0xff && fixed[4] & SOLICITED != 0 {
                    return None;
                }
                Some(Self::Advertisement(Advertisement {
                    target,
                    link_layer: option(TARGET_LINK_LAYER)?,
                    is_router: fixed[4] & ROUTER != 0,
                }))
            }
            _ => None,
        }
    }
}

impl Solicitation {
    /// Whether it asks if the address is free before it is used (RFC 4862 section 5.4).
    pub fn is_detection(&self) -> bool {
        self.source.is_unspecified()
    }

    /// The frame by which `holder` would answer this question, in the VLAN where it was asked.
    /// Detection is answered to all nodes (RFC 4861 section 7.2.4).
    pub fn answer(&self, question: &Header, frame: &[u8], holder: Mac, is_router: bool) -> Bytes {
        let (mac, destination, solicited) = if self.is_detection() {
            (ALL_NODES_MAC, ALL_NODES, 0)
        } else {
            (question.source, self.source, SOLICITED)
        };
        let flags = OVERRIDE | solicited | if is_router { ROUTER } else { 0 };
        let mut message = vec![ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
        message.extend(self.target.octets());
        message.extend([TARGET_LINK_LAYER, 1]);
        message.extend(holder);
        let (source, destination) = (self.target.octets(), destination.octets());
        let pseudo = pseudo_v6(source, destination, ICMPV6, message.len() as u32);
        let checksum = !combine(pseudo, sum(&message));
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let mut answer = reply_header(question, frame, mac, holder);
        answer.extend([0x60, 0, 0, 0]);
        answer.extend((message.len() as u16).to_be_bytes());
        answer.extend([ICMPV6, HOP_LIMIT]);
        answer.extend(source);
        answer.extend(destination);
        answer.extend(message);
        answer.into()
    }
}

/// The link-layer address in the options, if there is one; nothing at all when one of them has no
/// length or is cut off.
fn link_layer(mut options: &[u8], wanted: u8) -> Option<Option<Mac>> {
    let mut found = None;
    while !options.is_empty() {
        let [kind, units] = *options.first_chunk()?;
        let len = usize::from(units) * 8;
        if len == 0 {
            return None;
        }
        let (option, rest) = options.split_at_checked(len)?;
        if kind == wanted {
            found = found.or(option[2..].first_chunk().copied());
        }
        options = rest;
    }
    Some(found)
}

#[cfg(test)]
pub(super) mod tests;
