//! What is measured, once for time and once for instructions. A new operation goes into the list
//! in [`all`], with a function that sets it up.

#[path = "../../tests/offload/packets.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod packets;
mod policy;
mod records;
mod tables;

use std::hint::black_box;
use std::ops::Range;

use ipop_datapath::checksum;
use ipop_datapath::coalesce::{Coalescer, Offload};
use ipop_datapath::ecn::Ecn;
use ipop_datapath::inet::{Headers, Layer, Version};
use ipop_datapath::secret::Suite;
use ipop_datapath::segment::{Segments, Sum, Sums};
use ipop_datapath::vnet::{GsoType, VnetHdr};

use packets::Packet;
use policy::What;

/// Payload of a TCP segment with timestamps at an overlay MTU of 1400.
const GSO_SIZE: usize = 1348;
/// Such a packet: headers with options, and payload.
const PACKET: usize = GSO_SIZE + 52;
/// From one packet to the next in a buffer, with room for a record around each.
const STRIDE: usize = 1440;
/// Packets of a full super-packet at that size.
const TRAIN: usize = 46;

/// Something that is done to packets over and over.
pub struct Operation {
    /// Never to change: figures are compared by it.
    pub name: &'static str,
    /// How many packets each run is about.
    pub packets: u64,
    pub run: Box<dyn FnMut()>,
}

/// Everything that is measured.
pub fn all() -> Vec<Operation> {
    vec![
        checksum_1400(),
        classify("classify-v4", Version::V4),
        classify("classify-v6", Version::V6),
        copy("copy-46"),
        segment("segment-lone-partial", 1, Sums::Partial),
        segment("segment-46-partial", TRAIN, Sums::Partial),
        segment("segment-46-complete", TRAIN, Sums::Complete),
        coalesce("coalesce-lone-partial", 1, 1, Sum::Partial),
        coalesce("coalesce-46-partial", 1, TRAIN, Sum::Partial),
        coalesce("coalesce-46-complete", 1, TRAIN, Sum::Complete),
        coalesce("coalesce-8-flows-of-8-partial", 8, 8, Sum::Partial),
        congestion("congestion-unmarked"),
        records::seal("seal-aes-128-gcm", Suite::Aes128Gcm),
        records::seal_and_open("seal-and-open-aes-128-gcm", Suite::Aes128Gcm),
        records::seal("seal-chacha20-poly1305", Suite::ChaCha20Poly1305),
        records::seal_and_open("seal-and-open-chacha20-poly1305", Suite::ChaCha20Poly1305),
        records::replay("replay-in-order"),
        tables::route("route-v4-of-1000", Version::V4),
        tables::route("route-v6-of-1000", Version::V6),
        tables::locate("station-locate-of-1000"),
        tables::learn("station-learn-of-1000"),
        tables::carry("carry-of-1000"),
        policy::admits("policy-tcp-v4", Version::V4, What::Tcp),
        policy::admits("policy-tcp-v6", Version::V6, What::Tcp),
        policy::admits("policy-tcp-answer-v4", Version::V4, What::TcpAnswer),
        policy::admits("policy-udp-v4", Version::V4, What::Udp),
        policy::admits("policy-udp-answer-v4", Version::V4, What::UdpAnswer),
        policy::admits("policy-denied-v4", Version::V4, What::Denied),
    ]
}

fn operation(name: &'static str, packets: usize, run: impl FnMut() + 'static) -> Operation {
    Operation {
        name,
        packets: packets as u64,
        run: Box::new(run),
    }
}

fn checksum_1400() -> Operation {
    let bytes: Vec<u8> = (0..1400).map(|at| at as u8).collect();
    operation("checksum-1400", 1, move || {
        black_box(checksum::sum(black_box(&bytes)));
    })
}

fn classify(name: &'static str, version: Version) -> Operation {
    let packet = Packet {
        version,
        ..train(0, 1)
    }
    .build(Sum::Complete);
    operation(name, 1, move || {
        let packet = black_box(packet.as_slice());
        let headers = Headers::parse(Layer::Ip, packet).expect("a packet");
        black_box(headers.destination(packet));
    })
}

/// Reads the mark of a packet that goes out, and combines it with that of a datagram that has none.
fn congestion(name: &'static str) -> Operation {
    let mut packet = train(0, 1).build(Sum::Complete);
    operation(name, 1, move || {
        black_box(Ecn::of(Layer::Ip, black_box(&packet)));
        let outer = black_box(Ecn::NotEct);
        outer.mark(Layer::Ip, &mut packet).expect("not marked");
    })
}

/// What no segmentation can be faster than.
fn copy(name: &'static str) -> Operation {
    let packets = [7_u8; STRIDE].repeat(TRAIN);
    let mut out = vec![0; STRIDE * TRAIN];
    operation(name, TRAIN, move || {
        for (packet, out) in black_box(&packets)
            .chunks(STRIDE)
            .zip(out.chunks_mut(STRIDE))
        {
            out[..PACKET].copy_from_slice(&packet[..PACKET]);
        }
        black_box(&mut out);
    })
}

/// From the super-packet to the packets, each at its place in one buffer.
fn segment(name: &'static str, count: usize, sums: Sums) -> Operation {
    let (vnet, packet) = train(0, count).build_super(GSO_SIZE);
    let vnet = if count == 1 {
        VnetHdr {
            gso: GsoType::None,
            ..vnet
        }
    } else {
        vnet
    }
    .to_bytes();
    let mut out = vec![0; STRIDE * count];
    operation(name, count, move || {
        let packet = black_box(packet.as_slice());
        let vnet = VnetHdr::parse(black_box(&vnet)).expect("a header");
        let segments = Segments::of(Layer::Ip, &vnet, packet).expect("a super-packet");
        for (index, out) in out.chunks_mut(STRIDE).enumerate() {
            black_box(segments.write(packet, index, sums, out));
        }
        black_box(&mut out);
    })
}

/// From packets in one buffer to their groups; those of several flows take turns.
fn coalesce(name: &'static str, flows: usize, count: usize, sum: Sum) -> Operation {
    let mut buffer = Vec::new();
    let mut ranges = Vec::new();
    let flows: Vec<_> = (0..flows)
        .map(|flow| train(flow, count).cut(GSO_SIZE))
        .collect();
    for index in 0..count {
        for flow in &flows {
            let start = buffer.len() + 13;
            buffer.resize(start, 0);
            buffer.extend(flow[index].build(sum));
            ranges.push(start..buffer.len());
        }
    }
    // The headers of first packets are what a run changes.
    let firsts: Vec<(Range<usize>, Vec<u8>)> = ranges[..flows.len()]
        .iter()
        .map(|range| range.start..range.start + 52)
        .map(|headers| (headers.clone(), buffer[headers].to_vec()))
        .collect();
    let offload = Offload {
        tcp: true,
        udp: true,
        sums: true,
    };
    let mut coalescer = Coalescer::new(Layer::Ip, offload);
    operation(name, ranges.len(), move || {
        for (range, headers) in &firsts {
            buffer[range.clone()].copy_from_slice(headers);
        }
        coalescer.clear();
        for range in black_box(&ranges) {
            coalescer.add(&buffer, range.clone(), sum);
        }
        coalescer.finish(&mut buffer);
        for group in coalescer.groups() {
            black_box(group);
        }
    })
}

/// A super-packet of `count` packets.
fn train(flow: usize, count: usize) -> Packet {
    Packet {
        ports: (flow as u16, 5001),
        tcp_options: vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
        payload: (0..GSO_SIZE * count).map(|at| at as u8).collect(),
        ..Packet::default()
    }
}
