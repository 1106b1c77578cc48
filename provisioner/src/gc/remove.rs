//! Removes what is left over, group by group.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::look::DIRECTORY;
use super::plan::{Group, Verdict};
use super::{Place, Sighting};
use crate::deploy::interrupt::Interrupt;
use crate::error::{CliError, ExitCode, Retry};
use crate::event::{Event, Sink};
use crate::layout::Layout;
use crate::provider::{Provider, Removing, Resource, Tags};
use crate::rendezvous::config::ExternalConfig;
use crate::rendezvous::{ACCOUNT, PROCESS, RendezvousError, external, strays};
use crate::state::lock::Lock;

/// How long removing one thing may take, all tries together.
const LIMIT: Duration = Duration::from_secs(600);
/// Wait before the second try; doubled by every further one.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Longest wait before another try.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// How long a process may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What was done.
#[derive(Debug, Default, Serialize)]
pub struct Removal {
    /// What was removed.
    pub removed: Vec<Sighting>,
    /// What is still there.
    pub left: Vec<Left>,
}

/// Something that could not be removed.
#[derive(Debug, Serialize)]
pub struct Left {
    /// What.
    #[serde(flatten)]
    pub thing: Sighting,
    /// Why.
    pub why: String,
}

/// What removing needs.
pub struct Hands<'a> {
    /// Directories.
    pub layout: &'a Layout,
    /// Sites by name.
    pub sites: &'a [(String, Arc<dyn Provider>)],
    /// The rendezvous that somebody else runs, if one is used.
    pub rendezvous: Option<&'a ExternalConfig>,
    /// Whether a deployment has come to life since (asked under its lock).
    pub lives: &'a (dyn Fn(&Tags) -> Result<bool, CliError> + Sync),
    /// Whether the user wants to stop.
    pub interrupt: &'a Interrupt,
    /// Where events go.
    pub events: &'a dyn Sink,
}

impl Hands<'_> {
    /// Removes the groups that are to go. What cannot be removed does not keep the rest.
    pub fn remove(&self, groups: Vec<Group>) -> Result<Removal, CliError> {
        let mut removal = Removal::default();
        for group in groups.into_iter().filter(|g| g.verdict == Verdict::Remove) {
            self.interrupt.check()?;
            match self.locked(group.tags.as_ref()) {
                Ok(lock) => {
                    self.group(group, &mut removal)?;
                    drop(lock);
                }
                Err(error) => {
                    let why = error.one_line();
                    let left = |thing| Left {
                        thing,
                        why: why.clone(),
                    };
                    removal.left.extend(group.things.into_iter().map(left));
                }
            }
        }
        Ok(removal)
    }

    /// Nobody makes a deployment of this name meanwhile.
    fn locked(&self, tags: Option<&Tags>) -> Result<Option<Locked>, CliError> {
        let Some(tags) = tags else { return Ok(None) };
        let dir = self.layout.deployment(&tags.deployment);
        // What is written on a thing by others must not lead out of the directory.
        crate::name::check_deployment(&tags.deployment).map_err(|why| {
            let message = format!("`{}` is no deployment's name: {why}", tags.deployment);
            CliError::new(ExitCode::Name, message)
        })?;
        let made = !dir.exists();
        let lock = Lock::take(&dir, &tags.deployment)?;
        let locked = Locked {
            _lock: lock,
            remove: made.then_some(dir),
        };
        if (self.lives)(tags)? {
            let message = format!("`{}` was made meanwhile", tags.deployment);
            return Err(CliError::new(ExitCode::Unavailable, message));
        }
        Ok(Some(locked))
    }

    fn group(&self, group: Group, removal: &mut Removal) -> Result<(), CliError> {
        let nobody = Tags {
            owner: String::new(),
            deployment: String::new(),
            uid: String::new(),
        };
        let tags = group.tags.unwrap_or(nobody);
        let (begun, mut dead) = (removal.left.len(), BTreeMap::new());
        let mut things = group.things.into_iter().peekable();
        while let Some(first) = things.next() {
            self.interrupt.check()?;
            // Keys and logs are of use as long as anything else is there.
            if first.place == Place::Machine && removal.left.len() > begun {
                let why = "kept while other things of the deployment are there".to_owned();
                removal.left.push(Left { thing: first, why });
                continue;
            }
            let mut batch = vec![first];
            while let Some(next) = things.next_if(|next| alike(&batch[0], next)) {
                batch.push(next);
            }
            self.batch(&tags, batch, &mut dead, removal);
        }
        Ok(())
    }

    /// Removes things that do not depend on each other, several at a time.
    fn batch(
        &self,
        tags: &Tags,
        batch: Vec<Sighting>,
        dead: &mut BTreeMap<Place, String>,
        removal: &mut Removal,
    ) {
        let place = batch[0].place.clone();
        let threads = self.parallel(&place).min(batch.len());
        let queue = Mutex::new(batch.into_iter());
        let results = Mutex::new((removal, dead));
        let work = || {
            loop {
                let next = unpoisoned(&queue).next();
                let Some(thing) = next else { break };
                let gone = unpoisoned(&results).1.get(&place).cloned();
                let result = match gone {
                    Some(why) => Err((ExitCode::Unavailable, why)),
                    None => self
                        .thing(tags, &thing)
                        .map_err(|error| (error.code, error.one_line())),
                };
                let (removal, dead) = &mut *unpoisoned(&results);
                match result {
                    Ok(()) => {
                        let message = format!("removed {thing}");
                        self.events.emit(Event::Step { message });
                        removal.removed.push(thing);
                    }
                    Err((code, why)) => {
                        // Each further try would wait for it again.
                        if code == ExitCode::Unavailable {
                            dead.insert(place.clone(), why.clone());
                        }
                        removal.left.push(Left { thing, why });
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
    }

    fn parallel(&self, place: &Place) -> usize {
        match place {
            Place::Site(site) => self.site(site).map_or(1, |s| s.parallel().max(1)),
            Place::Rendezvous | Place::Machine => 1,
        }
    }

    fn site(&self, name: &str) -> Option<&Arc<dyn Provider>> {
        let mut sites = self.sites.iter();
        sites.find(|(site, _)| site == name).map(|(_, p)| p)
    }

    /// Removes one thing, trying again as long as that has a prospect.
    fn thing(&self, tags: &Tags, thing: &Sighting) -> Result<(), CliError> {
        let deadline = Instant::now() + LIMIT;
        let mut wait = FIRST_WAIT;
        loop {
            let Err(error) = self.attempt(tags, thing, deadline) else {
                return Ok(());
            };
            if error.retry == Retry::Never || Instant::now() + wait > deadline {
                return Err(error);
            }
            self.interrupt.check()?;
            std::thread::sleep(wait);
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    fn attempt(&self, tags: &Tags, thing: &Sighting, deadline: Instant) -> Result<(), CliError> {
        let resource = &thing.found.resource;
        match &thing.place {
            Place::Site(site) => {
                let Some(provider) = self.site(site) else {
                    let message = format!("site `{site}` is not known");
                    return Err(CliError::new(ExitCode::Internal, message));
                };
                provider.remove(&Removing {
                    tags,
                    resource,
                    handle: thing.found.handle.as_deref(),
                    deadline,
                    interrupt: self.interrupt,
                })
            }
            Place::Rendezvous => match self.rendezvous {
                Some(config) => Ok(remove_account(config, resource)?),
                None => Ok(()),
            },
            Place::Machine if resource.kind == PROCESS => end(self.layout, &resource.id),
            Place::Machine => remove_directory(self.layout, resource),
        }
    }
}

/// A lock whose directory goes with it when it was made for it alone.
struct Locked {
    _lock: Lock,
    remove: Option<std::path::PathBuf>,
}

impl Drop for Locked {
    fn drop(&mut self) {
        if let Some(dir) = &self.remove {
            // An empty directory that stays is found by the next run.
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// Whether two things that follow each other may be removed at the same time.
fn alike(a: &Sighting, b: &Sighting) -> bool {
    a.place == b.place && a.found.resource.kind == b.found.resource.kind
}

fn remove_account(config: &ExternalConfig, resource: &Resource) -> Result<(), RendezvousError> {
    let server = external::External::open(config)?;
    let api = server.api();
    if resource.kind != ACCOUNT {
        return Ok(api.delete_group(&resource.id)?);
    }
    let user = resource.id.split('@').next().unwrap_or_default();
    // Membership of a shared roster group outlives the account.
    if let Some((group, _)) = user.rsplit_once('.') {
        api.remove_member(group, user)?;
    }
    Ok(api.unregister(user)?)
}

fn end(layout: &Layout, deployment: &str) -> Result<(), CliError> {
    let failed = |e| {
        let message = format!("cannot stop the rendezvous of `{deployment}`");
        CliError::new(ExitCode::Internal, message).caused_by(e)
    };
    let all = strays(layout).map_err(failed)?;
    for stray in all.into_iter().filter(|s| s.deployment == deployment) {
        if !stray.process.end(STOP_LIMIT).map_err(failed)? {
            let message = format!("process {} does not end", stray.process.pid);
            return Err(CliError::new(ExitCode::Leftover, message));
        }
    }
    Ok(())
}

fn remove_directory(layout: &Layout, resource: &Resource) -> Result<(), CliError> {
    let path = Path::new(&resource.id);
    if resource.kind != DIRECTORY || path.parent() != layout.deployment("x").parent() {
        let message = format!("`{}` is no deployment's directory", resource.id);
        return Err(CliError::new(ExitCode::Internal, message));
    }
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(CliError::file("remove", path, e))
        }
        _ => Ok(()),
    }
}

fn unpoisoned<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
