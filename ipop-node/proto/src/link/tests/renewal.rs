//! New keys for a link that works.

use std::sync::Arc;
use std::time::Duration;

use super::pair::Pair;
use crate::link::{Keys, RENEW_EVERY, RENEW_IDLE};
use crate::sim::Path;
use crate::status::{DropReason, LinkState};

const SECOND: Duration = Duration::from_secs(1);

fn linked(path: Path) -> Pair {
    let mut pair = Pair::new(41, path);
    pair.host(0, "198.51.100.1:4000", None);
    pair.host(1, "198.51.100.2:4000", None);
    pair.signal();
    assert!(pair.run_until_up(20 * SECOND));
    pair
}

/// The same, with keys that have carried something.
fn used(path: Path) -> Pair {
    let mut pair = linked(path);
    use_keys(&mut pair);
    pair
}

fn use_keys(pair: &mut Pair) {
    for i in 0..40_u32 {
        pair.send(0, &i.to_be_bytes()).expect("up");
    }
    pair.nodes[1].packets.clear();
}

fn keys(pair: &mut Pair, i: usize) -> Keys {
    pair.nodes[i].link.poll_keys().expect("new keys")
}

#[test]
fn keys_are_told_once_when_the_link_is_up_and_again_when_they_change() {
    let mut pair = used(Path::default());
    let first = [0, 1].map(|i| keys(&mut pair, i));
    for (first, node) in first.iter().zip(&mut pair.nodes) {
        assert!(node.link.poll_keys().is_none());
        assert_eq!(first.receiving.len(), 1);
        assert!(Arc::ptr_eq(&first.sending, &first.receiving[0]));
    }
    assert_eq!(first[0].sending.tag(), first[1].sending.tag());
    pair.run_for(RENEW_EVERY + SECOND);
    for (i, first) in first.iter().enumerate() {
        let second = keys(&mut pair, i);
        assert_ne!(second.sending.tag(), first.sending.tag());
        let tags: Vec<_> = second.receiving.iter().map(|k| k.tag()).collect();
        assert_eq!(tags, [second.sending.tag(), first.sending.tag()]);
    }
    // The old ones are forgotten.
    pair.run_for(20 * SECOND);
    for (i, first) in first.iter().enumerate() {
        assert_eq!(keys(&mut pair, i).receiving.len(), 1);
        assert_eq!(Arc::strong_count(&first.sending), 2, "the test has both");
    }
    assert_eq!(pair.nodes[0].states.last(), Some(&LinkState::Up));
}

#[test]
fn keys_that_carry_nothing_are_kept_until_they_do_or_are_an_hour_old() {
    let mut pair = linked(Path::default());
    let first = keys(&mut pair, 0).sending.tag();
    pair.run_for(5 * RENEW_EVERY);
    assert!(pair.nodes[0].link.poll_keys().is_none(), "still {first}");
    use_keys(&mut pair);
    pair.run_for(60 * SECOND);
    let second = keys(&mut pair, 0).sending.tag();
    assert_ne!(second, first);
    pair.run_for(RENEW_IDLE - 10 * SECOND);
    // The old ones are forgotten, and that is all.
    assert_eq!(keys(&mut pair, 0).sending.tag(), second);
    pair.run_for(70 * SECOND);
    assert_ne!(keys(&mut pair, 0).sending.tag(), second);
}

#[test]
fn no_packet_is_lost_or_doubled_while_keys_are_renewed_again_and_again() {
    let mut pair = linked(Path {
        latency: Duration::from_millis(30),
        jitter: Duration::from_millis(20),
        ..Path::default()
    });
    let (mut sent, mut tags) = (0_u32, std::collections::BTreeSet::new());
    let end = pair.now + 3 * RENEW_EVERY + 30 * SECOND;
    while pair.now < end {
        for i in 0..2 {
            let link = &mut pair.nodes[i].link;
            link.send(&sent.to_be_bytes()).expect("up");
            tags.extend(link.poll_keys().map(|keys| keys.sending.tag()));
        }
        sent += 1;
        pair.run_for(Duration::from_millis(50));
    }
    pair.run_for(SECOND);
    for node in &mut pair.nodes {
        let mut got: Vec<_> = node.packets.iter().map(|p| p[..].to_vec()).collect();
        got.sort();
        let expected: Vec<_> = (0..sent).map(|n| n.to_be_bytes().to_vec()).collect();
        assert!(got == expected, "{} of {sent} packets", got.len());
    }
    assert!(tags.len() >= 4, "{} generations", tags.len());
}

#[test]
fn a_renewal_on_a_path_that_loses_a_third_succeeds_in_the_end() {
    let mut pair = used(Path {
        latency: Duration::from_millis(10),
        loss: 0.3,
        ..Path::default()
    });
    let first = keys(&mut pair, 0).sending.tag();
    pair.run_for(RENEW_EVERY + 120 * SECOND);
    let last = std::iter::from_fn(|| pair.nodes[0].link.poll_keys()).last();
    assert_ne!(last.expect("new keys").sending.tag(), first);
    assert_eq!(pair.nodes[0].link.state(), &LinkState::Up);
}

#[test]
fn a_renewal_that_gets_no_answer_leaves_the_link_as_it_was() {
    let mut pair = used(Path::default());
    let first = keys(&mut pair, 0).sending.tag();
    pair.passes = |payload| payload[0] != 22;
    pair.run_for(3 * RENEW_EVERY);
    assert_eq!(pair.nodes[0].link.state(), &LinkState::Up);
    assert!(pair.nodes[0].link.poll_keys().is_none(), "still {first}");
    pair.send(0, b"packet").expect("up");
    assert_eq!(pair.nodes[1].packets.len(), 1);
}

#[test]
fn a_record_with_forgotten_keys_is_a_bad_record() {
    let mut pair = used(Path::default());
    pair.nodes[0].link.send(b"late").expect("up");
    let late = pair.nodes[0].link.poll_transmit().expect("a record");
    pair.run_for(RENEW_EVERY + 30 * SECOND);
    pair.deliver(late.remote, late.local, late.payload);
    assert_eq!(pair.nodes[1].refused, [DropReason::BadRecord]);
}
