//! Whatever comes.

use std::time::{Duration, Instant};

use ipop_datapath::carry::{Carry, carry};
use ipop_datapath::ethernet::BROADCAST;
use ipop_datapath::published::Reader;
use ipop_datapath::stations::LOCAL;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::loops::{LoopGuard, Timing};
use super::super::probe::{NodeId, ProbeKey};
use super::super::*;
use super::world::{own_addresses, owning};

#[derive(Debug, Clone)]
enum Event {
    Lan(Vec<u8>),
    Member(u16, Vec<u8>),
    Message(u16, Vec<u8>),
    Join(u16),
    Leave(u16),
    Pass(u64),
}

fn address() -> impl Strategy<Value = [u8; 6]> {
    prop_oneof![
        4 => (0_u8..4).prop_map(|n| [2, 0, 0, 0, 0, n]),
        1 => Just(BROADCAST),
        1 => (0_u8..3).prop_map(|n| [1, 0, 0x5e, 1, 2, n]),
        1 => Just([0x33, 0x33, 0, 0, 0, 1]),
        1 => any::<[u8; 6]>(),
    ]
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let ethertypes: [&[u8]; 6] = [
        &[8, 0],
        &[8, 6],
        &[0x86, 0xdd],
        &[0x81, 0, 0, 5, 8, 6],
        &[0x88, 0xb5],
        &[0x12, 0x34],
    ];
    // ARP, IGMP, UDP, ICMPv6, and whatever there may be.
    let starts: [&[u8]; 8] = [
        &[0, 1, 8, 0, 6, 4, 0, 1],
        &[0, 1, 8, 0, 6, 4, 0, 2],
        &[0x45, 0, 0, 28, 0, 0, 0, 0, 1, 2],
        &[0x45, 0, 0, 28, 0, 0, 0, 0, 1, 17],
        &[0x60, 0, 0, 0, 0, 32, 58, 255],
        // From addresses of nodes.
        &[0x45, 0, 0, 28, 0, 0, 0, 0, 1, 99, 0, 0, 10, 1, 0, 101],
        &[0x45, 0, 0, 28, 0, 0, 0, 0, 1, 99, 0, 0, 10, 1, 0, 109],
        &[],
    ];
    let (ethertype, start) = (select(ethertypes.to_vec()), select(starts.to_vec()));
    let rest = proptest::collection::vec(any::<u8>(), 0..80);
    (address(), address(), ethertype, start, rest).prop_map(|(to, from, ethertype, start, rest)| {
        [&to[..], &from, ethertype, start, &rest].concat()
    })
}

fn event() -> impl Strategy<Value = Event> {
    let behind = |n: u8| [&[1, 4][..], &NodeId::of_name(&format!("node-{n}")).0].concat();
    let message = prop_oneof![
        (0_u8..4).prop_map(behind),
        (0_u8..4, 0_u8..4).prop_map(|(kind, n)| vec![1, kind, 0, 0, 2, 0, 0, 0, 0, n]),
        proptest::collection::vec(any::<u8>(), 0..12),
    ];
    prop_oneof![
        6 => frame().prop_map(Event::Lan),
        6 => (0_u16..3, frame()).prop_map(|(from, frame)| Event::Member(from, frame)),
        2 => (0_u16..3, message).prop_map(|(from, message)| Event::Message(from, message)),
        1 => (0_u16..3).prop_map(Event::Join),
        1 => (0_u16..3).prop_map(Event::Leave),
        3 => (0_u64..5000).prop_map(Event::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn nothing_makes_it_panic_and_no_frame_of_a_member_reaches_another(
        events in proptest::collection::vec(event(), 0..120),
        is_bridged in any::<bool>(),
    ) {
        let mut now = Instant::now();
        let loops = is_bridged.then(|| {
            let key = ProbeKey::new(b"overlay");
            LoopGuard::new(NodeId([1; 16]), 1, [2; 6], key, Timing::default())
        });
        let settings = Settings { policy: any_policy(), ..owning(9, Carriers::Anybody) };
        let (tables, started) = (Tables::default(), now);
        let mut holders = Reader::new(tables.holders.clone());
        let mut switch = Switch::new(settings, tables.clone(), loops, now);
        let mut of_the_lan = Vec::new();
        for member in 0..3 {
            let addresses = if member == 0 { vec![] } else { own_addresses(member.into()).into() };
            switch.member_joined(member, &format!("node-{member}"), &addresses, now);
        }
        for event in events {
            let mut given = None;
            let now_s = (now - started).as_secs() as u32;
            holders.refresh();
            let carry = |from, frame| carry(&tables.stations, holders.get(), from, frame, now_s);
            let carried = match &event {
                Event::Lan(frame) => carry(LOCAL, frame),
                Event::Member(from, frame) => carry(*from, frame),
                _ => Carry::HandOver,
            };
            let expected = match (&event, carried) {
                (Event::Lan(frame), Carry::ToPeer(peer)) => {
                    Some(vec![Action::ToMember(peer, frame.clone().into())])
                }
                (Event::Member(_, frame), Carry::ToDevice) => {
                    Some(vec![Action::ToLan(frame.clone().into())])
                }
                (Event::Lan(_), Carry::Stays) => Some(Vec::new()),
                (_, Carry::HandOver) => None,
                (event, carried) => panic!("{carried:?} for {event:?}"),
            };
            match event {
                Event::Lan(frame) => {
                    of_the_lan.push(frame.clone());
                    given = Some(frame.clone());
                    switch.frame_from_lan(frame.into(), now);
                }
                Event::Member(from, frame) => switch.frame_from_member(from, frame.into(), now),
                Event::Message(from, bytes) => {
                    if let Some(message) = Message::read(&bytes) {
                        switch.message_from_member(from, message, now);
                    }
                }
                Event::Join(member) => {
                    switch.member_joined(member, "again", &own_addresses(member.into()), now);
                }
                Event::Leave(member) => switch.member_left(member, now),
                Event::Pass(ms) => {
                    now += Duration::from_millis(ms);
                    switch.handle_timeout(now);
                    prop_assert!(switch.poll_timeout() > now, "it spins");
                }
            }
            let mut to = Vec::new();
            let actions: Vec<_> = std::iter::from_fn(|| switch.poll_action()).collect();
            if let Some(expected) = expected {
                prop_assert_eq!(&actions, &expected, "the threads would do something else");
            }
            for action in actions {
                match action {
                    Action::ToMember(member, frame) => {
                        prop_assert!(of_the_lan.iter().any(|sent| *sent == frame));
                        prop_assert!(switch.is_forwarding());
                        if given.as_deref() == Some(&frame[..]) {
                            prop_assert!(!to.contains(&member), "twice to one member");
                            to.push(member);
                        }
                    }
                    Action::ToLan(frame) => {
                        let is_own = frame.len() > 30 && frame[26..30] == [10, 1, 0, 109];
                        prop_assert!(!is_own || frame[12..14] != [8, 0], "from this node's address");
                        prop_assert!(given.as_deref() != Some(&frame[..]), "back to the LAN");
                    }
                    Action::Tell(member, _) => prop_assert!(member < 3),
                    Action::Drop(..) => {}
                }
            }
            switch.take_alarms();
        }
    }
}

fn any_policy() -> Policy {
    Policy {
        dhcp: guard::Allowed::Anybody,
        dhcpv6: guard::Allowed::Anybody,
        router: guard::Allowed::Anybody,
    }
}
