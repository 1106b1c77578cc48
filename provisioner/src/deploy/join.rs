//! Waits until nodes have joined: watches consoles for their boot, and the overlay for the rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipop_proto::status::{LinkState, NodeStatus, RoleState};

use super::engine::Engine;
use super::outcome::{NodeOutcome, Outcome, Stuck};
use super::{Meeting, Seen, Watch};
use crate::error::CliError;
use crate::event::{Event, Stage};
use crate::name::NodeName;
use crate::plan::{ClusterPlan, FRONTEND, NodePlan, is_worker};
use crate::provider::{Delivery, Machine, MachineState, Provider};
use crate::rendezvous::State;

/// What the image writes to the console once its system is up.
pub const BOOTED: &str = "ipop: booted";
/// Lines of a stuck node's console that are shown.
const CONSOLE_LINES: usize = 20;
/// Bytes of a console that are looked through.
const CONSOLE_BYTES: usize = 256 * 1024;
/// Consoles that are looked at in one round, so that a round takes the same time whatever the
/// number of nodes; the others have their turn.
const CONSOLES: usize = 8;
/// Part of its time after which a node that has not joined is a straggler.
const STRAGGLER: f64 = 0.6;

/// Between looks for enrolment tokens that are over.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From a machine's start to its joining; else what its site's machines may take.
    pub timeout: Option<Duration>,
    /// Between looks at machines and consoles.
    pub poll: Duration,
}

/// What is waited for.
pub(super) struct Wait<'a> {
    /// The nodes.
    pub plan: &'a ClusterPlan,
    /// How long.
    pub limits: Limits,
    /// Workers that are enough, with all nodes that are none.
    pub quorum: usize,
    /// Nodes whose machine could not be made, and why.
    pub failed: BTreeMap<NodeName, String>,
}

/// Makes machines of some of the nodes anew, as many as it may; says which, and why one could not
/// be made.
pub(super) type Replace<'a> =
    &'a mut dyn FnMut(&[NodeName]) -> Result<BTreeMap<NodeName, Option<String>>, CliError>;

/// How far each node is.
struct Progress<'a> {
    plan: &'a NodePlan,
    provider: Arc<dyn Provider>,
    limit: Duration,
    started: Instant,
    reached: Stage,
    /// What the overlay says of it at this moment.
    now: Option<Stage>,
    joined_seconds: Option<f64>,
    /// Consecutive looks that found the machine not running.
    absent: u8,
    machine: Option<Machine>,
    failed: Option<String>,
}

/// Waits until enough nodes have joined, none can any more, the time is over, or Ctrl-C.
pub(super) fn join(
    engine: &Engine<'_>,
    wait: Wait<'_>,
    replace: Replace<'_>,
) -> Result<Outcome, CliError> {
    let meeting = engine.meeting()?;
    let mut all = progress(engine, &wait)?;
    let mut watcher = Watcher {
        meeting: &*meeting,
        watch: None,
        trouble: None,
    };
    let mut seen = BTreeMap::new();
    let mut consoles = Consoles::default();
    // Whatever the time, the overlay is looked at once.
    let mut looked = false;
    let mut expired = Instant::now();
    loop {
        engine.interrupt.check()?;
        look_at_machines(engine, &mut all);
        for node in &mut all {
            node.now = seen.get(&node.plan.name).map(|s: &Seen| s.stage);
            if let Some(stage) = node.now {
                node.advance(engine, stage)?;
            }
        }
        consoles.look(engine, &mut all)?;
        if is_enough(&all, wait.quorum) || looked && all.iter().all(Progress::is_settled) {
            break;
        }
        let stragglers: Vec<_> = all.iter().filter(|n| n.is_straggler()).collect();
        let stragglers: Vec<_> = stragglers.iter().map(|n| n.plan.name.clone()).collect();
        if !stragglers.is_empty() {
            let mut replaced = replace(&stragglers)?;
            for node in &mut all {
                if let Some(failed) = replaced.remove(&node.plan.name) {
                    seen.remove(&node.plan.name);
                    *node = Progress {
                        failed,
                        ..node.anew()
                    };
                }
            }
        }
        looked = true;
        if expired.elapsed() >= EXPIRY_INTERVAL {
            engine.expire_tokens();
            expired = Instant::now();
        }
        let was = watcher.trouble.is_some();
        match watcher.look(wait.limits.poll) {
            Some(news) => seen = news,
            None if !was => engine.events.emit(Event::Warning {
                message: format!(
                    "the rendezvous cannot be watched: {}",
                    watcher.trouble.as_deref().unwrap_or("unknown")
                ),
            }),
            None => {}
        }
    }
    let frontend = &wait.plan.frontend().name.0;
    let mut nodes = Vec::with_capacity(all.len());
    for node in &all {
        nodes.push(node.outcome(engine, frontend, &mut watcher)?);
    }
    if all.iter().any(Progress::makes_host_key) {
        engine.write_known_hosts()?;
    }
    Ok(Outcome {
        name: wait.plan.name.clone(),
        joined: nodes.iter().all(|n| n.stuck.is_none()),
        enough: is_enough(&all, wait.quorum),
        waited: true,
        seconds: engine.began.elapsed().as_secs_f64(),
        nodes,
    })
}

fn progress<'a>(engine: &Engine<'_>, wait: &Wait<'a>) -> Result<Vec<Progress<'a>>, CliError> {
    let mut limits: BTreeMap<&str, Duration> = BTreeMap::new();
    let mut all = Vec::with_capacity(wait.plan.machines().len());
    for plan in wait.plan.machines() {
        let provider = engine.provider(&plan.site)?;
        let limit = match (wait.limits.timeout, limits.get(plan.site.as_str())) {
            (Some(timeout), _) => timeout,
            (None, Some(limit)) => *limit,
            (None, None) => provider.join_limit()?,
        };
        limits.insert(&plan.site, limit);
        let early = engine.opened.early.of(&plan.name);
        all.push(Progress {
            plan,
            provider,
            limit,
            started: Instant::now(),
            reached: early.map_or(Stage::Created, |e| e.stage),
            now: None,
            joined_seconds: early.and_then(|e| e.joined),
            absent: 0,
            machine: None,
            failed: wait.failed.get(&plan.name).cloned(),
        });
    }
    Ok(all)
}

/// Whether this many workers have joined, and all that are none.
fn is_enough(all: &[Progress<'_>], quorum: usize) -> bool {
    let (workers, others): (Vec<_>, Vec<_>) = all.iter().partition(|n| is_worker(&n.plan.role));
    let joined = workers.iter().filter(|n| n.has_joined()).count();
    others.iter().all(|n| n.has_joined()) && joined >= quorum
}

/// Asks each site once for all machines, while one that has not joined is there.
fn look_at_machines(engine: &Engine<'_>, all: &mut [Progress<'_>]) {
    let mut machines: BTreeMap<&str, Option<BTreeMap<NodeName, Machine>>> = BTreeMap::new();
    for node in all {
        if node.has_joined() || node.failed.is_some() {
            continue;
        }
        let (site, provider) = (node.plan.site.as_str(), &node.provider);
        let of_site = machines
            .entry(site)
            .or_insert_with(|| provider.machines(&engine.tags()).ok());
        let machine = of_site.as_ref().map(|machines| {
            machines.get(&node.plan.name).cloned().unwrap_or(Machine {
                state: MachineState::Absent,
                underlay: None,
                place: None,
                why: None,
            })
        });
        match machine.as_ref().map(|m| m.state) {
            Some(MachineState::Stopped | MachineState::Absent) => {
                node.absent = node.absent.saturating_add(1);
            }
            _ => node.absent = 0,
        }
        node.machine = machine;
    }
}

/// Whose consoles have their turn.
#[derive(Default)]
struct Consoles {
    next: usize,
}

impl Consoles {
    /// Looks whether systems came up, of nodes that are not further already.
    fn look(&mut self, engine: &Engine<'_>, all: &mut [Progress<'_>]) -> Result<(), CliError> {
        let wanted = |n: &Progress<'_>| n.reached < Stage::Booted && n.failed.is_none();
        let waiting: Vec<usize> = (0..all.len()).filter(|i| wanted(&all[*i])).collect();
        let count = waiting.len().min(CONSOLES);
        for turn in 0..count {
            let node = &mut all[waiting[(self.next + turn) % waiting.len()]];
            if node.has_booted(engine) {
                node.advance(engine, Stage::Booted)?;
            }
        }
        self.next = self.next.wrapping_add(count);
        Ok(())
    }
}

impl<'a> Progress<'a> {
    /// As after the start of another machine.
    fn anew(&self) -> Self {
        Self {
            plan: self.plan,
            provider: Arc::clone(&self.provider),
            limit: self.limit,
            started: Instant::now(),
            reached: Stage::Created,
            now: None,
            joined_seconds: None,
            absent: 0,
            machine: None,
            failed: None,
        }
    }

    fn has_booted(&self, engine: &Engine<'_>) -> bool {
        let console = self
            .provider
            .console(&engine.tags(), &self.plan.name, CONSOLE_BYTES);
        console.is_ok_and(|text| {
            text.windows(BOOTED.len())
                .any(|window| window == BOOTED.as_bytes())
        })
    }

    /// Notes each stage up to `stage` that was not reached before.
    fn advance(&mut self, engine: &Engine<'_>, stage: Stage) -> Result<(), CliError> {
        let stages = [Stage::Booted, Stage::SignedIn, Stage::Linked, Stage::Ready];
        for next in stages
            .into_iter()
            .filter(|s| *s > self.reached && *s <= stage)
        {
            let seconds = engine.reached(&self.plan.name, next)?;
            if next == Stage::Ready {
                self.joined_seconds = Some(seconds);
            }
        }
        self.reached = self.reached.max(stage);
        Ok(())
    }

    /// Joined, and still so.
    fn has_joined(&self) -> bool {
        self.reached == Stage::Ready && self.now == Some(Stage::Ready)
    }

    /// Seen twice: a machine that starts anew stops for a moment.
    fn is_dead(&self) -> bool {
        self.absent >= 2
    }

    /// Nothing more will come of it, or its time is over.
    fn is_settled(&self) -> bool {
        let over = self.started.elapsed() >= self.limit;
        self.has_joined() || self.is_dead() || self.failed.is_some() || over
    }

    /// Whether another machine would rather join.
    fn is_straggler(&self) -> bool {
        let late = self.started.elapsed() >= self.limit.mul_f64(STRAGGLER);
        let hopeless = self.is_dead() || self.failed.is_some() || late;
        self.plan.role != FRONTEND && !self.has_joined() && hopeless
    }

    fn outcome(
        &self,
        engine: &Engine<'_>,
        frontend: &str,
        watcher: &mut Watcher<'_>,
    ) -> Result<NodeOutcome, CliError> {
        let plan = self.plan;
        let joined = self.has_joined();
        let status = self
            .now
            .is_some()
            .then(|| watcher.status(&plan.name))
            .flatten();
        if let Some(status) = status.as_ref().filter(|_| self.makes_host_key()) {
            engine.learn_host_key(&plan.name, status)?;
        }
        let peer = status
            .as_ref()
            .and_then(|s| s.peers.iter().find(|p| p.name == frontend));
        let stuck = (!joined).then(|| match &self.failed {
            Some(why) => Stuck {
                reached: None,
                why: why.clone(),
                console: Vec::new(),
            },
            None => Stuck {
                reached: Some(self.reached),
                why: self.why(status.as_ref(), watcher.trouble.as_deref()),
                console: self.end_of_console(engine),
            },
        });
        Ok(NodeOutcome::of(plan)
            .with_link(
                peer.and_then(|p| p.link_kind()),
                peer.and_then(|p| p.rtt_us),
            )
            .with_end(self.joined_seconds, stuck))
    }

    /// Whether nobody knows the machine's SSH host key before it says it.
    fn makes_host_key(&self) -> bool {
        self.provider.delivery() == Delivery::Enrolment
    }

    fn end_of_console(&self, engine: &Engine<'_>) -> Vec<String> {
        let text = self
            .provider
            .console(&engine.tags(), &self.plan.name, CONSOLE_BYTES);
        last_lines(&text.unwrap_or_default(), CONSOLE_LINES)
    }

    fn why(&self, status: Option<&NodeStatus>, trouble: Option<&str>) -> String {
        let stopped = match self.machine.as_ref().map(|m| m.state) {
            Some(MachineState::Stopped) => Some("its machine stopped"),
            Some(MachineState::Absent) => Some("its machine is gone"),
            _ => None,
        };
        if let Some(text) = stopped {
            let why = self.machine.as_ref().and_then(|m| m.why.as_ref());
            return why.map_or(text.to_owned(), |why| format!("{text}: {why}"));
        }
        if self.reached > Stage::Booted && self.now.is_none() && trouble.is_none() {
            return "it left the rendezvous".to_owned();
        }
        match (self.now.unwrap_or(self.reached), trouble) {
            (Stage::Image | Stage::Created, _) => "its system did not come up".to_owned(),
            (_, Some(trouble)) => format!("the rendezvous cannot be watched: {trouble}"),
            (Stage::Booted, None) => "it did not sign in to the rendezvous".to_owned(),
            (Stage::SignedIn, None) => {
                let down = |s: &NodeStatus| {
                    s.peers.iter().find_map(|p| match &p.link {
                        LinkState::Down { why } => Some(format!("no link to {}: {why}", p.name)),
                        LinkState::Up => None,
                        _ => Some(format!("no link to {} yet", p.name)),
                    })
                };
                status
                    .and_then(down)
                    .unwrap_or_else(|| "it has no link to its peers".to_owned())
            }
            (_, None) => match status.map(|s| &s.role) {
                Some(RoleState::Failed { detail }) => format!("its role failed: {detail}"),
                _ => "its role is not ready".to_owned(),
            },
        }
    }
}

/// The last lines of a console, without what would move the reader's cursor.
pub fn last_lines(text: &[u8], count: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let clean = |line: &str| {
        let mut out = String::new();
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            if c == '\x1b' && chars.next_if_eq(&'[').is_some() {
                // ECMA-48 section 5.4: parameters, then one final byte.
                while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            } else if !c.is_control() || c == '\t' {
                out.push(c);
            }
        }
        out.trim_end().to_owned()
    };
    let lines: Vec<_> = text.lines().map(clean).filter(|l| !l.is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}

/// The operator's view, opened again when it was lost.
struct Watcher<'a> {
    meeting: &'a dyn Meeting,
    watch: Option<Box<dyn Watch>>,
    trouble: Option<String>,
}

impl Watcher<'_> {
    /// What is signed in, after at most `timeout`; none while the rendezvous cannot be watched.
    fn look(&mut self, timeout: Duration) -> Option<BTreeMap<NodeName, Seen>> {
        let began = Instant::now();
        let looked = self.open().and_then(|watch| watch.look(timeout));
        match looked {
            Ok(seen) => {
                self.trouble = None;
                Some(seen)
            }
            Err(error) => {
                self.watch = None;
                self.trouble = Some(error.one_line());
                std::thread::sleep(timeout.saturating_sub(began.elapsed()));
                None
            }
        }
    }

    /// What a node says of itself. A rendezvous that is known to be dead is not tried again: that
    /// would take a sign-in's time limit for every node.
    fn status(&mut self, node: &NodeName) -> Option<NodeStatus> {
        if self.trouble.is_some() {
            return None;
        }
        self.open().ok()?.status(node)
    }

    fn open(&mut self) -> Result<&mut Box<dyn Watch>, CliError> {
        if self.watch.is_none() {
            if self.meeting.state() == State::Stopped {
                self.meeting.start(&[])?;
            }
            self.watch = Some(self.meeting.watch()?);
        }
        self.watch.as_mut().ok_or_else(CliError::interrupted)
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn the_end_of_a_console_is_shown_without_control_sequences() {
        let text = b"one\r\n\x1b[0;32m  OK  \x1b[0m Started\r\n\r\nthree\x07\r\n";
        assert_eq!(last_lines(text, 2), ["  OK   Started", "three"]);
    }
}
