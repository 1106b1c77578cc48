//! What is kept out, and what is said of it.

use std::net::Ipv6Addr;

use ipop_datapath::ethernet::BROADCAST;

use super::super::arp::Operation;
use super::super::discovery::tests as discovery;
use super::super::guard::{Allowed, Place, Policy};
use super::super::storm::Allowances;
use super::super::*;
use super::world::*;

/// Node 0 is the front end's.
fn front_end(at: usize) -> Policy {
    let place = match at {
        0 => Place::Here,
        _ => Place::Member("node-0".to_owned()),
    };
    Policy {
        dhcp: Allowed::Only { place, mac: None },
        ..Policy::default()
    }
}

fn discover(world: &mut World, host: usize) -> Bytes {
    let frame = udp(BROADCAST, world.hosts[host].mac, 68, 67);
    world.send(host, frame.clone());
    frame
}

#[test]
fn a_worker_is_served_by_the_front_end_and_no_other_member_hears_it_ask() {
    let mut world = World::new(&[0, 1, 2], |at| settings(front_end(at)));
    let [server, worker, rogue] = [0, 1, 2].map(|lan| world.host(lan));
    world.hosts[server].serves_dhcp = true;
    world.hosts[rogue].serves_dhcp = true;
    let asked = discover(&mut world, worker);
    world.run(SECOND);
    assert_eq!(world.crossed_to(&asked), [0]);
    assert_eq!(world.hosts[worker].got.len(), 1, "one offer");
    assert_eq!(world.hosts[worker].got[0][6..12], mac(1));
}

#[test]
fn a_second_dhcp_server_is_named_on_both_ends_and_heard_by_nobody() {
    let mut world = World::new(&[0, 1, 2], |at| settings(front_end(at)));
    let [worker, rogue] = [1, 2].map(|lan| world.host(lan));
    let offer = udp(BROADCAST, world.hosts[rogue].mac, 67, 68);
    world.send(rogue, offer.clone());
    // A node without guards would let it out.
    world.inject(1, 2, offer);
    world.run(SECOND);
    assert!(world.hosts[worker].got.is_empty() && world.crossed.is_empty());
    for (node, origin) in [(1, "node-2"), (2, "the LAN")] {
        let alarm = format!("{origin}: 02:00:00:00:01:02 is not the DHCP server that is allowed");
        assert_eq!(world.nodes[node].alarms, [alarm]);
        assert_eq!(
            world.nodes[node].drops.get(&DropReason::NotAllowed),
            Some(&1)
        );
    }
}

#[test]
fn a_second_gateway_is_refused_and_named_and_the_first_one_stays() {
    let mut world = World::new(&[0, 1, 2], |_| settings(Policy::default()));
    let [gateway, user, thief] = [0, 1, 2].map(|lan| world.host(lan));
    world.ask(user, ip(1));
    world.run(SECOND);
    let claim = arp(
        BROADCAST,
        Operation::Request,
        (mac(3), ip(1)),
        ([0; 6], ip(1)),
    );
    world.send(thief, claim.clone());
    world.run(SECOND);
    // Its own node had heard the gateway's address, from the question.
    world.inject(1, 2, claim.clone());
    world.run(SECOND);
    assert_eq!(world.count(user, &claim), 0);
    assert!(
        world.nodes[1].alarms.contains(
            &"node-2: 02:00:00:00:01:03: 10.1.0.1 belongs to another station; node-0 has it"
                .to_owned()
        ),
        "{:?}",
        world.nodes[1].alarms
    );
    let asked = world.hosts[gateway].got.len();
    world.ask(user, ip(1));
    world.run(SECOND);
    assert_eq!(
        world.hosts[user].got.last().expect("answered")[6..12],
        mac(1)
    );
    assert_eq!(world.hosts[gateway].got.len(), asked);
}

#[test]
fn a_configured_address_is_kept_for_its_machine_from_the_start() {
    let mut world = World::new(&[0, 1], |_| Settings {
        addresses: vec![(address(1), mac(1))],
        ..Settings::default()
    });
    let [_, thief, user] = [0, 1, 0].map(|lan| world.host(lan));
    let claim = arp(
        BROADCAST,
        Operation::Request,
        (mac(2), ip(1)),
        ([0; 6], ip(1)),
    );
    world.send(thief, claim.clone());
    world.run(SECOND);
    assert_eq!(world.count(user, &claim), 0);
    assert_eq!(world.nodes[1].drops.get(&DropReason::NotAllowed), Some(&1));
}

#[test]
fn who_speaks_for_another_station_is_named() {
    let mut world = World::new(&[0, 1], |_| settings(Policy::default()));
    let [liar, user] = [0, 1].map(|lan| world.host(lan));
    let mut claim = arp(
        BROADCAST,
        Operation::Reply,
        (mac(9), ip(9)),
        (mac(2), ip(2)),
    )
    .to_vec();
    claim[6..12].copy_from_slice(&mac(1));
    world.send(liar, claim);
    world.run(SECOND);
    assert!(world.hosts[user].got.is_empty());
    assert_eq!(
        world.nodes[0].alarms,
        ["the LAN: 02:00:00:00:01:01 says that 10.1.0.9 is another station's"]
    );
}

#[test]
fn who_makes_much_trouble_is_named_a_few_times_and_hides_nobody_else() {
    let mut world = World::new(&[0, 1, 2], |_| settings(Policy::default()));
    for n in 0..100 {
        let mut claim = arp(
            BROADCAST,
            Operation::Reply,
            (mac(n), ip(n)),
            (mac(2), ip(2)),
        )
        .to_vec();
        claim[6..12].copy_from_slice(&mac(200));
        world.inject(0, 1, claim);
    }
    world.inject(0, 2, udp(BROADCAST, mac(201), 67, 68));
    world.run(SECOND);
    let of = |name: &str| {
        let alarms = world.nodes[0].alarms.iter();
        alarms.filter(|alarm| alarm.starts_with(name)).count()
    };
    assert_eq!((of("node-1"), of("node-2")), (8, 1));
    assert_eq!(
        world.nodes[0].drops.get(&DropReason::NotAllowed),
        Some(&101)
    );
}

#[test]
fn an_address_in_use_is_defended_against_who_probes_for_it() {
    let mut world = World::new(&[0, 1], |_| settings(Policy::default()));
    let [a, holder, newcomer] = [0, 1, 0].map(|lan| world.host(lan));
    world.ask(a, ip(2));
    world.run(SECOND);
    let probe = |from, target| {
        arp(
            BROADCAST,
            Operation::Request,
            (from, [0, 0, 0, 0].into()),
            ([0; 6], target),
        )
    };
    let crossed = world.crossed.len();
    world.send(newcomer, probe(mac(3), ip(2)));
    world.run(SECOND);
    assert_eq!(
        world.hosts[newcomer].got.last().expect("defended")[6..12],
        mac(2)
    );
    assert_eq!(world.crossed.len(), crossed);
    world.send(newcomer, probe(mac(3), ip(42)));
    world.run(SECOND);
    assert_eq!(
        world.crossed.len(),
        crossed + 1,
        "others are asked for a free one"
    );
    world.send(a, probe(mac(1), ip(1)));
    world.run(SECOND);
    assert_eq!(
        world.crossed.len(),
        crossed + 2,
        "and for one's own, after a start"
    );
    assert_eq!(world.nodes[0].drops.len(), 0);
    assert_eq!(world.hosts[holder].got.len(), 3);
}

#[test]
fn an_ipv6_address_in_use_is_kept_and_defended_as_well() {
    let mut world = World::new(&[0, 1], |_| settings(Policy::default()));
    let newcomer = world.host(0);
    let ip = |n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n);
    let claim = discovery::frame(ip(2), ip(9), &discovery::message(136, 0, ip(2), &[]), &[]);
    world.inject(0, 1, claim.clone());
    world.run(SECOND);
    let from = |mut frame: Vec<u8>| {
        frame[6..12].copy_from_slice(&mac(1));
        frame
    };
    let unspecified = Ipv6Addr::UNSPECIFIED;
    let detection = |target| {
        let message = discovery::message(135, 0, target, &[]);
        from(discovery::frame(unspecified, ip(9), &message, &[]))
    };
    world.send(newcomer, detection(ip(2)));
    world.run(SECOND);
    let answer = world.hosts[newcomer].got.last().expect("defended");
    assert_eq!(
        answer[..12],
        [[0x33, 0x33, 0, 0, 0, 1], discovery::ASKER].concat()
    );
    assert!(world.crossed.is_empty());
    world.send(newcomer, detection(ip(3)));
    world.run(SECOND);
    assert_eq!(world.crossed.len(), 1, "others are asked for a free one");
    world.send(newcomer, from(claim));
    world.run(SECOND);
    assert_eq!(world.crossed.len(), 1);
    assert_eq!(
        world.nodes[0].alarms,
        ["the LAN: 02:00:00:00:01:01: fd00::2 belongs to another station; node-1 has it"]
    );
}

#[test]
fn a_storm_is_held_where_it_begins_and_other_lans_still_reach_each_other() {
    let mut world = World::new(&[0, 1, 2], |_| settings(Policy::default()));
    let [noisy, victim, quiet] = [0, 1, 2].map(|lan| world.host(lan));
    let allowed = Allowances::default().broadcast.frames;
    for _ in 0..20 {
        for tag in 0..1000 {
            world.send_to(noisy, BROADCAST, 100 + tag);
        }
        world.run(SECOND / 20);
    }
    let heard = world.hosts[victim].got.len() as u64;
    assert!(heard <= allowed.burst + allowed.per_second, "{heard}");
    assert!(heard >= allowed.burst, "{heard}");
    let frame = world.send_to(quiet, BROADCAST, 7);
    world.run(SECOND);
    assert_eq!(world.count(victim, &frame), 1);
    assert_eq!(
        world.nodes[0].alarms,
        ["the LAN: more broadcast than is allowed"]
    );
    assert!(world.nodes[1].alarms.is_empty(), "held at its source");
}

#[test]
fn a_storm_from_a_node_that_does_not_hold_it_is_held_where_it_arrives() {
    let mut world = World::new(&[0, 1], |_| settings(Policy::default()));
    let victim = world.host(1);
    for _ in 0..10_000 {
        world.inject(1, 0, udp(BROADCAST, mac(50), 1, 1));
    }
    world.run(SECOND);
    let allowed = Allowances::default().broadcast.frames;
    assert_eq!(world.hosts[victim].got.len() as u64, allowed.burst);
    assert_eq!(
        world.nodes[1].alarms,
        ["node-0: more broadcast than is allowed"]
    );
}

#[test]
fn a_flood_of_addresses_is_named_and_costs_nobody_else_a_station() {
    let mut world = World::new(&[0, 1, 2], |_| settings(Policy::default()));
    let [a, b] = [0, 1].map(|lan| world.host(lan));
    world.ask(a, ip(2));
    world.run(SECOND);
    for n in 0..100_000_u32 {
        let [_, x, y, z] = n.to_be_bytes();
        world.inject(1, 2, udp(mac(2), [2, 9, 9, x, y, z], 1, 1));
    }
    world.run(SECOND);
    assert_eq!(
        world.nodes[1].alarms,
        ["node-2: there are 1024 stations already"]
    );
    let got = world.hosts[b].got.len();
    let frame = world.send_to(b, mac(1), 1);
    world.run(SECOND);
    assert_eq!(world.crossed_to(&frame), [0]);
    assert_eq!(got, 1 + Limits::default().member);
}

#[test]
fn what_is_for_the_next_bridge_and_probes_of_elsewhere_go_nowhere() {
    let mut world = World::new(&[0, 1], |_| settings(Policy::default()));
    let host = world.host(0);
    let bpdu = udp([1, 0x80, 0xc2, 0, 0, 0], mac(1), 1, 1);
    world.send(host, bpdu.clone());
    world.inject(1, 0, bpdu);
    let key = probe::ProbeKey::new(b"overlay");
    let probe = probe::Probe {
        node: NodeId([0; 16]),
        run: 1,
        sequence: 1,
        standing: probe::Standing::Forwarding,
    };
    world.inject(1, 0, probe.frame(mac(1), &key));
    world.run(SECOND);
    assert!(world.crossed.is_empty());
    assert_eq!(world.nodes[0].drops.get(&DropReason::ForBridges), Some(&1));
    assert_eq!(world.nodes[1].drops.get(&DropReason::ForBridges), Some(&2));
}
