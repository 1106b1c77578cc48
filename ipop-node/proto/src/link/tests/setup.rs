//! Coming up, and what may flow then.

use std::time::Duration;

use super::pair::{Pair, ip};
use crate::candidate::CandidateKind::{Host, Prflx, Relay, Srflx};
use crate::link::{IceRole, LinkError, MAX_PACKET};
use crate::sim::{Filtering, Mapping, NatKind, Path};
use crate::status::{DropReason, LinkState};

const SECOND: Duration = Duration::from_secs(1);

/// Two nodes on one network.
fn neighbours(path: Path) -> Pair {
    let mut pair = Pair::new(1, path);
    pair.host(0, "198.51.100.1:4000", None);
    pair.host(1, "198.51.100.2:4000", None);
    pair
}

/// Two nodes behind a NAT each, with relayed addresses.
fn behind_nats(kinds: [NatKind; 2]) -> Pair {
    let mut pair = Pair::new(2, Path::default());
    let nat = pair.network.add_nat(kinds[0], ip("203.0.113.1"));
    pair.host(0, "10.0.0.1:4000", Some(nat));
    let nat = pair.network.add_nat(kinds[1], ip("203.0.113.2"));
    pair.host(1, "10.0.1.1:4000", Some(nat));
    pair.relay(0, "192.0.2.10:50000");
    pair.relay(1, "192.0.2.11:50000");
    pair
}

fn exchange(pair: &mut Pair) {
    for i in 0..2 {
        let packet: Vec<u8> = (0..1400).map(|n| (n + i) as u8).collect();
        pair.send(i, &packet).expect("sent");
        assert_eq!(
            pair.nodes[1 - i].packets.pop().as_deref(),
            Some(&packet[..])
        );
    }
}

#[test]
fn neighbours_link_over_host_candidates_in_a_tenth_of_a_second() {
    let mut pair = neighbours(Path {
        latency: Duration::from_millis(1),
        ..Path::default()
    });
    pair.signal();
    assert!(pair.run_until_up(SECOND));
    assert!(pair.took() < SECOND / 10, "{:?}", pair.took());
    assert_eq!(pair.kinds(0), (Host, Host));
    assert_eq!(pair.kinds(1), (Host, Host));
    exchange(&mut pair);
    let expected = [LinkState::Checking, LinkState::Handshaking, LinkState::Up];
    assert_eq!(pair.nodes[0].states, expected);
    assert_eq!(pair.nodes[1].states, expected);
}

#[test]
fn ipv6_neighbours_link_and_families_are_not_mixed() {
    let mut pair = Pair::new(3, Path::default());
    pair.host(0, "198.51.100.1:4000", None);
    pair.host(0, "[2001:db8::1]:4000", None);
    pair.host(1, "[2001:db8::2]:4000", None);
    pair.signal();
    assert!(pair.run_until_up(SECOND));
    let (local, remote) = pair.nodes[0].link.pair().expect("pair");
    assert!(local.addr.is_ipv6() && remote.addr.is_ipv6());
    exchange(&mut pair);
    assert!(
        pair.network
            .log()
            .iter()
            .all(|(from, to, _)| from.is_ipv4() == to.is_ipv4())
    );
}

#[test]
fn nodes_behind_endpoint_independent_nats_link_directly() {
    for filtering in [
        Filtering::EndpointIndependent,
        Filtering::AddressDependent,
        Filtering::AddressAndPortDependent,
    ] {
        let kind = NatKind {
            mapping: Mapping::EndpointIndependent,
            filtering,
        };
        let mut pair = behind_nats([kind, kind]);
        pair.signal();
        assert!(pair.run_until_up(SECOND), "{filtering:?}");
        for i in 0..2 {
            let (local, remote) = pair.kinds(i);
            assert_eq!(local, Srflx, "{filtering:?}");
            assert!(matches!(remote, Srflx | Prflx), "{filtering:?}: {remote}");
        }
        exchange(&mut pair);
    }
}

#[test]
fn one_address_and_port_dependent_nat_does_not_need_a_relay_when_the_other_filters_by_address() {
    let lax = NatKind {
        mapping: Mapping::EndpointIndependent,
        filtering: Filtering::AddressDependent,
    };
    let mut pair = behind_nats([NatKind::SYMMETRIC, lax]);
    pair.signal();
    assert!(pair.run_until_up(2 * SECOND));
    assert_eq!(pair.kinds(0).0, Prflx);
    assert_eq!(pair.kinds(1), (Srflx, Prflx));
    exchange(&mut pair);
}

#[test]
fn nodes_behind_address_and_port_dependent_nats_link_by_relay_only() {
    let mut pair = behind_nats([NatKind::SYMMETRIC; 2]);
    pair.signal();
    assert!(pair.run_until_up(3 * SECOND));
    assert!(pair.took() < 2 * SECOND, "{:?}", pair.took());
    for i in 0..2 {
        let (local, remote) = pair.kinds(i);
        assert!(local == Relay || remote == Relay, "{local} {remote}");
    }
    exchange(&mut pair);

    let mut pair = Pair::new(4, Path::default());
    for (i, (inside, outside)) in [
        ("10.0.0.1:4000", "203.0.113.1"),
        ("10.0.1.1:4000", "203.0.113.2"),
    ]
    .into_iter()
    .enumerate()
    {
        let nat = pair.network.add_nat(NatKind::SYMMETRIC, ip(outside));
        pair.host(i, inside, Some(nat));
    }
    pair.signal();
    assert!(!pair.run_until_up(20 * SECOND), "linked without a relay");
}

#[test]
fn a_relay_met_before_it_is_signalled_does_not_win_over_a_direct_pair() {
    let mut pair = Pair::new(2, Path::default());
    pair.host(0, "198.51.100.1:4000", None);
    pair.host(1, "198.51.100.2:4000", None);
    pair.relay(1, "192.0.2.11:50000");
    let mut halves = pair.descriptions();
    halves[1]
        .candidates
        .retain(|candidate| candidate.kind != Relay);
    // The direct pair takes longer to work than the relayed one.
    pair.network.block(ip("198.51.100.1"), ip("198.51.100.2"));
    pair.signal_halves(halves);
    pair.run_for(Duration::from_millis(700));
    pair.network.unblock();
    assert!(pair.run_until_up(SECOND));
    assert_eq!(pair.kinds(0), (Host, Host));
    assert_eq!(pair.kinds(1), (Host, Host));
}

#[test]
fn candidates_that_trickle_in_after_the_halves_are_used() {
    let mut pair = Pair::new(5, Path::default());
    pair.signal();
    pair.run_for(2 * SECOND);
    for (i, addr) in ["198.51.100.1:4000", "198.51.100.2:4000"]
        .into_iter()
        .enumerate()
    {
        let base = pair.socket(i, addr, None);
        let candidate = pair.offer(i, base, base, Host);
        pair.run_for(3 * SECOND);
        let now = pair.now;
        pair.nodes[1 - i].link.add_remote(now, &candidate);
    }
    assert!(pair.run_until_up(SECOND));
    exchange(&mut pair);
}

#[test]
fn candidates_that_overtake_the_halves_are_kept() {
    let mut pair = neighbours(Path::default());
    let mut halves = pair.descriptions();
    let now = pair.now;
    for (i, half) in halves.iter_mut().enumerate() {
        for candidate in std::mem::take(&mut half.candidates) {
            pair.nodes[1 - i].link.add_remote(now, &candidate);
        }
    }
    pair.signal_halves(halves);
    assert!(pair.run_until_up(SECOND));
}

#[test]
fn a_half_that_arrives_seconds_after_the_other_still_leads_to_a_link() {
    let mut pair = neighbours(Path::default());
    let [one, other] = pair.descriptions();
    pair.nodes[1].link.set_remote(pair.now, &one).expect("half");
    pair.run_for(8 * SECOND);
    pair.nodes[0]
        .link
        .set_remote(pair.now, &other)
        .expect("half");
    assert!(pair.run_until_up(SECOND));
}

#[test]
fn two_controlling_or_two_controlled_agents_settle_their_roles() {
    for role in [IceRole::Controlling, IceRole::Controlled] {
        let mut pair = Pair::with_roles(6, Path::default(), [role; 2]);
        pair.host(0, "198.51.100.1:4000", None);
        pair.host(1, "198.51.100.2:4000", None);
        pair.signal();
        assert!(pair.run_until_up(3 * SECOND), "{role:?}");
        exchange(&mut pair);
    }
}

#[test]
fn links_come_up_over_paths_that_lose_reorder_and_duplicate() {
    let mut slowest = Duration::ZERO;
    for seed in 0..40 {
        let path = Path {
            latency: Duration::from_millis(20),
            jitter: Duration::from_millis(30),
            loss: 0.3,
            duplication: 0.1,
        };
        let mut pair = Pair::new(seed, path);
        pair.host(0, "198.51.100.1:4000", None);
        pair.host(1, "198.51.100.2:4000", None);
        pair.signal();
        assert!(
            pair.run_until_up(20 * SECOND),
            "seed {seed}: {:?}",
            pair.nodes[0].failed
        );
        slowest = slowest.max(pair.took());
        pair.network.set_path(Path::default());
        exchange(&mut pair);
    }
    assert!(slowest < 10 * SECOND, "{slowest:?}");
}

#[test]
fn no_packet_is_sent_before_the_link_is_up() {
    let mut pair = neighbours(Path::default());
    assert_eq!(pair.send(0, b"early"), Err(DropReason::NoLink));
    pair.signal();
    assert_eq!(pair.send(0, b"early").err(), Some(DropReason::NoLink));
    assert!(pair.run_until_up(SECOND));
    // The client shows its keys with a record of nothing.
    assert_eq!(pair.data_records(), 1);
    pair.run_for(SECOND);
    assert!(pair.nodes.iter().all(|node| node.packets.is_empty()));
}

#[test]
fn packets_up_to_the_limit_pass_and_larger_ones_are_refused() {
    let mut pair = neighbours(Path::default());
    pair.signal();
    assert!(pair.run_until_up(SECOND));
    pair.send(0, &vec![7; MAX_PACKET]).expect("sent");
    assert_eq!(
        pair.nodes[1].packets.pop().expect("packet"),
        vec![7; MAX_PACKET]
    );
    assert_eq!(
        pair.send(0, &vec![7; MAX_PACKET + 1]),
        Err(DropReason::TooBig)
    );
    assert_eq!(pair.send(0, &[]), Err(DropReason::Malformed));
}

#[test]
fn a_queue_that_nobody_empties_is_bounded() {
    let mut pair = neighbours(Path::default());
    pair.signal();
    assert!(pair.run_until_up(SECOND));
    let results: Vec<_> = (0..5000)
        .map(|_| pair.nodes[0].link.send(b"packet"))
        .collect();
    assert_eq!(results.first(), Some(&Ok(())));
    assert_eq!(results.last(), Some(&Err(DropReason::QueueFull)));
}

#[test]
fn packets_that_the_path_reorders_and_duplicates_arrive_once_each() {
    let mut pair = neighbours(Path::default());
    pair.signal();
    assert!(pair.run_until_up(SECOND));
    pair.network.set_path(Path {
        jitter: Duration::from_millis(20),
        duplication: 0.5,
        ..Path::default()
    });
    for n in 0..50_u8 {
        pair.nodes[0].link.send(&[n; 100]).expect("sent");
    }
    pair.run_for(SECOND);
    let mut firsts: Vec<u8> = pair.nodes[1]
        .packets
        .iter()
        .map(|packet| packet[0])
        .collect();
    assert!(!firsts.is_sorted(), "the path reordered nothing");
    firsts.sort_unstable();
    assert_eq!(firsts, (0..50).collect::<Vec<u8>>());
}

#[test]
fn the_round_trip_time_is_that_of_the_path() {
    let mut pair = neighbours(Path {
        latency: Duration::from_millis(30),
        ..Path::default()
    });
    pair.signal();
    assert!(pair.run_until_up(SECOND));
    pair.run_for(5 * SECOND);
    assert_eq!(pair.nodes[0].link.rtt(), Some(Duration::from_millis(60)));
    assert_eq!(pair.nodes[1].link.rtt(), Some(Duration::from_millis(60)));
}

#[test]
fn an_idle_link_sends_little_and_wakes_seldom() {
    let mut pair = neighbours(Path::default());
    pair.signal();
    assert!(pair.run_until_up(SECOND));
    let before = pair.network.log().len();
    pair.run_for(100 * SECOND);
    assert_eq!(pair.nodes[0].link.state(), &LinkState::Up);
    let sent = pair.network.log().len() - before;
    assert!(sent < 500, "{sent} datagrams in 100 s");
}

#[test]
fn relay_only_uses_and_tells_no_other_candidate() {
    use std::sync::Arc;

    use rand::SeedableRng as _;

    let mut pair = behind_nats([NatKind::HOME; 2]);
    let config = crate::link::LinkConfig {
        role: IceRole::Controlling,
        identity: Arc::clone(&pair.nodes[0].identity),
        relay_only: true,
        credentials: None,
        trust: None,
    };
    let mut rng = rand::rngs::StdRng::seed_from_u64(7);
    pair.nodes[0].link = crate::link::Link::new(pair.now, config, &mut rng).expect("link");
    let bases = pair.nodes[0].bases.clone();
    pair.offer(0, bases[0], bases[0], Host);
    pair.offer(0, bases[1], bases[1], Relay);
    let halves = pair.descriptions();
    assert!(
        halves[0]
            .candidates
            .iter()
            .all(|candidate| candidate.kind == Relay)
    );
    assert_eq!(halves[0].candidates.len(), 1);
    pair.signal();
    assert!(pair.run_until_up(3 * SECOND));
    assert_eq!(pair.kinds(0).0, Relay);
    assert!(
        pair.network
            .log()
            .iter()
            .all(|(from, _, _)| from.ip() != bases[0].ip())
    );
}

#[test]
fn credentials_are_new_for_every_link_and_long_enough() {
    let pair = neighbours(Path::default());
    let [one, other] = pair.descriptions();
    assert_ne!(one.ufrag, other.ufrag);
    assert_ne!(one.pwd, other.pwd);
    assert_eq!((one.ufrag.len(), one.pwd.len()), (8, 32));
}

#[test]
fn a_half_with_short_credentials_is_refused() {
    let mut pair = neighbours(Path::default());
    let [mut one, other] = pair.descriptions();
    one.pwd = "short".to_owned();
    let now = pair.now;
    let error = pair.nodes[1].link.set_remote(now, &one).expect_err("short");
    assert_eq!(
        error.to_string(),
        "the peer's link description is unusable: its password is not 22 to 256 ice-chars"
    );
    pair.nodes[0].link.set_remote(now, &other).expect("half");
    let again = pair.nodes[0].link.set_remote(now, &other);
    assert_eq!(again, Err(LinkError::NotWaiting));
}
