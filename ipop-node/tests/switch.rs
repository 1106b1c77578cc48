//! What passes between LANs that are joined by nodes in mode `switch`. Needs root; see the
//! module of the LANs.

#[expect(dead_code, reason = "shared with other tests")]
mod lans;

use lans::{BROADCAST, Host, Lans, count, frame, heard};

/// Of a host on the second LAN that did not say anything yet.
const SILENT: [u8; 6] = [2, 0, 0, 0, 7, 7];

#[test]
fn hosts_find_and_reach_each_other_with_frames_of_every_size() {
    let lans = Lans::linked(&[""; 3]);
    let wires: Vec<_> = lans.hosts.iter().map(Host::wire).collect();
    for (at, from) in lans.hosts.iter().enumerate() {
        for (to, _) in lans.hosts.iter().enumerate().filter(|(to, _)| *to != at) {
            from.pings(&lans.hosts[to], &[]);
            // 1500 bytes of IPv4, and 8 more of IPv6, in two fragments of its own.
            from.pings(&lans.hosts[to], &["-s", "1472"]);
            from.pings(&lans.hosts[to], &["-M", "do", "-s", "1452"]);
        }
    }
    let heard: Vec<Vec<_>> = wires
        .iter()
        .map(|wire| std::iter::from_fn(|| wire.heard()).collect())
        .collect();
    let [a, b, _] = &heard[..] else {
        unreachable!("three hosts")
    };
    let is_ping = |frame: &[u8], kind: u8| {
        frame.len() == 1514 && frame[12..14] == [8, 0] && frame[23] == 1 && frame[34] == kind
    };
    let asked = |frame: &&Vec<u8>| is_ping(frame, 8) && frame[6..12] == lans.hosts[0].mac();
    let asked = b.iter().find(asked).expect("a whole ping");
    let answered = |frame: &&Vec<u8>| is_ping(frame, 0) && frame[34 + 8..] == asked[34 + 8..];
    assert!(a.iter().any(|frame| answered(&frame)));
    let solicited = |frame: &Vec<u8>| frame[12..14] == [0x86, 0xdd] && frame.get(54) == Some(&135);
    assert!(b.iter().any(solicited), "no Neighbour Discovery");
    assert!(b.iter().any(|frame| frame[12..14] == [8, 6]), "no ARP");
}

#[test]
fn a_frame_for_a_host_that_was_never_heard_reaches_it_and_nobody_else_once_it_spoke() {
    let lans = Lans::linked(&[""; 3]);
    let [a, b, other] = &lans.hosts[..] else {
        unreachable!("three hosts")
    };
    let [sender, receiver, other] = [a, b, other].map(Host::wire);
    let wanted = frame(SILENT, a.mac(), "is anybody there?");
    sender.send(&wanted);
    for wire in [&receiver, &other] {
        assert_eq!(count(&heard(wire, &[&wanted]), &wanted), 1);
    }
    let answer = frame(a.mac(), SILENT, "I am here");
    receiver.send(&answer);
    heard(&sender, &[&answer]);
    let known = frame(SILENT, a.mac(), "so you are");
    let last = frame(BROADCAST, a.mac(), "that is all");
    sender.send(&known);
    sender.send(&last);
    assert_eq!(count(&heard(&receiver, &[&known, &last]), &known), 1);
    assert_eq!(count(&heard(&other, &[&last]), &known), 0);
}

#[test]
fn a_broadcast_reaches_every_host_once_and_never_comes_back() {
    let lans = Lans::linked(&[""; 3]);
    let [a, b, c] = &lans.hosts[..] else {
        unreachable!("three hosts")
    };
    let [first, second, third] = [a, b, c].map(Host::wire);
    let broadcast = frame(BROADCAST, a.mac(), "to everybody");
    first.send(&broadcast);
    let mut at_second = heard(&second, &[&broadcast]);
    let mut at_third = heard(&third, &[&broadcast]);
    // What comes from there now comes after all that could come back from there, or go on.
    let from_second = frame(BROADCAST, b.mac(), "from the second");
    let from_third = frame(BROADCAST, c.mac(), "from the third");
    second.send(&from_second);
    third.send(&from_third);
    at_second.extend(heard(&second, &[&from_third]));
    at_third.extend(heard(&third, &[&from_second]));
    let at_first = heard(&first, &[&from_second, &from_third]);
    for (at, times) in [(at_first, 0), (at_second, 1), (at_third, 1)] {
        assert_eq!(count(&at, &broadcast), times, "{at:02x?}");
    }
}
