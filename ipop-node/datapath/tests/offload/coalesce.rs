//! What is put together and what is not.

use ipop_datapath::coalesce::{Coalescer, Offload};
use ipop_datapath::inet::{Layer, Version};
use ipop_datapath::segment::Sum;
use ipop_datapath::vnet::{GsoType, VnetHdr};

use crate::packets::{ACK, ECE, PSH, Packet, be16, plain_sum, put16};
use crate::streams::{ALL, Written, coalesce};

/// The super-packet of `count` packets like `packet`, and those packets.
pub fn train(packet: &Packet, count: usize) -> (Packet, Vec<Packet>) {
    let len = packet.payload.len();
    let whole = Packet {
        payload: packet.payload.repeat(count),
        ..packet.clone()
    };
    let packets = whole.cut(len);
    (whole, packets)
}

fn written(offload: Offload, packets: &[Packet], sum: Sum) -> Vec<Written> {
    let built: Vec<_> = packets
        .iter()
        .map(|packet| (packet.build(sum), sum))
        .collect();
    coalesce(&mut Coalescer::new(packets[0].layer(), offload), &built, 5)
}

/// Which packets were put together.
pub fn groups(packets: &[Packet]) -> Vec<Vec<usize>> {
    let complete = indices(written(ALL, packets, Sum::Complete));
    assert_eq!(complete, indices(written(ALL, packets, Sum::Partial)));
    complete
}

pub fn indices(written: Vec<Written>) -> Vec<Vec<usize>> {
    written.into_iter().map(|written| written.indices).collect()
}

/// Which of three packets are put together when the second is changed.
pub fn groups_with(change: impl FnOnce(&mut Packet)) -> Vec<Vec<usize>> {
    let (_, mut packets) = train(&Packet::default(), 3);
    change(&mut packets[1]);
    groups(&packets)
}

#[test]
fn packets_of_one_flow_become_the_super_packet_they_are_cut_from() {
    for version in [Version::V4, Version::V6] {
        for udp in [false, true] {
            for link in [vec![], vec![2; 12]] {
                let packet = Packet {
                    version,
                    udp,
                    link,
                    ..Packet::default()
                };
                let (whole, packets) = train(&packet, 10);
                let (vnet, bytes) = whole.build_super(100);
                for sum in [Sum::Complete, Sum::Partial] {
                    let written = written(ALL, &packets, sum);
                    assert_eq!(written.len(), 1);
                    assert_eq!(written[0].vnet, vnet);
                    assert_eq!(written[0].bytes, bytes);
                }
            }
        }
    }
}

#[test]
fn a_lone_packet_goes_as_it_came() {
    let packet = Packet::default();
    let complete = written(ALL, std::slice::from_ref(&packet), Sum::Complete);
    assert_eq!(complete[0].vnet, VnetHdr::default());
    assert_eq!(complete[0].bytes, packet.build(Sum::Complete));

    let partial = written(ALL, std::slice::from_ref(&packet), Sum::Partial);
    let expected = VnetHdr {
        needs_csum: true,
        csum_start: 20,
        csum_offset: 16,
        ..VnetHdr::default()
    };
    assert_eq!(partial[0].vnet, expected);
    assert_eq!(partial[0].bytes, packet.build(Sum::Partial));
}

#[test]
fn a_device_without_sums_gets_lone_packets_with_their_checksum() {
    for udp in [false, true] {
        let (_, packets) = train(
            &Packet {
                udp,
                ..Packet::default()
            },
            3,
        );
        let offload = Offload { sums: false, ..ALL };
        let written = written(offload, &packets, Sum::Partial);
        for (written, packet) in written.iter().zip(&packets) {
            assert_eq!(written.vnet, VnetHdr::default());
            assert_eq!(written.bytes, packet.build(Sum::Complete));
        }
        assert_eq!(indices(written), [[0], [1], [2]]);
    }
}

#[test]
fn only_what_the_device_takes_is_put_together() {
    for udp in [false, true] {
        let (_, packets) = train(
            &Packet {
                udp,
                ..Packet::default()
            },
            2,
        );
        let count = |offload| written(offload, &packets, Sum::Complete).len();
        assert_eq!(
            count(Offload {
                tcp: false,
                udp: true,
                sums: true
            }),
            if udp { 1 } else { 2 }
        );
        assert_eq!(
            count(Offload {
                tcp: true,
                udp: false,
                sums: true
            }),
            if udp { 2 } else { 1 }
        );
    }
}

#[test]
fn a_shorter_packet_is_the_last_of_its_group() {
    let whole = Packet {
        payload: vec![3; 250],
        ..Packet::default()
    };
    let mut packets = whole.cut(100);
    packets.push(Packet {
        sequence: 1250,
        identification: 103,
        ..Packet::default()
    });
    assert_eq!(groups(&packets), [vec![0, 1, 2], vec![3]]);
}

#[test]
fn a_longer_packet_starts_a_group() {
    let mut packets = Packet {
        payload: vec![3; 100],
        ..Packet::default()
    }
    .cut(100);
    packets.extend(
        Packet {
            sequence: 1100,
            identification: 101,
            payload: vec![3; 250],
            ..Packet::default()
        }
        .cut(101),
    );
    assert_eq!(groups(&packets), [vec![0], vec![1, 2, 3]]);
}

#[test]
fn psh_ends_a_group_and_is_kept() {
    let (_, mut packets) = train(&Packet::default(), 4);
    packets[1].flags |= PSH;
    let written = written(ALL, &packets, Sum::Complete);
    assert_eq!(written[0].bytes[33], ACK | PSH);
    assert_eq!(written[1].bytes[33], ACK);
    assert_eq!(indices(written), [[0, 1], [2, 3]]);
}

#[test]
fn a_change_in_a_header_starts_a_group() {
    let changes: [fn(&mut Packet); 10] = [
        |packet| packet.flags |= ECE,
        // ECN, and DSCP.
        |packet| packet.tos ^= 1,
        |packet| packet.tos ^= 4,
        |packet| packet.ttl -= 1,
        |packet| packet.dont_fragment = false,
        |packet| packet.acknowledgement += 1,
        |packet| packet.window += 1,
        |packet| packet.urgent += 1,
        |packet| packet.tcp_options = vec![1; 4],
        |packet| packet.sequence += 1,
    ];
    for change in changes {
        assert_eq!(groups_with(change), [[0], [1], [2]]);
    }
    let changes: [fn(&mut Packet); 4] = [
        |packet| packet.flow_label += 1,
        |packet| packet.tos ^= 1,
        |packet| packet.tos ^= 4,
        |packet| packet.ttl -= 1,
    ];
    for change in changes {
        let packet = Packet {
            version: Version::V6,
            ..Packet::default()
        };
        let (_, mut packets) = train(&packet, 3);
        change(&mut packets[1]);
        assert_eq!(groups(&packets), [[0], [1], [2]]);
    }
}

#[test]
fn a_wrong_checksum_is_handed_on_as_it_is() {
    for (version, udp) in [
        (Version::V4, false),
        (Version::V6, false),
        (Version::V4, true),
    ] {
        for corrupted in 0..3 {
            let (_, packets) = train(
                &Packet {
                    version,
                    udp,
                    ..Packet::default()
                },
                3,
            );
            let mut built: Vec<_> = packets
                .iter()
                .map(|packet| (packet.build(Sum::Complete), Sum::Complete))
                .collect();
            *built[corrupted].0.last_mut().unwrap() ^= 1;
            let written = coalesce(&mut Coalescer::new(Layer::Ip, ALL), &built, 0);
            let alone = written
                .iter()
                .find(|written| written.indices == [corrupted])
                .unwrap();
            assert_eq!(alone.bytes, built[corrupted].0);
            assert_eq!(alone.vnet, VnetHdr::default());
        }
    }
}

#[test]
fn a_wrong_ipv4_header_checksum_is_handed_on_as_it_is() {
    let (_, packets) = train(&Packet::default(), 2);
    let mut built: Vec<_> = packets
        .iter()
        .map(|packet| (packet.build(Sum::Partial), Sum::Partial))
        .collect();
    built[1].0[10] ^= 1;
    let written = coalesce(&mut Coalescer::new(Layer::Ip, ALL), &built, 0);
    assert_eq!(written[1].bytes, built[1].0);
}

#[test]
fn a_udp_datagram_without_checksum_keeps_it_that_way() {
    let (_, packets) = train(
        &Packet {
            udp: true,
            ..Packet::default()
        },
        2,
    );
    let build = |packet: &Packet| {
        let mut bytes = packet.build(Sum::Complete);
        bytes[26..28].fill(0);
        (bytes, Sum::Complete)
    };
    let built: Vec<_> = packets.iter().map(build).collect();
    let written = coalesce(&mut Coalescer::new(Layer::Ip, ALL), &built, 0);
    assert_eq!(written.len(), 2);
    assert_eq!(written[0].bytes, built[0].0);
}

#[test]
fn an_identification_out_of_turn_matters_only_without_df() {
    for dont_fragment in [false, true] {
        let (_, mut packets) = train(
            &Packet {
                dont_fragment,
                ..Packet::default()
            },
            2,
        );
        packets[1].identification = 7;
        assert_eq!(groups(&packets).len(), if dont_fragment { 1 } else { 2 });
    }
}

#[test]
fn ip_options_and_padding_keep_a_packet_alone() {
    let (_, packets) = train(
        &Packet {
            ip_options: vec![1; 4],
            ..Packet::default()
        },
        2,
    );
    assert_eq!(groups(&packets), [[0], [1]]);
    let (_, packets) = train(&Packet::default(), 2);
    let build = |packet: &Packet| {
        (
            [packet.build(Sum::Complete), vec![0]].concat(),
            Sum::Complete,
        )
    };
    let built: Vec<_> = packets.iter().map(build).collect();
    assert_eq!(
        coalesce(&mut Coalescer::new(Layer::Ip, ALL), &built, 0).len(),
        2
    );
}

#[test]
fn a_group_has_no_more_than_64_packets_and_64_kib() {
    let (_, packets) = train(
        &Packet {
            payload: vec![1],
            ..Packet::default()
        },
        130,
    );
    let sizes: Vec<_> = groups(&packets).iter().map(Vec::len).collect();
    assert_eq!(sizes, [64, 64, 2]);
    // 46 * 1400 + 40 is below 65,536, 47 * 1400 is not.
    let sequence = |index: usize| 1000 + 1400 * index as u32;
    let packets: Vec<_> = (0..50)
        .map(|index| Packet {
            sequence: sequence(index),
            payload: vec![1; 1400],
            ..Packet::default()
        })
        .collect();
    let sizes: Vec<_> = groups(&packets).iter().map(Vec::len).collect();
    assert_eq!(sizes, [46, 4]);
}

#[test]
fn a_partial_sum_that_is_none_is_handed_on_as_it_is() {
    let (_, packets) = train(&Packet::default(), 2);
    let built: Vec<_> = packets
        .iter()
        .map(|packet| (packet.build(Sum::Complete), Sum::Partial))
        .collect();
    let written = coalesce(&mut Coalescer::new(Layer::Ip, ALL), &built, 0);
    assert_eq!(written.len(), 2);
    assert!(written[0].vnet.needs_csum);
    assert_eq!(written[0].vnet.gso, GsoType::None);
    assert_eq!(written[0].bytes, built[0].0);
}

#[test]
fn a_partial_sum_where_none_can_be_is_of_no_effect() {
    for bytes in [vec![], vec![0xff; 30], vec![0x45; 60]] {
        let built = [(bytes.clone(), Sum::Partial)];
        let written = coalesce(&mut Coalescer::new(Layer::Ip, ALL), &built, 0);
        assert_eq!(written[0].vnet, VnetHdr::default());
        assert_eq!(written[0].bytes, bytes);
    }
}

#[test]
fn a_batch_leaves_nothing_behind_for_the_next() {
    let (_, packets) = train(&Packet::default(), 2);
    let built: Vec<_> = packets
        .iter()
        .map(|packet| (packet.build(Sum::Complete), Sum::Complete))
        .collect();
    let mut coalescer = Coalescer::new(Layer::Ip, ALL);
    assert_eq!(coalesce(&mut coalescer, &built[..1], 0).len(), 1);
    assert_eq!(coalesce(&mut coalescer, &built[1..], 0).len(), 1);
    assert_eq!(coalesce(&mut coalescer, &built, 0).len(), 1);
    assert_eq!(coalesce(&mut coalescer, &[], 0).len(), 0);
}

#[test]
fn a_zero_written_the_other_way_is_handed_on_as_it_is() {
    for udp in [false, true] {
        // The last two bytes make the checksum of each packet zero.
        let mut packets = train(
            &Packet {
                udp,
                payload: vec![0; 100],
                ..Packet::default()
            },
            2,
        )
        .1;
        for packet in &mut packets {
            let sum = !plain_sum(&packet.build(Sum::Partial)[20..]);
            packet.payload[98..].copy_from_slice(&sum.to_be_bytes());
        }
        let (usual, other) = if udp { (0xffff, 0) } else { (0, 0xffff) };
        let mut built: Vec<_> = packets
            .iter()
            .map(|packet| (packet.build(Sum::Complete), Sum::Complete))
            .collect();
        let at = packets[1].checksum_at();
        assert_eq!(be16(&built[1].0, at), usual);
        assert_eq!(
            coalesce(&mut Coalescer::new(Layer::Ip, ALL), &built, 0).len(),
            1
        );
        put16(&mut built[1].0, at, other);
        let written = coalesce(&mut Coalescer::new(Layer::Ip, ALL), &built, 0);
        assert_eq!(written.len(), 2);
        assert_eq!(written[1].bytes, built[1].0);
    }
}
