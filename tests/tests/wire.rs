//! What an eavesdropper on the underlay sees. Needs root; see the crate's documentation.

use std::time::Duration;

use ipop_tests::capture::{Capture, Frame, classify};
use ipop_tests::ejabberd::C2S_PORT;
use ipop_tests::lab::{Families, Lab, Mapping};
use ipop_tests::tcp::{clear_part, streams};
use ipop_tests::wait_until;

/// Ping's payload, in hex as `ping -p` wants it and as it would be seen.
const PATTERN_HEX: &str = "73656372657470696e67";
const PATTERN: &[u8] = b"secretping";
/// Words that must be seen nowhere: the signalling of links, and a password mechanism.
const SIGNALLING: [&[u8]; 4] = [b"jingle", b"fingerprint", b"SCRAM-", b"<auth"];

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// Joins, pings with a known pattern, and gives what `eth0` of each node saw.
fn captured(lab: &mut Lab) -> Vec<Vec<Vec<u8>>> {
    let wires: Vec<_> = lab
        .nodes
        .iter()
        .map(|node| Capture::start(&node.netns, "eth0"))
        .collect();
    lab.join_all();
    let overlay = Capture::start(&lab.nodes[0].netns, "ipop0");
    for addr in lab.nodes[1].addrs() {
        let words = [
            "ping",
            "-n",
            "-c",
            "3",
            "-i",
            "0.2",
            "-W",
            "2",
            "-p",
            PATTERN_HEX,
            &addr,
        ];
        let answered = || {
            lab.nodes[0]
                .netns
                .output(&words)
                .status
                .success()
                .then_some(())
        };
        wait_until("ping", Duration::from_secs(20), answered);
    }
    let inside = overlay.finish();
    assert!(
        inside.iter().any(|packet| contains(packet, PATTERN)),
        "the pattern was never sent"
    );
    wires.into_iter().map(Capture::finish).collect()
}

/// Checks every frame and gives how many were STUN, DTLS and ChannelData.
fn audit(frames: &[Vec<u8>], lab: &Lab) -> (usize, usize, usize) {
    let (mut stun, mut dtls, mut channel) = (0, 0, 0);
    let mut segments = Vec::new();
    for frame in frames {
        match classify(frame) {
            Frame::Neighbour => continue,
            Frame::Unreachable => {}
            Frame::Stun => stun += 1,
            Frame::Dtls => dtls += 1,
            Frame::ChannelData => channel += 1,
            Frame::Tcp(segment) => {
                assert!(
                    segment.from.1 == C2S_PORT || segment.to.1 == C2S_PORT,
                    "TCP that is not XMPP: {segment:?}"
                );
                segments.push(segment);
            }
            Frame::Other(what) => panic!("unknown on the wire: {what}"),
        }
        assert!(
            !contains(frame, PATTERN),
            "ping's payload in the clear: {frame:02x?}"
        );
        for word in SIGNALLING {
            assert!(
                !contains(frame, word),
                "signalling in the clear: {frame:02x?}"
            );
        }
        for addr in lab.nodes.iter().flat_map(|node| node.addrs()) {
            let ip: std::net::IpAddr = addr.parse().expect("an address");
            let bytes = match ip {
                std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
                std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            assert!(
                !contains(frame, &bytes),
                "overlay address {addr} in the clear"
            );
        }
    }
    let streams = streams(&segments);
    assert!(streams.len() >= 2, "no XMPP stream seen");
    for (direction, stream) in streams {
        let (clear, records) = clear_part(&stream)
            .unwrap_or_else(|| panic!("{direction:?} is not STARTTLS and then TLS"));
        assert!(records > 2, "{direction:?} has {records} TLS records");
        assert!(!contains(clear, b"node-"), "an account's name in the clear");
    }
    (stun, dtls, channel)
}

#[test]
fn the_underlay_shows_only_stun_dtls_and_tls() {
    let mut lab = Lab::lan(2, Families::Both);
    for frames in captured(&mut lab) {
        let (stun, dtls, _) = audit(&frames, &lab);
        assert!(stun > 0 && dtls > 10, "{stun} STUN, {dtls} DTLS");
    }
}

#[test]
fn a_relayed_link_shows_only_turn_dtls_and_tls() {
    let mut lab = Lab::behind_nats(Mapping::AddressAndPortDependent);
    // One end may send to the other's relayed address without an allocation of its own: then only
    // the other end's wire has ChannelData.
    let seen: Vec<_> = captured(&mut lab)
        .iter()
        .map(|frames| audit(frames, &lab))
        .collect();
    assert!(seen.iter().all(|(stun, _, _)| *stun > 0), "{seen:?}");
    assert!(seen.iter().any(|(_, _, channel)| *channel > 10), "{seen:?}");
    assert!(
        seen.iter().all(|(_, dtls, channel)| dtls + channel > 10),
        "{seen:?}"
    );
}
