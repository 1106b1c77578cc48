//! Peers and strangers that do not follow the rules.

use std::time::Duration;

use bytes::BytesMut;
use ipop_datapath::record::ContentType;
use proptest::prelude::*;

use super::pair::Pair;
use crate::link::{Identity, stun_username};
use crate::net::DatagramClass;
use crate::signal::{Fingerprint, LinkDescription, TerminateReason};
use crate::sim::Path;
use crate::status::{DropReason, LinkState};

const SECOND: Duration = Duration::from_secs(1);

fn neighbours(seed: u64) -> Pair {
    let mut pair = Pair::new(seed, Path::default());
    pair.host(0, "198.51.100.1:4000", None);
    pair.host(1, "198.51.100.2:4000", None);
    pair
}

/// Both halves, with another fingerprint in the half of node `i`.
fn with_wrong_fingerprint(pair: &Pair, i: usize) -> [LinkDescription; 2] {
    let mut halves = pair.descriptions();
    halves[i].fingerprint = Fingerprint([0x5A; 32]);
    halves
}

#[test]
fn a_certificate_other_than_the_signalled_one_is_refused_on_either_side() {
    for liar in 0..2 {
        let mut pair = neighbours(31);
        let halves = with_wrong_fingerprint(&pair, liar);
        pair.signal_halves(halves);
        pair.run_for(5 * SECOND);
        let shown = pair.nodes[liar].identity.fingerprint();
        let expected = Fingerprint([0x5A; 32]);
        let why = format!(
            "the peer's certificate is not the one signalled: \
             fingerprint {shown}, expected {expected}"
        );
        let failed = pair.nodes[1 - liar].failed.clone();
        assert_eq!(
            failed,
            Some((why, TerminateReason::SecurityError)),
            "node {liar} lies"
        );
        // The other side is told, and does not believe to be linked.
        let (why, reason) = pair.nodes[liar].failed.clone().expect("told");
        assert_eq!(reason, TerminateReason::SecurityError);
        assert_eq!(why, "the peer ended DTLS with a fatal alert");
        for node in &pair.nodes {
            assert_eq!(node.up, None);
        }
        assert_eq!(pair.data_records(), 0);
    }
}

#[test]
fn a_stranger_who_answers_in_the_peers_place_cannot_link() {
    // Right ICE password, so ICE works; a certificate of its own.
    let mut pair = neighbours(32);
    let mut halves = pair.descriptions();
    halves[1].fingerprint = Identity::generate().expect("identity").fingerprint();
    pair.signal_halves(halves);
    pair.run_for(5 * SECOND);
    assert!(pair.nodes.iter().all(|node| node.up.is_none()));
    assert!(pair.nodes[0].states.contains(&LinkState::Handshaking));
}

#[test]
fn checks_with_a_wrong_password_are_not_answered() {
    let mut pair = neighbours(33);
    let mut halves = pair.descriptions();
    halves[0].pwd = "A".repeat(32);
    pair.signal_halves(halves);
    pair.run_for(5 * SECOND);
    assert_eq!(pair.nodes[0].link.state(), &LinkState::Checking);
    assert!(pair.nodes[0].refused.contains(&DropReason::UnknownDatagram));
}

#[test]
fn a_check_whose_meaning_lies_behind_its_integrity_is_refused() {
    let mut pair = neighbours(34);
    pair.signal();
    pair.run_for(Duration::from_millis(1));
    let log = pair.network.log();
    let (from, to, mut check) = log
        .iter()
        .find(|(_, to, _)| to.port() == 4000)
        .cloned()
        .expect("a check");
    assert_eq!(DatagramClass::of(&check), DatagramClass::Stun);
    // USE-CANDIDATE, appended without knowing the password.
    check.extend_from_slice(&[0x00, 0x25, 0x00, 0x00]);
    let length = u16::try_from(check.len() - 20).expect("short");
    check[2..4].copy_from_slice(&length.to_be_bytes());
    pair.deliver(to, from, check);
    let refused = pair.nodes.iter().flat_map(|node| &node.refused).count();
    assert_eq!(refused, 1);
}

#[test]
fn a_record_that_was_changed_on_the_way_is_a_bad_record() {
    let mut pair = neighbours(35);
    pair.signal();
    assert!(pair.run_until_up(SECOND));
    pair.nodes[0].link.send(b"packet").expect("sent");
    let transmit = pair.nodes[0].link.poll_transmit().expect("record");
    for at in 0..transmit.payload.len() {
        let mut payload = transmit.payload.clone();
        payload[at] ^= 1;
        pair.deliver(transmit.remote, transmit.local, payload);
    }
    pair.drain();
    assert!(pair.nodes[1].packets.is_empty());
    assert!(pair.nodes[1].refused.contains(&DropReason::BadRecord));
    assert_eq!(pair.nodes[1].link.state(), &LinkState::Up);
    pair.deliver(transmit.remote, transmit.local, transmit.payload.clone());
    pair.deliver(transmit.remote, transmit.local, transmit.payload);
    pair.drain();
    assert_eq!(pair.nodes[1].packets.len(), 1, "once, though it came twice");
}

#[test]
fn a_record_that_is_cut_short_or_goes_on_too_long_is_a_bad_record() {
    let mut pair = neighbours(38);
    pair.signal();
    assert!(pair.run_until_up(SECOND));
    pair.nodes[0].link.send(b"packet").expect("sent");
    let transmit = pair.nodes[0].link.poll_transmit().expect("record");
    let whole = transmit.payload.len();
    pair.nodes[1].refused.clear();
    for len in 14..whole {
        let mut payload = transmit.payload.clone();
        payload.truncate(len);
        pair.deliver(transmit.remote, transmit.local, payload);
    }
    assert_eq!(
        pair.nodes[1].refused,
        vec![DropReason::BadRecord; whole - 14]
    );
    let mut payload = transmit.payload;
    payload.extend_from_slice(&[0; 60_000]);
    pair.deliver(transmit.remote, transmit.local, payload);
    pair.drain();
    assert_eq!(pair.nodes[1].refused.len(), whole - 14 + 1);
    assert_eq!(pair.nodes[1].packets.len(), 1, "what was whole counts");
    assert_eq!(pair.nodes[1].link.state(), &LinkState::Up);
}

#[test]
fn what_a_later_version_puts_into_records_is_dropped_and_counted() {
    let mut pair = neighbours(39);
    pair.signal();
    assert!(pair.run_until_up(SECOND));
    let keys = pair.nodes[0].link.poll_keys().expect("up").sending;
    let (local, remote) = pair.nodes[0].link.selected().expect("up");
    pair.nodes[1].refused.clear();
    // A kind, and a flag, that this version has not; and nothing, not even an envelope.
    for content in [&[9, 0, 1, 2, 3][..], &[1, 0x80, 0x45, 0], &[]] {
        let mut record = BytesMut::zeroed(keys.overhead() + content.len());
        let prefix = keys.prefix();
        record[prefix..][..content.len()].copy_from_slice(content);
        let mut number = keys.reserve(1).expect("a number");
        keys.seal(ContentType::ApplicationData, &mut number, &mut record)
            .expect("sealed");
        pair.deliver(remote, local, record);
    }
    pair.drain();
    assert_eq!(pair.nodes[1].refused, [DropReason::UnknownContent; 3]);
    assert!(pair.nodes[1].packets.is_empty());
    assert_eq!(pair.nodes[1].link.state(), &LinkState::Up);
}

#[test]
fn plaintext_alerts_do_not_end_a_link_that_is_up() {
    let mut pair = neighbours(36);
    pair.signal();
    assert!(pair.run_until_up(SECOND));
    let (to, from) = (pair.nodes[1].bases[0], pair.nodes[0].bases[0]);
    for description in [0, 40, 42] {
        let alert = [21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 99, 0, 2, 2, description];
        pair.deliver(to, from, BytesMut::from(&alert[..]));
    }
    pair.drain();
    pair.send(1, b"packet").expect("still up");
    assert_eq!(pair.nodes[0].packets.len(), 1);
}

#[test]
fn a_forged_change_of_cipher_does_not_end_a_link() {
    let mut pair = neighbours(40);
    pair.signal();
    assert!(pair.run_until_up(SECOND));
    let (to, from) = (pair.nodes[1].bases[0], pair.nodes[0].bases[0]);
    for (epoch, body) in [(0, 1), (1, 1), (1, 0), (2, 1)] {
        let record = [20, 254, 253, 0, epoch, 0, 0, 0, 0, 9, 9, 0, 1, body];
        pair.deliver(to, from, BytesMut::from(&record[..]));
    }
    for i in 0..2 {
        pair.send(i, b"packet").expect("still up");
        assert_eq!(pair.nodes[1 - i].packets.len(), 1);
    }
}

#[test]
fn a_flood_of_repeated_handshakes_leaves_a_link_up_and_is_hardly_answered() {
    let mut pair = neighbours(37);
    pair.signal();
    assert!(pair.run_until_up(SECOND));
    let flights: Vec<_> = pair
        .network
        .log()
        .iter()
        .filter(|(_, _, payload)| payload[0] == 22)
        .cloned()
        .collect();
    assert!(!flights.is_empty());
    let before = pair.network.log().len();
    for n in 0..200_u64 {
        for (from, to, payload) in &flights {
            let mut payload = payload.clone();
            payload[5..11].copy_from_slice(&(1000 + n).to_be_bytes()[2..]);
            pair.deliver(*to, *from, payload);
        }
    }
    pair.drain();
    let answers = pair.network.log().len() - before;
    assert!(answers < 100, "{answers} datagrams");
    pair.send(0, b"packet").expect("still up");
    assert_eq!(pair.nodes[1].packets.len(), 1);
}

#[test]
fn the_username_of_a_check_names_both_sides() {
    let mut pair = neighbours(38);
    pair.signal();
    pair.run_for(Duration::from_millis(1));
    let ufrags = pair
        .nodes
        .each_ref()
        .map(|node| node.link.local_ufrag().to_owned());
    let checks = pair
        .network
        .log()
        .iter()
        .filter_map(|(_, _, payload)| stun_username(payload));
    let mut seen = 0;
    for (receiver, sender) in checks {
        assert!(ufrags.iter().any(|ufrag| ufrag == receiver));
        assert!(ufrags.iter().any(|ufrag| ufrag == sender));
        assert_ne!(receiver, sender);
        seen += 1;
    }
    assert!(seen > 0);
}

/// First bytes of every class, then noise.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let noise = proptest::collection::vec(any::<u8>(), 0..300);
    let stun = proptest::collection::vec(any::<u8>(), 0..100).prop_map(|tail| {
        let mut message = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
        message.resize(20, 7);
        message.extend(&tail);
        let length = u16::try_from(tail.len()).expect("short");
        message[2..4].copy_from_slice(&length.to_be_bytes());
        message
    });
    let record = (
        20..=23_u8,
        0..3_u8,
        proptest::collection::vec(any::<u8>(), 1..200),
    )
        .prop_map(|(kind, epoch, body)| {
            let mut record = vec![kind, 254, 253, 0, epoch, 0, 0, 0, 0, 1, body[0]];
            record.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
            record.extend(body);
            record
        });
    prop_oneof![noise, stun, record]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_never_panics_and_never_yields_a_packet(
        datagrams in proptest::collection::vec((garbage(), any::<bool>()), 1..20),
        up in any::<bool>(),
    ) {
        let mut pair = neighbours(39);
        pair.signal();
        if up {
            prop_assert!(pair.run_until_up(SECOND));
        }
        let (known, to) = (pair.nodes[0].bases[0], pair.nodes[1].bases[0]);
        let stranger = "198.51.100.99:9".parse().expect("address");
        for (datagram, from_peer) in datagrams {
            let from = if from_peer { known } else { stranger };
            pair.deliver(to, from, BytesMut::from(&datagram[..]));
            let _ = stun_username(&datagram);
        }
        pair.run_for(SECOND);
        prop_assert!(pair.nodes.iter().all(|node| node.packets.is_empty()));
        if up {
            prop_assert_eq!(pair.nodes[1].link.state(), &LinkState::Up);
            pair.send(0, b"packet").expect("up");
            prop_assert_eq!(pair.nodes[1].packets.len(), 1);
        }
    }
}
