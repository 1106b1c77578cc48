//! Data that outlives the machines of a deployment: what there is of it, and how it is deleted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::fault;
use super::planner::{Action, Plan, Why};
use crate::error::{CliError, ExitCode};
use crate::event::Event;
use crate::name::NodeName;
use crate::plan::share::Share;
use crate::provider::{AtVolume, DATA, Found, Health, Provider, Removing, Resource, Volumes};
use crate::state::record::{NodeRecord, Verb};

/// How long it may take to copy a volume: 1 TiB at 100 MB/s.
const COPY_LIMIT: Duration = Duration::from_secs(3 * 3600);
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
        self.at_data(node, LIMIT, |volumes, at| volumes.grow(at, size_bytes))
    }

    /// Copies the data of a node as it is at one moment.
    pub fn snapshot_data(&self, node: &NodeRecord, label: &str) -> Result<(), CliError> {
        self.at_data(node, COPY_LIMIT, |volumes, at| volumes.snapshot(at, label))
    }

    /// Makes the data of a node what it was when a snapshot was made, and starts its machine once `done` has
    /// recorded it: whoever does it again later, because a record says that it is to be done, would take away
    /// what was written since.
    pub fn restore_data(
        &self,
        node: &NodeRecord,
        (label, size_bytes): (&str, u64),
        done: impl FnOnce() -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let snapshots = self.snapshots(node)?;
        let found = snapshots.get(label).filter(|f| f.health == Health::Present);
        let Some(snapshot) = found else {
            let name = &self.deployment.name;
            let message = format!("`{name}/{}` has no whole snapshot `{label}`", node.name);
            return Err(CliError::new(ExitCode::Name, message));
        };
        let provider = self.provider(&node.site)?;
        self.with_volume(&*provider, (node, snapshot), COPY_LIMIT, |volumes, at| {
            volumes.restore(at, size_bytes)?;
            fault::at("data-copied");
            done()?;
            fault::at("restore-done");
            volumes.serve(at)
        })
    }

    /// Tells of data that is gone, before an empty volume takes its place.
    pub(super) fn tell_lost_data(&self, plan: &Plan) {
        let is_lost = |action: &&Action| {
            let of_data = action.key.resource.kind == DATA;
            of_data && action.verb == Verb::Make && action.why == Why::Gone
        };
        for action in plan.actions.iter().filter(is_lost) {
            let (name, volume) = (&self.deployment.name, &action.key.resource.id);
            let Some(node) = action.node() else { continue };
            self.events.emit(Event::Warning {
                message: format!(
                    "the data of `{name}/{node}` is lost: its volume `{volume}` is gone, and an empty one takes \
                     its place; `provision share snapshot {name}/{node} --list` shows whether there are copies"
                ),
            });
        }
    }

    /// Refuses while the data of a share is between two states: a machine that is made now would find nothing.
    pub(super) fn check_restored(&self, nodes: &[NodeRecord]) -> Result<(), CliError> {
        let is_wanted = |share: &&Share| nodes.iter().any(|n| n.wanted && n.name == share.name);
        let mut wanted = self.settings.shares.iter().filter(is_wanted);
        let Some((share, label)) = wanted.find_map(|s| Some((&s.name, s.restoring.as_ref()?)))
        else {
            return Ok(());
        };
        let name = &self.deployment.name;
        let message =
            format!("the data of `{name}/{share}` is not back to its snapshot `{label}` yet");
        Err(CliError::new(ExitCode::Unavailable, message)
            .hint(format!("`provision resume {name}` finishes that")))
    }

    /// The snapshots of a node's data, by label.
    pub fn snapshots(&self, node: &NodeRecord) -> Result<BTreeMap<String, Found>, CliError> {
        let provider = self.provider(&node.site)?;
        let Some(volumes) = provider.volumes() else {
            return Ok(BTreeMap::new());
        };
        let found = self.data_at(&node.site)?.into_iter();
        let own = found.filter(|f| f.node.as_ref() == Some(&node.name));
        let labelled = own.filter_map(|f| Some((volumes.label(&f.resource)?, f)));
        Ok(labelled.collect())
    }

    /// Deletes one volume of those that were found on a site.
    pub fn delete_found(&self, site: &str, data: &Found) -> Result<(), CliError> {
        self.provider(site)?.remove(&Removing {
            tags: &self.tags(),
            resource: &data.resource,
            handle: data.handle.as_deref(),
            deadline: Instant::now() + LIMIT,
            interrupt: self.interrupt,
        })
    }

    /// Does something with the volume that has a node's data.
    fn at_data<T>(
        &self,
        node: &NodeRecord,
        limit: Duration,
        work: impl FnOnce(&dyn Volumes, &AtVolume<'_>) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let provider = self.provider(&node.site)?;
        let Some(volumes) = provider.volumes() else {
            let message = format!("site {} has no volumes for data", node.site);
            return Err(CliError::new(ExitCode::Usage, message));
        };
        let found = self.data_at(&node.site)?;
        let mut own = found.iter().filter(|f| f.node.as_ref() == Some(&node.name));
        let Some(data) = own.find(|f| volumes.label(&f.resource).is_none()) else {
            let name = &self.deployment.name;
            let message = format!("there is no volume with the data of `{name}/{}`", node.name);
            return Err(CliError::new(ExitCode::Unavailable, message)
                .hint(format!("`provision resume {name}` makes it")));
        };
        self.with_volume(&*provider, (node, data), limit, work)
    }

    fn with_volume<T>(
        &self,
        provider: &dyn Provider,
        (node, data): (&NodeRecord, &Found),
        limit: Duration,
        work: impl FnOnce(&dyn Volumes, &AtVolume<'_>) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let Some(volumes) = provider.volumes() else {
            let message = format!("site {} has no volumes for data", node.site);
            return Err(CliError::new(ExitCode::Usage, message));
        };
        self.interrupt.check()?;
        let at = AtVolume {
            tags: &self.tags(),
            node: &node.name,
            resource: &data.resource,
            deadline: Instant::now() + limit,
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
            match self.delete_found(site, &data) {
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
