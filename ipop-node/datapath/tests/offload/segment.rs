//! How super-packets are cut.

use ipop_datapath::inet::{Layer, Version};
use ipop_datapath::segment::{Malformed, Segments, Sum, Sums};
use ipop_datapath::vnet::{GsoType, Invalid, VnetHdr};

use crate::packets::{ACK, CWR, ECE, FIN, PSH, Packet, plain_sum};

/// What `vnet` and `packet` are cut into.
pub fn cut(layer: Layer, vnet: &VnetHdr, packet: &[u8], sums: Sums) -> Vec<(Vec<u8>, Sum)> {
    let segments = Segments::of(layer, vnet, packet).unwrap();
    let write = |index| {
        let mut out = vec![0xee; segments.len(index)];
        let sum = segments.write(packet, index, sums, &mut out);
        (out, sum)
    };
    (0..segments.count()).map(write).collect()
}

fn assert_cut_like_the_plain_way(packet: &Packet, gso_size: usize) {
    let (vnet, bytes) = packet.build_super(gso_size);
    for (sums, sum) in [
        (Sums::Complete, Sum::Complete),
        (Sums::Partial, Sum::Partial),
    ] {
        let expected: Vec<_> = packet
            .cut(gso_size)
            .iter()
            .map(|packet| (packet.build(sum), sum))
            .collect();
        assert_eq!(
            cut(packet.layer(), &vnet, &bytes, sums),
            expected,
            "{packet:?}"
        );
    }
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 % 251) as u8).collect()
}

fn of(vnet: &VnetHdr, bytes: &[u8]) -> Result<usize, Malformed> {
    Segments::of(Layer::Ip, vnet, bytes).map(|segments| segments.count())
}

#[test]
fn a_tcp_super_packet_becomes_the_segments_of_its_payload() {
    for version in [Version::V4, Version::V6] {
        for len in [1401, 2800, 4000, 60_000] {
            let packet = Packet {
                version,
                identification: 0xfffe,
                sequence: u32::MAX - 2000,
                tcp_options: vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
                payload: payload(len),
                ..Packet::default()
            };
            assert_cut_like_the_plain_way(&packet, 1400);
        }
    }
}

#[test]
fn fin_and_psh_stay_for_the_last_segment_and_cwr_for_the_first() {
    let packet = Packet {
        flags: ACK | FIN | PSH | CWR | ECE,
        payload: payload(250),
        ..Packet::default()
    };
    assert_cut_like_the_plain_way(&packet, 100);
    let (vnet, bytes) = packet.build_super(100);
    let flags: Vec<u8> = cut(Layer::Ip, &vnet, &bytes, Sums::Complete)
        .iter()
        .map(|(out, _)| out[33])
        .collect();
    assert_eq!(flags, [ACK | CWR | ECE, ACK | ECE, ACK | ECE | FIN | PSH]);
}

#[test]
fn a_udp_super_packet_becomes_datagrams() {
    for version in [Version::V4, Version::V6] {
        let packet = Packet {
            version,
            udp: true,
            payload: payload(3500),
            ..Packet::default()
        };
        assert_cut_like_the_plain_way(&packet, 1200);
    }
}

#[test]
fn a_udp_checksum_of_zero_is_written_as_all_ones() {
    let mut packet = Packet {
        udp: true,
        payload: vec![0; 4],
        ..Packet::default()
    };
    let checksum = !plain_sum(&packet.build(Sum::Partial)[20..]);
    packet.payload[2..].copy_from_slice(&checksum.to_be_bytes());
    // Twice the same payload: in a super-packet and alone.
    let single = packet.build(Sum::Partial);
    packet.payload.extend_from_within(..);
    let (vnet, bytes) = packet.build_super(4);
    for (out, _) in cut(Layer::Ip, &vnet, &bytes, Sums::Complete) {
        assert_eq!(out[26..28], [0xff, 0xff]);
    }
    let vnet = VnetHdr {
        gso: GsoType::None,
        ..vnet
    };
    assert_eq!(
        cut(Layer::Ip, &vnet, &single, Sums::Complete)[0].0[26..28],
        [0xff, 0xff]
    );
}

#[test]
fn frames_keep_their_ethernet_header_and_vlan_tags() {
    for tags in [
        &[][..],
        &[0x81, 0, 0, 5],
        &[0x88, 0xa8, 0, 9, 0x81, 0, 0, 5],
    ] {
        let packet = Packet {
            link: [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], tags].concat(),
            payload: payload(999),
            ..Packet::default()
        };
        assert_cut_like_the_plain_way(&packet, 100);
        let packet = Packet {
            version: Version::V6,
            udp: true,
            ..packet
        };
        assert_cut_like_the_plain_way(&packet, 100);
    }
}

#[test]
fn options_and_extension_headers_are_copied_to_every_segment() {
    let packet = Packet {
        ip_options: vec![1; 8],
        payload: payload(300),
        ..Packet::default()
    };
    assert_cut_like_the_plain_way(&packet, 100);
    let ip_options = vec![0, 0, 1, 4, 0, 0, 0, 0];
    let packet = Packet {
        version: Version::V6,
        ip_options,
        ..packet
    };
    assert_cut_like_the_plain_way(&packet, 100);
    assert_cut_like_the_plain_way(
        &Packet {
            udp: true,
            ..packet
        },
        100,
    );
}

#[test]
fn a_payload_of_one_segment_is_one() {
    for len in [0, 1, 100] {
        let packet = Packet {
            flags: ACK | FIN,
            payload: payload(len),
            ..Packet::default()
        };
        let (vnet, bytes) = packet.build_super(100);
        assert_eq!(
            cut(Layer::Ip, &vnet, &bytes, Sums::Complete),
            [(packet.build(Sum::Complete), Sum::Complete)]
        );
    }
}

#[test]
fn a_stream_is_cut_to_the_room_there_is_and_a_datagram_is_not() {
    for version in [Version::V4, Version::V6] {
        let packet = Packet {
            version,
            identification: 0xfffe,
            sequence: u32::MAX - 2000,
            flags: ACK | PSH | FIN | CWR,
            payload: payload(4000),
            ..Packet::default()
        };
        let (vnet, bytes) = packet.build_super(1400);
        let segments = Segments::of(packet.layer(), &vnet, &bytes).unwrap();
        let header_len = bytes.len() - 4000;
        for (room, gso_size) in [
            (header_len + 1400, 1400),
            (header_len + 1399, 1399),
            (header_len + 333, 333),
            // Room for headers alone: whoever asks has to divide the packets themselves.
            (header_len, 1400),
        ] {
            let smaller = segments.within(room);
            let written: Vec<_> = (0..smaller.count())
                .map(|index| {
                    let mut out = vec![0xee; smaller.len(index)];
                    smaller.write(&bytes, index, Sums::Complete, &mut out);
                    out
                })
                .collect();
            let expected = packet.cut(gso_size);
            let expected: Vec<_> = expected.iter().map(|p| p.build(Sum::Complete)).collect();
            assert_eq!(written, expected, "{version:?} {room}");
        }
    }
    let datagrams = Packet {
        udp: true,
        payload: payload(4000),
        ..Packet::default()
    };
    let (vnet, bytes) = datagrams.build_super(1400);
    let segments = Segments::of(datagrams.layer(), &vnet, &bytes).unwrap();
    assert_eq!(segments.within(500).segment_len(), segments.segment_len());
}

#[test]
fn the_lengths_told_are_those_written() {
    let (vnet, bytes) = Packet {
        payload: payload(250),
        ..Packet::default()
    }
    .build_super(100);
    let segments = Segments::of(Layer::Ip, &vnet, &bytes).unwrap();
    assert_eq!(
        (
            segments.count(),
            segments.segment_len(),
            segments.last_len()
        ),
        (3, 140, 90)
    );
    assert_eq!([0, 1, 2].map(|index| segments.len(index)), [140, 140, 90]);
}

#[test]
fn a_packet_with_nothing_to_do_is_copied_whatever_it_is() {
    for bytes in [&[][..], &[0xff; 3], &Packet::default().build(Sum::Complete)] {
        assert_eq!(
            cut(Layer::Ip, &VnetHdr::default(), bytes, Sums::Partial),
            [(bytes.to_vec(), Sum::Complete)]
        );
    }
}

#[test]
fn a_lone_packet_gets_the_checksum_it_lacks_or_stays_partial() {
    for udp in [false, true] {
        let packet = Packet {
            udp,
            ..Packet::default()
        };
        let vnet = VnetHdr {
            gso: GsoType::None,
            ..packet.build_super(1).0
        };
        let bytes = packet.build(Sum::Partial);
        assert_eq!(
            cut(Layer::Ip, &vnet, &bytes, Sums::Complete),
            [(packet.build(Sum::Complete), Sum::Complete)]
        );
        assert_eq!(
            cut(Layer::Ip, &vnet, &bytes, Sums::Partial),
            [(bytes, Sum::Partial)]
        );
    }
}

#[test]
fn a_checksum_that_the_receiver_would_not_find_is_never_left_partial() {
    // Of a protocol inside a tunnel, say.
    let mut bytes = Packet::default().build(Sum::Partial);
    bytes[9] = 47;
    let vnet = VnetHdr {
        needs_csum: true,
        csum_start: 30,
        csum_offset: 6,
        ..VnetHdr::default()
    };
    let expected = !plain_sum(&bytes[30..]);
    let segments = cut(Layer::Ip, &vnet, &bytes, Sums::Partial);
    assert_eq!(segments[0].1, Sum::Complete);
    assert_eq!(segments[0].0[36..38], expected.to_be_bytes());
}

#[test]
fn a_super_packet_that_contradicts_its_header_is_refused_with_the_reason() {
    let packet = Packet {
        payload: payload(300),
        ..Packet::default()
    };
    let (vnet, bytes) = packet.build_super(100);
    let refused = |vnet: VnetHdr| of(&vnet, &bytes).unwrap_err();
    assert_eq!(
        refused(VnetHdr {
            gso_size: 0,
            ..vnet
        }),
        Malformed::GsoSize
    );
    assert_eq!(
        refused(VnetHdr {
            gso: GsoType::TcpV6,
            ..vnet
        }),
        Malformed::GsoType
    );
    assert_eq!(
        refused(VnetHdr {
            gso: GsoType::UdpL4,
            ..vnet
        }),
        Malformed::GsoType
    );
    assert_eq!(
        refused(VnetHdr {
            needs_csum: false,
            ..vnet
        }),
        Malformed::Checksum
    );
    assert_eq!(
        refused(VnetHdr {
            csum_start: 24,
            ..vnet
        }),
        Malformed::Checksum
    );
    assert_eq!(
        refused(VnetHdr {
            csum_offset: 6,
            ..vnet
        }),
        Malformed::Checksum
    );
    assert_eq!(
        refused(VnetHdr {
            hdr_len: 400,
            ..vnet
        }),
        Malformed::Vnet(Invalid::HdrLen(400))
    );
    // Linux gives the length of the part that is in one piece, be it too long or too short.
    assert_eq!(
        of(
            &VnetHdr {
                hdr_len: 340,
                ..vnet
            },
            &bytes
        ),
        Ok(3)
    );
    assert_eq!(of(&VnetHdr { hdr_len: 0, ..vnet }, &bytes), Ok(3));
}

#[test]
fn a_super_packet_with_a_wrong_length_inside_is_refused() {
    let packet = Packet {
        payload: payload(300),
        ..Packet::default()
    };
    let (vnet, mut bytes) = packet.build_super(100);
    bytes.push(0);
    assert_eq!(of(&vnet, &bytes), Err(Malformed::Length));
    let (vnet, mut bytes) = Packet {
        udp: true,
        ..packet
    }
    .build_super(100);
    bytes[25] -= 1;
    assert_eq!(of(&vnet, &bytes), Err(Malformed::Length));
}
