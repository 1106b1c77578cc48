//! From what is wanted, recorded and observed to what is to be done, and in which order. Pure.
//!
//! | recorded | observed | wanted | not wanted |
//! |---|---|---|---|
//! | nothing, removed, wanted | | make, next attempt | nothing |
//! | planned | absent, present | make, same attempt | remove |
//! | planned | broken, going | remove, make, next attempt | remove |
//! | made | present, not observed | nothing | remove |
//! | made | absent | make, next attempt | remove |
//! | made | broken, going | remove, make, next attempt | remove |
//! | removing | | remove, make, next attempt | remove |
//!
//! Something is made after everything it needs, and removed after everything that was made for
//! the same attempt and needs it. A node whose machine is to be replaced has a higher
//! [`Item::node_attempt`] than what is recorded of it. What outlives its node ([`Scope::Data`]) is made
//! where the table says so, and never removed: it is released, and found there by whoever wants it next.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use crate::name::NodeName;
use crate::provider::{Health, Scope};
use crate::state::record::{Key, Owner, ResourceRecord, ResourceState, Verb};

/// Something wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What, and whose.
    pub key: Key,
    /// For whom.
    pub scope: Scope,
    /// What must be made before it.
    pub after: Vec<Key>,
    /// How long making it may take.
    pub deadline: Duration,
    /// The node's attempt, 1 for what is no node's.
    pub node_attempt: u32,
    /// Whether it is made anew when something is that needs it and is the same node's: an account
    /// whose first password one machine has used up.
    pub used_up: bool,
}

/// What is there, as its owners say.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Owners that were asked. Of others what is recorded is believed.
    pub asked: BTreeSet<Owner>,
    /// What they have.
    pub found: BTreeMap<Key, Health>,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Action {
    /// What.
    pub verb: Verb,
    /// With which resource.
    #[serde(flatten)]
    pub key: Key,
    /// For whom.
    pub scope: Scope,
    /// The attempt that is made, or of which it is removed.
    pub attempt: u32,
    /// The node's attempt, 1 for what is no node's.
    pub node_attempt: u32,
    /// Why it is done.
    pub why: Why,
    /// Indices of the actions that must be done before.
    pub needs: Vec<usize>,
    /// What the resource needs.
    #[serde(skip)]
    pub after: Vec<Key>,
    /// How long making it may take.
    #[serde(skip)]
    pub deadline: Duration,
}

impl Action {
    /// The node it is for, if for one.
    pub fn node(&self) -> Option<&NodeName> {
        self.scope.node()
    }
}

/// Why something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// It is not there.
    New,
    /// The command that made it was stopped: it may be there.
    Unfinished,
    /// It was made and is gone.
    Gone,
    /// It is there and does not serve, or another of its node is wanted.
    Replaced,
    /// It is shared with other deployments and may have been removed meanwhile.
    Shared,
    /// It is not wanted.
    Unwanted,
}

/// Everything to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is to be done.
    pub actions: Vec<Action>,
    /// What is recorded and is no business of the deployment any more.
    pub released: Vec<Key>,
}

/// How a wanted resource gets to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    Made(Why, u32),
    Replaced(u32),
}

/// Plans. `others` says whether another deployment uses a resource of [`Scope::Site`].
pub fn plan(
    wanted: &[Item],
    recorded: &[ResourceRecord],
    observed: &Observed,
    others: &dyn Fn(&Key) -> bool,
) -> Plan {
    let known: BTreeMap<&Key, &ResourceRecord> = recorded.iter().map(|r| (&r.key, r)).collect();
    let mut fates: BTreeMap<&Key, Fate> = wanted
        .iter()
        .map(|item| {
            (
                &item.key,
                fate(item, known.get(&item.key).copied(), observed),
            )
        })
        .collect();
    let dependents = dependents(wanted, recorded);
    replace_dependents(&mut fates, &known, &dependents);
    renew_used_up(wanted, &mut fates, &known);
    check_shared(wanted, &mut fates, &known, &dependents);

    let needed = needed(&fates, &known);
    let mut plan = Plan::default();
    let mut removals: BTreeMap<&Key, usize> = BTreeMap::new();
    for record in recorded.iter().rev() {
        let why = match fates.get(&record.key) {
            Some(Fate::Replaced(_)) if record.may_exist() => Why::Replaced,
            Some(_) => continue,
            None if needed.contains(&record.key) => continue,
            None => Why::Unwanted,
        };
        let stays = match record.scope {
            Scope::Site { keep } => why == Why::Unwanted && (keep || others(&record.key)),
            Scope::Data(_) => true,
            _ => false,
        };
        match record.state {
            ResourceState::Removed => {}
            ResourceState::Wanted => plan.released.push(record.key.clone()),
            _ if stays => plan.released.push(record.key.clone()),
            _ => {
                removals.insert(&record.key, plan.actions.len());
                plan.actions.push(removal(record, why));
            }
        }
    }
    for (key, index) in &removals {
        let after_it = dependents.get(key).into_iter().flatten();
        plan.actions[*index].needs = after_it
            .filter_map(|dependent| removals.get(dependent).copied())
            .collect();
    }
    let mut making: BTreeMap<&Key, usize> = BTreeMap::new();
    for item in wanted {
        let (why, attempt) = match fates.get(&item.key) {
            Some(Fate::Made(why, attempt)) => (*why, *attempt),
            Some(Fate::Replaced(attempt)) => (Why::Replaced, *attempt),
            _ => continue,
        };
        making.insert(&item.key, plan.actions.len());
        plan.actions.push(Action {
            verb: Verb::Make,
            key: item.key.clone(),
            scope: item.scope.clone(),
            attempt,
            node_attempt: item.node_attempt,
            why,
            needs: Vec::new(),
            after: item.after.clone(),
            deadline: item.deadline,
        });
    }
    for index in making.values() {
        let action = &plan.actions[*index];
        let made = action.after.iter().filter_map(|key| making.get(key));
        let removed = removals.get(&action.key);
        plan.actions[*index].needs = made.chain(removed).copied().collect();
    }
    plan
}

fn fate(item: &Item, record: Option<&ResourceRecord>, observed: &Observed) -> Fate {
    let Some(record) = record else {
        return Fate::Made(Why::New, 1);
    };
    let next = record.attempt.saturating_add(1);
    if let Scope::Data(_) = item.scope {
        let found = observed.found.contains_key(&item.key);
        let is_there = found || !observed.asked.contains(&item.key.owner);
        return match record.state {
            ResourceState::Made if is_there => Fate::Stays,
            ResourceState::Made => Fate::Made(Why::Gone, next),
            ResourceState::Planned => Fate::Made(Why::Unfinished, record.attempt),
            _ => Fate::Made(Why::New, next),
        };
    }
    let shared = matches!(item.scope, Scope::Site { .. });
    let health = match observed.found.get(&item.key) {
        _ if shared || !observed.asked.contains(&item.key.owner) => Some(Health::Present),
        found => found.copied(),
    };
    match (record.state, health) {
        (ResourceState::Wanted, _) if record.node_attempt == item.node_attempt => {
            Fate::Made(Why::New, record.attempt)
        }
        (ResourceState::Wanted | ResourceState::Removed, _) => Fate::Made(Why::New, next),
        (ResourceState::Removing, _) => Fate::Replaced(next),
        _ if record.node_attempt < item.node_attempt => Fate::Replaced(next),
        (_, Some(Health::Broken | Health::Going)) => Fate::Replaced(next),
        (ResourceState::Planned, _) => Fate::Made(Why::Unfinished, record.attempt),
        (ResourceState::Made, None) => Fate::Made(Why::Gone, next),
        (ResourceState::Made, Some(Health::Present)) => Fate::Stays,
    }
}

/// What needs each resource, as wanted and as recorded.
fn dependents<'a>(
    wanted: &'a [Item],
    recorded: &'a [ResourceRecord],
) -> BTreeMap<&'a Key, BTreeSet<&'a Key>> {
    let mut dependents: BTreeMap<&Key, BTreeSet<&Key>> = BTreeMap::new();
    let wanted = wanted.iter().map(|i| (&i.key, &i.after));
    let recorded = recorded.iter().map(|r| (&r.key, &r.after));
    for (key, after) in wanted.chain(recorded) {
        for needed in after {
            dependents.entry(needed).or_default().insert(key);
        }
    }
    dependents
}

/// What stands on something that is replaced is replaced too.
fn replace_dependents<'a>(
    fates: &mut BTreeMap<&'a Key, Fate>,
    known: &BTreeMap<&'a Key, &'a ResourceRecord>,
    dependents: &BTreeMap<&'a Key, BTreeSet<&'a Key>>,
) {
    let replaced =
        |(key, fate): (&&'a Key, &Fate)| matches!(fate, Fate::Replaced(_)).then_some(*key);
    let mut open: Vec<&Key> = fates.iter().filter_map(replaced).collect();
    while let Some(key) = open.pop() {
        for dependent in dependents.get(key).into_iter().flatten() {
            let (Some(record), Some(fate)) = (known.get(*dependent), fates.get_mut(*dependent))
            else {
                continue;
            };
            let outlives = matches!(record.scope, Scope::Data(_));
            if record.may_exist() && !outlives && !matches!(fate, Fate::Replaced(_)) {
                *fate = Fate::Replaced(record.attempt.saturating_add(1));
                open.push(dependent);
            }
        }
    }
}

/// What a machine used up is made anew for the next one.
fn renew_used_up<'a>(
    wanted: &'a [Item],
    fates: &mut BTreeMap<&'a Key, Fate>,
    known: &BTreeMap<&'a Key, &'a ResourceRecord>,
) {
    let by_key: BTreeMap<&Key, &Item> = wanted.iter().map(|i| (&i.key, i)).collect();
    for item in wanted {
        let anew = match fates.get(&item.key) {
            // Also the node's first machine: between its account and it may lie an interruption
            // that the token did not outlive. One that is alive stays the same.
            Some(Fate::Made(Why::New | Why::Gone, _) | Fate::Replaced(_)) => true,
            _ => false,
        };
        if !anew {
            continue;
        }
        for key in &item.after {
            let used_up = by_key
                .get(key)
                .is_some_and(|i| i.used_up && i.scope == item.scope);
            let Some(record) = known.get(key).filter(|_| used_up) else {
                continue;
            };
            if let Some(fate @ Fate::Stays) = fates.get_mut(key) {
                *fate = Fate::Made(Why::Replaced, record.attempt.saturating_add(1));
            }
        }
    }
}

/// What is shared is looked at again before something new stands on it: it carries the tags of
/// whoever made it, so that asking for one deployment's things does not show it.
fn check_shared<'a>(
    wanted: &'a [Item],
    fates: &mut BTreeMap<&'a Key, Fate>,
    known: &BTreeMap<&'a Key, &'a ResourceRecord>,
    dependents: &BTreeMap<&'a Key, BTreeSet<&'a Key>>,
) {
    // Backwards: a shared thing may stand on another.
    for item in wanted.iter().rev() {
        let Scope::Site { .. } = item.scope else {
            continue;
        };
        let mut standing = dependents.get(&item.key).into_iter().flatten();
        let stood_on = standing.any(|d| fates.get(*d).is_some_and(|f| *f != Fate::Stays));
        if let (true, Some(Fate::Stays), Some(record)) =
            (stood_on, fates.get(&item.key), known.get(&item.key))
        {
            fates.insert(&item.key, Fate::Made(Why::Shared, record.attempt));
        }
    }
}

/// What is not wanted by itself, but something that stays was made from it.
fn needed<'a>(
    fates: &BTreeMap<&'a Key, Fate>,
    known: &BTreeMap<&'a Key, &'a ResourceRecord>,
) -> BTreeSet<&'a Key> {
    let stays = |(key, fate): (&&'a Key, &Fate)| (*fate == Fate::Stays).then_some(*key);
    let mut open: Vec<&Key> = fates.iter().filter_map(stays).collect();
    let mut needed = BTreeSet::new();
    while let Some(key) = open.pop() {
        for below in known.get(key).into_iter().flat_map(|r| &r.after) {
            if needed.insert(below) {
                open.push(below);
            }
        }
    }
    needed
}

fn removal(record: &ResourceRecord, why: Why) -> Action {
    Action {
        verb: Verb::Remove,
        key: record.key.clone(),
        scope: record.scope.clone(),
        attempt: record.attempt,
        node_attempt: record.node_attempt,
        why,
        needs: Vec::new(),
        after: record.after.clone(),
        deadline: record.deadline,
    }
}
