//! The provider of one machine, spoken to in the words of the whole site: its resources carry the
//! machine's name in front.

use std::sync::Arc;

use crate::error::CliError;
use crate::provider::{Found, Made, Making, Provider, Removing, Resource, Scope, SitePlan, Step};

/// The provider of one machine.
#[derive(Clone)]
pub struct Inner {
    /// The machine's name within the experiment.
    pub host: String,
    /// What its provider's identifiers begin with, where they name the machine themselves: its
    /// address, which is not known when the plan is made.
    pub prefix: String,
    /// Itself.
    pub provider: Arc<dyn Provider>,
}

/// The machine of a resource; none for one of the site.
pub fn host_of(resource: &Resource) -> Option<&str> {
    resource.id.split_once('/').map(|(host, _)| host)
}

impl Inner {
    /// `domain x` as `domain node0/x`.
    fn outer(&self, resource: &Resource) -> Resource {
        let own = resource.id.strip_prefix(&self.prefix);
        Resource {
            kind: resource.kind.clone(),
            id: format!("{}/{}", self.host, own.unwrap_or(&resource.id)),
        }
    }

    /// `domain node0/x` as `domain x`; none for a resource that is not on this machine.
    fn own(&self, resource: &Resource) -> Option<Resource> {
        let (host, id) = resource.id.split_once('/')?;
        (host == self.host).then(|| Resource {
            kind: resource.kind.clone(),
            id: format!("{}{id}", self.prefix),
        })
    }

    /// The steps of the machine. What would outlive the deployment on a host of the site's own
    /// goes with the machine here.
    pub fn plan(&self, plan: &SitePlan<'_>, after: &Resource) -> Result<Vec<Step>, CliError> {
        let translate = |step: Step| {
            let mut needs = vec![after.clone()];
            needs.extend(step.after.iter().map(|r| self.outer(r)));
            Step {
                resource: self.outer(&step.resource),
                scope: match step.scope {
                    Scope::Site { .. } => Scope::Deployment,
                    scope => scope,
                },
                after: needs,
                deadline: step.deadline,
            }
        };
        let steps = self.provider.plan(plan)?;
        Ok(steps.into_iter().map(translate).collect())
    }

    /// Makes what the machine's own provider planned.
    pub fn make(&self, step: &Step, making: &Making<'_>) -> Result<Made, CliError> {
        let own = |resource: &Resource| self.own(resource);
        let step = Step {
            resource: own(&step.resource).unwrap_or_else(|| step.resource.clone()),
            scope: step.scope.clone(),
            after: step.after.iter().filter_map(own).collect(),
            deadline: step.deadline,
        };
        let handles = |resource: &Resource| (making.handles)(&self.outer(resource));
        let making = Making {
            handles: &handles,
            ..*making
        };
        // An address of the machine's own network leads nobody to this host.
        Ok(Made {
            reached_at: None,
            ..self.provider.make(&step, &making)?
        })
    }

    /// Removes what the machine's own provider made.
    pub fn remove(&self, removing: &Removing<'_>) -> Result<(), CliError> {
        let Some(resource) = self.own(removing.resource) else {
            return Ok(());
        };
        self.provider.remove(&Removing {
            resource: &resource,
            ..*removing
        })
    }

    /// What is on the machine, in the site's words.
    pub fn found(&self, all: Vec<Found>) -> Vec<Found> {
        let translate = |found: Found| Found {
            resource: self.outer(&found.resource),
            ..found
        };
        all.into_iter().map(translate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::libvirt::{Libvirt, LibvirtSite};

    fn inner(prefix: &str) -> Inner {
        let cache = std::path::Path::new("/nonexistent");
        Inner {
            host: "node3".into(),
            prefix: prefix.into(),
            provider: Arc::new(Libvirt::new(LibvirtSite::default(), cache)),
        }
    }

    fn resource(id: &str) -> Resource {
        Resource {
            kind: "volume".into(),
            id: id.into(),
        }
    }

    #[test]
    fn a_resource_finds_its_way_to_its_machine_and_back() {
        for (prefix, own, outer) in [
            ("", "ipop/a.qcow2", "node3/ipop/a.qcow2"),
            ("ann@198.51.100.7/", "ann@198.51.100.7/demo", "node3/demo"),
        ] {
            let inner = inner(prefix);
            assert_eq!(inner.outer(&resource(own)), resource(outer));
            assert_eq!(inner.own(&resource(outer)), Some(resource(own)));
        }
        assert_eq!(inner("").own(&resource("node4/ipop/a.qcow2")), None);
        assert_eq!(host_of(&resource("ip-0123456789")), None);
    }
}
