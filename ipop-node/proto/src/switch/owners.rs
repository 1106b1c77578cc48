//! Who may use which IP address, of those that somebody vouches for.
//!
//! An address in a member's certificate is used by that member, and one of this node's own by this node. Frames
//! of others that come from it are dropped, and who sent them is named. A member may say that its machine is
//! reached through another node now, one that forwards for the LAN that both are on (no LAN has two that do).
//! That is believed for [`LENT_FOR`] after it was said last. What a member had that left is nobody's for
//! [`ABSENT_FOR`], unless one comes that has it. All other addresses are for those who carry frames of a LAN.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipop_datapath::ethernet::{ETHERTYPE_ARP, Header};
use ipop_datapath::holders::{Holders, NotItsOwn};
use ipop_datapath::published::Published;
use ipop_datapath::stations::{LOCAL, NOBODY, PeerIndex, Station};

use super::alarm::Trouble;
use super::arp::Arp;
use super::loops::LoopGuard;
use super::message::Message;
use super::port::Port;
use super::probe::NodeId;
use super::{Action, Refusal, SWEEP, Switch};

/// How long it is believed that a member's machine is behind another node. It is said again at each
/// sweep (10 s), which is when it is forgotten, too.
pub const LENT_FOR: Duration = Duration::from_secs(35);
/// How long nobody may use the addresses of a member that left.
pub const ABSENT_FOR: Duration = Duration::from_secs(3600);
/// Most such addresses.
const MOST_ABSENT: usize = 8192;
/// When what was told is told once more.
const SOON: Duration = Duration::from_secs(1);
/// Least time between two things that a member says of where it is, if they are to be believed.
const LEAST: Duration = Duration::from_millis(500);

/// This node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// As others on its LAN know it.
    pub id: NodeId,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Who may carry frames of a LAN.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Carriers {
    /// Every member.
    #[default]
    Anybody,
    /// Members with these names.
    Only(BTreeSet<String>),
}

impl Carriers {
    fn include(&self, name: &str) -> bool {
        match self {
            Self::Anybody => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Owners {
    own: Option<Own>,
    carriers: Carriers,
    members: BTreeMap<PeerIndex, Owner>,
    /// Addresses of members that left, and when.
    absent: BTreeMap<IpAddr, Instant>,
    current: Arc<Holders>,
    /// What the threads read.
    published: Arc<Published<Holders>>,
}

#[derive(Debug)]
struct Owner {
    id: NodeId,
    addresses: Vec<IpAddr>,
    carries: bool,
    /// Which node its machine is behind.
    behind: Option<NodeId>,
    /// When it said so last.
    said: Option<Instant>,
}

impl Owners {
    pub(super) fn new(
        own: Option<Own>,
        carriers: Carriers,
        published: Arc<Published<Holders>>,
    ) -> Self {
        let mut owners = Self {
            own,
            carriers,
            members: BTreeMap::new(),
            absent: BTreeMap::new(),
            current: Arc::default(),
            published,
        };
        owners.publish();
        owners
    }

    pub(super) fn joined(&mut self, member: PeerIndex, name: &str, addresses: &[IpAddr]) {
        let owner = Owner {
            id: NodeId::of_name(name),
            addresses: addresses.to_vec(),
            // Of one that nobody vouches for it is not known which are its own.
            carries: addresses.is_empty() || self.carriers.include(name),
            behind: None,
            said: None,
        };
        for ip in addresses {
            self.absent.remove(ip);
        }
        self.members.insert(member, owner);
        self.publish();
    }

    pub(super) fn left(&mut self, member: PeerIndex, now: Instant) {
        let owner = self.members.remove(&member);
        for ip in owner.into_iter().flat_map(|owner| owner.addresses) {
            if self.absent.len() < MOST_ABSENT && self.owner_of(ip).is_none() {
                self.absent.insert(ip, now);
            }
        }
        self.publish();
    }

    /// A member said which node its machine is behind. Gives its addresses where that is news.
    pub(super) fn said_behind(
        &mut self,
        member: PeerIndex,
        node: Option<NodeId>,
        now: Instant,
    ) -> Vec<IpAddr> {
        let Some(owner) = self.members.get_mut(&member) else {
            return Vec::new();
        };
        if owner.behind == node {
            owner.said = Some(now);
            return Vec::new();
        }
        // It will say it again.
        if owner.said.is_some_and(|said| now < said + LEAST) {
            return Vec::new();
        }
        (owner.behind, owner.said) = (node, Some(now));
        let addresses = owner.addresses.clone();
        self.publish();
        addresses
    }

    /// Forgets what was said, or what happened, too long ago. Gives the addresses that nobody has lent any more.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<IpAddr> {
        let mut back = Vec::new();
        for owner in self.members.values_mut() {
            let is_old = owner.said.is_some_and(|said| said + LENT_FOR <= now);
            if is_old && owner.behind.is_some() {
                owner.behind = None;
                back.extend(&owner.addresses);
            }
        }
        let absent = self.absent.len();
        self.absent.retain(|_, since| *since + ABSENT_FOR > now);
        if !back.is_empty() || self.absent.len() != absent {
            self.publish();
        }
        back
    }

    fn owner_of(&self, ip: IpAddr) -> Option<PeerIndex> {
        let mut members = self.members.iter();
        members
            .find(|(_, owner)| owner.addresses.contains(&ip))
            .map(|(member, _)| *member)
    }

    fn admit(&self, port: Port, ip: IpAddr) -> Result<(), NotItsOwn> {
        self.current.admit(port.index(), ip)
    }

    fn publish(&mut self) {
        let mut holders = Holders::default();
        for ip in self.absent.keys() {
            holders.hold(*ip, NOBODY, None);
        }
        for (member, owner) in &self.members {
            let also = owner.behind.and_then(|node| self.index_of(node));
            for ip in &owner.addresses {
                holders.hold(*ip, *member, also);
            }
            if !owner.carries {
                holders.confine(*member);
            }
        }
        for ip in self.own.iter().flat_map(|own| &own.addresses) {
            holders.hold(*ip, LOCAL, None);
        }
        self.current = self.published.publish(holders);
    }

    fn index_of(&self, node: NodeId) -> Option<PeerIndex> {
        if self.own.as_ref().is_some_and(|own| own.id == node) {
            return Some(LOCAL);
        }
        let mut members = self.members.iter();
        members
            .find(|(_, owner)| owner.id == node)
            .map(|(member, _)| *member)
    }
}

impl Switch {
    /// Refuses a frame that comes from an IP address which its sender may not use.
    pub(super) fn check_source(
        &self,
        port: Port,
        header: &Header,
        frame: &[u8],
    ) -> Result<(), Refusal> {
        let source = match header.ethertype {
            ETHERTYPE_ARP => Arp::read(&frame[header.payload_at..]).map(|arp| arp.sender_ip.into()),
            _ => header.ip_source(frame),
        };
        source.map_or(Ok(()), |ip| self.may_use(port, header.sender(), ip))
    }

    /// Whether `station`, which is at `port`, may use the address.
    pub(super) fn may_use(&self, port: Port, station: Station, ip: IpAddr) -> Result<(), Refusal> {
        self.owners.admit(port, ip).map_err(|refused| {
            let holder = match refused {
                NotItsOwn::Held(LOCAL) => Some(Port::Lan),
                NotItsOwn::Held(NOBODY) | NotItsOwn::Confined => None,
                NotItsOwn::Held(member) => Some(Port::Member(member)),
            };
            let trouble = Trouble::Foreign {
                station,
                ip,
                holder,
            };
            Refusal::Said(trouble)
        })
    }

    /// Tells members which node forwards in place of this one, if that is another one than they know.
    pub(super) fn tell_behind(&mut self, now: Instant) {
        let loops = self.loops.as_ref();
        let behind = loops.and_then(LoopGuard::stands_by_for);
        if behind != self.told_behind {
            self.told_behind = behind;
            self.tell_behind_to_all();
            self.tell_behind_soon(now);
        }
    }

    /// Tells a member that is new.
    pub(super) fn tell_behind_to(&mut self, member: PeerIndex, now: Instant) {
        if self.told_behind.is_some() {
            let message = Message::Behind(self.told_behind);
            self.actions.push_back(Action::Tell(member, message));
            self.tell_behind_soon(now);
        }
    }

    /// Messages get lost, and a new member may have no path yet.
    fn tell_behind_soon(&mut self, now: Instant) {
        let soon = now + SOON;
        self.tell_behind_at = Some(self.tell_behind_at.map_or(soon, |at| at.min(soon)));
    }

    /// Tells it again, for as long as it is so.
    pub(super) fn tell_behind_again(&mut self, now: Instant) {
        self.tell_behind_to_all();
        self.tell_behind_at = self.told_behind.map(|_| now + SWEEP);
    }

    fn tell_behind_to_all(&mut self) {
        for member in self.members.keys() {
            let message = Message::Behind(self.told_behind);
            self.actions.push_back(Action::Tell(*member, message));
        }
    }
}
