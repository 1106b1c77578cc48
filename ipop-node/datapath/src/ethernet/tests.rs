use proptest::prelude::*;

use super::*;

const HOST: Mac = [2, 0, 0, 0, 0, 1];
const OTHER: Mac = [2, 0, 0, 0, 0, 2];

fn frame(destination: Mac, tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [destination, HOST].concat();
    for (tag, control) in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend(control.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

fn class(frame: &[u8]) -> Class {
    classify(&Header::parse(frame).expect("a frame"), frame)
}

fn ipv4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(payload);
    packet
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 255]);
    packet.extend([0xfe; 32]);
    packet.extend(payload);
    packet
}

fn udp_to(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![0x12, 0x34, high, low, 0, 8, 0, 0]
}

#[test]
fn a_header_is_read_with_its_tags_and_the_outermost_one_tells_the_vlan() {
    let cases = [
        (vec![], 0, 14),
        (vec![(0x8100, 0x6005)], 5, 18),
        (vec![(0x8100, 0xe000)], 0, 18),
        (vec![(0x88a8, 0x0064), (0x8100, 5)], 100, 22),
        (vec![(0x9100, 0x0fff), (0x8100, 5)], 0xfff, 22),
    ];
    for (tags, vlan, payload_at) in cases {
        let bytes = frame(OTHER, &tags, 0x1234, &[7]);
        let header = Header::parse(&bytes).expect("whole");
        assert_eq!((header.vlan, header.payload_at), (vlan, payload_at));
        assert_eq!(header.ethertype, 0x1234);
        assert_eq!(header.sender(), Station { vlan, mac: HOST });
        assert_eq!(header.receiver(), Some(Station { vlan, mac: OTHER }));
        for len in 0..payload_at {
            assert_eq!(Header::parse(&bytes[..len]), Err(BadFrame::Truncated));
        }
    }
    let three = frame(OTHER, &[(0x8100, 1), (0x8100, 2), (0x8100, 3)], 0x800, &[]);
    assert_eq!(Header::parse(&three), Err(BadFrame::TooManyTags));
}

#[test]
fn a_frame_from_a_group_or_from_nobody_is_none() {
    for source in [BROADCAST, [0; 6], PROBE_GROUP, [0x33, 0x33, 0, 0, 0, 1]] {
        let mut bytes = frame(OTHER, &[], 0x800, &[]);
        bytes[6..12].copy_from_slice(&source);
        assert_eq!(Header::parse(&bytes), Err(BadFrame::BadSource));
    }
}

#[test]
fn what_is_addressed_to_bridges_is_not_forwarded_whatever_it_carries() {
    for last in 0..=0x1f {
        let bytes = frame([1, 0x80, 0xc2, 0, 0, last], &[], ETHERTYPE_ARP, &[0; 28]);
        assert_eq!(class(&bytes) == Class::Reserved, last < 0x10, "{last}");
    }
}

#[test]
fn frames_are_told_apart_by_whom_they_are_for() {
    let other = ipv4(TCP, 0, &[0; 20]);
    assert_eq!(class(&frame(OTHER, &[], 0x800, &other)), Class::Unicast);
    assert_eq!(
        class(&frame(BROADCAST, &[(0x8100, 7)], 0x1234, &[])),
        Class::Broadcast
    );
    let group = [1, 0, 0x5e, 1, 2, 3];
    assert_eq!(class(&frame(group, &[], 0x800, &other)), Class::Multicast);
    assert_eq!(
        class(&frame(PROBE_GROUP, &[], ETHERTYPE_PROBE, &[])),
        Class::Probe
    );
    assert_eq!(
        class(&frame(OTHER, &[], ETHERTYPE_PROBE, &[])),
        Class::Unicast
    );
}

#[test]
fn protocols_that_the_switch_takes_part_in_are_found_in_frames_for_stations_too() {
    use Discovery::*;
    let udp4 = |port| ipv4(UDP, 0x4000, &udp_to(port));
    let udp6 = |port| ipv6(UDP, &udp_to(port));
    let icmp = |kind| ipv6(ICMPV6, &[kind, 0, 0, 0]);
    let router_alert = |kind| ipv6(0, &[ICMPV6, 0, 5, 2, 0, 0, 1, 0, kind, 0, 0, 0]);
    let cases = [
        (ETHERTYPE_ARP, vec![0; 28], Class::Arp),
        (0x800, udp4(67), Class::DhcpRequest),
        (0x800, udp4(68), Class::DhcpReply),
        (0x800, udp4(53), Class::Unicast),
        (0x86dd, udp6(547), Class::Dhcpv6Request),
        (0x86dd, udp6(546), Class::Dhcpv6Reply),
        (0x86dd, udp6(68), Class::Unicast),
        (0x800, ipv4(IGMP, 0, &[0x11; 8]), Class::Igmp),
        (0x86dd, router_alert(130), Class::Mld),
        (0x86dd, router_alert(143), Class::Mld),
        (0x86dd, icmp(128), Class::Unicast),
        (
            0x86dd,
            icmp(133),
            Class::NeighbourDiscovery(RouterSolicitation),
        ),
        (
            0x86dd,
            icmp(134),
            Class::NeighbourDiscovery(RouterAdvertisement),
        ),
        (
            0x86dd,
            icmp(135),
            Class::NeighbourDiscovery(NeighbourSolicitation),
        ),
        (
            0x86dd,
            icmp(136),
            Class::NeighbourDiscovery(NeighbourAdvertisement),
        ),
        (0x86dd, icmp(137), Class::NeighbourDiscovery(Redirect)),
    ];
    for (ethertype, payload, expected) in cases {
        for tags in [vec![], vec![(0x88a8, 9), (0x8100, 8)]] {
            assert_eq!(class(&frame(OTHER, &tags, ethertype, &payload)), expected);
        }
    }
}

#[test]
fn nothing_hides_in_fragments_or_behind_extension_headers() {
    let first = |next, inside: &[u8]| ipv6(44, &[&[next, 0, 0, 1, 0, 0, 0, 9], inside].concat());
    let cases = [
        (0x800, ipv4(UDP, 0x2000, &udp_to(68)), Class::DhcpReply),
        (0x800, ipv4(UDP, 0x2001, &udp_to(68)), Class::Unicast),
        (0x800, ipv4(UDP, 0x2000, &[1, 2]), Class::Unicast),
        (0x86dd, first(UDP, &udp_to(546)), Class::Dhcpv6Reply),
        (
            0x86dd,
            first(ICMPV6, &[134, 0, 0, 0]),
            Class::NeighbourDiscovery(Discovery::RouterAdvertisement),
        ),
        (0x86dd, first(TCP, &[0; 20]), Class::Unicast),
        (
            0x86dd,
            first(60, &[ICMPV6, 0, 0, 0, 0, 0, 0, 0]),
            Class::Hidden,
        ),
        (0x86dd, ipv6(44, &[58, 0]), Class::Hidden),
        // A later fragment.
        (0x86dd, ipv6(44, &[60, 0, 0, 9, 0, 0, 0, 9]), Class::Unicast),
        (0x86dd, ipv6(60, &[58, 9, 0, 0]), Class::Hidden),
        (
            0x86dd,
            ipv6(60, &[60, 0, 0, 0, 0, 0, 0, 0].repeat(9)),
            Class::Hidden,
        ),
        (0x86dd, ipv6(TCP, &[0; 3]), Class::Unicast),
    ];
    for (at, (ethertype, payload, expected)) in cases.into_iter().enumerate() {
        let found = class(&frame(OTHER, &[], ethertype, &payload));
        assert_eq!(found, expected, "case {at}");
    }
}

#[test]
fn nothing_hides_behind_a_length_in_place_of_an_ethertype() {
    let snap =
        |organisation: [u8; 3]| [&[0xaa, 0xaa, 3][..], &organisation, &[8, 0, 0x45]].concat();
    let cases = [
        (60, snap([0, 0, 0]), Class::Hidden),
        // Whatever it says of the length.
        (0, snap([0, 0, 0xf8]), Class::Hidden),
        (0x5ff, snap([0, 0, 0]), Class::Hidden),
        (0x600, snap([0, 0, 0]), Class::Unicast),
        // Not IP, and no LLC of that kind.
        (60, snap([0, 0, 0x0c]), Class::Unicast),
        (60, vec![0x42, 0x42, 3], Class::Unicast),
        (60, vec![0xaa, 0xaa, 3], Class::Unicast),
    ];
    for (length, payload, expected) in cases {
        for tags in [vec![], vec![(0x8100, 0)]] {
            let found = class(&frame(OTHER, &tags, length, &payload));
            assert_eq!(found, expected, "{length} {payload:x?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_bytes_make_it_panic_and_what_is_cut_off_never_becomes_unicast_to_a_group(
        ethertype in prop_oneof![
            Just(0x0800_u16), Just(0x86dd), Just(0x0806), Just(0x8100), Just(0x88b5), any::<u16>()
        ],
        start in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
        next in prop_oneof![Just(0_u8), Just(2), Just(17), Just(44), Just(58), Just(60), any::<u8>()],
        mut bytes in proptest::collection::vec(any::<u8>(), 14..120),
        len in 0_usize..120,
    ) {
        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        if let Some(first) = bytes.get_mut(14) {
            *first = start;
        }
        for at in [20, 23] {
            if let Some(protocol) = bytes.get_mut(at) {
                *protocol = next;
            }
        }
        let cut = &bytes[..len.min(bytes.len())];
        for frame in [&bytes[..], cut] {
            if let Ok(header) = Header::parse(frame) {
                prop_assert!(header.payload_at <= frame.len());
                prop_assert!(is_station(header.source));
                let class = classify(&header, frame);
                if class == Class::Unicast {
                    prop_assert!(header.receiver().is_some());
                }
                if matches!(class, Class::Broadcast | Class::Multicast | Class::Reserved) {
                    prop_assert!(header.receiver().is_none());
                }
            }
        }
    }
}
