//! Peers by configuration: two nodes and no server.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::world::{World, addrs, ip, v4};
use crate::link::CONSENT_TIMEOUT;
use crate::overlay::{Identity, StaticPeer};
use crate::sim::NatKind;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// There and back on the simulated underlay.
const RTT: Duration = Duration::from_millis(10);
/// ICE takes two round trips, DTLS three and a half; the rest is the pace of checks.
const SOON: Duration = Duration::from_millis(75);
/// For a round of handshakes that met one obstacle: a lost first check, a flight sent twice.
const AGAIN: Duration = SECOND;

fn underlay(i: usize) -> IpAddr {
    IpAddr::from([203, 0, 113, i as u8 + 1])
}

fn endpoint(i: usize) -> SocketAddr {
    SocketAddr::new(underlay(i), 4000)
}

/// Hosts for two nodes that know each other; `reachable` have an endpoint in the other's
/// configuration. Node 0 controls and is the DTLS client.
fn configured(reachable: [bool; 2]) -> World {
    let mut world = World::new();
    let mut identities = [(); 2].map(|()| Identity::generate().expect("an identity"));
    identities.sort_by_key(|identity| identity.fingerprint().0);
    for (i, identity) in identities.iter().enumerate() {
        world.network.add_host(underlay(i), None);
        world.identities.insert(i, identity.to_pem().expect("PEM"));
        let peer = StaticPeer {
            name: format!("node-{i}"),
            addrs: addrs(i as u8 + 1),
            fingerprint: identity.fingerprint(),
            endpoints: reachable[i].then_some(endpoint(i)).into_iter().collect(),
            groups: BTreeSet::new(),
        };
        world.configured.insert(1 - i, vec![peer]);
    }
    world
}

/// Two nodes that know each other, each as one of these groups.
pub(super) fn in_groups(groups: [&[&str]; 2]) -> World {
    let mut world = configured([true; 2]);
    for (i, groups) in groups.iter().enumerate() {
        let known = world.configured.get_mut(&(1 - i)).expect("one");
        known[0].groups = groups.iter().map(|group| (*group).to_owned()).collect();
    }
    for i in 0..2 {
        world.add_node(underlay(i));
    }
    world
}

/// Two nodes that run; the second one was started so much `later`.
fn started(reachable: [bool; 2], first: usize, later: Duration) -> World {
    let mut world = configured(reachable);
    for i in 0..2 {
        world.add_node(underlay(i));
    }
    world.kill(1 - first);
    world.run(later);
    world.restart(1 - first);
    world
}

/// How long it takes until both are linked.
fn linked_after(world: &mut World, limit: Duration) -> Duration {
    let start = world.now;
    while !world.all_up() {
        let took = world.now - start;
        assert!(
            took < limit,
            "{:?} {:?}",
            world.peer(0, 1),
            world.peer(1, 0)
        );
        world.run(MILLISECOND);
    }
    world.now - start
}

fn linked() -> World {
    let mut world = started([true; 2], 0, Duration::ZERO);
    linked_after(&mut world, SOON);
    world
}

fn handshake_datagrams(world: &World) -> usize {
    let log = world.network.log().iter();
    log.filter(|(_, _, payload)| payload[0] == 22).count()
}

fn downs(world: &World, i: usize) -> usize {
    let events = world.nodes[i].events.iter();
    events.filter(|event| event.starts_with("down")).count()
}

#[test]
fn two_nodes_that_start_together_are_linked_in_a_few_round_trips() {
    let mut world = started([true; 2], 0, Duration::ZERO);
    let took = linked_after(&mut world, SOON);
    assert!(took <= 6 * RTT + 15 * MILLISECOND, "{took:?}");
    world.check_every_path();
    assert!(world.signals.is_empty());
    assert_eq!(world.nodes[0].events, ["up node-1"]);
    assert_eq!(world.nodes[1].overlay.linked(), ["node-0"]);
}

#[test]
fn a_node_that_starts_later_is_linked_as_soon() {
    for later in [SECOND / 10, SECOND, 7 * SECOND, 65 * SECOND, 600 * SECOND] {
        for first in 0..2 {
            for reachable in [[true, true], [true, false], [false, true]] {
                let mut world = started(reachable, first, later);
                // Who has no endpoint of the other must wait for the other's next check.
                let waits = match (reachable[first], later < 5 * SECOND) {
                    (true, _) => Duration::ZERO,
                    (false, true) => 100 * MILLISECOND,
                    (false, false) => 250 * MILLISECOND,
                };
                linked_after(&mut world, waits + SOON);
                world.check_every_path();
            }
        }
    }
}

#[test]
fn a_node_that_restarts_is_linked_again_at_once_and_the_other_notices_no_outage() {
    for restarted in 0..2 {
        for talks in [None, Some(0), Some(1)] {
            for gap in [Duration::ZERO, 5 * SECOND] {
                let mut world = linked();
                world.run(3 * SECOND);
                world.kill(restarted);
                let end = world.now + gap;
                while world.now < end {
                    if talks == Some(1 - restarted) {
                        let packet = v4(2 - restarted as u8, restarted as u8 + 1, b"ping");
                        let now = world.now;
                        world.nodes[1 - restarted]
                            .overlay
                            .handle_packet(now, &packet);
                    }
                    world.run(10 * MILLISECOND);
                }
                world.restart(restarted);
                let (start, mut arrived) = (world.now, None);
                while arrived.is_none() || !world.all_up() {
                    let (from, to) = (talks.unwrap_or(0), 1 - talks.unwrap_or(0));
                    let packet = v4(from as u8 + 1, to as u8 + 1, b"ping");
                    world.nodes[to].packets.clear();
                    // The idle ones say nothing until both think that they are linked.
                    if talks.is_some() || world.all_up() {
                        let now = world.now;
                        world.nodes[from].overlay.handle_packet(now, &packet);
                    }
                    world.run(10 * MILLISECOND);
                    if !world.nodes[to].packets.is_empty() {
                        arrived.get_or_insert(world.now - start);
                    }
                    let took = world.now - start;
                    assert!(took < AGAIN, "{restarted} {talks:?} {gap:?}: {arrived:?}");
                }
                world.check_every_path();
                assert_eq!(downs(&world, 1 - restarted), 0);
                // It goes on working, and settles.
                world.run(60 * SECOND);
                world.check_every_path();
                assert_eq!(downs(&world, 1 - restarted), 0);
            }
        }
    }
}

#[test]
fn a_node_that_restarts_again_and_again_is_linked_when_it_stays() {
    for restarted in 0..2 {
        let mut world = linked();
        for _ in 0..20 {
            world.run(37 * MILLISECOND);
            world.restart(restarted);
        }
        linked_after(&mut world, 5 * SECOND);
        world.run(5 * SECOND);
        world.check_every_path();
    }
}

#[test]
fn an_idle_link_is_quiet_after_a_restart() {
    for restarted in 0..2 {
        let mut world = linked();
        world.restart(restarted);
        world.run(30 * SECOND);
        let before = world.network.log().len();
        world.run(60 * SECOND);
        let sent = world.network.log().len() - before;
        // Every 2.5 s a check of either side, with its answer; the controlled one checks back.
        assert!(sent <= 150, "{sent} datagrams in a minute");
    }
}

#[test]
fn a_node_that_left_is_linked_when_it_comes_back() {
    let mut world = linked();
    world.run(10 * SECOND);
    let now = world.now;
    world.nodes[1].overlay.leave(now);
    world.run(100 * MILLISECOND);
    assert!(!world.is_up(0, 1));
    world.kill(1);
    world.run(100 * SECOND);
    world.restart(1);
    linked_after(&mut world, SOON);
    world.check_every_path();
}

#[test]
fn a_path_that_was_cut_for_long_carries_the_link_again() {
    let mut world = linked();
    world.network.block(underlay(0), underlay(1));
    world.run(CONSENT_TIMEOUT + 100 * SECOND);
    assert!(!world.is_up(0, 1) && !world.is_up(1, 0));
    world.network.unblock();
    linked_after(&mut world, 250 * MILLISECOND + SOON);
    world.check_every_path();
}

#[test]
fn a_node_behind_a_nat_reaches_one_with_an_endpoint() {
    let mut world = configured([false, true]);
    let nat = world
        .network
        .add_nat(NatKind::SYMMETRIC, ip("198.51.100.1"));
    let inside = ip("10.0.0.2");
    world.network.add_host(inside, Some(nat));
    world.add_node(inside);
    world.add_node(underlay(1));
    linked_after(&mut world, SOON);
    world.check_every_path();
}

#[test]
fn a_peer_with_another_certificate_is_not_linked() {
    let mut world = configured([true; 2]);
    let other = Identity::generate().expect("an identity");
    world.identities.insert(1, other.to_pem().expect("PEM"));
    for i in 0..2 {
        world.add_node(underlay(i));
    }
    world.run(100 * SECOND);
    assert!(!world.is_up(0, 1) && !world.is_up(1, 0));
    assert!(world.nodes.iter().all(|node| node.events.is_empty()));
}

#[test]
fn hellos_of_an_attacker_cost_little_and_break_nothing() {
    let mut world = linked();
    let hello = |from, to| {
        move |(source, target, payload): &&(SocketAddr, SocketAddr, bytes::BytesMut)| {
            (*source, *target) == (endpoint(from), endpoint(to)) && payload[0] == 22
        }
    };
    // What the client and the server said first, from whom they said it to whom.
    let client = world
        .network
        .log()
        .iter()
        .find(hello(0, 1))
        .expect("sent")
        .2
        .clone();
    let server = world
        .network
        .log()
        .iter()
        .find(hello(1, 0))
        .expect("sent")
        .2
        .clone();
    // RFC 5246 section 7.4.1.1.
    let mut request = vec![22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 99, 0, 12];
    request.extend([0; 12]);
    let before = handshake_datagrams(&world);
    let mut forged = 0;
    for round in 0..3000 {
        let now = world.now;
        for (from, to, payload) in [
            (0, 1, &client[..]),
            (1, 0, &server[..]),
            (1, 0, &request[..]),
            (0, 1, &request[..]),
        ] {
            world
                .network
                .send(now, endpoint(from), endpoint(to), payload.into());
            forged += 1;
        }
        world.run(10 * MILLISECOND);
        if round % 500 == 0 {
            world.check_every_path();
        }
    }
    let answers = handshake_datagrams(&world) - before - forged;
    assert!(answers <= forged / 4 + 100, "{answers} answers to {forged}");
    assert!(world.all_up());
    assert_eq!((downs(&world, 0), downs(&world, 1)), (0, 0));
    // A handshake that an attacker began does not stand in the way of a peer that restarts.
    for restarted in 0..2 {
        let now = world.now;
        world
            .network
            .send(now, endpoint(0), endpoint(1), client.clone());
        world.run(RTT);
        world.restart(restarted);
        linked_after(&mut world, AGAIN);
        world.run(SECOND);
        world.check_every_path();
    }
}

#[test]
fn old_checks_sent_again_by_an_attacker_cost_a_handshake_every_two_seconds() {
    for restarted in 0..2 {
        let mut world = linked();
        let check = world.network.log().iter().find(|(source, _, payload)| {
            *source == endpoint(restarted) && payload.starts_with(&[0, 1])
        });
        let (from, to, check) = check.expect("sent").clone();
        world.restart(restarted);
        linked_after(&mut world, AGAIN);
        world.run(5 * SECOND);
        let before = handshake_datagrams(&world);
        for round in 0..1000 {
            let now = world.now;
            world.network.send(now, from, to, check.clone());
            world.run(10 * MILLISECOND);
            if round % 250 == 0 {
                world.check_every_path();
            }
        }
        world.check_every_path();
        assert_eq!((downs(&world, 0), downs(&world, 1)), (0, 0));
        let handshakes = (handshake_datagrams(&world) - before) / 6;
        assert!(handshakes <= 8, "{handshakes} in ten seconds");
    }
}

#[test]
fn a_member_that_claims_the_address_of_a_configured_peer_is_refused_by_its_name() {
    let mut world = configured([true; 2]);
    for i in 0..2 {
        world.add_node(underlay(i));
    }
    world.network.add_host(underlay(2), None);
    world.add_node(underlay(2));
    world.nodes[2].advertised = 2;
    linked_after_static(&mut world);
    world.sign_in(0, "r");
    world.sign_in(2, "r");
    world.run(5 * SECOND);
    assert!(world.is_up(0, 1));
    let why = world.why(0, 2);
    assert!(why.ends_with("which is node-1's address"), "{why}");
}

fn linked_after_static(world: &mut World) {
    assert!(world.run_until(SECOND, |world| world.is_up(0, 1) && world.is_up(1, 0)));
}

#[test]
fn a_peer_with_an_address_of_this_node_or_its_certificate_is_refused() {
    let mut world = configured([true; 2]);
    let own = Identity::from_pem(&world.identities[&0]).expect("PEM");
    let peers = world.configured.get_mut(&0).expect("configured");
    peers[0].addrs = addrs(1);
    let mut me = peers[0].clone();
    me.name = "me".to_owned();
    me.fingerprint = own.fingerprint();
    me.addrs = addrs(9);
    peers.push(me);
    world.add_node(underlay(0));
    world.run(SECOND);
    let peers = world.nodes[0].overlay.peers(world.now);
    let whys: Vec<_> = peers
        .iter()
        .map(|peer| format!("{:?}", peer.link))
        .collect();
    assert!(whys[0].contains("own certificate"), "{whys:?}");
    assert!(whys[1].contains("own address 10.73.0.1"), "{whys:?}");
}
