//! One peer: a member other than this node, known by its bare JID or by configuration.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ipop_datapath::policy::Gate;

use super::backoff::Backoff;
use super::policy::{Denied, Gated};
use super::session::Session;
use super::static_peers::StaticPeer;
use super::traffic::Traffic;
use crate::address::OverlayAddrs;
use crate::link::Keys;
use crate::net::Route;
use crate::signal::{Fingerprint, SessionId};
use crate::status::{Advertisement, LinkState, PeerStatus};

/// Names a peer for as long as the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PeerId(pub(super) u64);

/// A peer's next deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timer {
    pub(super) at: Instant,
    /// The peer does not mind to be called sooner.
    pub(super) patient: bool,
}

impl Timer {
    /// One that is kept to.
    pub(super) fn exact(at: Instant) -> Self {
        Self { at, patient: false }
    }
}

/// A member and the session with it.
pub(super) struct Peer {
    /// The full JID to signal to; empty for a peer by configuration.
    pub(super) jid: String,
    /// What the configuration says, if that is how it is known.
    pub(super) configured: Option<StaticPeer>,
    pub(super) name: String,
    pub(super) addrs: OverlayAddrs,
    /// Of the certificate that it says it has, where peers are approved by that.
    pub(super) key: Option<Fingerprint>,
    /// Resources that are signed in, the one that counts last: the newest, or when no session with
    /// that came about, one before. More than one only while the server has not noticed the end of
    /// a connection.
    pub(super) resources: Vec<(String, Advertisement)>,
    /// Why no link to this peer is made.
    pub(super) refused: Option<String>,
    /// This node begins the next session, although the peer sorts first.
    pub(super) asks: bool,
    pub(super) session: Option<Session>,
    /// The session that ended last.
    pub(super) last: Option<SessionId>,
    /// Why it ended.
    pub(super) failure: Option<String>,
    pub(super) backoff: Backoff,
    /// What `setup` is counted from.
    pub(super) since: Instant,
    pub(super) setup: Option<Duration>,
    pub(super) traffic: Arc<Traffic>,
    /// The route that was told last, and the keys.
    pub(super) path: Option<Route>,
    pub(super) keys: Option<Keys>,
    /// What its packets have to pass, as it was told with the route.
    pub(super) told_gate: Option<Arc<Gate>>,
    pub(super) gated: Option<Gated>,
    pub(super) denied: Denied,
    /// The deadline it is filed under.
    pub(super) timer: Option<Timer>,
}

impl Peer {
    pub(super) fn new(now: Instant, jid: String, advertisement: &Advertisement) -> Self {
        let (name, addrs) = (advertisement.name.clone(), advertisement.addrs);
        Self {
            key: advertisement.fingerprint,
            ..Self::without_link(now, jid, name, addrs, None)
        }
    }

    pub(super) fn configured(now: Instant, peer: StaticPeer) -> Self {
        let (name, addrs) = (peer.name.clone(), peer.addrs);
        Self::without_link(now, String::new(), name, addrs, Some(peer))
    }

    fn without_link(
        now: Instant,
        jid: String,
        name: String,
        addrs: OverlayAddrs,
        configured: Option<StaticPeer>,
    ) -> Self {
        Self {
            jid,
            configured,
            name,
            addrs,
            key: None,
            resources: Vec::new(),
            refused: None,
            asks: false,
            session: None,
            last: None,
            failure: None,
            backoff: Backoff::default(),
            since: now,
            setup: None,
            traffic: Arc::default(),
            path: None,
            keys: None,
            told_gate: None,
            gated: None,
            denied: Denied::default(),
            timer: None,
        }
    }

    pub(super) fn is_present(&self) -> bool {
        !self.resources.is_empty()
    }

    /// Whether the next attempt may be made.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.backoff.until.is_none_or(|until| until <= now)
    }

    pub(super) fn is_up(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|s| *s.link.state() == LinkState::Up)
    }

    /// As `status` shows it; `me` is this node's full JID while it is signed in.
    pub(super) fn status(&self, now: Instant, me: Option<&str>) -> PeerStatus {
        let link = self.session.as_ref().map(|s| &s.link);
        let (local, remote) = link.and_then(|l| l.pair()).unzip();
        let mut drops = self.traffic.drops();
        let (tx_packets, tx_bytes) = self.traffic.tx();
        let (rx_packets, rx_bytes) = self.traffic.rx();
        for (reason, count) in link.map(|l| l.drops()).into_iter().flatten() {
            *drops.entry(*reason).or_default() += count;
        }
        let member = self.member();
        PeerStatus {
            name: self.name.clone(),
            jid: self.jid.clone(),
            addrs: self.addrs,
            link: link.map_or_else(
                || LinkState::Down {
                    why: self.why_down(now, me),
                },
                |l| l.state().clone(),
            ),
            local,
            remote,
            rtt_us: link
                .and_then(|l| l.rtt())
                .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            setup_ms: self
                .setup
                .filter(|_| self.is_up())
                .map(|setup| u64::try_from(setup.as_millis()).unwrap_or(u64::MAX)),
            tx_bytes,
            tx_packets,
            rx_bytes,
            rx_packets,
            drops,
            groups: member.groups,
            role: member.role,
        }
    }

    fn why_down(&self, now: Instant, me: Option<&str>) -> String {
        if let Some(refused) = &self.refused {
            return refused.clone();
        }
        let next_attempt = || {
            let left = self
                .backoff
                .until
                .map_or(Duration::ZERO, |t| t.duration_since(now));
            format!("next attempt in {} s", left.as_millis().div_ceil(1000))
        };
        let waiting = match me {
            _ if self.configured.is_some() => next_attempt(),
            None => "this node is not signed in".to_owned(),
            Some(_) if !self.is_present() => "the peer is not signed in".to_owned(),
            Some(me) if me < self.jid.as_str() => next_attempt(),
            Some(_) => "waiting for the peer to initiate".to_owned(),
        };
        match &self.failure {
            Some(failure) => format!("{failure}; {waiting}"),
            None => waiting,
        }
    }
}
