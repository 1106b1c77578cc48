//! Who initiates, what is said when, and what is refused.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::world::World;
use crate::signal::{SessionId, Signal, TerminateReason};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn only_the_node_that_sorts_first_initiates() {
    let mut world = World::open(3);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    let initiates: Vec<_> = world
        .signals
        .iter()
        .filter(|(_, _, s)| matches!(s, Signal::Initiate { .. }))
        .map(|(from, to, _)| (from.as_str(), to.as_str()))
        .collect();
    assert_eq!(initiates.len(), 3);
    assert!(
        initiates.iter().all(|(from, to)| from < to),
        "{initiates:?}"
    );
}

#[test]
fn a_lost_signal_is_tried_again_and_the_reason_shown_meanwhile() {
    for lost in ["Initiate", "Accept"] {
        let mut world = World::open(2);
        let left = Rc::new(Cell::new(2));
        let counter = left.clone();
        world.bounce = Box::new(move |signal| {
            let hit = format!("{signal:?}").starts_with(lost) && counter.get() > 0;
            counter.set(counter.get() - i32::from(hit));
            hit
        });
        world.sign_in_all();
        world.run(Duration::from_millis(100));
        assert!(!world.all_up());
        if lost == "Initiate" {
            let why = world.why(0, 1);
            assert!(
                why.starts_with("signalling failed: service-unavailable; next"),
                "{why}"
            );
            assert_eq!(world.why(1, 0), "waiting for the peer to initiate");
        }
        assert!(
            world.run_until(Duration::from_secs(100), World::all_up),
            "{lost}"
        );
        assert_eq!(left.get(), 0);
        world.check_every_path();
    }
}

#[test]
fn attempts_at_a_silent_peer_grow_rarer() {
    let mut world = World::open(2);
    world.bounce = Box::new(|_| true);
    world.sign_in_all();
    world.run(Duration::from_secs(600));
    let attempts = world.signals.len();
    // 1 + 2 + 4 + … + 60 + 60 …, each half to one and a half times.
    assert!((10..=30).contains(&attempts), "{attempts}");
    world.bounce = Box::new(|_| false);
    // Presence that ends and begins again is news: no waiting.
    world.sign_out(1, true);
    world.sign_in(1, "again");
    assert!(world.run_until(Duration::from_secs(1), World::all_up));
}

#[test]
fn candidates_found_later_are_trickled_in_few_signals() {
    let mut world = World::behind(crate::sim::NatKind::HOME, 2);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    let Some((_, _, Signal::Initiate { description, .. })) = world
        .signals
        .iter()
        .find(|(_, _, s)| matches!(s, Signal::Initiate { .. }))
    else {
        panic!("nobody initiated");
    };
    assert_eq!(description.candidates.len(), 1, "host at once");
    let trickled: Vec<_> = world
        .signals
        .iter()
        .filter(|(_, _, s)| matches!(s, Signal::Candidates { .. }))
        .collect();
    assert!((2..=6).contains(&trickled.len()), "{trickled:?}");
}

#[test]
fn a_second_session_while_the_first_is_being_set_up_is_refused_by_the_one_that_sorts_first() {
    let mut world = World::open(2);
    world.sign_in_all();
    world.run(Duration::from_millis(1));
    let (_, _, initiate) = world.signals[0].clone();
    let Signal::Initiate { description, .. } = initiate else {
        panic!("not an initiate: {initiate:?}");
    };
    let sid = SessionId("glare".to_owned());
    let now = world.now;
    let signal = Signal::Initiate {
        sid: sid.clone(),
        description,
    };
    world.nodes[0]
        .overlay
        .handle_signal(now, "node-1@demo/r", signal);
    world.run(Duration::from_millis(1));
    let refusal = Signal::Terminate {
        sid,
        reason: TerminateReason::AlternativeSession,
    };
    assert!(world.signals.iter().any(|(_, _, s)| *s == refusal));
    assert!(world.run_until(SOON, World::all_up));
    world.check_every_path();
}

#[test]
fn signals_of_unknown_sessions_are_answered_or_ignored_and_hurt_no_link() {
    let mut world = World::open(2);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    let before = world.signals.len();
    let sid = SessionId("stale".to_owned());
    let description = world
        .signals
        .iter()
        .find_map(|(_, _, s)| match s {
            Signal::Accept { description, .. } => Some(description.clone()),
            _ => None,
        })
        .expect("an accept");
    let now = world.now;
    for from in ["node-1@demo/r", "stranger@demo/x"] {
        for signal in [
            Signal::Accept {
                sid: sid.clone(),
                description: description.clone(),
            },
            Signal::Candidates {
                sid: sid.clone(),
                ufrag: "abcd".to_owned(),
                candidates: vec![],
            },
            Signal::Terminate {
                sid: sid.clone(),
                reason: TerminateReason::Success,
            },
        ] {
            world.nodes[0].overlay.handle_signal(now, from, signal);
        }
    }
    world.run(Duration::from_secs(60));
    let said: Vec<_> = world.signals[before..]
        .iter()
        .map(|(_, _, s)| s.clone())
        .collect();
    let refusal = Signal::Terminate {
        sid,
        reason: TerminateReason::GeneralError,
    };
    assert_eq!(said, [refusal.clone(), refusal]);
    world.check_every_path();
}

#[test]
fn a_stranger_gets_no_session() {
    let mut world = World::open(2);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    let (_, _, initiate) = world.signals[0].clone();
    let now = world.now;
    world.nodes[1]
        .overlay
        .handle_signal(now, "stranger@demo/x", initiate);
    world.run(Duration::from_millis(1));
    let (_, to, answer) = world.signals.last().expect("an answer");
    assert_eq!(to, "stranger@demo/x");
    assert!(matches!(
        answer,
        Signal::Terminate {
            reason: TerminateReason::GeneralError,
            ..
        }
    ));
    assert!(world.all_up());
}

#[test]
fn a_peer_with_this_nodes_address_is_refused_and_said_why() {
    let mut world = World::open(2);
    world.nodes[1].advertised = 1;
    world.sign_in_all();
    world.run(SOON);
    assert_eq!(
        world.why(0, 1),
        "it advertises this node's own address 10.73.0.1"
    );
    assert_eq!(world.nodes[0].overlay.linked().len(), 0);
}

#[test]
fn a_peer_with_another_members_address_is_refused_until_that_one_is_gone() {
    let mut world = World::open(3);
    world.nodes[2].advertised = 2;
    world.sign_in_all();
    world.run(SOON);
    assert!(world.is_up(0, 1));
    assert_eq!(
        world.why(0, 2),
        "it advertises 10.73.0.2, which is node-1's address"
    );
    let now = world.now;
    world.nodes[1].overlay.leave(now);
    world.run(Duration::from_millis(50));
    world.sign_out(1, false);
    assert!(world.run_until(SOON, |w| w.is_up(0, 2)));
}

#[test]
fn a_peer_with_an_address_outside_the_overlay_is_refused() {
    let mut world = World::open(2);
    let now = world.now;
    world.sign_in(0, "r");
    let mut advertisement = crate::status::Advertisement {
        name: "node-1".to_owned(),
        addrs: super::world::addrs(2),
        role: crate::status::RoleState::Pending,
        linked: vec![],
        version: "0".to_owned(),
        fingerprint: None,
    };
    advertisement.addrs.ipv4 = "10.99.0.2/24".parse().expect("valid");
    world.nodes[0]
        .overlay
        .peer_present(now, "node-1@demo/r".to_owned(), advertisement);
    world.run(SOON);
    assert_eq!(
        world.why(0, 1),
        "it advertises 10.99.0.2, which is outside the overlay's network"
    );
    assert!(world.signals.is_empty());
}

#[test]
fn a_dead_resource_of_a_peer_does_not_keep_its_living_one_from_being_linked() {
    let mut world = World::open(2);
    world.sign_in_all();
    let advertisement = crate::status::Advertisement {
        name: "node-1".to_owned(),
        addrs: super::world::addrs(2),
        role: crate::status::RoleState::Pending,
        linked: vec![],
        version: "0".to_owned(),
        fingerprint: None,
    };
    let now = world.now;
    world.nodes[0]
        .overlay
        .peer_present(now, "node-1@demo/dead".to_owned(), advertisement);
    assert!(world.run_until(SOON, World::all_up));
    world.check_every_path();
    assert_eq!(world.peer(0, 1).expect("known").jid, "node-1@demo/r");
}

#[test]
fn status_says_what_a_missing_link_waits_for() {
    let mut world = World::open(2);
    world.bounce = Box::new(|_| true);
    world.sign_in_all();
    world.run(Duration::from_millis(100));
    assert_eq!(world.why(1, 0), "waiting for the peer to initiate");
    world.sign_out(1, true);
    assert_eq!(world.why(1, 0), "this node is not signed in");
}
