//! Which station has which IP address, as ARP (RFC 826) and Neighbour Discovery (RFC 4861) tell.
//!
//! Who claims an address first has it, and others are refused, until its holder was silent for
//! [`Fdb::age`]; what is configured is held for ever. From the same knowledge the switch answers for
//! stations behind other members (RFC 9161), so that questions do not cross the overlay.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use ipop_datapath::stations::{Mac, Station, VlanId};
use thiserror::Error;

use super::fdb::Fdb;
use super::port::Port;

/// Most addresses that are known behind one member.
pub const MOST_OF_A_MEMBER: usize = 2048;
/// Most addresses that are known on the LAN.
pub const MOST_OF_THE_LAN: usize = 8192;

/// A station says that it has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub station: Station,
    /// Where it is.
    pub port: Port,
    /// Which address.
    pub ip: IpAddr,
    /// Whether it says that it is a router.
    pub is_router: bool,
}

/// Why a claim is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// Another station has the address.
    #[error("{ip} belongs to another station")]
    Taken {
        /// The address.
        ip: IpAddr,
        /// Who has it.
        holder: Mac,
        /// Where that one is, if it was seen.
        at: Option<Port>,
        /// Whether it has it by configuration.
        is_configured: bool,
    },
    /// No station can have that address.
    #[error("{0} is nobody's address")]
    Nobodys(IpAddr),
    /// As many addresses are known there as may be.
    #[error("there are {limit} addresses already")]
    TooMany {
        /// Where.
        port: Port,
        /// The bound that was reached.
        limit: usize,
    },
}

/// Who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Its link-layer address.
    pub mac: Mac,
    /// Where it is.
    pub port: Port,
    /// Whether it said that it is a router.
    pub is_router: bool,
}

/// The table.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// By configuration, in every VLAN.
    configured: HashMap<IpAddr, Mac>,
    known: HashMap<(VlanId, IpAddr), Known>,
    counts: HashMap<Port, usize>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    neighbour: Neighbour,
    seen: Instant,
}

impl Neighbours {
    /// Addresses that belong to certain stations, whatever is claimed.
    pub fn new(configured: impl IntoIterator<Item = (IpAddr, Mac)>) -> Self {
        Self {
            configured: configured.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Takes note of a claim. That the station is where it says is for the caller to know, from
    /// `fdb`.
    ///
    /// # Errors
    ///
    /// When it is not to be believed. What was known stays.
    pub fn claim(&mut self, claim: Claim, fdb: &Fdb, now: Instant) -> Result<(), Refused> {
        let Claim { station, ip, .. } = claim;
        if !is_somebodys(ip) {
            return Err(Refused::Nobodys(ip));
        }
        let key = (station.vlan, ip);
        let known = self.known.get(&key).copied();
        let at = known.map(|known| known.neighbour.port);
        if let Some(holder) = self.configured.get(&ip)
            && *holder != station.mac
        {
            return Err(Refused::Taken {
                ip,
                holder: *holder,
                at,
                is_configured: true,
            });
        }
        if let Some(known) = known
            && known.neighbour.mac != station.mac
            && known.is_alive(station.vlan, fdb, now)
        {
            return Err(Refused::Taken {
                ip,
                holder: known.neighbour.mac,
                at,
                is_configured: false,
            });
        }
        if at != Some(claim.port) {
            self.make_room(claim.port)?;
            if let Some(before) = at {
                self.discount(before);
            }
        }
        let neighbour = Neighbour {
            mac: station.mac,
            port: claim.port,
            is_router: claim.is_router,
        };
        let seen = now;
        self.known.insert(key, Known { neighbour, seen });
        Ok(())
    }

    /// Who has the address, if it was heard of lately, or its station was.
    pub fn find(&self, vlan: VlanId, ip: IpAddr, fdb: &Fdb, now: Instant) -> Option<Neighbour> {
        let known = self.known.get(&(vlan, ip))?;
        known.is_alive(vlan, fdb, now).then_some(known.neighbour)
    }

    /// Forgets those that were silent for too long.
    pub fn sweep(&mut self, fdb: &Fdb, now: Instant) {
        self.retain(|vlan, _, known| known.is_alive(vlan, fdb, now));
    }

    /// The member left, or its LAN is behind another one.
    pub fn forget_port(&mut self, port: Port) {
        self.known.retain(|_, known| known.neighbour.port != port);
        self.counts.remove(&port);
    }

    /// The addresses are others' now.
    pub fn forget_addresses(&mut self, addresses: &[IpAddr]) {
        if !addresses.is_empty() {
            self.retain(|_, ip, _| !addresses.contains(&ip));
        }
    }

    fn retain(&mut self, mut stays: impl FnMut(VlanId, IpAddr, &Known) -> bool) {
        let counts = &mut self.counts;
        self.known.retain(|(vlan, ip), known| {
            let stays = stays(*vlan, *ip, known);
            if !stays && let Some(count) = counts.get_mut(&known.neighbour.port) {
                *count -= 1;
            }
            stays
        });
    }

    fn make_room(&mut self, port: Port) -> Result<(), Refused> {
        let limit = match port {
            Port::Lan => MOST_OF_THE_LAN,
            Port::Member(_) => MOST_OF_A_MEMBER,
        };
        let count = self.counts.entry(port).or_default();
        if *count >= limit {
            return Err(Refused::TooMany { port, limit });
        }
        *count += 1;
        Ok(())
    }

    fn discount(&mut self, port: Port) {
        if let Some(count) = self.counts.get_mut(&port) {
            *count -= 1;
        }
    }
}

impl Known {
    /// Whether its station was heard of lately where it was, be it by other frames.
    fn is_alive(&self, vlan: VlanId, fdb: &Fdb, now: Instant) -> bool {
        let Neighbour { mac, port, .. } = self.neighbour;
        match fdb.locate(Station { vlan, mac }, now) {
            Some(at) => at == port,
            None => now.saturating_duration_since(self.seen) <= fdb.age(),
        }
    }
}

/// Whether a station can have the address.
fn is_somebodys(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !is_broadcast
}

#[cfg(test)]
mod tests;
