//! Several nodes on one LAN.

use ipop_datapath::ethernet::BROADCAST;

use super::super::*;
use super::world::*;

fn forwarding(world: &World) -> Vec<usize> {
    let nodes = world.nodes.iter().enumerate();
    nodes
        .filter(|(_, node)| node.switch.as_ref().is_some_and(Switch::is_forwarding))
        .map(|(at, _)| at)
        .collect()
}

/// Nodes 0 and 1 on LAN 0, node 2 on LAN 1.
fn doubled() -> World {
    World::new(&[0, 0, 1], |_| Settings::default())
}

#[test]
fn no_loop_forms_at_any_time_and_every_host_gets_a_broadcast_once() {
    let mut world = doubled();
    let [a, b, far] = [0, 0, 1].map(|lan| world.host(lan));
    for tag in 0..200 {
        let from_far = world.send_to(far, BROADCAST, 1000 + tag);
        let from_a = world.send_to(a, BROADCAST, 2000 + tag);
        world.run(SECOND / 10);
        for host in [a, b] {
            assert!(world.count(host, &from_far) <= 1);
        }
        assert_eq!(world.count(b, &from_a), 1, "its LAN is not disturbed");
        assert!(world.count(far, &from_a) <= 1);
        if tag > 50 {
            assert_eq!(
                (world.count(a, &from_far), world.count(far, &from_a)),
                (1, 1)
            );
        }
    }
    assert_eq!(forwarding(&world), [0, 2]);
}

#[test]
fn another_takes_over_when_the_one_that_forwards_is_gone_and_gives_way_when_it_is_back() {
    let mut world = doubled();
    let [a, far] = [0, 1].map(|lan| world.host(lan));
    world.run(5 * SECOND);
    world.stop(0);
    world.run(5 * SECOND);
    assert_eq!(forwarding(&world), [1, 2]);
    let frame = world.send_to(a, BROADCAST, 1);
    world.run(SECOND);
    assert_eq!(world.count(far, &frame), 1);
    world.send_to(far, BROADCAST, 2);
    world.run(SECOND);
    world.start(0);
    for tag in 0..100 {
        let frame = world.send_to(a, BROADCAST, 100 + tag);
        world.run(SECOND / 10);
        assert!(world.count(far, &frame) <= 1);
    }
    assert_eq!(forwarding(&world), [0, 2]);
    let blocked = world.nodes[1].switch.as_ref().expect("runs");
    for port in [Port::Lan, Port::Member(0), Port::Member(2)] {
        assert_eq!(
            blocked.fdb.count(port),
            0,
            "the threads find nobody at {port}"
        );
    }
    let reply = world.send_to(far, mac(1), 3);
    world.run(SECOND);
    assert_eq!(
        (world.count(a, &reply), world.crossed_to(&reply)),
        (1, vec![0])
    );
    let said: Vec<_> = world.nodes[1].alarms.iter().map(String::as_str).collect();
    assert_eq!(
        said[said.len() - 2..],
        [
            "the LAN: this node forwards for it",
            "the LAN: node 01010101010101010101010101010101 is on it, too, and forwards for it"
        ]
    );
}

#[test]
fn what_waits_in_a_node_that_stands_down_is_not_sent_any_more() {
    let mut world = doubled();
    let a = world.host(0);
    world.stop(0);
    world.run(5 * SECOND);
    assert_eq!(forwarding(&world), [1, 2]);
    let frame = world.send_to(a, mac(77), 1);
    world.run(SECOND / 1000);
    // Its first probe is faster than the answer of node 2.
    world.start(0);
    world.run(SECOND);
    assert_eq!(forwarding(&world), [2]);
    assert!(world.crossed_to(&frame).is_empty());
    assert_eq!(world.nodes[1].drops.get(&DropReason::Blocked), Some(&1));
}

#[test]
fn a_loop_that_probes_do_not_find_ends_by_itself_and_is_named() {
    let mut world = doubled();
    let [near, far] = [0, 1].map(|lan| world.host(lan));
    world.nodes[1].key = b"another";
    world.start(1);
    world.run(5 * SECOND);
    assert_eq!(
        forwarding(&world),
        [0, 1, 2],
        "they do not believe each other"
    );
    let frame = world.send_to(far, BROADCAST, 1);
    world.run(10 * SECOND);
    assert!(world.count(near, &frame) >= 2, "there was a loop");
    let crossed = world.crossed_to(&frame).len();
    assert!(crossed < 50, "{crossed}");
    let alarm = "02:00:00:00:01:02 is somewhere else, too";
    let alarms: Vec<_> = world.nodes.iter().flat_map(|node| &node.alarms).collect();
    assert!(alarms.iter().any(|said| said.contains(alarm)), "{alarms:?}");
}

#[test]
fn a_node_without_links_does_not_stand_in_the_way() {
    let mut world = doubled();
    world.host(0);
    world.run(5 * SECOND);
    for other in [1_u16, 2] {
        let switch = world.nodes[0].switch.as_mut().expect("runs");
        switch.member_left(other, world.now);
    }
    world.run(5 * SECOND);
    assert_eq!(forwarding(&world), [1, 2]);
}

#[test]
fn a_node_that_is_bridged_while_it_forwards_stops_until_it_has_listened() {
    let mut world = World::new(&[0, 1], |_| Settings::default());
    let [a, far] = [0, 1].map(|lan| world.host(lan));
    world.send_to(a, BROADCAST, 1);
    world.run(SECOND);
    world.bridge(0);
    let early = world.send_to(a, BROADCAST, 2);
    world.run(SECOND);
    assert_eq!(forwarding(&world), [1]);
    world.run(2 * SECOND);
    assert_eq!(forwarding(&world), [0, 1]);
    let late = world.send_to(a, BROADCAST, 3);
    world.run(SECOND);
    assert_eq!((world.count(far, &early), world.count(far, &late)), (0, 1));
}

#[test]
fn the_node_that_is_stood_down_for_is_named() {
    let mut switch = Switch::new(Settings::default(), Tables::default(), None, Instant::now());
    let now = Instant::now();
    switch.member_joined(3, "node-b", &[], now);
    switch.member_left(3, now);
    let to = NodeId::of_name("node-b");
    switch.raise(Port::Lan, Trouble::Lan(Change::StoodDown { to }), now);
    let alarms = switch.take_alarms();
    assert_eq!(alarms[0].holder.as_deref(), Some("node-b"));
}
