//! The switch: what a node does with the Ethernet frames that are not plain unicast between known
//! stations.
//!
//! The threads of the data path look up where a frame's destination is in [`Stations`] and carry it
//! there. Everything else that [`classify`](ipop_datapath::ethernet::classify) finds they hand over,
//! one frame at a time, and so they do with frames of stations that are new or elsewhere than they
//! were. The decisions are here:
//!
//! | Module | Decides |
//! |---|---|
//! | [`fdb`] | who is learned where |
//! | [`loops`] | which of the nodes on one LAN forwards for it |
//! | [`storm`] | how much one port may send to everybody |
//! | [`guard`] | who may hand out addresses and be a router |
//! | [`neighbours`] | who has which IP address, and what is answered in its place |
//! | [`owners`] | who may use which IP address, of those that are in certificates |
//! | [`search`] | when a frame for an unknown station goes to everybody |
//! | [`groups`] | who gets the frames of a multicast group |
//!
//! A [`Switch`] is driven like the rest of this crate: the caller hands in frames, messages of other
//! switches and the time, and takes out [`Action`]s, [`Alarm`]s and the next deadline. A frame that
//! came from a member goes to the LAN or nowhere; whatever a member sends, it makes no other member
//! receive anything.

pub mod alarm;
pub mod arp;
pub mod discovery;
pub mod fdb;
mod frame;
pub mod groups;
pub mod guard;
pub mod journal;
mod lan;
pub mod loops;
mod member;
pub mod membership;
pub mod message;
pub mod neighbours;
pub mod owners;
pub mod port;
pub mod probe;
mod resolution;
pub mod search;
pub mod storm;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipop_datapath::ethernet::{Class, Header};
use ipop_datapath::holders::Holders;
use ipop_datapath::inet::{Headers, Layer, Version};
use ipop_datapath::published::Published;
use ipop_datapath::stations::{Mac, PeerIndex, Station, Stations};

use crate::status::DropReason;
use alarm::{Alarm, Alarms, Trouble};
use fdb::{Fdb, Learned, Limits};
use groups::{Groups, Wanted};
use guard::Policy;
use loops::{Change, LoopGuard};
use message::Message;
use neighbours::Neighbours;
use owners::{Carriers, Own, Owners};
use port::Port;
use probe::NodeId;
use search::Search;
use storm::{Allowances, Flood, StormControl};

/// How often what is too old is forgotten.
const SWEEP: Duration = Duration::from_secs(10);
/// Most names of members that are kept in mind.
const MOST_NAMES: usize = 4096;

/// What a switch is to do and to allow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Most stations.
    pub limits: Limits,
    /// What may be sent to everybody.
    pub allowances: Allowances,
    /// Who may hand out addresses and be a router.
    pub policy: Policy,
    /// Addresses that belong to certain stations.
    pub addresses: Vec<(IpAddr, Mac)>,
    /// This node, whose addresses nobody else uses.
    pub own: Option<Own>,
    /// Who may carry frames of a LAN. Others have no address but their own.
    pub carriers: Carriers,
}

/// What the threads read of what a switch knows.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// Whom it has learned.
    pub stations: Arc<Stations>,
    /// Who may use which address.
    pub holders: Arc<Published<Holders>>,
}

/// What comes to a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matter {
    /// A frame, with a complete checksum.
    Frame(Bytes),
    /// A message of another switch.
    Message(Message),
}

/// What the caller has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write the frame to the TAP device.
    ToLan(Bytes),
    /// Send the frame to the member.
    ToMember(PeerIndex, Bytes),
    /// Send the message to the member.
    Tell(PeerIndex, Message),
    /// Count a frame as dropped that came from there.
    Drop(Port, DropReason),
}

/// See the module.
#[derive(Debug)]
pub struct Switch {
    members: BTreeMap<PeerIndex, String>,
    /// Of members, those that left as well: they may be met on the LAN.
    names: BTreeMap<NodeId, String>,
    policy: Policy,
    fdb: Fdb,
    storm: StormControl,
    neighbours: Neighbours,
    owners: Owners,
    search: Search,
    groups: Groups,
    loops: Option<LoopGuard>,
    /// Which node forwards in place of this one, as members were told.
    told_behind: Option<NodeId>,
    /// When they are told again.
    tell_behind_at: Option<Instant>,
    next_sweep: Instant,
    actions: VecDeque<Action>,
    alarms: Alarms,
}

/// Why a frame goes no farther.
#[derive(Debug)]
enum Refusal {
    /// It is only counted.
    Counted(DropReason),
    /// Somebody should hear of it.
    Said(Trouble),
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Self::Counted(reason)
    }
}

impl<T: Into<Trouble>> From<T> for Refusal {
    fn from(trouble: T) -> Self {
        Self::Said(trouble.into())
    }
}

impl Switch {
    /// A switch without members. What it knows the threads find in `tables`, whose seconds are
    /// counted from `now`. With `loops` its TAP device is bridged to a LAN; without, this machine
    /// is all there is.
    pub fn new(settings: Settings, tables: Tables, loops: Option<LoopGuard>, now: Instant) -> Self {
        Self {
            members: BTreeMap::new(),
            names: BTreeMap::new(),
            policy: settings.policy,
            fdb: Fdb::new(tables.stations, now, settings.limits),
            storm: StormControl::new(settings.allowances),
            neighbours: Neighbours::new(settings.addresses),
            owners: Owners::new(settings.own, settings.carriers, tables.holders),
            search: Search::default(),
            groups: Groups::default(),
            loops,
            told_behind: None,
            tell_behind_at: None,
            next_sweep: now + SWEEP,
            actions: VecDeque::new(),
            alarms: Alarms::default(),
        }
    }

    /// The TAP device is to be bridged to a LAN, or is no more. With `loops` nothing passes, and nobody
    /// is known, until that says that this node forwards.
    pub fn set_loops(&mut self, loops: Option<LoopGuard>, now: Instant) {
        self.loops = loops;
        if !self.is_forwarding() {
            self.stop_forwarding();
        }
        self.set_ready(now);
    }

    /// The link to a member is up. Its number is nobody else's until [`Self::member_left`]; `addresses` are
    /// those that somebody vouches for.
    pub fn member_joined(
        &mut self,
        member: PeerIndex,
        name: &str,
        addresses: &[IpAddr],
        now: Instant,
    ) {
        self.members.insert(member, name.to_owned());
        if self.names.len() < MOST_NAMES {
            self.names.insert(NodeId::of_name(name), name.to_owned());
        }
        self.owners.joined(member, name, addresses);
        self.neighbours.forget_addresses(addresses);
        self.tell_behind_to(member, now);
        self.set_ready(now);
    }

    /// The link to a member is down.
    pub fn member_left(&mut self, member: PeerIndex, now: Instant) {
        if self.members.remove(&member).is_none() {
            return;
        }
        self.forget(Port::Member(member));
        self.owners.left(member, now);
        self.storm.forget(Port::Member(member));
        for (_, frames) in self.search.left(member, now) {
            self.send_to_all(&frames);
        }
        self.set_ready(now);
    }

    /// Whether frames pass between the LAN and the overlay.
    pub fn is_forwarding(&self) -> bool {
        self.loops.as_ref().is_none_or(LoopGuard::is_forwarding)
    }

    /// Whether there is any link.
    pub fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// How many stations are known, on the LAN and behind each member that has any, by name.
    pub fn stations(&self) -> Vec<(String, usize)> {
        let members = self.members.keys().map(|member| Port::Member(*member));
        std::iter::once(Port::Lan)
            .chain(members)
            .map(|port| (self.name(port), self.fdb.count(port)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(loops) = &mut self.loops {
            loops.handle_timeout(now);
        }
        self.follow_loops(now);
        for (_, frames) in self.search.handle_timeout(now) {
            self.send_to_all(&frames);
        }
        if self.next_sweep <= now {
            self.next_sweep = now + SWEEP;
            self.fdb.sweep(now);
            self.neighbours.sweep(&self.fdb, now);
            self.groups.sweep(now);
            let back = self.owners.sweep(now);
            self.neighbours.forget_addresses(&back);
        }
        if self.tell_behind_at.is_some_and(|at| at <= now) {
            self.tell_behind_again(now);
        }
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Instant {
        let loops = self.loops.as_ref().and_then(LoopGuard::poll_timeout);
        let due = [loops, self.search.poll_timeout(), self.tell_behind_at];
        due.into_iter()
            .flatten()
            .fold(self.next_sweep, Instant::min)
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What somebody should hear of, each thing once in a minute.
    pub fn take_alarms(&mut self) -> Vec<Alarm> {
        self.alarms.take()
    }

    fn set_ready(&mut self, now: Instant) {
        if let Some(loops) = &mut self.loops {
            loops.set_ready(!self.members.is_empty(), now);
        }
        self.follow_loops(now);
    }

    /// Does what the state of the LAN asks for.
    fn follow_loops(&mut self, now: Instant) {
        self.heed_loops(now);
        self.tell_behind(now);
    }

    fn heed_loops(&mut self, now: Instant) {
        let Some(loops) = &mut self.loops else {
            return;
        };
        while let Some(frame) = loops.poll_frame() {
            self.actions.push_back(Action::ToLan(frame));
        }
        let changes: Vec<_> = std::iter::from_fn(|| loops.poll_change()).collect();
        for change in changes {
            if change != Change::Forwards {
                self.stop_forwarding();
            }
            self.raise(Port::Lan, Trouble::Lan(change), now);
        }
    }

    /// The LAN's stations are behind another node, or behind none. With nobody learned, the threads
    /// carry nothing either.
    fn stop_forwarding(&mut self) {
        self.forget(Port::Lan);
        for member in self.members.keys().copied().collect::<Vec<_>>() {
            self.forget(Port::Member(member));
            self.actions.push_back(Action::Tell(member, Message::Flush));
        }
        for _ in self.search.clear() {
            let reason = DropReason::Blocked;
            self.actions.push_back(Action::Drop(Port::Lan, reason));
        }
    }

    fn forget(&mut self, port: Port) {
        self.fdb.forget_port(port);
        self.neighbours.forget_port(port);
        self.groups.forget_port(port);
    }

    /// Takes note of where a station is, and sends what waited for it.
    fn learn(&mut self, station: Station, port: Port, now: Instant) -> Result<(), Refusal> {
        if self.fdb.learn(station, port, now)? == Learned::Known {
            return Ok(());
        }
        for frame in self.search.found(station) {
            if let Port::Member(member) = port {
                self.actions.push_back(Action::ToMember(member, frame));
            }
        }
        Ok(())
    }

    /// Who wants a frame that is for more than one.
    fn wanted(&self, header: &Header, frame: &[u8], now: Instant) -> Wanted {
        let headers = Headers::parse(Layer::Ethernet, frame);
        let destination = headers.ok().and_then(|headers| headers.destination(frame));
        match destination {
            Some(group) if group.is_multicast() => self.groups.wanted(header.vlan, group, now),
            _ => Wanted::Everywhere,
        }
    }

    /// Frames of the LAN that were let pass before.
    fn send_to_all(&mut self, frames: &[Bytes]) {
        for frame in frames {
            for member in self.members.keys() {
                self.actions
                    .push_back(Action::ToMember(*member, frame.clone()));
            }
        }
    }
}

/// What storm control counts a frame as that is for more than one.
const fn flood_of(header: &Header) -> Flood {
    match header.destination {
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => Flood::Broadcast,
        _ => Flood::Multicast,
    }
}

/// The version of IP whose groups a message is about.
const fn version_of(class: Class) -> Version {
    match class {
        Class::Igmp => Version::V4,
        _ => Version::V6,
    }
}

#[cfg(test)]
mod tests;
