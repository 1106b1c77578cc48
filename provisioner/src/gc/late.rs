//! What appears only after looking: a host still carries out what a command that was killed had
//! asked of it. Of deployments that are removed it is looked for again, until nothing more comes.

use std::collections::BTreeSet;

use super::Sighting;
use super::plan::{Group, Verdict};
use super::remove::Removal;
use crate::error::CliError;

/// Looks after the first, at the most. One that finds something is followed by another.
const LOOKS: usize = 5;

/// Removes the groups that are to go, and what `look` then still finds of the same deployments. It
/// is told what was removed.
///
/// # Errors
///
/// Those of `remove` and `look`. What cannot be removed is in the result, and is not looked for
/// again.
pub fn remove_with_late(
    groups: Vec<Group>,
    mut remove: impl FnMut(Vec<Group>) -> Result<Removal, CliError>,
    mut look: impl FnMut(&[Sighting]) -> Result<Vec<Group>, CliError>,
) -> Result<Removal, CliError> {
    let going: BTreeSet<_> = groups.iter().filter_map(deployment).collect();
    let mut removal = remove(groups)?;
    if going.is_empty() {
        return Ok(removal);
    }
    for _ in 0..LOOKS {
        if !removal.left.is_empty() {
            break;
        }
        let mut late = look(&removal.removed)?;
        late.retain(|group| deployment(group).is_some_and(|d| going.contains(&d)));
        for group in &mut late {
            // A cloud may show for a while what is gone.
            let gone = |thing: &Sighting| removal.removed.iter().any(|r| is_same(r, thing));
            group.things.retain(|thing| !gone(thing));
        }
        late.retain(|group| !group.things.is_empty());
        if late.is_empty() {
            break;
        }
        let more = remove(late)?;
        removal.removed.extend(more.removed);
        removal.left.extend(more.left);
    }
    Ok(removal)
}

fn is_same(a: &Sighting, b: &Sighting) -> bool {
    (&a.place, &a.found.resource, &a.found.handle) == (&b.place, &b.found.resource, &b.found.handle)
}

/// Owner and name of the deployment whose things go. Its uid is not known to all of them.
fn deployment(group: &Group) -> Option<(String, String)> {
    let tags = group.tags.as_ref()?;
    let goes = group.verdict == Verdict::Remove;
    goes.then(|| (tags.owner.clone(), tags.deployment.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gc::Place;
    use crate::gc::remove::Left;
    use crate::provider::{Found, Health, Resource, Tags};

    fn group(verdict: Verdict, deployment: &str, id: &str) -> Group {
        let tags = Tags {
            owner: "me".to_owned(),
            deployment: deployment.to_owned(),
            uid: String::new(),
        };
        let found = Found {
            resource: Resource {
                kind: "network".to_owned(),
                id: id.to_owned(),
            },
            handle: None,
            tags: Some(tags.clone()),
            node: None,
            health: Health::Present,
        };
        Group {
            tags: Some(tags),
            verdict,
            things: vec![Sighting {
                place: Place::Machine,
                found,
                made: None,
            }],
        }
    }

    fn all_removed(groups: Vec<Group>) -> Result<Removal, CliError> {
        let removed = groups.into_iter().flat_map(|g| g.things).collect();
        Ok(Removal {
            removed,
            left: Vec::new(),
        })
    }

    fn ids(removal: &Removal) -> Vec<&str> {
        let removed = removal.removed.iter();
        removed.map(|s| s.found.resource.id.as_str()).collect()
    }

    #[test]
    fn what_comes_late_goes_too_but_not_what_belongs_to_others() {
        let mut looks = [
            vec![
                group(Verdict::Remove, "demo", "late"),
                group(Verdict::Remove, "other", "began-since"),
                group(Verdict::OtherOwner, "demo", "not-ours"),
            ],
            vec![group(Verdict::Remove, "demo", "later")],
            vec![group(Verdict::Remove, "demo", "late")],
        ]
        .into_iter();
        let first = vec![group(Verdict::Remove, "demo", "first")];
        let look = |_: &[Sighting]| Ok(looks.next().expect("it ends when nothing new is found"));
        let removal = remove_with_late(first, all_removed, look).expect("removed");
        assert_eq!(ids(&removal), ["first", "late", "later"]);
        assert!(looks.next().is_none(), "not every look was taken");
    }

    #[test]
    fn what_cannot_be_removed_is_not_tried_for_ever() {
        let stuck = |groups: Vec<Group>| {
            let left = groups.into_iter().flat_map(|g| g.things);
            let left = left.map(|thing| Left {
                thing,
                why: "in use".to_owned(),
            });
            Ok(Removal {
                removed: Vec::new(),
                left: left.collect(),
            })
        };
        let first = vec![group(Verdict::Remove, "demo", "first")];
        let removal = remove_with_late(first, stuck, |_| panic!("looked")).expect("told");
        assert_eq!(removal.left.len(), 1);
    }

    #[test]
    fn what_comes_again_and_again_is_given_up() {
        let mut count = 0;
        let look = |_: &[Sighting]| {
            count += 1;
            Ok(vec![group(Verdict::Remove, "demo", &count.to_string())])
        };
        let first = vec![group(Verdict::Remove, "demo", "first")];
        let removal = remove_with_late(first, all_removed, look).expect("ended");
        assert_eq!(removal.removed.len(), 1 + LOOKS);
    }
}
