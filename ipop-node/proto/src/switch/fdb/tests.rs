use std::collections::BTreeMap;

use ipop_datapath::stations::{AGE_S, LOCAL, Seen};
use proptest::prelude::*;

use super::*;

const AGE: Duration = Duration::from_secs(AGE_S as u64);

const A: Port = Port::Member(1);
const B: Port = Port::Member(2);

fn station(n: u32) -> Station {
    let [a, b, c, d] = n.to_be_bytes();
    Station::from([2, 0, a, b, c, d])
}

fn table(limits: Limits) -> (Fdb, Arc<Stations>, Instant) {
    let (stations, now) = (Arc::new(Stations::default()), Instant::now());
    (Fdb::new(stations.clone(), now, limits), stations, now)
}

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[test]
fn a_station_is_known_to_the_data_path_wherever_it_moves() {
    let (mut fdb, stations, now) = table(Limits::default());
    assert_eq!(fdb.learn(station(1), A, now), Ok(Learned::New));
    assert_eq!(stations.locate(station(1), 0), Some(1));
    assert_eq!(fdb.learn(station(1), A, now), Ok(Learned::Known));
    let moved = fdb.learn(station(1), Port::Lan, now);
    assert_eq!(moved, Ok(Learned::Moved { from: A }));
    assert_eq!(stations.locate(station(1), 0), Some(LOCAL));
    assert_eq!((fdb.count(A), fdb.count(Port::Lan)), (0, 1));
}

#[test]
fn one_that_the_data_path_sees_is_kept_and_a_silent_one_is_not() {
    let (mut fdb, stations, now) = table(Limits::default());
    fdb.learn(station(1), A, now).expect("room");
    fdb.learn(station(2), A, now).expect("room");
    assert_eq!(stations.touch(station(1), 1, 200), Seen::Here);
    fdb.sweep(now + AGE + seconds(1));
    assert_eq!(fdb.locate(station(1), now + AGE + seconds(1)), Some(A));
    assert_eq!(fdb.count(A), 1);
    assert_eq!(stations.last_seen(station(2)), None);
    fdb.sweep(now + AGE + seconds(201));
    assert_eq!(fdb.count(A), 0);
}

#[test]
fn a_flood_of_addresses_reaches_its_members_bound_and_harms_nobody() {
    let (mut fdb, stations, now) = table(Limits::default());
    fdb.learn(station(1), A, now).expect("room");
    fdb.learn(station(2), B, now).expect("room");
    let mut refused = 0;
    for n in 0..100_000 {
        match fdb.learn(station(n + 10), A, now) {
            Ok(_) => {}
            Err(NotLearned::TooMany { port: A, limit }) => {
                assert_eq!(limit, Limits::default().member);
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(refused, 100_000 - Limits::default().member + 1);
    assert_eq!(fdb.locate(station(1), now), Some(A));
    assert_eq!(stations.locate(station(2), 0), Some(2));
    assert_eq!(fdb.learn(station(3), B, now), Ok(Learned::New));
    fdb.forget_port(A);
    assert_eq!((fdb.count(A), fdb.count(B)), (0, 2));
    assert_eq!(stations.locate(station(1), 0), None);
    assert_eq!(fdb.learn(station(4), A, now), Ok(Learned::New));
}

#[test]
fn an_address_on_two_machines_is_held_at_one_and_reported_once() {
    let (mut fdb, _, mut now) = table(Limits::default());
    fdb.learn(station(1), A, now).expect("room");
    let mut reports = Vec::new();
    for turn in 0..40 {
        now += Duration::from_millis(500);
        let port = if turn % 2 == 0 { B } else { A };
        if let Err(refused) = fdb.learn(station(1), port, now) {
            reports.push(refused);
        }
    }
    let NotLearned::Duplicate {
        holder: A,
        claimant: B,
        is_new: true,
        ..
    } = reports[0]
    else {
        panic!("{:?}", reports[0]);
    };
    let is_new =
        |refused: &&NotLearned| matches!(refused, NotLearned::Duplicate { is_new: true, .. });
    assert_eq!(reports.iter().filter(is_new).count(), 1);
    assert_eq!(fdb.locate(station(1), now), Some(A));
    now += HOLD_DOWN;
    assert_eq!(
        fdb.learn(station(1), B, now),
        Ok(Learned::Moved { from: A }),
        "it is let go in the end"
    );
}

#[test]
fn a_machine_that_moves_now_and_then_is_not_taken_for_two() {
    let (mut fdb, _, mut now) = table(Limits::default());
    for turn in 0..100 {
        now += seconds(3);
        let port = if turn % 2 == 0 { B } else { A };
        fdb.learn(station(1), port, now).expect("moved");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Learn(u32, u16, Port),
    Pass(u16),
    Sweep,
    Forget(Port),
}

fn port() -> impl Strategy<Value = Port> {
    prop_oneof![Just(Port::Lan), (0_u16..3).prop_map(Port::Member)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u32..12, 0_u16..2, port()).prop_map(|(n, vlan, port)| Step::Learn(n, vlan, port)),
        2 => (0_u16..200).prop_map(Step::Pass),
        1 => Just(Step::Sweep),
        1 => port().prop_map(Step::Forget),
    ]
}

proptest! {
    #[test]
    fn counts_and_both_tables_agree_and_no_bound_is_passed(
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let limits = Limits { member: 4, lan: 5, total: 10 };
        let (mut fdb, stations, started) = table(limits);
        let mut now = started;
        for step in steps {
            match step {
                Step::Learn(n, vlan, port) => {
                    let station = Station { vlan, ..station(n) };
                    let before = fdb.locate(station, now);
                    let learned = fdb.learn(station, port, now);
                    let after = if learned.is_ok() { Some(port) } else { before };
                    prop_assert_eq!(fdb.locate(station, now), after);
                }
                Step::Pass(s) => now += seconds(s.into()),
                Step::Sweep => fdb.sweep(now),
                Step::Forget(port) => fdb.forget_port(port),
            }
            let mut counts = BTreeMap::new();
            for (station, entry) in &fdb.entries {
                *counts.entry(entry.port).or_insert(0) += 1;
                let (index, _) = stations.last_seen(*station).expect("few stations");
                prop_assert_eq!(index, entry.port.index());
            }
            for port in [Port::Lan, Port::Member(0), Port::Member(1), Port::Member(2)] {
                let count = counts.get(&port).copied().unwrap_or(0);
                prop_assert_eq!(fdb.count(port), count);
                let most = if port == Port::Lan { limits.lan } else { limits.member };
                prop_assert!(count <= most);
            }
            prop_assert!(fdb.entries.len() <= limits.total);
        }
    }
}
