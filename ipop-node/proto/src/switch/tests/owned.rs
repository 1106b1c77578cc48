//! Whose addresses are whose.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipop_datapath::ethernet::BROADCAST;

use super::super::arp::Operation;
use super::super::discovery::tests as discovery;
use super::super::owners::{ABSENT_FOR, LENT_FOR};
use super::super::*;
use super::world::*;

/// A packet from somebody's address to everybody.
fn from(mac_of: u8, source: Ipv4Addr) -> Bytes {
    packet(BROADCAST, mac(mac_of), (source, Ipv4Addr::BROADCAST), 1, 1)
}

fn announced(mac_of: u8, ip: Ipv4Addr) -> Bytes {
    arp(
        BROADCAST,
        Operation::Reply,
        (mac(mac_of), ip),
        (mac(mac_of), ip),
    )
}

/// An advertisement from a link-local address.
fn advertised(ip: Ipv6Addr) -> Bytes {
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let message = discovery::message(136, 0, ip, &[]);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    discovery::frame(link_local, all_nodes, &message, &[]).into()
}

fn own4(node: usize) -> Ipv4Addr {
    match own_addresses(node) {
        [IpAddr::V4(ip), _] => ip,
        other => panic!("{other:?}"),
    }
}

fn own6(node: usize) -> Ipv6Addr {
    match own_addresses(node) {
        [_, IpAddr::V6(ip)] => ip,
        other => panic!("{other:?}"),
    }
}

fn three(carriers: Carriers) -> World {
    World::new(&[0, 1, 2], |at| owning(at, carriers.clone()))
}

/// Node 0's, alone.
fn with_two_members(now: Instant) -> Switch {
    let mut switch = Switch::new(owning(0, Carriers::Anybody), Tables::default(), None, now);
    for member in [1, 2] {
        let name = format!("node-{member}");
        switch.member_joined(member, &name, &own_addresses(member.into()), now);
    }
    switch
}

/// Takes what it wants done; whether that is a frame for the LAN.
fn puts_on_the_lan(switch: &mut Switch) -> bool {
    std::iter::from_fn(|| switch.poll_action()).any(|action| matches!(action, Action::ToLan(_)))
}

fn wrong_sources(world: &World, node: usize) -> usize {
    let drops = &world.nodes[node].drops;
    drops.get(&DropReason::WrongSource).copied().unwrap_or(0)
}

#[test]
fn a_members_address_is_used_by_that_member_alone() {
    let mut world = three(Carriers::Anybody);
    let host = world.host(0);
    let own = from(50, own4(1));
    world.inject(0, 1, own.clone());
    world.run(SECOND);
    assert_eq!(world.count(host, &own), 1);
    let claims: [Bytes; 4] = [
        from(51, own4(1)),
        from(51, own4(0)),
        announced(51, own4(1)),
        advertised(own6(1)),
    ];
    for (at, frame) in claims.iter().enumerate() {
        world.inject(0, 2, frame.clone());
        world.run(SECOND);
        assert_eq!(world.count(host, frame), 0, "{frame:?}");
        assert_eq!(wrong_sources(&world, 0), at + 1);
    }
    let [v4, v6] = own_addresses(1);
    let said = |ip: IpAddr, holder: &str| {
        format!(
            "node-2: {} comes from {ip}, which is not an address of its node; {holder} has it",
            Station::from(mac(51))
        )
    };
    let expected = [
        said(v4, "node-1"),
        said(own4(0).into(), "the LAN"),
        // Its sender is no station of these tests.
        said(v6, "node-1").replace("02:00:00:00:01:33", "02:00:00:00:00:01"),
    ];
    assert_eq!(world.nodes[0].alarms, expected);
}

#[test]
fn a_members_address_does_not_leave_a_lan_that_is_not_its_own() {
    let mut world = three(Carriers::Anybody);
    let [thief, far] = [0, 1].map(|lan| world.host(lan));
    world.hosts[thief].ip = own4(2);
    let frame = from(1, own4(2));
    world.send(thief, frame.clone());
    world.ask(thief, ip(2));
    world.run(SECOND);
    assert!(world.crossed.is_empty() && world.hosts[far].got.is_empty());
    assert_eq!(wrong_sources(&world, 0), 2);
    // While the member is away nobody has it, for so long that it may come back.
    world.stop(2);
    world.send(thief, frame.clone());
    world.run(SECOND);
    assert_eq!(wrong_sources(&world, 0), 3);
    world.run(ABSENT_FOR + 10 * SECOND);
    world.send(thief, frame.clone());
    world.run(SECOND);
    assert_eq!(world.count(far, &frame), 1);
}

#[test]
fn who_had_an_address_before_its_member_came_has_it_no_more() {
    let mut world = three(Carriers::Anybody);
    world.stop(2);
    world.run(ABSENT_FOR + 10 * SECOND);
    let [asks, thief] = [0, 1].map(|lan| world.host(lan));
    world.hosts[thief].ip = own4(2);
    world.ask(asks, own4(2));
    world.run(SECOND);
    assert_eq!(world.hosts[asks].got.len(), 1, "it answered");
    world.start(2);
    let other = world.host(0);
    world.ask(other, own4(2));
    world.run(SECOND);
    assert!(world.hosts[other].got.is_empty(), "nobody answers for it");
}

#[test]
fn who_carries_no_lan_has_its_own_addresses_and_no_other() {
    let carriers = Carriers::Only(["node-0".to_owned(), "node-1".to_owned()].into());
    let mut world = three(carriers);
    let host = world.host(0);
    let of_nobody = Ipv4Addr::new(10, 1, 0, 99);
    for (member, source, arrives) in [
        (1, of_nobody, 1),
        (2, of_nobody, 0),
        (2, own4(2), 1),
        (2, Ipv4Addr::UNSPECIFIED, 1),
        (2, Ipv4Addr::new(169, 254, 1, 1), 1),
    ] {
        let frame = from(60 + member as u8, source);
        world.inject(0, member, frame.clone());
        world.run(SECOND);
        assert_eq!(world.count(host, &frame), arrives, "{member} {source}");
    }
    assert_eq!(world.nodes[0].alarms.len(), 1);
}

/// Nodes 0 and 1 are on one LAN with the machine of node 1, and node 0 forwards for it.
#[test]
fn a_node_that_stands_by_is_reached_through_the_one_that_forwards() {
    let mut world = World::new(&[0, 0, 1], |at| owning(at, Carriers::Anybody));
    let [machine, far] = [0, 1].map(|lan| world.host(lan));
    world.hosts[machine].ip = own4(1);
    world.run(6 * SECOND);
    let frame = from(1, own4(1));
    world.send(machine, frame.clone());
    world.run(SECOND);
    assert_eq!(
        (world.count(far, &frame), world.crossed_to(&frame)),
        (1, vec![1, 2])
    );

    // It forwards itself when the other one is gone, and the other is believed no more when it is back as another.
    world.stop(0);
    world.run(6 * SECOND);
    world.send(machine, frame.clone());
    world.run(SECOND);
    assert_eq!(world.count(far, &frame), 2);
    world.start(0);
    world.inject(2, 0, frame.clone());
    world.run(SECOND / 100);
    assert_eq!((world.count(far, &frame), wrong_sources(&world, 2)), (2, 1));
    // It forwards again, and has it lent again.
    world.run(6 * SECOND);
    world.send(machine, frame.clone());
    world.run(SECOND);
    assert_eq!(world.count(far, &frame), 3);
}

#[test]
fn a_frame_that_is_refused_moves_no_station() {
    let mut world = three(Carriers::Anybody);
    let [near, victim] = [0, 1].map(|lan| world.host(lan));
    world.ask(near, ip(2));
    world.run(SECOND);
    let forged = packet(mac(1), mac(2), (own4(1), ip(1)), 1, 1);
    world.inject(0, 2, forged);
    world.run(SECOND);
    assert_eq!(wrong_sources(&world, 0), 1);
    let frame = world.send_to(near, mac(2), 7);
    world.run(SECOND);
    assert_eq!(
        (world.count(victim, &frame), world.crossed_to(&frame)),
        (1, vec![1])
    );
}

#[test]
fn what_was_said_of_standing_by_is_forgotten_unless_it_is_said_again() {
    let now = Instant::now();
    let mut switch = with_two_members(now);
    let frame = from(50, own4(1));
    let arrives = |switch: &mut Switch, now| {
        switch.frame_from_member(2, frame.clone(), now);
        puts_on_the_lan(switch)
    };
    let behind = |other: &str| Message::Behind(Some(NodeId::of_name(other)));
    let mut now = now;
    let mut says = |switch: &mut Switch, member, message| {
        now += Duration::from_secs(1);
        switch.message_from_member(member, message, now);
        now
    };
    let at = says(&mut switch, 1, behind("node-9"));
    assert!(!arrives(&mut switch, at), "nobody knows that one");
    let at = says(&mut switch, 2, behind("node-2"));
    assert!(!arrives(&mut switch, at), "it is not that one's to give");
    let lent = says(&mut switch, 1, behind("node-2"));
    assert!(arrives(&mut switch, lent));
    let later = lent + LENT_FOR - Duration::from_secs(1);
    switch.handle_timeout(later);
    assert!(arrives(&mut switch, later));
    now = lent + LENT_FOR + Duration::from_secs(10);
    switch.handle_timeout(now);
    assert!(!arrives(&mut switch, now));
}

#[test]
fn what_was_claimed_of_a_lent_address_ends_with_the_loan() {
    let now = Instant::now();
    let mut switch = with_two_members(now);
    let question = arp(
        BROADCAST,
        Operation::Request,
        (mac(1), ip(1)),
        ([0; 6], own4(1)),
    );
    let is_answered = |switch: &mut Switch, now| {
        switch.frame_from_lan(question.clone(), now);
        puts_on_the_lan(switch)
    };
    let behind = Message::Behind(Some(NodeId::of_name("node-2")));
    switch.message_from_member(1, behind, now);
    switch.frame_from_member(2, announced(51, own4(1)), now);
    while switch.poll_action().is_some() {}
    assert!(is_answered(&mut switch, now));
    let later = now + Duration::from_secs(1);
    switch.message_from_member(1, Message::Behind(None), later);
    assert!(!is_answered(&mut switch, later));
    // A change is believed once in a while.
    let at_once = later + Duration::from_millis(100);
    switch.message_from_member(1, behind, at_once);
    switch.frame_from_member(2, announced(51, own4(1)), at_once);
    while switch.poll_action().is_some() {}
    assert!(!is_answered(&mut switch, at_once));
}
