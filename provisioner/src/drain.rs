//! Takes workers out of Slurm's hands before they are removed: no job begins on them any more, and
//! those that run end. Afterwards Slurm forgets them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::deploy::interrupt::Interrupt;
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};
use crate::name::NodeName;
use crate::plan::WORKER;

/// A feature that Slurm has of the workers which come when jobs wait.
const ELASTIC: &str = "elastic";
/// How soon an interrupt is seen.
const LOOK: Duration = Duration::from_millis(200);
/// Tries of forgetting nodes, five seconds apart: a node that was taken from a job is not free at once.
const TRIES: u32 = 6;

/// Where Slurm's commands run.
pub trait Controller {
    /// Runs a line of shell and gives what it printed.
    fn run(&self, line: &str) -> Result<String, CliError>;
}

/// How workers are drained.
pub struct Drain<'a> {
    /// The deployment, for messages.
    pub deployment: &'a str,
    /// The front end.
    pub controller: &'a dyn Controller,
    /// How long jobs may go on.
    pub limit: Duration,
    /// Whether workers go even if jobs still run on them, or if Slurm cannot be asked.
    pub force: bool,
    /// How often to look for jobs.
    pub poll: Duration,
    /// Whether the user wants to stop.
    pub interrupt: &'a Interrupt,
    /// Where events go.
    pub events: &'a dyn Sink,
}

impl Drain<'_> {
    /// Waits until no job runs on `nodes`. After an error they take jobs again.
    pub fn drain(&self, nodes: &[NodeName]) -> Result<(), CliError> {
        match self.drained(nodes) {
            // The user wants neither.
            Err(error) if self.force && !self.interrupt.is_set() => {
                self.events.emit(Event::Warning {
                    message: format!("{}: removed all the same", error.one_line()),
                });
                Ok(())
            }
            result => result,
        }
    }

    fn drained(&self, nodes: &[NodeName]) -> Result<(), CliError> {
        let listed = self.listed()?;
        let known = nodes.iter().filter_map(|n| listed.get_key_value(&n.0));
        let known: Vec<_> = known.collect();
        if known.is_empty() {
            return Ok(());
        }
        // Those that somebody else drained are not given back.
        let ours = known
            .iter()
            .filter(|(_, state)| !state.starts_with("drain"));
        let ours = list(ours.map(|(name, _)| name.as_str()));
        let all = list(known.iter().map(|(name, _)| name.as_str()));
        if !ours.is_empty() {
            self.controller.run(&format!(
                "scontrol update nodename={ours} state=drain reason='removed by provision scale'"
            ))?;
        }
        let waited = self.wait(&all);
        let stay = !self.force || self.interrupt.is_set();
        if waited.is_err() && stay && !ours.is_empty() {
            self.controller
                .run(&format!("scontrol update nodename={ours} state=resume"))?;
        }
        waited
    }

    fn wait(&self, nodes: &str) -> Result<(), CliError> {
        let began = Instant::now();
        let mut told = BTreeSet::new();
        loop {
            let jobs = self.jobs(nodes)?;
            if jobs.is_empty() {
                return Ok(());
            }
            if began.elapsed() >= self.limit {
                return Err(self.too_long(nodes, &jobs));
            }
            if jobs != told {
                let message = format!("draining {nodes}: {} to end", plural(&jobs));
                self.events.emit(Event::Step { message });
                told = jobs;
            }
            let look = Instant::now();
            while look.elapsed() < self.poll {
                self.interrupt.check()?;
                std::thread::sleep(LOOK.min(self.poll));
            }
            self.interrupt.check()?;
        }
    }

    /// Has Slurm forget what nodes it has and the deployment has not. That it fails is a warning:
    /// the machines are gone. Elastic workers are in its configuration, and not its to forget.
    pub fn forget_all_but(&self, wanted: &[NodeName]) {
        if let Err(error) = self.forget(wanted) {
            self.events.emit(Event::Warning {
                message: format!(
                    "Slurm still lists workers that are gone, until the next change of size: {}",
                    error.one_line()
                ),
            });
        }
    }

    fn forget(&self, wanted: &[NodeName]) -> Result<(), CliError> {
        let text = self
            .controller
            .run("sinfo --noheader --Node --format '%N %f'")?;
        let features = pairs(&text);
        let gone = features.iter().filter(|(name, features)| {
            name.starts_with(WORKER)
                && !features.split(',').any(|feature| feature == ELASTIC)
                && !wanted.iter().any(|wanted| wanted.0 == **name)
        });
        let gone = list(gone.map(|(name, _)| name.as_str()));
        if gone.is_empty() {
            return Ok(());
        }
        // Whatever ran there is over.
        self.controller
            .run(&format!(
                "scontrol update nodename={gone} state=down reason='removed by provision scale'; \
                 try=0; until scontrol delete nodename={gone}; do \
                 try=$((try + 1)); [ $try -lt {TRIES} ] || exit 1; sleep 5; done"
            ))
            .map(drop)
    }

    /// Slurm's nodes, with their states.
    fn listed(&self) -> Result<BTreeMap<String, String>, CliError> {
        let text = self
            .controller
            .run("sinfo --noheader --Node --format '%N %T'")?;
        Ok(pairs(&text))
    }

    /// Jobs that hold one of the nodes.
    fn jobs(&self, nodes: &str) -> Result<BTreeSet<String>, CliError> {
        let text = self.controller.run(&format!(
            "squeue --noheader --nodelist={nodes} \
             --states=running,suspended,completing,configuring --format %i"
        ))?;
        let jobs = text.lines().map(str::trim).filter(|job| !job.is_empty());
        Ok(jobs.map(str::to_owned).collect())
    }

    fn too_long(&self, nodes: &str, jobs: &BTreeSet<String>) -> CliError {
        let message = format!(
            "on {nodes} of `{}` jobs still run: {}",
            self.deployment,
            list(jobs.iter().map(String::as_str))
        );
        CliError::new(ExitCode::Unavailable, message)
            .hint("nothing was removed, and the workers take jobs again")
            .hint("--drain-timeout TIME waits longer, --force removes the workers all the same")
    }
}

/// What is said of each node, a line of its own.
fn pairs(text: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| {
        let (name, said) = line.trim().split_once(' ')?;
        Some((name.to_owned(), said.trim().to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(",")
}

fn plural(jobs: &BTreeSet<String>) -> String {
    let names = jobs.iter().map(String::as_str).collect::<Vec<_>>();
    match names[..] {
        [job] => format!("waits for job {job}"),
        _ => format!("waits for jobs {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests;
