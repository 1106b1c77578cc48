//! Removes a deployment: everything that is recorded and may exist, and what its sites still find.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use ipop_proto::audit::{self, Record};
use serde::Serialize;

use super::data::Deleted;
use super::engine::{Engine, Images};
use super::hands::remove_directory;
use super::planner::{Observed, Plan};
use crate::error::{CliError, ExitCode};
use crate::event::Event;
use crate::provider::{DATA, Health, Resource, Scope};
use crate::state::record::{Key, Owner, Phase, ResourceRecord, ResourceState};

/// How long the removal of something that is found and was not recorded may take.
const FOUND_LIMIT: Duration = Duration::from_secs(300);

/// What a destroy did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// Deployment.
    pub name: String,
    /// What was removed.
    pub removed: Vec<Resource>,
    /// What could not be removed, and why.
    pub leftover: Vec<Leftover>,
    /// Volumes with data that are kept for a later deployment of that name.
    pub kept: Vec<Resource>,
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

impl Engine<'_> {
    /// What destroying would do; nothing is changed.
    pub fn preview_destroy(&self) -> Result<Plan, CliError> {
        let recorded = self.database.all_resources(self.deployment.id)?;
        Ok(self.planned(&[], &recorded, &Observed::default()))
    }

    /// Removes everything but data that outlives its machines. What cannot be removed keeps back what it
    /// was made from, and no more.
    pub fn destroy(&self) -> Result<Removal, CliError> {
        self.end(false)
    }

    /// Removes everything, and data as well: also what shares of the deployment left that were removed
    /// before.
    pub fn destroy_with_data(&self) -> Result<Removal, CliError> {
        self.end(true)
    }

    fn end(&self, delete_data: bool) -> Result<Removal, CliError> {
        let id = self.deployment.id;
        self.database.set_phase(id, Phase::Destroying)?;
        let mut removal = Removal {
            name: self.deployment.name.clone(),
            ..Removal::default()
        };
        let recorded = self.database.all_resources(id)?;
        let sites = recorded.iter().filter_map(|r| match &r.key.owner {
            Owner::Site(site) if r.may_exist() => Some(site.clone()),
            _ => None,
        });
        let sites: BTreeSet<String> = sites.collect();
        self.remove(&recorded, &mut removal)?;
        if removal.leftover.is_empty() {
            let forgotten = self.forgotten(&sites)?;
            if !forgotten.is_empty() {
                self.remove(&forgotten, &mut removal)?;
            }
        }
        if removal.leftover.is_empty() {
            self.see_to_data(delete_data, &mut removal)?;
        }
        if removal.leftover.is_empty() {
            let destroyed = Record::new(audit::Event::Destroyed, SystemTime::now());
            self.audit()?.write(destroyed);
            // Also what a crash left between making the directory and recording it.
            remove_directory(&self.layout.deployment(&self.deployment.name))?;
            self.database.bury(id, SystemTime::now())?;
        }
        Ok(removal)
    }

    fn remove(&self, recorded: &[ResourceRecord], removal: &mut Removal) -> Result<(), CliError> {
        let plan = self.planned(&[], recorded, &Observed::default());
        let run = self.run(None, recorded, &plan, &Images::new(), false)?;
        let resource = |index: usize| plan.actions[index].key.resource.clone();
        for index in &run.done {
            removal.removed.push(resource(*index));
        }
        let mut because: BTreeMap<usize, String> = BTreeMap::new();
        for (index, error) in &run.failed {
            let why = error.one_line();
            removal.leftover.push(Leftover {
                resource: resource(*index),
                why: why.clone(),
            });
            because.insert(*index, why);
        }
        for (index, cause) in &run.blocked {
            removal.leftover.push(Leftover {
                resource: resource(*index),
                why: because.get(cause).cloned().unwrap_or_default(),
            });
        }
        if run.interrupted {
            return Err(CliError::interrupted());
        }
        Ok(())
    }

    /// Deletes data, or says what is kept.
    fn see_to_data(&self, delete: bool, removal: &mut Removal) -> Result<(), CliError> {
        for site in self.settings.sites.iter().map(|s| &s.name) {
            if !delete {
                // That nothing can be said of it now keeps nothing else.
                let kept = self.data_at(site).unwrap_or_else(|error| {
                    let why = error.one_line();
                    self.events.emit(Event::Warning {
                        message: format!("site {site} cannot be asked what data is kept: {why}"),
                    });
                    Vec::new()
                });
                removal
                    .kept
                    .extend(kept.into_iter().map(|data| data.resource));
                continue;
            }
            let Deleted { deleted, failed } = self.delete_data_at(site, None)?;
            removal.removed.extend(deleted);
            let left = failed.into_iter().map(|(resource, error)| Leftover {
                resource,
                why: error.one_line(),
            });
            removal.leftover.extend(left);
        }
        Ok(())
    }

    /// Machines' parts that the sites still find although all that is recorded is removed: of a
    /// database that was put back from an older copy, or made twice by a site. What has no node may
    /// be shared with other deployments, and is for `provision gc`.
    fn forgotten(&self, sites: &BTreeSet<String>) -> Result<Vec<ResourceRecord>, CliError> {
        let tags = self.tags();
        let mut forgotten = Vec::new();
        for site in sites {
            let found = match self.provider(site).and_then(|p| p.find(Some(&tags))) {
                Ok(found) => found,
                Err(error) => {
                    let why = error.one_line();
                    self.events.emit(Event::Warning {
                        message: format!("site {site} cannot be asked what is left: {why}"),
                    });
                    continue;
                }
            };
            for found in found {
                let (Some(node), Some(found_tags)) = (&found.node, &found.tags) else {
                    continue;
                };
                let is_data = found.resource.kind == DATA;
                if *found_tags != tags || found.health == Health::Going || is_data {
                    continue;
                }
                let key = Key {
                    owner: Owner::Site(site.clone()),
                    resource: found.resource.clone(),
                };
                forgotten.push(ResourceRecord {
                    key,
                    scope: Scope::Node(node.clone()),
                    after: Vec::new(),
                    deadline: FOUND_LIMIT,
                    state: ResourceState::Planned,
                    attempt: 1,
                    node_attempt: 1,
                    token: String::new(),
                    handle: found.handle.clone(),
                    reached_at: None,
                    error: None,
                });
            }
        }
        self.database.want(self.deployment.id, &forgotten)?;
        Ok(forgotten)
    }
}

/// A kind in plain words.
pub fn plain(kind: &str) -> &str {
    match kind {
        "roster-group" => "roster group",
        "dir" => "rendezvous directory",
        "boot" => "boot action",
        DATA => "data volume",
        other => other,
    }
}
