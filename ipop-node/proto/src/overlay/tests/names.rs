//! By what name others rely on who a peer is.

use std::collections::BTreeSet;
use std::time::Duration;

use super::world::{World, addrs};
use crate::overlay::{Identity, StaticPeer};

const SOON: Duration = Duration::from_secs(5);

/// The names of the peers that node `i` has a way to.
fn vouched(world: &World, i: usize) -> Vec<&str> {
    let node = &world.nodes[i];
    let keys = node.paths.keys();
    let names = keys.filter_map(|peer| node.overlay.vouched_name(*peer));
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

#[test]
fn a_member_that_calls_itself_otherwise_than_its_account_is_known_by_that() {
    let mut world = World::open(4);
    world.nodes[1].name = "node-2".to_owned();
    world.sign_in_all();
    assert!(world.run_until(SOON, |world| vouched(world, 0).len() == 3));
    assert_eq!(vouched(&world, 0), ["node-1@demo", "node-2", "node-3"]);
}

#[test]
fn the_name_of_a_peer_by_configuration_is_nobody_elses() {
    let mut world = World::open(1);
    let peer = StaticPeer {
        name: "node-1".to_owned(),
        addrs: addrs(9),
        fingerprint: Identity::generate().expect("an identity").fingerprint(),
        endpoints: Vec::new(),
        groups: BTreeSet::new(),
    };
    world.configured.insert(1, Vec::new());
    let now = world.now;
    world.nodes[0].overlay.add_static(now, peer);
    let underlay = std::net::IpAddr::from([203, 0, 113, 2]);
    world.network.add_host(underlay, None);
    world.add_node(underlay);
    world.sign_in_all();
    assert!(world.run_until(SOON, |world| vouched(world, 0).len() == 1));
    assert_eq!(vouched(&world, 0), ["node-1@demo"]);
}
