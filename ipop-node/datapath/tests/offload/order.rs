//! In which order packets come out.

use ipop_datapath::coalesce::Coalescer;
use ipop_datapath::inet::Layer;
use ipop_datapath::segment::Sum;

use crate::coalesce::{groups, groups_with, indices, train};
use crate::packets::{ACK, CWR, FIN, Packet, SYN, URG};
use crate::streams::{ALL, coalesce};

#[test]
fn an_ack_between_the_data_of_its_flow_is_not_overtaken() {
    let (_, mut packets) = train(&Packet::default(), 4);
    let ack = Packet {
        payload: Vec::new(),
        sequence: 1200,
        ..Packet::default()
    };
    packets.insert(2, ack);
    assert_eq!(groups(&packets), [vec![0, 1], vec![2], vec![3, 4]]);
}

#[test]
fn a_retransmission_is_not_overtaken() {
    let (_, mut packets) = train(&Packet::default(), 4);
    packets.insert(2, packets[0].clone());
    assert_eq!(groups(&packets), [vec![0, 1], vec![2], vec![3, 4]]);
}

#[test]
fn a_fragment_between_the_same_addresses_is_not_overtaken() {
    let (_, packets) = train(&Packet::default(), 4);
    let other = train(
        &Packet {
            source: 77,
            ..Packet::default()
        },
        4,
    )
    .1;
    let build = |packet: &Packet| (packet.build(Sum::Complete), Sum::Complete);
    let mut built: Vec<_> = packets
        .iter()
        .zip(&other)
        .flat_map(|(a, b)| [build(a), build(b)])
        .collect();
    let mut fragment = packets[0].build(Sum::Complete);
    fragment[6] = 0x20;
    built.insert(4, (fragment, Sum::Complete));
    let written = coalesce(&mut Coalescer::new(Layer::Ip, ALL), &built, 0);
    assert_eq!(
        indices(written),
        [vec![0, 2], vec![1, 3, 6, 8], vec![4], vec![5, 7]]
    );
}

#[test]
fn interleaved_flows_are_put_together_each_for_itself() {
    let flow = |port| {
        train(
            &Packet {
                ports: (port, 9),
                ..Packet::default()
            },
            4,
        )
        .1
    };
    let flows: Vec<_> = (0..16).map(flow).collect();
    let packets: Vec<_> = (0..64)
        .map(|index| flows[index % 16][index / 16].clone())
        .collect();
    let expected: Vec<_> = (0..16)
        .map(|flow| vec![flow, flow + 16, flow + 32, flow + 48])
        .collect();
    assert_eq!(groups(&packets), expected);
}

#[test]
fn more_flows_than_are_kept_open_lose_nothing() {
    let flow = |port| {
        train(
            &Packet {
                ports: (port, 9),
                ..Packet::default()
            },
            2,
        )
        .1
    };
    let flows: Vec<_> = (0..40).map(flow).collect();
    let packets: Vec<_> = (0..80)
        .map(|index| flows[index % 40][index / 40].clone())
        .collect();
    let mut sent: Vec<_> = groups(&packets).concat();
    sent.sort_unstable();
    assert_eq!(sent, (0..80).collect::<Vec<_>>());
}

#[test]
fn segments_with_more_to_say_stay_alone_and_in_order() {
    for flags in [ACK | FIN, ACK | SYN, ACK | URG, ACK | CWR, ACK | 4, 0] {
        assert_eq!(groups_with(|packet| packet.flags = flags), [[0], [1], [2]]);
    }
}
