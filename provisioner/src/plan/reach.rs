//! What other rules change: who may begin more with whom, and who less. Pure.

use ipop_proto::config::{AllowSection, Selector};
use ipop_proto::policy::{Allowed, Member, Policy, summary};
use serde::Serialize;

/// Most names of nodes that are the same to the rules; the others are counted.
const MOST_NAMES: usize = 3;

/// What changes between nodes; what is not there does not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Who begins: nodes that are the same to the rules.
    pub from: String,
    /// With whom.
    pub to: String,
    /// What they may begin now, and could not.
    pub now: Option<String>,
    /// What they could, and may not now.
    pub no_more: Option<String>,
}

/// Nodes that are the same to the rules.
struct Kind<'a> {
    member: &'a Member,
    names: Vec<&'a str>,
}

/// All that changes when the rules are `after` in place of `before`; without rules everything is allowed.
pub fn changes(members: &[Member], before: &[AllowSection], after: &[AllowSection]) -> Vec<Change> {
    let kinds = kinds(members, before.iter().chain(after));
    let [before, after] = [before, after].map(Policy::new);
    let allowed = |policy: &Option<Policy>, from: &Kind<'_>, to: &Kind<'_>| {
        let of = |policy: &Policy| policy.allowed(from.member, to.member);
        policy.as_ref().map_or_else(Allowed::everything, of)
    };
    let mut changes = Vec::new();
    for from in &kinds {
        for to in &kinds {
            // Nobody reaches itself by the overlay.
            if std::ptr::eq(from, to) && from.names.len() < 2 {
                continue;
            }
            let (old, new) = (allowed(&before, from, to), allowed(&after, from, to));
            if old != new {
                changes.push(Change {
                    from: from.title(),
                    to: to.title(),
                    now: more(&old, &new),
                    no_more: less(&old, &new),
                });
            }
        }
    }
    changes
}

/// What is allowed, and was not.
fn more(old: &Allowed, new: &Allowed) -> Option<String> {
    let more = new.without(old);
    match more.is_nothing() {
        true => None,
        false if new.is_everything() => Some("everything".to_owned()),
        false => Some(summary(&more)),
    }
}

/// What was allowed, and is not.
fn less(old: &Allowed, new: &Allowed) -> Option<String> {
    let less = old.without(new);
    match (less.is_nothing(), old.is_everything()) {
        (true, _) => None,
        (false, true) if new.is_nothing() => Some("everything".to_owned()),
        (false, true) => Some(format!("everything but {}", summary(new))),
        (false, false) => Some(summary(&less)),
    }
}

fn kinds<'a>(
    members: &'a [Member],
    rules: impl Iterator<Item = &'a AllowSection>,
) -> Vec<Kind<'a>> {
    let selectors: Vec<_> = rules.flat_map(|rule| [&rule.from, &rule.to]).collect();
    let is_named = |member: &Member| {
        let names = |s: &&Selector| matches!(s, Selector::Node(name) if *name == member.name);
        selectors.iter().any(names)
    };
    let mut kinds: Vec<Kind<'_>> = Vec::new();
    for member in members {
        let is_same = |kind: &&mut Kind<'_>| {
            let other = kind.member;
            other.groups == member.groups && other.role == member.role && !is_named(other)
        };
        let found = kinds.iter_mut().find(is_same).filter(|_| !is_named(member));
        match found {
            Some(kind) => kind.names.push(&member.name),
            None => kinds.push(Kind {
                member,
                names: vec![&member.name],
            }),
        }
    }
    kinds
}

impl Kind<'_> {
    fn title(&self) -> String {
        let shown = self.names[..self.names.len().min(MOST_NAMES)].join(", ");
        match self.names.len().saturating_sub(MOST_NAMES) {
            0 => shown,
            1 => format!("{shown} and 1 other"),
            others => format!("{shown} and {others} others"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::policy::read_rules;

    fn member(name: &str, groups: &[&str], role: &str) -> Member {
        Member {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            role: Some(role.to_owned()),
        }
    }

    fn rules(text: &[(&str, &str, &str)]) -> Vec<AllowSection> {
        let rule = |(from, to, more): &(&str, &str, &str)| {
            format!("[[allow]]\nfrom = \"{from}\"\nto = \"{to}\"\n{more}\n")
        };
        let text: String = text.iter().map(rule).collect();
        read_rules(&text, "rules.toml").expect("rules")
    }

    fn told(members: &[Member], before: &[AllowSection], after: &[AllowSection]) -> Vec<String> {
        let line = |change: Change| {
            let Change {
                from,
                to,
                now,
                no_more,
            } = change;
            format!(
                "{from} -> {to}: +{} -{}",
                now.unwrap_or_default(),
                no_more.unwrap_or_default()
            )
        };
        changes(members, before, after)
            .into_iter()
            .map(line)
            .collect()
    }

    #[test]
    fn what_changes_is_told_once_for_all_who_are_the_same_to_the_rules() {
        let mut members = vec![
            member("frontend-0", &["cluster"], "frontend"),
            member("alice", &["crew"], "member"),
        ];
        for i in 0..5 {
            members.push(member(&format!("worker-{i}"), &["cluster"], "worker"));
        }
        let nfs = (
            "group:crew",
            "role:frontend",
            "protocol = \"tcp\"\nport = 2049",
        );
        let ssh = (
            "group:crew",
            "role:worker",
            "protocol = \"tcp\"\nport = [22, \"80-90\"]",
        );
        let less_ssh = (
            "group:crew",
            "role:worker",
            "protocol = \"tcp\"\nport = [\"82-90\", 443]",
        );
        let workers = "worker-0, worker-1, worker-2 and 2 others";
        assert_eq!(
            told(&members, &rules(&[nfs, ssh]), &rules(&[nfs, less_ssh])),
            [format!("alice -> {workers}: +tcp/443 -tcp/22, tcp/80-81")]
        );
        // One that is named is one of its own.
        let named = ("group:crew", "node:worker-1", "");
        assert_eq!(
            told(&members, &rules(&[nfs]), &rules(&[nfs, named])),
            ["alice -> worker-1: +everything -"]
        );
        // From and to no rules, and from what is to itself the same.
        let some = rules(&[nfs]);
        assert_eq!(
            told(&members, &[], &some),
            [
                "frontend-0 -> alice: + -everything".to_owned(),
                "alice -> frontend-0: + -everything but tcp/2049".to_owned(),
                format!("alice -> {workers}: + -everything"),
                format!("{workers} -> alice: + -everything"),
            ]
        );
        assert_eq!(told(&members, &some, &[]).len(), 4);
        assert!(told(&members, &some, &some).is_empty());
        // Two of the same kind reach each other, or do not.
        let two = [member("bob", &[], "member"), member("eve", &[], "member")];
        assert_eq!(
            told(&two, &[], &some),
            ["bob, eve -> bob, eve: + -everything"]
        );
    }
}
