//! Nodes that carry Ethernet frames. Needs root; see the crate's documentation.

use ipop_proto::config::OverlayMode;
use ipop_tests::lab::{Families, Lab, PATIENCE};
use ipop_tests::node::Node;
use ipop_tests::wait_until;

/// The device's name when none is configured.
const DEVICE: &str = "ipop0";

fn switched(count: u8) -> Lab {
    let mut lab = Lab::lan(count, Families::Both);
    for node in &lab.nodes {
        node.carry_frames();
    }
    lab.join_all();
    lab
}

/// Waits until `from` reaches `address`; what `ping` is given besides decides about sizes.
fn pings(from: &Node, words: &[&str], address: &str) {
    let command = [&["ping", "-c", "1", "-W", "1"], words, &[address]].concat();
    wait_until(&format!("{command:?}"), PATIENCE, || {
        from.netns.output(&command).status.success().then_some(())
    });
}

#[test]
fn members_of_a_switch_find_each_other_by_arp_and_neighbour_discovery() {
    let lab = switched(3);
    lab.ping_all();
    let [a, b, _] = &lab.nodes[..] else {
        unreachable!("three nodes")
    };
    assert_eq!(a.status().datapath.mode, OverlayMode::Switch);
    let neighbours = a.netns.run(&["ip", "neigh", "show", "dev", DEVICE]);
    let [b4, _] = b.addrs();
    let line = neighbours.lines().find(|line| line.starts_with(&b4));
    assert!(line.is_some_and(|l| l.contains("lladdr")), "{neighbours}");
}

#[test]
fn whole_ethernet_frames_pass_and_so_do_other_networks() {
    let lab = switched(2);
    let [a, b] = &lab.nodes[..] else {
        unreachable!("two nodes")
    };
    let [b4, b6] = b.addrs();
    // 1500 bytes of IPv4, and of IPv6, which no datagram of the underlay can take in one piece.
    pings(a, &["-M", "do", "-s", "1472"], &b4);
    pings(a, &["-M", "do", "-s", "1452"], &b6);
    pings(a, &["-M", "do", "-s", "1300"], &b4);
    // Addresses that the overlay knows nothing of.
    for (node, end) in [(a, 1), (b, 2)] {
        let network = format!("172.31.9.{end}/24");
        node.netns
            .run(&["ip", "address", "add", &network, "dev", DEVICE]);
    }
    pings(a, &[], "172.31.9.2");
    pings(b, &["-M", "do", "-s", "1472"], "172.31.9.1");
    let drops = b.link(a).expect("linked").drops;
    assert!(drops.is_empty(), "{drops:?}");
}
