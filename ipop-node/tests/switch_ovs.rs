//! A LAN whose bridge is one of Open vSwitch. Needs root and `openvswitch-switch`; see the module of the LANs.

#[expect(dead_code, reason = "shared with other tests")]
mod lans;

use ipop_testbed::open_vswitch::OpenVswitch;
use ipop_testbed::wait_until;

use lans::{BRIDGE, DEVICE, Lans, PATIENCE};

/// Gives the first LAN a bridge of Open vSwitch in place of Linux's.
fn replaced(lans: &mut Lans) -> OpenVswitch {
    let node = &mut lans.nodes[0];
    node.netns.run(&["ip", "link", "del", BRIDGE]);
    let switch = OpenVswitch::start(&node.netns, BRIDGE);
    switch.run(&["add-port", BRIDGE, "host1"]);
    node.set_env("OVS_RUNDIR", switch.dir());
    switch
}

fn has_port(switch: &OpenVswitch) -> bool {
    let ports = switch.run(&["list-ports", BRIDGE]);
    ports.lines().any(|port| port == DEVICE)
}

#[test]
fn the_device_is_a_port_while_there_is_a_link_and_never_before() {
    let mut lans = Lans::prepared(&[""; 2]);
    let switch = replaced(&mut lans);
    lans.start(0);
    assert!(!lans.forwards(0), "it runs");
    assert!(!has_port(&switch), "there is no link");
    lans.start(1);
    lans.wait_linked(0);
    lans.wait_linked(1);
    assert!(has_port(&switch));
    for words in [&["-M", "do", "-s", "1400"][..], &[]] {
        lans.hosts[0].pings(&lans.hosts[1], words);
        lans.hosts[1].pings(&lans.hosts[0], words);
    }

    // The database keeps what a node that is killed cannot take out.
    lans.nodes[1].kill();
    lans.nodes[0].kill();
    assert!(has_port(&switch));
    lans.start(0);
    assert!(!lans.forwards(0), "it runs");
    assert!(!has_port(&switch), "it would be a port with no guard");
    lans.start(1);
    lans.wait_linked(0);
    lans.hosts[0].pings(&lans.hosts[1], &[]);
    lans.nodes[0].end();
    assert!(!has_port(&switch));
}

#[test]
fn a_bridge_whose_daemon_stands_still_is_joined_when_it_goes_on() {
    let mut lans = Lans::prepared(&[""; 2]);
    let switch = replaced(&mut lans);
    switch.set_running(false);
    lans.start(0);
    lans.start(1);
    wait_until("a try that fails", PATIENCE, || {
        let log = lans.nodes[0].log();
        log.contains("Open vSwitch does not answer").then_some(())
    });
    assert!(!lans.forwards(0));
    assert!(!has_port(&switch), "it would be a port with no guard");
    switch.set_running(true);
    lans.wait_linked(0);
    lans.hosts[0].pings(&lans.hosts[1], &[]);
}

#[test]
fn two_nodes_that_are_on_one_lan_by_different_bridges_make_no_loop() {
    let mut lans = Lans::prepared(&[""; 3]);
    let switch = replaced(&mut lans);
    let [one, other, ..] = &lans.nodes[..] else {
        unreachable!("three nodes")
    };
    one.netns.cable("joint", &other.netns, "joint");
    switch.run(&["add-port", BRIDGE, "joint"]);
    other
        .netns
        .run(&["ip", "link", "set", "joint", "master", BRIDGE]);
    for at in 0..3 {
        lans.start(at);
    }
    lans.wait_linked(2);
    let first = wait_until("one that forwards", PATIENCE, || {
        match [0, 1].map(|at| lans.forwards(at)) {
            [true, false] => Some(0),
            [false, true] => Some(1),
            _ => None,
        }
    });
    for (from, to) in [(0, 2), (2, 1), (1, 0)] {
        lans.hosts[from].pings(&lans.hosts[to], &[]);
    }
    lans.nodes[first].kill();
    wait_until("the other one to forward", PATIENCE, || {
        lans.forwards(1 - first).then_some(())
    });
    for (from, to) in [(0, 2), (2, 1)] {
        lans.hosts[from].pings(&lans.hosts[to], &[]);
    }
}
