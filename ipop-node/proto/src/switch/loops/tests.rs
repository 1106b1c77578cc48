use proptest::prelude::*;

use super::*;

const TIMING: Timing = Timing {
    interval: Duration::from_millis(500),
    hold: Duration::from_millis(2500),
};
/// So many probes in a row may be lost between two nodes: the next one still comes within `hold`.
const MOST_LOST: u32 = 3;
const DELAY: Duration = Duration::from_millis(20);

fn guard(id: u8, run: u64) -> LoopGuard {
    let mac = [2, 0, 0, 0, 0, id];
    LoopGuard::new(NodeId([id; 16]), run, mac, ProbeKey::new(b"key"), TIMING)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Nodes on one LAN, on virtual time.
struct Lan {
    now: Instant,
    runs: u64,
    nodes: Vec<Option<LoopGuard>>,
    /// When, to which node, and what.
    on_the_way: Vec<(Instant, usize, Bytes)>,
    /// Probes lost in a row, by sender and receiver.
    lost: BTreeMap<(usize, usize), u32>,
    /// Whether the next probe is to be lost, if it may.
    losses: Vec<bool>,
    /// Nodes below and above this hear nothing of each other.
    split_at: Option<usize>,
    /// What this node sends is lost.
    mute: Option<usize>,
}

impl Lan {
    fn new(nodes: usize, losses: Vec<bool>) -> Self {
        Self {
            now: Instant::now(),
            runs: 0,
            nodes: (0..nodes).map(|_| None).collect(),
            on_the_way: Vec::new(),
            lost: BTreeMap::new(),
            losses,
            split_at: None,
            mute: None,
        }
    }

    /// Starts a node, or starts it again as another run.
    fn start(&mut self, node: usize) {
        // Neither growing nor shrinking: a run is any number.
        self.runs += 1;
        let run = self.runs.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut guard = guard(node as u8, run);
        guard.set_ready(true, self.now);
        self.nodes[node] = Some(guard);
        self.drain(node);
    }

    fn crash(&mut self, node: usize) {
        self.nodes[node] = None;
    }

    fn leave(&mut self, node: usize) {
        if let Some(guard) = &mut self.nodes[node] {
            guard.set_ready(false, self.now);
            self.drain(node);
        }
        self.nodes[node] = None;
    }

    fn forwarding(&self) -> Vec<usize> {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .filter(|(_, node)| node.as_ref().is_some_and(LoopGuard::is_forwarding))
            .map(|(at, _)| at)
            .collect()
    }

    fn lowest(&self) -> Vec<usize> {
        self.nodes
            .iter()
            .position(Option::is_some)
            .into_iter()
            .collect()
    }

    fn drain(&mut self, from: usize) {
        while let Some(frame) = self.nodes[from].as_mut().and_then(LoopGuard::poll_frame) {
            for to in (0..self.nodes.len()).filter(|to| *to != from) {
                if self.is_lost(from, to) {
                    continue;
                }
                self.on_the_way.push((self.now + DELAY, to, frame.clone()));
            }
        }
    }

    fn is_lost(&mut self, from: usize, to: usize) -> bool {
        if self.mute == Some(from) {
            return true;
        }
        if self.split_at.is_some_and(|at| (from < at) != (to < at)) {
            return true;
        }
        let lost = self.lost.entry((from, to)).or_default();
        if self.losses.pop().unwrap_or(false) && *lost < MOST_LOST {
            *lost += 1;
            return true;
        }
        *lost = 0;
        false
    }

    /// Runs for so long; the most nodes that forwarded at the same time.
    fn run(&mut self, time: Duration) -> usize {
        let end = self.now + time;
        let mut most = self.forwarding().len();
        loop {
            let arrival = self.on_the_way.iter().map(|(at, ..)| *at).min();
            let timeouts = self
                .nodes
                .iter()
                .flatten()
                .filter_map(LoopGuard::poll_timeout);
            let Some(next) = timeouts.chain(arrival).min().filter(|at| *at <= end) else {
                self.now = end;
                return most;
            };
            self.now = self.now.max(next);
            let now = self.now;
            let arrived: Vec<_> = self
                .on_the_way
                .extract_if(.., |(at, ..)| *at <= now)
                .collect();
            for (_, to, frame) in arrived {
                if let Some(node) = &mut self.nodes[to] {
                    node.handle_probe(&frame[14..], now).expect("ours");
                }
            }
            for at in 0..self.nodes.len() {
                if let Some(node) = &mut self.nodes[at] {
                    node.handle_timeout(now);
                    self.drain(at);
                }
            }
            most = most.max(self.forwarding().len());
        }
    }
}

#[test]
fn a_node_alone_forwards_once_it_has_listened_and_not_before() {
    let mut lan = Lan::new(1, Vec::new());
    lan.start(0);
    assert_eq!(lan.run(TIMING.hold - ms(1)), 0);
    assert_eq!(lan.run(ms(1)), 1);
}

#[test]
fn the_lowest_takes_over_at_once_from_one_that_forwarded_and_hands_over_when_it_leaves() {
    let mut lan = Lan::new(3, Vec::new());
    lan.start(2);
    lan.run(ms(5000));
    assert_eq!(lan.forwarding(), [2]);
    lan.start(0);
    lan.start(1);
    assert_eq!(lan.run(ms(5000)), 1);
    assert_eq!(lan.forwarding(), [0]);
    let changes: Vec<_> = std::iter::from_fn(|| lan.nodes[2].as_mut()?.poll_change()).collect();
    let to = NodeId([0; 16]);
    assert_eq!(changes, [Change::Forwards, Change::StoodDown { to }]);
    lan.leave(0);
    assert_eq!(lan.run(TIMING.hold + DELAY), 1);
    assert_eq!(lan.forwarding(), [1]);
}

#[test]
fn when_the_one_that_forwards_vanishes_the_next_takes_over_within_the_hold_time() {
    let mut lan = Lan::new(2, Vec::new());
    lan.start(0);
    lan.start(1);
    lan.run(ms(5000));
    lan.crash(0);
    assert_eq!(lan.run(TIMING.hold - TIMING.interval), 0);
    lan.run(TIMING.interval + DELAY);
    assert_eq!(lan.forwarding(), [1]);
}

#[test]
fn lans_that_are_joined_have_one_that_forwards_after_the_first_probe() {
    let mut lan = Lan::new(4, Vec::new());
    lan.split_at = Some(2);
    for node in 0..4 {
        lan.start(node);
    }
    lan.run(ms(5000));
    assert_eq!(lan.forwarding(), [0, 2], "each LAN has its own");
    lan.split_at = None;
    lan.run(TIMING.interval + DELAY);
    assert_eq!(lan.forwarding(), [0]);
}

#[test]
fn a_node_that_is_not_heard_does_not_forward_beside_one_that_does() {
    let mut lan = Lan::new(2, Vec::new());
    lan.mute = Some(0);
    lan.start(1);
    lan.run(ms(5000));
    lan.start(0);
    assert_eq!(lan.run(ms(20_000)), 1);
    assert_eq!(lan.forwarding(), [1]);
    lan.mute = None;
    assert_eq!(lan.run(2 * TIMING.hold), 1);
    assert_eq!(lan.forwarding(), [0]);
}

#[test]
fn a_node_without_links_leaves_the_lan_to_others() {
    let mut lan = Lan::new(2, Vec::new());
    lan.start(1);
    lan.nodes[0] = Some(guard(0, 1));
    lan.run(ms(5000));
    assert_eq!(lan.forwarding(), [1]);
    assert_eq!(lan.nodes[0].as_ref().expect("there").poll_timeout(), None);
}

#[test]
fn a_node_whose_probes_come_back_is_blocked_while_they_do() {
    let (mut node, mut now) = (guard(1, 1), Instant::now());
    node.set_ready(true, now);
    now += TIMING.hold;
    node.handle_timeout(now);
    assert!(node.is_forwarding());
    let sent = std::iter::from_fn(|| node.poll_frame())
        .last()
        .expect("sent");
    node.handle_probe(&sent[14..], now).expect("its own");
    assert!(!node.is_forwarding());
    for _ in 0..10 {
        now += TIMING.interval;
        node.handle_timeout(now);
        let sent = std::iter::from_fn(|| node.poll_frame())
            .last()
            .expect("sent");
        node.handle_probe(&sent[14..], now).expect("its own");
        assert!(!node.is_forwarding());
    }
    let changes: Vec<_> = std::iter::from_fn(|| node.poll_change()).collect();
    assert_eq!(changes, [Change::Forwards, Change::Looped]);
    now += TIMING.hold;
    node.handle_timeout(now);
    assert!(node.is_forwarding(), "the loop is gone");
    for _ in 0..20 {
        now += TIMING.interval;
        node.handle_timeout(now);
    }
    node.handle_probe(&sent[14..], now).expect("its own");
    assert!(node.is_forwarding(), "a recording of long ago");
}

#[test]
fn an_old_probe_does_not_keep_a_node_that_left_in_the_way() {
    let (mut low, mut high, mut now) = (guard(0, 9), guard(1, 1), Instant::now());
    low.set_ready(true, now);
    high.set_ready(true, now);
    let recorded = low.poll_frame().expect("sent");
    high.handle_probe(&recorded[14..], now).expect("ours");
    for _ in 0..5 {
        now += TIMING.interval;
        high.handle_probe(&recorded[14..], now).expect("ours");
        high.handle_timeout(now);
    }
    assert!(high.is_forwarding());
    assert_eq!(
        high.handle_probe(&recorded[14..40], now),
        Err(BadProbe::Unknown)
    );
    let foreign = Probe {
        node: NodeId([0; 16]),
        run: 10,
        sequence: 1,
        standing: Standing::Forwarding,
    }
    .frame([2; 6], &ProbeKey::new(b"another"));
    assert_eq!(
        high.handle_probe(&foreign[14..], now),
        Err(BadProbe::Foreign)
    );
    assert!(high.is_forwarding());
}

#[test]
fn a_node_that_was_copied_with_its_id_does_not_forward_beside_the_original() {
    let mut lan = Lan::new(2, Vec::new());
    for (at, run) in [(0, 5), (1, 6)] {
        let mut node = guard(7, run);
        node.set_ready(true, lan.now);
        lan.nodes[at] = Some(node);
        lan.drain(at);
    }
    assert_eq!(lan.run(ms(10_000)), 1);
    assert_eq!(lan.forwarding(), [0]);
}

#[derive(Debug, Clone)]
enum Step {
    Start(usize),
    Crash(usize),
    Leave(usize),
    Run(u64),
}

fn step(nodes: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..nodes).prop_map(Step::Start),
        1 => (0..nodes).prop_map(Step::Crash),
        1 => (0..nodes).prop_map(Step::Leave),
        4 => (0_u64..6000).prop_map(Step::Run),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn never_do_two_forward_and_in_the_end_the_lowest_does(
        steps in proptest::collection::vec(step(4), 1..30),
        losses in proptest::collection::vec(prop::bool::weighted(0.6), 0..2000),
    ) {
        let mut lan = Lan::new(4, losses);
        for step in &steps {
            match step {
                Step::Start(node) => lan.start(*node),
                Step::Crash(node) => lan.crash(*node),
                Step::Leave(node) => lan.leave(*node),
                Step::Run(time) => prop_assert!(lan.run(ms(*time)) <= 1),
            }
            prop_assert!(lan.forwarding().len() <= 1);
        }
        prop_assert!(lan.run(2 * TIMING.hold) <= 1);
        prop_assert_eq!(lan.forwarding(), lan.lowest());
    }

    #[test]
    fn whatever_was_lost_before_one_forwards_once_probes_pass(
        steps in proptest::collection::vec(step(4), 1..20),
        split_at in 1_usize..4,
    ) {
        let mut lan = Lan::new(4, Vec::new());
        lan.split_at = Some(split_at);
        for step in &steps {
            match step {
                Step::Start(node) => lan.start(*node),
                Step::Crash(node) => lan.crash(*node),
                Step::Leave(node) => lan.leave(*node),
                Step::Run(time) => { lan.run(ms(*time)); }
            }
        }
        lan.split_at = None;
        lan.run(TIMING.interval + DELAY);
        prop_assert!(lan.forwarding().len() <= 1);
        lan.run(2 * TIMING.hold);
        prop_assert_eq!(lan.forwarding(), lan.lowest());
    }
}
