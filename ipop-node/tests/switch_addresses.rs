//! Whose IP addresses frames may come from. Needs root; see the module of the LANs.

#[expect(dead_code, reason = "shared with other tests")]
mod lans;

use ipop_proto::status::DropReason;
use ipop_testbed::netns::Netns;
use ipop_testbed::wait_until;

use lans::{BRIDGE, Lans, PATIENCE, name};

/// The address of a node on the overlay.
fn overlay_address(at: usize) -> String {
    format!("10.73.0.{}", at + 1)
}

fn answers(from: &Netns, to: &str, words: &[&str]) -> bool {
    let ping = ["ping", "-n", "-c", "1", "-W", "1"];
    let output = from.output(&[&ping, words, &[to]].concat());
    output.status.success()
}

#[test]
fn the_address_of_a_node_is_used_by_no_host_of_another() {
    let lans = Lans::linked(&[""; 3]);
    let [asks, thief, _] = &lans.hosts[..] else {
        unreachable!("three hosts")
    };
    thief.pings(asks, &[]);
    let stolen = overlay_address(2);
    thief.netns.address("eth0", &format!("{stolen}/24"));
    asks.netns.address("eth0", "10.73.0.99/24");
    let alarm = wait_until("an alarm", PATIENCE, || {
        assert!(!answers(&asks.netns, &stolen, &[]), "the thief answered");
        // What it sends to a station that it knows is looked at by the threads first.
        let [known, _] = asks.addrs();
        assert!(!answers(&thief.netns, &known, &["-I", &stolen]));
        let mut alarms = lans.switch(1).alarms.into_iter();
        let text = format!("comes from {stolen}, which is not an address of its node");
        alarms.find(|alarm| alarm.trouble.ends_with(&text))
    });
    assert_eq!(alarm.origin, "the LAN");
    assert_eq!(alarm.holder, Some(name(2)));
    assert!(lans.dropped(1, None, DropReason::WrongSource) > 0);
    // What it has itself it may use.
    thief.pings(asks, &[]);
}

#[test]
fn a_node_that_carries_no_lan_brings_no_address_but_its_own() {
    let mut lans = Lans::prepared(&["lans = [\"node-0\", \"node-2\"]", "", ""]);
    for at in 0..3 {
        lans.start(at);
    }
    for at in 0..3 {
        lans.wait_linked(at);
    }
    let [near, stranger, known] = &lans.hosts[..] else {
        unreachable!("three hosts")
    };
    known.pings(near, &[]);
    stranger.pings(known, &[]);
    let [target, _] = near.addrs();
    assert!(!answers(&stranger.netns, &target, &[]));
    lans.wait_alarm(0, &name(1), "which is not an address of its node");
    assert!(lans.dropped(0, Some(1), DropReason::WrongSource) > 0);
    assert_eq!(lans.dropped(0, Some(2), DropReason::WrongSource), 0);
    // The node itself has its address on its bridge.
    let own = format!("{}/24", overlay_address(1));
    lans.nodes[1].netns.address(BRIDGE, &own);
    near.netns.address("eth0", "10.73.0.99/24");
    wait_until("an answer", PATIENCE, || {
        answers(&near.netns, &overlay_address(1), &[]).then_some(())
    });
}

#[test]
fn a_node_that_stands_by_is_reached_at_its_address_through_the_other_one() {
    let mut lans = Lans::prepared(&[""; 3]);
    lans.join(0, 1);
    for at in 0..3 {
        lans.start(at);
        let own = format!("{}/24", overlay_address(at));
        lans.nodes[at].netns.address(BRIDGE, &own);
    }
    lans.wait_linked(2);
    let forwarder = || (0..2).find(|at| lans.forwards(*at));
    let first = wait_until("one that forwards", PATIENCE, forwarder);
    let standby = 1 - first;
    wait_until("an answer", PATIENCE, || {
        answers(&lans.nodes[2].netns, &overlay_address(standby), &[]).then_some(())
    });
    assert!(!lans.forwards(standby), "it stands by all the same");

    // It forwards itself once the other one is gone.
    lans.nodes[first].kill();
    wait_until("an answer by its own way", PATIENCE, || {
        let is_there = answers(&lans.nodes[2].netns, &overlay_address(standby), &[]);
        (is_there && lans.forwards(standby)).then_some(())
    });
}
