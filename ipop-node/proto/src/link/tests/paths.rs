//! Paths that die or change.

use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::pair::{Node, Pair, ip};
use crate::candidate::CandidateKind::Host;
use crate::link::{CHECKING_TIMEOUT, CONSENT_TIMEOUT, IceRole, UNANSWERED};
use crate::signal::TerminateReason;
use crate::sim::{NatKind, Path};
use crate::status::{DropReason, LinkState};

const SECOND: Duration = Duration::from_secs(1);

fn linked() -> Pair {
    let mut pair = Pair::new(21, Path::default());
    pair.host(0, "198.51.100.1:4000", None);
    pair.host(1, "198.51.100.2:4000", None);
    pair.signal();
    assert!(pair.run_until_up(SECOND));
    pair
}

fn down(why: &str) -> LinkState {
    LinkState::Down {
        why: why.to_owned(),
    }
}

#[test]
fn a_dead_path_is_found_within_the_consent_time() {
    let mut pair = linked();
    pair.run_for(60 * SECOND);
    pair.network.block(ip("198.51.100.1"), ip("198.51.100.2"));
    pair.run_for(CONSENT_TIMEOUT + SECOND);
    for node in &mut pair.nodes {
        let why = "no answer on any candidate pair for 10 s";
        assert_eq!(
            node.failed,
            Some((why.to_owned(), TerminateReason::ConnectivityError))
        );
        assert_eq!(node.link.state(), &down(why));
        assert_eq!(node.link.pair(), None);
        assert_eq!(node.link.poll_timeout(), None);
    }
    assert_eq!(pair.send(0, b"late"), Err(DropReason::NoLink));
}

#[test]
fn the_loss_of_a_nats_mappings_is_found_within_the_consent_time() {
    let mut pair = Pair::new(26, Path::default());
    let nat = pair.network.add_nat(NatKind::HOME, ip("203.0.113.1"));
    pair.host(0, "10.0.0.1:4000", Some(nat));
    pair.host(1, "198.51.100.2:4000", None);
    pair.signal();
    assert!(pair.run_until_up(SECOND));
    pair.network.forget_mappings(nat);
    pair.run_for(CONSENT_TIMEOUT + SECOND);
    let (why, reason) = pair.nodes[1].failed.clone().expect("found");
    assert_eq!(why, "no answer on any candidate pair for 10 s");
    assert_eq!(reason, TerminateReason::ConnectivityError);
}

#[test]
fn a_short_interruption_does_not_end_a_link() {
    let mut pair = linked();
    pair.network.block(ip("198.51.100.1"), ip("198.51.100.2"));
    pair.run_for(UNANSWERED - SECOND);
    pair.network.unblock();
    pair.run_for(60 * SECOND);
    pair.send(0, b"packet").expect("sent");
    assert_eq!(pair.nodes[1].packets.pop().as_deref(), Some(&b"packet"[..]));
}

#[test]
fn a_link_survives_an_hour_on_a_path_that_loses_a_tenth() {
    let mut pair = linked();
    pair.network.set_path(Path {
        loss: 0.1,
        ..Path::default()
    });
    pair.run_for(3600 * SECOND);
    assert_eq!(pair.nodes[0].failed, None);
    assert_eq!(pair.nodes[1].failed, None);
}

#[test]
fn checks_that_nobody_answers_end_in_bounded_time() {
    let mut pair = Pair::new(22, Path::default());
    pair.host(0, "198.51.100.1:4000", None);
    pair.host(1, "198.51.100.2:4000", None);
    pair.network.block(ip("198.51.100.1"), ip("198.51.100.2"));
    pair.signal();
    pair.run_for(CHECKING_TIMEOUT + SECOND);
    let why = "no answer on any candidate pair for 30 s";
    assert_eq!(pair.nodes[0].link.state(), &down(why));
    assert!(
        pair.network.log().len() < 2000,
        "{} datagrams",
        pair.network.log().len()
    );
}

#[test]
fn a_peer_without_candidates_is_said_to_have_none() {
    let mut pair = Pair::new(23, Path::default());
    pair.host(0, "198.51.100.1:4000", None);
    pair.signal();
    pair.run_for(CHECKING_TIMEOUT + SECOND);
    assert_eq!(
        pair.nodes[0].link.state(),
        &down("the peer signalled no candidate")
    );
    assert_eq!(
        pair.nodes[1].link.state(),
        &down("this node has no candidate")
    );
}

#[test]
fn a_peer_that_answers_checks_and_no_handshake_is_given_up() {
    let mut pair = Pair::new(24, Path::default());
    pair.host(0, "198.51.100.1:4000", None);
    pair.host(1, "198.51.100.2:4000", None);
    // Both believe to be the one that waits for a ClientHello.
    let [one, other] = pair.descriptions();
    let one = crate::signal::LinkDescription {
        setup: crate::signal::Setup::Active,
        ..one
    };
    pair.signal_halves([one, other]);
    pair.run_for(40 * SECOND);
    for node in &pair.nodes {
        assert_eq!(
            node.link.state(),
            &down("the DTLS handshake was not done within 30 s")
        );
    }
}

#[test]
fn a_peer_that_takes_long_for_a_handshake_is_waited_for() {
    const HANDSHAKE: u8 = 22;
    let mut pair = Pair::new(25, Path::default());
    pair.host(0, "198.51.100.1:4000", None);
    pair.host(1, "198.51.100.2:4000", None);
    pair.passes = |payload| payload[0] != HANDSHAKE;
    pair.signal();
    pair.run_for(10 * SECOND);
    assert_eq!(pair.nodes[0].link.state(), &LinkState::Handshaking);
    pair.passes = |_| true;
    assert!(pair.run_until_up(5 * SECOND));
}

#[test]
fn the_loss_of_the_local_address_in_use_ends_the_link_at_once() {
    let mut pair = linked();
    let base = pair.nodes[0].bases[0];
    pair.nodes[0]
        .link
        .remove_local("198.51.100.77:1".parse().expect("address"));
    assert_eq!(pair.nodes[0].link.state(), &LinkState::Up);
    pair.nodes[0].link.remove_local(base);
    let why = "the local address 198.51.100.1:4000 in use is gone";
    assert_eq!(pair.nodes[0].link.state(), &down(why));
}

#[test]
fn a_closed_link_tells_the_peer() {
    let mut pair = linked();
    pair.nodes[0].link.close();
    pair.run_for(SECOND);
    assert_eq!(pair.nodes[0].link.state(), &down("closed by this node"));
    assert_eq!(pair.nodes[0].failed, None);
    let why = "the peer closed the link".to_owned();
    assert_eq!(pair.nodes[1].failed, Some((why, TerminateReason::Success)));
}

#[test]
fn a_restarted_peer_accepts_nothing_of_the_old_link_and_links_again() {
    let mut pair = linked();
    pair.send(0, b"before").expect("sent");
    assert_eq!(pair.nodes[1].packets.len(), 1);
    let now = pair.now;
    let mut rng = StdRng::seed_from_u64(99);
    let identity = pair.nodes[1].identity.clone();
    let bases = std::mem::take(&mut pair.nodes[1].bases);
    pair.nodes[1] = Node::new(now, IceRole::Controlled, identity, &mut rng);
    pair.nodes[1].bases = bases.clone();
    pair.offer(1, bases[0], bases[0], Host);

    pair.send(0, b"to the old link")
        .expect("the sender does not know yet");
    assert!(pair.nodes[1].packets.is_empty());
    assert!(pair.nodes[1].refused.contains(&DropReason::UnknownDatagram));
    // The old half does not fit the new one either.
    let old_half = pair.nodes[0]
        .link
        .description(crate::signal::Setup::Actpass);
    pair.nodes[1]
        .link
        .set_remote(pair.now, &old_half)
        .expect("half");
    pair.send(0, b"to the old link")
        .expect("the sender does not know yet");
    pair.run_for(CONSENT_TIMEOUT + SECOND);
    assert!(pair.nodes[1].packets.is_empty());
    assert_eq!(pair.nodes[1].up, None);
    assert!(pair.nodes[0].failed.is_some());

    let now = pair.now;
    for (i, role) in [IceRole::Controlling, IceRole::Controlled]
        .into_iter()
        .enumerate()
    {
        let identity = pair.nodes[i].identity.clone();
        let bases = pair.nodes[i].bases.clone();
        pair.nodes[i] = Node::new(now, role, identity, &mut rng);
        pair.nodes[i].bases = bases.clone();
        pair.offer(i, bases[0], bases[0], Host);
    }
    pair.signal();
    assert!(pair.run_until_up(SECOND));
}

#[test]
fn packets_are_accepted_over_any_pair_of_the_link_and_from_nowhere_else() {
    let mut pair = Pair::new(25, Path::default());
    pair.host(0, "198.51.100.1:4000", None);
    pair.host(1, "198.51.100.2:4000", None);
    pair.relay(0, "192.0.2.10:50000");
    pair.relay(1, "192.0.2.11:50000");
    pair.signal();
    assert!(pair.run_until_up(SECOND));
    assert_eq!(pair.kinds(0), (Host, Host));
    let record = |pair: &mut Pair, packet: &[u8]| {
        pair.nodes[0].link.send(packet).expect("sent");
        pair.nodes[0].link.poll_transmit().expect("record").payload
    };
    // The peer's pair changed, from direct to relay.
    let sealed = record(&mut pair, b"by relay");
    let (to, from) = (pair.nodes[1].bases[1], pair.nodes[0].bases[1]);
    pair.deliver(to, from, sealed);
    pair.drain();
    assert_eq!(
        pair.nodes[1].packets.pop().as_deref(),
        Some(&b"by relay"[..])
    );

    let sealed = record(&mut pair, b"from elsewhere");
    pair.deliver(to, "198.51.100.99:1".parse().expect("address"), sealed);
    pair.drain();
    assert!(pair.nodes[1].packets.is_empty());
    assert_eq!(
        pair.nodes[1].refused.pop(),
        Some(DropReason::UnknownDatagram)
    );
}
