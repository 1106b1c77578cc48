//! What one peer is sent in bulk costs others nothing. Needs root; see the crate's documentation.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipop_proto::status::DropReason;
use ipop_tests::lab::{Families, Lab};
use ipop_tests::node::Node;

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

/// How many of [`PINGS`] are answered, however late.
fn answered(from: &Node, to: &Node) -> usize {
    let [_, address] = to.addrs();
    let count = PINGS.to_string();
    let words = [
        "ping", "-n", "-c", &count, "-i", "0.2", "-W", "10", &address,
    ];
    let output = from.netns.output(&words);
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter(|line| line.contains("time=")).count()
}

/// Packets for `to` that `from` had no room for.
fn crowded_out(from: &Node, to: &Node) -> u64 {
    let drops = from.link(to).expect("still linked").drops;
    drops.get(&DropReason::QueueFull).copied().unwrap_or(0)
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
    let slow = "tc qdisc add dev eth0 root tbf rate 8mbit burst 64kb limit 32mb";
    a.netns.run(&slow.split(' ').collect::<Vec<_>>());
    let stop = AtomicBool::new(false);
    let (to_near, to_far) = std::thread::scope(|scope| {
        scope.spawn(|| flood(a, flooded, &stop));
        let near = scope.spawn(|| answered(a, near));
        let far = scope.spawn(|| answered(a, far));
        let counts = (near.join(), far.join());
        stop.store(true, Ordering::Relaxed);
        counts
    });
    let drops = [flooded, near, far].map(|peer| crowded_out(a, peer));
    println!("answered {to_near:?} {to_far:?} of {PINGS}; crowded out {drops:?}");
    assert!(drops[0] > 1000, "no flood: {drops:?}");
    assert_eq!(drops[1..], [0, 0], "crowded out by the flood");
    assert!(to_near.expect("counted") >= PINGS - 2);
    assert_eq!(to_far.expect("counted"), PINGS);
}
