//! Packets pass with each offload missing on either side, as on kernels that have it not (3.10 of
//! CentOS 7 has none of them). Needs root; see the module of the pair.

mod static_pair;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use ipop_proto::config::OverlayMode;
use ipop_proto::status::DropReason;

use static_pair::{Node, PATIENCE, linked};

const ALL: &str = "";
const NONE: &str = "[offload]\ndevice = false\nsegmentation = false\ncoalescing = false\n";
const NO_DEVICE: &str = "[offload]\ndevice = false\n";
const NO_SEGMENTATION: &str = "[offload]\nsegmentation = false\n";
const NO_COALESCING: &str = "[offload]\ncoalescing = false\n";
/// After the configuration's last section, which is `[overlay]`.
const FRAMES: &str = "mode = \"switch\"\nmtu = 1500\n";
/// Bytes of one transfer: some hundred super-packets.
const AMOUNT: u64 = 8_000_000;

/// Device, segmentation and coalescing, as status shows them.
fn offloads(node: &Node) -> [bool; 3] {
    let shown = node.status().datapath;
    [
        shown.device_tcp && shown.device_checksums,
        shown.socket_segmentation,
        shown.socket_coalescing,
    ]
}

/// Sends bytes over TCP from one to the other, where they arrive as they were.
fn transfer(from: &Node, to: &Node, address: &str) {
    let bind = || TcpListener::bind((address, 0));
    let listener = to.netns.inside(bind).expect("an address of the overlay");
    let port = listener.local_addr().expect("bound").port();
    let connect = || TcpStream::connect((address, port));
    let mut sending = from.netns.inside(connect).expect("connected");
    let (mut receiving, _) = listener.accept().expect("connected");
    for stream in [&sending, &receiving] {
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_write_timeout(Some(PATIENCE)).expect("set");
    }
    let sent: Vec<u8> = (0..AMOUNT).map(|at| (at % 251) as u8).collect();
    let received = std::thread::scope(|scope| {
        scope.spawn(|| {
            sending.write_all(&sent).expect("sent");
            sending.shutdown(Shutdown::Write).expect("shut down");
        });
        let mut received = Vec::new();
        receiving.read_to_end(&mut received).expect("received");
        received
    });
    assert!(received == sent, "{} bytes arrived", received.len());
}

fn carries(extra: [&str; 2], expected: [[bool; 3]; 2]) -> [Node; 2] {
    let nodes = linked(extra);
    let [a, b] = &nodes;
    assert_eq!([a, b].map(offloads), expected);
    for (from, to) in [(a, b), (b, a)] {
        for address in to.addrs() {
            transfer(from, to, &address);
        }
    }
    for node in [a, b] {
        let peer = node.peer();
        assert!(peer.rx_bytes >= 2 * AMOUNT, "{peer:?}");
        let malformed = [DropReason::Malformed, DropReason::BadRecord];
        assert!(
            malformed
                .iter()
                .all(|reason| !peer.drops.contains_key(reason)),
            "{peer:?}"
        );
    }
    nodes
}

#[test]
fn a_node_without_any_offload_reaches_one_with_all() {
    carries([NONE, ALL], [[false; 3], [true; 3]]);
}

#[test]
fn two_nodes_without_any_offload_reach_each_other() {
    carries([NONE, NONE], [[false; 3]; 2]);
}

#[test]
fn a_device_without_offload_does_with_sockets_that_have_it() {
    carries([NO_DEVICE, ALL], [[false, true, true], [true; 3]]);
}

#[test]
fn sockets_may_lack_one_of_both_offloads() {
    let expected = [[true, false, true], [true, true, false]];
    carries([NO_SEGMENTATION, NO_COALESCING], expected);
}

#[test]
fn frames_need_no_offload_either() {
    let mac = "02:49:0a:01:80:02";
    let extra = [
        format!("{FRAMES}{NONE}"),
        format!("{FRAMES}mac = \"{mac}\"\n"),
    ];
    let nodes = carries([&extra[0], &extra[1]], [[false; 3], [true; 3]]);
    for node in &nodes {
        assert_eq!(node.status().datapath.mode, OverlayMode::Switch);
    }
    let interface = nodes[1].status().interface;
    let shown = nodes[1].netns.run(&["ip", "link", "show", &interface]);
    assert!(shown.contains(mac), "{shown}");
}
