//! What nodes reach while others are still being launched: one launch that hangs delays nobody's
//! joining, and no longer than it must the end of the command.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::engine::Engine;
use super::{Seen, Watch};
use crate::error::CliError;
use crate::event::Stage;
use crate::name::NodeName;
use crate::plan::{ClusterPlan, MEMBER, is_worker};

/// Between looks at the overlay.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a look waits for news.
const LOOK: Duration = Duration::from_millis(100);

/// The last stage that a node was noted to reach, and when it was ready.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noted {
    pub stage: Stage,
    pub joined: Option<f64>,
}

/// What was noted so far.
#[derive(Debug, Default)]
pub(super) struct Early {
    noted: Mutex<BTreeMap<NodeName, Noted>>,
    enough: AtomicBool,
}

impl Early {
    /// How far a node has come.
    pub fn of(&self, node: &NodeName) -> Option<Noted> {
        self.lock().get(node).copied()
    }

    /// Forgets a node: another machine is made in its place.
    pub fn forget(&self, node: &NodeName) {
        self.lock().remove(node);
    }

    /// Whether enough nodes had joined at one time.
    pub fn is_enough(&self) -> bool {
        self.enough.load(Ordering::Relaxed)
    }

    /// Notes what launched nodes reach, until `done` is closed.
    pub fn watch(
        &self,
        engine: &Engine<'_>,
        plan: &ClusterPlan,
        quorum: usize,
        done: &Receiver<()>,
    ) {
        let mut watch = None;
        while done.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
            // Whatever fails here is told, if it lasts, by the waiting that follows.
            let looked = look(engine, &mut watch);
            let noted = looked.and_then(|seen| self.note(engine, plan, quorum, &seen));
            if noted.is_err() {
                watch = None;
            }
        }
    }

    fn note(
        &self,
        engine: &Engine<'_>,
        plan: &ClusterPlan,
        quorum: usize,
        seen: &BTreeMap<NodeName, Seen>,
    ) -> Result<(), CliError> {
        let mut joined = 0;
        let (mut has_others, mut more) = (true, false);
        for record in engine.database.nodes(engine.deployment.id)? {
            let created = record.stages.iter().any(|(s, _)| *s == Stage::Created);
            let stage = seen.get(&record.name).filter(|_| created).map(|s| s.stage);
            let is_ready = stage == Some(Stage::Ready);
            match record.role.as_str() {
                MEMBER => {}
                role if is_worker(role) => joined += usize::from(is_ready),
                _ => has_others &= is_ready,
            }
            let wanted = plan.nodes.iter().any(|n| n.name == record.name);
            if let Some(stage) = stage.filter(|_| wanted) {
                more |= self.advance(engine, &record.name, stage)?;
            }
        }
        if more {
            // `provision ssh` reaches those that are up while others are still launched.
            engine.write_known_hosts()?;
        }
        if has_others && joined >= quorum {
            self.enough.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Notes what a node has reached; whether that was new.
    fn advance(&self, engine: &Engine<'_>, node: &NodeName, to: Stage) -> Result<bool, CliError> {
        let mut more = false;
        let mut noted = self.of(node).unwrap_or(Noted {
            stage: Stage::Created,
            joined: None,
        });
        let stages = [Stage::Booted, Stage::SignedIn, Stage::Linked, Stage::Ready];
        for stage in stages {
            if stage <= noted.stage || stage > to {
                continue;
            }
            let seconds = engine.reached(node, stage)?;
            more = true;
            noted.stage = stage;
            noted.joined = (stage == Stage::Ready).then_some(seconds);
            self.lock().insert(node.clone(), noted);
        }
        Ok(more)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, Noted>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn look(
    engine: &Engine<'_>,
    watch: &mut Option<Box<dyn Watch>>,
) -> Result<BTreeMap<NodeName, Seen>, CliError> {
    if watch.is_none() {
        *watch = Some(engine.meeting()?.watch()?);
    }
    match watch {
        Some(watch) => watch.look(LOOK),
        None => Ok(BTreeMap::new()),
    }
}
