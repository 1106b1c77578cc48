//! What gets where, and how often.

use std::net::Ipv4Addr;

use ipop_datapath::ethernet::BROADCAST;

use super::super::membership::tests::igmp;
use super::world::*;
use crate::status::DropReason;

fn three_lans() -> World {
    World::new(&[0, 1, 2], |_| settings(Default::default()))
}

#[test]
fn a_broadcast_crosses_once_to_each_member_and_every_host_gets_it_once() {
    let mut world = three_lans();
    let hosts: Vec<_> = [0, 0, 1, 1, 2].map(|lan| world.host(lan)).into();
    let frame = world.send_to(hosts[0], BROADCAST, 1);
    world.run(SECOND);
    assert_eq!(world.crossed_to(&frame), [1, 2]);
    for host in &hosts[1..] {
        assert_eq!(world.count(*host, &frame), 1);
    }
    assert_eq!(world.count(hosts[0], &frame), 0);
}

#[test]
fn two_hosts_talk_and_nobody_else_hears_of_it() {
    let mut world = three_lans();
    let [a, b, other] = [0, 1, 2].map(|lan| world.host(lan));
    world.ask(a, ip(2));
    world.run(SECOND);
    let answers = world.hosts[a].got.len();
    assert_eq!(answers, 1, "the answer came once");
    let there = world.send_to(a, mac(2), 1);
    let back = world.send_to(b, mac(1), 2);
    world.run(SECOND);
    assert_eq!((world.count(b, &there), world.count(a, &back)), (1, 1));
    assert_eq!(world.crossed_to(&there), [1]);
    assert_eq!(
        world.hosts[other].got.len(),
        1,
        "the question and nothing else"
    );
}

#[test]
fn a_question_whose_answer_is_known_does_not_cross_the_overlay() {
    let mut world = three_lans();
    let [a, b, c] = [0, 1, 0].map(|lan| world.host(lan));
    world.ask(a, ip(2));
    world.run(SECOND);
    let crossed = world.crossed.len();
    world.ask(c, ip(2));
    world.run(SECOND);
    assert_eq!(world.crossed.len(), crossed);
    let answer = world.hosts[c].got.last().expect("answered");
    assert_eq!(answer[6..12], mac(2));
    assert_eq!(world.hosts[b].got.len(), 1);
    world.ask(c, ip(1));
    world.run(SECOND);
    assert_eq!(
        world.crossed.len(),
        crossed,
        "one of the same LAN answers itself"
    );
    world.ask(c, ip(99));
    world.run(SECOND);
    assert_eq!(
        world.crossed.len(),
        crossed + 2,
        "nobody is known to have it"
    );
}

#[test]
fn a_silent_host_is_reached_after_nobody_had_it_and_found_once_it_speaks() {
    let mut world = three_lans();
    let [a, silent, other] = [0, 1, 2].map(|lan| world.host(lan));
    let first = world.send_to(a, mac(2), 1);
    let second = world.send_to(a, mac(2), 2);
    world.run(SECOND);
    for frame in [&first, &second] {
        assert_eq!(world.count(silent, frame), 1);
        assert_eq!(world.crossed_to(frame), [1, 2], "it went to everybody");
    }
    assert!(world.hosts[other].got.is_empty(), "it was for another one");
    world.send_to(silent, mac(1), 3);
    world.run(SECOND);
    let third = world.send_to(a, mac(2), 4);
    world.run(SECOND);
    assert_eq!(world.crossed_to(&third), [1]);
}

#[test]
fn a_host_that_its_own_node_knows_is_asked_for_and_not_flooded() {
    let mut world = three_lans();
    let [a, b] = [0, 1].map(|lan| world.host(lan));
    // It spoke on its LAN, and node 0 does not know.
    let frame = world.send_to(b, mac(77), 1);
    world.run(SECOND);
    world.start(0);
    assert_eq!(world.crossed_to(&frame), [0, 2]);
    let wanted = world.send_to(a, mac(2), 2);
    world.run(SECOND);
    assert_eq!(world.crossed_to(&wanted), [1]);
    assert_eq!(world.count(b, &wanted), 1);
}

#[test]
fn a_host_that_moves_to_another_lan_is_found_there() {
    let mut world = three_lans();
    let [a, b] = [0, 1].map(|lan| world.host(lan));
    world.ask(a, ip(2));
    world.run(SECOND);
    world.hosts[b].lan = 2;
    world.ask(b, ip(2));
    world.run(SECOND);
    let frame = world.send_to(a, mac(2), 9);
    world.run(SECOND);
    assert_eq!(
        (world.count(b, &frame), world.crossed_to(&frame)),
        (1, vec![2])
    );
}

#[test]
fn a_group_goes_to_those_members_that_want_it_and_to_the_querier() {
    let mut world = World::new(&[0, 1, 2, 3], |_| settings(Default::default()));
    let [source, member, other, router] = [0, 1, 2, 3].map(|lan| world.host(lan));
    let group = Ipv4Addr::new(239, 1, 2, 3);
    let group_mac = [1, 0, 0x5e, 1, 2, 3];
    let before = ipv4(group_mac, mac(1), group, 1, 1);
    world.send(source, before.clone());
    world.run(SECOND);
    assert_eq!(
        world.crossed_to(&before),
        [1, 2, 3],
        "nobody asked who wants it"
    );
    world.send(
        router,
        igmp(mac(4), [10, 1, 0, 4], &[0x11, 100, 0, 0, 0, 0, 0, 0]),
    );
    world.run(SECOND);
    let report = igmp(mac(2), [10, 1, 0, 2], &[0x16, 0, 0, 0, 239, 1, 2, 3]);
    world.send(member, report.clone());
    world.run(SECOND);
    let report = report.into();
    assert_eq!(
        world.crossed_to(&report),
        [0, 2, 3],
        "every switch has to know"
    );
    assert_eq!(world.count(router, &report), 1);
    assert_eq!(world.count(other, &report), 0, "hosts do not hear of it");
    let frame = ipv4(group_mac, mac(1), group, 2, 2);
    world.send(source, frame.clone());
    world.run(SECOND);
    assert_eq!(world.crossed_to(&frame), [1, 3]);
    assert_eq!(
        (world.count(member, &frame), world.count(other, &frame)),
        (1, 0)
    );
    world.send(
        member,
        igmp(mac(2), [10, 1, 0, 2], &[0x17, 0, 0, 0, 239, 1, 2, 3]),
    );
    world.run(5 * SECOND);
    let frame = ipv4(group_mac, mac(1), group, 3, 3);
    world.send(source, frame.clone());
    world.run(SECOND);
    assert_eq!(world.crossed_to(&frame), [3]);
}

#[test]
fn when_a_member_restarts_others_are_not_disturbed_and_it_is_found_again() {
    let mut world = three_lans();
    let [a, b, c] = [0, 1, 2].map(|lan| world.host(lan));
    for (asks, target) in [(a, 2), (b, 3), (c, 1)] {
        world.ask(asks, ip(target));
    }
    world.run(SECOND);
    world.stop(2);
    let frame = world.send_to(a, mac(2), 1);
    world.run(SECOND);
    assert_eq!(world.crossed_to(&frame), [1]);
    world.start(2);
    let frame = world.send_to(a, mac(3), 2);
    world.run(SECOND);
    assert_eq!(world.count(c, &frame), 1);
}

#[test]
fn what_the_overlay_sends_here_for_somebody_elsewhere_goes_nowhere() {
    let mut world = three_lans();
    let [a, b] = [0, 1].map(|lan| world.host(lan));
    world.ask(a, ip(2));
    world.run(SECOND);
    let crossed = world.crossed.len();
    world.inject(0, 2, udp(mac(2), mac(50), 1, 2));
    world.run(SECOND);
    assert_eq!(world.nodes[0].drops.get(&DropReason::Returning), Some(&1));
    assert_eq!(
        (world.crossed.len(), world.hosts[b].got.len()),
        (crossed, 1)
    );
}

#[test]
fn how_many_stations_are_where_is_told_by_name() {
    let mut world = three_lans();
    let [a, b, c] = [0, 1, 1].map(|lan| world.host(lan));
    for (host, target) in [(a, 2), (b, 1), (c, 1)] {
        world.ask(host, ip(target));
    }
    world.run(SECOND);
    let stations = |at: usize| world.nodes[at].switch.as_ref().expect("runs").stations();
    let named = |name: &str, count| (name.to_owned(), count);
    assert_eq!(stations(0), [named("the LAN", 1), named("node-1", 2)]);
    assert_eq!(stations(1), [named("the LAN", 2), named("node-0", 1)]);
}
