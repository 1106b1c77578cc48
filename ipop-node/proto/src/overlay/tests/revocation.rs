//! Members whose certificates are revoked, and how the others learn of it.

use std::time::Duration;

use super::authority::{refusal, refusals, who, world};
use super::world::{World, v4};
use crate::authority::RevocationList;
use crate::authority::tests::Office;
use crate::gossip::message::ListId;
use crate::link::RENEW_EVERY;
use crate::overlay::Identity;
use crate::overlay::peer::PeerId;
use crate::sim::Path;
use crate::status::DropReason;

const SOON: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);
const REVOKED: &str = "the peer is refused: the certificate is revoked";

/// What a node's identity is: the world has it as PEM.
fn identity(world: &World, i: usize) -> Identity {
    Identity::from_pem(&world.identities[&i]).expect("its own")
}

/// Gives a node a list by hand, as its owner does.
fn install(world: &mut World, i: usize, list: &RevocationList) {
    let list = RevocationList::from_der(list.der()).expect("itself");
    let now = world.now;
    world.nodes[i].overlay.revoke(now, list).expect("taken");
}

fn number(world: &World, i: usize) -> Option<u64> {
    let lists = RevocationList::from_pem(&world.nodes[i].kept).expect("its own");
    lists.first().map(RevocationList::number)
}

/// All members signed in and linked; the server is gone then.
fn linked(office: &Office, count: u8) -> World {
    let mut world = world(office, count, |_| None);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    world.run(10 * SECOND);
    for i in 0..usize::from(count) {
        world.sign_out(i, true);
    }
    world
}

/// What a node knows a peer as.
fn peer_id(world: &World, i: usize, other: usize) -> PeerId {
    let table = &world.nodes[i].overlay.table;
    let name = format!("node-{other}");
    let is_it = |id: &PeerId| table.get(*id).is_some_and(|peer| peer.name == name);
    table.ids().into_iter().find(is_it).expect("a peer")
}

/// Has a member say that it has the list with this number, and send these bytes.
fn lie(world: &mut World, liar: usize, number: u64, der: &[u8]) {
    let now = world.now;
    let overlay = &mut world.nodes[liar].overlay;
    let trust = overlay.trust.as_mut().expect("an authority");
    let authority = trust.authority.ids()[0];
    trust.gossip.hold(ListId { authority, number }, der, now);
    world.run(SECOND);
}

#[test]
fn a_revoked_member_loses_every_link_at_once_without_a_server_and_gets_nothing_from_then_on() {
    let office = Office::new();
    let mut world = linked(&office, 4);
    let list = office.revoke(None, &identity(&world, 3));
    let before = world.now;
    install(&mut world, 0, &list);
    assert!(!world.is_up(0, 3), "with the very list");
    assert!(world.run_until(SECOND, |world| (0..3).all(|i| !world.is_up(i, 3))));
    println!("every link ended after {:?}", world.now - before);
    world.run(SOON);
    for i in 0..3 {
        assert_eq!(number(&world, i), Some(1));
        assert_eq!(world.nodes[i].paths.len(), 2, "no way to it");
        assert!((0..3).all(|j| i == j || world.is_up(i, j)));
        let (account, why) = refusal(&world, i);
        assert_eq!((account.as_str(), why.as_str()), ("node-3@demo", REVOKED));
        let told = format!("down node-3: {REVOKED}");
        assert!(world.nodes[i].events.contains(&told), "{told}");
    }
    // What it sends, and what is for it, gets nowhere.
    let now = world.now;
    for i in 0..3 {
        world.nodes[i].packets.clear();
        let from = v4(4, i as u8 + 1, b"let me in");
        world.nodes[3].overlay.handle_packet(now, &from);
        let to = v4(i as u8 + 1, 4, b"a secret");
        world.nodes[i].overlay.handle_packet(now, &to);
    }
    world.run(SOON);
    assert!((0..3).all(|i| world.nodes[i].packets.is_empty()));
    assert!(world.nodes[3].packets.is_empty());
    assert_eq!(number(&world, 3), None, "nobody tells it anything");
}

#[test]
fn a_revoked_member_that_comes_again_is_refused_in_the_handshake_every_time() {
    let office = Office::new();
    let mut world = linked(&office, 3);
    let list = office.revoke(None, &identity(&world, 2));
    install(&mut world, 0, &list);
    world.run(SOON);
    world.restart(2);
    world.sign_in_all();
    assert!(world.run_until(SOON, |world| world.is_up(0, 1) && world.is_up(1, 0)));
    world.run(120 * SECOND);
    for i in 0..2 {
        assert!(!world.is_up(i, 2) && !world.is_up(2, i));
        assert_eq!(
            refusals(&world, i),
            [("node-2@demo".to_owned(), REVOKED.to_owned())]
        );
        let times = world.nodes[i].overlay.refusals(world.now)[0].count;
        assert!(times > 2, "{times} times");
        assert!(world.why(i, 2).starts_with(REVOKED), "{}", world.why(i, 2));
        assert_eq!(world.nodes[i].paths.len(), 1);
    }
    assert!(world.nodes[2].paths.is_empty());
    // With another certificate it is a member again.
    let renewed = office.identity_from(&who(2), Office::today(), 90);
    world.nodes[2].overlay.set_identity(renewed);
    assert!(world.run_until(120 * SECOND, World::all_up));
    world.check_every_path();
}

#[test]
fn a_list_goes_down_a_chain_of_members() {
    let office = Office::new();
    let mut world = world(&office, 4, |_| None);
    // 0 – 1 – 2, and the one to be revoked is linked to the last only.
    for (a, b) in [(0, 2), (0, 3), (1, 3)] {
        let [a, b] = [a, b].map(|i| world.nodes[i].underlay);
        world.network.block(a, b);
    }
    world.sign_in_all();
    let is_chain = |world: &World| {
        [(0, 1), (1, 2), (2, 3)]
            .iter()
            .all(|(a, b)| world.is_up(*a, *b) && world.is_up(*b, *a))
    };
    assert!(world.run_until(SOON, is_chain));
    world.run(10 * SECOND);
    for i in 0..4 {
        world.sign_out(i, true);
    }
    assert!(!world.is_up(0, 2) && !world.is_up(0, 3));
    let list = office.revoke(None, &identity(&world, 3));
    install(&mut world, 0, &list);
    assert!(world.run_until(SECOND, |world| !world.is_up(2, 3)));
    for (i, from) in [(0, "its owner"), (1, "node-0"), (2, "node-1")] {
        assert_eq!(number(&world, i), Some(1));
        let told = format!("list 1 from {from}");
        assert!(world.nodes[i].events.contains(&told), "{told}");
    }
    assert!(world.is_up(0, 1) && world.is_up(1, 2));
}

#[test]
fn a_member_that_was_away_learns_with_its_next_link_whichever_side_is_behind() {
    let office = Office::new();
    for behind in [0, 1] {
        let mut world = linked(&office, 3);
        let list = office.revoke(None, &identity(&world, 2));
        world.kill(behind);
        world.run(60 * SECOND);
        install(&mut world, 1 - behind, &list);
        world.run(SOON);
        world.restart(behind);
        world.sign_in_all();
        let has_it = |world: &World| number(world, behind) == Some(1);
        assert!(world.run_until(30 * SECOND, has_it));
        world.run(60 * SECOND);
        assert!(world.is_up(0, 1) && world.is_up(1, 0));
        assert!((0..2).all(|i| !world.is_up(i, 2)));
    }
}

#[test]
fn a_restart_keeps_the_list() {
    let office = Office::new();
    let mut world = linked(&office, 2);
    let list = office.revoke(None, &identity(&world, 1));
    install(&mut world, 0, &list);
    world.run(SECOND);
    world.restart(0);
    world.sign_in_all();
    world.run(60 * SECOND);
    assert!(!world.is_up(0, 1) && !world.is_up(1, 0));
    assert_eq!(
        refusal(&world, 0),
        ("node-1@demo".to_owned(), REVOKED.to_owned())
    );
}

#[test]
fn nobody_goes_back_to_an_older_list() {
    let office = Office::new();
    let mut world = linked(&office, 4);
    let first = office.revoke(None, &identity(&world, 2));
    let second = office.revoke(Some(&first), &identity(&world, 3));
    install(&mut world, 0, &second);
    world.run(SECOND);
    assert_eq!(number(&world, 1), Some(2));
    let older = RevocationList::from_der(first.der()).expect("itself");
    let now = world.now;
    let error = world.nodes[0]
        .overlay
        .revoke(now, older)
        .expect_err("older");
    assert_eq!(error.to_string(), "its number is 1, and 2 is known");
    // Nor does a member that says it has a newer one, and sends the older.
    lie(&mut world, 0, u64::MAX, first.der());
    assert_eq!(number(&world, 1), Some(2));
    let why = "its revocation list is not taken: it is said to have another number";
    let told = refusals(&world, 1);
    assert!(
        told.iter()
            .any(|(account, w)| account == "node-0@demo" && w == why),
        "{told:?}"
    );
    let drops = world.peer(1, 0).expect("known").drops;
    assert_eq!(drops.get(&DropReason::BadList), Some(&1));
    assert!((2..4).all(|gone| !world.is_up(1, gone)));
}

#[test]
fn a_list_that_the_authority_did_not_sign_is_counted_and_changes_nothing() {
    let (office, stranger) = (Office::new(), Office::new());
    let mut world = linked(&office, 3);
    let forged = stranger.revoke(None, &stranger.identity(&who(2)));
    for (number, der, why) in [
        (
            1,
            forged.der().to_vec(),
            "it is not signed by this overlay's authority",
        ),
        (2, vec![0x30; 3000], "it cannot be read: "),
    ] {
        let count = |world: &World| {
            let drops = world.peer(1, 0).expect("known").drops;
            drops.get(&DropReason::BadList).copied().unwrap_or(0)
        };
        let before = count(&world);
        lie(&mut world, 0, number, &der);
        // Whoever has done that before is not asked for a while.
        world.run(60 * SECOND);
        let asked = count(&world) - before;
        assert!((1..=3).contains(&asked), "{asked} times");
        let told = refusals(&world, 1);
        let why = format!("its revocation list is not taken: {why}");
        assert!(
            told.iter().any(|(_, told)| told.starts_with(&why)),
            "{told:?}"
        );
    }
    assert_eq!(number(&world, 1), None);
    assert!(world.all_up());
    world.check_every_path();
}

#[test]
fn members_of_an_overlay_where_nobody_is_revoked_say_nothing_of_it() {
    let office = Office::new();
    let mut world = linked(&office, 2);
    let told = |world: &World| {
        let peer = world.peer(0, 1).expect("known");
        (peer.tx_packets, peer.rx_packets, peer.drops)
    };
    let before = told(&world);
    world.run(60 * SECOND);
    assert_eq!(told(&world), before);
    // What is no message at all is counted and nothing more.
    let now = world.now;
    let id = peer_id(&world, 1, 0);
    world.nodes[1].overlay.tell(now, id, b"of a later version");
    world.run(SECOND);
    let drops = world.peer(0, 1).expect("known").drops;
    assert_eq!(drops.get(&DropReason::UnknownContent), Some(&1));
    assert!(world.all_up());
}

#[test]
fn keys_are_not_renewed_with_a_revoked_certificate() {
    let office = Office::new();
    let mut world = world(&office, 2, |_| None);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    // Node 1 is given a certificate that is revoked before any handshake has shown it; the link is
    // made with the first one, which is good.
    let second = office.identity_from(&who(1), Office::today(), 90);
    let list = office.revoke(None, &second);
    install(&mut world, 0, &list);
    world.run(SECOND);
    assert!(world.all_up(), "the first one is good");
    world.nodes[1].overlay.set_identity(second);
    let now = world.now;
    let mut sent = 0_u32;
    // Keys in use are renewed.
    while world.now < now + RENEW_EVERY + 60 * SECOND {
        let now = world.now;
        let packet = v4(1, 2, &sent.to_be_bytes());
        world.nodes[0].overlay.handle_packet(now, &packet);
        sent += 1;
        world.run(SECOND);
    }
    // The keys that there are stay, and no others come: an attempt that fails changes nothing.
    assert_eq!(world.nodes[1].packets.len(), sent as usize);
    let peer = world.nodes[0].overlay.table.get(peer_id(&world, 0, 1));
    let session = peer.and_then(|peer| peer.session.as_ref());
    let shown = session.and_then(|session| session.link.shown());
    assert_eq!(shown, Some(identity(&world, 1).fingerprint()));
}

#[test]
fn a_node_that_is_revoked_itself_knows_it_when_it_hears_of_it() {
    let office = Office::new();
    let mut world = linked(&office, 3);
    assert!(!world.nodes[2].overlay.is_revoked());
    let list = office.revoke(None, &identity(&world, 2));
    install(&mut world, 2, &list);
    assert!(world.nodes[2].overlay.is_revoked());
    // What it knows it passes on, though it is the last thing that it is listened to for.
    assert!(world.run_until(SECOND, |world| !world.is_up(0, 2) && !world.is_up(1, 2)));
    world.run(SECOND);
    assert!((0..2).all(|i| number(&world, i) == Some(1)));
    assert!(world.is_up(0, 1));
    let renewed = office.identity_from(&who(2), Office::today(), 90);
    world.nodes[2].overlay.set_identity(renewed);
    assert!(!world.nodes[2].overlay.is_revoked());
}

#[test]
fn a_large_list_crosses_a_path_that_loses_datagrams() {
    let office = Office::new();
    let mut world = linked(&office, 3);
    let list = office.revoke_among(None, &identity(&world, 2), 1500);
    assert!(list.der().len() > 50_000);
    world.network.set_path(Path {
        loss: 0.1,
        ..Path::default()
    });
    install(&mut world, 0, &list);
    assert!(world.run_until(20 * SECOND, |world| !world.is_up(1, 2)));
    assert_eq!(number(&world, 1), Some(1));
    assert!(world.is_up(0, 1));
}
