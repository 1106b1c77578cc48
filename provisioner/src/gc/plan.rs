//! Which of the things seen are left over, and in which order they go. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Place, Sighting};
use crate::provider::{DATA, Resource, Tags};
use crate::rendezvous::{ACCOUNT, DIR, PROCESS, ROSTER_GROUP};

/// What the database records of deployments that are not destroyed. Empty when there is none.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Their unmistakable names ([`Tags::uid`]).
    pub uids: BTreeSet<String>,
    /// Their names.
    pub names: BTreeSet<String>,
    /// What they made or use, with the site's identifier where it is recorded. Not by site: two
    /// sites of `sites.toml` may be one host.
    pub resources: BTreeMap<Resource, Option<String>>,
}

impl Known {
    /// Whether somebody still has a use for it.
    fn uses(&self, sighting: &Sighting) -> bool {
        let found = &sighting.found;
        if sighting.place == Place::Machine {
            let tags = found.tags.as_ref();
            return tags.is_some_and(|tags| self.names.contains(&tags.deployment));
        }
        if found
            .tags
            .as_ref()
            .is_some_and(|tags| self.uids.contains(&tags.uid))
        {
            return true;
        }
        match self.resources.get(&found.resource) {
            None => false,
            // One of the same name with another identifier is another thing.
            Some(Some(recorded)) => found.handle.as_ref().is_none_or(|h| h == recorded),
            Some(None) => true,
        }
    }
}

/// What the user allows to be removed.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// What other installations made, too.
    pub any_owner: bool,
    /// Things without tags, each as `KIND/ID`.
    pub named: BTreeSet<String>,
}

/// Whether a group goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is this installation's, or the user said so.
    Remove,
    /// Another installation made it.
    OtherOwner,
    /// Nobody knows who made it.
    UnknownOwner,
    /// It is data that was kept on purpose. Never removed by this.
    Kept,
}

/// Left over things of one deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Deployment and owner; none when that is unknown.
    pub tags: Option<Tags>,
    /// Whether it goes.
    pub verdict: Verdict,
    /// The things, in the order they are removed in.
    pub things: Vec<Sighting>,
}

/// Sorts out what is left over: what goes first comes first.
pub fn leftovers(seen: Vec<Sighting>, known: &Known, owner: &str, allowed: &Allowed) -> Vec<Group> {
    let mut groups: BTreeMap<(Verdict, Option<Tags>), Vec<Sighting>> = BTreeMap::new();
    for sighting in seen {
        if known.uses(&sighting) {
            continue;
        }
        let resource = &sighting.found.resource;
        let named = || {
            let name = format!("{}/{}", resource.kind, resource.id);
            allowed.named.contains(&name)
        };
        let verdict = match &sighting.found.tags {
            _ if resource.kind == DATA => Verdict::Kept,
            Some(tags) if tags.owner == owner || allowed.any_owner => Verdict::Remove,
            Some(_) => Verdict::OtherOwner,
            None if named() => Verdict::Remove,
            None => Verdict::UnknownOwner,
        };
        let key = (verdict, sighting.found.tags.clone());
        groups.entry(key).or_default().push(sighting);
    }
    join_local(&mut groups);
    let group = |((verdict, tags), mut things): ((Verdict, Option<Tags>), Vec<Sighting>)| {
        things.sort_by(|a, b| order(a).cmp(&order(b)));
        Group {
            tags,
            verdict,
            things,
        }
    };
    groups.into_iter().map(group).collect()
}

/// Directories and processes of this machine do not know their deployment's uid: they go with the
/// rest of a deployment of their name, if there is one.
fn join_local(groups: &mut BTreeMap<(Verdict, Option<Tags>), Vec<Sighting>>) {
    let local = |(_, tags): &&(Verdict, Option<Tags>)| {
        let tags = tags.as_ref();
        tags.is_some_and(|tags| tags.uid.is_empty())
    };
    let keys: Vec<_> = groups.keys().filter(local).cloned().collect();
    for key in keys {
        let rest = groups.keys().find(|(verdict, tags)| {
            let same = |a: &Tags, b: &Tags| a.owner == b.owner && a.deployment == b.deployment;
            let both = tags.as_ref().zip(key.1.as_ref());
            *verdict == key.0 && both.is_some_and(|(a, b)| !a.uid.is_empty() && same(a, b))
        });
        if let Some(rest) = rest.cloned() {
            let things = groups.remove(&key).unwrap_or_default();
            groups.entry(rest).or_default().extend(things);
        }
    }
}

/// Machines, then their parts, then what they share, then what they stand on, then images.
fn order(sighting: &Sighting) -> (u8, &Place, &str, &str) {
    let found = &sighting.found;
    let kind = found.resource.kind.as_str();
    let rank = match kind {
        "domain" | "instance" | "machine" | "member" => 0,
        ACCOUNT => 2,
        PROCESS => 7,
        DIR | "directory" => 8,
        ROSTER_GROUP | "network" | "security-group" => 4,
        "experiment" => 5,
        // The claim to a machine, under which its parts are.
        "host" => 6,
        "image" | "ami" => 9,
        "snapshot" => 10,
        _ if found.node.is_some() => 1,
        _ => 3,
    };
    (rank, &sighting.place, kind, &found.resource.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::NodeName;
    use crate::provider::{Found, Health};

    const ME: &str = "00000000000000aa";
    const OTHER: &str = "00000000000000bb";

    fn tags(owner: &str, deployment: &str, uid: &str) -> Option<Tags> {
        Some(Tags {
            owner: owner.to_owned(),
            deployment: deployment.to_owned(),
            uid: uid.to_owned(),
        })
    }

    fn resource(kind: &str, id: &str) -> Resource {
        Resource {
            kind: kind.to_owned(),
            id: id.to_owned(),
        }
    }

    fn seen(place: &str, kind: &str, id: &str, tags: Option<Tags>) -> Sighting {
        let node = id.contains("worker").then(|| NodeName("worker-0".into()));
        Sighting {
            place: match place {
                "machine" => Place::Machine,
                "rendezvous" => Place::Rendezvous,
                site => Place::Site(site.to_owned()),
            },
            found: Found {
                resource: resource(kind, id),
                handle: None,
                tags,
                node,
                health: Health::Present,
            },
            made: None,
        }
    }

    fn ids(group: &Group) -> Vec<&str> {
        let things = group.things.iter();
        things.map(|s| s.found.resource.id.as_str()).collect()
    }

    #[test]
    fn without_a_database_everything_of_ours_goes_machines_first_and_images_last() {
        let ours = || tags(ME, "demo", "1");
        let things = vec![
            seen("cloud", "snapshot", "s", ours()),
            seen("cloud", "image", "a", ours()),
            seen(
                "machine",
                "directory",
                "/s/deployments/demo",
                tags(ME, "demo", ""),
            ),
            seen("cloud", "security-group", "g", ours()),
            seen("local", "network", "n", ours()),
            seen("local", "volume", "worker-0.qcow2", ours()),
            seen("rendezvous", "roster-group", "demo-1", ours()),
            seen("rendezvous", "account", "demo-1.worker-0@x", ours()),
            seen("local", "domain", "worker-0", ours()),
            seen("lab", "experiment", "e", ours()),
        ];
        let groups = leftovers(things, &Known::default(), ME, &Allowed::default());
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].verdict, Verdict::Remove);
        assert_eq!(
            ids(&groups[0]),
            [
                "worker-0",
                "worker-0.qcow2",
                "demo-1.worker-0@x",
                "g",
                "n",
                "demo-1",
                "e",
                "/s/deployments/demo",
                "a",
                "s"
            ]
        );
    }

    #[test]
    fn what_a_living_deployment_made_or_uses_is_not_left_over() {
        let known = Known {
            uids: ["2".to_owned()].into(),
            names: ["lake".to_owned()].into(),
            resources: [
                (resource("volume", "base"), None),
                (resource("instance", "i"), Some("i-1".to_owned())),
            ]
            .into(),
        };
        let mut namesake = seen("cloud", "instance", "i", tags(ME, "lake", "1"));
        namesake.found.handle = Some("i-0".to_owned());
        let things = vec![
            seen("local", "domain", "new", tags(ME, "lake", "2")),
            seen("local", "volume", "base", tags(ME, "demo", "1")),
            seen("machine", "directory", "lake", tags(ME, "lake", "")),
            namesake,
        ];
        let groups = leftovers(things, &known, ME, &Allowed::default());
        assert_eq!(groups.len(), 1, "{groups:?}");
        assert_eq!(ids(&groups[0]), ["i"]);
        assert_eq!(groups[0].things[0].found.handle.as_deref(), Some("i-0"));
    }

    #[test]
    fn data_is_kept_whoever_owns_it_and_whatever_the_user_allows() {
        let data = |owner, deployment| {
            let name = format!("{owner}-{deployment}");
            seen("local", DATA, &name, tags(owner, deployment, ""))
        };
        let things = vec![
            data(ME, "gone"),
            data(OTHER, "gone"),
            data(ME, "lake"),
            seen("machine", "directory", "/d/gone", tags(ME, "gone", "")),
        ];
        let known = Known {
            resources: [(resource(DATA, &format!("{ME}-lake")), None)].into(),
            ..Known::default()
        };
        let all = Allowed {
            any_owner: true,
            named: things
                .iter()
                .map(|s| format!("{DATA}/{}", s.found.resource.id))
                .collect(),
        };
        let groups = leftovers(things, &known, ME, &all);
        let kept: Vec<_> = groups.iter().map(|g| (g.verdict, ids(g))).collect();
        let (mine, theirs) = (format!("{ME}-gone"), format!("{OTHER}-gone"));
        assert_eq!(
            kept,
            [
                (Verdict::Remove, vec!["/d/gone"]),
                (Verdict::Kept, vec![mine.as_str()]),
                (Verdict::Kept, vec![theirs.as_str()]),
            ]
        );
    }

    #[test]
    fn what_others_made_and_what_has_no_tags_stays_unless_the_user_says_so() {
        let things = || {
            vec![
                seen("local", "domain", "theirs", tags(OTHER, "demo", "1")),
                seen("local", "domain", "nameless", None),
                seen("local", "volume", "nameless", None),
            ]
        };
        let verdicts = |allowed: &Allowed| {
            let groups = leftovers(things(), &Known::default(), ME, allowed);
            let flat = groups.iter().flat_map(|g| {
                let ids = ids(g).into_iter().map(str::to_owned);
                ids.map(|id| (g.verdict, id)).collect::<Vec<_>>()
            });
            flat.collect::<Vec<_>>()
        };
        let (theirs, nameless) = ("theirs".to_owned(), "nameless".to_owned());
        assert_eq!(
            verdicts(&Allowed::default()),
            [
                (Verdict::OtherOwner, theirs.clone()),
                (Verdict::UnknownOwner, nameless.clone()),
                (Verdict::UnknownOwner, nameless.clone()),
            ]
        );
        let all = Allowed {
            any_owner: true,
            named: ["volume/nameless".to_owned()].into(),
        };
        assert_eq!(
            verdicts(&all),
            [
                (Verdict::Remove, nameless.clone()),
                (Verdict::Remove, theirs),
                (Verdict::UnknownOwner, nameless),
            ]
        );
    }
}
