//! Nodes that are not wanted are members no more before anything of them is removed.
//!
//! What is recorded is that they are not wanted; the list that follows from it is the same however often
//! it is asked for. So a command that was killed is continued by the next one, as with all else.

use std::time::SystemTime;

use super::engine::Engine;
use crate::authority::Revocation;
use crate::error::CliError;
use crate::event::Event;
use crate::name::NodeName;
use crate::plan::{ClusterPlan, MEMBER};
use crate::state::record::NodeRecord;

impl Engine<'_> {
    /// Revokes the certificates of all nodes that are not wanted, since to remove their machines may
    /// take its time. One that cannot be revoked keeps nothing back here, but its account.
    pub(super) fn revoke_unwanted(&self, nodes: &[NodeRecord]) {
        for node in nodes.iter().filter(|node| !node.wanted) {
            if let Err(error) = self.revoke_as(&node.name, &node.role) {
                let (name, why) = (&node.name, error.one_line());
                self.events.emit(Event::Warning {
                    message: format!("{name}: its certificate is not revoked yet: {why}"),
                });
            }
        }
    }

    /// Revokes certificates of members' machines that have other groups than are recorded.
    pub(super) fn regroup(&self, plan: &ClusterPlan) -> Result<(), CliError> {
        let members = plan.nodes.iter().filter(|node| node.role == MEMBER);
        let members: Vec<_> = members.collect();
        if members.is_empty() {
            return Ok(());
        }
        let Some(authority) = self.authority()? else {
            return Ok(());
        };
        for node in members {
            authority.regroup(node, SystemTime::now())?;
        }
        Ok(())
    }

    /// Revokes the certificates of a node whose account is to be closed.
    pub(super) fn revoke(&self, node: &NodeName) -> Result<(), CliError> {
        let nodes = self.database.nodes(self.deployment.id)?;
        let record = nodes.iter().find(|record| record.name == *node);
        self.revoke_as(node, record.map_or("", |record| &record.role))
    }

    fn revoke_as(&self, node: &NodeName, role: &str) -> Result<(), CliError> {
        let Some(authority) = self.authority()? else {
            return Ok(());
        };
        let revocation = authority.revoke(node, role, SystemTime::now())?;
        // Once more it is nothing new.
        if !revocation.was_out {
            self.tell_revocation(node, &revocation);
        }
        Ok(())
    }

    /// Says what has become of a node's certificates.
    pub(super) fn tell_revocation(&self, node: &NodeName, revocation: &Revocation) {
        if let (Some(number), 1..) = (revocation.list, revocation.certificates) {
            self.step(format!(
                "{node}: its certificate is on revocation list {number}"
            ));
        }
        if let Some(message) = revocation.warning(node) {
            self.events.emit(Event::Warning { message });
        }
    }
}
