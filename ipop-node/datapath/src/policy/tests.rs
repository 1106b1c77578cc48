//! Packets that ask a gate, beside a model that has the same rules in words and a plain map.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn own() -> Ends {
    ends(1)
}

fn peer() -> Ends {
    ends(2)
}

fn ends(last: u8) -> Ends {
    Ends {
        v4: [10, 73, 0, last].into(),
        v6: [0xfd73, 0, 0, 0, 0, 0, 0, last.into()].into(),
    }
}

/// What a packet carries; the ports are its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
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
enum Cause {
    Tcp(u16, u16),
    Udp(u16, u16),
    Request(u16),
    /// A UDP datagram between two nodes of which one is none of these.
    Elsewhere,
}

/// Whole, or the piece of a packet with this identification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Whole,
    First(u16),
    Later(u16),
}

#[derive(Debug, Clone, Copy)]
struct Packet {
    direction: Direction,
    is_v6: bool,
    what: What,
    cut: Cut,
}

impl Packet {
    fn new(direction: Direction, what: What) -> Self {
        Self {
            direction,
            is_v6: false,
            what,
            cut: Cut::Whole,
        }
    }

    fn v6(self) -> Self {
        Self {
            is_v6: true,
            ..self
        }
    }

    fn cut(self, cut: Cut) -> Self {
        Self { cut, ..self }
    }

    fn bytes(&self) -> Vec<u8> {
        let (from, to) = match self.direction {
            Direction::In => (peer(), own()),
            Direction::Out => (own(), peer()),
        };
        self.between(from, to)
    }

    fn between(&self, from: Ends, to: Ends) -> Vec<u8> {
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

fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    [&ports[..], &[0; 8], &[0x50, flags, 0, 0, 0, 0, 0, 0]].concat()
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    [&ports[..], &[0, 12, 0, 0], &[7; 4]].concat()
}

/// An IP packet; `cut` is identification, offset in bytes, and whether more pieces follow.
fn ip(
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

fn gate(inward: Allowed, outward: Allowed) -> Gate {
    Gate::new(own(), peer(), inward, outward, Arc::default())
}

/// TCP to these ports, UDP to those.
fn ports(tcp: &[u16], udp: &[u16]) -> Allowed {
    let mut allowed = Allowed::default();
    tcp.iter().for_each(|port| allowed.tcp.add(*port, *port));
    udp.iter().for_each(|port| allowed.udp.add(*port, *port));
    allowed
}

/// The rules in words.
struct Model {
    inward: Allowed,
    outward: Allowed,
    /// By family, kind, this node's and the peer's port.
    begun: HashMap<(bool, &'static str, u16, u16), u32>,
    pieces: HashMap<(Direction, bool, &'static str, u16), u32>,
}

impl Model {
    fn admits(&mut self, packet: &Packet, now_s: u32) -> bool {
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

fn any_what() -> impl Strategy<Value = What> {
    let port = || 0..4_u16;
    let flags = prop_oneof![Just(SYN), Just(SYN | ACK), Just(ACK), Just(0)];
    let cause = prop_oneof![
        (port(), port()).prop_map(|(a, b)| Cause::Tcp(a, b)),
        (port(), port()).prop_map(|(a, b)| Cause::Udp(a, b)),
        port().prop_map(Cause::Request),
        Just(Cause::Elsewhere),
    ];
    prop_oneof![
        (port(), port(), flags).prop_map(|(a, b, flags)| What::Tcp(a, b, flags)),
        (port(), port()).prop_map(|(a, b)| What::Udp(a, b)),
        port().prop_map(What::Request),
        port().prop_map(What::Reply),
        cause.prop_map(What::About),
        Just(What::Redirect),
        Just(What::Gre),
    ]
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let direction = prop_oneof![Just(Direction::In), Just(Direction::Out)];
    let cut = prop_oneof![
        4 => Just(Cut::Whole),
        1 => (0..2_u16).prop_map(Cut::First),
        1 => (0..2_u16).prop_map(Cut::Later),
    ];
    (direction, any::<bool>(), any_what(), cut).prop_map(|(direction, is_v6, what, cut)| Packet {
        direction,
        is_v6,
        what,
        cut,
    })
}

fn any_allowed() -> impl Strategy<Value = Allowed> {
    let port = || prop::collection::vec(0..4_u16, 0..3);
    let some = (port(), port(), any::<bool>()).prop_map(|(tcp, udp, icmp)| Allowed {
        icmp,
        ..ports(&tcp, &udp)
    });
    prop_oneof![4 => some, 1 => Just(Allowed::everything())]
}

proptest! {
    #[test]
    fn a_gate_decides_as_the_rules_in_words_do(
        inward in any_allowed(),
        outward in any_allowed(),
        packets in prop::collection::vec((any_packet(), 0..50_u32), 1..80),
    ) {
        let gate = gate(inward.clone(), outward.clone());
        let mut model = Model {
            inward,
            outward,
            begun: HashMap::new(),
            pieces: HashMap::new(),
        };
        let mut now_s = 0;
        let mut denied = 0;
        for (packet, later) in packets {
            now_s += later;
            let expected = model.admits(&packet, now_s);
            let admits = gate.admits(packet.direction, &packet.bytes(), now_s);
            prop_assert_eq!(admits, expected, "{:?} at {}", packet, now_s);
            denied += u64::from(!admits && packet.direction == Direction::In);
            prop_assert_eq!(gate.denials.count(), denied);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..120),
        packet in any_packet(),
        keep in 0..120_usize,
    ) {
        let gate = gate(Allowed::everything(), ports(&[1], &[2]));
        let _ = gate.admits(Direction::In, &bytes, 1);
        // The beginning of a packet that is one.
        let packet = packet.bytes();
        let keep = keep.min(packet.len());
        bytes.splice(..keep.min(bytes.len()), packet[..keep].iter().copied());
        for direction in [Direction::In, Direction::Out] {
            let _ = gate.admits(direction, &bytes, 1);
        }
    }
}

#[test]
fn packets_of_other_addresses_do_not_pass_whatever_is_allowed() {
    let gate = gate(Allowed::everything(), Allowed::everything());
    let packet = Packet::new(Direction::In, What::Udp(1, 2));
    for packet in [packet, packet.v6()] {
        let asks = |from, to| gate.admits(Direction::In, &packet.between(from, to), 1);
        assert!(asks(peer(), own()));
        assert!(!asks(ends(3), own()));
        assert!(!asks(peer(), ends(3)));
        assert!(!asks(own(), peer()));
        assert!(!gate.admits(Direction::Out, &packet.bytes(), 1));
    }
}

#[test]
fn an_answer_does_not_keep_a_way_open() {
    let gate = gate(Allowed::default(), ports(&[], &[53]));
    let ask = Packet::new(Direction::Out, What::Udp(4000, 53)).bytes();
    let answer = Packet::new(Direction::In, What::Udp(53, 4000)).bytes();
    assert!(!gate.admits(Direction::In, &answer, 0));
    assert!(gate.admits(Direction::Out, &ask, 0));
    for now_s in [1, 150, 300] {
        assert!(gate.admits(Direction::In, &answer, now_s));
    }
    assert!(!gate.admits(Direction::In, &answer, 301));
}

#[test]
fn no_connection_is_opened_from_the_port_of_a_service() {
    let gate = gate(Allowed::default(), ports(&[2049], &[]));
    let from_service = |flags| {
        let packet = Packet::new(Direction::In, What::Tcp(2049, 22, flags));
        gate.admits(Direction::In, &packet.bytes(), 1)
    };
    assert!(!from_service(SYN));
    // With congestion notification (RFC 3168 section 6.1.1).
    assert!(!from_service(SYN | 0xc0));
    assert!(from_service(SYN | ACK));
    assert!(from_service(ACK));
}

#[test]
fn a_piece_that_could_change_the_header_of_the_first_one_does_not_pass() {
    let gate = gate(ports(&[2049], &[]), Allowed::default());
    let first = Packet::new(Direction::In, What::Tcp(1, 2049, ACK)).cut(Cut::First(7));
    for packet in [first, first.v6()] {
        assert!(gate.admits(Direction::In, &packet.bytes(), 1));
        let later = |offset| {
            let piece = ip(
                packet.is_v6,
                TCP,
                &[0xff; 32],
                peer(),
                own(),
                Some((7, offset, true)),
            );
            gate.admits(Direction::In, &piece, 1)
        };
        assert!(!later(8));
        assert!(!later(16));
        assert!(later(24));
        // Too little to tell what it is.
        let tiny = ip(
            packet.is_v6,
            TCP,
            &tcp(1, 2049, ACK)[..16],
            peer(),
            own(),
            Some((8, 0, true)),
        );
        assert!(!gate.admits(Direction::In, &tiny, 1));
    }
}

#[test]
fn what_was_denied_last_is_told() {
    let gate = gate(Allowed::default(), Allowed::default());
    assert_eq!(gate.denials.last(), None);
    for (what, text) in [
        (What::Tcp(1, 22, SYN), "tcp/22"),
        (What::Udp(1, 65_535), "udp/65535"),
        (What::Request(5), "icmp"),
        (What::Gre, "protocol 47"),
    ] {
        for packet in [
            Packet::new(Direction::In, what),
            Packet::new(Direction::In, what).v6(),
        ] {
            assert!(!gate.admits(Direction::In, &packet.bytes(), u32::MAX));
            let (denial, now_s) = gate.denials.last().expect("one");
            assert_eq!((denial.to_string().as_str(), now_s), (text, u32::MAX));
        }
    }
    // What this node may not send says nothing of the peer.
    let own = Packet::new(Direction::Out, What::Tcp(1, 22, SYN));
    assert!(!gate.admits(Direction::Out, &own.bytes(), 1));
    assert_eq!(gate.denials.count(), 8);
}
