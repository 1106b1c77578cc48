//! A plan from what the state database has of it, and the other way round.

use std::net::Ipv6Addr;

use ipop_proto::address::{Overlay4, Overlay6, OverlayAddrs};

use super::network::{Net4, OverlayNets};
use super::{ClusterPlan, FRONTEND, MEMBER, NodePlan, SHARE, share};
use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::state::record::{Deployment, NodeRecord};

impl ClusterPlan {
    /// The nodes that are wanted of a recorded deployment, the front end first.
    pub fn recorded(deployment: &Deployment, nodes: &[NodeRecord]) -> Result<Self, CliError> {
        let damaged = |what: &str| {
            let name = &deployment.name;
            let message = format!("what is recorded of `{name}` is damaged: {what}");
            CliError::new(ExitCode::Internal, message)
        };
        let nets = nets(deployment).ok_or_else(|| damaged("its overlay"))?;
        let records = nodes;
        let wanted = records.iter().filter(|n| n.wanted);
        let mut nodes = wanted
            .map(|node| planned(node, nets).ok_or_else(|| damaged(&node.name.0)))
            .collect::<Result<Vec<_>, _>>()?;
        nodes.sort_by_key(|n| match n.role.as_str() {
            FRONTEND => 0,
            MEMBER => 2,
            _ => 1,
        });
        if nodes.is_empty() {
            return Err(damaged("it has no nodes"));
        }
        let settings = Settings::of(deployment)?;
        for share in &settings.shares {
            let mut own = nodes.iter_mut().filter(|n| n.role == SHARE);
            if let Some(node) = own.find(|n| n.name == share.name) {
                node.data_gib = Some(share.size_gib);
            }
        }
        let frontend = settings.sites.iter().find(|s| s.name == nodes[0].site);
        Ok(Self {
            name: deployment.name.clone(),
            domain: deployment.domain.clone(),
            nets,
            lan: frontend.and_then(|site| site.lan(settings.lan)),
            scheduler: settings.scheduler,
            authority: settings.authority,
            elastic: settings.elastic,
            rules: settings.rules,
            shares: share::planned(settings.shares, records, &nodes),
            nodes,
        })
    }
}

impl NodePlan {
    /// For the state database.
    pub fn record(&self) -> NodeRecord {
        NodeRecord {
            name: self.name.clone(),
            role: self.role.clone(),
            image: self.image.clone(),
            person: None,
            groups: self.groups.clone(),
            site: self.site.clone(),
            ipv4: self.addrs.ipv4.addr.to_string(),
            ipv6: self.addrs.ipv6.addr.to_string(),
            host_key: None,
            underlay: None,
            memory_mib: self.memory_mib,
            cpus: self.cpus,
            disk_gib: self.disk_gib,
            slot: self.slot,
            wanted: true,
            attempt: 1,
            stages: Vec::new(),
        }
    }
}

fn nets(deployment: &Deployment) -> Option<OverlayNets> {
    let ipv4: Net4 = deployment.net4.parse().ok()?;
    let ipv6: Ipv6Addr = deployment.net6.split('/').next()?.parse().ok()?;
    Some(OverlayNets { ipv4, ipv6 })
}

fn planned(node: &NodeRecord, nets: OverlayNets) -> Option<NodePlan> {
    let first = nets.host(1);
    Some(NodePlan {
        name: node.name.clone(),
        role: node.role.clone(),
        image: node.image.clone(),
        site: node.site.clone(),
        addrs: OverlayAddrs {
            ipv4: Overlay4 {
                addr: node.ipv4.parse().ok()?,
                prefix: first.ipv4.prefix,
            },
            ipv6: Overlay6 {
                addr: node.ipv6.parse().ok()?,
                prefix: first.ipv6.prefix,
            },
        },
        memory_mib: node.memory_mib,
        cpus: node.cpus,
        disk_gib: node.disk_gib,
        data_gib: None,
        slot: node.slot,
        groups: node.groups.clone(),
    })
}
