use proptest::prelude::*;
use simple_dns::TYPE;

use super::*;

fn addrs(n: u8) -> OverlayAddrs {
    OverlayAddrs {
        ipv4: format!("10.73.0.{n}/24").parse().expect("valid"),
        ipv6: format!("fd73:5a::{n:x}/64").parse().expect("valid"),
    }
}

fn lake() -> Names {
    let mut names = Names::new("lake", "frontend-0", addrs(1));
    assert!(names.learn("worker-0", addrs(2)));
    names
}

fn question(name: &str, kind: TYPE) -> Packet<'_> {
    let mut packet = Packet::new_query(0x1234);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).expect("a name");
    let asked = Question::new(name, kind.into(), CLASS::IN.into(), false);
    packet.questions.push(asked);
    packet
}

/// The code and the data of the answer; it answers the question and is its own authority.
fn ask(names: &Names, name: &str, kind: TYPE) -> (RCODE, Vec<RData<'static>>) {
    let question = question(name, kind);
    let message = names.answer(&question.build_bytes_vec().expect("bytes"));
    let message = message.expect("an answer");
    assert!(message.len() <= 512, "{} bytes", message.len());
    let answer = Packet::parse(&message).expect("DNS");
    assert_eq!(answer.id(), 0x1234);
    assert!(answer.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
    assert_eq!(answer.questions.len(), 1);
    let is_ours = answer.rcode() != RCODE::Refused;
    assert_eq!(answer.has_flags(PacketFlag::AUTHORITATIVE_ANSWER), is_ours);
    // Who may keep that there is nothing has to know for how long.
    let says_how_long = answer.name_servers.len() == 1;
    assert_eq!(says_how_long, is_ours && answer.answers.is_empty());
    let data = answer.answers.into_iter().map(|a| a.rdata.into_owned());
    (answer_code(&message), data.collect())
}

fn answer_code(message: &[u8]) -> RCODE {
    RCODE::from(u16::from(message[3] & 0x0f))
}

#[test]
fn a_member_has_its_two_addresses_and_they_have_its_name() {
    let names = lake();
    let [four, six] = [
        RData::A(A::from(Ipv4Addr::new(10, 73, 0, 2))),
        RData::AAAA(AAAA::from(addrs(2).ipv6.addr)),
    ];
    let ask = |name, kind| ask(&names, name, kind);
    assert_eq!(
        ask("worker-0.lake.ipop", TYPE::A),
        (RCODE::NoError, vec![four.clone()])
    );
    assert_eq!(
        ask("WORKER-0.Lake.IPOP", TYPE::AAAA),
        (RCODE::NoError, vec![six])
    );
    assert_eq!(
        ask("worker-0.lake.ipop", TYPE::MX),
        (RCODE::NoError, vec![])
    );
    assert_eq!(ask("frontend-0.lake.ipop", TYPE::A).1.len(), 1);
    let name = || RData::PTR(PTR(Name::new_unchecked("worker-0.lake.ipop")));
    assert_eq!(
        ask("2.0.73.10.in-addr.arpa", TYPE::PTR),
        (RCODE::NoError, vec![name()])
    );
    let nibbles = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.a.5.0.0.3.7.d.f.ip6.arpa";
    assert_eq!(ask(nibbles, TYPE::PTR), (RCODE::NoError, vec![name()]));
}

#[test]
fn whole_networks_are_domains() {
    let expected = [
        "lake.ipop",
        "0.73.10.in-addr.arpa",
        "0.0.0.0.0.0.0.0.a.5.0.0.3.7.d.f.ip6.arpa",
    ];
    assert_eq!(lake().domains(), expected);
    let mut odd = addrs(1);
    odd.ipv4.prefix = 23;
    odd.ipv6.prefix = 62;
    assert_eq!(
        Names::new("lake", "frontend-0", odd).domains(),
        ["lake.ipop"]
    );
}

#[test]
fn nobody_is_nobody_and_what_is_not_ours_is_refused() {
    let names = lake();
    for (name, kind) in [
        ("worker-1.lake.ipop", TYPE::A),
        ("a.worker-0.lake.ipop", TYPE::A),
        ("9.0.73.10.in-addr.arpa", TYPE::PTR),
    ] {
        assert_eq!(
            ask(&names, name, kind),
            (RCODE::NameError, vec![]),
            "{name}"
        );
    }
    for (name, kind) in [
        ("worker-0.sea.ipop", TYPE::A),
        ("ipop", TYPE::A),
        ("lake.ipop.example", TYPE::A),
        ("example.org", TYPE::A),
        ("2.1.73.10.in-addr.arpa", TYPE::PTR),
        ("73.10.in-addr.arpa", TYPE::PTR),
        ("2.0.73.256.in-addr.arpa", TYPE::PTR),
        ("2.ip6.arpa", TYPE::PTR),
    ] {
        assert_eq!(ask(&names, name, kind), (RCODE::Refused, vec![]), "{name}");
    }
    let (code, records) = ask(&names, "lake.ipop", TYPE::SOA);
    assert_eq!((code, records.len()), (RCODE::NoError, 1));
}

#[test]
fn an_address_has_one_name_and_a_name_its_last_addresses() {
    let mut names = lake();
    assert!(!names.learn("worker-0", addrs(2)), "no news");
    assert!(names.learn("worker-0", addrs(3)));
    assert_eq!(
        ask(&names, "2.0.73.10.in-addr.arpa", TYPE::PTR).0,
        RCODE::NameError
    );
    assert!(names.learn("worker-1", addrs(3)));
    assert_eq!(
        ask(&names, "worker-0.lake.ipop", TYPE::A).0,
        RCODE::NameError
    );
    assert_eq!(names.len(), 2);
}

#[test]
fn there_is_room_for_so_many() {
    let mut names = Names::new("lake", "frontend-0", addrs(1));
    let member = |n: u32| OverlayAddrs {
        ipv4: format!("{}/8", Ipv4Addr::from(0x0b00_0000 + n))
            .parse()
            .expect("valid"),
        ipv6: format!("fd00::{n:x}/64").parse().expect("valid"),
    };
    let known = (2..2 * CAPACITY as u32).filter(|&n| names.learn(&format!("m{n}"), member(n)));
    assert_eq!(known.count(), CAPACITY - 1);
    assert_eq!(names.len(), CAPACITY);
    assert!(
        names.learn("m2", member(1)),
        "those that are known may move"
    );
}

#[test]
fn what_is_no_question_is_told_what_is_wrong_or_nothing() {
    let names = lake();
    let code = |packet: &Packet<'_>| {
        let answer = names.answer(&packet.build_bytes_vec().expect("bytes"));
        answer.map(|answer| answer_code(&answer))
    };
    let plain = || question("worker-0.lake.ipop", TYPE::A);
    assert_eq!(code(&plain()), Some(RCODE::NoError));

    let mut none = plain();
    none.questions.clear();
    assert_eq!(code(&none), Some(RCODE::FormatError));
    let mut update = plain();
    *update.opcode_mut() = OPCODE::Update;
    assert_eq!(code(&update), Some(RCODE::NotImplemented));
    // An answer is not answered, or two of us would never end.
    assert_eq!(code(&plain().into_reply()), None);

    let whole = plain().build_bytes_vec().expect("bytes");
    assert_eq!(names.answer(&whole[..11]), None);
    let cut = names.answer(&whole[..20]).expect("an answer");
    assert_eq!(
        (&cut[..2], answer_code(&cut)),
        (&whole[..2], RCODE::FormatError)
    );
}

#[test]
fn options_are_answered_by_options() {
    let names = lake();
    let with = |version| {
        let mut packet = question("worker-0.lake.ipop", TYPE::A);
        *packet.opt_mut() = Some(OPT {
            opt_codes: Vec::new(),
            udp_packet_size: 4096,
            version,
        });
        let answer = names.answer(&packet.build_bytes_vec().expect("bytes"));
        let answer = answer.expect("an answer");
        let answer = Packet::parse(&answer).expect("DNS");
        let opt = answer.opt().expect("options");
        (
            answer.rcode(),
            opt.version,
            opt.udp_packet_size,
            answer.answers.len(),
        )
    };
    assert_eq!(with(0), (RCODE::NoError, 0, PAYLOAD, 1));
    assert_eq!(with(1), (RCODE::BADVERS, 0, PAYLOAD, 0));
}

proptest! {
    #[test]
    fn no_message_is_too_strange(message in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = lake().answer(&message);
    }

    #[test]
    fn a_question_with_a_changed_byte_is_answered_within_512_bytes(at in 12_usize..40, byte: u8) {
        let mut message = question("worker-0.lake.ipop", TYPE::A)
            .build_bytes_vec()
            .expect("bytes");
        let at = at.min(message.len() - 1);
        message[at] = byte;
        let answer = lake().answer(&message).expect("an answer");
        prop_assert!(answer.len() <= 512);
    }
}
