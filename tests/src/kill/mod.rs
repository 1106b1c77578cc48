//! Kills `provision` by SIGKILL before and after every action of a create, a scale and a destroy,
//! and looks from outside whether what comes next makes it whole: `provision resume` gives what was
//! wanted, `provision destroy` leaves nothing, and so does `provision gc` without the database.
//!
//! A build with debug assertions counts the points before and after its actions
//! (`IPOP_FAULT_LOG`), and ends itself at the one that `IPOP_FAULT` names. A clean run tells which
//! points there are and what the wanted states look like from outside; every other run must come
//! out at one of these.

pub mod bench;
pub mod cloudlab;
pub mod ec2;
pub mod images;
pub mod libvirt;
mod machines;
pub mod rocks;
pub mod share;
pub mod ssh;
pub mod table;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub use bench::{Bench, Cell, Host, Peer, View};
use table::Kill;

/// What is there with fewer workers too, once there were more, begins with this.
pub const KEPT: &str = "kept: ";

/// How long a process may outlive its deployment, on a machine that is busy.
const LINGER: Duration = Duration::from_secs(120);

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// `provision cluster` with a front end and a worker.
    Create,
    /// `provision scale` to two workers.
    Grow,
    /// `provision scale` back to one.
    Shrink,
    /// `provision destroy`.
    Destroy,
}

/// All of them, in the order a deployment goes through them.
pub const PHASES: [Phase; 4] = [Phase::Create, Phase::Grow, Phase::Shrink, Phase::Destroy];

impl Phase {
    /// The workers that are wanted after it; none after a destroy.
    pub fn workers(self) -> Option<u32> {
        match self {
            Self::Create | Self::Shrink => Some(1),
            Self::Grow => Some(2),
            Self::Destroy => None,
        }
    }

    /// In a table.
    pub fn words(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Grow => "scale up",
            Self::Shrink => "scale down",
            Self::Destroy => "destroy",
        }
    }
}

/// What is done after the kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cure {
    /// `provision resume`, then `provision destroy`.
    Resume,
    /// `provision destroy`.
    Destroy,
    /// The database is deleted, then `provision gc --yes`.
    Gc,
}

/// Which runs are made of all that are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Every action on these kinds of resources once, as in [`Self::EveryAction`].
    Only(&'static [&'static str]),
    /// Every action once: before and after it and the cures take turns.
    EveryAction,
    /// Every point with a resume, and every point with a destroy or, in turns, a gc.
    EveryPoint,
    /// Every point with every cure.
    Full,
}

impl Extent {
    /// What `IPOP_KILL` asks for: `actions`, `points` or `full`.
    ///
    /// # Panics
    ///
    /// When it asks for something else.
    pub fn asked() -> Option<Self> {
        let asked = std::env::var("IPOP_KILL").ok()?;
        Some(match asked.as_str() {
            "actions" => Self::EveryAction,
            "points" => Self::EveryPoint,
            "full" => Self::Full,
            other => panic!("IPOP_KILL is `{other}`, not `actions`, `points` or `full`"),
        })
    }

    /// The cures of the `turn`-th action, from 0, when it is killed then.
    fn cures(self, turn: usize, when: &str) -> Vec<Cure> {
        let after = usize::from(when == "after");
        match self {
            Self::Only(_) | Self::EveryAction if turn % 2 != after => Vec::new(),
            Self::Only(_) | Self::EveryAction => {
                vec![[Cure::Resume, Cure::Destroy, Cure::Gc][turn % 3]]
            }
            Self::EveryPoint if (turn + after).is_multiple_of(2) => {
                vec![Cure::Resume, Cure::Destroy]
            }
            Self::EveryPoint => vec![Cure::Resume, Cure::Gc],
            Self::Full => vec![Cure::Resume, Cure::Destroy, Cure::Gc],
        }
    }

    /// Whether it asks for every point.
    fn is_whole(self) -> bool {
        matches!(self, Self::EveryPoint | Self::Full)
    }

    /// Whether it asks for `VERB KIND`.
    fn has(self, sort: &str) -> bool {
        match self {
            Self::Only(kinds) => kinds.iter().any(|kind| sort.ends_with(&format!(" {kind}"))),
            _ => true,
        }
    }
}

/// What a clean run showed.
struct Clean {
    /// Points of each phase, as `WHEN KEY`.
    points: Vec<(Phase, Vec<String>)>,
    /// How it looks from outside after each phase.
    views: BTreeMap<Phase, View>,
}

/// One run that ends in a kill.
#[derive(Debug, Clone)]
struct Job {
    phase: Phase,
    /// As `IPOP_FAULT` names it.
    point: String,
    cure: Cure,
}

/// All runs that are to be made, the same every time.
fn jobs(points: &[(Phase, Vec<String>)], extent: Extent) -> Vec<Job> {
    let mut jobs = Vec::new();
    let mut turn = 0;
    for (phase, points) in points {
        // The order in which actions run differs, their sorts and numbers do not.
        let mut sorts: BTreeMap<String, [usize; 2]> = BTreeMap::new();
        for point in points {
            let (when, sort) = table::action(point);
            if extent.has(&sort) {
                sorts.entry(sort).or_default()[usize::from(when == "after")] += 1;
            }
        }
        for (sort, counts) in sorts {
            for nth in 1..=counts[0].max(counts[1]) {
                for (when, count) in ["before", "after"].into_iter().zip(counts) {
                    if nth > count {
                        continue;
                    }
                    let job = |cure| Job {
                        phase: *phase,
                        point: format!("{when} {sort} {nth}"),
                        cure,
                    };
                    jobs.extend(extent.cures(turn, when).into_iter().map(job));
                }
                turn += 1;
            }
        }
    }
    jobs
}

/// Runs the matrix of one kind of host, `threads` runs at a time, and writes its table.
///
/// # Panics
///
/// When a run does not end as it should; all are made first, and all failures are told.
pub fn matrix(bench: &Bench, extent: Extent, threads: usize) {
    let began = Instant::now();
    let clean = clean(bench);
    let jobs = jobs(&clean.points, extent);
    eprintln!("{}: {} kills", bench.kind, jobs.len());
    let (next, kills, failures) = (
        AtomicUsize::new(0),
        Mutex::new(Vec::new()),
        Mutex::new(Vec::new()),
    );
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match kill(bench, &clean, job) {
                        Ok(kill) => kills.lock().expect("no panic").push(kill),
                        Err(why) => {
                            let text = format!("{job:?}: {why}");
                            eprintln!("FAILED {text}");
                            failures.lock().expect("no panic").push(text);
                        }
                    }
                }
            });
        }
    });
    nothing_runs(bench);
    let kills = kills.into_inner().expect("no panic");
    let failures = failures.into_inner().expect("no panic");
    let table = table::render(
        bench.kind,
        &clean.points,
        &kills,
        failures.len(),
        began.elapsed().as_secs(),
    );
    println!("{table}");
    println!("{} kills in {:.0?}", kills.len(), began.elapsed());
    if extent.is_whole() {
        let missed = table::missed(&clean.points, &kills);
        assert!(
            missed.is_empty() || !failures.is_empty(),
            "never hit: {missed:?}"
        );
    }
    table::write(bench.kind, &table);
    assert!(
        failures.is_empty(),
        "{} of {} runs failed:\n{}",
        failures.len(),
        jobs.len(),
        failures.join("\n")
    );
}

/// Waits for what looks after deployments: it sees within seconds that there are none any more.
fn nothing_runs(bench: &Bench) {
    let deadline = Instant::now() + LINGER;
    loop {
        let left = bench.processes();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "still running: {left:#?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Goes through all phases without a kill.
fn clean(bench: &Bench) -> Clean {
    let cell = bench.cell();
    let (mut points, mut views) = (Vec::new(), BTreeMap::new());
    for phase in PHASES {
        let run = cell.run(phase, None);
        assert_eq!(run.code, Some(0), "the clean {phase:?} failed: {run:?}");
        points.push((phase, cell.points()));
        let view = cell.look();
        match phase.workers() {
            None => assert!(view.is_empty(), "a clean destroy left {view:?}"),
            Some(workers) => bench.peer.check(&view, workers),
        }
        views.insert(phase, view);
    }
    let changing = |phase| -> Vec<_> {
        let view: &View = &views[&phase];
        view.iter().filter(|t| !t.starts_with(KEPT)).collect()
    };
    assert_eq!(
        changing(Phase::Create),
        changing(Phase::Shrink),
        "scaling up and down again is not as it was before"
    );
    for (phase, points) in &points {
        assert!(points.len() > 2, "{phase:?} passed only {points:?}");
    }
    Clean { points, views }
}

/// One run: everything before the phase, the phase with the kill, the cure, and a look after each.
fn kill(bench: &Bench, clean: &Clean, job: &Job) -> Result<Kill, String> {
    let cell = bench.cell();
    for phase in PHASES.into_iter().take_while(|p| *p < job.phase) {
        cell.run(phase, None).ok()?;
    }
    let run = cell.run(job.phase, Some(&job.point));
    if run.signal != Some(9) {
        return Err(format!("was not killed: {run:?}"));
    }
    let points = cell.points();
    let point = points.last().cloned().unwrap_or_default();
    let told = |why: String| format!("at `{point}`: {why}");
    cure(&cell, clean, job).map_err(told)?;
    Ok(Kill {
        phase: job.phase,
        point,
        cure: job.cure,
    })
}

fn cure(cell: &Cell<'_>, clean: &Clean, job: &Job) -> Result<(), String> {
    match job.cure {
        Cure::Resume => {
            cell.resume().ok()?;
            differ("after resume", &clean.views[&job.phase], &cell.look())?;
            cell.run(Phase::Destroy, None).ok()?;
        }
        Cure::Destroy => cell.run(Phase::Destroy, None).ok()?,
        Cure::Gc => {
            cell.delete_database();
            cell.gc().ok()?;
        }
    }
    differ("at the end", &[], &cell.look())?;
    cell.nothing_local()
}

fn differ(when: &str, wanted: &[String], seen: &[String]) -> Result<(), String> {
    if wanted == seen {
        return Ok(());
    }
    let without = |all: &[String], others: &[String]| {
        let mut left = all.to_vec();
        for other in others {
            if let Some(at) = left.iter().position(|thing| thing == other) {
                left.swap_remove(at);
            }
        }
        left
    };
    Err(format!(
        "{when}: missing {:?}, surplus {:?}",
        without(wanted, seen),
        without(seen, wanted)
    ))
}
