//! Certificates that a command revoked, and who knows of it.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::authority::Revocation;
use crate::authority::told::Told;
use crate::name::NodeName;

/// How long nodes have to say that the list is in force.
const LIMIT: Duration = Duration::from_secs(5);

/// What became of certificates of machines.
#[derive(Debug, Serialize)]
pub(super) struct Revoked {
    /// Number of the revocation list.
    list: u64,
    /// How many certificates of the machines it has.
    certificates: usize,
    /// Whether there may be others, signed by an older version.
    may_have_others: bool,
    /// Nodes that say that it is in force; none if nobody tells them, as long as what always runs
    /// beside the rendezvous does not.
    acknowledged: Option<Vec<NodeName>>,
    /// Nodes that are online and have not said so yet.
    silent: Vec<NodeName>,
}

impl Revoked {
    /// Counts what became of one machine's in `all`, which is none as long as there are none.
    pub fn add(all: &mut Option<Self>, one: &Revocation) {
        let (Some(list), 1..) = (one.list, one.certificates) else {
            return;
        };
        let all = all.get_or_insert(Self {
            list,
            certificates: 0,
            may_have_others: false,
            acknowledged: None,
            silent: Vec::new(),
        });
        all.list = list;
        all.certificates += one.certificates;
        all.may_have_others |= one.may_have_others;
    }

    /// Waits until nodes have the list, but not for long. `dir` is the authority's, and `without` are
    /// nodes that are removed.
    pub fn wait(self, dir: &Path, without: &[NodeName]) -> Self {
        let told = Told::wait(dir, self.list, without, LIMIT);
        let (acknowledged, silent) = match told {
            Some(told) => (Some(told.acknowledged), told.silent),
            None => (None, Vec::new()),
        };
        Self {
            acknowledged,
            silent,
            ..self
        }
    }

    /// For people.
    pub fn text(&self, deployment: &str) -> String {
        let Self { list, silent, .. } = self;
        let mut out = match &self.acknowledged {
            None => format!(
                "nobody was told revocation list {list} yet: what runs beside the rendezvous does not \
                 answer; `provision resume {deployment}` starts it\n"
            ),
            Some(have) => {
                let (have, all) = (have.len(), have.len() + silent.len());
                format!(
                    "revocation list {list} is in force at {have} of {all} nodes that are online\n"
                )
            }
        };
        if !silent.is_empty() {
            let silent = joined(silent);
            out += &format!("not yet: {silent}; they are told again, and by each other\n");
        }
        out
    }
}

/// Names for people.
pub(super) fn joined(nodes: &[NodeName]) -> String {
    let names: Vec<_> = nodes.iter().map(|node| node.0.as_str()).collect();
    names.join(", ")
}
