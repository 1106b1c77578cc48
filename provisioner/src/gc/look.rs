//! Looks at sites, an external rendezvous and this machine for what carries tags.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Place, Sighting};
use crate::deploy::settings::TAG_DIGITS;
use crate::error::CliError;
use crate::layout::Layout;
use crate::provider::{Found, Health, Provider, Resource, Tags};
use crate::rendezvous::config::ExternalConfig;
use crate::rendezvous::{ACCOUNT, PROCESS, ROSTER_GROUP, RendezvousError, external, strays};

/// Kind of a deployment's own directory.
pub const DIRECTORY: &str = "directory";

/// What was seen, and where nothing could be.
#[derive(Debug, Default)]
pub struct Looked {
    /// What was seen.
    pub seen: Vec<Sighting>,
    /// What did not answer, and why.
    pub unseen: Vec<(Place, CliError)>,
}

impl Looked {
    fn add(&mut self, place: &Place, result: Result<Vec<Found>, CliError>) {
        match result {
            Ok(found) => self.seen.extend(found.into_iter().map(|found| Sighting {
                place: place.clone(),
                found,
                made: None,
            })),
            Err(error) => self.unseen.push((place.clone(), error)),
        }
    }

    /// Looks at sites, all at the same time: one that does not answer delays no other.
    pub fn at_sites(&mut self, sites: &[(String, Arc<dyn Provider>)]) {
        let results: Vec<_> = std::thread::scope(|scope| {
            let look = |(_, provider): &(String, Arc<dyn Provider>)| {
                let provider = Arc::clone(provider);
                scope.spawn(move || provider.find(None))
            };
            let threads: Vec<_> = sites.iter().map(look).collect();
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        for ((site, _), result) in sites.iter().zip(results) {
            let result = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.add(&Place::Site(site.clone()), result);
        }
    }

    /// Looks at the groups and accounts of an ejabberd that somebody else runs. Accounts of the
    /// groups that were `removed` are still known by their tags.
    pub fn at_rendezvous(&mut self, config: &ExternalConfig, removed: &[Sighting]) {
        let found = accounts(config, removed).map_err(CliError::from);
        self.add(&Place::Rendezvous, found);
    }

    /// Looks at the directories and the processes of this state directory's deployments.
    pub fn at_machine(&mut self, layout: &Layout, owner: &str) -> Result<(), CliError> {
        let thing = |kind: &str, id: String, deployment: String, made| Sighting {
            place: Place::Machine,
            found: Found {
                resource: Resource {
                    kind: kind.to_owned(),
                    id,
                },
                handle: None,
                tags: Some(Tags {
                    owner: owner.to_owned(),
                    deployment,
                    uid: String::new(),
                }),
                node: None,
                health: Health::Present,
            },
            made,
        };
        for (name, path) in directories(layout)? {
            let made = std::fs::metadata(&path).and_then(|m| m.modified()).ok();
            let id = path.display().to_string();
            self.seen.push(thing(DIRECTORY, id, name, made));
        }
        let proc = std::path::Path::new("/proc");
        let strays = strays(layout).map_err(|e| CliError::file("list", proc, e))?;
        let mut names: Vec<_> = strays.into_iter().map(|s| s.deployment).collect();
        names.sort();
        names.dedup();
        for name in names {
            self.seen.push(thing(PROCESS, name.clone(), name, None));
        }
        Ok(())
    }
}

fn directories(layout: &Layout) -> Result<Vec<(String, PathBuf)>, CliError> {
    let dir = layout.deployment("x");
    let dir = dir.parent().unwrap_or(&layout.state);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(CliError::file("list", dir, e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| CliError::file("list", dir, e))?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Groups that say whose they are, and the accounts of their members. An account is named after
/// its group, and is made after and removed before it. One whose group is not there tells nobody's
/// name.
fn accounts(config: &ExternalConfig, removed: &[Sighting]) -> Result<Vec<Found>, RendezvousError> {
    let server = external::External::open(config)?;
    let (api, domain) = (server.api(), server.domain());
    // Listed before the groups: whose account is here has its group there.
    let accounts = api.accounts()?;
    let mut groups = BTreeMap::new();
    for group in api.groups()? {
        let tags = api.group_tags(&group)?;
        groups.insert(group, tags);
    }
    let thing = |kind: &str, id: String, tags: &Option<Tags>| Found {
        resource: Resource {
            kind: kind.to_owned(),
            id,
        },
        handle: None,
        tags: tags.clone(),
        node: None,
        health: Health::Present,
    };
    let tagged = groups.iter().filter(|(_, tags)| tags.is_some());
    let mut found: Vec<_> = tagged
        .map(|(group, tags)| thing(ROSTER_GROUP, group.clone(), tags))
        .collect();
    let gone = removed
        .iter()
        .filter(|s| s.place == Place::Rendezvous && s.found.resource.kind == ROSTER_GROUP);
    for sighting in gone {
        let Found { resource, tags, .. } = &sighting.found;
        groups
            .entry(resource.id.clone())
            .or_insert_with(|| tags.clone());
    }
    for user in accounts {
        let Some(group) = group_of(&user) else {
            continue;
        };
        let account = |tags| thing(ACCOUNT, format!("{user}@{domain}"), tags);
        match groups.get(group) {
            // A group of somebody else's that is named as ours are.
            Some(None) => {}
            Some(tags) => found.push(account(tags)),
            None => found.push(account(&None)),
        }
    }
    Ok(found)
}

/// The group that an account is named after, if it is named as those of deployments are.
fn group_of(user: &str) -> Option<&str> {
    let (group, _) = user.rsplit_once('.')?;
    let (_, tag) = group.rsplit_once('-')?;
    let is_tag = tag.len() == TAG_DIGITS && tag.bytes().all(|b| b.is_ascii_hexdigit());
    is_tag.then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_accounts_that_are_named_as_those_of_deployments_have_a_group() {
        assert_eq!(
            group_of("lake-0000002a.worker-0"),
            Some("lake-0000002a"),
            "a node's"
        );
        let others = ["ann", "ann.lee", "lake.worker-0", "lake-2a.worker-0"];
        for user in others.into_iter().chain(["lake-xxxxxxxx.w", "0000002a.w"]) {
            assert_eq!(group_of(user), None, "{user}");
        }
    }
}
