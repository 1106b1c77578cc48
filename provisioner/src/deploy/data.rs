//! Data that outlives the machines of a deployment: what there is of it, and how it is deleted.

use std::time::{Duration, Instant};

use super::engine::Engine;
use crate::error::{CliError, ExitCode};
use crate::event::Event;
use crate::name::NodeName;
use crate::provider::{AtVolume, DATA, Found, Removing, Resource, Volumes};
use crate::state::record::NodeRecord;

/// How long it may take to delete a volume, or to give it more room.
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

    /// Gives the data of a node, on its site, room for `size_bytes` in all; never less than it has.
    pub fn grow_data(&self, node: &NodeRecord, size_bytes: u64) -> Result<(), CliError> {
        self.at_data(node, |volumes, at| volumes.grow(at, size_bytes))
    }

    /// Does something with the volume that has a node's data.
    fn at_data<T>(
        &self,
        node: &NodeRecord,
        work: impl FnOnce(&dyn Volumes, &AtVolume<'_>) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let provider = self.provider(&node.site)?;
        let Some(volumes) = provider.volumes() else {
            let message = format!("site {} has no volumes for data", node.site);
            return Err(CliError::new(ExitCode::Usage, message));
        };
        let found = self.data_at(&node.site)?;
        let mut own = found.iter().filter(|f| f.node.as_ref() == Some(&node.name));
        let Some(data) = own.next() else {
            let name = &self.deployment.name;
            let message = format!("there is no volume with the data of `{name}/{}`", node.name);
            return Err(CliError::new(ExitCode::Unavailable, message)
                .hint(format!("`provision resume {name}` makes it")));
        };
        self.interrupt.check()?;
        let at = AtVolume {
            tags: &self.tags(),
            node: &node.name,
            resource: &data.resource,
            deadline: Instant::now() + LIMIT,
            interrupt: self.interrupt,
            events: self.events,
        };
        work(volumes, &at)
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
