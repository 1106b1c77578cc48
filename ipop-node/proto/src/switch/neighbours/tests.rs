use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipop_datapath::stations::{AGE_S, Stations};
use proptest::prelude::*;

use super::super::fdb::Limits;
use super::*;

const AGE: Duration = Duration::from_secs(AGE_S as u64);

const A: Port = Port::Member(1);
const B: Port = Port::Member(2);

fn mac(n: u8) -> Mac {
    [2, 0, 0, 0, 0, n]
}

fn ip(n: u8) -> IpAddr {
    IpAddr::from([10, 1, 0, n])
}

struct World {
    fdb: Fdb,
    neighbours: Neighbours,
    now: Instant,
}

impl World {
    fn new(configured: &[(IpAddr, Mac)]) -> Self {
        let now = Instant::now();
        let stations = Arc::new(Stations::default());
        Self {
            fdb: Fdb::new(stations, now, Limits::default()),
            neighbours: Neighbours::new(configured.iter().copied()),
            now,
        }
    }

    fn claim(&mut self, mac: Mac, port: Port, ip: IpAddr) -> Result<(), Refused> {
        let station = Station::from(mac);
        self.fdb.learn(station, port, self.now).expect("room");
        let claim = Claim {
            station,
            port,
            ip,
            is_router: false,
        };
        self.neighbours.claim(claim, &self.fdb, self.now)
    }

    fn find(&self, ip: IpAddr) -> Option<(Mac, Port)> {
        let found = self.neighbours.find(0, ip, &self.fdb, self.now)?;
        Some((found.mac, found.port))
    }
}

#[test]
fn who_claims_an_address_first_has_it_until_it_was_silent_for_long() {
    let mut world = World::new(&[]);
    assert_eq!(world.claim(mac(1), A, ip(1)), Ok(()));
    let refused = world.claim(mac(2), B, ip(1));
    let taken = Refused::Taken {
        ip: ip(1),
        holder: mac(1),
        at: Some(A),
        is_configured: false,
    };
    assert_eq!(refused, Err(taken));
    assert_eq!(world.find(ip(1)), Some((mac(1), A)));
    world.now += AGE;
    // Its other frames count.
    world.fdb.learn(mac(1).into(), A, world.now).expect("room");
    world.now += AGE;
    assert_eq!(world.claim(mac(2), B, ip(1)), Err(taken));
    world.now += Duration::from_secs(1);
    assert_eq!(world.find(ip(1)), None);
    assert_eq!(world.claim(mac(2), B, ip(1)), Ok(()));
    assert_eq!(world.find(ip(1)), Some((mac(2), B)));
}

#[test]
fn a_station_takes_its_addresses_along() {
    let mut world = World::new(&[]);
    world.claim(mac(1), A, ip(1)).expect("free");
    world.claim(mac(1), A, ip(2)).expect("free");
    world.fdb.learn(mac(1).into(), B, world.now).expect("room");
    assert_eq!(world.find(ip(1)), None, "not known to have come along");
    assert_eq!(world.claim(mac(1), B, ip(1)), Ok(()));
    assert_eq!(world.find(ip(1)), Some((mac(1), B)));
    world.neighbours.forget_port(B);
    assert_eq!(world.find(ip(1)), None);
}

#[test]
fn a_configured_address_is_no_one_elses_even_before_its_holder_spoke() {
    let mut world = World::new(&[(ip(1), mac(1))]);
    let taken = |at| Refused::Taken {
        ip: ip(1),
        holder: mac(1),
        at,
        is_configured: true,
    };
    assert_eq!(world.claim(mac(2), B, ip(1)), Err(taken(None)));
    assert_eq!(world.claim(mac(1), A, ip(1)), Ok(()));
    world.now += 3 * AGE;
    assert_eq!(world.claim(mac(2), B, ip(1)), Err(taken(Some(A))));
}

#[test]
fn nobody_has_a_group_or_no_address() {
    let mut world = World::new(&[]);
    for address in [
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "127.0.0.1",
        "::",
        "ff02::1",
    ] {
        let address = address.parse().expect("valid");
        assert_eq!(
            world.claim(mac(1), A, address),
            Err(Refused::Nobodys(address))
        );
    }
}

#[test]
fn a_member_that_claims_every_address_gets_so_many_and_takes_none_of_others() {
    let mut world = World::new(&[]);
    world.claim(mac(1), A, ip(1)).expect("free");
    let mut refused = 0;
    for n in 0..10_000_u16 {
        let [high, low] = n.to_be_bytes();
        match world.claim(mac(2), B, IpAddr::from([10, 2, high, low])) {
            Ok(()) => {}
            Err(Refused::TooMany { port: B, limit }) => {
                assert_eq!(limit, MOST_OF_A_MEMBER);
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(refused, 10_000 - MOST_OF_A_MEMBER);
    assert_eq!(world.claim(mac(3), A, ip(3)), Ok(()));
    world.now += AGE + Duration::from_secs(1);
    world.neighbours.sweep(&world.fdb, world.now);
    assert_eq!(world.find(ip(1)), None);
    assert_eq!(world.claim(mac(2), B, ip(9)), Ok(()), "there is room again");
}

#[derive(Debug, Clone)]
enum Step {
    Claim(u8, u16, u8),
    Speak(u8, u16),
    Pass(u64),
    Sweep,
    Forget(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..4, 0_u16..3, 0_u8..5).prop_map(|(n, port, ip)| Step::Claim(n, port, ip)),
        2 => (0_u8..4, 0_u16..3).prop_map(|(n, port)| Step::Speak(n, port)),
        2 => (0_u64..200).prop_map(Step::Pass),
        1 => Just(Step::Sweep),
        1 => (0_u16..3).prop_map(Step::Forget),
    ]
}

proptest! {
    #[test]
    fn no_address_changes_hands_while_its_holder_is_heard_of(
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new(&[(ip(0), mac(0))]);
        for step in steps {
            match step {
                Step::Claim(n, port, address) => {
                    let (station, port) = (Station::from(mac(n)), Port::Member(port));
                    if world.fdb.learn(station, port, world.now).is_err() {
                        continue;
                    }
                    let before = world.find(ip(address));
                    let claimed = world.claim(mac(n), port, ip(address));
                    let others = before.is_some_and(|(holder, _)| holder != mac(n));
                    let is_configured = address == 0 && n != 0;
                    prop_assert_eq!(claimed.is_err(), others || is_configured);
                    let after = if claimed.is_ok() { Some((mac(n), port)) } else { before };
                    prop_assert_eq!(world.find(ip(address)), after);
                }
                Step::Speak(n, port) => {
                    let _ = world.fdb.learn(mac(n).into(), Port::Member(port), world.now);
                }
                Step::Pass(s) => world.now += Duration::from_secs(s),
                Step::Sweep => world.neighbours.sweep(&world.fdb, world.now),
                Step::Forget(port) => world.neighbours.forget_port(Port::Member(port)),
            }
            let mut counts = BTreeMap::new();
            for known in world.neighbours.known.values() {
                *counts.entry(known.neighbour.port).or_insert(0) += 1;
            }
            for port in (0..3).map(Port::Member) {
                let count = world.neighbours.counts.get(&port).copied().unwrap_or(0);
                prop_assert_eq!(count, counts.get(&port).copied().unwrap_or(0));
            }
        }
    }
}
