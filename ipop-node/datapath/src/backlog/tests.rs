use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    peer: 4000,
    total: 10_000,
    quantum: 1000,
};

/// An item: whose it is, and its number.
type Item = (PeerIndex, usize);

/// Pushes items of one size for one peer; what was lost.
fn push_many(
    backlog: &mut Backlog<Item>,
    peer: PeerIndex,
    count: usize,
    bytes: usize,
) -> Vec<Item> {
    let mut lost = Vec::new();
    for number in 0..count {
        backlog.push(peer, bytes, (peer, number), |item| lost.push(item));
    }
    lost
}

#[test]
fn a_peer_that_has_more_than_one_may_have_loses_its_own_oldest() {
    let mut backlog = Backlog::new(LIMITS);
    assert_eq!(push_many(&mut backlog, 1, 1, 100), []);
    assert_eq!(push_many(&mut backlog, 2, 6, 1000), [(2, 0), (2, 1)]);
    assert_eq!((backlog.bytes_of(1), backlog.bytes_of(2)), (100, 4000));
}

#[test]
fn whoever_has_most_makes_room_when_all_have_more_than_all_may_have() {
    let mut backlog = Backlog::new(LIMITS);
    push_many(&mut backlog, 1, 4, 1000);
    push_many(&mut backlog, 2, 3, 1000);
    push_many(&mut backlog, 3, 3, 1000);
    assert_eq!(push_many(&mut backlog, 4, 1, 100), [(1, 0)]);
    assert_eq!(backlog.bytes_of(4), 100);
    assert_eq!(backlog.bytes(), 9100);
}

#[test]
fn what_little_a_peer_sends_waits_for_one_turn_of_another_at_the_most() {
    let mut backlog = Backlog::new(LIMITS);
    push_many(&mut backlog, 1, 8, 500);
    assert_eq!(backlog.pop(), Some((1, 0)));
    push_many(&mut backlog, 2, 1, 100);
    let order: Vec<_> = std::iter::from_fn(|| backlog.pop()).take(3).collect();
    assert_eq!(order, [(1, 1), (2, 0), (1, 2)]);
}

#[test]
fn an_item_that_alone_is_too_much_is_lost() {
    let mut backlog = Backlog::new(LIMITS);
    assert_eq!(push_many(&mut backlog, 1, 1, 4001), [(1, 0)]);
    assert!(backlog.is_empty());
    assert_eq!(backlog.front(), None);
}

#[test]
fn an_item_larger_than_a_turn_is_saved_for() {
    let mut backlog = Backlog::new(LIMITS);
    push_many(&mut backlog, 1, 1, 2500);
    push_many(&mut backlog, 2, 4, 1000);
    let order: Vec<_> = std::iter::from_fn(|| backlog.pop()).collect();
    assert_eq!(order, [(2, 0), (2, 1), (1, 0), (2, 2), (2, 3)]);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(PeerIndex, usize),
    Pop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let push = (0..5_u16, 1..1500_usize).prop_map(|(peer, bytes)| Step::Push(peer, bytes));
    vec(prop_oneof![3 => push, 2 => Just(Step::Pop)], 0..300)
}

proptest! {
    #[test]
    fn all_that_goes_in_comes_out_or_is_lost_in_order_and_no_more_waits_than_may(
        steps in steps(),
    ) {
        let mut backlog = Backlog::new(LIMITS);
        let mut waiting: BTreeMap<PeerIndex, VecDeque<(usize, usize)>> = BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push(peer, bytes) => {
                    waiting.entry(peer).or_default().push_back((number, bytes));
                    let mut lost = Vec::new();
                    backlog.push(peer, bytes, (peer, number), |item| lost.push(item));
                    for (from, number) in lost {
                        let sum = |queue: &VecDeque<(usize, usize)>| -> usize {
                            queue.iter().map(|(_, bytes)| bytes).sum()
                        };
                        let most = waiting.values().map(sum).max().unwrap_or(0);
                        let own = sum(&waiting[&from]);
                        prop_assert!(from == peer && own > LIMITS.peer || own == most);
                        let oldest = waiting.get_mut(&from).and_then(VecDeque::pop_front);
                        prop_assert_eq!(oldest.map(|(number, _)| number), Some(number));
                    }
                }
                Step::Pop => {
                    let front = backlog.front().map(|item| *item);
                    let popped = backlog.pop();
                    prop_assert_eq!(front, popped);
                    prop_assert_eq!(popped.is_none(), waiting.values().all(VecDeque::is_empty));
                    if let Some((peer, number)) = popped {
                        let oldest = waiting.get_mut(&peer).and_then(VecDeque::pop_front);
                        prop_assert_eq!(oldest.map(|(number, _)| number), Some(number));
                    }
                }
            }
            let mut total = 0;
            for (peer, queue) in &waiting {
                let bytes: usize = queue.iter().map(|(_, bytes)| bytes).sum();
                prop_assert_eq!(backlog.bytes_of(*peer), bytes);
                prop_assert!(bytes <= LIMITS.peer);
                total += bytes;
            }
            prop_assert_eq!(backlog.bytes(), total);
            prop_assert!(total <= LIMITS.total);
            prop_assert_eq!(backlog.is_empty(), total == 0);
        }
    }

    #[test]
    fn peers_that_always_have_something_send_as_many_bytes_but_for_one_turn_and_one_item(
        sizes in vec(vec(1..=LIMITS.quantum, 1..9), 2..6),
        sends in 1..200_usize,
    ) {
        let limits = Limits { peer: usize::MAX, total: usize::MAX, ..LIMITS };
        let mut backlog = Backlog::new(limits);
        let mut next = vec![0; sizes.len()];
        let mut fill = |backlog: &mut Backlog<(usize, usize)>, peer: usize| {
            while backlog.bytes_of(peer as PeerIndex) <= 2 * limits.quantum {
                let bytes = sizes[peer][next[peer] % sizes[peer].len()];
                next[peer] += 1;
                backlog.push(peer as PeerIndex, bytes, (peer, bytes), |_| {});
            }
        };
        let mut sent = vec![0; sizes.len()];
        for peer in 0..sizes.len() {
            fill(&mut backlog, peer);
        }
        for _ in 0..sends {
            let (peer, bytes) = backlog.pop().expect("always something");
            sent[peer] += bytes;
            fill(&mut backlog, peer);
            let (least, most) = (sent.iter().min(), sent.iter().max());
            let apart = most.zip(least).map(|(most, least)| most - least);
            prop_assert!(apart < Some(2 * limits.quantum), "{sent:?}");
        }
    }
}
