//! Packets between the two nodes, built field by field.

use super::super::*;

pub(super) const SYN: u8 = 0x02;
pub(super) const ACK: u8 = 0x10;

pub(super) fn own() -> Ends {
    ends(1)
}

pub(super) fn peer() -> Ends {
    ends(2)
}

pub(super) fn ends(last: u8) -> Ends {
    Ends {
        v4: [10, 73, 0, last].into(),
        v6: [0xfd73, 0, 0, 0, 0, 0, 0, last.into()].into(),
    }
}

/// What a packet carries; the ports are its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Tcp(u16, u16, u8),
    Udp(u16, u16),
    Request(u16),
    Reply(u16),
    /// Destination unreachable, about a packet of the other direction.
    About(Cause),
    Redirect,
    Gre,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Tcp(u16, u16),
    Udp(u16, u16),
    Request(u16),
    /// A UDP datagram between two nodes of which one is none of these.
    Elsewhere,
}

/// Whole, or the piece of a packet with this identification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Whole,
    First(u16),
    Later(u16),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    pub(super) direction: Direction,
    pub(super) is_v6: bool,
    pub(super) what: What,
    pub(super) cut: Cut,
}

impl Packet {
    pub(super) fn new(direction: Direction, what: What) -> Self {
        Self {
            direction,
            is_v6: false,
            what,
            cut: Cut::Whole,
        }
    }

    pub(super) fn v6(self) -> Self {
        Self {
            is_v6: true,
            ..self
        }
    }

    pub(super) fn cut(self, cut: Cut) -> Self {
        Self { cut, ..self }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let (from, to) = match self.direction {
            Direction::In => (peer(), own()),
            Direction::Out => (own(), peer()),
        };
        self.between(from, to)
    }

    pub(super) fn between(&self, from: Ends, to: Ends) -> Vec<u8> {
        let (protocol, body) = self.transport(from, to);
        let (cut, body) = match self.cut {
            Cut::Whole => (None, body),
            Cut::First(id) => (Some((id, 0, true)), body),
            Cut::Later(id) => (Some((id, 64, false)), vec![0xff; 40]),
        };
        ip(self.is_v6, protocol, &body, from, to, cut)
    }

    fn transport(&self, from: Ends, to: Ends) -> (u8, Vec<u8>) {
        let icmp = if self.is_v6 { ICMPV6 } else { ICMP };
        let kind = |v4, v6| if self.is_v6 { v6 } else { v4 };
        let echo = |kind: u8, id: u16| [&[kind, 0, 0, 0][..], &id.to_be_bytes(), &[0, 1]].concat();
        match self.what {
            What::Tcp(from, to, flags) => (TCP, tcp(from, to, flags)),
            What::Udp(from, to) => (UDP, udp(from, to)),
            What::Request(id) => (icmp, echo(kind(8, 128), id)),
            What::Reply(id) => (icmp, echo(kind(0, 129), id)),
            What::Redirect => (icmp, echo(kind(5, 137), 0)),
            What::Gre => (47, vec![0; 12]),
            What::About(cause) => {
                let (protocol, quoted, ends) = match cause {
                    Cause::Tcp(a, b) => (TCP, tcp(a, b, ACK), (to, from)),
                    Cause::Udp(a, b) => (UDP, udp(a, b), (to, from)),
                    Cause::Request(id) => (icmp, echo(kind(8, 128), id), (to, from)),
                    Cause::Elsewhere => (UDP, udp(1, 2), (to, ends(9))),
                };
                let quoted = ip(self.is_v6, protocol, &quoted, ends.0, ends.1, None);
                // As little as RFC 792 has of it.
                let header = if self.is_v6 { 40 } else { 20 };
                let quoted = &quoted[..header + 8];
                (
                    icmp,
                    [&[kind(3, 1), 1, 0, 0, 0, 0, 0, 0][..], quoted].concat(),
                )
            }
        }
    }
}

pub(super) fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    [&ports[..], &[0; 8], &[0x50, flags, 0, 0, 0, 0, 0, 0]].concat()
}

pub(super) fn udp(from: u16, to: u16) -> Vec<u8> {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    [&ports[..], &[0, 12, 0, 0], &[7; 4]].concat()
}

/// An IP packet; `cut` is identification, offset in bytes, and whether more pieces follow.
pub(super) fn ip(
    is_v6: bool,
    protocol: u8,
    body: &[u8],
    from: Ends,
    to: Ends,
    cut: Option<(u16, u16, bool)>,
) -> Vec<u8> {
    let mut packet = Vec::new();
    if is_v6 {
        let fragment = cut.map(|(id, offset, more)| {
            let [a, b] = id.to_be_bytes();
            let [c, d] = (offset | u16::from(more)).to_be_bytes();
            [protocol, 0, c, d, 0, 0, a, b]
        });
        let len = (body.len() + fragment.map_or(0, |_| 8)) as u16;
        packet.extend([0x60, 0, 0, 0]);
        packet.extend(len.to_be_bytes());
        packet.extend([fragment.map_or(protocol, |_| FRAGMENT), 64]);
        packet.extend(from.v6.octets());
        packet.extend(to.v6.octets());
        packet.extend(fragment.into_iter().flatten());
    } else {
        let (id, offset, more) = cut.unwrap_or_default();
        let word = (offset / 8) | (u16::from(more) << 13);
        packet.extend([0x45, 0]);
        packet.extend((20 + body.len() as u16).to_be_bytes());
        packet.extend(id.to_be_bytes());
        packet.extend(word.to_be_bytes());
        packet.extend([64, protocol, 0, 0]);
        packet.extend(from.v4.octets());
        packet.extend(to.v4.octets());
    }
    packet.extend(body);
    packet
}
