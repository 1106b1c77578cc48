//! Removes a deployment: everything that the journal says may exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::launch::DIRECTORY;
use super::settings::Settings;
use super::{Meeting, Parts};
use crate::backend::{Backend, Resource};
use crate::error::{CliError, ExitCode};
use crate::event::{Event, Sink};
use crate::layout::Layout;
use crate::state::Database;
use crate::state::record::{Deployment, NodeRecord, Owner, Phase, ResourceRecord};

/// What a destroy did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// Deployment.
    pub name: String,
    /// What was removed.
    pub removed: Vec<Resource>,
    /// What could not be removed, and why.
    pub leftover: Vec<Leftover>,
}

/// A resource that could not be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// The resource.
    #[serde(flatten)]
    pub resource: Resource,
    /// Why it is still there.
    pub why: String,
}

impl Removal {
    /// How many of each kind were removed, as people say it: `3 domains, 1 network`.
    pub fn summary(&self) -> String {
        let mut counts = BTreeMap::new();
        for resource in &self.removed {
            *counts.entry(plain(&resource.kind)).or_insert(0_usize) += 1;
        }
        let say = |(kind, count): (&str, usize)| match (count, kind.strip_suffix('y')) {
            (1, _) => format!("1 {kind}"),
            (n, Some(stem)) => format!("{n} {stem}ies"),
            (n, None) if kind.ends_with("ss") => format!("{n} {kind}es"),
            (n, None) => format!("{n} {kind}s"),
        };
        if counts.is_empty() {
            return "nothing".to_owned();
        }
        counts.into_iter().map(say).collect::<Vec<_>>().join(", ")
    }

    /// The error for what is left, if anything is.
    pub fn check(&self) -> Result<(), CliError> {
        let Some(first) = self.leftover.first() else {
            return Ok(());
        };
        let named: Vec<_> = self
            .leftover
            .iter()
            .map(|l| format!("{} `{}`", plain(&l.resource.kind), l.resource.id))
            .collect();
        Err(CliError::new(
            ExitCode::Leftover,
            format!(
                "of `{}` could not be removed: {}",
                self.name,
                named.join(", ")
            ),
        )
        .caused_by(first.why.clone())
        .hint(format!(
            "repair the cause and run `provision destroy {}` again",
            self.name
        )))
    }
}

/// Removes what a deployment made, last made first. What cannot be removed does not keep the rest.
pub fn destroy(
    layout: &Layout,
    database: &Database,
    deployment: &Deployment,
    parts: &dyn Parts,
    events: &dyn Sink,
) -> Result<Removal, CliError> {
    database.set_phase(deployment.id, Phase::Destroying)?;
    let settings = Settings::of(deployment)?;
    let mut hands = Hands {
        parts,
        settings,
        backends: BTreeMap::new(),
        meeting: None,
    };
    let mut removal = Removal {
        name: deployment.name.clone(),
        ..Removal::default()
    };
    let nodes = database.nodes(deployment.id)?;
    let mut records = database.resources(deployment.id)?;
    // Machines first of all: they use what the rest is.
    records.reverse();
    records.sort_by_key(|r| r.node.is_none() || r.owner == Owner::Rendezvous);
    // Those that do not answer, with why: each further try would wait for them again.
    let mut unreachable: BTreeMap<Owner, String> = BTreeMap::new();
    let mut warned: BTreeSet<Owner> = BTreeSet::new();
    for record in records {
        let ResourceRecord {
            owner, resource, ..
        } = record;
        if owner == Owner::Files && !removal.leftover.is_empty() {
            // Keys and the rendezvous's spool are needed for another try.
            continue;
        }
        if let Some(why) = unreachable.get(&owner) {
            let why = why.clone();
            removal.leftover.push(Leftover { resource, why });
            continue;
        }
        let result = hands.remove(layout, &owner, &resource);
        match result {
            Ok(()) => {
                database.removed(deployment.id, &owner, &resource)?;
                let message = format!("removed {} `{}`", plain(&resource.kind), resource.id);
                events.emit(Event::Step { message });
                removal.removed.push(resource);
            }
            Err(error) => {
                let why = one_line(&error);
                if warned.insert(owner.clone()) {
                    let message = why.clone();
                    events.emit(Event::Warning { message });
                }
                if error.code == ExitCode::Unavailable && !hands.answers(&owner, deployment, &nodes)
                {
                    unreachable.insert(owner, why.clone());
                }
                removal.leftover.push(Leftover { resource, why });
            }
        }
    }
    if removal.leftover.is_empty() {
        // Also what a crash left between making the directory and recording it.
        remove_directory(&layout.deployment(&deployment.name))?;
        database.bury(deployment.id, SystemTime::now())?;
    }
    Ok(removal)
}

/// Opens each owner of resources once.
struct Hands<'a> {
    parts: &'a dyn Parts,
    settings: Settings,
    backends: BTreeMap<String, Arc<dyn Backend>>,
    meeting: Option<Box<dyn Meeting>>,
}

impl Hands<'_> {
    fn remove(
        &mut self,
        layout: &Layout,
        owner: &Owner,
        resource: &Resource,
    ) -> Result<(), CliError> {
        match owner {
            Owner::Site(site) => self.backend(site)?.remove(resource),
            Owner::Rendezvous => {
                let meeting = match self.meeting.take() {
                    Some(meeting) => meeting,
                    None => self.parts.meeting()?,
                };
                self.meeting.insert(meeting).remove(resource)
            }
            Owner::Files if resource.kind == DIRECTORY => {
                let path = Path::new(&resource.id);
                // Never more than a deployment's own directory, whatever the database says.
                if path.parent() != layout.deployment("x").parent() {
                    let message = format!("`{}` is no deployment's directory", resource.id);
                    return Err(CliError::new(ExitCode::Internal, message));
                }
                remove_directory(path)
            }
            Owner::Files => Err(CliError::new(
                ExitCode::Internal,
                format!(
                    "`{}` is a kind of file this provision does not know",
                    resource.kind
                ),
            )),
        }
    }

    /// Whether an owner that refused something answers at all.
    fn answers(&mut self, owner: &Owner, deployment: &Deployment, nodes: &[NodeRecord]) -> bool {
        match owner {
            Owner::Site(site) => {
                let Ok(backend) = self.backend(site) else {
                    return false;
                };
                let mut nodes = nodes.iter().filter(|node| node.site == *site);
                nodes.next().is_none_or(|node| {
                    let state = backend.machine_state(&deployment.name, &node.name);
                    !state.is_err_and(|e| e.code == ExitCode::Unavailable)
                })
            }
            Owner::Rendezvous => self.meeting.as_ref().is_some_and(|m| m.can_remove()),
            Owner::Files => true,
        }
    }

    fn backend(&mut self, site: &str) -> Result<Arc<dyn Backend>, CliError> {
        if let Some(backend) = self.backends.get(site) {
            return Ok(Arc::clone(backend));
        }
        let backend = self.parts.backend(self.settings.site(site)?)?;
        self.backends.insert(site.to_owned(), Arc::clone(&backend));
        Ok(backend)
    }
}

fn remove_directory(path: &Path) -> Result<(), CliError> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(CliError::file("remove", path, e))
        }
        _ => Ok(()),
    }
}

/// A kind in plain words.
fn plain(kind: &str) -> &str {
    match kind {
        "roster-group" => "roster group",
        "dir" => "rendezvous directory",
        other => other,
    }
}

fn one_line(error: &CliError) -> String {
    let mut text = error.message.clone();
    let mut cause = std::error::Error::source(error);
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}
