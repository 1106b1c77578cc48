//! Data that outlives the machines of a deployment: what there is of it, and how it is deleted.

use std::time::{Duration, Instant};

use super::engine::Engine;
use crate::error::CliError;
use crate::event::Event;
use crate::name::NodeName;
use crate::provider::{DATA, Found, Removing, Resource};

/// How long deleting a volume may take.
const LIMIT: Duration = Duration::from_secs(300);

/// What was deleted, and what could not be.
#[derive(Debug, Default)]
pub struct Deleted {
    /// What is gone.
    pub deleted: Vec<Resource>,
    /// What is still there, and why.
    pub failed: Vec<(Resource, CliError)>,
}

impl Engine<'_> {
    /// The volumes with data that a site has for the deployment's name, those of shares that were removed
    /// included.
    pub fn data_at(&self, site: &str) -> Result<Vec<Found>, CliError> {
        let provider = self.provider(site)?;
        if !provider.keeps_data() {
            return Ok(Vec::new());
        }
        let mut found = provider.find(Some(&self.tags()))?;
        found.retain(|f| f.resource.kind == DATA);
        Ok(found)
    }

    /// Deletes the data that a site has: of one node, or of all. The machines must be gone.
    pub fn delete_data_at(&self, site: &str, of: Option<&NodeName>) -> Result<Deleted, CliError> {
        let mut all = Deleted::default();
        let found = self.data_at(site)?;
        let wanted = |f: &Found| of.is_none() || f.node.as_ref() == of;
        for data in found.into_iter().filter(wanted) {
            self.interrupt.check()?;
            let removed = self.provider(site)?.remove(&Removing {
                tags: &self.tags(),
                resource: &data.resource,
                handle: data.handle.as_deref(),
                deadline: Instant::now() + LIMIT,
                interrupt: self.interrupt,
            });
            match removed {
                Ok(()) => {
                    self.events.emit(Event::Step {
                        message: format!("deleted data volume `{}`", data.resource.id),
                    });
                    all.deleted.push(data.resource);
                }
                Err(error) => all.failed.push((data.resource, error)),
            }
        }
        Ok(all)
    }
}
