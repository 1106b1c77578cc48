//! Creates, continues or scales: brings a deployment to what is wanted and waits for its nodes.

use std::collections::BTreeMap;

use super::destroy::plain;
use super::engine::{Converged, Engine};
use super::join::{Limits, Wait, join};
use super::outcome::{NodeOutcome, Outcome};
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;
use crate::plan::{FRONTEND, is_worker};
use crate::state::record::{Key, Phase};

/// How a deployment is brought to what is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long nodes may take to join.
    pub limits: Limits,
    /// Workers that must join; all without it.
    pub quorum: Option<u32>,
    /// Most machines that may be replaced because they do not join.
    pub replace: u32,
    /// Whether to wait until nodes have joined.
    pub wait: bool,
}

impl Engine<'_> {
    /// Makes what is wanted and not there, removes what is not wanted, and waits until the nodes
    /// have joined. What was made stays, whatever happens: [`Self::apply`] continues, and
    /// [`Self::destroy`] removes.
    pub fn apply(&self, options: &Options) -> Result<Outcome, CliError> {
        let mut left = options.replace;
        let scene = self.scene(self.database.nodes(self.deployment.id)?)?;
        let workers = scene.plan.worker_count();
        let quorum = options
            .quorum
            .map_or(workers, |quorum| (quorum as usize).min(workers));
        let joining = options.wait.then_some(quorum);
        let mut converged = self.converge(joining)?;
        while let Some(nodes) = replaceable(&converged, left) {
            if self.opened.early.is_enough() {
                break;
            }
            left -= u32::try_from(nodes.len()).unwrap_or(left);
            converged = self.replace(&nodes, joining)?;
        }
        let scene = self.scene(self.database.nodes(self.deployment.id)?)?;
        // With too few machines nobody need wait to know how it ends.
        let role = |name: &NodeName| scene.plan.nodes.iter().find(|n| n.name == *name);
        let failed = converged.failed.keys().filter_map(role);
        let (failed, lacks): (Vec<_>, Vec<_>) = failed.partition(|n| is_worker(&n.role));
        if !lacks.is_empty() || workers.saturating_sub(failed.len()) < quorum {
            return Err(too_few(converged, workers, quorum));
        }
        let failed = reasons(&converged.failed);
        let outcome = if options.wait {
            self.step("waiting for the nodes to join");
            let wait = Wait {
                plan: &scene.plan,
                limits: options.limits,
                quorum,
                failed,
            };
            join(self, wait, &mut |nodes| {
                let count = nodes.len().min(left as usize);
                let nodes = &nodes[..count];
                if nodes.is_empty() {
                    return Ok(BTreeMap::new());
                }
                left -= u32::try_from(count).unwrap_or(left);
                let mut failed = reasons(&self.replace(nodes, None)?.failed);
                Ok(nodes
                    .iter()
                    .map(|n| (n.clone(), failed.remove(n)))
                    .collect())
            })?
        } else {
            let nodes = scene.plan.machines().iter().map(NodeOutcome::of).collect();
            Outcome {
                name: scene.plan.name.clone(),
                joined: false,
                enough: true,
                waited: false,
                seconds: self.began.elapsed().as_secs_f64(),
                nodes,
            }
        };
        self.check_leftover(converged.leftover)?;
        let phase = match (outcome.waited, outcome.joined) {
            (false, _) => Phase::Started,
            (true, true) => Phase::Joined,
            (true, false) => Phase::Partial,
        };
        self.database.set_phase(self.deployment.id, phase)?;
        Ok(outcome)
    }

    /// Removes the machines of nodes and makes others.
    fn replace(&self, nodes: &[NodeName], joining: Option<usize>) -> Result<Converged, CliError> {
        for node in nodes {
            self.step(format!("{node}: another machine is made in its place"));
            self.database.replace_node(self.deployment.id, node)?;
            self.opened.early.forget(node);
        }
        self.converge(joining)
    }

    fn check_leftover(&self, leftover: Vec<(Key, CliError)>) -> Result<(), CliError> {
        let named: Vec<_> = leftover
            .iter()
            .map(|(key, _)| format!("{} `{}`", plain(&key.resource.kind), key.resource.id))
            .collect();
        let Some((_, first)) = leftover.into_iter().next() else {
            return Ok(());
        };
        let name = &self.deployment.name;
        let message = format!("of `{name}` could not be removed: {}", named.join(", "));
        Err(CliError::new(ExitCode::Leftover, message)
            .caused_by(first.one_line())
            .hint(format!(
                "repair the cause and run `provision resume {name}`"
            )))
    }
}

/// Workers that failed and may be replaced.
fn replaceable(converged: &Converged, left: u32) -> Option<Vec<NodeName>> {
    let workers = converged
        .failed
        .keys()
        .filter(|n| !n.0.starts_with(FRONTEND));
    let nodes: Vec<_> = workers.take(left as usize).cloned().collect();
    (!nodes.is_empty()).then_some(nodes)
}

fn reasons(failed: &BTreeMap<NodeName, CliError>) -> BTreeMap<NodeName, String> {
    let reason = |(node, error): (&NodeName, &CliError)| (node.clone(), error.one_line());
    failed.iter().map(reason).collect()
}

/// The first failure, with what others there are.
fn too_few(converged: Converged, workers: usize, quorum: usize) -> CliError {
    let names: Vec<_> = converged.failed.keys().map(|n| n.0.clone()).collect();
    let Some(first) = converged.failed.into_values().next() else {
        let message = format!("there are {workers} workers, and {quorum} are to join");
        return CliError::new(ExitCode::Usage, message);
    };
    match names.len() {
        1 => first,
        n => first.hint(format!(
            "{n} machines could not be made: {}",
            names.join(", ")
        )),
    }
}
