//! `provision power NAME`: has workers come and go as the scheduler asks. Not for people.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Context, ssh};
use crate::deploy::engine::{Engine, Opened};
use crate::deploy::interrupt::Interrupt;
use crate::deploy::real::Real;
use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::event::Event;
use crate::plan::FRONTEND;
use crate::plan::scale::Scaling;
use crate::power::demand::{PROGRAM, Session};
use crate::power::{Directory, Report};
use crate::state::Database;
use crate::state::record::{Deployment, Phase};

/// How long to listen before other things are looked at: whether to stop, the limits, the clock.
const LISTEN: Duration = Duration::from_secs(2);
/// How soon changed limits are seen.
const LOOK: Duration = Duration::from_secs(10);
/// Until a front end that is not heard is tried again.
const AGAIN: Duration = Duration::from_secs(15);

/// Have a deployment's elastic workers come and go as its scheduler asks
#[derive(Debug, Args)]
pub struct PowerArgs {
    /// The deployment
    pub name: String,
}

/// Runs the command, until there is nothing more to do for the deployment.
pub fn run(context: &Context, args: PowerArgs) -> Result<u8, CliError> {
    let interrupt = Interrupt::listen()?;
    let database = context.database()?;
    let directory = Directory::new(&context.layout, &args.name);
    if needed(context, &database, &args.name)?.is_none() {
        return Ok(0);
    }
    let Some(_lock) = directory.enter()? else {
        return Ok(0);
    };
    let mut power = Power {
        context,
        database: &database,
        name: &args.name,
        interrupt: &interrupt,
        directory,
        report: Report {
            wanted: None,
            ..Report::read(&context.layout, &args.name).unwrap_or_default()
        },
        tried: None,
    };
    while let Some((deployment, settings)) = needed(context, &database, &args.name)? {
        if power.attend(&deployment, &settings)? {
            return Err(CliError::interrupted());
        }
    }
    Ok(0)
}

/// The deployment, if it is there and has elastic workers, or had some and the front end was not yet
/// told that it has none.
fn needed(
    context: &Context,
    database: &Database,
    name: &str,
) -> Result<Option<(Deployment, Settings)>, CliError> {
    let Some(deployment) = database.deployment(name)? else {
        return Ok(None);
    };
    let settings = Settings::of(&deployment)?;
    let is_told = || Report::read(&context.layout, name).is_none();
    let is_done = deployment.phase == Phase::Destroying || settings.elastic.is_empty() && is_told();
    Ok((!is_done).then_some((deployment, settings)))
}

struct Power<'a> {
    context: &'a Context,
    database: &'a Database,
    name: &'a str,
    interrupt: &'a Interrupt,
    directory: Directory,
    report: Report,
    /// When it failed last.
    tried: Option<Instant>,
}

impl Power<'_> {
    /// Does what the front end asks, for as long as a session and the limits last. True when to stop.
    fn attend(&mut self, deployment: &Deployment, settings: &Settings) -> Result<bool, CliError> {
        let told = settings.elastic.told();
        let mut session = match self.open(deployment, &told) {
            Ok(session) => session,
            Err(error) => return self.unheard(&error),
        };
        let mut looked = Instant::now();
        loop {
            if self.interrupt.is_set() {
                return Ok(true);
            }
            match session.wanted(LISTEN) {
                Ok(None) => {}
                Ok(Some(_)) if settings.elastic.is_empty() => {
                    self.directory.forget()?;
                    return Ok(false);
                }
                Ok(Some(wanted)) => self.hear(wanted)?,
                Err(error) => return self.unheard(&error),
            }
            self.follow()?;
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                match needed(self.context, self.database, self.name)? {
                    Some((_, settings)) if settings.elastic.told() == told => {}
                    _ => return Ok(false),
                }
            }
        }
    }

    fn open(&self, deployment: &Deployment, told: &str) -> Result<Session, CliError> {
        let nodes = self.database.nodes(deployment.id)?;
        let front = nodes.iter().find(|n| n.role == FRONTEND).ok_or_else(|| {
            let message = format!("`{}` has no front end", self.name);
            CliError::new(ExitCode::Internal, message)
        })?;
        let words = [PROGRAM.to_owned()];
        let command = ssh::command(
            self.context,
            self.database,
            deployment,
            &nodes,
            front,
            &words,
        )?;
        Session::open(command, told)
    }

    fn hear(&mut self, wanted: BTreeSet<String>) -> Result<(), CliError> {
        if self.report.wanted.as_ref() == Some(&wanted) {
            return Ok(());
        }
        self.report.wanted = Some(wanted);
        if self.report.failures == 0 {
            self.report.trouble = None;
        }
        self.directory.write(&self.report)
    }

    /// Keeps that the front end is not heard, and waits a while. True when to stop.
    fn unheard(&mut self, error: &CliError) -> Result<bool, CliError> {
        self.report.wanted = None;
        if self.report.failures == 0 {
            self.report.trouble = Some(error.one_line());
        }
        self.directory.write(&self.report)?;
        let began = Instant::now();
        while began.elapsed() < AGAIN && !self.interrupt.is_set() {
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(self.interrupt.is_set())
    }

    /// Has those be there who are wanted. What fails is kept and tried again after a while.
    fn follow(&mut self) -> Result<(), CliError> {
        let Some(wanted) = self.report.wanted.clone() else {
            return Ok(());
        };
        let waits = |tried: Instant| tried.elapsed() < self.report.pause();
        if self.tried.is_some_and(waits) {
            return Ok(());
        }
        let is_unfinished = self.report.is_busy || self.report.failures > 0;
        let deployment = self.context.deployment(self.database, self.name)?;
        if !is_unfinished && self.scaling(&deployment, &wanted)? == Scaling::default() {
            return Ok(());
        }
        let (_lock, deployment) = match self.context.locked_to_change(self.database, self.name) {
            Ok(locked) => locked,
            // What its owner has to do something about: a key that is locked, a full disk.
            Err(error) if error.code == ExitCode::Missing => {
                self.failed(&error);
                return self.directory.write(&self.report);
            }
            // Another command works on it: later.
            Err(_) => return Ok(()),
        };
        self.report.is_busy = true;
        self.directory.write(&self.report)?;
        let result = self.carry_out(&deployment, &wanted);
        if self.interrupt.is_set() {
            return Ok(());
        }
        self.report.is_busy = false;
        match result {
            Ok(()) => {
                self.report.failures = 0;
                self.report.trouble = None;
                self.tried = None;
            }
            Err(error) => self.failed(&error),
        }
        self.directory.write(&self.report)
    }

    /// Keeps why the workers do not follow, and when that was tried.
    fn failed(&mut self, error: &CliError) {
        let text = error.one_line();
        eprintln!("workers of {} do not follow: {text}", self.name);
        self.report.failures += 1;
        self.report.trouble = Some(text);
        self.tried = Some(Instant::now());
    }

    fn scaling(
        &self,
        deployment: &Deployment,
        wanted: &BTreeSet<String>,
    ) -> Result<Scaling, CliError> {
        let nodes = self.database.nodes(deployment.id)?;
        Ok(Settings::of(deployment)?.elastic.follow(wanted, &nodes))
    }

    fn carry_out(
        &self,
        deployment: &Deployment,
        wanted: &BTreeSet<String>,
    ) -> Result<(), CliError> {
        let settings = Settings::of(deployment)?;
        let scaling = self.scaling(deployment, wanted)?;
        for worker in &scaling.added {
            eprintln!("{}: {} is wanted", self.name, worker.name);
        }
        for worker in &scaling.removed {
            eprintln!("{}: {worker} is not wanted any more", self.name);
        }
        let nodes = self.database.nodes(deployment.id)?;
        let stay = nodes.iter().filter(|n| n.wanted).map(|n| n.name.clone());
        let stay = stay.filter(|name| !scaling.removed.contains(name));
        let added = scaling.added.iter().map(|worker| worker.name.clone());
        let real = Real {
            layout: &self.context.layout,
            name: self.name,
            settings: &settings,
            nodes: stay.chain(added).collect(),
            tags: Some(deployment.tags()),
        };
        let engine = Engine {
            layout: &self.context.layout,
            database: self.database,
            deployment,
            settings: &settings,
            parts: &real,
            interrupt: self.interrupt,
            began: Instant::now(),
            events: &|event| {
                if let Event::Warning { message } = event {
                    eprintln!("warning: {message}");
                }
            },
            opened: Opened::default(),
        };
        engine.follow(&scaling)
    }
}
