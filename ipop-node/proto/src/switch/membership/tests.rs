use std::net::{Ipv4Addr, Ipv6Addr};

use ipop_datapath::stations::Mac;
use proptest::prelude::*;

use super::*;

/// A frame with an IGMP message whose checksum is put right.
pub fn igmp(from: Mac, source: [u8; 4], message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let checksum = !sum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = [[1, 0, 0x5e, 0, 0, 22], from].concat();
    // With the option Router Alert (RFC 2113).
    frame.extend([8, 0, 0x46, 0]);
    frame.extend((24 + message.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0, 0, 1, IGMP, 0, 0]);
    frame.extend(source);
    frame.extend([224, 0, 0, 22, 0x94, 4, 0, 0]);
    frame.extend(message);
    frame
}

fn mld(message: &[u8]) -> Vec<u8> {
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).octets();
    let destination = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16).octets();
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let pseudo = pseudo_v6(source, destination, ICMPV6, message.len() as u32);
    let checksum = !combine(pseudo, sum(&message));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = vec![0x33, 0x33, 0, 0, 0, 0x16, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((8 + message.len() as u16).to_be_bytes());
    frame.extend([0, 1]);
    frame.extend(source);
    frame.extend(destination);
    frame.extend([ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
    frame.extend(message);
    frame
}

fn read4(message: &[u8]) -> Option<Membership> {
    Membership::read(&igmp([2; 6], [10, 0, 0, 1], message))
}

fn report(group: impl Into<IpAddr>, is_wanted: bool) -> Option<Membership> {
    let group = group.into();
    Some(Membership::Report(vec![Record { group, is_wanted }]))
}

const GROUP4: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 7);

#[test]
fn reports_and_leaves_of_every_version_are_read() {
    for (kind, is_wanted) in [(0x12, true), (0x16, true), (0x17, false)] {
        let read = read4(&[kind, 0, 0, 0, 239, 1, 2, 3]);
        assert_eq!(read, report(GROUP4, is_wanted));
    }
    for (kind, is_wanted) in [(131, true), (132, false)] {
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &GROUP6.octets()].concat();
        assert_eq!(Membership::read(&mld(&message)), report(GROUP6, is_wanted));
    }
    let records = [
        (1, 0, Some(false)),
        (1, 2, Some(true)),
        (2, 0, Some(true)),
        (3, 0, Some(false)),
        (4, 1, Some(true)),
        (5, 1, Some(true)),
        (6, 1, None),
        (9, 1, None),
    ];
    for (kind, sources, is_wanted) in records {
        let expected = |group: IpAddr| match is_wanted {
            Some(is_wanted) => report(group, is_wanted),
            None => Some(Membership::Report(Vec::new())),
        };
        let mut message = vec![0x22, 0, 0, 0, 0, 0, 0, 1, kind, 1, 0, sources, 239, 1, 2, 3];
        message.extend(vec![9; usize::from(sources) * 4 + 4]);
        assert_eq!(read4(&message), expected(GROUP4.into()), "{kind}");
        let mut message = vec![143, 0, 0, 0, 0, 0, 0, 1, kind, 1, 0, sources];
        message.extend(GROUP6.octets());
        message.extend(vec![9; usize::from(sources) * 16 + 4]);
        let read = Membership::read(&mld(&message));
        assert_eq!(read, expected(GROUP6.into()), "{kind}");
    }
}

#[test]
fn queries_tell_routers_from_switches_that_ask_in_their_place() {
    let query = [0x11, 100, 0, 0, 0, 0, 0, 0];
    for (source, is_router) in [([10, 0, 0, 1], true), ([0; 4], false)] {
        let read = Membership::read(&igmp([2; 6], source, &query));
        assert_eq!(read, Some(Membership::Query { is_router }));
    }
    let read = Membership::read(&mld(&[&[130][..], &[0; 27]].concat()));
    assert_eq!(read, Some(Membership::Query { is_router: true }));
}

#[test]
fn what_no_router_would_take_is_not_read() {
    let good = igmp([2; 6], [10, 0, 0, 1], &[0x16, 0, 0, 0, 239, 1, 2, 3]);
    assert!(Membership::read(&good).is_some());
    let mut bad_sum = good.clone();
    bad_sum[40] ^= 1;
    assert_eq!(Membership::read(&bad_sum), None);
    for len in 0..good.len() {
        assert_eq!(Membership::read(&good[..len]), None);
    }
    assert_eq!(read4(&[0x16, 0, 0, 0, 10, 1, 2, 3]), None, "no group");
    let too_many = [0x22, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0, 239, 1, 2, 3];
    assert_eq!(read4(&too_many), None, "a record is missing");
}

proptest! {
    #[test]
    fn no_bytes_make_reading_panic_and_all_groups_are_groups(
        kind in prop_oneof![Just(0x22_u8), Just(143), Just(0x11), Just(130), any::<u8>()],
        bytes in proptest::collection::vec(prop_oneof![0_u8..5, any::<u8>()], 3..120),
    ) {
        let message = [&[kind][..], &bytes].concat();
        for frame in [igmp([2; 6], [10, 0, 0, 1], &message), mld(&message)] {
            if let Some(Membership::Report(records)) = Membership::read(&frame) {
                prop_assert!(records.iter().all(|record| record.group.is_multicast()));
            }
        }
    }
}
