//! What one peer is sent in bulk costs others nothing. Needs root; see the crate's documentation.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipop_proto::status::DropReason;
use ipop_tests::lab::{Families, Lab};
use ipop_tests::node::Node;

/// The device's name when none is configured.
const DEVICE: &str = "ipop0";
/// Several times what the slow link takes, and less than a debug build takes from its device.
const FLOOD: (usize, Duration) = (20, Duration::from_millis(5));
/// Bytes of a datagram of the flood.
const DATAGRAM: usize = 1200;
/// Echo requests to each of the others.
const PINGS: usize = 20;

/// Sends to the discard port of `to` until told to stop.
fn flood(from: &Node, to: &Node, stop: &AtomicBool) {
    let [_, address] = to.addrs();
    from.netns.inside(|| {
        let socket = UdpSocket::bind("[::]:0").expect("bound");
        socket.connect((address, 9)).expect("a route");
        let (count, pause) = FLOOD;
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..count {
                // The peer has nothing at that port, and may say so.
                let _ = socket.send(&[0; DATAGRAM]);
            }
            std::thread::sleep(pause);
        }
    });
}

/// Round-trip times in milliseconds of those of [`PINGS`] that are answered, however late.
fn answered(from: &Node, to: &Node) -> Vec<f64> {
    let [_, address] = to.addrs();
    let count = PINGS.to_string();
    let words = [
        "ping", "-n", "-c", &count, "-i", "0.2", "-W", "10", &address,
    ];
    let output = from.netns.output(&words);
    let text = String::from_utf8_lossy(&output.stdout);
    let times = text.lines().filter_map(|line| line.split_once("time="));
    times
        .map(|(_, rest)| rest.split(' ').next().expect("a number"))
        .map(|time| time.parse().expect("milliseconds"))
        .collect()
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// What `node` has dropped of what `other` is sent, and of what came from there.
fn drops(node: &Node, other: &Node) -> BTreeMap<DropReason, u64> {
    let mut drops = node.link(other).expect("still linked").drops;
    // A check's answer that came too late: nothing that anybody sent.
    drops.remove(&DropReason::UnknownDatagram);
    drops
}

#[test]
fn a_peer_that_is_flooded_over_a_slow_link_loses_its_own_and_nobody_elses_packets() {
    // IPv6 alone, so that both peers on the slow link share one socket.
    let mut lab = Lab::lan(4, Families::V6);
    let [a, _, _, far] = &lab.nodes[..] else {
        unreachable!("four nodes")
    };
    // The last node is reached over a cable of its own and no other way.
    a.netns.cable("eth1", &far.netns, "eth1");
    a.netns.address("eth1", "fd98::10/64");
    far.netns.address("eth1", "fd98::13/64");
    far.netns.nft(
        "table ip6 filter {
           chain in { type filter hook input priority 0; iifname eth0 meta l4proto udp drop; }
           chain out { type filter hook output priority 0; oifname eth0 meta l4proto udp drop; }
         }",
    );
    for node in &mut lab.nodes {
        node.start();
    }
    let [a, flooded, near, far] = &lab.nodes[..] else {
        unreachable!("four nodes")
    };
    for other in [flooded, near, far] {
        a.ping(other, ipop_tests::lab::PATIENCE);
    }
    // Before the node sees them: on a machine that is busy the flood would crowd out others there.
    a.netns
        .run(&["ip", "link", "set", DEVICE, "txqueuelen", "20000"]);
    let others = [near, far];
    let lost = || others.map(|other| [drops(a, other), drops(other, a)]);
    let lost_before = lost();
    let slow = "tc qdisc add dev eth0 root tbf rate 8mbit burst 64kb limit 32mb";
    a.netns.run(&slow.split(' ').collect::<Vec<_>>());
    let stop = AtomicBool::new(false);
    let (to_near, to_far) = std::thread::scope(|scope| {
        scope.spawn(|| flood(a, flooded, &stop));
        let near = scope.spawn(|| answered(a, near));
        let far = scope.spawn(|| answered(a, far));
        let times = (near.join(), far.join());
        stop.store(true, Ordering::Relaxed);
        times
    });
    let (to_near, to_far) = (to_near.expect("measured"), to_far.expect("measured"));
    let flood = drops(a, flooded).get(&DropReason::QueueFull).copied();
    let device = format!("/sys/class/net/{DEVICE}/statistics/tx_dropped");
    let device = a.netns.run(&["cat", &device]);
    println!("near {to_near:?}, far {to_far:?} ms");
    println!("lost of the flood: {flood:?}; before the node saw it: {device}");
    assert!(flood > Some(1000), "no flood: {flood:?}");
    assert_eq!(lost(), lost_before, "lost by the flood");
    assert_eq!((to_near.len(), to_far.len()), (PINGS, PINGS));
    // What is queued on the slow link is before all that goes there, and before nothing else.
    assert!(median(&to_far) < median(&to_near));
}
