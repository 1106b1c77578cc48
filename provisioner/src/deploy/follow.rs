//! Has elastic workers come and go while the deployment stays what it is.

use std::time::Duration;

use super::apply::Options;
use super::engine::Engine;
use super::join::Limits;
use crate::error::CliError;
use crate::plan::NodePlan;
use crate::plan::scale::Scaling;
use crate::state::record::Phase;

impl Engine<'_> {
    /// Makes the machines of new workers and removes those of others, and finishes what an earlier call
    /// left. Whether workers join is the scheduler's to judge; nobody is waited for.
    pub fn follow(&self, scaling: &Scaling) -> Result<(), CliError> {
        let deployment = self.deployment;
        let added: Vec<_> = scaling.added.iter().map(NodePlan::record).collect();
        let removed = &scaling.removed;
        self.database
            .rescale(deployment.id, &deployment.settings, &added, removed)?;
        let options = Options {
            limits: Limits {
                timeout: None,
                poll: Duration::ZERO,
            },
            quorum: None,
            replace: 0,
            wait: false,
        };
        let result = self.apply(&options);
        // How far the others are does not change by this.
        if !matches!(deployment.phase, Phase::Creating | Phase::Scaling) {
            self.database.set_phase(deployment.id, deployment.phase)?;
        }
        result.map(drop)
    }
}
