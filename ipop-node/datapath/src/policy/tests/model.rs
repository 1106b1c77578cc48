//! The rules in words, with plain maps.

use std::collections::HashMap;

use super::super::*;
use super::packet::{ACK, Cause, Cut, Packet, SYN, What};

/// The rules in words.
pub(super) struct Model {
    pub(super) inward: Allowed,
    pub(super) outward: Allowed,
    /// By family, kind, this node's and the peer's port.
    pub(super) begun: HashMap<(bool, &'static str, u16, u16), u32>,
    pub(super) pieces: HashMap<(Direction, bool, &'static str, u16), u32>,
}

impl Model {
    pub(super) fn admits(&mut self, packet: &Packet, now_s: u32) -> bool {
        let kind = match packet.what {
            What::Tcp(..) => "tcp",
            What::Udp(..) => "udp",
            What::Gre => "gre",
            _ => "icmp",
        };
        // In IPv6 only the first piece says of which protocol it is, and it is not part of the name.
        let named = if packet.is_v6 { "" } else { kind };
        let piece = |id| (packet.direction, packet.is_v6, named, id);
        match packet.cut {
            Cut::Whole => self.admits_whole(packet, now_s),
            Cut::First(id) => {
                let admits = self.admits_whole(packet, now_s);
                if admits {
                    self.pieces.insert(piece(id), now_s);
                }
                admits
            }
            Cut::Later(id) => {
                let first = self.pieces.get(&piece(id));
                self.allowed(packet.direction).others
                    || first.is_some_and(|first| now_s - first <= 30)
            }
        }
    }

    fn allowed(&self, direction: Direction) -> Allowed {
        match direction {
            Direction::In => self.inward.clone(),
            Direction::Out => self.outward.clone(),
        }
    }

    fn admits_whole(&mut self, packet: &Packet, now_s: u32) -> bool {
        let allowed = self.allowed(packet.direction);
        let back = self.allowed(packet.direction.back());
        let family = packet.is_v6;
        let own_first = |a, b| match packet.direction {
            Direction::In => (b, a),
            Direction::Out => (a, b),
        };
        let (begins, flow, within) = match packet.what {
            What::Tcp(a, b, flags) => {
                let opens = flags & SYN != 0 && flags & ACK == 0;
                return allowed.tcp.has(b) || (back.tcp.has(a) && !opens);
            }
            What::Udp(a, b) => {
                let (own, peer) = own_first(a, b);
                (allowed.udp.has(b), (family, "udp", own, peer), 300)
            }
            What::Request(id) => (allowed.icmp, (family, "echo", id, id), 0),
            What::Reply(id) => (false, (family, "echo", id, id), 60),
            What::Gre => (allowed.others, (family, "gre", 0, 0), 300),
            What::Redirect => return allowed.icmp,
            What::About(cause) => {
                let known = |flow, within| {
                    let at: Option<&u32> = self.begun.get(&flow);
                    at.is_some_and(|at| now_s - at <= within)
                };
                return allowed.icmp
                    || match cause {
                        Cause::Tcp(a, b) => back.tcp.has(b) || allowed.tcp.has(a),
                        // From the receiver to the sender of the error.
                        Cause::Udp(a, b) => {
                            let (own, peer) = own_first(b, a);
                            known((family, "udp", own, peer), 300)
                        }
                        Cause::Request(id) => known((family, "echo", id, id), 60),
                        Cause::Elsewhere => false,
                    };
            }
        };
        if begins {
            self.begun.insert(flow, now_s);
            return true;
        }
        let is_request = matches!(packet.what, What::Request(_));
        let at = self.begun.get(&flow).filter(|_| !is_request);
        at.is_some_and(|at| now_s - at <= within)
    }
}
