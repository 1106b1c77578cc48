//! Who may reach what, by certificates and by configuration.

use std::collections::BTreeSet;
use std::time::Duration;

use ipop_datapath::policy::Direction;

use super::authority::{who, world as certified};
use super::world::{World, v4};
use crate::authority::issue::Subject;
use crate::authority::tests::Office;
use crate::link::{Identity, RENEW_EVERY};
use crate::policy::{Member, Policy};
use crate::status::DropReason;

const SOON: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);
const TCP: u8 = 6;

fn groups(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn in_groups(office: &Office, i: usize, names: &[&str]) -> Identity {
    office.identity(&Subject {
        groups: groups(names),
        ..who(i)
    })
}

/// Three nodes that are linked: one in the group `lake`, one in `storage`, one in none.
fn linked() -> World {
    let office = Office::new();
    let lake = |i| match i {
        0 => Some(in_groups(&office, 0, &["lake"])),
        1 => Some(in_groups(&office, 1, &["storage"])),
        _ => None,
    };
    let mut world = certified(&office, 3, lake);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    world
}

/// Node `i` goes by one rule, or by none, as a member of these groups.
fn rule(world: &mut World, i: usize, own: &[&str], text: Option<&str>) {
    let rules: Vec<_> = text
        .map(|text| toml::from_str(text).expect("a rule"))
        .into_iter()
        .collect();
    let me = Member {
        name: format!("node-{i}"),
        groups: groups(own),
        role: None,
    };
    let now = world.now;
    world.nodes[i]
        .overlay
        .set_policy(now, Policy::new(&rules), me);
    world.run(SECOND);
}

const NFS: &str = "from = \"group:lake\"\nto = \"node:node-1\"\nport = 2049";

/// A TCP segment that opens a connection.
fn opening(from: usize, to: usize, port: u16) -> Vec<u8> {
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&40_000_u16.to_be_bytes());
    segment[2..4].copy_from_slice(&port.to_be_bytes());
    segment[12..14].copy_from_slice(&[0x50, 0x02]);
    let mut packet = v4(from as u8 + 1, to as u8 + 1, &segment);
    packet[9] = TCP;
    packet
}

/// Whether a packet of one node gets to another, when it goes by way of both overlays.
fn arrives(world: &mut World, from: usize, to: usize, packet: &[u8]) -> bool {
    world.nodes[to].packets.clear();
    let now = world.now;
    world.nodes[from].overlay.handle_packet(now, packet);
    world.run(SECOND);
    world.nodes[to].packets.iter().any(|got| *got == *packet)
}

/// What node `i` has dropped of, or for, another because no rule allows it.
fn denied(world: &World, i: usize, other: usize) -> u64 {
    let drops = world.peer(i, other).expect("known").drops;
    drops.get(&DropReason::NotAllowed).copied().unwrap_or(0)
}

#[test]
fn either_end_alone_keeps_to_the_rules_and_names_who_does_not() {
    for ends in [[true, false], [false, true], [true, true]] {
        let mut world = linked();
        for (i, own) in [(0, &["lake"]), (1, &["storage"])] {
            rule(&mut world, i, own, ends[i].then_some(NFS));
        }
        assert!(arrives(&mut world, 0, 1, &opening(0, 1, 2049)));
        for (from, to, port) in [(0, 1, 22), (1, 0, 2049)] {
            // Whoever sends looks first.
            let at = if ends[from] { from } else { to };
            let before = denied(&world, at, 1 - at);
            assert!(!arrives(&mut world, from, to, &opening(from, to, port)));
            assert_eq!(denied(&world, at, 1 - at), before + 1, "{ends:?}");
        }
        // Whoever has no group is told apart as well.
        if ends[1] {
            assert!(!arrives(&mut world, 2, 1, &opening(2, 1, 2049)));
            let trouble: Vec<_> = world.nodes[1]
                .overlay
                .denials(world.now)
                .into_iter()
                .map(|alarm| (alarm.origin, alarm.trouble))
                .collect();
            let named = (
                "node-2".to_owned(),
                "sends what no rule allows, tcp/2049 last".to_owned(),
            );
            assert!(trouble.contains(&named), "{trouble:?}");
        }
    }
}

#[test]
fn who_sends_what_is_not_allowed_is_told_by_icmp() {
    let mut world = linked();
    rule(&mut world, 0, &["lake"], Some(NFS));
    world.nodes[0].packets.clear();
    assert!(!arrives(&mut world, 0, 1, &opening(0, 1, 22)));
    let [answer] = &world.nodes[0].packets[..] else {
        panic!("one answer");
    };
    // Administratively prohibited, as if from the other node.
    assert_eq!(answer[20..22], [3, 13]);
    assert_eq!(answer[12..16], [10, 73, 0, 2]);
    assert_eq!(denied(&world, 0, 1), 1);
}

#[test]
fn rules_come_and_go_without_a_link_that_ends() {
    let mut world = linked();
    let gates = |world: &World, i: usize| {
        let paths = world.nodes[i].paths.values();
        paths.filter(|path| path.gate.is_some()).count()
    };
    world.nodes.iter_mut().for_each(|node| node.events.clear());
    assert_eq!(gates(&world, 1), 0);
    rule(&mut world, 1, &["storage"], Some(NFS));
    assert_eq!(gates(&world, 1), 2);
    let from_lake = |world: &World, port| {
        let mut paths = world.nodes[1].paths.values();
        let lake = paths.find(|path| path.addrs.ipv4.addr.octets() == [10, 73, 0, 1]);
        let gate = lake.and_then(|path| path.gate.clone());
        gate.is_none_or(|gate| gate.admits(Direction::In, &opening(0, 1, port), 1))
    };
    assert!(from_lake(&world, 2049) && !from_lake(&world, 22));
    let ssh = NFS.replace("2049", "22");
    rule(&mut world, 1, &["storage"], Some(&ssh));
    assert!(from_lake(&world, 22) && !from_lake(&world, 2049));
    // One of the same group has nothing to pass.
    rule(&mut world, 1, &["storage", "lake"], Some(&ssh));
    assert_eq!(gates(&world, 1), 1);
    assert!(from_lake(&world, 1));
    rule(&mut world, 1, &["storage"], None);
    assert_eq!(gates(&world, 1), 0);
    assert!(world.nodes.iter().all(|node| node.events.is_empty()));
    assert!(world.all_up());
    world.check_every_path();
}

#[test]
fn another_certificate_is_another_group_when_keys_are_renewed() {
    let office = Office::new();
    let mut world = certified(&office, 2, |_| None);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    rule(&mut world, 1, &["storage"], Some(NFS));
    let nfs = opening(0, 1, 2049);
    assert!(!arrives(&mut world, 0, 1, &nfs));
    let identity = in_groups(&office, 0, &["lake"]);
    world.nodes[0].overlay.set_identity(identity);
    assert!(!arrives(&mut world, 0, 1, &nfs));
    // Keys that carry nothing are not renewed.
    for _ in 0..50 {
        let now = world.now;
        world.nodes[0].overlay.handle_packet(now, &nfs);
    }
    world.run(RENEW_EVERY + 30 * SECOND);
    assert!(arrives(&mut world, 0, 1, &nfs));
    assert!(!arrives(&mut world, 0, 1, &opening(0, 1, 22)));
    let peer = world.peer(1, 0).expect("known");
    assert_eq!(peer.groups, groups(&["lake"]));
}

#[test]
fn a_peer_by_configuration_is_in_the_groups_that_this_node_says() {
    let mut world = super::static_peers::in_groups([&["lake"], &["storage"]]);
    assert!(world.run_until(SOON, World::all_up));
    rule(&mut world, 1, &["storage"], Some(NFS));
    assert!(arrives(&mut world, 0, 1, &opening(0, 1, 2049)));
    assert!(!arrives(&mut world, 0, 1, &opening(0, 1, 22)));
    assert_eq!(world.peer(1, 0).expect("known").groups, groups(&["lake"]));
}

#[test]
fn a_member_that_only_its_account_vouches_for_is_in_no_group_and_has_no_name() {
    let mut world = World::open(2);
    world.sign_in_all();
    assert!(world.run_until(SOON, World::all_up));
    let named = "from = \"node:node-0\"\nto = \"any\"";
    rule(&mut world, 1, &[], Some(named));
    assert!(!arrives(&mut world, 0, 1, &opening(0, 1, 22)));
    rule(
        &mut world,
        1,
        &[],
        Some(&named.replace("node:node-0", "any")),
    );
    assert!(arrives(&mut world, 0, 1, &opening(0, 1, 22)));
}

#[test]
fn a_scan_is_told_once_in_a_minute() {
    let mut world = linked();
    rule(&mut world, 1, &["storage"], Some(NFS));
    world.nodes[1].events.clear();
    for port in 1..=100 {
        let now = world.now;
        world.nodes[2]
            .overlay
            .handle_packet(now, &opening(2, 1, port));
        world.run(SECOND);
    }
    world.run(60 * SECOND);
    let told = &world.nodes[1].events;
    let [first, second, third] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(first.starts_with("denied node-2: tcp/"), "{told:?}");
    // Whenever it is told, it is how many since then.
    let count = |text: &str| -> u64 {
        let (_, count) = text.rsplit_once(", ").expect("a count");
        count.parse().expect("a number")
    };
    let sum: u64 = [first, second, third].iter().map(|text| count(text)).sum();
    assert_eq!(sum, 100);
    // By the key that it showed when its link came up.
    let of = |what: &str| -> Vec<_> {
        let keys = world.nodes[1].keys.iter();
        let of = keys.filter(|(told, peer, _)| *told == what && peer == "node-2");
        of.map(|(.., key)| key.clone().expect("a key")).collect()
    };
    let [key] = &of("up")[..] else {
        panic!("one link: {:?}", world.nodes[1].keys);
    };
    assert_eq!(of("denied"), [key, key, key].map(String::clone));
    assert_eq!(world.nodes[1].overlay.denials(world.now)[0].count, 100);
}
