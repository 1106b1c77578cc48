//! The provider of one machine, spoken to in the words of the whole site: its resources carry the
//! machine's name in front.

use crate::error::CliError;
use crate::provider::{
    Found, Made, Making, Provider, Removing, Resource, Scope, SitePlan, Step,
};

/// `domain x` of the machine `node0` as `domain node0/x`.
pub fn outer(host: &str, resource: &Resource) -> Resource {
    Resource {
        kind: resource.kind.clone(),
        id: format!("{host}/{}", resource.id),
    }
}

/// The machine and the resource as its own provider calls it; none for a resource of the site.
pub fn split(resource: &Resource) -> Option<(&str, Resource)> {
    let (host, id) = resource.id.split_once('/')?;
    let (kind, id) = (resource.kind.clone(), id.to_owned());
    Some((host, Resource { kind, id }))
}

/// The steps of one machine. What would outlive the deployment on a host of the site's own goes
/// with the machine here.
pub fn plan(
    provider: &dyn Provider,
    host: &str,
    plan: &SitePlan<'_>,
    after: &Resource,
) -> Result<Vec<Step>, CliError> {
    let translate = |step: Step| {
        let mut needs = vec![after.clone()];
        needs.extend(step.after.iter().map(|r| outer(host, r)));
        Step {
            resource: outer(host, &step.resource),
            scope: match step.scope {
                Scope::Site { .. } => Scope::Deployment,
                scope => scope,
            },
            after: needs,
            deadline: step.deadline,
        }
    };
    Ok(provider.plan(plan)?.into_iter().map(translate).collect())
}

/// Makes what the machine's own provider planned.
pub fn make(
    provider: &dyn Provider,
    host: &str,
    step: &Step,
    making: &Making<'_>,
) -> Result<Made, CliError> {
    let own = |resource: &Resource| match split(resource) {
        Some((name, own)) if name == host => Some(own),
        _ => None,
    };
    let step = Step {
        resource: own(&step.resource).unwrap_or_else(|| step.resource.clone()),
        scope: step.scope.clone(),
        after: step.after.iter().filter_map(own).collect(),
        deadline: step.deadline,
    };
    let handles = |resource: &Resource| (making.handles)(&outer(host, resource));
    let making = Making {
        handles: &handles,
        ..*making
    };
    // Only this host's own network can be reached at an address that the inner provider knows.
    let made = provider.make(&step, &making)?;
    Ok(Made {
        reached_at: None,
        ..made
    })
}

/// Removes what the machine's own provider made.
pub fn remove(
    provider: &dyn Provider,
    resource: &Resource,
    removing: &Removing<'_>,
) -> Result<(), CliError> {
    provider.remove(&Removing {
        resource,
        ..*removing
    })
}

/// What is on a machine, in the site's words.
pub fn found(host: &str, all: Vec<Found>) -> Vec<Found> {
    let translate = |found: Found| Found {
        resource: outer(host, &found.resource),
        ..found
    };
    all.into_iter().map(translate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_finds_its_way_to_its_machine_and_back() {
        let inner = Resource {
            kind: "volume".into(),
            id: "ipop/a.qcow2".into(),
        };
        let there = outer("node3", &inner);
        assert_eq!(there.id, "node3/ipop/a.qcow2");
        assert_eq!(split(&there), Some(("node3", inner)));
        let site = Resource {
            kind: "experiment".into(),
            id: "ip-0123456789".into(),
        };
        assert_eq!(split(&site), None);
    }
}
