use proptest::prelude::*;

use super::*;

fn station(n: u8) -> Station {
    Station::from([2, 0, 0, 0, 0, n])
}

fn frame(n: u8) -> Bytes {
    Bytes::from(vec![n; 100])
}

#[test]
fn frames_wait_for_the_answers_and_go_where_the_station_is_in_their_order() {
    let (mut search, now) = (Search::default(), Instant::now());
    assert_eq!(
        search.look_for(station(1), frame(1), [3, 4], now),
        Sought::Ask
    );
    assert_eq!(
        search.look_for(station(1), frame(2), [3, 4], now),
        Sought::Waits
    );
    assert!(search.is_asked(station(1), 3));
    assert!(!search.is_asked(station(1), 5) && !search.is_asked(station(2), 3));
    assert!(search.not_there(station(1), 3, now).is_empty());
    assert!(!search.is_asked(station(1), 3), "it has answered");
    assert_eq!(search.found(station(1)), [frame(1), frame(2)]);
    assert_eq!((search.poll_timeout(), search.bytes), (None, 0));
}

#[test]
fn frames_for_a_silent_station_go_to_everybody_once_nobody_had_it_or_time_is_over() {
    let (mut search, now) = (Search::default(), Instant::now());
    search.look_for(station(1), frame(1), [3, 4], now);
    search.not_there(station(1), 4, now);
    assert_eq!(search.not_there(station(1), 3, now), [frame(1)]);
    let next = search.look_for(station(1), frame(2), [3, 4], now);
    assert_eq!(
        next,
        Sought::Flood(frame(2)),
        "they need not be asked again"
    );

    assert!(search.found(station(1)).is_empty());
    let next = search.look_for(station(1), frame(2), [3, 4], now);
    assert_eq!(next, Sought::Ask, "it spoke");
    search.found(station(1));

    search.look_for(station(2), frame(1), [3, 4], now);
    assert_eq!(search.poll_timeout(), Some(now + ANSWER));
    assert!(search.handle_timeout(now + ANSWER / 2).is_empty());
    let late = search.handle_timeout(now + ANSWER);
    assert_eq!(late, [(station(2), vec![frame(1)])]);

    search.look_for(station(3), frame(1), [3, 4], now);
    assert!(search.left(4, now).is_empty());
    assert_eq!(search.left(3, now), [(station(3), vec![frame(1)])]);

    let later = now + KNOWN_SILENT + ANSWER;
    search.handle_timeout(later);
    assert_eq!(
        search.look_for(station(1), frame(1), [3], later),
        Sought::Ask
    );
    assert_eq!(
        search.look_for(station(4), frame(1), [], now),
        Sought::Flood(frame(1)),
        "there is nobody to ask"
    );
}

#[test]
fn what_waits_can_be_given_up() {
    let (mut search, now) = (Search::default(), Instant::now());
    search.look_for(station(1), frame(1), [3], now);
    search.look_for(station(2), frame(2), [3], now);
    assert_eq!(search.clear(), [frame(1), frame(2)]);
    assert_eq!((search.poll_timeout(), search.bytes), (None, 0));
    assert!(search.handle_timeout(now + ANSWER).is_empty());
}

#[test]
fn what_waits_is_bounded() {
    let (mut search, now) = (Search::default(), Instant::now());
    for n in 0..20 {
        let sought = search.look_for(station(1), frame(n), [3], now);
        assert_eq!(sought == Sought::Dropped, usize::from(n) >= MOST_FRAMES);
    }
    let mut floods = 0;
    for n in 0..1000_u16 {
        let [high, low] = n.to_be_bytes();
        let station = Station::from([2, 1, 0, 0, high, low]);
        match search.look_for(station, frame(1), [3], now) {
            Sought::Ask => {}
            Sought::Flood(_) => floods += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(floods, 1000 - MOST_STATIONS + 1);
    search.handle_timeout(now + ANSWER);
    assert!(search.silent.len() <= MOST_STATIONS);
    assert_eq!((search.bytes, search.sought.len()), (0, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Look(u8),
    Found(u8),
    NotThere(u8, u16),
    Left(u16),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0_u8..4).prop_map(Step::Look),
        1 => (0_u8..4).prop_map(Step::Found),
        3 => (0_u8..4, 0_u16..3).prop_map(|(n, member)| Step::NotThere(n, member)),
        1 => (0_u16..3).prop_map(Step::Left),
        2 => (0_u64..400).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn every_frame_comes_out_once_within_the_time_for_answers(
        steps in proptest::collection::vec(step(), 0..100),
    ) {
        let (mut search, mut now) = (Search::default(), Instant::now());
        let (mut next, mut inside) = (0_u32, BTreeMap::new());
        for step in steps.into_iter().chain([Step::Pass(1000)]) {
            let mut out = Vec::new();
            match step {
                Step::Look(n) => {
                    next += 1;
                    let frame = Bytes::from(next.to_be_bytes().to_vec());
                    match search.look_for(station(n), frame.clone(), 0..3, now) {
                        Sought::Ask | Sought::Waits => {
                            inside.insert(frame, now);
                        }
                        Sought::Flood(given) => prop_assert_eq!(given, frame),
                        Sought::Dropped => {}
                    }
                }
                Step::Found(n) => out = search.found(station(n)),
                Step::NotThere(n, member) => out = search.not_there(station(n), member, now),
                Step::Left(member) => {
                    out = search.left(member, now).into_iter().flat_map(|(_, f)| f).collect();
                }
                Step::Pass(ms) => {
                    now += Duration::from_millis(ms);
                    out = search.handle_timeout(now).into_iter().flat_map(|(_, f)| f).collect();
                }
            }
            for frame in out {
                prop_assert!(inside.remove(&frame).is_some(), "given twice");
            }
            prop_assert!(inside.values().all(|since| now < *since + ANSWER));
            let bytes: usize = inside.keys().map(Bytes::len).sum();
            prop_assert_eq!(search.bytes, bytes);
        }
        prop_assert!(inside.is_empty());
    }
}
