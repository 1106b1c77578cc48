use proptest::prelude::*;

use super::*;

pub const ASKER: Mac = [2, 0, 0, 0, 0, 1];
const HOLDER: Mac = [2, 0, 0, 0, 0, 2];

fn ip(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n)
}

/// A message with a sound checksum, from a certain station.
pub fn frame(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8], tags: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let (source, destination) = (source.octets(), destination.octets());
    let pseudo = pseudo_v6(source, destination, ICMPV6, message.len() as u32);
    let checksum = !combine(pseudo, sum(&message));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = [[0x33, 0x33, 0xff, 0, 0, 2], ASKER].concat();
    frame.extend(tags);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, message.len() as u8]);
    frame.extend([ICMPV6, HOP_LIMIT]);
    frame.extend(source);
    frame.extend(destination);
    frame.extend(message);
    frame
}

/// A solicitation or an advertisement.
pub fn message(kind: u8, flags: u8, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    message.extend(options);
    message
}

fn source_option() -> Vec<u8> {
    [&[SOURCE_LINK_LAYER, 1][..], &ASKER].concat()
}

#[test]
fn a_question_is_answered_in_its_vlan_as_the_holder_would() {
    for tags in [
        &[][..],
        &[0x81, 0, 0, 5],
        &[0x88, 0xa8, 0, 9, 0x81, 0, 0, 5],
    ] {
        let asked = message(SOLICITATION, 0, ip(2), &source_option());
        let question = frame(ip(1), ip(2), &asked, tags);
        let header = Header::parse(&question).expect("whole");
        let Some(Discovered::Solicitation(solicitation)) = Discovered::read(&question) else {
            panic!("a solicitation");
        };
        assert_eq!(solicitation.link_layer, Some(ASKER));
        assert!(!solicitation.is_detection());
        let answer = solicitation.answer(&header, &question, HOLDER, true);
        let to = Header::parse(&answer).expect("whole");
        assert_eq!((to.destination, to.source), (ASKER, HOLDER));
        assert_eq!(answer[12..to.payload_at], question[12..header.payload_at]);
        let expected = Advertisement {
            target: ip(2),
            link_layer: Some(HOLDER),
            is_router: true,
        };
        assert_eq!(
            Discovered::read(&answer),
            Some(Discovered::Advertisement(expected))
        );
    }
}

#[test]
fn duplicate_address_detection_is_answered_to_all_nodes_and_not_as_solicited() {
    let asked = message(SOLICITATION, 0, ip(2), &[]);
    let question = frame(Ipv6Addr::UNSPECIFIED, ip(9), &asked, &[]);
    let Some(Discovered::Solicitation(solicitation)) = Discovered::read(&question) else {
        panic!("a solicitation");
    };
    assert!(solicitation.is_detection());
    let header = Header::parse(&question).expect("whole");
    let answer = solicitation.answer(&header, &question, HOLDER, false);
    assert_eq!(answer[..6], ALL_NODES_MAC);
    assert_eq!(answer[14 + 24..14 + 40], ALL_NODES.octets());
    assert_eq!(answer[14 + 40 + 4], OVERRIDE);
    assert!(Discovered::read(&answer).is_some(), "sound");
}

#[test]
fn what_no_host_would_take_is_not_read() {
    let good = message(SOLICITATION, 0, ip(2), &source_option());
    let whole = frame(ip(1), ip(2), &good, &[]);
    assert!(Discovered::read(&whole).is_some());
    let mut hop_limit = whole.clone();
    hop_limit[14 + 7] = 254;
    let mut checksum = whole.clone();
    checksum[14 + 42] ^= 1;
    let mut code = good.clone();
    code[1] = 1;
    let group = message(SOLICITATION, 0, ALL_NODES, &[]);
    let no_length = message(SOLICITATION, 0, ip(2), &[1, 0, 0, 0, 0, 0, 0, 0]);
    let cut_off = message(SOLICITATION, 0, ip(2), &[1, 2, 0, 0, 0, 0, 0, 0]);
    let solicited = message(ADVERTISEMENT, SOLICITED, ip(2), &[]);
    let cases = [
        hop_limit,
        checksum,
        frame(ip(1), ip(2), &code, &[]),
        frame(ip(1), ip(2), &group, &[]),
        frame(ip(1), ip(2), &no_length, &[]),
        frame(ip(1), ip(2), &cut_off, &[]),
        frame(ip(2), ALL_NODES, &solicited, &[]),
        frame(Ipv6Addr::UNSPECIFIED, ip(2), &good, &[]),
    ];
    for (at, case) in cases.iter().enumerate() {
        assert_eq!(Discovered::read(case), None, "case {at}");
    }
    for len in 0..whole.len() {
        assert_eq!(Discovered::read(&whole[..len]), None);
    }
}

proptest! {
    #[test]
    fn no_options_make_reading_panic(
        kind in 135_u8..137,
        options in proptest::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..60),
    ) {
        let bytes = frame(ip(1), ip(2), &message(kind, 0, ip(2), &options), &[]);
        let is_sound = link_layer(&options, kind - 134).is_some();
        prop_assert_eq!(Discovered::read(&bytes).is_some(), is_sound);
    }
}
