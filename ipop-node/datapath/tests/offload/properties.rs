//! What holds for any packets.

use std::collections::HashSet;

use ipop_datapath::coalesce::{Coalescer, Offload};
use ipop_datapath::inet::{Headers, Layer};
use ipop_datapath::segment::{Segments, Sum, Sums};
use ipop_datapath::vnet::{GsoType, VnetHdr};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::packets::{ACK, CWR, FIN, PSH, Packet, be16, plain_sum, put16};
use crate::segment::cut;
use crate::streams::{ALL, coalesce, link, packet, stream};

/// Whose packet that is, read on its own: addresses, and protocol and ports if there are any.
fn flow(layer: Layer, packet: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let mut ip_at = 0;
    if layer == Layer::Ethernet {
        ip_at = 14;
        while [0x8100, 0x88a8].contains(&be16(packet.get(..ip_at)?, ip_at - 2)) {
            ip_at += 4;
        }
    }
    let ip = packet.get(ip_at..)?;
    let ethertypes = [0x800, 0x86dd];
    if ip_at > 0 && !ethertypes.contains(&be16(packet, ip_at - 2)) {
        return None;
    }
    let (addresses, protocol, ports) = match ip.first()? >> 4 {
        4 => {
            let ports = usize::from(ip[0] & 0xf) * 4;
            let is_fragment = be16(ip.get(..20)?, 6) & 0x3fff != 0;
            (
                ip.get(12..20)?,
                ip[9],
                if is_fragment { usize::MAX - 4 } else { ports },
            )
        }
        6 => match *ip.get(6)? {
            60 => (ip.get(8..40)?, *ip.get(40)?, 48),
            protocol => (ip.get(8..40)?, protocol, 40),
        },
        _ => return None,
    };
    if ![6, 17, 44].contains(&protocol) {
        return None;
    }
    let ports = ip
        .get(ports..ports + 4)
        .filter(|_| [6, 17].contains(&protocol));
    Some((
        addresses.to_vec(),
        ports.map(|ports| [&[protocol], ports].concat()),
    ))
}

/// The packet with its checksum, if it has only the sum of its pseudo-header yet. Linux takes
/// padding for a part of the packet, which we do only where we stand in for it.
fn completed(layer: Layer, packet: &[u8], sum: Sum, is_by_device: bool) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if sum == Sum::Partial
        && let Ok(headers) = Headers::parse(layer, &packet)
        && let Some(offset) = headers.checksum_offset()
    {
        let end = if is_by_device {
            packet.len()
        } else {
            headers.end
        };
        let checksum = !plain_sum(&packet[headers.transport_at..end]);
        let checksum = if checksum == 0 { 0xffff } else { checksum };
        put16(
            &mut packet,
            headers.transport_at + usize::from(offset),
            checksum,
        );
    }
    packet
}

/// The packet without what has no meaning: the identification of an IPv4 packet with DF, and which
/// of the two zeros a TCP checksum is.
fn meaning(layer: Layer, packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let headers = Headers::parse(layer, &packet).unwrap();
    let ip_at = headers.ip_at;
    if packet[ip_at] >> 4 == 4 && packet[ip_at + 6] & 0x40 != 0 {
        let ip_sum = plain_sum(&packet[ip_at..headers.transport_at]);
        put16(&mut packet, ip_at + 4, 0);
        put16(&mut packet, ip_at + 10, ip_sum);
    }
    let checksum_at = headers.transport_at + 16;
    if headers.protocol == 6 && be16(&packet, checksum_at) == 0xffff {
        put16(&mut packet, checksum_at, 0);
    }
    packet
}

fn offload() -> impl Strategy<Value = Offload> {
    prop_oneof![
        4 => Just(ALL),
        1 => any::<(bool, bool, bool)>().prop_map(|(tcp, udp, sums)| Offload { tcp, udp, sums }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_put_together_is_cut_into_the_same_packets_again(
        (layer, packets) in stream(), offload in offload(), gap in 1_usize..4,
    ) {
        let written = coalesce(&mut Coalescer::new(layer, offload), &packets, gap);
        let mut order = vec![0; packets.len()];
        let mut seen = HashSet::new();
        for (position, written) in written.iter().enumerate() {
            if !offload.sums {
                prop_assert_eq!(written.vnet, VnetHdr::default());
            }
            let again = cut(layer, &written.vnet, &written.bytes, Sums::Complete);
            prop_assert_eq!(again.len(), written.indices.len());
            for ((bytes, _), &index) in again.iter().zip(&written.indices) {
                let (packet, sum) = &packets[index];
                let expected = completed(layer, packet, *sum, offload.sums);
                if again.len() == 1 {
                    prop_assert_eq!(bytes, &expected);
                } else {
                    prop_assert_eq!(meaning(layer, bytes), meaning(layer, &expected));
                }
                prop_assert!(seen.insert(index), "{} twice", index);
                order[index] = position;
            }
        }
        prop_assert_eq!(seen.len(), packets.len());
        prop_assert!(written.iter().map(|written| written.indices[0]).is_sorted());
        prop_assert!(written.iter().all(|written| written.indices.is_sorted()));

        let flows: Vec<_> = packets.iter().map(|(packet, _)| flow(layer, packet)).collect();
        for later in 0..packets.len() {
            for earlier in 0..later {
                let (Some(a), Some(b)) = (&flows[earlier], &flows[later]) else { continue };
                let is_same = a.0 == b.0 && (a.1.is_none() || b.1.is_none() || a.1 == b.1);
                prop_assert!(!is_same || order[earlier] <= order[later], "{} overtakes {}", later, earlier);
            }
        }
    }

    #[test]
    fn what_is_cut_is_put_together_again(
        packet in link().prop_flat_map(packet),
        payload in vec(any::<u8>(), 1..4000),
        gso_size in 1_usize..1500,
        flags in prop::sample::select(&[ACK, ACK | PSH, ACK | FIN, ACK | CWR, ACK | CWR | PSH][..]),
        sums in prop::sample::select(&[Sums::Complete, Sums::Partial][..]),
    ) {
        let packet = Packet { payload, flags, ..packet };
        let (vnet, bytes) = packet.build_super(gso_size);
        let expected: Vec<_> = packet.cut(gso_size).iter().map(|packet| packet.build(Sum::Complete)).collect();
        let segments = cut(packet.layer(), &vnet, &bytes, sums);
        let written = coalesce(&mut Coalescer::new(packet.layer(), ALL), &segments, 1);

        let again: Vec<_> = written
            .iter()
            .flat_map(|written| cut(packet.layer(), &written.vnet, &written.bytes, Sums::Complete))
            .map(|(bytes, _)| bytes)
            .collect();
        prop_assert_eq!(again, expected);
        let is_plain = packet.ip_options.is_empty()
            && (packet.udp || matches!(flags, ACK) || flags == ACK | PSH);
        if is_plain {
            prop_assert_eq!(written.len(), segments.len().div_ceil(64));
            if written.len() == 1 && segments.len() > 1 {
                prop_assert_eq!(written[0].vnet, VnetHdr { gso_ecn: false, ..vnet });
                prop_assert_eq!(&written[0].bytes, &bytes);
            }
        }
    }

    #[test]
    fn cutting_is_the_same_as_building_each_packet(
        packet in link().prop_flat_map(packet),
        payload in vec(any::<u8>(), 1..3000),
        gso_size in 1_usize..1500,
        flags: u8,
    ) {
        let packet = Packet { payload, flags, ..packet };
        let (vnet, bytes) = packet.build_super(gso_size);
        for (sums, sum) in [(Sums::Complete, Sum::Complete), (Sums::Partial, Sum::Partial)] {
            let expected: Vec<_> =
                packet.cut(gso_size).iter().map(|packet| (packet.build(sum), sum)).collect();
            prop_assert_eq!(cut(packet.layer(), &vnet, &bytes, sums), expected);
        }
    }

    #[test]
    fn a_flipped_byte_in_a_super_packet_or_its_header_never_panics(
        packet in link().prop_flat_map(packet),
        payload in vec(any::<u8>(), 0..300),
        gso_size in 1_usize..200,
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        len in any::<prop::sample::Index>(),
        is_cut_short: bool,
    ) {
        let packet = Packet { payload, ..packet };
        let (vnet, bytes) = packet.build_super(gso_size);
        let mut all = [&vnet.to_bytes(), &bytes[..]].concat();
        for (at, value) in flips {
            let at = at.index(all.len());
            all[at] = value;
        }
        if is_cut_short {
            all.truncate(10 + len.index(bytes.len()));
        }
        let (vnet, bytes) = all.split_first_chunk().unwrap();
        survive(packet.layer(), vnet, bytes);
    }

    #[test]
    fn random_bytes_never_panic(
        vnet: [u8; VnetHdr::LEN],
        bytes in vec(any::<u8>(), 0..200),
        is_ethernet: bool,
    ) {
        survive(if is_ethernet { Layer::Ethernet } else { Layer::Ip }, &vnet, &bytes);
    }
}

/// Does all that can be done with what came from a device or a peer.
fn survive(layer: Layer, vnet: &[u8; VnetHdr::LEN], bytes: &[u8]) {
    if let Ok(vnet) = VnetHdr::parse(vnet)
        && let Ok(segments) = Segments::of(layer, &vnet, bytes)
    {
        let mut total = 0;
        let mut out = vec![0; bytes.len()];
        for index in 0..segments.count() {
            segments.write(bytes, index, Sums::Complete, &mut out);
            segments.write(bytes, index, Sums::Partial, &mut out);
            total += segments.len(index);
        }
        let headers = match vnet.gso {
            GsoType::None => 0,
            _ => Headers::parse(layer, bytes).unwrap().payload_at,
        };
        assert_eq!(total, bytes.len() + (segments.count() - 1) * headers);
    }
    for sum in [Sum::Complete, Sum::Partial] {
        let twice = [(bytes.to_vec(), sum), (bytes.to_vec(), sum)];
        coalesce(&mut Coalescer::new(layer, ALL), &twice, 1);
    }
}
