//! An overlay whose members' owners approve each other's keys, and a server, members and thieves that lie.

use std::time::Duration;

use super::world::{World, v4};
use crate::overlay::{ApprovalError, Identity, Proof};
use crate::pinning::{ComparisonCode, Pins};
use crate::signal::{Fingerprint, Signal};
use crate::status::{Advertisement, PinnedStatus, RoleState};

const SOON: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

/// `count` nodes with keys that outlive a restart, whose owners have approved nobody; not signed in.
fn world(count: usize) -> World {
    let mut world = World::open(0);
    for i in 0..count {
        let identity = Identity::generate().expect("self-signed");
        world.identities.insert(i, identity.to_pem().expect("PEM"));
        world.pins.insert(i, Pins::default());
        let underlay = [203, 0, 113, i as u8 + 1].into();
        world.network.add_host(underlay, None);
        world.add_node(underlay);
    }
    world
}

fn waiting(world: &World, i: usize) -> Vec<PinnedStatus> {
    let pinning = world.nodes[i].overlay.pinning();
    pinning.expect("peers are approved").waiting
}

/// The code that the owner of node `i` reads of the only one who waits.
fn code(world: &World, i: usize) -> String {
    let waiting = waiting(world, i);
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    waiting[0].code.clone().expect("it says which key it has")
}

/// The owner of node `i` approves who waits there by this name with this code.
fn approve(world: &mut World, i: usize, who: &str, code: &str) -> Result<(), ApprovalError> {
    let code: ComparisonCode = code.parse().expect("a code");
    let approved = world.nodes[i].overlay.approve(who, Proof::Code(code));
    approved.map(|(_, pins)| put(world, i, pins))
}

fn put(world: &mut World, i: usize, pins: Pins) {
    let now = world.now;
    world.pins.insert(i, pins.clone());
    world.nodes[i].overlay.set_pins(now, pins);
}

fn forget(world: &mut World, i: usize, who: &str) {
    let (_, pins) = world.nodes[i].overlay.forget(who).expect("approved before");
    put(world, i, pins);
}

/// Every owner approves everybody who waits.
fn approve_all(world: &mut World) {
    for i in 0..world.nodes.len() {
        for peer in waiting(world, i) {
            approve(world, i, &peer.name, &peer.code.expect("a key")).expect("it waits");
        }
    }
}

/// Two nodes that are linked, each approved by the other's owner.
fn linked() -> World {
    let mut world = world(2);
    world.sign_in_all();
    approve_all(&mut world);
    assert!(world.run_until(SOON, World::all_up));
    world.run(10 * SECOND);
    world
}

/// What node `i` tells of in alarms of this account.
fn alarms(world: &World, i: usize, account: &str) -> Vec<String> {
    let all = world.nodes[i].overlay.refusals(world.now).into_iter();
    all.filter(|alarm| alarm.origin == account)
        .map(|alarm| alarm.trouble)
        .collect()
}

fn no_paths(world: &World) -> bool {
    world.nodes.iter().all(|node| node.paths.is_empty())
}

fn own(world: &World, i: usize) -> Fingerprint {
    world.nodes[i].overlay.pinned_by().expect("it is pinned")
}

fn advertisement(name: &str, last: u8, key: Option<Fingerprint>) -> Advertisement {
    Advertisement {
        name: name.to_owned(),
        addrs: super::world::addrs(last),
        role: RoleState::Pending,
        linked: Vec::new(),
        version: "0".to_owned(),
        fingerprint: key,
    }
}

#[test]
fn a_link_comes_up_when_both_owners_have_approved_whoever_is_first() {
    for order in [[0, 1], [1, 0]] {
        let mut world = world(2);
        world.sign_in_all();
        world.run(30 * SECOND);
        assert!(no_paths(&world));
        assert!(world.signals.is_empty(), "nobody asks before");
        let codes = [0, 1].map(|i| code(&world, i));
        assert_eq!(codes[0], codes[1]);
        for (i, other) in [(0, "node-1"), (1, "node-0")] {
            assert_eq!(alarms(&world, i, &format!("{other}@demo")), [""; 0]);
            let told = format!("waits {other}@demo: {other}");
            assert_eq!(world.nodes[i].events, [told], "said once");
        }
        let [first, second] = order;
        let name = |i: usize| format!("node-{}", 1 - i);
        approve(&mut world, first, &name(first), &codes[0]).expect("it waits");
        // As long as it takes for the next attempt to be far away.
        world.run(300 * SECOND);
        assert!(no_paths(&world), "one side is not enough");
        let why = world.why(first, second);
        let refused = "the peer refused the session; its owner may not have approved this node yet";
        assert!(why.starts_with(refused), "{why}");
        approve(&mut world, second, &name(second), &codes[1]).expect("it waits");
        assert!(world.run_until(SOON, World::all_up), "{order:?}");
        world.check_every_path();
        for (i, other) in [(0, "node-1"), (1, "node-0")] {
            assert_eq!(waiting(&world, i), []);
            assert_eq!(alarms(&world, i, &format!("{other}@demo")), [""; 0]);
            let named: Vec<_> = world.nodes[i].overlay.named().map(|it| it.0).collect();
            assert_eq!(named, [other]);
        }
    }
}

#[test]
fn approved_peers_are_linked_after_a_restart_without_being_asked_about() {
    let mut world = linked();
    for i in 0..2 {
        world.restart(i);
    }
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    world.check_every_path();
    assert!((0..2).all(|i| waiting(&world, i).is_empty()));
}

#[test]
fn a_server_that_shows_both_owners_keys_of_its_own_has_them_read_different_codes() {
    let mut world = world(2);
    for i in 0..2 {
        let between = Identity::generate().expect("self-signed");
        world.nodes[i].shown = Some(between.fingerprint());
    }
    world.sign_in_all();
    let codes = [0, 1].map(|i| code(&world, i));
    assert_ne!(codes[0], codes[1]);
    // The other owner's digits approve nobody.
    for i in 0..2 {
        let error = approve(&mut world, i, &format!("node-{}", 1 - i), &codes[1 - i]);
        assert!(
            matches!(error, Err(ApprovalError::Other { .. })),
            "{error:?}"
        );
        let true_key = Proof::Fingerprint(own(&world, 1 - i));
        let who = format!("node-{}", 1 - i);
        let error = world.nodes[i].overlay.approve(&who, true_key);
        assert!(
            matches!(error, Err(ApprovalError::Other { .. })),
            "{error:?}"
        );
    }
    world.run(30 * SECOND);
    assert!(no_paths(&world));
}

#[test]
fn a_server_that_swaps_keys_between_what_was_read_and_what_is_approved_has_nobody_approved() {
    let mut world = world(2);
    world.sign_in_all();
    let read = code(&world, 0);
    let stranger = Identity::generate().expect("self-signed").fingerprint();
    world.nodes[1].shown = Some(stranger);
    world.publish(1);
    let error = approve(&mut world, 0, "node-1", &read).expect_err("another one");
    assert!(matches!(error, ApprovalError::Other { .. }), "{error:?}");
    // Nor by another address.
    world.nodes[1].shown = None;
    world.nodes[1].advertised = 7;
    world.publish(1);
    approve(&mut world, 0, "node-1", &read).expect_err("it is in the code");
    world.nodes[1].advertised = 2;
    world.publish(1);
    approve(&mut world, 0, "node-1", &read).expect("what was read");
}

#[test]
fn a_server_that_swaps_fingerprints_of_approved_peers_gets_no_link_and_is_named() {
    let stranger = Identity::generate().expect("self-signed").fingerprint();
    // In presence, and in signals.
    for in_presence in [true, false] {
        let mut world = linked();
        for i in 0..2 {
            world.restart(i);
        }
        match in_presence {
            true => (0..2).for_each(|i| world.nodes[i].shown = Some(stranger)),
            false => {
                world.tamper = Box::new(move |signal: &mut Signal| {
                    if let Signal::Initiate { description, .. }
                    | Signal::Accept { description, .. } = signal
                    {
                        description.fingerprint = stranger;
                    }
                });
            }
        }
        world.nodes.iter_mut().for_each(|node| node.paths.clear());
        let pins = world.pins.clone();
        world.sign_in_all();
        world.run(120 * SECOND);
        assert!(no_paths(&world));
        let told = |i: usize| alarms(&world, i, &format!("node-{}@demo", 1 - i));
        let named: Vec<_> = (0..2).flat_map(told).collect();
        assert!(!named.is_empty());
        for why in &named {
            assert!(why.contains(&stranger.to_string()), "{why}");
            assert!(why.contains("approved"), "{why}");
        }
        for i in 0..2 {
            assert_eq!(waiting(&world, i), [], "it cannot be approved");
            let key = Proof::Fingerprint(stranger);
            let who = format!("node-{}", 1 - i);
            world.nodes[i]
                .overlay
                .approve(&who, key)
                .expect_err("pinned");
        }
        assert_eq!(world.pins, pins);
        // The server becomes honest.
        world.tamper = Box::new(|_| {});
        for i in 0..2 {
            world.nodes[i].shown = None;
            world.publish(i);
        }
        assert!(world.run_until(120 * SECOND, World::all_up));
    }
}

#[test]
fn whoever_answers_with_another_key_than_the_approved_one_is_refused_in_the_handshake() {
    let mut world = linked();
    let key = own(&world, 1);
    // A thief of the account at the node's own place, who says and signals what was approved.
    let thief = Identity::generate().expect("self-signed");
    world.identities.insert(1, thief.to_pem().expect("PEM"));
    world.pins.remove(&1);
    world.restart(1);
    world.nodes[1].paths.clear();
    world.nodes[1].shown = Some(key);
    let own = thief.fingerprint();
    world.tamper = Box::new(move |signal: &mut Signal| {
        if let Signal::Initiate { description, .. } | Signal::Accept { description, .. } = signal
            && description.fingerprint == own
        {
            description.fingerprint = key;
        }
    });
    world.sign_in(1, "thief");
    world.run(120 * SECOND);
    assert!(!world.is_up(0, 1) && world.nodes[0].paths.is_empty());
    let told = alarms(&world, 0, "node-1@demo");
    let begin = format!("the peer's certificate is not the one signalled: fingerprint {own}");
    assert!(told.iter().any(|why| why.starts_with(&begin)), "{told:?}");
}

#[test]
fn a_thief_of_an_account_is_named_and_neither_ends_the_link_nor_takes_its_place() {
    let mut world = linked();
    let thief = Identity::generate().expect("self-signed").fingerprint();
    let now = world.now;
    let stolen = advertisement("node-1", 2, Some(thief));
    let from = "node-1@demo/thief".to_owned();
    world.nodes[0]
        .overlay
        .peer_present(now, from.clone(), stolen);
    world.run(SECOND);
    assert!(world.all_up());
    world.check_every_path();
    assert_eq!(world.peer(0, 1).expect("known").jid, "node-1@demo/r");
    let told = alarms(&world, 0, "node-1@demo");
    let why = "it has another key than the approved one: fingerprint ";
    assert!(told.len() == 1 && told[0].starts_with(why), "{told:?}");
    // It asks for a session, too.
    let sid = crate::signal::SessionId("stolen".to_owned());
    let initiate = world.signals.iter().find_map(|(_, _, it)| match it {
        Signal::Initiate { description, .. } => Some(description.clone()),
        _ => None,
    });
    let mut description = initiate.expect("one");
    description.fingerprint = thief;
    let now = world.now;
    let asked = Signal::Initiate { sid, description };
    world.nodes[0].overlay.handle_signal(now, &from, asked);
    world.run(SECOND);
    assert!(world.all_up(), "nothing ends by that");
    assert_eq!(alarms(&world, 0, "node-1@demo").len(), 2);
    // The true one restarts while the thief is there.
    world.sign_out(1, true);
    world.restart(1);
    world.sign_in(1, "again");
    assert!(world.run_until(90 * SECOND, World::all_up));
    world.check_every_path();
}

#[test]
fn an_approved_peer_that_takes_anothers_address_or_name_is_refused_and_named() {
    for what in ["address", "name"] {
        let mut world = world(3);
        world.sign_in_all();
        approve_all(&mut world);
        assert!(world.run_until(SOON, World::all_up));
        // Whose address it is, is not there.
        world.sign_out(1, true);
        world.kill(1);
        world.run(60 * SECOND);
        let pins = world.pins.clone();
        world.restart(2);
        match what {
            "address" => world.nodes[2].advertised = 2,
            _ => world.nodes[2].name = "node-1".to_owned(),
        }
        world.nodes[2].paths.clear();
        world.sign_in(2, "r");
        world.run(60 * SECOND);
        let told = alarms(&world, 0, "node-2@demo");
        let why = match what {
            "address" => "it claims 10.73.0.2, with which node-1@demo was approved",
            _ => "it calls itself node-1, as node-1@demo was approved",
        };
        assert_eq!(told, [why]);
        assert_eq!(waiting(&world, 0), []);
        assert!(world.nodes[0].paths.is_empty());
        assert_eq!(world.pins, pins);
    }
}

#[test]
fn an_approved_peer_that_moves_waits_to_be_approved_again() {
    let mut world = linked();
    world.sign_out(1, true);
    world.restart(1);
    world.nodes[1].advertised = 9;
    world.sign_in(1, "r2");
    world.run(30 * SECOND);
    assert!(!world.is_up(0, 1));
    let waits = waiting(&world, 0);
    assert_eq!(waits.len(), 1, "{waits:?}");
    let changed = waits[0].changed.as_deref().expect("it was another one");
    assert_eq!(
        changed,
        "it now claims to be node-1 (10.73.0.9, fd5a::9), and was approved as node-1 (10.73.0.2, fd5a::2)"
    );
    assert_eq!(alarms(&world, 0, "node-1@demo"), [changed]);
    let now = world.now;
    world.nodes[0].overlay.handle_packet(now, &v4(1, 9, b"no"));
    let key = own(&world, 1);
    let again = world.nodes[0]
        .overlay
        .approve("node-1", Proof::Fingerprint(key));
    let (pin, pins) = again.expect("it waits");
    assert_eq!(pin.claim.ipv4, std::net::Ipv4Addr::new(10, 73, 0, 9));
    put(&mut world, 0, pins);
    assert!(world.run_until(90 * SECOND, |world| world.is_up(0, 1)));
    let path = world.nodes[0].paths.values().next().expect("linked");
    assert_eq!(path.addrs.ipv4.addr, pin.claim.ipv4);
}

#[test]
fn what_the_server_says_of_an_approved_peer_does_not_end_its_link() {
    let mut world = linked();
    let stranger = Identity::generate().expect("self-signed").fingerprint();
    for lie in ["address", "key", "none"] {
        match lie {
            "address" => world.nodes[1].advertised = 9,
            "key" => world.nodes[1].shown = Some(stranger),
            _ => {}
        }
        world.publish(1);
        world.run(30 * SECOND);
        world.nodes[1].advertised = 2;
        world.nodes[1].shown = None;
        assert!(world.all_up(), "{lie}");
        world.check_every_path();
    }
    assert_eq!(alarms(&world, 0, "node-1@demo").len(), 2);
}

#[test]
fn forgetting_ends_the_link_and_a_new_key_can_be_approved_then() {
    let mut world = linked();
    forget(&mut world, 0, "node-1");
    world.run(SECOND);
    assert!(world.nodes[0].paths.is_empty() && world.nodes[1].paths.is_empty());
    world.run(300 * SECOND);
    assert!(no_paths(&world));
    assert_eq!(waiting(&world, 0).len(), 1);
    let gone = world.nodes[0].overlay.forget("node-1").map(|_| ());
    assert_eq!(gone, Err(ApprovalError::Unknown("node-1".to_owned())));
    let other = Identity::generate().expect("self-signed");
    world.identities.insert(1, other.to_pem().expect("PEM"));
    world.restart(1);
    world.sign_in(1, "r");
    world.run(SECOND);
    let read = code(&world, 0);
    approve(&mut world, 0, "node-1@demo", &read).expect("it waits");
    assert!(world.run_until(90 * SECOND, World::all_up));
    world.check_every_path();
}

#[test]
fn invented_members_wait_in_bounded_number_and_keep_no_approved_one_away() {
    let mut world = linked();
    let now = world.now;
    for n in 0..1000u32 {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        let name = format!("made-up-{n}");
        let invented = advertisement(&name, 100, Some(Fingerprint(key)));
        let jid = format!("{name}@demo/r");
        world.nodes[0].overlay.peer_present(now, jid, invented);
    }
    // One of them by many connections.
    for n in 0..100u8 {
        let invented = advertisement("made-up-0", 101, Some(Fingerprint([n; 32])));
        let jid = format!("made-up-0@demo/{n}");
        world.nodes[0].overlay.peer_present(now, jid, invented);
    }
    let pinning = world.nodes[0].overlay.pinning().expect("pinned");
    assert!(pinning.waiting.len() <= 64 + 4, "{}", pinning.waiting.len());
    assert_eq!(pinning.unheard, 1000 - 64);
    assert!(world.nodes[0].overlay.peers(now).len() <= 65);
    assert!(world.nodes[0].overlay.refusals(now).len() <= 64);
    world.run(SECOND);
    assert!(world.all_up());
    world.restart(1);
    world.sign_in(1, "again");
    assert!(world.run_until(90 * SECOND, World::all_up));
    assert_eq!(world.nodes[0].paths.len(), 1);
}

#[test]
fn a_replayed_presence_makes_nobody_the_approved_peer() {
    let mut world = linked();
    let now = world.now;
    let key = own(&world, 1);
    // What the approved peer says, under another account.
    let replayed = advertisement("node-1", 2, Some(key));
    let jid = "mallory@demo/r".to_owned();
    world.nodes[0].overlay.peer_present(now, jid, replayed);
    world.run(30 * SECOND);
    assert_eq!(waiting(&world, 0), []);
    assert_eq!(
        alarms(&world, 0, "mallory@demo"),
        ["it has the key with which node-1@demo was approved"]
    );
    // Two who wait are told apart by their accounts.
    let stranger = Fingerprint([9; 32]);
    let now = world.now;
    for account in ["x", "y"] {
        let same = advertisement("new", 50, Some(stranger));
        let jid = format!("{account}@demo/r");
        world.nodes[0].overlay.peer_present(now, jid, same);
    }
    let by_key = Proof::Fingerprint(stranger);
    let several = world.nodes[0].overlay.approve("new", by_key);
    assert!(
        matches!(several, Err(ApprovalError::Several { .. })),
        "{several:?}"
    );
    let (_, pins) = world.nodes[0]
        .overlay
        .approve("x@demo", by_key)
        .expect("one");
    put(&mut world, 0, pins);
    assert_eq!(waiting(&world, 0), []);
    let told = alarms(&world, 0, "y@demo");
    assert_eq!(told, ["it has the key with which x@demo was approved"]);
}

#[test]
fn a_peer_that_does_not_say_which_key_it_has_cannot_be_approved() {
    let mut world = world(2);
    world.pins.remove(&1);
    world.restart(1);
    world.sign_in_all();
    world.run(120 * SECOND);
    assert!(no_paths(&world));
    let waits = waiting(&world, 0);
    assert_eq!((waits.len(), waits[0].fingerprint), (1, None));
    let key = Proof::Fingerprint(Fingerprint([1; 32]));
    let error = world.nodes[0].overlay.approve("node-1", key);
    assert!(
        matches!(error, Err(ApprovalError::Refused { .. })),
        "{error:?}"
    );
}
