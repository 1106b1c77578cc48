//! Whether packets may pass, by rules that have ten ranges of ports.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipop_datapath::inet::Version;
use ipop_datapath::policy::{Allowed, Direction, Ends, Gate};
use ipop_datapath::segment::Sum;

use super::packets::Packet;
use super::{Operation, operation};

/// What is asked about.
pub enum What {
    /// A segment to a port that connections are allowed to.
    Tcp,
    /// One from there.
    TcpAnswer,
    /// A datagram to an allowed port, of a flow that goes on.
    Udp,
    /// One that comes back.
    UdpAnswer,
    /// What nothing allows.
    Denied,
}

const SERVED: u16 = 5001;
const OTHER: u16 = 40_000;

pub fn admits(name: &'static str, version: Version, what: What) -> Operation {
    let mut allowed = Allowed::default();
    for range in 0..10 {
        let first = SERVED - 1000 * range;
        allowed.tcp.add(first, first + 1);
        allowed.udp.add(first, first + 1);
    }
    let packet = |udp, ports, source, destination| {
        let packet = Packet {
            version,
            udp,
            ports,
            source,
            destination,
            ..Packet::default()
        };
        packet.build(Sum::Complete)
    };
    let ends = |packet: &[u8]| {
        let v4 = packet[12..].first_chunk::<4>().expect("addresses");
        let v6 = packet[8..].first_chunk::<16>().expect("addresses");
        Ends {
            v4: Ipv4Addr::from(*v4),
            v6: Ipv6Addr::from(*v6),
        }
    };
    let asks = |udp| packet(udp, (OTHER, SERVED), 1, 2);
    let answers = |udp| packet(udp, (SERVED, OTHER), 2, 1);
    let (peer, own) = (ends(&asks(false)), ends(&answers(false)));
    let gate = Gate::new(own, peer, allowed, Allowed::default(), Default::default());
    let (direction, packet) = match what {
        What::Tcp => (Direction::In, asks(false)),
        What::TcpAnswer => (Direction::Out, answers(false)),
        What::Udp => (Direction::In, asks(true)),
        What::UdpAnswer => (Direction::Out, answers(true)),
        What::Denied => (Direction::In, packet(false, (SERVED, OTHER), 1, 2)),
    };
    gate.admits(Direction::In, &asks(true), 1);
    let expected = !matches!(what, What::Denied);
    assert_eq!(gate.admits(direction, &packet, 1), expected, "{name}");
    operation(name, 1, move || {
        black_box(gate.admits(black_box(direction), black_box(&packet), black_box(1)));
    })
}
