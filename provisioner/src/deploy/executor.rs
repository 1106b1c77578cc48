//! Carries out a plan: every owner's actions by threads of its own, each as soon as what it needs
//! is done.
//!
//! A failed action keeps back what needs it and nothing else. One that may be tried again waits
//! without a thread, so that it holds up no other.

#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fault;
use super::interrupt::Interrupt;
use super::pace::{Pace, wait};
use super::planner::Action;
use crate::error::{CliError, ExitCode, Retry};
use crate::state::record::Owner;

/// How often a thread without work looks whether the user wants to stop.
const LOOK: Duration = Duration::from_millis(250);

/// Why a failed action was not tried again though it could be.
const NEEDLESS: &str = "enough workers joined meanwhile, so it was not tried again";

/// In [`Board::waiting`]: something that it needs failed.
const GIVEN_UP: usize = usize::MAX;

/// Who does what a plan says.
pub trait Doer: Sync {
    /// Most actions of an owner at once.
    fn parallel(&self, owner: &Owner) -> usize;

    /// Does it, by `deadline`, and records that.
    fn act(&self, action: &Action, deadline: Instant) -> Result<(), CliError>;

    /// Whether an action that is ready may begin now; it is asked for again until it may. Asked
    /// under a lock: it must not wait.
    fn may_begin(&self, _: &Action) -> bool {
        true
    }

    /// Whether a failed action need not be tried again, as things came good without it.
    fn is_needless(&self, _: &Action) -> bool {
        false
    }

    /// Whether an owner that was unavailable to an action answers at all; without an answer nothing
    /// more is tried with it.
    fn answers(&self, owner: &Owner) -> bool;
}

/// How a plan went, by the actions' indices.
#[derive(Debug, Default)]
pub struct Run {
    /// What was done.
    pub done: Vec<usize>,
    /// What failed, in the order it did.
    pub failed: Vec<(usize, CliError)>,
    /// What was not tried, because of which failed action.
    pub blocked: Vec<(usize, usize)>,
    /// Whether the user stopped it.
    pub interrupted: bool,
}

/// Carries out a plan.
pub fn execute(actions: &[Action], doer: &dyn Doer, interrupt: &Interrupt) -> Run {
    let mut counts: BTreeMap<&Owner, usize> = BTreeMap::new();
    for action in actions {
        *counts.entry(&action.key.owner).or_default() += 1;
    }
    let executor = Executor {
        actions,
        doer,
        interrupt,
        board: Mutex::new(Board::new(actions)),
        news: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for (owner, count) in counts {
            for _ in 0..doer.parallel(owner).clamp(1, count) {
                scope.spawn(|| executor.work(owner));
            }
        }
    });
    let board = executor.board.into_inner();
    let mut run = board.unwrap_or_else(PoisonError::into_inner).run;
    run.interrupted = interrupt.is_set() && run.done.len() < actions.len();
    run
}

struct Executor<'a> {
    actions: &'a [Action],
    doer: &'a dyn Doer,
    interrupt: &'a Interrupt,
    board: Mutex<Board<'a>>,
    /// Something became ready, or ended.
    news: Condvar,
}

/// What all threads know.
struct Board<'a> {
    /// How many needs of each action are not done.
    waiting: Vec<usize>,
    /// What needs each action.
    needed_by: Vec<Vec<usize>>,
    owners: BTreeMap<&'a Owner, Desk>,
    tries: Vec<Tries>,
    run: Run,
}

/// One owner's part of the board.
#[derive(Default)]
struct Desk {
    /// Actions that can be done, and not before when.
    ready: Vec<(Instant, usize)>,
    /// Actions that are neither done nor given up.
    left: usize,
    pace: Pace,
    /// That it does not answer, as the first action that found so says.
    dead: Option<String>,
}

/// How a try ended.
enum Ended {
    Done,
    /// To be tried again from then on.
    Again(Instant, Retry),
    Failed(CliError),
}

#[derive(Debug, Clone, Copy, Default)]
struct Tries {
    count: u32,
    deadline: Option<Instant>,
}

impl<'a> Board<'a> {
    fn new(actions: &'a [Action]) -> Self {
        let now = Instant::now();
        let mut board = Self {
            waiting: actions.iter().map(|a| a.needs.len()).collect(),
            needed_by: vec![Vec::new(); actions.len()],
            owners: BTreeMap::new(),
            tries: vec![Tries::default(); actions.len()],
            run: Run::default(),
        };
        for (index, action) in actions.iter().enumerate() {
            let desk = board.owners.entry(&action.key.owner).or_default();
            desk.left += 1;
            if action.needs.is_empty() {
                desk.ready.push((now, index));
            }
            for need in &action.needs {
                board.needed_by[*need].push(index);
            }
        }
        board
    }

    fn desk(&mut self, owner: &'a Owner) -> &mut Desk {
        self.owners.entry(owner).or_default()
    }

    /// Takes the next action that may begin now; otherwise says when to look again.
    fn take(
        &mut self,
        owner: &'a Owner,
        now: Instant,
        may_begin: impl Fn(usize) -> bool,
    ) -> Result<usize, Instant> {
        let desk = self.desk(owner);
        let pace = desk.pace.next(now);
        if pace > now {
            return Err(pace);
        }
        desk.ready.sort_unstable();
        let due = desk.ready.partition_point(|(from, _)| *from <= now);
        match desk.ready[..due]
            .iter()
            .position(|(_, index)| may_begin(*index))
        {
            Some(place) => {
                desk.pace.begin(now);
                Ok(desk.ready.remove(place).1)
            }
            None => Err(desk.ready.get(due).map_or(now + LOOK, |(from, _)| *from)),
        }
    }

    fn done(&mut self, actions: &'a [Action], index: usize) {
        let desk = self.desk(&actions[index].key.owner);
        desk.left -= 1;
        desk.pace.succeeded();
        self.run.done.push(index);
        let now = Instant::now();
        for next in std::mem::take(&mut self.needed_by[index]) {
            if self.waiting[next] == GIVEN_UP {
                continue;
            }
            self.waiting[next] -= 1;
            if self.waiting[next] == 0 {
                self.desk(&actions[next].key.owner).ready.push((now, next));
            }
        }
    }

    fn failed(&mut self, actions: &'a [Action], index: usize, error: CliError) {
        self.desk(&actions[index].key.owner).left -= 1;
        self.run.failed.push((index, error));
        let mut open = std::mem::take(&mut self.needed_by[index]);
        while let Some(next) = open.pop() {
            if self.waiting[next] == GIVEN_UP {
                continue;
            }
            self.waiting[next] = GIVEN_UP;
            self.desk(&actions[next].key.owner).left -= 1;
            self.run.blocked.push((next, index));
            open.append(&mut std::mem::take(&mut self.needed_by[next]));
        }
    }
}

impl<'a> Executor<'a> {
    fn work(&self, owner: &'a Owner) {
        let mut board = self.lock();
        loop {
            if board.desk(owner).left == 0 || self.interrupt.is_set() {
                return;
            }
            let now = Instant::now();
            let may_begin = |index: usize| self.doer.may_begin(&self.actions[index]);
            match board.take(owner, now, may_begin) {
                Ok(index) => {
                    drop(board);
                    self.attempt(index);
                    board = self.lock();
                }
                Err(later) => {
                    let pause = later.saturating_duration_since(now).min(LOOK);
                    let waited = self.news.wait_timeout(board, pause);
                    board = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn attempt(&self, index: usize) {
        let action = &self.actions[index];
        let owner = &action.key.owner;
        let (tries, deadline, dead) = {
            let mut board = self.lock();
            let tries = &mut board.tries[index];
            tries.count += 1;
            let deadline = *tries
                .deadline
                .get_or_insert_with(|| Instant::now() + action.deadline);
            let count = tries.count;
            (count, deadline, board.desk(owner).dead.clone())
        };
        let result = match dead {
            Some(why) => Err(CliError::new(ExitCode::Unavailable, why)),
            None if tries > 1 && self.doer.is_needless(action) => {
                Err(CliError::new(ExitCode::Unavailable, NEEDLESS))
            }
            None => self.act(action, deadline),
        };
        let now = Instant::now();
        let ended = match result {
            Ok(()) => Ended::Done,
            Err(error) => match wait(error.retry, tries, rand::random()) {
                Some(_) if self.doer.is_needless(action) => Ended::Failed(error.hint(NEEDLESS)),
                Some(pause) if now + pause < deadline => Ended::Again(now + pause, error.retry),
                Some(_) => {
                    let limit = action.deadline.as_secs();
                    let hint = format!("{tries} tries in {limit} s had no success");
                    Ended::Failed(error.hint(hint))
                }
                None => Ended::Failed(error),
            },
        };
        let silent = match &ended {
            Ended::Failed(error) if error.code == ExitCode::Unavailable => {
                (!self.doer.answers(owner)).then(|| error.message.clone())
            }
            _ => None,
        };
        let mut board = self.lock();
        let desk = board.desk(owner);
        if desk.dead.is_none() {
            desk.dead = silent;
        }
        match ended {
            Ended::Done => board.done(self.actions, index),
            Ended::Failed(error) => board.failed(self.actions, index, error),
            Ended::Again(from, retry) => {
                if retry == Retry::Throttled {
                    desk.pace.throttled(now);
                }
                desk.ready.push((from, index));
            }
        }
        self.news.notify_all();
    }

    fn act(&self, action: &Action, deadline: Instant) -> Result<(), CliError> {
        let name = format!("{} {}", action.verb, action.key);
        fault::point("before", action);
        let result = catch_unwind(AssertUnwindSafe(|| self.doer.act(action, deadline)));
        result.unwrap_or_else(|panic| {
            let message = format!("a defect of provision stopped `{name}`");
            Err(CliError::new(ExitCode::Internal, message).caused_by(words(&*panic)))
        })
    }

    fn lock(&self) -> MutexGuard<'_, Board<'a>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a panic says.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}
