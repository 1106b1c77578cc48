//! Who may reach what, where there are rules: a gate for each peer, which its packets have to pass
//! whoever carries them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ipop_datapath::policy::{Denials, Direction, Ends, Gate};

use super::icmp::{self, Unreachable};
use super::packet::Addresses;
use super::peer::{Peer, PeerId};
use super::{Output, Overlay};
use crate::address::OverlayAddrs;
use crate::link::Link;
use crate::policy::{Member, Policy};
use crate::status::{AlarmStatus, DropReason};

/// How often it is seen who was denied something.
const LOOK: Duration = Duration::from_secs(10);
/// For how long the same peer is not named again.
const ONCE_IN: Duration = Duration::from_secs(60);

/// The rules, and this node as they see it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rules {
    policy: Policy,
    me: Member,
}

/// What a peer's packets have to pass, and what that was made from.
pub(super) struct Gated {
    member: Member,
    addrs: OverlayAddrs,
    /// None where everything passes.
    gate: Option<Arc<Gate>>,
}

/// What a peer was denied, and when that was told.
#[derive(Default)]
pub(super) struct Denied {
    denials: Arc<Denials>,
    told: u64,
    told_at: Option<Instant>,
    /// The key that the peer showed with its newest link: that may be over when it is told.
    pub(super) key: Option<String>,
}

impl Overlay {
    /// Goes by other rules from now on, or by none; `me` is this node as its certificate, or its
    /// configuration, has it. No link ends by that. What was begun is forgotten, so that nothing goes on
    /// which the new rules do not allow.
    pub fn set_policy(&mut self, now: Instant, policy: Option<Policy>, me: Member) {
        let rules = policy.map(|policy| Rules { policy, me });
        if rules == self.rules {
            return;
        }
        self.denials_at = rules.as_ref().map(|_| now + LOOK);
        self.rules = rules;
        for id in self.table.ids() {
            if let Some(peer) = self.table.get_mut(id) {
                peer.gated = None;
            }
            self.tell_path(id);
        }
    }

    /// Who sent what the rules do not allow, as long as the peer is known.
    pub fn denials(&self, now: Instant) -> Vec<AlarmStatus> {
        let denied = self.table.iter().filter_map(|peer| {
            let (denial, at_s) = peer.denied.denials.last()?;
            let age = u64::from(self.second(now).saturating_sub(at_s));
            Some(AlarmStatus {
                origin: peer.name.clone(),
                trouble: format!("sends what no rule allows, {denial} last"),
                holder: None,
                age_ms: age * 1000,
                count: peer.denied.denials.count(),
            })
        });
        denied.collect()
    }

    /// What the packets of a peer whose link is up have to pass; none where everything does.
    pub(super) fn gate(&mut self, id: PeerId) -> Option<Arc<Gate>> {
        let Rules { policy, me } = self.rules.as_ref()?;
        let peer = self.table.get_mut(id)?;
        let (member, addrs) = (peer.member(), peer.addrs);
        let current = peer.gated.as_ref();
        if let Some(gated) = current.filter(|g| g.member == member && g.addrs == addrs) {
            return gated.gate.clone();
        }
        let (inward, outward) = (policy.allowed(&member, me), policy.allowed(me, &member));
        let is_open = inward.is_everything() && outward.is_everything();
        let denials = peer.denied.denials.clone();
        let (own, theirs) = (ends(self.config.addrs), ends(addrs));
        let gate = (!is_open)
            .then(|| Gate::new(own, theirs, inward, outward, denials))
            .map(Arc::new);
        peer.gated = Some(Gated {
            member,
            addrs,
            gate: gate.clone(),
        });
        gate
    }

    /// Whether a packet may pass between this node and a peer.
    pub(super) fn admits(
        &mut self,
        now: Instant,
        id: PeerId,
        direction: Direction,
        packet: &[u8],
    ) -> bool {
        let now_s = self.second(now);
        let gate = self.gate(id);
        gate.is_none_or(|gate| gate.admits(direction, packet, now_s))
    }

    /// Drops a packet of this node that the rules do not let pass, and tells its kernel, so that whoever
    /// sent it does not wait.
    pub(super) fn prohibit(
        &mut self,
        now: Instant,
        id: PeerId,
        packet: &[u8],
        addresses: Addresses,
    ) {
        if let Some(peer) = self.table.get(id) {
            peer.traffic.dropped(DropReason::NotAllowed);
        }
        self.unreachable(now, packet, addresses, Unreachable::Prohibited);
    }

    /// An ICMP error for this node's kernel, now and then.
    pub(super) fn unreachable(
        &mut self,
        now: Instant,
        packet: &[u8],
        addresses: Addresses,
        why: Unreachable,
    ) {
        if now >= self.quiet_until {
            self.quiet_until = now + icmp::PACE;
            let error = icmp::error(packet, addresses, why);
            self.outputs.extend(error.map(Output::Packet));
        }
    }

    /// Tells who was denied something since it was told last.
    pub(super) fn look_at_denials(&mut self, now: Instant) {
        if self.denials_at.is_none_or(|at| now < at) {
            return;
        }
        self.denials_at = Some(now + LOOK);
        for id in self.table.ids() {
            let Some(peer) = self.table.get_mut(id) else {
                continue;
            };
            let denied = &mut peer.denied;
            let count = denied.denials.count();
            let is_quiet = denied.told_at.is_some_and(|at| now < at + ONCE_IN);
            let Some((denial, _)) = denied.denials.last().filter(|_| count > denied.told) else {
                continue;
            };
            if is_quiet {
                continue;
            }
            let link = peer.session.as_ref().map(|session| &session.link);
            let key = link.and_then(Link::shown_key).or(denied.key.clone());
            denied.told_at = Some(now);
            let since = count - std::mem::replace(&mut denied.told, count);
            self.outputs.push_back(Output::Denied {
                peer: peer.name.clone(),
                key,
                count: since,
                last: denial,
            });
        }
    }

    /// The second that gates go by; that of [`PeerPath`](super::PeerPath) is the same.
    fn second(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.started).as_secs() as u32
    }
}

impl Peer {
    /// As rules see it: what its certificate says, or the configuration. Nobody else is believed, so that
    /// any other is in no group, and has no name.
    pub(super) fn member(&self) -> Member {
        let link = self.session.as_ref().map(|session| &session.link);
        if let Some(certified) = link.and_then(|link| link.certified()) {
            return Member::of(certified);
        }
        let configured = self.configured.as_ref();
        configured.map_or_else(Member::default, |peer| Member {
            name: peer.name.clone(),
            groups: peer.groups.clone(),
            role: None,
        })
    }
}

fn ends(addrs: OverlayAddrs) -> Ends {
    Ends {
        v4: addrs.ipv4.addr,
        v6: addrs.ipv6.addr,
    }
}
