//! The gatherer against a strict server on virtual time.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{GatherEvent, Gatherer, Inbound};
use crate::candidate::CandidateKind;
use crate::net::Transmit;
use crate::service::{IceServer, IceServerKind, ServicePassword};
use crate::sim::turn::TurnServer;
use crate::sim::{NatId, NatKind, Network, Path};
use crate::status::DropReason;

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn turn(user: &str, password: &str, expires_in: Option<Duration>) -> IceServer {
    IceServer {
        kind: IceServerKind::Turn,
        addr: addr("192.0.2.1:3478"),
        username: Some(user.to_owned()),
        password: Some(ServicePassword::new(password)),
        expires_in,
    }
}

/// One node behind a NAT, one server, one peer in the open.
struct World {
    now: Instant,
    start: Instant,
    network: Network,
    nat: NatId,
    server: TurnServer,
    gatherer: Gatherer,
    peer: SocketAddr,
    at_peer: Vec<(SocketAddr, BytesMut)>,
    at_node: Vec<(SocketAddr, SocketAddr, BytesMut)>,
    events: Vec<GatherEvent>,
}

impl World {
    fn new() -> Self {
        let mut network = Network::new(1, Path::default());
        let nat = network.add_nat(NatKind::HOME, ip("198.51.100.1"));
        network.add_host(ip("10.0.0.2"), Some(nat));
        for public in ["192.0.2.1", "192.0.2.2", "203.0.113.9"] {
            network.add_host(ip(public), None);
        }
        let mut server = TurnServer::new(addr("192.0.2.1:3478"), ip("192.0.2.2"));
        server.add_user("u", "p");
        let now = Instant::now();
        let mut world = Self {
            now,
            start: now,
            network,
            nat,
            server,
            gatherer: Gatherer::new(StdRng::seed_from_u64(7)),
            peer: addr("203.0.113.9:900"),
            at_peer: Vec::new(),
            at_node: Vec::new(),
            events: Vec::new(),
        };
        world.gatherer.set_sockets(now, vec![addr("10.0.0.2:4000")]);
        world
    }

    fn with_turn() -> Self {
        let mut world = Self::new();
        world
            .gatherer
            .set_servers(world.now, vec![turn("u", "p", None)]);
        world.run(Duration::from_secs(1));
        world
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            while let Some(t) = self.gatherer.poll_transmit() {
                self.network.send(self.now, t.local, t.remote, t.payload);
            }
            while let Some(event) = self.gatherer.poll_event() {
                self.events.push(event);
            }
            let due = self.gatherer.poll_timeout();
            let next = [due, self.network.next_arrival()]
                .into_iter()
                .flatten()
                .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            while let Some(a) = self.network.poll_arrival(self.now) {
                if self.server.owns(a.to) {
                    for (from, to, payload) in
                        self.server.handle(self.now, a.from, a.to, &a.payload)
                    {
                        self.network.send(self.now, from, to, payload);
                    }
                } else if a.to == self.peer {
                    self.at_peer.push((a.from, a.payload));
                } else if let Inbound::Relayed {
                    local,
                    remote,
                    payload,
                } = self
                    .gatherer
                    .handle_datagram(self.now, a.to, a.from, a.payload)
                {
                    self.at_node.push((local, remote, payload));
                }
            }
            self.gatherer.handle_timeout(self.now);
        }
        self.now = end;
    }

    fn of(&self, kind: CandidateKind) -> Vec<SocketAddr> {
        let all = self.gatherer.candidates().iter().map(|c| &c.candidate);
        all.filter(|c| c.kind == kind).map(|c| c.addr).collect()
    }

    fn relayed(&self) -> SocketAddr {
        self.of(CandidateKind::Relay)[0]
    }

    fn send(&mut self, payload: &[u8]) -> Result<(), DropReason> {
        let (local, remote) = (self.relayed(), self.peer);
        self.gatherer.send(
            self.now,
            Transmit {
                local,
                remote,
                payload: payload.into(),
            },
        )
    }
}

#[test]
fn host_candidates_are_there_before_any_server_answers() {
    let mut world = World::new();
    world.network.block(ip("10.0.0.2"), ip("192.0.2.1"));
    world
        .gatherer
        .set_servers(world.now, vec![turn("u", "p", None)]);
    assert_eq!(world.of(CandidateKind::Host), [addr("10.0.0.2:4000")]);
    world.run(Duration::from_secs(120));
    assert_eq!(world.gatherer.candidates().len(), 1);
    // The server comes back: it is asked again without being told.
    world.network.unblock();
    world.run(Duration::from_secs(60));
    assert_eq!(world.of(CandidateKind::Relay).len(), 1);
}

#[test]
fn a_server_gives_a_reflexive_and_a_relayed_candidate_within_a_few_round_trips() {
    let mut world = World::new();
    world
        .gatherer
        .set_servers(world.now, vec![turn("u", "p", None)]);
    world.run(Duration::from_millis(100));
    let srflx = world.of(CandidateKind::Srflx);
    assert_eq!(srflx[0].ip(), ip("198.51.100.1"));
    assert_eq!(world.relayed().ip(), ip("192.0.2.2"));
    assert_eq!(world.server.refused(), [401]);
    let relay = world.gatherer.candidates().last().expect("a candidate");
    assert_eq!(relay.base, relay.candidate.addr);
    assert_eq!(relay.candidate.related, Some(srflx[0]));
}

#[test]
fn a_socket_with_a_public_address_has_no_reflexive_candidate() {
    let mut world = World::new();
    world.network.add_host(ip("203.0.113.20"), None);
    world
        .gatherer
        .set_sockets(world.now, vec![addr("203.0.113.20:4000")]);
    world
        .gatherer
        .set_servers(world.now, vec![turn("u", "p", None)]);
    world.run(Duration::from_secs(1));
    assert!(world.of(CandidateKind::Srflx).is_empty());
    assert_eq!(world.of(CandidateKind::Relay).len(), 1);
}

#[test]
fn relayed_datagrams_wait_for_the_permission_and_come_back_from_the_peer() {
    let mut world = World::with_turn();
    let relayed = world.relayed();
    world.send(b"\x00first").expect("queued");
    world.run(Duration::from_millis(100));
    assert_eq!(
        world.at_peer,
        [(relayed, BytesMut::from(&b"\x00first"[..]))]
    );
    world
        .network
        .send(world.now, world.peer, relayed, BytesMut::from(&b"back"[..]));
    world.run(Duration::from_millis(100));
    assert_eq!(
        world.at_node,
        [(relayed, world.peer, BytesMut::from(&b"back"[..]))]
    );
    assert_eq!(world.server.dropped(), 0);
}

#[test]
fn dtls_gets_a_channel_and_checks_do_not() {
    let mut world = World::with_turn();
    world.send(b"\x00check").expect("queued");
    world.run(Duration::from_millis(100));
    world.send(b"\x00check").expect("sent");
    world.run(Duration::from_millis(100));
    assert_eq!(world.server.channel_messages(), 0);
    for _ in 0..3 {
        world.send(b"\x16dtls").expect("sent");
        world.run(Duration::from_millis(100));
    }
    assert_eq!(world.server.channel_messages(), 2);
    assert_eq!(world.at_peer.len(), 5);
    world.network.send(
        world.now,
        world.peer,
        world.relayed(),
        BytesMut::from(&b"x"[..]),
    );
    world.run(Duration::from_millis(100));
    assert_eq!(world.at_node.len(), 1);
}

#[test]
fn everything_in_use_lives_on_for_hours_though_nonces_go_stale() {
    let mut world = World::with_turn();
    let relayed = world.relayed();
    for minute in 0..180 {
        if minute % 7 == 0 {
            world.server.change_nonce();
        }
        world.send(b"\x17data").expect("sent");
        world.run(Duration::from_secs(60));
    }
    assert_eq!(world.relayed(), relayed);
    assert_eq!(world.at_peer.len(), 180);
    assert_eq!(world.server.dropped(), 0);
    assert!(world.server.refused().contains(&438));
    assert!(!world.server.refused().contains(&437));
    assert!(
        !world
            .events
            .iter()
            .any(|e| matches!(e, GatherEvent::Lost(_)))
    );
}

#[test]
fn a_lost_allocation_is_reported_and_made_again() {
    let mut world = World::with_turn();
    let relayed = world.relayed();
    world.server.restart();
    // The next refresh is at half the lifetime.
    world.run(Duration::from_secs(310));
    assert_ne!(world.relayed(), relayed);
    let lost = |e: &GatherEvent| matches!(e, GatherEvent::Lost(l) if l.base == relayed);
    assert!(world.events.iter().any(lost));
    world.send(b"\x00again").expect("queued");
    world.run(Duration::from_secs(1));
    assert_eq!(world.at_peer.len(), 1);
}

#[test]
fn an_allocation_left_over_by_an_earlier_run_is_given_back_first() {
    let mut world = World::with_turn();
    let sockets = vec![addr("10.0.0.2:4000")];
    world.gatherer = Gatherer::new(StdRng::seed_from_u64(8));
    world.gatherer.set_sockets(world.now, sockets);
    world
        .gatherer
        .set_servers(world.now, vec![turn("u", "p", None)]);
    world.run(Duration::from_secs(1));
    assert!(world.server.refused().contains(&437));
    assert_eq!(world.of(CandidateKind::Relay).len(), 1);
    assert_eq!(world.server.allocations(world.now), 1);
}

#[test]
fn a_wrong_password_gives_no_relay_and_is_retried_slowly() {
    let mut world = World::new();
    world
        .gatherer
        .set_servers(world.now, vec![turn("u", "wrong", None)]);
    world.run(Duration::from_secs(300));
    assert!(world.of(CandidateKind::Relay).is_empty());
    assert_eq!(world.of(CandidateKind::Srflx).len(), 1);
    assert!(
        world.server.refused().len() < 60,
        "{}",
        world.server.refused().len()
    );
    world
        .gatherer
        .set_servers(world.now, vec![turn("u", "p", None)]);
    world.run(Duration::from_secs(1));
    assert_eq!(world.of(CandidateKind::Relay).len(), 1);
}

#[test]
fn a_new_credential_takes_over_before_the_old_one_expires() {
    let mut world = World::new();
    world.gatherer.set_servers(
        world.now,
        vec![turn("u", "p", Some(Duration::from_secs(1000)))],
    );
    world.run(Duration::from_secs(800));
    let relayed = world.relayed();
    world.server.add_user("u2", "p2");
    let fresh = turn("u2", "p2", Some(Duration::from_secs(100_000)));
    world.gatherer.set_servers(world.now, vec![fresh]);
    world.run(Duration::from_secs(100));
    // The strict server ties the allocation to its user: the old one is kept while it is good.
    assert!(world.server.refused().contains(&441));
    assert_eq!(world.relayed(), relayed);
    world.run(Duration::from_secs(60));
    assert_ne!(world.relayed(), relayed);
    world.server.remove_user("u");
    world.run(Duration::from_secs(2000));
    world.send(b"\x00still").expect("queued");
    world.run(Duration::from_secs(1));
    assert_eq!(world.at_peer.len(), 1);
    assert_eq!(world.server.allocations(world.now), 1);
}

#[test]
fn a_forbidden_peer_is_counted_as_not_sendable() {
    let mut world = World::with_turn();
    world.server.forbid(world.peer.ip());
    world.send(b"\x00x").expect("queued");
    world.run(Duration::from_secs(1));
    let dropped = |e: &GatherEvent| *e == GatherEvent::Dropped(DropReason::SendFailed);
    assert_eq!(world.events.iter().filter(|e| dropped(e)).count(), 1);
    assert_eq!(world.send(b"\x00x"), Err(DropReason::SendFailed));
    assert_eq!(world.at_peer, []);
}

#[test]
fn the_nat_mapping_is_kept_and_a_new_one_noticed() {
    let mut world = World::with_turn();
    let before = world.of(CandidateKind::Srflx);
    world.run(Duration::from_secs(600));
    assert_eq!(world.of(CandidateKind::Srflx), before);
    let gaps: Vec<_> = world
        .network
        .log()
        .iter()
        .filter(|(_, to, _)| to.port() == 3478)
        .collect();
    assert!(gaps.len() > 600 / 25);
    world.network.forget_mappings(world.nat);
    world.run(Duration::from_secs(25));
    assert_ne!(world.of(CandidateKind::Srflx), before);
    assert!(world.now > world.start);
}

#[test]
fn closing_gives_the_allocation_back() {
    let mut world = World::with_turn();
    assert_eq!(world.server.allocations(world.now), 1);
    world.gatherer.close(world.now);
    world.run(Duration::from_secs(1));
    assert_eq!(world.server.allocations(world.now), 0);
    assert_eq!(world.gatherer.candidates(), []);
    assert_eq!(world.gatherer.poll_timeout(), None);
}

#[test]
fn the_password_is_in_no_debug_text() {
    let server = turn("u", "hunter2-secret", None);
    let mut gatherer = Gatherer::new(StdRng::seed_from_u64(1));
    gatherer.set_servers(Instant::now(), vec![server.clone()]);
    assert!(!format!("{server:?} {gatherer:?}").contains("hunter2"));
}

proptest! {
    #[test]
    fn nothing_a_server_sends_makes_it_panic(
        datagrams in proptest::collection::vec(
            (0_u8..80, proptest::collection::vec(any::<u8>(), 0..100)), 1..40),
    ) {
        let mut world = World::with_turn();
        for (first, rest) in datagrams {
            let mut payload = BytesMut::from(&[first][..]);
            payload.extend_from_slice(&rest);
            if payload.len() > 8 && first < 4 {
                payload[4..8].copy_from_slice(&0x2112_A442_u32.to_be_bytes());
            }
            let (to, from) = (addr("10.0.0.2:4000"), addr("192.0.2.1:3478"));
            world.gatherer.handle_datagram(world.now, to, from, payload);
        }
        world.run(Duration::from_secs(1));
        prop_assert_eq!(world.of(CandidateKind::Relay).len(), 1);
    }
}
