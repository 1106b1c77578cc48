//! Links between members, through NATs, and over the members' comings and goings.

use std::time::Duration;

use super::world::{World, ip, v4};
use crate::candidate::CandidateKind;
use crate::signal::{Signal, TerminateReason};
use crate::sim::NatKind;
use crate::status::{LinkState, PeerStatus};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn two_nodes_link_and_carry_both_families() {
    let mut world = World::open(2);
    world.sign_in_all();
    assert!(world.run_until(Duration::from_secs(1), World::all_up));
    world.check_every_path();
    let peer = world.peer(0, 1).expect("known");
    assert_eq!(peer.link_kind(), Some(CandidateKind::Host));
    assert_eq!((peer.tx_packets, peer.rx_packets), (2, 2));
    assert!(peer.setup_ms.expect("measured") < 1000);
    assert_eq!(world.nodes[0].overlay.linked(), ["node-1"]);
    assert_eq!(world.nodes[0].events, ["up node-1"]);
}

#[test]
fn five_nodes_all_link() {
    let mut world = World::open(5);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    world.check_every_path();
    assert!(world.nodes.iter().all(|n| n.overlay.linked().len() == 4));
}

#[test]
fn idle_links_are_looked_after_together() {
    const MINUTE: Duration = Duration::from_secs(60);
    let mut world = World::open(12);
    for i in 0..12 {
        world.sign_in(i, "r");
        world.run(Duration::from_millis(370));
    }
    assert!(world.run_until(SOON, World::all_up));
    world.run(MINUTE);
    for node in &mut world.nodes {
        node.awake.clear();
    }
    world.run(MINUTE);
    assert!(world.all_up());
    // Each by itself: eleven links, a check, its answer and the peer's check, four times.
    let apart = 11 * 3 * 4;
    for node in &world.nodes {
        let times = node.awake.len();
        assert!(times < apart / 2, "{}: {times} times a minute", node.name);
    }
}

/// Links of a node that are being set up.
fn under_way(world: &World, i: usize) -> usize {
    let peers = world.nodes[i].overlay.peers(world.now);
    let is_set_up =
        |p: &&PeerStatus| matches!(p.link, LinkState::Checking | LinkState::Handshaking);
    peers.iter().filter(is_set_up).count()
}

#[test]
fn a_node_that_joins_many_sets_up_a_few_links_at_once() {
    // It answers the others in one order, and asks them in the other.
    for joins in [11, 0] {
        let mut world = World::open(12);
        let others: Vec<_> = (0..12).filter(|i| *i != joins).collect();
        for i in &others {
            world.sign_in(*i, "r");
        }
        let is_up = |w: &World, i: usize, j: usize| i == j || w.is_up(i, j);
        let all = |w: &World| {
            others
                .iter()
                .all(|i| others.iter().all(|j| is_up(w, *i, *j)))
        };
        assert!(world.run_until(SOON, all));
        world.sign_in(joins, "r");
        let mut most = 0;
        while !world.all_up() {
            world.run(Duration::from_millis(1));
            most = most.max(under_way(&world, joins));
            assert!(most <= 4, "{most} at once");
        }
        assert_eq!(most, 4);
    }
}

#[test]
fn peers_that_cannot_be_reached_keep_others_waiting_for_a_short_time() {
    let mut world = World::open(12);
    for i in 1..9 {
        let (one, other) = (world.nodes[0].underlay, world.nodes[i].underlay);
        world.network.block(one, other);
    }
    world.sign_in_all();
    let reached = |w: &World| (9..12).all(|i| w.is_up(0, i));
    assert!(world.run_until(Duration::from_secs(10), reached));
}

#[test]
fn nodes_behind_home_nats_link_directly() {
    let mut world = World::behind(NatKind::HOME, 3);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    world.check_every_path();
    for (i, j) in [(0, 1), (0, 2), (1, 2)] {
        let kind = world.peer(i, j).expect("known").link_kind();
        assert_ne!(kind, Some(CandidateKind::Relay), "{i} {j}");
    }
}

#[test]
fn nodes_behind_symmetric_nats_link_through_the_relay() {
    let mut world = World::behind(NatKind::SYMMETRIC, 2);
    world.sign_in_all();
    assert!(world.run_until(Duration::from_secs(10), World::all_up));
    world.check_every_path();
    assert_eq!(
        world.peer(0, 1).expect("known").link_kind(),
        Some(CandidateKind::Relay)
    );
    // Long enough for the permissions and channels of the relay to need renewal.
    world.run(Duration::from_secs(1500));
    assert!(world.all_up());
    world.check_every_path();
    assert!(world.server.as_ref().expect("a server").channel_messages() > 0);
}

#[test]
fn relay_only_nodes_signal_nothing_but_relays() {
    let mut world = World::new();
    world.relay_only = true;
    world.add_server();
    for addr in [ip("203.0.113.1"), ip("203.0.113.2")] {
        world.network.add_host(addr, None);
        world.add_node(addr);
    }
    world.sign_in_all();
    assert!(world.run_until(Duration::from_secs(10), World::all_up));
    world.check_every_path();
    assert_eq!(
        world.peer(0, 1).expect("known").link_kind(),
        Some(CandidateKind::Relay)
    );
    let text = format!("{:?}", world.signals);
    assert!(
        !text.contains("Host") && !text.contains("203.0.113"),
        "{text}"
    );
}

#[test]
fn a_member_that_leaves_is_forgotten_at_once_and_linked_again_when_it_returns() {
    let mut world = World::open(3);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    let now = world.now;
    world.nodes[1].overlay.leave(now);
    world.run(Duration::from_millis(50));
    assert!(world.why(0, 1).starts_with("the peer left"));
    let before = world.signals.len();
    world.run(Duration::from_secs(20));
    assert_eq!(world.signals.len(), before, "it is left alone");
    world.sign_out(1, false);
    assert!(world.peer(0, 1).is_none());
    assert!(world.is_up(0, 2));
    assert!(
        world.nodes[0]
            .events
            .iter()
            .any(|e| e.starts_with("down node-1"))
    );
    world.restart(1);
    world.sign_in(1, "r");
    assert!(world.run_until(SOON, World::all_up));
    world.check_every_path();
}

#[test]
fn links_carry_on_while_the_xmpp_server_is_away_and_after_it_is_back() {
    let mut world = World::open(3);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    for i in 0..3 {
        world.sign_out(i, true);
    }
    world.run(Duration::from_secs(600));
    assert!(world.all_up());
    world.check_every_path();
    for i in 0..3 {
        world.sign_in(i, "another");
    }
    world.run(Duration::from_secs(60));
    world.check_every_path();
    for node in &world.nodes {
        assert!(
            !node.events.iter().any(|e| e.starts_with("down")),
            "{:?}",
            node.events
        );
    }
}

#[test]
fn a_peer_that_died_unseen_is_replaced_when_it_is_back() {
    // Both ways round: the restarted one initiates, or is initiated to.
    for restarted in [0, 1] {
        let mut world = World::open(2);
        world.sign_in_all();
        assert!(world.run_until(SOON, World::all_up));
        for i in 0..2 {
            world.publish(i);
        }
        world.run(Duration::from_secs(10));
        world.restart(restarted);
        world.sign_in(restarted, "after");
        assert!(
            world.run_until(Duration::from_secs(2), World::all_up),
            "restarted {restarted}"
        );
        world.check_every_path();
        world.run(Duration::from_secs(60));
        assert!(world.all_up());
    }
}

#[test]
fn a_peer_that_restarts_under_the_same_jid_is_replaced_when_it_is_back() {
    let mut world = World::open(2);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    world.run(Duration::from_secs(10));
    for i in 0..2 {
        world.publish(i);
    }
    world.restart(1);
    world.sign_in(1, "r");
    assert!(world.run_until(Duration::from_secs(2), World::all_up));
    world.check_every_path();
}

#[test]
fn a_broken_path_takes_the_link_down_and_a_mended_one_brings_it_back() {
    let mut world = World::open(2);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    world.network.block(ip("203.0.113.1"), ip("203.0.113.2"));
    let down = |w: &World| !w.is_up(0, 1) && !w.is_up(1, 0);
    assert!(world.run_until(Duration::from_secs(60), down));
    world.run(Duration::from_secs(120));
    world.network.unblock();
    assert!(world.run_until(Duration::from_secs(120), World::all_up));
    world.check_every_path();
}

#[test]
fn a_peer_that_is_gone_is_dropped_when_its_link_dies() {
    let mut world = World::open(2);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    world.sign_out(1, false);
    world.run(Duration::from_secs(5));
    assert!(world.is_up(0, 1), "kept while it works");
    world.network.block(ip("203.0.113.1"), ip("203.0.113.2"));
    world.run(Duration::from_secs(60));
    assert!(world.peer(0, 1).is_none());
}

#[test]
fn a_member_that_is_expelled_loses_its_working_link_at_once() {
    let mut world = World::open(3);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    let (now, before) = (world.now, world.signals.len());
    world.nodes[0].overlay.peer_expelled(now, "node-1@demo");
    assert!(world.peer(0, 1).is_none());
    world.run(Duration::from_millis(50));
    assert_eq!(
        world.nodes[0].events.last().map(String::as_str),
        Some("down node-1: the peer is no longer a member")
    );
    let told = &world.signals[before..];
    assert!(
        told.iter().any(|(_, to, signal)| to == "node-1@demo/r"
            && matches!(
                signal,
                Signal::Terminate {
                    reason: TerminateReason::Success,
                    ..
                }
            )),
        "{told:?}"
    );
    world.nodes[0]
        .overlay
        .handle_packet(world.now, &v4(1, 2, b"hello"));
    world.run(Duration::from_secs(20));
    assert!(world.nodes[1].packets.is_empty());
    assert!(world.peer(0, 1).is_none() && !world.is_up(1, 0));
    assert!(world.is_up(0, 2));
}

#[test]
fn a_node_that_moves_to_another_address_is_linked_again() {
    let mut world = World::open(2);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    world.network.add_host(ip("203.0.113.77"), None);
    world.nodes[1].underlay = ip("203.0.113.77");
    let now = world.now;
    world.nodes[1]
        .overlay
        .set_sockets(now, vec!["203.0.113.77:4000".parse().expect("valid")]);
    assert!(world.run_until(Duration::from_secs(5), World::all_up));
    world.check_every_path();
}

#[test]
fn a_peer_that_restarts_while_it_is_asked_is_asked_again_at_once() {
    let mut world = World::open(2);
    world.sign_in_all();
    world.run(Duration::from_millis(5));
    world.restart(1);
    for node in &mut world.nodes[..1] {
        node.overlay.peer_gone(world.now, "node-1@demo/r");
    }
    world.run(Duration::from_millis(100));
    world.sign_in(1, "r");
    assert!(world.run_until(Duration::from_secs(1), World::all_up));
}

#[test]
fn signing_out_while_a_peer_is_asked_loses_no_time() {
    let mut world = World::open(2);
    world.sign_in_all();
    world.run(Duration::from_millis(5));
    for i in 0..2 {
        world.sign_out(i, true);
    }
    world.run(Duration::from_millis(100));
    world.sign_in_all();
    assert!(world.run_until(Duration::from_secs(1), World::all_up));
}
