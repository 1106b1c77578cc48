//! The peers and the indexes into them: by bare JID (members have one), by overlay address, by deadline.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use super::peer::{Peer, PeerId, Timer};
use crate::address::OverlayAddrs;
use crate::link::KEEPALIVE_EARLY;

/// All peers.
#[derive(Default)]
pub(super) struct Table {
    peers: HashMap<PeerId, Peer>,
    by_bare: HashMap<String, PeerId>,
    routes: HashMap<IpAddr, PeerId>,
    timers: BTreeSet<(Instant, PeerId)>,
    /// The timers of those that do not mind to be called sooner, by up to [`KEEPALIVE_EARLY`].
    patient: BTreeSet<(Instant, PeerId)>,
    next: u64,
}

impl Table {
    pub(super) fn insert(&mut self, peer: Peer) -> PeerId {
        self.next += 1;
        let id = PeerId(self.next);
        if peer.configured.is_none() {
            self.by_bare.insert(bare(&peer.jid).to_owned(), id);
        }
        self.peers.insert(id, peer);
        id
    }

    pub(super) fn remove(&mut self, id: PeerId) {
        self.release(id);
        if let Some(peer) = self.peers.remove(&id) {
            if peer.configured.is_none() {
                self.by_bare.remove(bare(&peer.jid));
            }
            if let Some(timer) = peer.timer {
                self.filed(timer).remove(&(timer.at, id));
            }
        }
    }

    pub(super) fn get(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(&id)
    }

    /// By full or bare JID.
    pub(super) fn by_jid(&self, jid: &str) -> Option<PeerId> {
        self.by_bare.get(bare(jid)).copied()
    }

    /// By overlay address.
    pub(super) fn route(&self, addr: IpAddr) -> Option<PeerId> {
        self.routes.get(&addr).copied()
    }

    /// Somebody who says that this address is its own, if it is nobody's yet.
    pub(super) fn claimant(&self, addr: IpAddr) -> Option<PeerId> {
        let claims = |(_, peer): &(_, &Peer)| peer.refused.is_none() && peer.addrs.is(addr);
        self.peers.iter().find(claims).map(|(id, _)| *id)
    }

    pub(super) fn ids(&self) -> Vec<PeerId> {
        let mut ids: Vec<_> = self.peers.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    /// Whether a peer can have the addresses that it claims, as far as those of other peers do not
    /// matter. The error says why not.
    pub(super) fn admits(&self, id: PeerId, me: &OverlayAddrs) -> Result<(), String> {
        self.peers
            .get(&id)
            .map_or(Ok(()), |peer| fits(&peer.addrs, me))
    }

    /// Routes the addresses of a peer to it, if they are nobody else's. The error says whose.
    pub(super) fn claim(&mut self, id: PeerId, me: &OverlayAddrs) -> Result<(), String> {
        self.release(id);
        self.admits(id, me)?;
        for addr in self.addrs(id) {
            if let Some(other) = self.routes.get(&addr).and_then(|o| self.peers.get(o)) {
                return Err(format!(
                    "it advertises {addr}, which is {}'s address",
                    other.name
                ));
            }
        }
        for addr in self.addrs(id) {
            self.routes.insert(addr, id);
        }
        Ok(())
    }

    fn addrs(&self, id: PeerId) -> impl Iterator<Item = IpAddr> + use<> {
        let addrs = self.peers.get(&id).map(|peer| peer.addrs);
        let addrs = addrs.map(|addrs| [addrs.ipv4.addr.into(), addrs.ipv6.addr.into()]);
        addrs.into_iter().flatten()
    }

    /// Takes back the routes of a peer. Whether there were any.
    pub(super) fn release(&mut self, id: PeerId) -> bool {
        let before = self.routes.len();
        if let Some(peer) = self.peers.get(&id) {
            for addr in [peer.addrs.ipv4.addr.into(), peer.addrs.ipv6.addr.into()] {
                if self.routes.get(&addr) == Some(&id) {
                    self.routes.remove(&addr);
                }
            }
        }
        self.routes.len() != before
    }

    /// Files a peer under its deadline.
    pub(super) fn schedule(&mut self, id: PeerId, timer: Option<Timer>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let old = std::mem::replace(&mut peer.timer, timer);
        if old == timer {
            return;
        }
        if let Some(old) = old {
            self.filed(old).remove(&(old.at, id));
        }
        if let Some(new) = timer {
            self.filed(new).insert((new.at, id));
        }
    }

    fn filed(&mut self, timer: Timer) -> &mut BTreeSet<(Instant, PeerId)> {
        match timer.patient {
            true => &mut self.patient,
            false => &mut self.timers,
        }
    }

    /// The earliest deadline.
    pub(super) fn first_timer(&self) -> Option<Instant> {
        let first = [self.timers.first(), self.patient.first()];
        first.into_iter().flatten().map(|(at, _)| *at).min()
    }

    /// Whose deadlines have passed, each once, and those that may be called with them. They are
    /// filed under none then.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<PeerId> {
        let mut due = Vec::new();
        if self.first_timer().is_none_or(|at| at > now) {
            return due;
        }
        for (timers, until) in [
            (&mut self.timers, now),
            (&mut self.patient, now + KEEPALIVE_EARLY),
        ] {
            while let Some((_, id)) = timers.first().copied().filter(|(at, _)| *at <= until) {
                timers.pop_first();
                due.push(id);
            }
        }
        for id in &due {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.timer = None;
            }
        }
        due
    }
}

/// Whether another node than `me` can have these addresses, whoever it is. The error says why not.
pub(super) fn fits(addrs: &OverlayAddrs, me: &OverlayAddrs) -> Result<(), String> {
    for addr in [IpAddr::from(addrs.ipv4.addr), addrs.ipv6.addr.into()] {
        if me.is(addr) {
            return Err(format!("it advertises this node's own address {addr}"));
        }
        let inside = match addr {
            IpAddr::V4(v4) => me.ipv4.contains(v4),
            IpAddr::V6(v6) => me.ipv6.contains(v6),
        };
        if !inside || addr.is_multicast() || addr.is_unspecified() {
            return Err(format!(
                "it advertises {addr}, which is outside the overlay's network"
            ));
        }
    }
    Ok(())
}

/// The bare part of a JID.
pub(super) fn bare(jid: &str) -> &str {
    jid.split_once('/').map_or(jid, |(bare, _)| bare)
}
