//! What is on a host, and whose it is.

use std::collections::{BTreeMap, BTreeSet};

use virt::connect::Connect;
use virt::sys;

use super::connection::Context;
use super::data::{self, OfVolume};
use super::network::{leases, network_name};
use super::plan::{DISK, LOG, PERSONAL};
use super::storage::{COMPLETE, Pool};
use super::{CONSOLE, DATA, DOMAIN, Host, IMAGE, IMAGES, NETWORK, VOLUME, domain, tags};
use crate::error::CliError;
use crate::name::{NodeName, RESOURCE_PREFIX, machine_name};
use crate::provider::{Found, Health, Machine, MachineState, Resource, Tags};

impl Host {
    /// Everything with our prefix, the images included.
    pub(super) fn find_all(&self, conn: &Connect) -> Result<Vec<Found>, CliError> {
        let mut found = networks(conn)?;
        found.extend(domains(conn)?);
        if let Some(pool) = Pool::find(conn, self.site.pool_name())? {
            let names = pool.volumes()?;
            let volumes = volumes(self.site.pool_name(), &names, &found);
            found.extend(volumes);
        }
        Ok(found)
    }

    pub(super) fn machines_of(
        &self,
        conn: &Connect,
        wanted: &Tags,
    ) -> Result<BTreeMap<NodeName, Machine>, CliError> {
        let prefix = format!("{}-", network_name(&wanted.deployment));
        let running: BTreeSet<_> = listed(conn, sys::VIR_CONNECT_LIST_DOMAINS_RUNNING)?
            .into_iter()
            .collect();
        let mut machines = BTreeMap::new();
        for (name, uuid) in listed(conn, 0)? {
            // The name alone would take `a-b-worker-0` of deployment `a-b` for one of `a`.
            let Some(node) = name.strip_prefix(&prefix).map(|n| NodeName(n.into())) else {
                continue;
            };
            if uuid != tags::uuid(wanted, &node) {
                continue;
            }
            let runs = running.contains(&(name, uuid));
            machines.insert(
                node,
                Machine {
                    state: if runs {
                        MachineState::Running
                    } else {
                        MachineState::Stopped
                    },
                    underlay: None,
                    place: None,
                    why: (!runs).then(|| "its domain is not running".into()),
                },
            );
        }
        let leases = leases(conn, &network_name(&wanted.deployment))?;
        for (node, machine) in &mut machines {
            let mac = domain::mac_address(&machine_name(&wanted.deployment, node));
            if machine.state == MachineState::Running {
                machine.underlay = leases.get(&mac).copied();
            }
        }
        Ok(machines)
    }
}

/// Names and UUIDs of domains, in one call.
fn listed(
    conn: &Connect,
    flags: sys::virConnectListAllDomainsFlags,
) -> Result<Vec<(String, String)>, CliError> {
    let failed = || "cannot list libvirt's domains".into();
    let domains = conn.list_all_domains(flags).context(failed)?;
    domains
        .iter()
        .map(|d| Ok((d.name()?, d.uuid_string()?)))
        .collect::<Result<_, virt::error::Error>>()
        .context(failed)
}

fn is_ours(name: &str) -> bool {
    name.strip_prefix(RESOURCE_PREFIX)
        .is_some_and(|rest| rest.starts_with('-'))
}

fn health(serves: bool) -> Health {
    if serves {
        Health::Present
    } else {
        Health::Broken
    }
}

fn networks(conn: &Connect) -> Result<Vec<Found>, CliError> {
    let failed = || "cannot list libvirt's networks".into();
    let mut found = Vec::new();
    for network in conn.list_all_networks(0).context(failed)? {
        let id = network.name().context(failed)?;
        if !is_ours(&id) {
            continue;
        }
        // One that vanished meanwhile is not there.
        let (Ok(xml), Ok(active)) = (network.xml_desc(0), network.is_active()) else {
            continue;
        };
        found.push(Found {
            resource: Resource {
                kind: NETWORK.into(),
                id,
            },
            handle: None,
            tags: tags::of_network(&xml),
            node: None,
            health: health(active),
        });
    }
    Ok(found)
}

fn domains(conn: &Connect) -> Result<Vec<Found>, CliError> {
    let failed = || "cannot list libvirt's domains".into();
    let running: BTreeSet<_> = listed(conn, sys::VIR_CONNECT_LIST_DOMAINS_RUNNING)?
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let mut found = Vec::new();
    for domain in conn.list_all_domains(0).context(failed)? {
        let id = domain.name().context(failed)?;
        if !is_ours(&id) {
            continue;
        }
        let (tags, node) = domain::tags(&domain).unzip();
        found.push(Found {
            health: health(running.contains(&id)),
            resource: Resource {
                kind: DOMAIN.into(),
                id,
            },
            handle: domain.uuid_string().ok(),
            tags,
            node,
        });
    }
    Ok(found)
}

/// The volumes among `names` that this tool made. They carry no tags: data's are in its name, a machine's
/// are its domain's or, where that is not there, its deployment's network's.
fn volumes(pool: &str, names: &[String], known: &[Found]) -> Vec<Found> {
    let complete: BTreeSet<_> = names.iter().map(String::as_str).collect();
    let mut found = BTreeMap::new();
    for name in names.iter().filter(|n| is_ours(n)) {
        if name.ends_with(COMPLETE) {
            continue;
        }
        // Before all others: whatever its deployment is called, it is no part of an image.
        if let Some(OfVolume { tags, node, label }) = data::of_volume(name) {
            // Of a copy it is marked that it is whole.
            let whole = complete.contains(format!("{name}{COMPLETE}").as_str());
            let whose = (Some(tags), Some(node), health(label.is_none() || whole));
            found.insert((DATA, name.clone()), whose);
            continue;
        }
        if IMAGES.iter().any(|p| name.starts_with(p)) {
            let whole = complete.contains(format!("{name}{COMPLETE}").as_str());
            found.insert((IMAGE, name.clone()), (None, None, health(whole)));
            continue;
        }
        let Some((machine, kind, file)) = machine_file(name) else {
            continue;
        };
        let domain = known
            .iter()
            .find(|f| f.resource.kind == DOMAIN && f.resource.id == machine);
        let (tags, node) = match domain {
            Some(domain) => (domain.tags.clone(), domain.node.clone()),
            None => by_network(machine, known).unzip(),
        };
        found.insert((kind, file), (tags, node, Health::Present));
    }
    let found = found.into_iter();
    found
        .map(|((kind, name), (tags, node, health))| Found {
            resource: Resource {
                kind: kind.into(),
                id: format!("{pool}/{name}"),
            },
            handle: None,
            tags,
            node,
            health,
        })
        .collect()
}

/// Machine, kind and volume of a machine's file. What was rotated away from a log belongs to it.
fn machine_file(name: &str) -> Option<(&str, &'static str, String)> {
    let log = name
        .rsplit_once('.')
        .filter(|(_, n)| n.parse::<u8>().is_ok())
        .map_or(name, |(log, _)| log);
    if let Some(machine) = log.strip_suffix(LOG) {
        return Some((machine, CONSOLE, log.to_owned()));
    }
    let machine = name
        .strip_suffix(DISK)
        .or_else(|| name.strip_suffix(PERSONAL))?;
    Some((machine, VOLUME, name.to_owned()))
}

/// The deployment with the longest name that the machine's begins with: `a-b` before `a`.
fn by_network(machine: &str, known: &[Found]) -> Option<(Tags, NodeName)> {
    known
        .iter()
        .filter(|f| f.resource.kind == NETWORK)
        .filter_map(|f| {
            let node = machine.strip_prefix(&f.resource.id)?.strip_prefix('-')?;
            Some((f.tags.clone()?, NodeName(node.into())))
        })
        .min_by_key(|(_, node)| node.0.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(deployment: &str) -> Tags {
        Tags {
            owner: "0123456789abcdef".into(),
            deployment: deployment.into(),
            uid: "fedcba9876543210".into(),
        }
    }

    fn network(deployment: &str) -> Found {
        Found {
            resource: Resource {
                kind: NETWORK.into(),
                id: network_name(deployment),
            },
            handle: None,
            tags: Some(tags(deployment)),
            node: None,
            health: Health::Present,
        }
    }

    #[test]
    fn volumes_are_attributed_by_their_names_and_images_to_nobody() {
        let names = [
            "ipop-a-worker-0.qcow2",
            "ipop-a-b-worker-0.smbios",
            "ipop-a-b-worker-0.console.0",
            "ipop-a-b-worker-0.console",
            "ipop-lost-worker-0.console.1",
            "ipop-base-worker-0123456789ab.qcow2",
            "ipop-kernel-worker-0123456789ab",
            "ipop-kernel-worker-0123456789ab.complete",
            "ipop-base-x.lake-data.0123456789abcdef.data",
            "somebody-elses.qcow2",
        ]
        .map(str::to_owned);
        let found = volumes("p", &names, &[network("a"), network("a-b")]);
        let line = |f: &Found| {
            let deployment = f.tags.as_ref().map_or("-", |t| t.deployment.as_str());
            let node = f.node.as_ref().map_or("-", |n| n.0.as_str());
            format!(
                "{} {} {deployment} {node} {:?}",
                f.resource.kind, f.resource.id, f.health
            )
        };
        let lines: Vec<_> = found.iter().map(line).collect();
        assert_eq!(
            lines,
            [
                "console p/ipop-a-b-worker-0.console a-b worker-0 Present",
                "console p/ipop-lost-worker-0.console - - Present",
                "data p/ipop-base-x.lake-data.0123456789abcdef.data base-x lake-data Present",
                "image p/ipop-base-worker-0123456789ab.qcow2 - - Broken",
                "image p/ipop-kernel-worker-0123456789ab - - Present",
                "volume p/ipop-a-b-worker-0.smbios a-b worker-0 Present",
                "volume p/ipop-a-worker-0.qcow2 a worker-0 Present",
            ]
        );
    }
}
