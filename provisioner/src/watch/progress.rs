//! From presences to stages: a state machine without time and without I/O.

use std::collections::BTreeMap;

use ipop_proto::status::{Advertisement, RoleState};

use crate::event::Stage;
use crate::name::NodeName;

/// What happened to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It reached a stage: signed in, linked or ready, always in this order.
    Reached(Stage),
    /// Its role's health check failed; it may still become ready.
    RoleFailed {
        /// What the check printed last.
        detail: String,
    },
    /// Its link to the front end is gone; it has to reach `Linked` again.
    Unlinked,
    /// It left the rendezvous; it has to reach everything again.
    Lost,
}

/// A change of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeChange {
    /// The node.
    pub node: NodeName,
    /// What happened.
    pub change: Change,
}

/// How far the expected nodes of a deployment are.
///
/// A worker is linked when it says that it has a link to the front end. The front end is linked
/// when it has a link to every expected worker that signed in, and to one at least unless none is
/// expected; workers that come later do not take that back. A node is ready when it is linked and
/// its role says so.
#[derive(Debug, Clone)]
pub struct Progress {
    frontend: NodeName,
    nodes: BTreeMap<NodeName, Node>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    present: Option<Present>,
    reached: Option<Stage>,
    failure: Option<String>,
}

#[derive(Debug, Clone)]
struct Present {
    jid: String,
    advertisement: Advertisement,
}

impl Progress {
    /// Nothing has been seen of `nodes` yet; `frontend` is one of them.
    pub fn new(frontend: NodeName, nodes: impl IntoIterator<Item = NodeName>) -> Self {
        let mut nodes: BTreeMap<_, _> = nodes
            .into_iter()
            .map(|node| (node, Node::default()))
            .collect();
        nodes.entry(frontend.clone()).or_default();
        Self { frontend, nodes }
    }

    /// A node says something of itself. Who it is comes from its account, never from what it says.
    pub fn presence(
        &mut self,
        node: &NodeName,
        jid: &str,
        advertisement: Advertisement,
    ) -> Vec<NodeChange> {
        let mut changes = Vec::new();
        let Some(known) = self.nodes.get_mut(node) else {
            return changes;
        };
        let before = known.failure.take();
        if let RoleState::Failed { detail } = &advertisement.role {
            known.failure = Some(detail.clone());
            if before.as_ref() != Some(detail) {
                let change = Change::RoleFailed {
                    detail: detail.clone(),
                };
                changes.push(NodeChange {
                    node: node.clone(),
                    change,
                });
            }
        }
        known.present = Some(Present {
            jid: jid.to_owned(),
            advertisement,
        });
        self.settle(&mut changes);
        // Signing in comes first even for a node whose first word is of a failure.
        changes.sort_by_key(|change| matches!(change.change, Change::RoleFailed { .. }));
        changes
    }

    /// A full JID is gone. That of an earlier session of a node that came back changes nothing.
    pub fn unavailable(&mut self, jid: &str) -> Vec<NodeChange> {
        let mut changes = Vec::new();
        for (name, node) in &mut self.nodes {
            if node
                .present
                .as_ref()
                .is_some_and(|present| present.jid == jid)
            {
                *node = Node::default();
                changes.push(NodeChange {
                    node: name.clone(),
                    change: Change::Lost,
                });
            }
        }
        self.settle(&mut changes);
        changes
    }

    /// The stage a node is at, as far as the rendezvous can tell.
    pub fn stage(&self, node: &NodeName) -> Option<Stage> {
        self.nodes.get(node)?.reached
    }

    /// Why a node's role is not healthy, when it said so.
    pub fn failure(&self, node: &NodeName) -> Option<&str> {
        self.nodes.get(node)?.failure.as_deref()
    }

    /// A node's full JID while it is signed in.
    pub fn jid(&self, node: &NodeName) -> Option<&str> {
        Some(&self.nodes.get(node)?.present.as_ref()?.jid)
    }

    /// What a node says of itself while it is signed in.
    pub fn advertisement(&self, node: &NodeName) -> Option<&Advertisement> {
        Some(&self.nodes.get(node)?.present.as_ref()?.advertisement)
    }

    /// The node that the others link to.
    pub fn frontend(&self) -> &NodeName {
        &self.frontend
    }

    /// Whether every expected node is signed in, linked and ready, all at this moment.
    pub fn all_joined(&self) -> bool {
        self.nodes.keys().all(|node| {
            self.stage(node) == Some(Stage::Ready) && self.linked(node) && self.role_ready(node)
        })
    }

    /// Brings every node's stage in line with what is known, appending what changed.
    fn settle(&mut self, changes: &mut Vec<NodeChange>) {
        let names: Vec<NodeName> = self.nodes.keys().cloned().collect();
        for name in names {
            let linked = self.linked(&name);
            let ready = self.role_ready(&name);
            let is_frontend = name == self.frontend;
            let Some(node) = self.nodes.get_mut(&name) else {
                continue;
            };
            if node.present.is_none() {
                continue;
            }
            let mut note = |change| {
                changes.push(NodeChange {
                    node: name.clone(),
                    change,
                })
            };
            if !linked && !is_frontend && node.reached >= Some(Stage::Linked) {
                node.reached = Some(Stage::SignedIn);
                note(Change::Unlinked);
            }
            let steps = [
                (Stage::SignedIn, true),
                (Stage::Linked, linked),
                (Stage::Ready, ready),
            ];
            for (stage, holds) in steps {
                if node.reached >= Some(stage) {
                    continue;
                }
                if !holds {
                    break;
                }
                node.reached = Some(stage);
                note(Change::Reached(stage));
            }
        }
    }

    fn linked(&self, node: &NodeName) -> bool {
        let Some(advertisement) = self.advertisement(node) else {
            return false;
        };
        let has = |name: &NodeName| advertisement.linked.contains(&name.0);
        if *node != self.frontend {
            return has(&self.frontend);
        }
        let mut workers = self
            .nodes
            .iter()
            .filter(|(name, _)| **name != self.frontend)
            .peekable();
        if workers.peek().is_none() {
            return true;
        }
        let mut present = workers
            .filter(|(_, worker)| worker.present.is_some())
            .peekable();
        present.peek().is_some() && present.all(|(name, _)| has(name))
    }

    fn role_ready(&self, node: &NodeName) -> bool {
        self.advertisement(node)
            .is_some_and(|a| a.role == RoleState::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipop_proto::address::OverlayAddrs;

    fn name(text: &str) -> NodeName {
        NodeName(text.to_owned())
    }

    fn says(role: RoleState, linked: &[&str]) -> Advertisement {
        Advertisement {
            name: "what-it-claims".to_owned(),
            addrs: OverlayAddrs {
                ipv4: "10.73.0.2/24".parse().expect("valid"),
                ipv6: "fd5a::2/64".parse().expect("valid"),
            },
            role,
            linked: linked.iter().map(|l| (*l).to_owned()).collect(),
            version: "0.1.0".to_owned(),
            fingerprint: None,
        }
    }

    fn cluster() -> Progress {
        Progress::new(name("f"), [name("w0"), name("w1")])
    }

    fn reached(changes: &[NodeChange]) -> Vec<(String, Stage)> {
        changes
            .iter()
            .map(|change| match &change.change {
                Change::Reached(stage) => (change.node.0.clone(), *stage),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    const PENDING: RoleState = RoleState::Pending;
    const READY: RoleState = RoleState::Ready;

    #[test]
    fn a_cluster_joins_step_by_step() {
        let mut p = cluster();
        let at = |p: &mut Progress, node: &str, role, linked: &[&str]| {
            reached(&p.presence(&name(node), &format!("{node}@d/1"), says(role, linked)))
        };
        assert_eq!(at(&mut p, "f", READY, &[]), [("f".into(), Stage::SignedIn)]);
        assert_eq!(
            at(&mut p, "w0", PENDING, &[]),
            [("w0".into(), Stage::SignedIn)]
        );
        assert_eq!(
            at(&mut p, "w0", PENDING, &["f"]),
            [("w0".into(), Stage::Linked)]
        );
        assert_eq!(
            at(&mut p, "f", READY, &["w0"]),
            [("f".into(), Stage::Linked), ("f".into(), Stage::Ready)]
        );
        assert_eq!(
            at(&mut p, "w0", READY, &["f"]),
            [("w0".into(), Stage::Ready)]
        );
        assert!(!p.all_joined(), "w1 is missing");
        assert_eq!(
            at(&mut p, "w1", READY, &["f", "w0"]),
            [
                ("w1".into(), Stage::SignedIn),
                ("w1".into(), Stage::Linked),
                ("w1".into(), Stage::Ready)
            ]
        );
        assert!(!p.all_joined(), "the front end has no link to w1 yet");
        assert_eq!(at(&mut p, "f", READY, &["w0", "w1"]), []);
        assert!(p.all_joined());
    }

    #[test]
    fn a_front_end_without_any_worker_in_sight_is_not_linked_unless_none_is_expected() {
        let mut p = cluster();
        p.presence(&name("f"), "f@d/1", says(READY, &[]));
        assert_eq!(p.stage(&name("f")), Some(Stage::SignedIn));
        let mut alone = Progress::new(name("f"), []);
        alone.presence(&name("f"), "f@d/1", says(READY, &[]));
        assert!(alone.all_joined());
    }

    #[test]
    fn a_role_that_is_ready_without_a_link_does_not_count() {
        let mut p = cluster();
        p.presence(&name("w0"), "w0@d/1", says(READY, &["w1"]));
        assert_eq!(p.stage(&name("w0")), Some(Stage::SignedIn));
    }

    #[test]
    fn a_node_that_leaves_has_to_do_it_all_again() {
        let mut p = cluster();
        p.presence(&name("w0"), "w0@d/1", says(READY, &["f"]));
        assert_eq!(p.stage(&name("w0")), Some(Stage::Ready));
        let lost = NodeChange {
            node: name("w0"),
            change: Change::Lost,
        };
        assert_eq!(p.unavailable("w0@d/1"), [lost]);
        assert_eq!(p.stage(&name("w0")), None);
        assert_eq!(p.unavailable("w0@d/1"), []);
        assert_eq!(
            p.presence(&name("w0"), "w0@d/2", says(READY, &["f"])).len(),
            3
        );
    }

    #[test]
    fn the_end_of_an_earlier_session_does_not_lose_a_node_that_came_back() {
        let mut p = cluster();
        p.presence(&name("w0"), "w0@d/1", says(PENDING, &[]));
        p.presence(&name("w0"), "w0@d/2", says(PENDING, &[]));
        assert_eq!(p.unavailable("w0@d/1"), []);
        assert_eq!(p.jid(&name("w0")), Some("w0@d/2"));
    }

    #[test]
    fn a_lost_link_is_told_and_has_to_come_back() {
        let mut p = cluster();
        p.presence(&name("w0"), "w0@d/1", says(READY, &["f"]));
        let unlinked = NodeChange {
            node: name("w0"),
            change: Change::Unlinked,
        };
        assert_eq!(
            p.presence(&name("w0"), "w0@d/1", says(READY, &[])),
            [unlinked]
        );
        assert_eq!(
            reached(&p.presence(&name("w0"), "w0@d/1", says(READY, &["f"]))),
            [("w0".into(), Stage::Linked), ("w0".into(), Stage::Ready)]
        );
    }

    #[test]
    fn a_failed_role_is_told_once_and_may_recover() {
        let mut p = cluster();
        let failed = || RoleState::Failed {
            detail: "mount: timed out".to_owned(),
        };
        let changes = p.presence(&name("w0"), "w0@d/1", says(failed(), &["f"]));
        assert_eq!(changes[0].change, Change::Reached(Stage::SignedIn));
        assert_eq!(changes[1].change, Change::Reached(Stage::Linked));
        assert_eq!(
            changes[2].change,
            Change::RoleFailed {
                detail: "mount: timed out".into()
            }
        );
        assert_eq!(changes.len(), 3);
        assert_eq!(
            p.presence(&name("w0"), "w0@d/1", says(failed(), &["f"])),
            []
        );
        assert_eq!(p.failure(&name("w0")), Some("mount: timed out"));
        let changes = p.presence(&name("w0"), "w0@d/1", says(READY, &["f"]));
        assert_eq!(reached(&changes), [("w0".into(), Stage::Ready)]);
        assert_eq!(p.failure(&name("w0")), None);
    }

    #[test]
    fn a_stranger_changes_nothing() {
        let mut p = cluster();
        assert_eq!(p.presence(&name("w9"), "w9@d/1", says(READY, &["f"])), []);
        assert_eq!(p.stage(&name("w9")), None);
    }
}
