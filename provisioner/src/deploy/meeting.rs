//! The rendezvous as the deployment's operator uses and watches it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use ipop_proto::status::NodeStatus;

use super::{Meeting, Seen, Watch};
use crate::authority::registrar::issuer;
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;
use crate::provider::{Delivery, Resource};
use crate::rendezvous::attendant::Attendant;
use crate::rendezvous::{ACCOUNT, Account, DIR, Endpoint, Rendezvous, State};
use crate::watch::{WatchEvent, Watcher};

/// A rendezvous and the nodes that meet there, the front end first.
pub struct RealMeeting {
    /// The rendezvous.
    pub rendezvous: Rendezvous,
    /// The nodes.
    pub nodes: Vec<NodeName>,
    /// Signs certificates where the server is somebody else's.
    pub attendant: Option<Attendant>,
}

impl Meeting for RealMeeting {
    fn plan(&self, nodes: &[NodeName]) -> Vec<(Option<NodeName>, Resource)> {
        let owner = |resource: &Resource| {
            let account = (resource.kind == ACCOUNT).then_some(&resource.id)?;
            self.rendezvous
                .node_of(account)
                .filter(|node| nodes.contains(node))
        };
        let planned = self.rendezvous.plan(nodes);
        planned
            .into_iter()
            .map(|resource| (owner(&resource), resource))
            .collect()
    }

    fn state(&self) -> State {
        self.rendezvous.state()
    }

    fn start(&self, listen: &[IpAddr]) -> Result<Endpoint, CliError> {
        let endpoint = self.rendezvous.start(listen)?;
        if let Some(attendant) = &self.attendant {
            attendant.start()?;
        }
        Ok(endpoint)
    }

    fn endpoint(&self) -> Result<Endpoint, CliError> {
        Ok(self.rendezvous.endpoint()?)
    }

    fn make(
        &self,
        resource: &Resource,
        listen: &[IpAddr],
        attempt: u32,
        delivery: Delivery,
    ) -> Result<(), CliError> {
        Ok(self.rendezvous.make(resource, listen, attempt, delivery)?)
    }

    fn issuer(&self) -> String {
        issuer(&self.rendezvous)
    }

    fn account(&self, node: &NodeName, attempt: u32) -> Result<Account, CliError> {
        Ok(self.rendezvous.account(node, attempt)?)
    }

    fn expire_tokens(&self, now: SystemTime) -> Result<Vec<NodeName>, CliError> {
        if self.rendezvous.is_ours() {
            // Its supervisor does.
            return Ok(Vec::new());
        }
        Ok(self.rendezvous.expire_tokens(now)?)
    }

    fn can_remove(&self) -> bool {
        self.rendezvous.is_ours() || self.rendezvous.state() != State::Stopped
    }

    fn remove(&self, resource: &Resource) -> Result<(), CliError> {
        if let (Some(attendant), DIR) = (&self.attendant, resource.kind.as_str()) {
            attendant.stop()?;
        }
        Ok(self.rendezvous.remove(resource)?)
    }

    fn watch(&self) -> Result<Box<dyn Watch>, CliError> {
        let frontend = self.nodes.first().ok_or_else(|| {
            CliError::new(
                ExitCode::Internal,
                "a deployment without nodes cannot be watched",
            )
        })?;
        let watcher = Watcher::open(&self.rendezvous, frontend, &self.nodes)?;
        Ok(Box::new(RealWatch {
            watcher,
            nodes: self.nodes.clone(),
            lost: None,
        }))
    }
}

struct RealWatch {
    watcher: Watcher,
    nodes: Vec<NodeName>,
    /// Why the stream is lost, while it is.
    lost: Option<String>,
}

impl Watch for RealWatch {
    fn look(&mut self, timeout: Duration) -> Result<BTreeMap<NodeName, Seen>, CliError> {
        let deadline = Instant::now() + timeout;
        while let Some(event) = self.watcher.next(deadline)? {
            match event {
                WatchEvent::RendezvousLost { error } => self.lost = Some(error),
                WatchEvent::RendezvousBack => self.lost = None,
                WatchEvent::Node(_) => {}
            }
        }
        if let Some(why) = &self.lost {
            let message = format!("the stream to the rendezvous is lost: {why}");
            return Err(CliError::new(ExitCode::Unavailable, message));
        }
        let progress = self.watcher.progress();
        let seen = |node: &NodeName| {
            Some((
                node.clone(),
                Seen {
                    stage: progress.stage(node)?,
                },
            ))
        };
        Ok(self.nodes.iter().filter_map(seen).collect())
    }

    fn status(&mut self, node: &NodeName) -> Option<NodeStatus> {
        self.watcher.status(node).ok()
    }
}
