//! Making and removing: the experiment, its machines, and what is on them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::testbed::{Experiment, Host, Order, Phase};
use super::{Cloudlab, PLACE, experiment, inner, lock, of_machine};
use crate::deploy::interrupt::Interrupt;
use crate::error::{CliError, ExitCode, Retry};
use crate::event::Event;
use crate::provider::{CheckLine, Made, Making, Removing, Step, Tags};

/// Looks become rarer up to so many times the first interval.
const RARER: u32 = 3;
/// How often a pause looks whether the user wants to stop.
const LOOK: Duration = Duration::from_millis(250);

impl Cloudlab {
    pub(super) fn make_experiment(&self, making: &Making<'_>) -> Result<Made, CliError> {
        let name = experiment::name(making.tags);
        let made = |found: Experiment| Made {
            handle: Some(found.id),
            reached_at: None,
        };
        if let Some(found) = self.testbed.named(&name, making.deadline)? {
            self.ours(&found, making.tags)?;
            let serves = found.hosts.iter().any(|host| host.phase == Phase::Ready);
            match found.phase {
                Phase::Failed(_) if !serves => {
                    self.testbed.delete(&found.id, making.deadline)?;
                    self.wait_gone(&name, making.deadline, making.interrupt)?;
                }
                Phase::Going => self.wait_gone(&name, making.deadline, making.interrupt)?,
                _ => return Ok(made(found)),
            }
        }
        // Machines of a predecessor had other keys.
        self.door(making.tags).forget()?;
        let order = Order {
            count: wanted(&name, making),
            tags: making.tags.clone(),
            public_key: self.public_key()?,
            name,
        };
        making.events.emit(Event::Step {
            message: format!(
                "creating experiment {} (machines: {}) in project {}",
                order.name, order.count, self.site.project
            ),
        });
        match self.testbed.create(&order, making.deadline) {
            Ok(created) => Ok(made(created)),
            // Its name was taken after we looked: by an earlier try whose answer was lost.
            Err(error) if error.code == ExitCode::Name => {
                match self.testbed.named(&order.name, making.deadline)? {
                    Some(found) if found.tags.as_ref() == Some(making.tags) => Ok(made(found)),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn ours(&self, found: &Experiment, tags: &Tags) -> Result<(), CliError> {
        if found.tags.as_ref() == Some(tags) {
            return Ok(());
        }
        let what = format!(
            "experiment `{}` in project `{}` is not this deployment's",
            found.name, self.site.project
        );
        Err(CliError::new(ExitCode::Name, what)
            .hint("terminate it on the portal's web page, or create a new deployment"))
    }

    pub(super) fn make_machine(&self, host: &str, making: &Making<'_>) -> Result<Made, CliError> {
        let name = experiment::name(making.tags);
        let found = self.wait_host(&name, host, making)?;
        let Some(address) = found.address else {
            let what = format!("the portal gives no address of {host} of experiment `{name}`");
            return Err(CliError::new(ExitCode::Unavailable, what).retry(Retry::Soon));
        };
        let door = self.door(making.tags);
        door.enter(host, &address, making.deadline, making.interrupt)?;
        Ok(Made {
            handle: Some(address),
            reached_at: None,
        })
    }

    /// Waits until the machine is up, asking for more machines first where it is one of those.
    fn wait_host(&self, name: &str, host: &str, making: &Making<'_>) -> Result<Host, CliError> {
        let mut pause = self.poll;
        let mut said = String::new();
        loop {
            making.interrupt.check()?;
            let found = self.observe(name, making.deadline)?;
            let Some(found) = found.filter(|e| e.phase != Phase::Going) else {
                let what = format!("experiment `{name}` is gone: it expired or was terminated");
                return Err(CliError::new(ExitCode::Unavailable, what)
                    .hint("`provision resume` makes what is missing"));
            };
            let own = found.hosts.iter().find(|h| h.name == host);
            let state = match (own.map(|h| &h.phase), &found.phase) {
                (Some(Phase::Ready), _) => return own.cloned().ok_or_else(CliError::interrupted),
                (Some(Phase::Failed(why)), _) => return Err(failed_host(&found, host, why)),
                (_, Phase::Failed(why)) if !some_failed(&found) => {
                    return Err(failed(&found, why));
                }
                (None, Phase::Ready) => {
                    self.grow(name, making)?;
                    "more machines asked for".to_owned()
                }
                (Some(Phase::Pending(state)), _) => state.clone(),
                (_, phase) => format!("experiment {}", shown(phase)),
            };
            if state != said {
                making.events.emit(Event::Step {
                    message: format!("{name}: {host} is not up yet: {state}"),
                });
                said = state;
            }
            if Instant::now() + pause >= making.deadline {
                let what = format!("{host} of experiment `{name}` did not come up: {said}");
                return Err(CliError::new(ExitCode::Unavailable, what).hint(
                    "the experiment's page on the portal shows its log; `provision resume` waits \
                     on",
                ));
            }
            sleep(pause, making.interrupt)?;
            pause = (pause + pause / 4).min(self.poll * RARER);
        }
    }

    fn grow(&self, name: &str, making: &Making<'_>) -> Result<(), CliError> {
        let _alone = lock(&self.resizing);
        let count = wanted(name, making);
        let Some(found) = self.testbed.named(name, making.deadline)? else {
            return Ok(());
        };
        if found.count >= count || found.phase != Phase::Ready {
            return Ok(());
        }
        let order = Order {
            name: name.to_owned(),
            tags: making.tags.clone(),
            count,
            public_key: None,
        };
        self.testbed.resize(&found.id, &order, making.deadline)
    }

    pub(super) fn make_host(&self, host: &str, making: &Making<'_>) -> Result<Made, CliError> {
        let address = self.address(host, making)?;
        let door = self.door(making.tags);
        making.events.emit(Event::Step {
            message: format!("{host} ({address}): libvirt is installed and started"),
        });
        let kvm = door.become_host(host, &address, making.deadline, making.interrupt)?;
        if !kvm {
            making.events.emit(Event::Warning {
                message: format!("{host} ({address}) has no KVM: its machines will be slow"),
            });
        }
        Ok(Made {
            handle: Some(address),
            reached_at: None,
        })
    }

    /// The address that the step `machine` found.
    fn address(&self, host: &str, making: &Making<'_>) -> Result<String, CliError> {
        let name = experiment::name(making.tags);
        let machine = super::Resource {
            kind: super::MACHINE.into(),
            id: format!("{name}/{host}"),
        };
        if let Some(address) = (making.handles)(&machine) {
            return Ok(address);
        }
        let found = self.observe(&name, making.deadline)?;
        found
            .and_then(|e| e.hosts.into_iter().find(|h| h.name == host)?.address)
            .ok_or_else(|| {
                let what = format!("the address of {host} of experiment `{name}` is not known");
                CliError::new(ExitCode::Unavailable, what).retry(Retry::Soon)
            })
    }

    pub(super) fn make_inner(&self, step: &Step, making: &Making<'_>) -> Result<Made, CliError> {
        let Some(host) = inner::host_of(&step.resource) else {
            return Err(unknown_kind(&step.resource.kind));
        };
        let address = self.address(host, making)?;
        self.inner(making.tags, host, &address)?.make(step, making)
    }

    pub(super) fn remove_inner(&self, removing: &Removing<'_>) -> Result<(), CliError> {
        let Some(host) = inner::host_of(removing.resource) else {
            return Err(unknown_kind(&removing.resource.kind));
        };
        let name = experiment::name(removing.tags);
        let found = self.observe(&name, removing.deadline)?;
        let hosts = found.map(|e| e.hosts).unwrap_or_default();
        let up = hosts
            .into_iter()
            .find(|h| h.name == host && h.phase == Phase::Ready);
        let Some(address) = up.and_then(|h| h.address) else {
            // What was on it went with it, or will go with the experiment.
            return Ok(());
        };
        if !self.door(removing.tags).known_hosts(host).exists() {
            return Ok(());
        }
        let removed = self
            .inner(removing.tags, host, &address)
            .and_then(|inner| inner.remove(removing));
        match removed {
            // A machine that does not answer must not keep the experiment from being terminated.
            Err(error) if error.retry == Retry::Soon => {
                tracing::warn!(%host, %error, "left to go with the experiment");
                Ok(())
            }
            other => other,
        }
    }

    pub(super) fn remove_experiment(&self, removing: &Removing<'_>) -> Result<(), CliError> {
        let name = experiment::name(removing.tags);
        lock(&self.seen).remove(&name);
        // By name, and not by the handle alone: a lost answer left none.
        let Some(found) = self.testbed.named(&name, removing.deadline)? else {
            return self.door(removing.tags).forget();
        };
        self.ours(&found, removing.tags)?;
        if found.phase != Phase::Going {
            self.testbed.delete(&found.id, removing.deadline)?;
        }
        self.wait_gone(&name, removing.deadline, removing.interrupt)?;
        self.door(removing.tags).forget()
    }

    fn wait_gone(
        &self,
        name: &str,
        deadline: Instant,
        interrupt: &Interrupt,
    ) -> Result<(), CliError> {
        let pause = (self.poll / 4).max(Duration::from_millis(20));
        loop {
            interrupt.check()?;
            match self.testbed.named(name, deadline) {
                Ok(None) => {
                    lock(&self.seen).remove(name);
                    return Ok(());
                }
                Err(error) if error.retry == Retry::Never => return Err(error),
                Ok(Some(_)) | Err(_) => {}
            }
            if Instant::now() + pause >= deadline {
                let what = format!("experiment `{name}` is still being terminated");
                return Err(CliError::new(ExitCode::Leftover, what)
                    .retry(Retry::Soon)
                    .hint("run destroy again in some minutes, or look at the portal's web page"));
            }
            sleep(pause, interrupt)?;
        }
    }

    /// The experiment, as it is or was half an interval ago. A portal that does not answer for
    /// once is asked again next time.
    pub(super) fn observe(
        &self,
        name: &str,
        deadline: Instant,
    ) -> Result<Option<Experiment>, CliError> {
        let mut seen = lock(&self.seen);
        if let Some((when, found)) = seen.get(name)
            && when.elapsed() < self.poll / 2
        {
            return Ok(found.clone());
        }
        match self.testbed.named(name, deadline) {
            Ok(found) => {
                seen.insert(name.to_owned(), (Instant::now(), found.clone()));
                Ok(found)
            }
            Err(error) if error.retry != Retry::Never && Instant::now() < deadline => {
                match seen.get(name) {
                    Some((_, Some(before))) => Ok(Some(before.clone())),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The public half of the site's key, to be let in with it.
    fn public_key(&self) -> Result<Option<String>, CliError> {
        let Some(identity) = &self.site.identity else {
            return Ok(None);
        };
        let path = public_half(identity);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(CliError::file("read", &path, e)),
        }
    }

    pub(super) fn check_key(&self) -> CheckLine {
        let what = "SSH key".to_owned();
        let (ok, found) = match &self.site.identity {
            Some(path) if !path.is_file() => (
                false,
                format!("there is no `{}`; correct `identity`", path.display()),
            ),
            Some(path) if public_half(path).is_file() => (
                true,
                format!(
                    "{}; goes to the machines with the experiment",
                    path.display()
                ),
            ),
            Some(path) => (
                true,
                format!("{}; must be registered on the portal", path.display()),
            ),
            None => (
                true,
                "what `ssh` finds; must be registered on the portal".to_owned(),
            ),
        };
        CheckLine { what, ok, found }
    }
}

/// How many machines the recorded places ask for.
fn wanted(name: &str, making: &Making<'_>) -> u32 {
    (0..)
        .take_while(|machine| (making.handles)(&of_machine(PLACE, name, *machine)).is_some())
        .last()
        .map_or(1, |last| last + 1)
}

fn public_half(identity: &Path) -> PathBuf {
    let mut name = identity.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn some_failed(found: &Experiment) -> bool {
    let failed = |host: &Host| matches!(host.phase, Phase::Failed(_));
    found.hosts.iter().any(failed)
}

fn failed_host(found: &Experiment, host: &str, why: &str) -> CliError {
    let own = found.hosts.iter().find(|h| h.name == host);
    let cluster = own.map_or("an unknown cluster", |h| &h.cluster);
    let hostname = own.and_then(|h| h.hostname.as_deref()).unwrap_or("no name");
    let what = format!(
        "{host} ({hostname}) of experiment `{}` failed on {cluster}: {why}",
        found.name
    );
    CliError::new(ExitCode::Unavailable, what).hint(
        "the experiment's page on the portal has the machine's console log; destroy and try again \
         for another machine",
    )
}

fn failed(found: &Experiment, why: &str) -> CliError {
    let what = format!("experiment `{}` failed: {why}", found.name);
    CliError::new(ExitCode::Unavailable, what).hint(
        "most often there are no free machines of the type: choose another `hardware` for the \
         site, ask for fewer, or reserve them; the experiment's page on the portal has the log",
    )
}

fn shown(phase: &Phase) -> String {
    match phase {
        Phase::Pending(state) => state.clone(),
        Phase::Ready => "ready".to_owned(),
        Phase::Failed(why) => why.clone(),
        Phase::Going => "being terminated".to_owned(),
    }
}

fn unknown_kind(kind: &str) -> CliError {
    let what = format!("a CloudLab site has nothing of the kind `{kind}`");
    CliError::new(ExitCode::Internal, what)
}

fn sleep(pause: Duration, interrupt: &Interrupt) -> Result<(), CliError> {
    let until = Instant::now() + pause;
    loop {
        interrupt.check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK));
    }
}
