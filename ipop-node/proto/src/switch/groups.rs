//! Which ports want which IP multicast group (RFC 4541).
//!
//! Hosts say what they want when somebody asks, so that what they said is used only while there is
//! somebody who asks. Without a querier every group goes to everybody, and groups of one link
//! always do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipop_datapath::inet::Version;
use ipop_datapath::stations::VlanId;

use super::membership::{Membership, Record};
use super::port::Port;

/// How long a report counts: the Group Membership Interval (RFC 3376 section 8.4).
pub const MEMBERSHIP: Duration = Duration::from_secs(260);
/// How long a query counts: the Other Querier Present Interval (RFC 3376 section 8.5).
pub const QUERIER: Duration = Duration::from_secs(255);
/// How long others behind a port have to say that they want a group that one of them left: the Last
/// Member Query Time (RFC 3376 section 8.8), and one more to get here.
pub const LAST_MEMBER: Duration = Duration::from_secs(3);
/// Most groups that one port is known to want. One that wants more gets everything.
const MOST_GROUPS: usize = 512;

/// To whom a group goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// To every port.
    Everywhere,
    /// To these.
    Only(BTreeSet<Port>),
}

impl Wanted {
    /// Whether it goes there.
    pub fn includes(&self, port: Port) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Only(ports) => ports.contains(&port),
        }
    }
}

/// Until when each port counts.
type Until = BTreeMap<Port, Instant>;

/// The tables.
#[derive(Debug, Default)]
pub struct Groups {
    members: BTreeMap<(VlanId, IpAddr), Until>,
    /// Ports with routers, or with hosts that want more than is kept in mind: they get everything.
    greedy: BTreeMap<(VlanId, bool), Until>,
    /// Where there is somebody who asks.
    queriers: BTreeMap<(VlanId, bool), Instant>,
    counts: BTreeMap<Port, usize>,
}

impl Groups {
    /// A message came from `port`.
    pub fn heard(
        &mut self,
        vlan: VlanId,
        version: Version,
        port: Port,
        message: &Membership,
        now: Instant,
    ) {
        let link = (vlan, version == Version::V6);
        match message {
            Membership::Query { is_router } => {
                self.queriers.insert(link, now + QUERIER);
                if *is_router {
                    let ports = self.greedy.entry(link).or_default();
                    ports.insert(port, now + QUERIER);
                }
            }
            Membership::Report(records) => {
                for record in records {
                    self.reported(vlan, port, *record, now);
                }
            }
        }
    }

    /// To whom the group goes.
    pub fn wanted(&self, vlan: VlanId, group: IpAddr, now: Instant) -> Wanted {
        let link = (vlan, group.is_ipv6());
        let has_querier = self.queriers.get(&link).is_some_and(|until| now < *until);
        if is_of_the_link(group) || !has_querier {
            return Wanted::Everywhere;
        }
        let members = self.members.get(&(vlan, group));
        let ports = members.into_iter().chain(self.greedy.get(&link)).flatten();
        Wanted::Only(
            ports
                .filter(|(_, until)| now < **until)
                .map(|(port, _)| *port)
                .collect(),
        )
    }

    /// Whether there is a router at the port, who wants to hear reports, too.
    pub fn has_router(&self, vlan: VlanId, version: Version, port: Port, now: Instant) -> bool {
        let ports = self.greedy.get(&(vlan, version == Version::V6));
        ports
            .and_then(|ports| ports.get(&port))
            .is_some_and(|until| now < *until)
    }

    /// Forgets what does not count any more.
    pub fn sweep(&mut self, now: Instant) {
        self.retain(|_, until| now < *until);
        self.queriers.retain(|_, until| now < *until);
    }

    /// The member left, or its LAN is behind another one.
    pub fn forget_port(&mut self, port: Port) {
        self.retain(|of, _| *of != port);
    }

    fn reported(&mut self, vlan: VlanId, port: Port, record: Record, now: Instant) {
        let Record { group, is_wanted } = record;
        if is_of_the_link(group) {
            return;
        }
        let key = (vlan, group);
        let until = self
            .members
            .get_mut(&key)
            .and_then(|ports| ports.get_mut(&port));
        match (until, is_wanted) {
            (Some(until), true) => *until = now + MEMBERSHIP,
            (Some(until), false) => *until = (*until).min(now + LAST_MEMBER),
            (None, false) => {}
            (None, true) => {
                let count = self.counts.entry(port).or_default();
                if *count >= MOST_GROUPS {
                    let ports = self.greedy.entry((vlan, group.is_ipv6())).or_default();
                    ports.insert(port, now + MEMBERSHIP);
                    return;
                }
                *count += 1;
                let ports = self.members.entry(key).or_default();
                ports.insert(port, now + MEMBERSHIP);
            }
        }
    }

    fn retain(&mut self, keep: impl Fn(&Port, &Instant) -> bool) {
        let Self {
            members,
            greedy,
            counts,
            ..
        } = self;
        members.retain(|_, ports| {
            ports.retain(|port, until| {
                let is_kept = keep(port, until);
                if !is_kept && let Some(count) = counts.get_mut(port) {
                    *count -= 1;
                }
                is_kept
            });
            !ports.is_empty()
        });
        greedy.retain(|_, ports| {
            ports.retain(|port, until| keep(port, until));
            !ports.is_empty()
        });
        counts.retain(|_, count| *count > 0);
    }
}

/// Whether a group is of one link, which hosts need not ask for and often do not (RFC 4541 sections
/// 2.1.2 and 3).
fn is_of_the_link(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.octets()[..3] == [224, 0, 0],
        IpAddr::V6(group) => group.octets()[1] & 0xf <= 2,
    }
}

#[cfg(test)]
mod tests;
