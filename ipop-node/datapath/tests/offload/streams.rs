//! Streams of packets as peers may send them, and what a device would be given for them.

use std::ops::Range;

use ipop_datapath::coalesce::{Coalescer, Offload};
use ipop_datapath::inet::{Layer, Version};
use ipop_datapath::segment::Sum;
use ipop_datapath::vnet::VnetHdr;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::packets::{ACK, CWR, ECE, FIN, PSH, Packet, SYN, URG};

pub const ALL: Offload = Offload {
    tcp: true,
    udp: true,
    sums: true,
};

/// What one `writev` gives to the device, and which of the packets added that is.
#[derive(Clone, Debug)]
pub struct Written {
    pub vnet: VnetHdr,
    pub bytes: Vec<u8>,
    pub indices: Vec<usize>,
}

/// Puts `packets` through a coalescer, from a buffer where they lie `gap` bytes apart.
/// Empty ones are told from their neighbours by a gap only.
pub fn coalesce(coalescer: &mut Coalescer, packets: &[(Vec<u8>, Sum)], gap: usize) -> Vec<Written> {
    let mut buffer = vec![0xee; gap];
    let mut ends = Vec::new();
    let mut ranges = Vec::new();
    for (bytes, _) in packets {
        ranges.push(buffer.len()..buffer.len() + bytes.len());
        buffer.extend(bytes);
        ends.push(buffer.len());
        buffer.extend(vec![0xee; gap]);
    }
    coalescer.clear();
    for (range, (_, sum)) in ranges.iter().zip(packets) {
        coalescer.add(&buffer, range.clone(), *sum);
    }
    coalescer.finish(&mut buffer);
    let index = |range: &Range<usize>| {
        let index = ends.iter().position(|end| *end == range.end).unwrap();
        assert!(range.start >= ranges[index].start);
        index
    };
    coalescer
        .groups()
        .map(|group| {
            assert_eq!(group.packets, group.ranges.len());
            Written {
                vnet: VnetHdr::parse(&group.header).unwrap(),
                bytes: group
                    .ranges
                    .iter()
                    .flat_map(|range| &buffer[range.clone()])
                    .copied()
                    .collect(),
                indices: group.ranges.iter().map(index).collect(),
            }
        })
        .collect()
}

/// One thing that happens to a stream.
#[derive(Clone, Debug)]
pub enum Event {
    /// The flow goes on.
    Send { flow: usize, len: usize, sum: Sum },
    /// A packet with other flags; the flow goes on.
    Flags { flow: usize, len: usize, flags: u8 },
    /// The same bytes again.
    Repeat { flow: usize },
    /// Something about the flow changes, from now on.
    Change { flow: usize, what: u8 },
    /// A packet with one byte changed; the flow goes on.
    Corrupt {
        flow: usize,
        at: prop::sample::Index,
        bits: u8,
        sum: Sum,
    },
    /// A fragment of the flow.
    Fragment { flow: usize, offset: u16 },
    /// A packet cut short.
    Truncate {
        flow: usize,
        len: prop::sample::Index,
    },
    /// Padding of the link.
    Pad { flow: usize },
    /// Of another protocol.
    Other { flow: usize, protocol: u8 },
    /// Anything.
    Garbage(Vec<u8>, Sum),
}

fn event(flows: usize) -> impl Strategy<Value = Event> {
    let flow = 0..flows;
    let sum = prop_oneof![Just(Sum::Complete), Just(Sum::Partial)];
    let len =
        prop_oneof![6 => Just(60_usize), 1 => Just(0), 1 => Just(1), 1 => Just(59), 1 => Just(61)];
    let flags = prop::sample::select(
        &[
            ACK | PSH,
            ACK | FIN,
            ACK | ECE,
            ACK | ECE | PSH,
            ACK | CWR,
            SYN,
            ACK | URG,
            0,
            ACK | 4,
        ][..],
    );
    prop_oneof![
        30 => (flow.clone(), len.clone(), sum.clone())
            .prop_map(|(flow, len, sum)| Event::Send { flow, len, sum }),
        4 => (flow.clone(), len, flags).prop_map(|(flow, len, flags)| Event::Flags { flow, len, flags }),
        1 => flow.clone().prop_map(|flow| Event::Repeat { flow }),
        2 => (flow.clone(), 0_u8..10).prop_map(|(flow, what)| Event::Change { flow, what }),
        4 => (flow.clone(), any::<prop::sample::Index>(), 1_u8.., sum.clone())
            .prop_map(|(flow, at, bits, sum)| Event::Corrupt { flow, at, bits, sum }),
        1 => (flow.clone(), prop::sample::select(&[0x2000_u16, 8, 0x2008][..]))
            .prop_map(|(flow, offset)| Event::Fragment { flow, offset }),
        1 => (flow.clone(), any::<prop::sample::Index>())
            .prop_map(|(flow, len)| Event::Truncate { flow, len }),
        1 => flow.clone().prop_map(|flow| Event::Pad { flow }),
        1 => (flow, prop::sample::select(&[1_u8, 58, 47, 132][..]))
            .prop_map(|(flow, protocol)| Event::Other { flow, protocol }),
        1 => (vec(any::<u8>(), 0..80), sum).prop_map(|(bytes, sum)| Event::Garbage(bytes, sum)),
    ]
}

prop_compose! {
    /// A packet with any headers. Few ports and addresses, so that flows are near each other.
    pub fn packet(link: Vec<u8>)(
        is_v4: bool,
        addresses in 1_u8..3,
        (tos, ttl, flow_label) in (any::<u8>(), 1_u8.., any::<u16>()),
        (identification, dont_fragment) in (any::<u16>(), any::<bool>()),
        ip_options in prop_oneof![8 => Just(vec![]), 1 => Just(vec![1; 8])],
        udp: bool,
        port in 1_u16..3,
        (sequence, acknowledgement) in (any::<u32>(), any::<u32>()),
        (window, urgent) in (any::<u16>(), prop_oneof![9 => Just(0), 1 => any::<u16>()]),
        tcp_options in prop::sample::select(vec![vec![], vec![1; 12], vec![1; 40]]),
        link in Just(link),
    ) -> Packet {
        Packet {
            link,
            version: if is_v4 { Version::V4 } else { Version::V6 },
            source: addresses,
            destination: 9,
            tos,
            flow_label,
            ttl,
            identification,
            dont_fragment,
            ip_options,
            udp,
            ports: (port, 7),
            sequence,
            acknowledgement,
            flags: ACK,
            window,
            urgent,
            tcp_options,
            payload: Vec::new(),
        }
    }
}

/// The Ethernet headers of a device: none on TUN.
pub fn link() -> impl Strategy<Value = Vec<u8>> {
    let addresses = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    prop::sample::select(vec![
        Vec::new(),
        addresses.to_vec(),
        [&addresses[..], &[0x81, 0, 0, 5]].concat(),
        [&addresses[..], &[0x88, 0xa8, 0, 9, 0x81, 0, 0, 5]].concat(),
    ])
}

/// A device and the packets for it.
pub fn stream() -> impl Strategy<Value = (Layer, Vec<(Vec<u8>, Sum)>)> {
    link()
        .prop_flat_map(|link| (vec(packet(link), 1..5), vec(event(4), 0..60), any::<u8>()))
        .prop_map(|(flows, events, fill)| (flows[0].layer(), packets(flows, events, fill)))
}

fn packets(mut flows: Vec<Packet>, events: Vec<Event>, fill: u8) -> Vec<(Vec<u8>, Sum)> {
    let mut packets = Vec::new();
    let count = flows.len();
    for event in events {
        let (bytes, sum) = match event {
            Event::Send { flow, len, sum } => {
                (send(&mut flows[flow % count], fill, len, ACK, sum), sum)
            }
            Event::Flags { flow, len, flags } => (
                send(&mut flows[flow % count], fill, len, flags, Sum::Complete),
                Sum::Complete,
            ),
            Event::Repeat { flow } => (flows[flow % count].build(Sum::Complete), Sum::Complete),
            Event::Change { flow, what } => {
                change(&mut flows[flow % count], what);
                continue;
            }
            Event::Corrupt {
                flow,
                at,
                bits,
                sum,
            } => {
                let mut bytes = send(&mut flows[flow % count], fill, 60, ACK, sum);
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
                (bytes, sum)
            }
            Event::Fragment { flow, offset } => {
                let ip_at = flows[flow % count].ip_at();
                let mut bytes = send(&mut flows[flow % count], fill, 60, ACK, Sum::Complete);
                if bytes[ip_at] >> 4 == 4 {
                    bytes[ip_at + 6..ip_at + 8].copy_from_slice(&offset.to_be_bytes());
                } else {
                    bytes[ip_at + 6] = 44;
                }
                (bytes, Sum::Complete)
            }
            Event::Truncate { flow, len } => {
                let mut bytes = send(&mut flows[flow % count], fill, 60, ACK, Sum::Complete);
                bytes.truncate(len.index(bytes.len()));
                (bytes, Sum::Complete)
            }
            Event::Pad { flow } => (
                [
                    send(&mut flows[flow % count], fill, 60, ACK, Sum::Complete),
                    vec![0; 4],
                ]
                .concat(),
                Sum::Complete,
            ),
            Event::Other { flow, protocol } => {
                let flow = &flows[flow % count];
                let mut bytes = flow.build(Sum::Complete);
                let at = flow.ip_at() + if flow.version == Version::V4 { 9 } else { 6 };
                bytes[at] = protocol;
                (bytes, Sum::Complete)
            }
            Event::Garbage(bytes, sum) => (bytes, sum),
        };
        packets.push((bytes, sum));
    }
    packets
}

/// The flow's next packet.
fn send(flow: &mut Packet, fill: u8, len: usize, flags: u8, sum: Sum) -> Vec<u8> {
    flow.payload = (0..len).map(|at| fill.wrapping_mul(at as u8)).collect();
    let bytes = Packet {
        flags,
        ..flow.clone()
    }
    .build(sum);
    flow.sequence = flow.sequence.wrapping_add(len as u32);
    flow.identification = flow.identification.wrapping_add(1);
    bytes
}

fn change(flow: &mut Packet, what: u8) {
    match what {
        0 => flow.tos ^= 1,
        1 => flow.ttl ^= 1,
        2 => flow.flow_label ^= 1,
        3 => flow.identification ^= 1,
        4 => flow.dont_fragment ^= true,
        5 => flow.acknowledgement ^= 1,
        6 => flow.window ^= 1,
        7 => flow.urgent ^= 1,
        8 => flow.sequence ^= 1,
        _ => flow.tcp_options = vec![1; 8],
    }
}
