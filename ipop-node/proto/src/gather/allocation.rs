//! One allocation on one TURN server (RFC 8656): made, refreshed, made again when lost.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rand::RngExt;
use rand::rngs::StdRng;
use rtc_stun::attributes::ATTR_XOR_RELAYED_ADDRESS;
use rtc_stun::message::{Message, TransactionId};

use super::permission::{Ask, Peers, Way};
use super::request::{Request, lifetime};
use super::stun::{self, Answer, Auth, Credential};
use super::transaction::{Due, Transaction};
use super::turn;
use crate::net::DatagramClass;
use crate::status::DropReason;

/// Before another attempt at an allocation that failed: 2 s, doubled up to 60 s.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long before its end a credential is given up for its successor.
const EXPIRY_MARGIN: Duration = Duration::from_secs(60);
/// How often one request is sent again with another nonce before it counts as refused.
const AUTH_TRIES: u8 = 3;

/// One allocation, or the attempt at it.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) socket: SocketAddr,
    pub(super) server: SocketAddr,
    credential: Held,
    /// Newer credential that the server has not been shown to accept for this allocation.
    successor: Option<Held>,
    realm: Option<String>,
    nonce: String,
    phase: Phase,
    failures: u32,
    ask_family: bool,
    mapped: Option<SocketAddr>,
    pending: HashMap<TransactionId, Pending>,
    peers: Peers,
}

/// A credential that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
struct Held(Credential);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential")
            .field("expires", &self.0.expires)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Phase {
    Waiting {
        until: Instant,
    },
    Allocating,
    Live {
        relayed: SocketAddr,
        refresh: Instant,
    },
    Closed,
}

#[derive(Debug)]
struct Pending {
    request: Request,
    transaction: Transaction,
    auth: Option<Auth>,
    tries: u8,
}

/// Where an allocation puts datagrams for its server, and what it draws randomness from.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) rng: &'a mut StdRng,
    pub(super) out: &'a mut Vec<BytesMut>,
    /// Datagrams dropped that were taken before.
    pub(super) dropped: &'a mut Vec<DropReason>,
}

impl Allocation {
    /// Asks for the allocation at the next [`Self::handle_timeout`].
    pub(super) fn new(
        now: Instant,
        socket: SocketAddr,
        server: SocketAddr,
        credential: Credential,
    ) -> Self {
        Self {
            socket,
            server,
            credential: Held(credential),
            successor: None,
            realm: None,
            nonce: String::new(),
            phase: Phase::Waiting { until: now },
            failures: 0,
            ask_family: server.is_ipv6(),
            mapped: None,
            pending: HashMap::new(),
            peers: Peers::default(),
        }
    }

    /// The relayed address, while there is one.
    pub(super) fn relayed(&self) -> Option<SocketAddr> {
        match self.phase {
            Phase::Live { relayed, .. } => Some(relayed),
            _ => None,
        }
    }

    /// Where the server saw the Allocate request come from.
    pub(super) fn mapped(&self) -> Option<SocketAddr> {
        self.mapped
    }

    /// Whether it failed and waits for another attempt.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. })
    }

    /// How many requests the server has not answered.
    pub(super) fn requests(&self) -> usize {
        self.pending.len()
    }

    /// Whether it was closed and has nothing left to say.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Closed) && self.pending.is_empty()
    }

    /// A newer credential. A live allocation keeps its own until the server accepts the new one
    /// for it, or the old one ends: RFC 8656 section 5 ties an allocation to its user name.
    pub(super) fn set_credential(&mut self, cx: &mut Context<'_>, credential: Credential) {
        let credential = Held(credential);
        if credential == self.credential {
            return;
        }
        if self.relayed().is_none() {
            self.credential = credential;
            if let Phase::Waiting { until } = &mut self.phase {
                *until = cx.now;
            }
            return;
        }
        if self.credential.0.username == credential.0.username
            && self.credential.0.password == credential.0.password
        {
            self.credential = credential;
            return;
        }
        self.successor = Some(credential);
        self.begin(cx, Request::Adopt, 0);
    }

    /// Gives the allocation back.
    pub(super) fn close(&mut self, cx: &mut Context<'_>) {
        let live = self.relayed().is_some();
        self.pending.clear();
        self.phase = Phase::Closed;
        if live {
            self.begin(cx, Request::Release { again: false }, 0);
        }
    }

    /// Sends one datagram from the relayed address to `peer`.
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        peer: SocketAddr,
        payload: BytesMut,
    ) -> Result<(), DropReason> {
        let Some(relayed) = self.relayed() else {
            return Err(DropReason::SendFailed);
        };
        if relayed.is_ipv4() != peer.is_ipv4() {
            return Err(DropReason::SendFailed);
        }
        let lasting = DatagramClass::of(&payload) == DatagramClass::Dtls;
        let mut asks = Vec::new();
        let way = self.peers.send(cx.now, peer, payload, lasting, &mut asks);
        self.ask(cx, asks);
        match way {
            Way::Channel(number, payload) => cx.out.push(turn::channel_data(number, &payload)?),
            Way::Indication(payload) => cx.out.push(turn::send_indication(cx.rng, peer, &payload)?),
            Way::Queued => {}
            Way::Overflowed => return Err(DropReason::QueueFull),
            Way::Refused => return Err(DropReason::SendFailed),
        }
        Ok(())
    }

    /// The peer whose datagram came in channel `number`.
    pub(super) fn channel_peer(&self, number: u16) -> Option<SocketAddr> {
        self.peers.peer_of(number)
    }

    /// The bound channel to `peer`.
    pub(super) fn channel_to(&self, peer: SocketAddr) -> Option<u16> {
        self.peers.channel_to(peer)
    }

    /// Whether a Data indication from `peer` can be the server's word.
    pub(super) fn expects(&self, peer: SocketAddr) -> bool {
        self.peers.permits(peer.ip())
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Live { refresh, .. } => Some(refresh),
            Phase::Allocating | Phase::Closed => None,
        };
        let pending = self.pending.values().map(|p| p.transaction.due).min();
        let peers = self
            .peers
            .poll_timeout()
            .filter(|_| self.relayed().is_some());
        [phase, pending, peers, self.successor_due()]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        let mut given_up = Vec::new();
        for (id, pending) in &mut self.pending {
            match pending.transaction.handle_timeout(cx.now) {
                Due::Nothing => {}
                Due::Resend(raw) => cx.out.push(raw),
                Due::GiveUp => given_up.push(*id),
            }
        }
        for id in given_up {
            if let Some(pending) = self.pending.remove(&id) {
                self.failed(cx, pending.request, None);
            }
        }
        match self.phase {
            Phase::Waiting { until } if until <= cx.now => {
                self.phase = Phase::Allocating;
                self.begin(cx, Request::Allocate, 0);
            }
            Phase::Live { relayed, refresh } if refresh <= cx.now => {
                // The answer sets the next one; until then the transaction has the say.
                self.phase = Phase::Live {
                    relayed,
                    refresh: cx.now + RETRY_MAX,
                };
                if !self.pending.values().any(|p| p.request == Request::Refresh) {
                    self.begin(cx, Request::Refresh, 0);
                }
            }
            _ => {}
        }
        if self.relayed().is_some() {
            if self.successor_due().is_some_and(|due| due <= cx.now) {
                self.replace(cx);
                return;
            }
            let mut asks = Vec::new();
            self.peers.handle_timeout(cx.now, &mut asks);
            self.ask(cx, asks);
        }
    }

    /// Takes a response of the server. `false` when it answers nothing that was asked.
    pub(super) fn handle_answer(&mut self, cx: &mut Context<'_>, message: &mut Message) -> bool {
        let Some(pending) = self.pending.get(&message.transaction_id) else {
            return false;
        };
        if pending.request.method() != message.typ.method {
            return false;
        }
        let Some(answer) = stun::answer(message, pending.auth.as_ref()) else {
            return false;
        };
        let Some(pending) = self.pending.remove(&message.transaction_id) else {
            return false;
        };
        match answer {
            Answer::Success => self.succeeded(cx, pending.request, message),
            Answer::Error {
                code: 401 | 438,
                realm,
                nonce: Some(nonce),
            } if pending.tries + 1 < AUTH_TRIES && self.is_news(&pending, &nonce) => {
                self.realm = realm.or(self.realm.take());
                self.nonce = nonce;
                self.begin(cx, pending.request, pending.tries + 1);
            }
            Answer::Error { code, .. } => self.failed(cx, pending.request, Some(code)),
        }
        true
    }

    /// Whether another try with `nonce` differs from the one that was refused.
    fn is_news(&self, pending: &Pending, nonce: &str) -> bool {
        pending.auth.is_none() || self.nonce != nonce || pending.tries == 0
    }

    fn successor_due(&self) -> Option<Instant> {
        self.successor.as_ref()?;
        self.credential
            .0
            .expires
            .map(|e| e.checked_sub(EXPIRY_MARGIN).unwrap_or(e))
    }

    fn succeeded(&mut self, cx: &mut Context<'_>, request: Request, message: &Message) {
        match request {
            Request::Allocate => {
                let relayed = stun::address(message, ATTR_XOR_RELAYED_ADDRESS);
                match (relayed, lifetime(message)) {
                    (Some(relayed), Some(lifetime)) => {
                        self.failures = 0;
                        self.peers = Peers::default();
                        self.mapped = stun::mapped_address(message);
                        self.phase = Phase::Live {
                            relayed,
                            refresh: cx.now + lifetime / 2,
                        };
                    }
                    _ => self.wait(cx),
                }
            }
            Request::Adopt | Request::Refresh => {
                if request == Request::Adopt
                    && let Some(successor) = self.successor.take()
                {
                    self.credential = successor;
                }
                match (lifetime(message), &mut self.phase) {
                    (Some(lifetime), Phase::Live { refresh, .. }) => {
                        *refresh = cx.now + lifetime / 2;
                    }
                    (None, Phase::Live { .. }) => self.wait(cx),
                    _ => {}
                }
            }
            Request::Release { again: true } => {
                self.phase = Phase::Allocating;
                self.begin(cx, Request::Allocate, 0);
            }
            Request::Release { again: false } => {}
            Request::Permit(ip) => {
                for (peer, payload) in self.peers.permitted(cx.now, ip) {
                    // Sent anew: by now it may have a channel, or ask for one.
                    if let Err(reason) = self.send(cx, peer, payload) {
                        cx.dropped.push(reason);
                    }
                }
            }
            Request::Bind { peer, .. } => self.peers.bound(cx.now, peer),
        }
    }

    /// A request was refused with `code`, or never answered.
    fn failed(&mut self, cx: &mut Context<'_>, request: Request, code: Option<u16>) {
        match (request, code) {
            // 437: the server still holds an older allocation of this 5-tuple, as after a restart.
            (Request::Allocate, Some(437)) if self.failures == 0 => {
                self.failures = 1;
                self.begin(cx, Request::Release { again: true }, 0);
            }
            // 440: no such address family there; take what the server has.
            (Request::Allocate, Some(420 | 440)) if self.ask_family => {
                self.ask_family = false;
                self.begin(cx, Request::Allocate, 0);
            }
            (Request::Allocate | Request::Release { again: true }, _) => self.wait(cx),
            (Request::Release { again: false } | Request::Adopt, _) => {}
            // 437 means the allocation is gone, whatever was asked.
            (_, Some(437)) | (Request::Refresh, _) => self.lost(cx),
            (Request::Permit(ip), _) => {
                let waiting = self.peers.refused(cx.now, ip);
                cx.dropped
                    .extend(std::iter::repeat_n(DropReason::SendFailed, waiting));
            }
            (Request::Bind { peer, .. }, _) => self.peers.unbound(cx.now, peer),
        }
    }

    /// The allocation is gone: another one at once, with the newest credential.
    fn lost(&mut self, cx: &mut Context<'_>) {
        self.pending.clear();
        self.credential = self
            .successor
            .take()
            .unwrap_or_else(|| self.credential.clone());
        self.phase = Phase::Allocating;
        self.begin(cx, Request::Allocate, 0);
    }

    /// Gives the allocation back under its old credential and makes another under the new one.
    fn replace(&mut self, cx: &mut Context<'_>) {
        self.pending.clear();
        self.phase = Phase::Allocating;
        self.begin(cx, Request::Release { again: true }, 0);
        if let Some(successor) = self.successor.take() {
            self.credential = successor;
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) {
        self.pending.clear();
        let delay = RETRY_MIN
            .saturating_mul(1 << self.failures.min(5))
            .min(RETRY_MAX);
        let jitter = Duration::from_millis(cx.rng.random_range(0..1000));
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::Waiting {
            until: cx.now + delay + jitter,
        };
    }

    fn ask(&mut self, cx: &mut Context<'_>, asks: Vec<Ask>) {
        for ask in asks {
            let request = match ask {
                Ask::Permit(ip) => Request::Permit(ip),
                Ask::Bind { peer, channel } => Request::Bind { peer, channel },
            };
            self.begin(cx, request, 0);
        }
    }

    fn begin(&mut self, cx: &mut Context<'_>, request: Request, tries: u8) {
        let credential = match (request, &self.successor) {
            (Request::Adopt, Some(successor)) => successor,
            _ => &self.credential,
        };
        let auth = self
            .realm
            .as_ref()
            .and_then(|r| Auth::new(&credential.0, r, &self.nonce));
        let attributes = request.attributes(self.ask_family);
        let Some((id, raw)) = stun::request(cx.rng, request.method(), attributes, auth.as_ref())
        else {
            self.wait(cx);
            return;
        };
        let transaction = Transaction::new(cx.now, id, raw.clone());
        self.pending.insert(
            id,
            Pending {
                request,
                transaction,
                auth,
                tries,
            },
        );
        cx.out.push(raw);
    }
}
