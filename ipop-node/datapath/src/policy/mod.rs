//! Whether a packet between this node and one of its peers may pass.
//!
//! A [`Gate`] is made for a peer when its link comes up, from what the rules say of the two nodes, and
//! is shared by all threads that carry the peer's packets. Asking it takes no lock and does not allocate.
//! Both nodes of a link have one, so that either alone is enough.
//!
//! What may pass, of a packet in one direction:
//!
//! - what the rules allow to be begun in that direction;
//! - of TCP, every segment but those that open a connection (SYN without ACK), if the rules allow
//!   connections the other way to the port that it comes from. The state of a connection is with its two
//!   ends, where a segment that belongs to none does nothing but provoke a RST (RFC 9293 section 3.10.7);
//!   so nothing is kept of connections: they outlive the restart of a node, need no time-out, and fill no
//!   table. One that the rules no longer allow stands still at once;
//! - of UDP and of other protocols, the answers to what was begun the other way in the five minutes
//!   before (RFC 4787 REQ-5), and of ICMP echo in the minute before (RFC 5508 REQ-2). Only what the rules
//!   allow makes that time begin anew, not an answer, so that nobody keeps a way open from outside;
//! - an ICMP error about a packet of the other direction that belongs to one of these;
//! - the later pieces of a packet whose first piece has passed in the 30 s before. One that overtakes the
//!   first is dropped.
//!
//! Addresses are those of the two nodes, or nothing passes.

mod allowed;
mod denials;
mod flows;
mod matter;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

pub use self::allowed::{Allowed, Ports};
pub use self::denials::{Denial, Denials};
use self::flows::{Flow, Flows};
use self::matter::{Addrs, Asked, FRAGMENT, ICMP, ICMPV6, Matter, Piece, Quoted};
use crate::inet::{Headers, Layer, TCP, UDP, Version};

/// Seconds for which answers of UDP, and of protocols that nothing is known of, are waited for.
const UDP_S: u32 = 300;
/// The same for an ICMP echo request.
const ECHO_S: u32 = 60;
/// Seconds from the first piece of a packet to the last (RFC 1122 section 3.3.2 has 60 for the receiver;
/// pieces leave one after the other).
const PIECES_S: u32 = 30;

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the peer to this node.
    In,
    /// From this node to the peer.
    Out,
}

/// The overlay addresses of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

/// See the module.
#[derive(Debug)]
pub struct Gate {
    own: Ends,
    peer: Ends,
    inward: Allowed,
    outward: Allowed,
    /// None where nothing may be begun.
    flows: Option<Flows>,
    denials: Arc<Denials>,
}

impl Gate {
    /// Between these two nodes the peer may begin what is `inward`, and this node what is `outward`. What
    /// the peer is denied is noted in `denials`.
    #[must_use]
    pub fn new(
        own: Ends,
        peer: Ends,
        inward: Allowed,
        outward: Allowed,
        denials: Arc<Denials>,
    ) -> Self {
        let is_shut = inward.is_nothing() && outward.is_nothing();
        Self {
            own,
            peer,
            inward,
            outward,
            flows: (!is_shut).then(Flows::default),
            denials,
        }
    }

    /// Whether an IP packet may pass, at the second `now_s` of a clock that all who ask have in common.
    #[inline]
    pub fn admits(&self, direction: Direction, packet: &[u8], now_s: u32) -> bool {
        let Ok(headers) = Headers::parse(Layer::Ip, packet) else {
            return false;
        };
        let is_theirs =
            matter::addrs(&headers, packet).is_some_and(|addrs| self.are(direction, addrs));
        let (matter, piece) = matter::read(&headers, packet);
        let passage = Passage {
            gate: self,
            direction,
            is_v6: headers.version == Version::V6,
            now_s,
        };
        let admits = is_theirs && passage.admits(matter, piece);
        if !admits && direction == Direction::In {
            self.denials.note(denial(matter, headers.protocol), now_s);
        }
        admits
    }

    fn are(&self, direction: Direction, addrs: Addrs) -> bool {
        let (from, to) = match direction {
            Direction::In => (self.peer, self.own),
            Direction::Out => (self.own, self.peer),
        };
        match addrs {
            Addrs::V4(addrs) => addrs == [from.v4, to.v4],
            Addrs::V6(addrs) => addrs == [from.v6, to.v6],
        }
    }

    const fn allowed(&self, direction: Direction) -> &Allowed {
        match direction {
            Direction::In => &self.inward,
            Direction::Out => &self.outward,
        }
    }
}

impl Direction {
    const fn back(self) -> Self {
        match self {
            Self::In => Self::Out,
            Self::Out => Self::In,
        }
    }
}

/// A packet that asks.
struct Passage<'a> {
    gate: &'a Gate,
    direction: Direction,
    is_v6: bool,
    now_s: u32,
}

impl Passage<'_> {
    #[inline]
    fn admits(&self, matter: Matter, piece: Option<Piece>) -> bool {
        match piece {
            None => self.admits_whole(matter),
            Some(piece) if piece.is_first => {
                let admits = self.admits_whole(matter);
                if admits && let Some(flows) = &self.gate.flows {
                    flows.keep(self.pieces(piece), self.now_s);
                }
                admits
            }
            Some(piece) => {
                let is_all = self.gate.allowed(self.direction).others;
                is_all || self.knows(self.pieces(piece), PIECES_S)
            }
        }
    }

    #[inline]
    fn admits_whole(&self, matter: Matter) -> bool {
        let allowed = self.gate.allowed(self.direction);
        match matter {
            Matter::Tcp { from, to, opens } => {
                let back = self.gate.allowed(self.direction.back());
                allowed.tcp.has(to) || !opens && back.tcp.has(from)
            }
            Matter::Udp { from, to } => {
                let flow = self.flow(UDP, from, to);
                self.begins(flow, allowed.udp.has(to)) || self.knows(flow, UDP_S)
            }
            Matter::Echo { id, is_reply } => {
                let flow = self.echo(id);
                match is_reply {
                    true => self.knows(flow, ECHO_S),
                    false => self.begins(flow, allowed.icmp),
                }
            }
            Matter::Error(quoted) => {
                allowed.icmp || quoted.is_some_and(|quoted| self.is_answered(quoted))
            }
            Matter::Icmp => allowed.icmp,
            Matter::Other(protocol) => {
                let flow = self.flow(protocol, 0, 0);
                self.begins(flow, allowed.others) || self.knows(flow, UDP_S)
            }
            Matter::Unclear => allowed.others,
        }
    }

    /// Whether a packet that goes the other way could have been one of what may pass.
    fn is_answered(&self, Quoted { addrs, what }: Quoted) -> bool {
        let (there, back) = (self.direction.back(), self.direction);
        if !self.gate.are(there, addrs) {
            return false;
        }
        match what {
            Asked::Tcp { from, to } => {
                let allowed = |direction| &self.gate.allowed(direction).tcp;
                allowed(there).has(to) || allowed(back).has(from)
            }
            // Seen from here it is the receiver that sent.
            Asked::Udp { from, to } => self.knows(self.flow(UDP, to, from), UDP_S),
            Asked::Echo { id } => self.knows(self.echo(id), ECHO_S),
        }
    }

    /// Keeps a flow that may be begun.
    #[inline]
    fn begins(&self, flow: Flow, is_allowed: bool) -> bool {
        if is_allowed && let Some(flows) = &self.gate.flows {
            flows.keep(flow, self.now_s);
        }
        is_allowed
    }

    #[inline]
    fn knows(&self, flow: Flow, within: u32) -> bool {
        let flows = self.gate.flows.as_ref();
        flows.is_some_and(|flows| flows.has(flow, within, self.now_s))
    }

    /// The flow of a packet between these ports, which is that of its answers.
    #[inline]
    fn flow(&self, protocol: u8, from: u16, to: u16) -> Flow {
        let (own, peer) = match self.direction {
            Direction::In => (to, from),
            Direction::Out => (from, to),
        };
        Flow {
            is_inward: false,
            is_v6: self.is_v6,
            protocol,
            own,
            peer,
        }
    }

    /// The flow of an echo request, and of its answer.
    fn echo(&self, id: u16) -> Flow {
        self.flow(if self.is_v6 { ICMPV6 } else { ICMP }, id, id)
    }

    fn pieces(&self, piece: Piece) -> Flow {
        Flow {
            is_inward: self.direction == Direction::In,
            is_v6: self.is_v6,
            protocol: FRAGMENT,
            own: piece.id.0,
            peer: piece.id.1,
        }
    }
}

/// What a packet was after.
fn denial(matter: Matter, protocol: u8) -> Denial {
    let (protocol, port) = match matter {
        Matter::Tcp { to, .. } => (TCP, Some(to)),
        Matter::Udp { to, .. } => (UDP, Some(to)),
        _ => (protocol, None),
    };
    Denial { protocol, port }
}
