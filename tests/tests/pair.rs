//! Two nodes on one segment. Needs root; see the crate's documentation.

use std::process::{Child, Stdio};
use std::time::Duration;

use ipop_proto::candidate::CandidateKind;
use ipop_proto::status::{DropReason, SignIn};
use ipop_tests::lab::{Families, Lab, PATIENCE};
use ipop_tests::node::Node;
use ipop_tests::wait_until;

/// Bytes that a second of iperf3 must move even in a debug build on a busy machine.
const MODEST: u64 = 100_000;

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        // Errors here mean that it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn assert_host_to_host(a: &Node, b: &Node) {
    let peer = a.link(b).expect("linked");
    let kinds = (
        peer.local.map(|end| end.kind),
        peer.remote.map(|end| end.kind),
    );
    assert_eq!(
        kinds,
        (Some(CandidateKind::Host), Some(CandidateKind::Host))
    );
}

#[test]
fn two_nodes_ping_each_other_over_a_direct_link() {
    let mut lab = Lab::lan(2, Families::Both);
    lab.join_all();
    lab.ping_all();
    let [a, b] = &lab.nodes[..] else {
        unreachable!("two nodes")
    };
    assert_host_to_host(a, b);
    assert_host_to_host(b, a);
    let status = a.status();
    assert_eq!(status.sign_in, SignIn::Online);
    assert!(!status.candidates.is_empty());
    let people = String::from_utf8_lossy(&a.control(&["status"]).stdout).into_owned();
    let row = people
        .lines()
        .find(|line| line.split_whitespace().next() == Some("node-1"))
        .unwrap_or_else(|| panic!("no row for node-1 in\n{people}"));
    assert!(row.split_whitespace().any(|word| word == "up"), "{people}");
}

#[test]
fn iperf3_runs_through_the_tunnel_both_ways_and_is_counted() {
    let mut lab = Lab::lan(2, Families::Both);
    lab.join_all();
    lab.ping_all();
    let [a, b] = &lab.nodes[..] else {
        unreachable!("two nodes")
    };
    let [server4, server6] = b.addrs();
    for (address, reverse) in [(&server4, false), (&server4, true), (&server6, false)] {
        let (before_tx, before_rx) = a.link(b).map(|p| (p.tx_bytes, p.rx_bytes)).expect("linked");
        let server = b
            .netns
            .command("iperf3")
            .args(["--server", "--one-off", "--bind", address])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("iperf3");
        let _server = KilledOnDrop(server);
        let listening = || {
            b.netns
                .run(&["ss", "-Hltn", "sport", "=", "5201"])
                .contains("LISTEN")
        };
        wait_until("iperf3 listens", Duration::from_secs(20), || {
            listening().then_some(())
        });
        let mut words = vec!["iperf3", "--client", address, "--time", "2", "--json"];
        if reverse {
            words.push("--reverse");
        }
        let report: serde_json::Value = serde_json::from_str(&a.netns.run(&words)).expect("JSON");
        let moved = report["end"]["sum_received"]["bytes"]
            .as_u64()
            .expect("bytes");
        assert!(moved > MODEST, "only {moved} bytes in 2 s");
        let after = a.link(b).expect("still linked");
        let counted = if reverse {
            after.rx_bytes - before_rx
        } else {
            after.tx_bytes - before_tx
        };
        assert!(counted >= moved, "{moved} bytes moved, {counted} counted");
        println!(
            "{address} reverse={reverse}: {} Mbit/s",
            moved * 8 / 2 / 1_000_000
        );
    }
}

#[test]
fn packets_for_no_member_are_dropped_and_counted() {
    let mut lab = Lab::lan(2, Families::Both);
    lab.join_all();
    let [a, _] = &lab.nodes[..] else {
        unreachable!("two nodes")
    };
    let dropped = || {
        a.status()
            .drops
            .get(&DropReason::NoMember)
            .copied()
            .unwrap_or_default()
    };
    let before = dropped();
    for nobody in ["10.73.0.99", "fd73:5a::99"] {
        assert!(!a.netns.reaches(nobody), "{nobody} answered");
    }
    wait_until("two drops", Duration::from_secs(5), || {
        (dropped() >= before + 2).then_some(())
    });
}

#[test]
fn two_nodes_link_over_an_underlay_that_has_only_ipv6() {
    let mut lab = Lab::lan(2, Families::V6);
    lab.join_all();
    lab.ping_all();
    let [a, b] = &lab.nodes[..] else {
        unreachable!("two nodes")
    };
    let remote = a.link(b).and_then(|peer| peer.remote).expect("linked");
    assert!(remote.addr.is_ipv6());
}

#[test]
fn a_role_report_reaches_status() {
    let mut lab = Lab::lan(1, Families::Both);
    lab.nodes[0].start();
    let node = &lab.nodes[0];
    wait_until("sign-in", PATIENCE, || {
        (node.status().sign_in == SignIn::Online).then_some(())
    });
    for (words, shown) in [
        (
            &["role", "failed", "--detail", "no\nmount"][..],
            "failed: no mount",
        ),
        (&["role", "ready"], "ready"),
    ] {
        let output = node.control(words);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let status = String::from_utf8_lossy(&node.control(&["status"]).stdout).into_owned();
        assert!(
            status.contains(&format!("role        {shown}\n")),
            "{status}"
        );
    }
}

#[test]
fn a_node_makes_a_candidate_of_an_address_that_comes_later() {
    let mut lab = Lab::lan(1, Families::Both);
    lab.nodes[0].start();
    let node = &lab.nodes[0];
    let has = |addr: &str| {
        let ip: std::net::IpAddr = addr.parse().expect("an address");
        node.status()
            .candidates
            .iter()
            .any(|end| end.addr.ip() == ip)
    };
    assert!(!has("203.0.113.5"));
    node.netns.address("eth0", "203.0.113.5/24");
    wait_until("new candidate", PATIENCE, || {
        has("203.0.113.5").then_some(())
    });
    node.netns
        .run(&["ip", "address", "del", "203.0.113.5/24", "dev", "eth0"]);
    wait_until("candidate gone", PATIENCE, || {
        (!has("203.0.113.5")).then_some(())
    });
}
