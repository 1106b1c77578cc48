//! Packets that are carried, refused and answered.

use std::time::Duration;

use super::world::{World, addrs, v4, v6};
use crate::status::DropReason;

fn linked() -> World {
    let mut world = World::open(3);
    world.sign_in_all();
    assert!(world.run_until(Duration::from_secs(5), World::all_up));
    world
}

fn dropped(world: &World, i: usize, other: usize, reason: DropReason) -> u64 {
    world
        .peer(i, other)
        .expect("known")
        .drops
        .get(&reason)
        .copied()
        .unwrap_or(0)
}

#[test]
fn a_packet_for_nobody_is_counted_and_answered_with_unreachable() {
    let mut world = linked();
    let now = world.now;
    world.nodes[0].overlay.handle_packet(now, &v4(1, 99, b"x"));
    world.nodes[0].overlay.handle_packet(now, &v6(1, 99));
    world.run(Duration::from_millis(1));
    assert_eq!(
        world.nodes[0].overlay.drops().get(&DropReason::NoMember),
        Some(&2)
    );
    // The second came too soon for another answer.
    assert_eq!(world.nodes[0].packets.len(), 1);
    assert_eq!(world.nodes[0].packets[0][20..22], [3, 1]);
}

#[test]
fn a_packet_above_the_mtu_is_counted_and_answered_with_the_mtu() {
    let mut world = linked();
    let now = world.now;
    world.nodes[0]
        .overlay
        .handle_packet(now, &v4(1, 2, &[0; 1400]));
    world.run(Duration::from_millis(50));
    assert_eq!(dropped(&world, 0, 1, DropReason::TooBig), 1);
    assert_eq!(world.nodes[0].packets[0][20..22], [3, 4]);
    assert_eq!(world.nodes[0].packets[0][26..28], 1400_u16.to_be_bytes());
    world.nodes[0]
        .overlay
        .handle_packet(now, &v4(1, 2, &[0; 1380]));
    world.run(Duration::from_millis(50));
    assert_eq!(world.nodes[1].packets[0].len(), 1400);
}

#[test]
fn multicast_broadcast_and_garbage_are_counted_without_an_answer() {
    let mut world = linked();
    let now = world.now;
    let mut multicast = v6(1, 2);
    multicast[24] = 0xff;
    for packet in [multicast, v4(1, 255, b"")] {
        world.nodes[0].overlay.handle_packet(now, &packet);
    }
    for packet in [&b""[..], b"\x45", b"\x00\x01\x02", &v4(1, 2, b"cut")[..21]] {
        world.nodes[0].overlay.handle_packet(now, packet);
    }
    world.run(Duration::from_millis(50));
    assert_eq!(
        world.nodes[0].overlay.drops().get(&DropReason::Multicast),
        Some(&2)
    );
    assert_eq!(
        world.nodes[0].overlay.drops().get(&DropReason::Malformed),
        Some(&4)
    );
    assert!(world.nodes.iter().all(|n| n.packets.is_empty()));
}

#[test]
fn a_packet_to_a_member_without_a_link_is_counted_with_that_member() {
    let mut world = World::open(2);
    world.bounce = Box::new(|_| true);
    world.sign_in_all();
    world.run(Duration::from_millis(100));
    let now = world.now;
    world.nodes[0].overlay.handle_packet(now, &v4(1, 2, b"x"));
    assert_eq!(dropped(&world, 0, 1, DropReason::NoLink), 1);
}

#[test]
fn a_packet_with_anothers_source_is_dropped_by_the_receiver() {
    let mut world = linked();
    let now = world.now;
    world.nodes[0]
        .overlay
        .handle_packet(now, &v4(3, 2, b"spoofed"));
    world.nodes[0].overlay.handle_packet(now, &{
        let mut packet = v6(1, 2);
        packet[8..24].copy_from_slice(&addrs(3).ipv6.addr.octets());
        packet
    });
    world.run(Duration::from_millis(50));
    assert!(world.nodes[1].packets.is_empty());
    assert_eq!(dropped(&world, 1, 0, DropReason::WrongSource), 2);
}

#[test]
fn a_packet_for_another_destination_is_dropped_by_the_receiver() {
    let mut world = linked();
    // Node 1 makes node 0 believe that it answers for another address.
    let now = world.now;
    world.nodes[1].advertised = 77;
    world.publish(1);
    world.nodes[0].overlay.handle_packet(now, &v4(1, 77, b"x"));
    world.run(Duration::from_millis(50));
    assert!(world.nodes[1].packets.is_empty());
    assert_eq!(dropped(&world, 1, 0, DropReason::WrongDestination), 1);
}

#[test]
fn datagrams_from_strangers_are_counted() {
    let mut world = linked();
    let now = world.now;
    let (to, from) = ("203.0.113.1:4000", "203.0.113.200:9");
    for payload in [&b"\x17\xfe\xfd junk"[..], b"\x00\x01\x00\x00", b"\xff", b""] {
        world.nodes[0].overlay.handle_datagram(
            now,
            to.parse().expect("valid"),
            from.parse().expect("valid"),
            payload.into(),
        );
    }
    assert_eq!(
        world.nodes[0]
            .overlay
            .drops()
            .get(&DropReason::UnknownDatagram),
        Some(&4)
    );
    world.check_every_path();
}

#[test]
fn a_member_that_signals_anothers_address_cannot_take_its_datagrams() {
    let mut world = World::open(3);
    // Node 2 claims node 1's underlay address as its own, before anyone is linked.
    world.sign_in(0, "r");
    world.sign_in(2, "r");
    assert!(world.run_until(Duration::from_secs(5), |w| w.is_up(0, 2)));
    let (sid, ufrag) = world
        .signals
        .iter()
        .find_map(|(from, _, s)| match s {
            crate::signal::Signal::Accept { sid, description } if from.starts_with("node-2") => {
                Some((sid.clone(), description.ufrag.clone()))
            }
            _ => None,
        })
        .expect("an accept");
    let candidates = vec![crate::candidate::Candidate {
        foundation: "1".to_owned(),
        kind: crate::candidate::CandidateKind::Host,
        addr: "203.0.113.2:4000".parse().expect("valid"),
        priority: 2_130_706_431,
        related: None,
    }];
    let now = world.now;
    let signal = crate::signal::Signal::Candidates {
        sid,
        ufrag,
        candidates,
    };
    world.nodes[0]
        .overlay
        .handle_signal(now, "node-2@demo/r", signal);
    world.run(Duration::from_secs(1));
    world.sign_in(1, "r");
    assert!(world.run_until(Duration::from_secs(5), World::all_up));
    world.check_every_path();
}
