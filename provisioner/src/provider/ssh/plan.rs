//! The steps of a site. Pure.

use std::time::Duration;

use super::super::{Resource, Scope, SitePlan, Step};
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;
use crate::plan::{FRONTEND, WORKER};
use crate::ssh::target::Target;

/// The claim to a host.
pub const HOST: &str = "host";
/// The program.
pub const BINARY: &str = "binary";
/// What only root may read.
pub const CREDENTIALS: &str = "credentials";
/// The services.
pub const MEMBER: &str = "member";

/// Parts of a node in the order of making, and how long each may take.
const PARTS: [(&str, Duration); 4] = [
    (HOST, Duration::from_secs(60)),
    (BINARY, Duration::from_secs(600)),
    (CREDENTIALS, Duration::from_secs(60)),
    // Packages may be installed, after waiting for another package manager.
    (MEMBER, Duration::from_secs(600)),
];

/// All parts' kinds.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    PARTS.iter().map(|(kind, _)| *kind)
}

/// A part of the deployment's node on `host`.
pub fn resource(kind: &str, host: &Target, deployment: &str) -> Resource {
    Resource {
        kind: kind.to_owned(),
        id: format!("{host}/{deployment}"),
    }
}

/// The host that a resource is on.
pub fn host_of(resource: &Resource) -> Result<Target, CliError> {
    let host = resource
        .id
        .rsplit_once('/')
        .and_then(|(host, _)| host.parse().ok());
    host.ok_or_else(|| {
        let message = format!(
            "`{} {}` is no part of an SSH site",
            resource.kind, resource.id
        );
        CliError::new(ExitCode::Internal, message)
    })
}

/// What must exist for the plan's machines on `hosts` of `site`.
pub fn steps(site: &str, hosts: &[Target], plan: &SitePlan<'_>) -> Result<Vec<Step>, CliError> {
    let slots = plan
        .machines
        .iter()
        .map(|m| m.slot as usize + 1)
        .max()
        .unwrap_or(0);
    let wanted = slots.max(plan.machines.len());
    if wanted > hosts.len() {
        return Err(CliError::new(
            ExitCode::Config,
            format!(
                "site `{site}` has {}, and {wanted} are wanted of it",
                count(hosts.len())
            ),
        )
        .hint("name more in `hosts` of the site, or ask for fewer machines"));
    }
    let mut steps = Vec::new();
    for machine in plan.machines {
        if machine.role == FRONTEND {
            return Err(CliError::new(
                ExitCode::Config,
                format!("site `{site}` cannot have the front end `{}`", machine.node),
            )
            .hint("machines of kind \"ssh\" can be workers: put the front end on another site"));
        }
        if machine.image != WORKER && machine.image != "base" {
            return Err(CliError::new(
                ExitCode::Config,
                format!(
                    "site `{site}` cannot have machines of the role `{}`",
                    machine.image
                ),
            )
            .hint("its machines keep their own system, so only workers can be there"));
        }
        let host = &hosts[machine.slot as usize];
        steps.extend(parts(host, &plan.tags.deployment, &machine.node));
    }
    Ok(steps)
}

/// The parts of a deployment's node on `host`, each after the one before it.
pub fn parts(host: &Target, deployment: &str, node: &NodeName) -> Vec<Step> {
    let mut after = Vec::new();
    let part = |(kind, deadline)| {
        let resource = resource(kind, host, deployment);
        Step {
            resource: resource.clone(),
            scope: Scope::Node(node.clone()),
            after: std::mem::replace(&mut after, vec![resource]),
            deadline,
        }
    };
    PARTS.into_iter().map(part).collect()
}

fn count(hosts: usize) -> String {
    match hosts {
        1 => "1 host".to_owned(),
        n => format!("{n} hosts"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::super::{Tags, WantedMachine};
    use super::*;

    fn planned(machines: &[(&str, u32)]) -> Result<Vec<Step>, CliError> {
        let hosts = ["root@a.example", "ann@[fd00::1]:2222"].map(|h| h.parse().expect("a host"));
        let tags = Tags {
            owner: "0".repeat(16),
            deployment: "demo".to_owned(),
            uid: "1".repeat(16),
        };
        let machines: Vec<_> = machines
            .iter()
            .map(|(role, slot)| WantedMachine {
                node: NodeName(format!("{role}-{slot}")),
                role: (*role).to_owned(),
                image: (*role).to_owned(),
                memory_mib: 512,
                cpus: 1,
                disk_gib: 4,
                data_gib: None,
                slot: *slot,
            })
            .collect();
        let images = BTreeMap::new();
        let plan = SitePlan {
            tags: &tags,
            machines: &machines,
            members: &[],
            images: &images,
        };
        steps("lab", &hosts, &plan)
    }

    #[test]
    fn the_node_of_a_slot_is_on_the_host_of_that_number() {
        let steps = planned(&[("worker", 1), ("worker", 0)]).expect("planned");
        let ids: Vec<_> = steps
            .iter()
            .map(|s| format!("{} {}", s.resource.kind, s.resource.id))
            .collect();
        assert_eq!(ids[0], "host ann@[fd00::1]:2222/demo");
        assert_eq!(ids[7], "member root@a.example/demo");
        assert!(steps[0].after.is_empty());
        assert_eq!(steps[1].after, [steps[0].resource.clone()]);
        for step in &steps {
            let host = host_of(&step.resource).expect("a host").to_string();
            assert!(step.resource.id.starts_with(&host));
        }
    }

    #[test]
    fn what_the_site_cannot_have_is_refused() {
        let text: Vec<_> = [&[("worker", 2)][..], &[("frontend", 0)], &[("printer", 0)]]
            .iter()
            .map(|machines| planned(machines).expect_err("refused").to_string())
            .collect();
        insta::assert_snapshot!(text.join("\n\n"));
    }
}
