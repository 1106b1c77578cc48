//! Any header and packet: the segments are as long as they say, and are put together again into
//! what is cut into the same segments.
#![no_main]

use ipop_datapath::coalesce::{Coalescer, Offload};
use ipop_datapath::inet::{Headers, Layer, Transport, Version};
use ipop_datapath::segment::{Segments, Sum, Sums};
use ipop_datapath::vnet::{GsoType, VnetHdr};
use libfuzzer_sys::fuzz_target;

/// More segments than that teach nothing.
const MAX_SEGMENTS: usize = 200;

fuzz_target!(|input: &[u8]| {
    let Some((&options, input)) = input.split_first() else {
        return;
    };
    let layer = if options & 1 == 0 {
        Layer::Ip
    } else {
        Layer::Ethernet
    };
    let Some((vnet, packet)) = input.split_first_chunk() else {
        return;
    };
    let Ok(mut vnet) = VnetHdr::parse(vnet) else {
        return;
    };
    if options & 2 != 0 {
        make_right(layer, packet, &mut vnet);
    }
    let Some(segments) = cut(layer, &vnet, packet, Sums::Complete) else {
        return;
    };
    if vnet.gso == GsoType::None {
        assert_eq!(segments.len(), 1);
        assert_eq!(segments[0].0.len(), packet.len());
        return;
    }
    for (segment, sum) in &segments {
        assert_eq!(*sum, Sum::Complete);
        let headers = Headers::parse(layer, segment).expect("a segment is a packet");
        assert_eq!(headers.end, segment.len());
    }

    let mut buffer = Vec::new();
    let mut coalescer = Coalescer::new(
        layer,
        Offload {
            tcp: true,
            udp: true,
            sums: true,
        },
    );
    let mut ranges = Vec::new();
    for (segment, _) in &segments {
        ranges.push(buffer.len()..buffer.len() + segment.len());
        buffer.extend_from_slice(segment);
    }
    for range in ranges {
        coalescer.add(&buffer, range, Sum::Complete);
    }
    coalescer.finish(&mut buffer);
    let mut again = Vec::new();
    for group in coalescer.groups() {
        let vnet = VnetHdr::parse(&group.header).expect("its own header");
        let bytes: Vec<u8> = group
            .ranges
            .iter()
            .flat_map(|range| &buffer[range.clone()])
            .copied()
            .collect();
        again.extend(cut(layer, &vnet, &bytes, Sums::Complete).expect("its own group"));
    }
    assert!(again == segments);
});

/// Makes the header one that goes with the packet.
fn make_right(layer: Layer, packet: &[u8], vnet: &mut VnetHdr) {
    let Ok(headers) = Headers::parse(layer, packet) else {
        return;
    };
    let Some(csum_offset) = headers.checksum_offset() else {
        return;
    };
    *vnet = VnetHdr {
        needs_csum: true,
        gso: match (headers.transport, headers.version) {
            (Transport::Udp, _) => GsoType::UdpL4,
            (_, Version::V4) => GsoType::TcpV4,
            (_, Version::V6) => GsoType::TcpV6,
        },
        csum_start: headers.transport_at as u16,
        csum_offset,
        hdr_len: 0,
        ..*vnet
    };
}

fn cut(layer: Layer, vnet: &VnetHdr, packet: &[u8], sums: Sums) -> Option<Vec<(Vec<u8>, Sum)>> {
    let segments = Segments::of(layer, vnet, packet).ok()?;
    if segments.count() > MAX_SEGMENTS {
        return None;
    }
    let write = |index| {
        let mut out = vec![0; segments.len(index)];
        let sum = segments.write(packet, index, sums, &mut out);
        (out, sum)
    };
    Some((0..segments.count()).map(write).collect())
}
