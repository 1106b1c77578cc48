//! An overlay with an authority, and members and a server that lie.

use std::collections::BTreeSet;
use std::time::Duration;

use super::world::{World, addrs, sid_of, v4};
use crate::authority::issue::Subject;
use crate::authority::tests::{DAY, Office, subject};
use crate::overlay::{Identity, StaticPeer};
use crate::signal::Signal;
use crate::status::{DropReason, LinkState};

const SOON: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

/// Who node `i` is.
pub(super) fn who(i: usize) -> Subject {
    subject(&format!("node-{i}"), "demo", i as u8 + 1)
}

/// `count` nodes with certificates, not signed in. `lies` may put another identity, as PEM, in the
/// place of a node's.
pub(super) fn world(office: &Office, count: u8, lies: impl Fn(usize) -> Option<Identity>) -> World {
    let mut world = World::open(0);
    for i in 0..usize::from(count) {
        let identity = lies(i).unwrap_or_else(|| office.identity(&who(i)));
        world.identities.insert(i, identity.to_pem().expect("PEM"));
        world.authorities.insert(i, office.pem());
        let underlay = [203, 0, 113, i as u8 + 1].into();
        world.network.add_host(underlay, None);
        world.add_node(underlay);
    }
    world
}

pub(super) fn refusals(world: &World, i: usize) -> Vec<(String, String)> {
    let refusals = world.nodes[i].overlay.refusals(world.now);
    let shown = refusals
        .into_iter()
        .map(|alarm| (alarm.origin, alarm.trouble));
    shown.collect()
}

/// The only refusal that node `i` tells of.
pub(super) fn refusal(world: &World, i: usize) -> (String, String) {
    let mut refusals = refusals(world, i);
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    refusals.remove(0)
}

#[test]
fn members_with_certificates_link_and_are_vouched_for_by_the_authority() {
    let office = Office::new();
    let mut world = world(&office, 3, |_| None);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    world.check_every_path();
    for i in 0..3 {
        assert_eq!(refusals(&world, i), []);
        let node = &world.nodes[i];
        for (peer, path) in &node.paths {
            let name = node.overlay.vouched_name(*peer).expect("a name");
            let other = usize::from(path.addrs.ipv4.addr.octets()[3]) - 1;
            assert_eq!(name, format!("node-{other}"));
        }
    }
}

#[test]
fn an_account_without_a_certificate_gets_no_link_and_is_named() {
    let office = Office::new();
    // The password is stolen, and the key is not.
    let thief = |i| (i == 2).then(|| Identity::generate().expect("self-signed"));
    let mut world = world(&office, 3, thief);
    world.authorities.remove(&2);
    world.restart(2);
    world.sign_in_all();
    assert!(world.run_until(SOON, |world| world.is_up(0, 1) && world.is_up(1, 0)));
    world.run(120 * SECOND);
    let why = "the peer is refused: the certificate is not of this overlay's authority";
    for i in 0..2 {
        assert_eq!(
            refusal(&world, i),
            ("node-2@demo".to_owned(), why.to_owned())
        );
        assert!(world.why(i, 2).starts_with(why), "{}", world.why(i, 2));
        assert!(!world.is_up(2, i));
        assert_eq!(world.nodes[i].paths.len(), 1);
        let told = format!("refused node-2@demo: {why}");
        let times = world.nodes[i].events.iter().filter(|e| **e == told);
        assert_eq!(times.count(), 1, "said once");
    }
    assert!(world.nodes[2].paths.is_empty());
}

#[test]
fn a_member_that_claims_anothers_address_or_name_is_refused_and_the_other_is_not_kept_from_it() {
    let office = Office::new();
    for lie in ["address", "name"] {
        let mut world = world(&office, 3, |_| None);
        match lie {
            "address" => world.nodes[2].advertised = 2,
            _ => world.nodes[2].name = "node-1".to_owned(),
        }
        // It is there first.
        world.sign_in(2, "r");
        world.sign_in(0, "r");
        world.run(SOON);
        world.sign_in(1, "r");
        assert!(world.run_until(SOON, |world| world.is_up(0, 1) && world.is_up(1, 0)));
        world.run(30 * SECOND);
        let why = match lie {
            "address" => {
                "the peer is refused: it claims the addresses of node-2 (10.73.0.2, fd5a::2), and \
                 the certificate says node-2 (10.73.0.3, fd5a::3)"
            }
            _ => {
                "the peer is refused: it calls itself node-1 (10.73.0.3, fd5a::3), and the \
                 certificate says node-2 (10.73.0.3, fd5a::3)"
            }
        };
        assert_eq!(
            refusal(&world, 0),
            ("node-2@demo".to_owned(), why.to_owned())
        );
        assert_eq!(world.nodes[0].paths.len(), 1);
        let packet = v4(1, 2, b"for node 1");
        let now = world.now;
        world.nodes[0].overlay.handle_packet(now, &packet);
        world.run(SECOND);
        assert_eq!(world.nodes[1].packets, [&packet[..]]);
        assert_eq!(refusals(&world, 1).len(), 1, "{lie}");
    }
}

#[test]
fn what_the_server_says_of_a_member_does_not_end_its_link() {
    let office = Office::new();
    let mut world = world(&office, 2, |_| None);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    world.run(10 * SECOND);
    world.nodes[1].advertised = 9;
    world.publish(1);
    world.run(SECOND);
    world.nodes[1].advertised = 2;
    assert!(world.all_up());
    world.check_every_path();
    let (account, why) = refusal(&world, 0);
    assert_eq!(account, "node-1@demo");
    assert_eq!(
        why,
        "it now claims to be node-1 (10.73.0.9, fd5a::9), and has a link as \
         node-1 (10.73.0.2, fd5a::2)"
    );
}

#[test]
fn a_server_that_swaps_fingerprints_is_found_out() {
    let office = Office::new();
    let stranger = Identity::generate().expect("self-signed").fingerprint();
    let member = office.identity(&who(2)).fingerprint();
    for swapped in [stranger, member] {
        let mut world = world(&office, 2, |_| None);
        world.tamper = Box::new(move |signal: &mut Signal| {
            if let Signal::Initiate { description, .. } | Signal::Accept { description, .. } =
                signal
            {
                description.fingerprint = swapped;
            }
        });
        world.sign_in_all();
        world.run(SOON);
        assert!(world.nodes.iter().all(|node| node.paths.is_empty()));
        let named = (0..2).flat_map(|i| refusals(&world, i).into_iter().map(move |r| (i, r)));
        let named: Vec<_> = named.collect();
        assert!(!named.is_empty());
        for (i, (account, why)) in named {
            assert_eq!(account, format!("node-{}@demo", 1 - i));
            let begin = "the peer's certificate is not the one signalled: fingerprint ";
            assert!(why.starts_with(begin), "{why}");
            assert!(why.ends_with(&format!("expected {swapped}")), "{why}");
        }
        world.tamper = Box::new(|_| {});
        assert!(world.run_until(120 * SECOND, World::all_up));
    }
}

#[test]
fn a_session_that_the_server_begins_once_more_comes_to_nothing() {
    let office = Office::new();
    let mut world = world(&office, 3, |_| None);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    let initiate = |(from, to, signal): &(String, String, Signal)| {
        let is_one = matches!(signal, Signal::Initiate { .. });
        (is_one && from == "node-0@demo/r" && to == "node-1@demo/r").then(|| signal.clone())
    };
    let old = world.signals.iter().find_map(initiate).expect("one");
    world.run(10 * SECOND);
    // To whom it was for, by whom the session of that name is known still.
    let now = world.now;
    world.nodes[1]
        .overlay
        .handle_signal(now, "node-0@demo/r", old.clone());
    world.run(SECOND);
    assert!(world.all_up(), "known already");
    // To whom it was not for.
    let now = world.now;
    world.nodes[2]
        .overlay
        .handle_signal(now, "node-0@demo/r", old.clone());
    world.run(Duration::from_millis(500));
    let sid = sid_of(&old).clone();
    assert!(!world.is_up(2, 0), "by a session with another one");
    let refused = |(from, to, signal): &(String, String, Signal)| {
        let ends = matches!(signal, Signal::Terminate { .. }) && *sid_of(signal) == sid;
        ends && from == "node-0@demo/r" && to == "node-2@demo/r"
    };
    assert!(
        world.signals.iter().any(refused),
        "node 0 knows no such session"
    );
    assert!(
        world.why(2, 0).starts_with("the peer refused the session"),
        "{}",
        world.why(2, 0)
    );
    assert!(world.run_until(120 * SECOND, World::all_up));
    world.check_every_path();
}

#[test]
fn a_certificate_that_ends_ends_the_links_until_there_is_another_one() {
    let office = Office::new();
    let short = |i| (i == 1).then(|| office.identity_from(&who(1), Office::today(), 1));
    let mut world = world(&office, 2, short);
    world.dawn = Office::today() + DAY - 600 * SECOND;
    for i in 0..2 {
        world.restart(i);
    }
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    world.run(590 * SECOND);
    assert!(world.all_up());
    world.run(60 * SECOND);
    assert!(!world.is_up(0, 1) && !world.is_up(1, 0));
    let (account, why) = refusal(&world, 0);
    assert_eq!(account, "node-1@demo");
    assert!(
        why.starts_with("the peer is refused: the certificate ended on "),
        "{why}"
    );
    // Packets meanwhile are lost, and counted as such.
    let now = world.now;
    world.nodes[0]
        .overlay
        .handle_packet(now, &v4(1, 2, b"lost"));
    let drops = world.peer(0, 1).expect("known").drops;
    assert_eq!(drops.get(&DropReason::NoLink), Some(&1));
    let renewed = office.identity_from(&who(1), Office::today() + DAY, 90);
    world.nodes[1].overlay.set_identity(renewed);
    assert!(world.run_until(120 * SECOND, World::all_up));
    world.check_every_path();
}

#[test]
fn a_certificate_renewed_while_the_peers_answer_is_awaited_does_not_cost_the_link() {
    let office = Office::new();
    let mut world = world(&office, 2, |_| None);
    world.sign_in_all();
    world.run(Duration::from_millis(1));
    let renewed = office.identity(&who(0));
    world.nodes[0].overlay.set_identity(renewed);
    assert!(world.run_until(SOON, World::all_up));
    assert!((0..2).all(|i| refusals(&world, i).is_empty()));
}

#[test]
fn a_peer_by_configuration_needs_a_certificate_of_the_authority_too() {
    let office = Office::new();
    for certified in [true, false] {
        let own = [0, 1].map(|i| match (i, certified) {
            (1, false) => Identity::generate().expect("self-signed"),
            (i, _) => office.identity(&who(i)),
        });
        let mut world = World::open(0);
        for i in 0..2 {
            world.identities.insert(i, own[i].to_pem().expect("PEM"));
            let other = StaticPeer {
                name: format!("node-{}", 1 - i),
                addrs: addrs(2 - i as u8),
                fingerprint: own[1 - i].fingerprint(),
                endpoints: vec![format!("203.0.113.{}:4000", 2 - i).parse().expect("valid")],
                groups: BTreeSet::new(),
            };
            world.configured.insert(i, vec![other]);
            let underlay = [203, 0, 113, i as u8 + 1].into();
            world.network.add_host(underlay, None);
            if i == 0 || certified {
                world.authorities.insert(i, office.pem());
            }
            world.add_node(underlay);
        }
        world.run(SOON);
        assert_eq!(world.all_up(), certified);
        if certified {
            world.check_every_path();
        } else {
            let why = "the peer is refused: the certificate is not of this overlay's authority";
            assert_eq!(refusal(&world, 0), ("node-1".to_owned(), why.to_owned()));
            assert!(matches!(
                world.peer(0, 1).expect("known").link,
                LinkState::Down { .. } | LinkState::Checking | LinkState::Handshaking
            ));
            assert!(world.nodes.iter().all(|node| node.paths.is_empty()));
        }
    }
}
