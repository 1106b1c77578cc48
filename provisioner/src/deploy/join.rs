//! Waits until nodes have joined: watches consoles for their boot, and the overlay for the rest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ipop_proto::status::{LinkState, NodeStatus, RoleState};

use super::launch::Launch;
use super::outcome::{NodeOutcome, Outcome, Stuck};
use super::{Meeting, Seen, Watch};
use crate::backend::{Backend, MachineState};
use crate::error::CliError;
use crate::event::{Event, Stage};
use crate::name::NodeName;
use crate::plan::NodePlan;
use crate::rendezvous::State;

/// What the image writes to the console once its system is up.
pub const BOOTED: &str = "ipop: booted";
/// Lines of a stuck node's console that are shown.
const CONSOLE_LINES: usize = 20;
/// Bytes of a console that are looked through.
const CONSOLE_BYTES: usize = 256 * 1024;

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the last machine's start to the last node's joining; else what the sites' machines
    /// may take.
    pub timeout: Option<Duration>,
    /// Between looks at machines and consoles.
    pub poll: Duration,
}

/// A node that is waited for.
pub struct Node<'a> {
    /// Its plan.
    pub plan: &'a NodePlan,
    /// Where it runs.
    pub backend: &'a dyn Backend,
}

/// How far each node is.
struct Progress {
    reached: Stage,
    /// What the overlay says of it at this moment.
    now: Option<Stage>,
    joined_seconds: Option<f64>,
    /// Consecutive looks that found the machine not running.
    absent: u8,
    state: Option<MachineState>,
}

/// Waits until all nodes have joined, none can any more, the time is over, or Ctrl-C.
pub(super) fn join(
    launch: &Launch<'_>,
    nodes: Vec<Node<'_>>,
    meeting: &dyn Meeting,
) -> Result<Outcome, CliError> {
    let deadline = Instant::now() + limit(launch, &nodes)?;
    let mut progress: Vec<_> = nodes.iter().map(|_| Progress::new()).collect();
    let mut watcher = Watcher {
        meeting,
        watch: None,
        trouble: None,
    };
    let mut seen = BTreeMap::new();
    loop {
        launch.interrupt.check()?;
        for (node, progress) in nodes.iter().zip(&mut progress) {
            progress.now = seen.get(&node.plan.name).map(|s: &Seen| s.stage);
            if progress.has_joined() {
                continue;
            }
            progress.look_at_machine(launch, node);
            if progress.reached < Stage::Booted && has_booted(launch, node) {
                progress.advance(launch, node.plan, Stage::Booted)?;
            }
            if let Some(stage) = progress.now {
                progress.advance(launch, node.plan, stage)?;
            }
        }
        let all_settled = progress.iter().all(|p| p.has_joined() || p.is_dead());
        if all_settled || Instant::now() >= deadline {
            break;
        }
        let was = watcher.trouble.is_some();
        match watcher.look(launch.limits.poll) {
            Some(news) => seen = news,
            None if !was => launch.events.emit(Event::Warning {
                message: format!(
                    "the rendezvous cannot be watched: {}",
                    watcher.trouble.as_deref().unwrap_or("unknown")
                ),
            }),
            None => {}
        }
    }
    let outcomes = nodes.iter().zip(&progress);
    let nodes: Vec<_> = outcomes
        .map(|(n, p)| p.outcome(launch, n, &mut watcher))
        .collect();
    Ok(Outcome {
        name: launch.plan.name.clone(),
        joined: nodes.iter().all(|n| n.stuck.is_none()),
        seconds: launch.began.elapsed().as_secs_f64(),
        nodes,
    })
}

fn limit(launch: &Launch<'_>, nodes: &[Node<'_>]) -> Result<Duration, CliError> {
    if let Some(timeout) = launch.limits.timeout {
        return Ok(timeout);
    }
    let mut longest = Duration::ZERO;
    let mut asked = Vec::new();
    for node in nodes {
        if !asked.contains(&&node.plan.site) {
            asked.push(&node.plan.site);
            longest = longest.max(node.backend.join_limit()?);
        }
    }
    Ok(longest)
}

fn has_booted(launch: &Launch<'_>, node: &Node<'_>) -> bool {
    let console = node
        .backend
        .console(&launch.plan.name, &node.plan.name, CONSOLE_BYTES);
    console.is_ok_and(|text| {
        text.windows(BOOTED.len())
            .any(|window| window == BOOTED.as_bytes())
    })
}

impl Progress {
    fn new() -> Self {
        Self {
            reached: Stage::Created,
            now: None,
            joined_seconds: None,
            absent: 0,
            state: None,
        }
    }

    /// Notes each stage up to `stage` that was not reached before.
    fn advance(
        &mut self,
        launch: &Launch<'_>,
        node: &NodePlan,
        stage: Stage,
    ) -> Result<(), CliError> {
        let stages = [Stage::Booted, Stage::SignedIn, Stage::Linked, Stage::Ready];
        for next in stages
            .into_iter()
            .filter(|s| *s > self.reached && *s <= stage)
        {
            let seconds = launch.reached(node, next)?;
            if next == Stage::Ready {
                self.joined_seconds = Some(seconds);
            }
        }
        self.reached = self.reached.max(stage);
        Ok(())
    }

    fn look_at_machine(&mut self, launch: &Launch<'_>, node: &Node<'_>) {
        let state = node
            .backend
            .machine_state(&launch.plan.name, &node.plan.name)
            .ok();
        match state {
            Some(MachineState::Stopped | MachineState::Absent) => {
                self.absent = self.absent.saturating_add(1);
            }
            _ => self.absent = 0,
        }
        self.state = state;
    }

    /// Joined, and still so.
    fn has_joined(&self) -> bool {
        self.reached == Stage::Ready && self.now == Some(Stage::Ready)
    }

    /// Seen twice: a machine that starts anew stops for a moment.
    fn is_dead(&self) -> bool {
        self.absent >= 2
    }

    fn outcome(
        &self,
        launch: &Launch<'_>,
        node: &Node<'_>,
        watcher: &mut Watcher<'_>,
    ) -> NodeOutcome {
        let plan = node.plan;
        let joined = self.has_joined();
        let status = self
            .now
            .is_some()
            .then(|| watcher.status(&plan.name))
            .flatten();
        let frontend = &launch.plan.frontend().name.0;
        let peer = status
            .as_ref()
            .and_then(|s| s.peers.iter().find(|p| p.name == *frontend));
        let stuck = (!joined).then(|| Stuck {
            reached: Some(self.reached),
            why: self.why(status.as_ref(), watcher.trouble.as_deref()),
            console: end_of_console(launch, node),
        });
        NodeOutcome {
            name: plan.name.clone(),
            role: plan.role.clone(),
            site: plan.site.clone(),
            ipv4: plan.addrs.ipv4.addr.to_string(),
            ipv6: plan.addrs.ipv6.addr.to_string(),
            link: peer.and_then(|p| p.link_kind()),
            rtt_us: peer.and_then(|p| p.rtt_us),
            joined_seconds: self.joined_seconds,
            stuck,
        }
    }

    fn why(&self, status: Option<&NodeStatus>, trouble: Option<&str>) -> String {
        match self.state {
            Some(MachineState::Stopped) => return "its machine stopped".to_owned(),
            Some(MachineState::Absent) => return "its machine is gone".to_owned(),
            _ => {}
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

fn end_of_console(launch: &Launch<'_>, node: &Node<'_>) -> Vec<String> {
    let text = node
        .backend
        .console(&launch.plan.name, &node.plan.name, CONSOLE_BYTES);
    last_lines(&text.unwrap_or_default(), CONSOLE_LINES)
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
                self.trouble = Some(error.message);
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
