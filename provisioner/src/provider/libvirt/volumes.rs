//! What is done with a volume of data while it is there, in time or not at all.

use std::sync::Arc;

use super::data::{self, OwnData};
use super::{Host, Libvirt, task, volume_of};
use crate::error::CliError;
use crate::provider::{AtVolume, Resource, Volumes};

impl Libvirt {
    /// Does something with a volume of data.
    fn at_volume<T: Send + 'static>(
        &self,
        verb: &str,
        at: &AtVolume<'_>,
        work: impl FnOnce(&Host, &OwnData<'_>) -> Result<T, CliError> + Send + 'static,
    ) -> Result<T, CliError> {
        let host = Arc::clone(&self.0);
        let (tags, node, resource) = (at.tags.clone(), at.node.clone(), at.resource.clone());
        task::run(
            &self.0.connection,
            format!("{verb} {} \"{}\"", resource.kind, resource.id),
            at.deadline,
            at.interrupt,
            at.events,
            move |task| {
                let own = OwnData {
                    tags: &tags,
                    node: &node,
                    resource: &resource,
                    task,
                };
                work(&host, &own)
            },
        )
    }
}

impl Volumes for Libvirt {
    fn grow(&self, at: &AtVolume<'_>, size_bytes: u64) -> Result<(), CliError> {
        self.at_volume("growing", at, move |host, own| {
            host.grow_data(own, size_bytes)
        })
    }

    fn label(&self, resource: &Resource) -> Option<String> {
        let (_, name) = volume_of(resource).ok()?;
        data::of_volume(name)?.label
    }

    fn snapshot(&self, at: &AtVolume<'_>, label: &str) -> Result<(), CliError> {
        let label = label.to_owned();
        self.at_volume("copying", at, move |host, own| {
            host.snapshot_data(own, &label)
        })
    }

    fn restore(&self, at: &AtVolume<'_>, size_bytes: u64) -> Result<(), CliError> {
        self.at_volume("restoring", at, move |host, own| {
            host.restore_data(own, size_bytes)
        })
    }

    fn serve(&self, at: &AtVolume<'_>) -> Result<(), CliError> {
        self.at_volume("starting the machine of", at, Host::serve_data)
    }
}
