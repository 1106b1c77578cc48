//! Any packets: every one of them comes out once, and groups are cut into what went in.
//!
//! No fuzzer finds checksums, so that packets may ask for theirs to be made right.
#![no_main]

use ipop_datapath::checksum::{fold, pseudo_v4, pseudo_v6, sum};
use ipop_datapath::coalesce::{Coalescer, Offload};
use ipop_datapath::inet::{Headers, Layer, Version};
use ipop_datapath::segment::{Segments, Sum, Sums};
use ipop_datapath::vnet::VnetHdr;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&options, mut input)) = input.split_first() else {
        return;
    };
    let layer = if options & 1 == 0 {
        Layer::Ip
    } else {
        Layer::Ethernet
    };
    let offload = Offload {
        tcp: options & 2 == 0,
        udp: options & 4 == 0,
        sums: options & 8 == 0,
    };
    // Packets, each with its length and kind before it.
    let mut buffer = Vec::new();
    let mut packets = Vec::new();
    while let Some((&[len, kind], rest)) = input.split_first_chunk() {
        let (packet, rest) = rest.split_at(rest.len().min(usize::from(len)));
        let mut packet = packet.to_vec();
        let sum = if kind & 1 == 0 {
            Sum::Complete
        } else {
            Sum::Partial
        };
        if kind & 2 != 0 {
            make_right(layer, &mut packet, sum);
        }
        buffer.push(0xee);
        packets.push((buffer.len()..buffer.len() + packet.len(), sum));
        buffer.extend_from_slice(&packet);
        input = rest;
    }
    let before = buffer.clone();
    let mut coalescer = Coalescer::new(layer, offload);
    for (range, sum) in &packets {
        coalescer.add(&buffer, range.clone(), *sum);
    }
    coalescer.finish(&mut buffer);

    let mut seen = vec![false; packets.len()];
    for group in coalescer.groups() {
        let vnet = VnetHdr::parse(&group.header).expect("its own header");
        let bytes: Vec<u8> = group
            .ranges
            .iter()
            .flat_map(|range| &buffer[range.clone()])
            .copied()
            .collect();
        let segments = Segments::of(layer, &vnet, &bytes).expect("its own group");
        assert_eq!(segments.count(), group.ranges.len());
        for (index, range) in group.ranges.iter().enumerate() {
            let at = packets
                .iter()
                .position(|(packet, _)| packet.end == range.end && packet.start <= range.start);
            let at = at.expect("a packet that was added");
            assert!(!std::mem::replace(&mut seen[at], true));
            let (packet, sum) = &packets[at];
            assert_eq!(segments.len(index), packet.len());
            let mut out = vec![0; packet.len()];
            segments.write(&bytes, index, Sums::Partial, &mut out);
            // A group's sums are partial; the payload tells the packets apart.
            let header = range.start - packet.start;
            assert!(out[header..] == before[range.clone()] || *sum == Sum::Partial || index == 0);
            if group.packets == 1 && *sum == Sum::Complete {
                assert!(out == before[packet.clone()]);
            }
        }
    }
    assert!(seen.into_iter().all(|seen| seen));
});

fn make_right(layer: Layer, packet: &mut [u8], kind: Sum) {
    let Ok(headers) = Headers::parse(layer, packet) else {
        return;
    };
    let Headers {
        ip_at,
        transport_at,
        end,
        protocol,
        ..
    } = headers;
    let len = (end - transport_at) as u32;
    let pseudo_sum = match headers.version {
        Version::V4 => {
            packet[ip_at + 10..ip_at + 12].fill(0);
            let checksum = !sum(&packet[ip_at..transport_at]);
            packet[ip_at + 10..ip_at + 12].copy_from_slice(&checksum.to_be_bytes());
            let address = |at: usize| *packet[at..].first_chunk().expect("a whole header");
            pseudo_v4(address(ip_at + 12), address(ip_at + 16), protocol, len)
        }
        Version::V6 => {
            let address = |at: usize| *packet[at..].first_chunk().expect("a whole header");
            pseudo_v6(address(ip_at + 8), address(ip_at + 24), protocol, len)
        }
    };
    let Some(offset) = headers.checksum_offset() else {
        return;
    };
    let field = transport_at + usize::from(offset);
    packet[field..field + 2].fill(0);
    let value = match kind {
        Sum::Partial => pseudo_sum,
        Sum::Complete => {
            match !fold(u64::from(pseudo_sum) + u64::from(sum(&packet[transport_at..end]))) {
                0 if offset == 6 => 0xffff,
                checksum => checksum,
            }
        }
    };
    packet[field..field + 2].copy_from_slice(&value.to_be_bytes());
}
