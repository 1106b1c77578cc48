use std::collections::VecDeque;
use std::sync::Mutex;

use super::*;

/// A front end whose jobs end as often as it is asked for them.
struct Front {
    nodes: &'static str,
    jobs: Mutex<VecDeque<&'static str>>,
    ran: Mutex<Vec<String>>,
}

impl Front {
    fn new(nodes: &'static str, jobs: &[&'static str]) -> Self {
        Self {
            nodes,
            jobs: Mutex::new(jobs.iter().copied().collect()),
            ran: Mutex::default(),
        }
    }

    /// What was done, as opposed to asked.
    fn changes(&self) -> Vec<String> {
        let ran = self.ran.lock().expect("whole");
        let changes = ran.iter().filter(|line| line.starts_with("scontrol"));
        changes.cloned().collect()
    }
}

impl Controller for Front {
    fn run(&self, line: &str) -> Result<String, CliError> {
        self.ran.lock().expect("whole").push(line.to_owned());
        Ok(match line.split(' ').next() {
            Some("sinfo") => self.nodes.to_owned(),
            Some("squeue") => {
                let mut jobs = self.jobs.lock().expect("whole");
                let now = jobs.front().copied().unwrap_or_default().to_owned();
                // The last answer stays.
                if jobs.len() > 1 {
                    jobs.pop_front();
                }
                now
            }
            _ => String::new(),
        })
    }
}

struct Unreachable;

impl Controller for Unreachable {
    fn run(&self, _: &str) -> Result<String, CliError> {
        Err(CliError::new(ExitCode::Unavailable, "no answer"))
    }
}

fn names(names: &[&str]) -> Vec<NodeName> {
    names.iter().map(|n| NodeName((*n).to_owned())).collect()
}

fn with<T>(
    controller: &dyn Controller,
    limit: Duration,
    force: bool,
    run: impl FnOnce(&Drain<'_>) -> T,
) -> (T, Vec<String>) {
    let told = Mutex::new(Vec::new());
    let events = |event: Event| {
        if let Event::Step { message } | Event::Warning { message } = event {
            told.lock().expect("whole").push(message);
        }
    };
    let result = run(&Drain {
        deployment: "demo",
        controller,
        limit,
        force,
        poll: Duration::ZERO,
        interrupt: &Interrupt::default(),
        events: &events,
    });
    (result, told.into_inner().expect("whole"))
}

const LONG: Duration = Duration::from_secs(3600);
const NODES: &str = "worker-0 idle\nworker-1 mixed\nworker-2 drained\n";

#[test]
fn workers_go_when_their_last_job_has_ended() {
    let front = Front::new(NODES, &["7\n8\n", "7\n8\n", "8\n", ""]);
    let (result, told) = with(&front, LONG, false, |d| d.drain(&names(&["worker-1"])));
    result.expect("drained");
    assert_eq!(
        front.changes(),
        ["scontrol update nodename=worker-1 state=drain reason='removed by provision scale'"]
    );
    assert_eq!(
        told,
        [
            "draining worker-1: waits for jobs 7, 8 to end",
            "draining worker-1: waits for job 8 to end"
        ]
    );
}

#[test]
fn at_the_limit_workers_stay_and_take_jobs_again_those_that_others_drained_left_out() {
    let front = Front::new(NODES, &["7\n"]);
    let both = names(&["worker-1", "worker-2"]);
    let (result, _) = with(&front, Duration::ZERO, false, |d| d.drain(&both));
    let error = result.expect_err("a job runs");
    assert_eq!(error.code, ExitCode::Unavailable);
    insta::assert_snapshot!(error);
    let changes = front.changes();
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert_eq!(changes[1], "scontrol update nodename=worker-1 state=resume");
}

#[test]
fn with_force_workers_go_at_the_limit_and_if_nobody_answers() {
    let front = Front::new(NODES, &["7\n"]);
    let one = names(&["worker-1"]);
    let (result, told) = with(&front, Duration::ZERO, true, |d| d.drain(&one));
    result.expect("forced");
    assert_eq!(front.changes().len(), 1, "no resume");
    assert_eq!(
        told,
        ["on worker-1 of `demo` jobs still run: 7: removed all the same"]
    );
    let (result, _) = with(&Unreachable, LONG, false, |d| d.drain(&one));
    assert_eq!(result.expect_err("no answer").message, "no answer");
    let (result, told) = with(&Unreachable, LONG, true, |d| d.drain(&one));
    result.expect("forced");
    assert_eq!(told, ["no answer: removed all the same"]);
}

#[test]
fn a_worker_that_slurm_never_saw_need_not_be_drained() {
    let front = Front::new(NODES, &["7\n"]);
    let (result, _) = with(&front, LONG, false, |d| d.drain(&names(&["worker-9"])));
    result.expect("nothing to wait for");
    assert_eq!(front.changes(), [] as [&str; 0]);
}

#[test]
fn slurm_keeps_the_workers_that_come_when_jobs_wait() {
    let front = Front::new("worker-1 lab\nworker-2 lab,elastic\n", &[]);
    let ((), _) = with(&front, LONG, false, |d| {
        d.forget_all_but(&names(&["frontend-0"]))
    });
    let [change] = &front.changes()[..] else {
        panic!("one change: {:?}", front.changes());
    };
    assert!(change.contains("delete nodename=worker-1;"), "{change}");
}

#[test]
fn slurm_forgets_the_workers_that_the_deployment_has_not() {
    let front = Front::new(NODES, &[]);
    let wanted = names(&["frontend-0", "worker-0"]);
    let ((), told) = with(&front, LONG, false, |d| d.forget_all_but(&wanted));
    assert_eq!(told, [] as [&str; 0]);
    let [change] = &front.changes()[..] else {
        panic!("one change: {:?}", front.changes());
    };
    assert!(
        change.contains("delete nodename=worker-1,worker-2;"),
        "{change}"
    );
    let ((), told) = with(&Unreachable, LONG, false, |d| d.forget_all_but(&wanted));
    assert_eq!(told.len(), 1, "a warning: {told:?}");
}
