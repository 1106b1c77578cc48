//! What the data path is told.

use std::time::Duration;

use super::world::World;
use crate::link::RENEW_EVERY;
use crate::sim::NatKind;

const SECOND: Duration = Duration::from_secs(1);

/// What node `i` told of its only path.
fn only(world: &World, i: usize) -> crate::overlay::PeerPath {
    let paths: Vec<_> = world.nodes[i].paths.values().collect();
    assert_eq!(paths.len(), 1, "node {i}");
    paths[0].clone()
}

#[test]
fn the_way_to_a_neighbour_is_its_own_address_and_both_ends_have_the_same_keys() {
    let mut world = World::open(2);
    world.sign_in_all();
    assert!(world.run_until(5 * SECOND, World::all_up));
    let (one, other) = (only(&world, 0), only(&world, 1));
    assert_eq!(one.route.local, other.route.remote);
    assert_eq!(one.route.remote, other.route.local);
    assert_eq!(one.route.channel, None);
    assert_eq!(one.keys.sending.tag(), other.keys.receiving[0].tag());
    assert_eq!(other.addrs, world.peer(1, 0).expect("known").addrs);
    one.traffic.sent(3, 300);
    assert_eq!(world.peer(0, 1).expect("known").tx_bytes, 300);
}

#[test]
fn new_keys_are_told() {
    let mut world = World::open(2);
    world.sign_in_all();
    assert!(world.run_until(5 * SECOND, World::all_up));
    let first = only(&world, 0).keys.sending.tag();
    for _ in 0..20 {
        world.check_every_path();
    }
    world.run(RENEW_EVERY + SECOND);
    assert_ne!(only(&world, 0).keys.sending.tag(), first);
    assert_eq!(only(&world, 0).keys.receiving.len(), 2);
    world.run(20 * SECOND);
    assert_eq!(only(&world, 0).keys.receiving.len(), 1);
}

#[test]
fn a_relayed_way_goes_in_the_channel_once_it_is_bound() {
    let mut world = World::behind(NatKind::SYMMETRIC, 2);
    world.sign_in_all();
    assert!(world.run_until(20 * SECOND, World::all_up));
    world.check_every_path();
    world.run(SECOND);
    let server: std::net::SocketAddr = "192.0.2.1:3478".parse().expect("valid");
    let ways: Vec<_> = (0..2).map(|i| only(&world, i).route).collect();
    // At least one end relays; the other may send to the relayed address like to any other.
    assert!(
        ways.iter()
            .any(|way| way.remote == server && way.channel.is_some()),
        "{ways:?}"
    );
}

#[test]
fn the_way_is_taken_back_when_the_link_ends() {
    let mut world = World::open(2);
    world.sign_in_all();
    assert!(world.run_until(5 * SECOND, World::all_up));
    let now = world.now;
    world.nodes[0].overlay.leave(now);
    world.run(SECOND);
    assert!(world.nodes[0].paths.is_empty());
    assert!(world.nodes[1].paths.is_empty());
}
