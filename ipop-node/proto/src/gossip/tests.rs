//! Lists on their way between nodes that lose, delay and make things up.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::message::{ListId, Message, PIECE};
use super::pull::{STALL, WINDOW};
use super::{Gossip, Misfit, YOUNG};
use crate::authority::{AuthorityId, MAX_LIST};

const A: AuthorityId = AuthorityId([1; 32]);
const B: AuthorityId = AuthorityId([2; 32]);
const SECOND: Duration = Duration::from_secs(1);
/// One way.
const LATENCY: Duration = Duration::from_millis(20);

fn id(number: u64) -> ListId {
    ListId {
        authority: A,
        number,
    }
}

/// The true list with this number: nothing else is believed.
fn der(number: u64, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at as u64 * 7).wrapping_add(number) as u8)
        .collect()
}

type Loses = Box<dyn FnMut(usize, usize, &Message) -> bool>;

/// Nodes with links between some of them.
struct Mesh {
    now: Instant,
    nodes: Vec<Gossip<usize>>,
    links: BTreeSet<(usize, usize)>,
    mail: VecDeque<(Instant, usize, usize, Vec<u8>)>,
    /// Bytes of every list.
    len: usize,
    /// What every node has.
    held: Vec<u64>,
    /// Messages that get lost.
    loses: Loses,
    sent: Vec<(usize, usize, Message)>,
    misfits: usize,
}

impl Mesh {
    fn new(count: usize, len: usize) -> Self {
        Self {
            now: Instant::now(),
            nodes: (0..count).map(|_| Gossip::new([A])).collect(),
            links: BTreeSet::new(),
            mail: VecDeque::new(),
            len,
            held: vec![0; count],
            loses: Box::new(|_, _, _| false),
            sent: Vec::new(),
            misfits: 0,
        }
    }

    fn link(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            self.links.insert((from, to));
            self.nodes[from].linked(to, self.now);
        }
    }

    fn hold(&mut self, node: usize, number: u64) {
        self.held[node] = number;
        let der = der(number, self.len);
        self.nodes[node].hold(id(number), &der, self.now);
    }

    fn collect(&mut self) {
        for from in 0..self.nodes.len() {
            while let Some((to, list, bytes)) = self.nodes[from].poll_list() {
                if bytes == der(list.number, self.len) && list.number > self.held[from] {
                    self.hold(from, list.number);
                } else {
                    self.nodes[from].distrust(to, list, self.now);
                }
            }
            while let Some((to, message)) = self.nodes[from].poll_message() {
                self.sent.push((from, to, message.clone()));
                let is_linked = self.links.contains(&(from, to));
                if is_linked && !(self.loses)(from, to, &message) {
                    let at = self.now + LATENCY;
                    self.mail.push_back((at, from, to, message.bytes()));
                }
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..100_000 {
            self.collect();
            let timers = self.nodes.iter_mut().filter_map(Gossip::poll_timeout);
            let next = timers.chain(self.mail.front().map(|m| m.0)).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            while self.mail.front().is_some_and(|m| m.0 <= self.now) {
                let Some((_, from, to, bytes)) = self.mail.pop_front() else {
                    return;
                };
                let message = Message::read(&bytes).expect("a message");
                let taken = self.nodes[to].handle_message(from, message, self.now);
                self.misfits += usize::from(taken.is_err());
            }
            for node in &mut self.nodes {
                node.handle_timeout(self.now);
            }
        }
        panic!("time stands still");
    }

    fn pieces(&self) -> usize {
        let is_piece = |(_, _, m): &&(usize, usize, Message)| matches!(m, Message::Piece { .. });
        self.sent.iter().filter(is_piece).count()
    }
}

#[test]
fn while_nobody_has_a_list_nothing_is_said() {
    let mut mesh = Mesh::new(3, 100);
    mesh.link(0, 1);
    mesh.link(1, 2);
    mesh.run(3600 * SECOND);
    assert_eq!(mesh.sent, []);
}

#[test]
fn a_list_of_any_size_goes_down_a_chain_and_then_there_is_silence() {
    for len in [1, PIECE, PIECE + 1, WINDOW * PIECE, MAX_LIST] {
        let mut mesh = Mesh::new(4, len);
        for at in 0..3 {
            mesh.link(at, at + 1);
        }
        mesh.run(SECOND);
        mesh.hold(0, 7);
        mesh.run(2 * SECOND);
        assert_eq!(mesh.held, [7; 4], "{len} bytes");
        assert_eq!(mesh.pieces(), 3 * len.div_ceil(PIECE));
        let said = mesh.sent.len();
        mesh.run(3600 * SECOND);
        assert_eq!(mesh.sent.len(), said, "it is said again and again");
        assert_eq!(mesh.misfits, 0);
    }
}

#[test]
fn numbers_are_compared_when_a_link_comes_up_whichever_side_is_ahead() {
    for ahead in [0, 1] {
        let mut mesh = Mesh::new(2, 3000);
        mesh.hold(ahead, 5);
        mesh.hold(1 - ahead, 4);
        mesh.link(0, 1);
        mesh.run(SECOND);
        assert_eq!(mesh.held, [5, 5]);
    }
}

#[test]
fn what_is_lost_is_said_and_asked_for_again() {
    for seed in 0..20_u32 {
        let mut mesh = Mesh::new(3, 20_000);
        let mut state = seed;
        mesh.loses = Box::new(move |_, _, _| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 30 == 0
        });
        mesh.link(0, 1);
        mesh.link(1, 2);
        mesh.hold(0, 1);
        mesh.run(60 * SECOND);
        assert_eq!(mesh.held, [1; 3], "seed {seed}");
    }
}

#[test]
fn a_peer_that_never_answers_is_not_told_for_ever() {
    let mut mesh = Mesh::new(2, 100);
    mesh.loses = Box::new(|_, _, _| true);
    mesh.hold(0, 1);
    mesh.link(0, 1);
    mesh.run(24 * 3600 * SECOND);
    assert_eq!(mesh.sent.len(), 12);
    // Of a newer one it is told all the same.
    mesh.loses = Box::new(|_, _, _| false);
    mesh.hold(0, 2);
    mesh.run(SECOND);
    assert_eq!(mesh.held, [2; 2]);
}

#[test]
fn one_list_comes_from_one_peer_of_many() {
    let mut mesh = Mesh::new(6, MAX_LIST);
    for at in 0..5 {
        mesh.link(at, 5);
        mesh.hold(at, 3);
    }
    mesh.run(10 * SECOND);
    assert_eq!(mesh.held[5], 3);
    assert_eq!(mesh.pieces(), MAX_LIST / PIECE);
}

#[test]
fn a_peer_that_does_not_come_up_with_what_it_tells_of_keeps_nobody_from_asking_others() {
    // It tells of the true number, or of one that nobody reaches, and sends nothing, or rubbish.
    for (number, sends) in [(9, false), (u64::MAX, false), (9, true), (u64::MAX, true)] {
        let mut mesh = Mesh::new(3, 5000);
        mesh.link(0, 2);
        mesh.link(1, 2);
        if sends {
            mesh.nodes[0].hold(id(number), &[0; 5000], mesh.now);
        } else {
            mesh.loses = Box::new(|from, _, _| from == 0);
            let now = mesh.now;
            mesh.nodes[2]
                .handle_message(0, Message::Told(id(number)), now)
                .expect("nothing wrong");
        }
        mesh.run(Duration::from_millis(100));
        mesh.hold(1, 9);
        mesh.run(YOUNG + SECOND);
        assert_eq!(mesh.held[2], 9, "{number} {sends}");
    }
}

#[test]
fn a_peer_whose_list_is_bad_is_asked_seldom() {
    let mut mesh = Mesh::new(2, 1000);
    mesh.link(0, 1);
    mesh.nodes[0].hold(id(5), &[0; 1000], mesh.now);
    mesh.run(10 * 60 * SECOND);
    assert_eq!(mesh.held[1], 0);
    assert!((2..=21).contains(&mesh.pieces()), "{}", mesh.pieces());
}

#[test]
fn pieces_that_nobody_asked_for_or_that_fit_no_list_are_told_apart() {
    let mut node = Gossip::new([A]);
    let now = Instant::now();
    node.linked(7, now);
    let piece = |list, offset, total, len| Message::Piece {
        list,
        offset,
        total,
        bytes: vec![0; len],
    };
    let mut say = |message, now| node.handle_message(7, message, now);
    assert_eq!(say(piece(id(1), 0, 10, 10), now), Err(Misfit));
    let of_another = ListId {
        authority: B,
        number: 1,
    };
    assert_eq!(say(Message::Tell(of_another), now), Ok(()));
    assert_eq!(say(piece(of_another, 0, 10, 10), now), Err(Misfit));
    let mut later = now;
    for (offset, total, len) in [
        (0, 0, 1),
        (0, MAX_LIST as u32 + 1, PIECE),
        (0, 2000, PIECE - 1),
        (0, 10, 11),
        (2000, 2000, 1),
        (u32::MAX, 2000, 1),
    ] {
        later += 60 * SECOND;
        assert_eq!(say(Message::Told(id(1)), later), Ok(()));
        let misfit = say(piece(id(1), offset, total, len), later);
        assert_eq!(misfit, Err(Misfit), "{offset} of {total}");
    }
    later += 60 * SECOND;
    assert_eq!(say(Message::Told(id(1)), later), Ok(()));
    assert_eq!(say(piece(id(1), 0, 2000, PIECE), later), Ok(()));
    // The whole is another length now.
    assert_eq!(say(piece(id(1), 1024, 3000, PIECE), later), Err(Misfit));
    assert_eq!(node.poll_list(), None);
}

#[test]
fn whoever_asks_again_and_again_is_sent_a_bounded_number_of_pieces() {
    let mut node = Gossip::new([A]);
    let now = Instant::now();
    node.hold(id(1), &der(1, MAX_LIST), now);
    node.linked(7, now);
    let want = Message::Want {
        list: id(1),
        offset: 0,
    };
    for _ in 0..1000 {
        node.handle_message(7, want.clone(), now)
            .expect("no offence");
    }
    let sent = std::iter::from_fn(|| node.poll_message());
    assert!(sent.count() <= 8 * WINDOW + 1);
    // One that asks for what is not there is sent nothing of it.
    let beyond = Message::Want {
        list: id(1),
        offset: u32::MAX,
    };
    let later = now + 2 * SECOND;
    node.handle_message(7, beyond, later).expect("no offence");
    assert_eq!(node.poll_message(), None);
}

#[test]
fn a_node_that_got_a_newer_list_meanwhile_says_so_instead() {
    let mut mesh = Mesh::new(2, 50_000);
    mesh.hold(0, 1);
    mesh.link(0, 1);
    mesh.run(LATENCY * 3 + LATENCY / 2);
    mesh.hold(0, 2);
    mesh.run(2 * STALL);
    assert_eq!(mesh.held, [2, 2]);
}
