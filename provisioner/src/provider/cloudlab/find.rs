//! What is there: experiments by their tags, and what the machines' own providers find on them.

use std::collections::BTreeMap;
use std::time::Instant;

use super::inner::Inner;
use super::testbed::{Experiment, Host, Phase};
use super::{CALL, Cloudlab, EXPERIMENT, HYPERVISOR, MACHINE, PLACE, experiment, of_machine};
use crate::error::CliError;
use crate::name::NodeName;
use crate::provider::{Found, Health, Machine, Resource, Tags};

impl Cloudlab {
    /// Every experiment with tags: all else goes with it.
    pub(super) fn find_all(&self) -> Result<Vec<Found>, CliError> {
        let all = self.testbed.list(Instant::now() + CALL)?;
        Ok(all.iter().map(found_experiment).collect())
    }

    pub(super) fn find_of(&self, tags: &Tags) -> Result<Vec<Found>, CliError> {
        let by = Instant::now() + CALL;
        let ours = |e: &Experiment| e.tags.as_ref() == Some(tags);
        let Some(there) = self.testbed.list(by)?.into_iter().find(ours) else {
            return Ok(Vec::new());
        };
        let mut all = vec![found_experiment(&there)];
        let of_ours = |kind, machine, handle, health| Found {
            resource: of_machine(kind, &there.name, machine),
            handle,
            tags: Some(tags.clone()),
            node: None,
            health,
        };
        for machine in 0..there.count {
            all.push(of_ours(PLACE, machine, None, Health::Present));
            let name = experiment::host_name(machine);
            let Some(host) = there.hosts.iter().find(|h| h.name == name) else {
                continue;
            };
            let health = health(&host.phase);
            all.push(of_ours(MACHINE, machine, host.address.clone(), health));
        }
        for (host, found) in self.on_each(tags, &there, |inner| {
            Ok(inner.found(inner.provider.find(Some(tags))?))
        }) {
            if self.is_host() {
                all.push(Found {
                    resource: Resource {
                        kind: HYPERVISOR.into(),
                        id: format!("{}/{}", there.name, host.name),
                    },
                    handle: host.address.clone(),
                    tags: Some(tags.clone()),
                    node: None,
                    health: Health::Present,
                });
            }
            all.extend(found);
        }
        Ok(all)
    }

    pub(super) fn machines_of(&self, tags: &Tags) -> Result<BTreeMap<NodeName, Machine>, CliError> {
        let name = experiment::name(tags);
        let Some(there) = self.testbed.named(&name, Instant::now() + CALL)? else {
            return Ok(BTreeMap::new());
        };
        let mut all = BTreeMap::new();
        for (host, machines) in self.on_each(tags, &there, |inner| inner.provider.machines(tags)) {
            let place = host.hostname.clone().or_else(|| host.address.clone());
            for (node, machine) in machines {
                let place = place.clone();
                all.insert(node, Machine { place, ..machine });
            }
        }
        Ok(all)
    }

    pub(super) fn console_of(
        &self,
        tags: &Tags,
        node: &NodeName,
        limit: usize,
    ) -> Result<Vec<u8>, CliError> {
        let name = experiment::name(tags);
        let Some(there) = self.testbed.named(&name, Instant::now() + CALL)? else {
            return Ok(Vec::new());
        };
        let ask = |inner: &Inner| match inner.provider.machines(tags)?.contains_key(node) {
            true => inner.provider.console(tags, node, limit).map(Some),
            false => Ok(None),
        };
        let asked = self.on_each(tags, &there, ask);
        Ok(asked
            .into_iter()
            .find_map(|(_, text)| text)
            .unwrap_or_default())
    }

    /// Asks the own provider of every machine that is up, all at once. One that does not answer is
    /// left out.
    fn on_each<'a, T: Send>(
        &self,
        tags: &Tags,
        there: &'a Experiment,
        ask: impl Fn(&Inner) -> Result<T, CliError> + Sync,
    ) -> Vec<(&'a Host, T)> {
        let door = self.door(tags);
        let up = |host: &&Host| {
            // One that was never signed in to has nothing of ours.
            host.phase == Phase::Ready && door.known_hosts(&host.name).exists()
        };
        let one = |host: &'a Host| {
            let address = host.address.as_deref()?;
            let asked = self
                .inner(tags, &host.name, address)
                .and_then(|inner| ask(&inner));
            match asked {
                Ok(answer) => Some((host, answer)),
                Err(error) => {
                    tracing::warn!(host = %host.name, %error, "a machine does not answer");
                    None
                }
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = there
                .hosts
                .iter()
                .filter(up)
                .map(|host| scope.spawn(move || one(host)))
                .collect();
            let ended = threads.into_iter().map(|thread| thread.join().ok());
            ended.flatten().flatten().collect()
        })
    }
}

fn found_experiment(found: &Experiment) -> Found {
    Found {
        resource: Resource {
            kind: EXPERIMENT.into(),
            id: found.name.clone(),
        },
        handle: Some(found.id.clone()),
        tags: found.tags.clone(),
        node: None,
        health: match &found.phase {
            // It failed as a whole only if no machine of it serves.
            Phase::Failed(_) if found.hosts.iter().any(|h| h.phase == Phase::Ready) => {
                Health::Present
            }
            phase => health(phase),
        },
    }
}

fn health(phase: &Phase) -> Health {
    match phase {
        Phase::Pending(_) | Phase::Ready => Health::Present,
        Phase::Failed(_) => Health::Broken,
        Phase::Going => Health::Going,
    }
}
