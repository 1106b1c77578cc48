//! Whatever peers, servers and the underlay send, in whatever order, nothing panics, nothing
//! spins, and links that matter come up afterwards.

use std::time::Duration;

use bytes::BytesMut;
use proptest::prelude::*;

use super::world::World;
use crate::candidate::{Candidate, CandidateKind};
use crate::signal::{Fingerprint, LinkDescription, SessionId, Setup, Signal, TerminateReason};

#[derive(Debug, Clone)]
enum Event {
    Signal(u8, Signal),
    Replay(usize, usize),
    Datagram(u8, Vec<u8>),
    Packet(Vec<u8>),
    Failed(u8, u8),
    Present(u8, u8),
    Gone(u8),
    Offline,
    Online(u8),
    Time(u16),
}

fn sid() -> impl Strategy<Value = SessionId> {
    (0_u8..4).prop_map(|n| SessionId(n.to_string()))
}

fn candidate() -> impl Strategy<Value = Candidate> {
    (any::<[u8; 4]>(), any::<u16>(), 0..4_u8, any::<u32>()).prop_map(
        |(ip, port, kind, priority)| Candidate {
            foundation: "1".to_owned(),
            kind: [
                CandidateKind::Host,
                CandidateKind::Srflx,
                CandidateKind::Prflx,
                CandidateKind::Relay,
            ][usize::from(kind)],
            addr: (ip, port).into(),
            priority,
            related: None,
        },
    )
}

fn description() -> impl Strategy<Value = LinkDescription> {
    let text = "[a-zA-Z0-9:é]{0,40}";
    let candidates = proptest::collection::vec(candidate(), 0..4);
    (text, text, any::<[u8; 32]>(), 0..3_u8, candidates).prop_map(
        |(ufrag, pwd, fingerprint, setup, candidates)| LinkDescription {
            ufrag,
            pwd,
            fingerprint: Fingerprint(fingerprint),
            setup: [Setup::Actpass, Setup::Active, Setup::Passive][usize::from(setup)],
            candidates,
        },
    )
}

fn signal() -> impl Strategy<Value = Signal> {
    let reason = prop_oneof![
        Just(TerminateReason::Success),
        Just(TerminateReason::ConnectivityError),
        Just(TerminateReason::AlternativeSession),
    ];
    prop_oneof![
        (sid(), description()).prop_map(|(sid, description)| Signal::Initiate { sid, description }),
        (sid(), description()).prop_map(|(sid, description)| Signal::Accept { sid, description }),
        (
            sid(),
            "[a-z]{0,6}",
            proptest::collection::vec(candidate(), 0..4)
        )
            .prop_map(|(sid, ufrag, candidates)| Signal::Candidates {
                sid,
                ufrag,
                candidates
            }),
        (sid(), reason).prop_map(|(sid, reason)| Signal::Terminate { sid, reason }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..80);
    prop_oneof![
        4 => (0_u8..4, signal()).prop_map(|(from, signal)| Event::Signal(from, signal)),
        2 => (any::<usize>(), 0_usize..3).prop_map(|(which, to)| Event::Replay(which, to)),
        2 => (0_u8..4, bytes()).prop_map(|(from, bytes)| Event::Datagram(from, bytes)),
        1 => bytes().prop_map(Event::Packet),
        1 => (0_u8..4, 0_u8..4).prop_map(|(to, sid)| Event::Failed(to, sid)),
        1 => (0_u8..4, 0_u8..4).prop_map(|(who, addr)| Event::Present(who, addr)),
        1 => (0_u8..4).prop_map(Event::Gone),
        1 => Just(Event::Offline),
        1 => (0_u8..2).prop_map(Event::Online),
        4 => (0_u16..3000).prop_map(Event::Time),
    ]
}

fn jid(n: u8) -> String {
    format!("node-{n}@demo/r")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_order_of_events_makes_it_panic_or_spin_and_honest_peers_link_in_the_end(
        events in proptest::collection::vec(event(), 0..40),
    ) {
        let mut world = World::open(3);
        world.sign_in_all();
        for event in events {
            let now = world.now;
            let overlay = &mut world.nodes[1].overlay;
            match event {
                Event::Signal(from, signal) => overlay.handle_signal(now, &jid(from), signal),
                Event::Replay(which, to) => {
                    let count = world.signals.len().max(1);
                    if let Some((from, _, signal)) = world.signals.get(which % count).cloned() {
                        world.nodes[to].overlay.handle_signal(now, &from, signal);
                    }
                }
                Event::Datagram(from, bytes) => overlay.handle_datagram(
                    now,
                    "203.0.113.2:4000".parse().expect("valid"),
                    ([203, 0, 113, from], 4000).into(),
                    BytesMut::from(&bytes[..]),
                ),
                Event::Packet(bytes) => overlay.handle_packet(now, &bytes),
                Event::Failed(to, sid) => {
                    overlay.signal_failed(now, &jid(to), &SessionId(sid.to_string()), "gone");
                }
                Event::Present(who, addr) => {
                    let advertised = world.nodes[usize::from(who % 3)].advertised;
                    world.nodes[usize::from(who % 3)].advertised = addr + 1;
                    world.publish(usize::from(who % 3));
                    world.nodes[usize::from(who % 3)].advertised = advertised;
                }
                Event::Gone(who) => overlay.peer_gone(now, &jid(who)),
                Event::Offline => world.sign_out(1, true),
                Event::Online(resource) => world.sign_in(1, ["r", "s"][usize::from(resource)]),
                Event::Time(ms) => world.run(Duration::from_millis(u64::from(ms))),
            }
            world.run(Duration::from_millis(1));
        }
        for i in 0..3 {
            world.sign_out(i, true);
        }
        for i in 0..3 {
            world.sign_in(i, "last");
        }
        prop_assert!(
            world.run_until(Duration::from_secs(300), World::all_up),
            "{:?}",
            world.nodes.iter().map(|n| n.overlay.peers(world.now)).collect::<Vec<_>>()
        );
        world.check_every_path();
    }
}
