//! Packets that ask a gate, beside a model that has the same rules in words and a plain map.

mod model;
mod packet;

use std::collections::HashMap;

use proptest::prelude::*;

use self::model::Model;
use self::packet::{ACK, Cause, Cut, Packet, SYN, What, ends, ip, own, peer, tcp, udp};
use super::*;

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
    let later = Packet::new(Direction::In, What::Udp(1, 2)).cut(Cut::Later(1));
    assert!(!gate.admits(Direction::In, &later.v6().bytes(), 1));
    let (denial, _) = gate.denials.last().expect("one");
    assert_eq!(denial.to_string(), "a piece of a packet");
    // What this node may not send says nothing of the peer.
    let own = Packet::new(Direction::Out, What::Tcp(1, 22, SYN));
    assert!(!gate.admits(Direction::Out, &own.bytes(), 1));
    assert_eq!(gate.denials.count(), 9);
}

#[test]
fn an_error_passes_for_a_flow_of_these_two_nodes_and_for_no_other() {
    let gate = gate(Allowed::default(), ports(&[2049], &[53]));
    let ask = Packet::new(Direction::Out, What::Udp(4000, 53));
    for packet in [ask, ask.v6()] {
        assert!(gate.admits(Direction::Out, &packet.bytes(), 1));
        let error = |kind: u8, (from, to), transport: (u8, Vec<u8>)| {
            let quoted = ip(packet.is_v6, transport.0, &transport.1, from, to, None);
            let icmp = [&[kind, 1, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
            let protocol = if packet.is_v6 { ICMPV6 } else { ICMP };
            let bytes = ip(packet.is_v6, protocol, &icmp, peer(), own(), None);
            gate.admits(Direction::In, &bytes, 1)
        };
        let [unreachable, redirect] = if packet.is_v6 { [1, 137] } else { [3, 5] };
        let ends_of_it = (own(), peer());
        for (transport, other) in [
            ((UDP, udp(4000, 53)), (UDP, udp(4001, 53))),
            ((TCP, tcp(1, 2049, ACK)), (TCP, tcp(1, 22, ACK))),
        ] {
            assert!(error(unreachable, ends_of_it, transport.clone()));
            assert!(!error(unreachable, ends_of_it, other));
            // Of somebody else, and of the other direction.
            assert!(!error(unreachable, (own(), ends(9)), transport.clone()));
            assert!(!error(unreachable, (ends(9), peer()), transport.clone()));
            assert!(!error(unreachable, (peer(), own()), transport.clone()));
            assert!(!error(redirect, ends_of_it, transport));
        }
    }
}

#[test]
fn pieces_are_waited_for_as_long_as_is_said() {
    let gate = gate(ports(&[], &[53]), Allowed::default());
    let packet = Packet::new(Direction::In, What::Udp(1, 53));
    for packet in [packet, packet.v6()] {
        let asks = |cut, now_s| gate.admits(Direction::In, &packet.cut(cut).bytes(), now_s);
        assert!(!asks(Cut::Later(1), 1));
        assert!(asks(Cut::First(1), 1));
        assert!(asks(Cut::Later(1), 31));
        assert!(!asks(Cut::Later(1), 32));
        assert!(!asks(Cut::Later(2), 1));
    }
}
