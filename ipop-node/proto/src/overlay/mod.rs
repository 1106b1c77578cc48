//! The peer table: one link to every member, and the route from an IP packet to its link.
//!
//! Driven from outside: after every call that takes `&mut self`, the caller drains
//! [`Overlay::poll_output`] until it gives `None`, then asks [`Overlay::poll_timeout`] when to call
//! [`Overlay::handle_timeout`] next.
//!
//! Who initiates: the node whose full JID sorts first. Who a peer is: its bare JID, which the
//! server vouches for; a peer that signs in anew under another resource is the same peer, and a
//! working link to it is kept unless its advertisement says that it has none (it restarted).
//! Working links outlive presence and the XMPP server, but not the peer's membership; a peer
//! without link and presence is forgotten. A peer by configuration ([`Overlay::add_static`]) is there
//! for good: its link needs no server, and is made again whenever it ends.
//!
//! In an overlay with an authority ([`Overlay::set_authority`]) who a peer is, is what its certificate
//! says: presence is a claim, which nobody's addresses are given up for, and which a handshake grants
//! or refuses.
//!
//! In an overlay without one this node's owner can be asked about every peer by account
//! ([`Overlay::set_pins`]): it has no link before its key is approved, and is that key from then on.

mod admission;
mod approval;
mod backoff;
mod data;
mod demux;
mod icmp;
mod packet;
mod path;
mod peer;
mod pinning;
mod policy;
mod presence;
mod refusals;
mod revocation;
mod session;
mod setup;
mod static_peers;
mod table;
mod traffic;
mod trust;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use ipop_datapath::policy::Denial;
use rand::SeedableRng;
use rand::rngs::StdRng;

use self::admission::Admission;
pub use self::approval::{ApprovalError, Proof};
use self::demux::Demux;
pub use self::path::{PeerKey, PeerPath};
use self::peer::{Peer, PeerId};
use self::pinning::Approvals;
use self::policy::Rules;
use self::refusals::Refusals;
use self::session::Session;
pub use self::static_peers::StaticPeer;
use self::table::{Table, bare};
pub use self::traffic::Traffic;
use self::trust::OverlayTrust;
use crate::address::OverlayAddrs;
use crate::authority::RevocationList;
use crate::candidate::LocalCandidate;
use crate::config::{OverlayMode, is_dns_label};
use crate::gather::stun::fork;
use crate::gather::{GatherEvent, Gatherer};
pub use crate::link::Identity;
pub use crate::net::{Route, Transmit};
use crate::service::IceServer;
use crate::signal::{Fingerprint, SessionId, Signal, TerminateReason};
use crate::status::{Advertisement, DropReason, PairEnd, PeerStatus};
use crate::switch::Matter;

/// What does not change while a node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayConfig {
    /// Node name.
    pub name: String,
    /// This node's overlay addresses.
    pub addrs: OverlayAddrs,
    /// Overlay MTU in bytes; larger packets are refused with an ICMP error.
    pub mtu: u16,
    /// What is carried; a peer's packets in mode `switch`, and frames in mode `route`, are dropped.
    pub mode: OverlayMode,
    /// Offer and use relay candidates only.
    pub relay_only: bool,
}

/// What the caller has to do.
#[derive(Debug)]
pub enum Output {
    /// Send a datagram.
    Transmit(Transmit),
    /// Write one IP packet to the TUN device.
    Packet(BytesMut),
    /// Give the switch a frame of a peer, or what the peer's switch says. Most of both never come
    /// here: see [`PeerPath`].
    Switch {
        /// Whose.
        peer: PeerKey,
        /// What it is.
        matter: Matter,
    },
    /// Send a signal to a full JID.
    Signal {
        /// Full JID.
        to: String,
        /// What to say.
        signal: Signal,
    },
    /// The way to a peer is another one now, or there is none any more.
    Path {
        /// Whose.
        peer: PeerKey,
        /// The way.
        path: Option<PeerPath>,
    },
    /// A peer is not what it claims to be, or somebody answers in its place; said each time.
    Refused {
        /// Its bare JID, or the name of a peer by configuration.
        account: String,
        /// The node name that it claims.
        peer: String,
        /// The addresses that it claims.
        addrs: OverlayAddrs,
        /// Of the certificate that was shown, if one was.
        fingerprint: Option<Fingerprint>,
        /// What the key of that is known by in records.
        key: Option<String>,
        /// Why.
        why: String,
        /// Whether it has not been said of late; to log then. An account that has many has none that is new.
        is_new: bool,
    },
    /// Somebody came by an account whom this node's owner has not approved; to log.
    Waits {
        /// Its bare JID.
        account: String,
        /// The node name that it says it has.
        peer: String,
        /// Of the certificate that it says it has.
        fingerprint: Option<Fingerprint>,
    },
    /// A newer revocation list is in force; to keep, so that this node does not forget it, and to log.
    Revoked {
        /// The list.
        list: Arc<RevocationList>,
        /// The node name of the peer that it came from; none if it came by [`Overlay::revoke`].
        from: Option<String>,
    },
    /// A peer sent what the rules do not allow; to log. It is said at most once in a minute of each.
    Denied {
        /// Its node name.
        peer: String,
        /// What the key that it showed last is known by in records.
        key: Option<String>,
        /// How many packets since this was said last.
        count: u64,
        /// What the last one was after.
        last: Denial,
    },
    /// A link came up; to log, and to publish [`Overlay::linked`] anew.
    LinkUp {
        /// The peer's node name.
        peer: String,
        /// Of the certificate that the peer has shown.
        fingerprint: Option<Fingerprint>,
        /// What the key of that is known by in records.
        key: Option<String>,
    },
    /// A link went down after having been up.
    LinkDown {
        /// The peer's node name.
        peer: String,
        /// Of the certificate that the peer had shown.
        fingerprint: Option<Fingerprint>,
        /// What the key of that is known by in records.
        key: Option<String>,
        /// Why.
        why: String,
    },
}

/// The overlay as one node sees it.
pub struct Overlay {
    config: OverlayConfig,
    identity: Arc<Identity>,
    rng: StdRng,
    /// Full JID while signed in.
    me: Option<String>,
    gatherer: Gatherer,
    table: Table,
    demux: Demux,
    outputs: VecDeque<Output>,
    drops: BTreeMap<DropReason, u64>,
    admission: Admission,
    /// Whom to believe, in an overlay with an authority.
    trust: Option<OverlayTrust>,
    /// Who was approved, where peers by account have to be.
    approvals: Option<Approvals>,
    refusals: Refusals,
    /// Who may reach what, where there are rules.
    rules: Option<Rules>,
    /// When it is next looked at who was denied something.
    denials_at: Option<Instant>,
    /// What seconds are counted from.
    started: Instant,
    /// No ICMP unreachable before this.
    quiet_until: Instant,
    left: bool,
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overlay")
            .field("config", &self.config)
            .field("me", &self.me)
            .field("gatherer", &self.gatherer)
            .field("linked", &self.linked())
            .finish_non_exhaustive()
    }
}

impl Overlay {
    /// An overlay with no peers. All randomness comes from `seed`, which must be unpredictable:
    /// ICE passwords are drawn from it. Seconds for [`PeerPath::gate`] are counted from `now`.
    pub fn new(now: Instant, config: OverlayConfig, identity: Identity, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        Self {
            config,
            identity: Arc::new(identity),
            gatherer: Gatherer::new(fork(&mut rng)),
            rng,
            me: None,
            table: Table::default(),
            demux: Demux::default(),
            outputs: VecDeque::new(),
            drops: BTreeMap::new(),
            admission: Admission::default(),
            trust: None,
            approvals: None,
            refusals: Refusals::default(),
            rules: None,
            denials_at: None,
            started: now,
            quiet_until: now,
            left: false,
        }
    }

    /// The UDP sockets there are now, best first, each by the address it is bound to. An
    /// unspecified or link-local address gives no candidate.
    pub fn set_sockets(&mut self, now: Instant, sockets: Vec<SocketAddr>) {
        self.gatherer.set_sockets(now, sockets);
        self.gatherer.handle_timeout(now);
        self.drain_gatherer(now);
    }

    /// The STUN and TURN servers to use from now on, with fresh credentials. Call it again with
    /// new ones before those expire.
    pub fn set_ice_servers(&mut self, now: Instant, servers: Vec<IceServer>) {
        self.gatherer.set_servers(now, servers);
        self.gatherer.handle_timeout(now);
        self.drain_gatherer(now);
    }

    /// Signed in to the XMPP server under `full_jid`; signals can be sent from now on. The
    /// presence of the members must be told (again) after this.
    pub fn online(&mut self, now: Instant, full_jid: String) {
        if !self.left {
            self.me = Some(full_jid);
            for id in self.table.ids() {
                self.advance(now, id);
            }
        }
    }

    /// No longer signed in. Links that work go on working; who is present is unknown until
    /// [`Self::online`].
    pub fn offline(&mut self, now: Instant) {
        self.me = None;
        for id in self.table.ids() {
            if let Some(peer) = self.table.get_mut(id) {
                peer.resources.clear();
            }
            let session = self.table.get(id).and_then(|p| p.session.as_ref());
            if session.is_some_and(Session::is_unanswered) {
                self.end(now, id, "this node signed out", None);
            }
            self.advance(now, id);
        }
        self.settle_refused(now);
    }

    /// A member's presence, first or repeated. `jid` is full. A node's own presence, which the
    /// server sends back, is ignored.
    ///
    /// A member that signs in must already advertise the links it kept: one that comes (back)
    /// without naming this node in `linked` is taken to have restarted, and is linked anew.
    pub fn peer_present(&mut self, now: Instant, jid: String, advertisement: Advertisement) {
        self.present(now, jid, advertisement);
        self.admit(now);
    }

    /// A member became unavailable. Its link is kept while it works.
    pub fn peer_gone(&mut self, now: Instant, jid: &str) {
        self.gone(now, jid);
        self.admit(now);
    }

    /// The account `bare` is no longer a member: its link ends, whether it works or not.
    pub fn peer_expelled(&mut self, now: Instant, bare: &str) {
        self.expelled(now, bare);
        self.admit(now);
    }

    /// A signal from the full JID `from`.
    pub fn handle_signal(&mut self, now: Instant, from: &str, signal: Signal) {
        if !self.left {
            self.signalled(now, from, signal);
            self.admit(now);
        }
    }

    /// A signal of session `sid` to `to` came back with the stanza error `condition`
    /// (RFC 6120 section 8.3.3), or was never answered.
    pub fn signal_failed(&mut self, now: Instant, to: &str, sid: &SessionId, condition: &str) {
        let Some(id) = self.table.by_jid(to) else {
            return;
        };
        let current = self.table.get(id).and_then(|p| p.session.as_ref());
        // A link that works needs no signalling.
        if current.is_some_and(|s| s.sid == *sid && !s.was_up) {
            self.fail(now, id, format!("signalling failed: {condition}"), None);
        }
    }

    /// A datagram that came in on the socket bound to `local`.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        payload: BytesMut,
    ) {
        self.datagram(now, local, remote, payload);
        self.admit(now);
    }

    /// Whoever has the [`PeerPath`] of `peer` opened the first record made with newer keys.
    pub fn handle_new_keys(&mut self, now: Instant, peer: PeerKey) {
        self.keys_heard(now, peer);
    }

    /// One IP packet read from the TUN device.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        self.packet(now, packet);
    }

    /// The deadline given by [`Self::poll_timeout`] has passed. Calling early does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.gatherer.handle_timeout(now);
        self.drain_gatherer(now);
        for id in self.table.take_due(now) {
            if let Some(session) = self.table.get_mut(id).and_then(|p| p.session.as_mut()) {
                session.link.handle_timeout(now);
            }
            self.advance(now, id);
        }
        self.gossip_timeout(now);
        self.look_at_denials(now);
        self.admit(now);
    }

    /// When to call [`Self::handle_timeout`] next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let gossip = self.trust.as_mut().and_then(|t| t.gossip.poll_timeout());
        [
            self.gatherer.poll_timeout(),
            self.table.first_timer(),
            self.next_admission(),
            gossip,
            self.denials_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next thing to do; ask until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Every known peer, sorted by name.
    pub fn peers(&self, now: Instant) -> Vec<PeerStatus> {
        let me = self.me.as_deref();
        let mut peers: Vec<_> = self.table.iter().map(|p| p.status(now, me)).collect();
        peers.sort_by(|a, b| (&a.name, &a.jid).cmp(&(&b.name, &b.jid)));
        peers
    }

    /// Drops that belong to no peer; a peer's own are in its [`PeerStatus`].
    pub fn drops(&self) -> &BTreeMap<DropReason, u64> {
        &self.drops
    }

    /// This node's candidates.
    pub fn candidates(&self) -> Vec<PairEnd> {
        let candidates = self.gatherer.candidates().iter();
        candidates
            .map(|c| PairEnd {
                kind: c.candidate.kind,
                addr: c.candidate.addr,
            })
            .collect()
    }

    /// Names of the members with a link that is up, sorted; for the advertisement.
    pub fn linked(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .table
            .iter()
            .filter(|p| p.is_up())
            .map(|p| p.name.clone())
            .collect();
        names.sort();
        names
    }

    /// The name of a peer that somebody vouches for: this node's configuration, the authority or this
    /// node's owner when it has a link, or the server, of whom
    /// it is an account. One that calls itself otherwise is known by its account, which is no node
    /// name, for it has an `@`; so is one with the name of a peer by configuration.
    pub fn vouched_name(&self, peer: PeerKey) -> Option<&str> {
        let peer = self.table.get(PeerId(peer.0))?;
        Some(self.vouched(peer))
    }

    /// The addresses of a peer, if somebody vouches that they are its own: an authority, the owner of this node,
    /// or its configuration.
    pub fn vouched_addrs(&self, peer: PeerKey) -> Option<OverlayAddrs> {
        let peer = self.table.get(PeerId(peer.0))?;
        self.is_vouched_for(peer).then_some(peer.addrs)
    }

    /// Peers with a link that is up and a node name that somebody vouches for, with their addresses.
    pub fn named(&self) -> impl Iterator<Item = (&str, OverlayAddrs)> {
        let up = self.table.iter().filter(|peer| peer.is_up());
        up.map(|peer| (self.vouched(peer), peer.addrs))
            .filter(|(name, _)| is_dns_label(name))
    }

    /// Whether its name and addresses are not only what it says of itself.
    fn is_vouched_for(&self, peer: &Peer) -> bool {
        let all_are = self.trust.is_some() || self.approvals.is_some();
        peer.configured.is_some() || all_are && peer.is_up()
    }

    fn vouched<'a>(&self, peer: &'a Peer) -> &'a str {
        if self.is_vouched_for(peer) {
            return &peer.name;
        }
        let account = bare(&peer.jid);
        let is_own = account
            .split_once('@')
            .is_some_and(|(user, _)| user == peer.name);
        let is_configured = |other: &Peer| other.configured.is_some() && other.name == peer.name;
        if is_own && !self.table.iter().any(is_configured) {
            return &peer.name;
        }
        account
    }

    /// Ends every session with a `session-terminate` and every allocation, for good; drain the
    /// outputs once more and send them before exiting.
    pub fn leave(&mut self, now: Instant) {
        self.left = true;
        for id in self.table.ids() {
            self.end(now, id, "this node leaves", Some(TerminateReason::Success));
            self.table.remove(id);
        }
        self.gatherer.close(now);
        self.drain_gatherer(now);
        self.me = None;
    }

    /// Takes out what the gatherer has: datagrams, and candidates for every session.
    fn drain_gatherer(&mut self, now: Instant) {
        loop {
            while let Some(transmit) = self.gatherer.poll_transmit() {
                self.outputs.push_back(Output::Transmit(transmit));
            }
            let Some(event) = self.gatherer.poll_event() else {
                break;
            };
            let event = match event {
                GatherEvent::Found(local) => GatherEvent::Found(self.to_tell(&local)),
                lost @ GatherEvent::Lost(_) => lost,
                GatherEvent::Dropped(reason) => {
                    self.drop(reason);
                    continue;
                }
            };
            let relay_only = self.config.relay_only;
            let still_based = |g: &Gatherer, base| g.candidates().iter().any(|c| c.base == base);
            for id in self.table.ids() {
                let Some(session) = self.table.get_mut(id).and_then(|p| p.session.as_mut()) else {
                    continue;
                };
                match &event {
                    GatherEvent::Found(local) => {
                        session.link.add_local(now, local.clone());
                        session.trickle(now, local.candidate.clone(), relay_only);
                    }
                    GatherEvent::Lost(local) if !still_based(&self.gatherer, local.base) => {
                        session.link.remove_local(local.base);
                    }
                    GatherEvent::Lost(_) | GatherEvent::Dropped(_) => {}
                }
                self.advance(now, id);
            }
        }
        if self.gatherer.relays() {
            self.tell_paths();
        }
    }

    /// A candidate as peers are told of it: a node that is reached by relays only does not say
    /// where it is (RFC 8839 section 5.1).
    fn to_tell(&self, local: &LocalCandidate) -> LocalCandidate {
        let mut local = local.clone();
        if self.config.relay_only {
            local.candidate.related = None;
        }
        local
    }

    /// Counts a drop that belongs to no peer.
    fn drop(&mut self, reason: DropReason) {
        *self.drops.entry(reason).or_default() += 1;
    }

    fn peer_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.table.get_mut(id)
    }

    /// Peers by configuration have no JID, and are told nothing.
    fn signal(&mut self, to: String, signal: Signal) {
        if self.me.is_some() && !to.is_empty() {
            self.outputs.push_back(Output::Signal { to, signal });
        }
    }
}
