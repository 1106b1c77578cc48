//! Congestion marks through the overlay. Needs root and `nftables`; see the module of the pair.

mod static_pair;

use ipop_proto::status::DropReason;
use ipop_testbed::wait_until;

use static_pair::running::DEVICE;
use static_pair::{Node, PATIENCE, PORT, linked};

/// Values for `ping -Q`: not ECN-capable, with a DSCP; ECT(0), with the same.
const NOT_CAPABLE: &str = "0x28";
const CAPABLE: &str = "0x2a";

/// Counts what comes in a datagram that may be marked, and what comes out of it marked; with `mark`
/// the underlay is congested.
fn rules(mark: &str) -> String {
    format!(
        "table inet marks {{
            counter outer {{ }}
            counter inner {{ }}
            chain underlay {{
                type filter hook prerouting priority -300;
                udp dport {PORT} ip ecn ect0 counter name outer
                udp dport {PORT} {mark}
            }}
            chain overlay {{
                type filter hook prerouting priority -300;
                iifname {DEVICE} ip ecn ce ip dscp 0x0a counter name inner
                iifname {DEVICE} ip6 ecn ce ip6 dscp 0x0a counter name inner
            }}
        }}"
    )
}

fn counted(node: &Node, counter: &str) -> u64 {
    let words = ["nft", "--json", "list", "counter", "inet", "marks", counter];
    let listed: serde_json::Value = serde_json::from_str(&node.netns.run(&words)).expect("JSON");
    let packets = listed["nftables"][1]["counter"]["packets"].as_u64();
    packets.expect("packets")
}

#[test]
fn a_mark_of_the_underlay_reaches_the_packet() {
    let [a, b] = linked([""; 2]);
    b.netns.nft(&rules("ip ecn ect0 ip ecn set ce"));
    for (at, address) in b.addrs().iter().enumerate() {
        assert!(a.ping(&["-Q", NOT_CAPABLE, address]).status.success());
        assert!(a.ping(&["-Q", CAPABLE, address]).status.success());
        assert_eq!(counted(&b, "outer"), at as u64 + 1);
        assert_eq!(counted(&b, "inner"), at as u64 + 1);
    }
    assert_eq!(b.dropped(DropReason::Congested), 0);
}

#[test]
fn a_marked_packet_whose_ends_do_not_know_of_marks_is_dropped_and_counted() {
    let [a, b] = linked([""; 2]);
    b.netns.nft(&rules("ip ecn set ce"));
    let [b4, _] = b.addrs();
    assert!(!a.ping(&["-Q", NOT_CAPABLE, &b4]).status.success());
    assert!(b.dropped(DropReason::Congested) > 0);
    wait_until("a capable ping", PATIENCE, || {
        a.ping(&["-Q", CAPABLE, &b4]).status.success().then_some(())
    });
}
