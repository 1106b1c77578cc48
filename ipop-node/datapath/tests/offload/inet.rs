//! How headers are found.

use ipop_datapath::inet::{Headers, Layer, Transport, Unreadable, Version};
use ipop_datapath::segment::Sum;

use crate::packets::Packet;

#[test]
fn the_headers_of_every_kind_of_packet_are_found() {
    for tags in [
        None,
        Some(&[][..]),
        Some(&[0x81, 0, 0, 5]),
        Some(&[0x88, 0xa8, 0, 9, 0x81, 0, 0, 5]),
    ] {
        for version in [Version::V4, Version::V6] {
            for udp in [false, true] {
                let packet = Packet {
                    link: tags.map_or_else(Vec::new, |tags| [&[2; 12], tags].concat()),
                    version,
                    udp,
                    tcp_options: vec![1; 12],
                    ip_options: vec![1; 8],
                    ..Packet::default()
                };
                let mut bytes = packet.build(Sum::Complete);
                let end = bytes.len();
                // Padding of the link.
                bytes.extend([0; 3]);
                let headers = Headers::parse(packet.layer(), &bytes).unwrap();
                let expected = Headers {
                    version,
                    transport: if udp { Transport::Udp } else { Transport::Tcp },
                    protocol: if udp { 17 } else { 6 },
                    ip_at: packet.ip_at(),
                    transport_at: packet.transport_at(),
                    payload_at: packet.header_len(),
                    end,
                };
                assert_eq!(headers, expected);
                let addresses = match version {
                    Version::V4 => ["10.200.0.1", "10.200.0.2"],
                    Version::V6 => ["fd12:3400::1", "fd12:3400::2"],
                };
                let [source, destination] = addresses.map(|address| address.parse().ok());
                assert_eq!(headers.source(&bytes), source);
                assert_eq!(headers.destination(&bytes), destination);
            }
        }
    }
}

#[test]
fn a_packet_cut_short_anywhere_is_truncated() {
    for (version, udp) in [(Version::V4, false), (Version::V6, true)] {
        let bytes = Packet {
            version,
            udp,
            ..Packet::default()
        }
        .build(Sum::Complete);
        for len in 0..bytes.len() {
            assert_eq!(
                Headers::parse(Layer::Ip, &bytes[..len]),
                Err(Unreadable::Truncated)
            );
        }
    }
}

#[test]
fn what_is_not_ip_is_said_not_to_be() {
    assert_eq!(
        Headers::parse(Layer::Ip, &[0x50; 40]),
        Err(Unreadable::NotIp)
    );
    let mut arp = vec![0xff; 42];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(
        Headers::parse(Layer::Ethernet, &arp),
        Err(Unreadable::NotIp)
    );
    // A third VLAN tag.
    let tags = [0x81, 0, 0, 1].repeat(3);
    let frame = [
        &[2; 12],
        &tags[..],
        &[8, 0],
        &Packet::default().build(Sum::Complete),
    ]
    .concat();
    assert_eq!(
        Headers::parse(Layer::Ethernet, &frame),
        Err(Unreadable::NotIp)
    );
}

#[test]
fn an_ethertype_of_the_other_version_contradicts_the_packet() {
    let packet = Packet {
        link: vec![2; 12],
        ..Packet::default()
    };
    let mut bytes = packet.build(Sum::Complete);
    bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
    assert_eq!(
        Headers::parse(Layer::Ethernet, &bytes),
        Err(Unreadable::Contradictory)
    );
}

#[test]
fn fragments_have_no_transport_the_first_one_neither() {
    for flags in [0x2000_u16, 1, 0x1fff] {
        let mut bytes = Packet::default().build(Sum::Complete);
        bytes[6..8].copy_from_slice(&flags.to_be_bytes());
        let headers = Headers::parse(Layer::Ip, &bytes).unwrap();
        assert_eq!(headers.transport, Transport::Fragment);
        assert_eq!(headers.payload_at, headers.transport_at);
    }
    let packet = Packet {
        version: Version::V6,
        ip_options: vec![0; 8],
        ..Packet::default()
    };
    let mut bytes = packet.build(Sum::Complete);
    bytes[6] = 44;
    let headers = Headers::parse(Layer::Ip, &bytes).unwrap();
    assert_eq!(
        (headers.transport, headers.transport_at),
        (Transport::Fragment, 40)
    );
}

#[test]
fn a_transport_header_that_does_not_fit_is_broken() {
    let tcp = Packet {
        payload: Vec::new(),
        ..Packet::default()
    };
    for offset in [0, 4, 6, 15] {
        let mut bytes = tcp.build(Sum::Complete);
        bytes[32] = offset << 4;
        assert_eq!(
            Headers::parse(Layer::Ip, &bytes).unwrap().transport,
            Transport::Broken
        );
    }
    let udp = Packet { udp: true, ..tcp };
    for len in [0, 7, 9, 255] {
        let mut bytes = udp.build(Sum::Complete);
        bytes[25] = len;
        assert_eq!(
            Headers::parse(Layer::Ip, &bytes).unwrap().transport,
            Transport::Broken
        );
    }
}

#[test]
fn extension_headers_without_end_are_broken() {
    let packet = Packet {
        version: Version::V6,
        ip_options: vec![0; 8],
        ..Packet::default()
    };
    let mut bytes = packet.build(Sum::Complete);
    bytes[40] = 60;
    bytes[48..].fill(0);
    for at in (48..bytes.len()).step_by(8) {
        bytes[at] = 60;
    }
    assert_eq!(
        Headers::parse(Layer::Ip, &bytes).unwrap().transport,
        Transport::Broken
    );
    // One that ends after the packet.
    bytes[41] = 255;
    assert_eq!(
        Headers::parse(Layer::Ip, &bytes).unwrap().transport,
        Transport::Broken
    );
}
