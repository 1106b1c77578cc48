//! The steps of a site. Pure.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::config::RocksSite;
use crate::error::{CliError, ExitCode};
use crate::plan::scale::number;
use crate::plan::{FRONTEND, WORKER};
use crate::provider::ssh::plan as ssh;
use crate::provider::{Resource, Scope, SitePlan, Step};
use crate::ssh::target::Target;

/// The network's MTU.
pub const MTU: &str = "mtu";
/// A worker in Rocks' database.
pub const REGISTRATION: &str = "registration";
/// Its interface there.
pub const INTERFACE: &str = "interface";
/// What it does when it boots.
pub const BOOT: &str = "boot";
/// The files of the front end's servers, with the worker in them.
pub const CONFIGURATION: &str = "configuration";

/// How long a command of Rocks may take, with those of others before it.
const COMMAND: Duration = Duration::from_secs(180);
/// How long writing all files may take: a large cluster's take minutes.
const SYNC: Duration = Duration::from_secs(600);

/// Parts of a worker in the order of making.
const PARTS: [(&str, Duration); 4] = [
    (REGISTRATION, COMMAND),
    (INTERFACE, COMMAND),
    (BOOT, COMMAND),
    (CONFIGURATION, SYNC),
];

/// A worker as Rocks knows it. Its resources are named by all of it, so that they can be made and
/// removed knowing no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The front end.
    pub host: Target,
    /// The deployment.
    pub deployment: String,
    /// `compute-90-3`.
    pub name: String,
    /// Its address on the private network.
    pub ip: Ipv4Addr,
}

impl Registered {
    /// A part of it.
    pub fn resource(&self, kind: &str) -> Resource {
        let Self {
            host,
            deployment,
            name,
            ip,
        } = self;
        Resource {
            kind: kind.to_owned(),
            id: format!("{host}/{deployment}/{name}/{ip}"),
        }
    }

    /// The worker that a resource is a part of.
    pub fn of(resource: &Resource) -> Result<Self, CliError> {
        let words: Vec<_> = resource.id.split('/').collect();
        let read = match words[..] {
            [host, deployment, name, ip] => {
                host.parse()
                    .ok()
                    .zip(ip.parse().ok())
                    .map(|(host, ip)| Self {
                        host,
                        deployment: deployment.to_owned(),
                        name: name.to_owned(),
                        ip,
                    })
            }
            _ => None,
        };
        read.ok_or_else(|| unknown(resource))
    }

    /// `compute-RACK-RANK` as its two numbers.
    pub fn place(&self) -> Option<(u32, u32)> {
        let mut words = self.name.rsplit('-');
        let (rank, rack) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((rack, rank))
    }
}

/// The network's MTU, set for a deployment.
pub fn mtu_of(host: &Target, deployment: &str) -> Resource {
    ssh::resource(MTU, host, deployment)
}

/// The error for a resource that no such site has.
pub fn unknown(resource: &Resource) -> CliError {
    let message = format!(
        "`{} {}` is no part of a Rocks site",
        resource.kind, resource.id
    );
    CliError::new(ExitCode::Internal, message)
}

/// What must exist on the front end `host` of `site`: the node itself, and each worker of the
/// deployment, wherever its machine is, in Rocks' database. The workers are registered side by
/// side, so that the first who gets to the files writes them for all.
pub fn steps(
    site: &str,
    host: &Target,
    settings: &RocksSite,
    plan: &SitePlan<'_>,
) -> Result<Vec<Step>, CliError> {
    let refused = |message: String| {
        CliError::new(ExitCode::Config, message).hint(format!(
            "site `{site}` is a front end: write --frontend {site}, and put workers on other sites"
        ))
    };
    let [machine] = plan.machines else {
        return Err(refused(format!(
            "site `{site}` has one machine, its front end"
        )));
    };
    if machine.role != FRONTEND {
        return Err(refused(format!(
            "site `{site}` cannot have `{}`",
            machine.node
        )));
    }
    let deployment = &plan.tags.deployment;
    let mut steps = ssh::parts(host, deployment, &machine.node);
    let mut base = vec![ssh::resource(ssh::HOST, host, deployment)];
    if settings.mtu.is_some() {
        let mtu = mtu_of(host, deployment);
        steps.push(Step {
            resource: mtu.clone(),
            scope: Scope::Deployment,
            after: base.clone(),
            deadline: COMMAND,
        });
        base.push(mtu);
    }
    let workers = plan.members.iter().filter(|n| n.role == WORKER);
    let registered: Vec<_> = workers
        .map(|worker| {
            let registered = Registered {
                host: host.clone(),
                deployment: deployment.clone(),
                name: settings.host_name(number(&worker.name)),
                ip: worker.addrs.ipv4.addr,
            };
            (worker, registered)
        })
        .collect();
    let mut after = vec![base; registered.len()];
    for (kind, deadline) in PARTS {
        for ((worker, registered), after) in registered.iter().zip(&mut after) {
            let resource = registered.resource(kind);
            steps.push(Step {
                resource: resource.clone(),
                scope: Scope::Node(worker.name.clone()),
                after: std::mem::replace(after, vec![resource]),
                deadline,
            });
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::plan::{ClusterPlan, Request, World, plan};
    use crate::provider::{Tags, WantedMachine};
    use crate::site::{SiteKind, Sites};

    const SITES: &str = "
        [site.ucsd]
        kind = \"rocks\"
        host = \"root@ucsd.example\"
        bridge = \"br0\"
        mtu = 1400
        [site.lab]
        kind = \"ssh\"
        hosts = [\"a\", \"b\"]
    ";

    fn cluster(frontend: &str, workers: &str) -> (ClusterPlan, RocksSite) {
        let sites = Sites::parse(SITES, "sites.toml").expect("valid");
        let request = Request {
            name: Some("lake".to_owned()),
            frontend: vec![frontend.parse().expect("valid")],
            workers: vec![workers.parse().expect("valid")],
            ..Request::default()
        };
        let SiteKind::Rocks(site) = &sites.find("ucsd").expect("there").kind else {
            panic!("another kind");
        };
        let cluster = plan(&request, &sites, &World::default()).expect("planned");
        (cluster, site.clone())
    }

    fn planned(frontend: &str, workers: &str) -> Result<Vec<Step>, CliError> {
        let (cluster, site) = cluster(frontend, workers);
        let tags = Tags {
            owner: "0".repeat(16),
            deployment: "lake".to_owned(),
            uid: "1".repeat(16),
        };
        let own = cluster.nodes.iter().filter(|n| n.site == "ucsd");
        let machines: Vec<_> = own.map(WantedMachine::from).collect();
        let plan = SitePlan {
            tags: &tags,
            machines: &machines,
            members: &cluster.nodes,
            images: &BTreeMap::new(),
        };
        let host = site.host.parse().expect("a host");
        steps("ucsd", &host, &site, &plan)
    }

    #[test]
    fn every_worker_is_registered_wherever_its_machine_is() {
        let steps = planned("1@ucsd", "2@lab").expect("planned");
        let shown = |step: &Step| {
            let after: Vec<_> = step.after.iter().map(|r| r.kind.as_str()).collect();
            let Resource { kind, id } = &step.resource;
            format!("{kind} {id} after {}\n", after.join(", "))
        };
        insta::assert_snapshot!(steps.iter().map(shown).collect::<String>());
        for step in steps.iter().filter(|s| s.resource.kind == BOOT) {
            let registered = Registered::of(&step.resource).expect("a worker");
            assert_eq!(registered.resource(BOOT), step.resource);
            assert_eq!(registered.place().map(|(rack, _)| rack), Some(90));
        }
    }

    #[test]
    fn the_front_end_is_all_that_the_site_can_have() {
        let refused = [("1@lab", "1@ucsd"), ("1@ucsd", "1@ucsd")].map(|(frontend, workers)| {
            planned(frontend, workers).expect_err("refused").to_string()
        });
        insta::assert_snapshot!(refused.join("\n\n"));
    }
}
