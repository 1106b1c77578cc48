//! Who was invited, got a certificate, was refused and was taken out, for whoever asks later.
//!
//! ```text
//! STATE/audit/NAME.jsonl      0600  records of the deployments of this name, one a line
//! STATE/audit/NAME.jsonl.1    0600  older ones, once that is full
//! ```
//!
//! The records stay when a deployment is destroyed: who was in is asked afterwards. What lets
//! somebody in or takes somebody out is recorded first, so that whoever is killed in between leaves a
//! record too many and not one too few. A record that cannot be written is told, and keeps nobody from anything.

use std::collections::BTreeMap;
use std::time::SystemTime;

use ipop_node::audit::Trail;
use ipop_proto::audit::{Event, Record};

use crate::layout::Layout;
use crate::name::NodeName;
use crate::state::record::NodeRecord;

/// Most bytes of one file, of which there are two.
pub const LIMIT: u64 = 8 << 20;

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A command on the owner's machine, called by somebody or when its time comes.
    Owner,
    /// What always runs beside the rendezvous and answers nodes.
    Registrar,
}

/// Where the records of a deployment go.
#[derive(Debug, Clone)]
pub struct Audit {
    trail: Trail,
    by: By,
    /// Whose machines the nodes are.
    people: BTreeMap<NodeName, String>,
}

impl By {
    fn word(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Registrar => "registrar",
        }
    }
}

impl Audit {
    /// Records of the deployment `name`. `nodes` are those whose people are known.
    pub fn new(layout: &Layout, name: &str, by: By, nodes: &[NodeRecord]) -> Self {
        let person = |node: &NodeRecord| Some((node.name.clone(), node.person.clone()?));
        Self {
            trail: Trail::new(layout.audit(name), LIMIT, true),
            by,
            people: nodes.iter().filter_map(person).collect(),
        }
    }

    /// Writes one down: who did it and whose machine it is are added.
    pub fn write(&self, record: Record) {
        let person = record.node.as_ref().and_then(|node| {
            let node = NodeName(node.clone());
            self.people.get(&node).cloned()
        });
        let record = Record {
            by: self.by.word().to_owned(),
            person: record.person.or(person),
            ..record
        };
        if let Err(error) = self.trail.append(&record) {
            let (path, event) = (self.trail.path().display(), &record.event);
            let node = record.node.as_deref().unwrap_or_default();
            tracing::warn!(%path, %event, node, %error, "a record is lost");
        }
    }

    /// Writes down what happened to a node, and why.
    pub fn note(&self, event: Event, node: &NodeName, why: Option<String>, now: SystemTime) {
        self.write(Record {
            node: Some(node.0.clone()),
            why,
            ..Record::new(event, now)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::demo;

    #[test]
    fn a_record_says_who_did_it_and_whose_machine_it_is() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let layout = Layout {
            state: dir.path().to_owned(),
            cache: dir.path().to_owned(),
        };
        let node = NodeRecord {
            person: Some("alice".to_owned()),
            ..demo().nodes[1].record()
        };
        let now = SystemTime::now();
        let audit = |by| Audit::new(&layout, "demo", by, std::slice::from_ref(&node));
        let other = &demo().nodes[0].name;
        audit(By::Registrar).note(Event::Certified, &node.name, None, now);
        audit(By::Owner).note(Event::AccountClosed, other, Some("done".to_owned()), now);
        let kept = Trail::new(layout.audit("demo"), LIMIT, true).read();
        let records = kept.expect("read").records;
        let said = records.iter().map(|r| (r.by.as_str(), r.person.as_deref()));
        let said: Vec<_> = said.collect();
        assert_eq!(said, [("registrar", Some("alice")), ("owner", None)]);
    }

    #[test]
    fn what_cannot_be_recorded_stops_nobody() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("no-directory");
        std::fs::write(&file, "").expect("written");
        let layout = Layout {
            state: file.clone(),
            cache: file,
        };
        let audit = Audit::new(&layout, "demo", By::Owner, &[]);
        audit.note(
            Event::Revoked,
            &demo().nodes[0].name,
            None,
            SystemTime::now(),
        );
    }
}
