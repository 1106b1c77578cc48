//! One link to one peer: an ICE agent (RFC 8445) and a DTLS 1.2 association (RFC 6347) over the
//! candidate pair it selected. IP packets or Ethernet frames travel as DTLS application data.
//!
//! A [`Link`] is driven like everything in this crate: datagrams and time go in, datagrams and
//! events come out. After every call that takes `&mut self` the caller drains
//! [`Link::poll_transmit`] and [`Link::poll_event`], then asks [`Link::poll_timeout`] when to call
//! [`Link::handle_timeout`].
//!
//! A link never recovers from [`LinkEvent::Failed`]: the owner drops it and, if it still wants the
//! peer, makes another one, whose credentials have nothing in common with the old ones, unless both
//! sides know them beforehand ([`LinkConfig::credentials`]).
//!
//! In that case a peer that lost its link, by a restart for one, makes a new one with the same
//! credentials while ours goes on. It shows by the tie-breaker in its checks (RFC 8445 section
//! 16.1), which is another one then: the side that controls nominates the pair in use once more,
//! and the DTLS client begins a new handshake, beside the keys in use. Both do no harm when the
//! checks were an attacker's.
//!
//! No packet is accepted from or sent to a peer that has not shown, in a mutual handshake, the
//! certificate whose fingerprint came with its [`LinkDescription`]; there is no mode without. With an
//! authority ([`LinkConfig::trust`]) that certificate has to say as well who the peer is said to be;
//! then it may be replaced, by one that says the same, whenever keys are renewed, and its end is the
//! link's.

mod candidates;
mod channel;
mod content;
mod dtls;
mod form;
mod ice;
mod identity;
mod key_tap;
mod nomination;
mod pace;
mod record;
mod schedule;
mod stun;
#[cfg(test)]
mod tests;
mod trust;
mod types;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ipop_datapath::envelope::{Envelope, Kind};
use ipop_datapath::fragment::Fragments;
use ipop_datapath::secret::Side;
use rand::CryptoRng;
use rtc_dtls::crypto_provider::RTCCryptoProvider;
use rtc_dtls::crypto_provider::providers::AwsLcRsProvider;

use self::channel::Channel;
pub use self::channel::{Keys, RENEW_EVERY, RENEW_IDLE};
use self::dtls::{Ended, Rejected};
use self::ice::Ice;
pub use self::identity::{Identity, IdentityError};
pub(crate) use self::pace::KEEPALIVE_EARLY;
pub use self::pace::{CHECKING_TIMEOUT, CONSENT_TIMEOUT, UNANSWERED};
pub use self::stun::stun_username;
use self::trust::Expected;
pub use self::trust::Trust;
pub use self::types::{IceCredentials, IceRole, LinkConfig, LinkError, LinkEvent};
use crate::authority::Certified;
use crate::candidate::{Candidate, LocalCandidate};
use crate::net::{DatagramClass, Transmit};
use crate::signal::{Fingerprint, LinkDescription, Setup, TerminateReason};
use crate::status::{DropReason, LinkState, PairEnd};

/// Largest IP packet a link carries, in bytes; the largest overlay MTU that can be configured.
pub const MAX_PACKET: usize = 9000;
/// From a selected pair to packets flowing.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Most datagrams that wait for [`Link::poll_transmit`].
const MAX_TRANSMITS: usize = 4096;
/// Most events that wait for [`Link::poll_event`], packets included.
const MAX_EVENTS: usize = 4096;
/// Packets that come this way have complete sums.
const PACKET: Envelope = Envelope {
    kind: Kind::Packet,
    partial_sum: false,
};
const CONTROL: Envelope = Envelope {
    kind: Kind::Control,
    partial_sum: false,
};

/// One link to one peer.
pub struct Link {
    identity: Arc<Identity>,
    /// The one that takes its place once the peer's half is there, if there is another one.
    renewed: Option<Arc<Identity>>,
    trust: Option<Trust>,
    ice: Ice,
    channel: Option<Channel>,
    fragments: Arc<Fragments>,
    state: LinkState,
    over: bool,
    selected: Option<(SocketAddr, SocketAddr)>,
    selected_at: Option<Instant>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<LinkEvent>,
    drops: BTreeMap<DropReason, u64>,
}

impl Link {
    /// Makes a link with new ICE credentials; nothing is sent before [`Link::set_remote`].
    pub fn new(
        now: Instant,
        config: LinkConfig,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, LinkError> {
        let LinkConfig {
            role,
            identity,
            relay_only,
            credentials,
            trust,
        } = config;
        Ok(Self {
            identity,
            renewed: None,
            trust,
            ice: Ice::new(now, role, relay_only, credentials, rng).map_err(LinkError::Ice)?,
            channel: None,
            fragments: Arc::default(),
            state: LinkState::Signalling,
            over: false,
            selected: None,
            selected_at: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            drops: BTreeMap::new(),
        })
    }

    /// Our half: credentials, fingerprint, and the local candidates known so far.
    pub fn description(&self, setup: Setup) -> LinkDescription {
        let local = self.ice.credentials();
        LinkDescription {
            ufrag: local.ufrag.clone(),
            pwd: local.pwd.clone(),
            fingerprint: self.identity.fingerprint(),
            setup,
            candidates: self.ice.candidates(),
        }
    }

    /// Takes the peer's half, fixes the DTLS role, starts connectivity checks.
    ///
    /// The side that answers `actpass` is the DTLS client, so it must put [`Setup::Active`] into
    /// its own half.
    pub fn set_remote(&mut self, now: Instant, remote: &LinkDescription) -> Result<(), LinkError> {
        if self.over || self.channel.is_some() {
            return Err(LinkError::NotWaiting);
        }
        // RFC 8445 section 5.3.
        if !(4..=256).contains(&remote.ufrag.len()) || remote.ufrag.contains(':') {
            return Err(LinkError::Description(
                "its username fragment is not 4 to 256 ice-chars",
            ));
        }
        if !(22..=256).contains(&remote.pwd.len()) {
            return Err(LinkError::Description(
                "its password is not 22 to 256 ice-chars",
            ));
        }
        let side = match remote.setup {
            Setup::Actpass | Setup::Passive => Side::Client,
            Setup::Active => Side::Server,
        };
        let expected = Expected::new(remote.fingerprint, self.trust.clone());
        let mut channel = Channel::new(side, &self.identity, expected).map_err(LinkError::Dtls)?;
        if let Some(renewed) = self.renewed.take() {
            channel.set_identity(renewed);
        }
        self.ice.start(now, remote).map_err(LinkError::Ice)?;
        self.channel = Some(channel);
        self.enter(LinkState::Checking);
        self.advance(now);
        Ok(())
    }

    /// What this node shows from the next handshake on. The peer has been told of the one before, so
    /// the handshake that its half begins is made with that.
    pub fn set_identity(&mut self, identity: Arc<Identity>) {
        match &mut self.channel {
            Some(channel) => channel.set_identity(identity),
            None => self.renewed = Some(identity),
        }
    }

    /// Adds a candidate of this node; the peer must be told by signalling.
    pub fn add_local(&mut self, now: Instant, candidate: LocalCandidate) {
        if !self.over {
            self.ice.add_local(now, candidate);
            self.advance(now);
        }
    }

    /// A local socket or relayed address is gone. The link fails if it was the one in use.
    pub fn remove_local(&mut self, base: SocketAddr) {
        if !self.over && self.ice.remove_local(base) {
            let why = format!("the local address {base} in use is gone");
            self.fail(Ended::new(why, TerminateReason::ConnectivityError));
        }
    }

    /// Adds a candidate the peer signalled.
    pub fn add_remote(&mut self, now: Instant, candidate: &Candidate) {
        if !self.over {
            self.ice.add_remote(now, candidate);
            self.advance(now);
        }
    }

    /// Username fragment of our half: the first half of USERNAME in the peer's checks.
    pub fn local_ufrag(&self) -> &str {
        &self.ice.credentials().ufrag
    }

    /// Whether a STUN response answers a check of this link. Responses have no USERNAME.
    pub fn awaits_response(&self, payload: &[u8]) -> bool {
        !self.over && stun::transaction(payload).is_some_and(|id| self.ice.awaits(&id))
    }

    /// Takes a STUN or DTLS datagram that arrived on `local` (a base) from `remote`.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        payload: BytesMut,
    ) -> Result<(), DropReason> {
        if self.over {
            return Err(DropReason::NoLink);
        }
        match DatagramClass::of(&payload) {
            DatagramClass::Stun => {
                let result = self.ice.handle_datagram(now, local, remote, payload);
                if self.ice.take_anew()
                    && let Some(channel) = &mut self.channel
                    && let Err(ended) = channel.begin_anew(now)
                {
                    self.fail(ended);
                    return Ok(());
                }
                self.advance(now);
                result
            }
            DatagramClass::Dtls if self.ice.knows(local, remote) => self.open(now, payload),
            _ => Err(DropReason::UnknownDatagram),
        }
    }

    /// Encrypts an IP packet and queues it for the selected pair.
    pub fn send(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        self.seal(PACKET, packet)
    }

    /// Encrypts what this node tells the peer itself and queues it for the selected pair.
    pub fn send_control(&mut self, message: &[u8]) -> Result<(), DropReason> {
        self.seal(CONTROL, message)
    }

    fn seal(&mut self, envelope: Envelope, content: &[u8]) -> Result<(), DropReason> {
        let (LinkState::Up, Some(channel)) = (&self.state, &mut self.channel) else {
            return Err(DropReason::NoLink);
        };
        if content.is_empty() {
            return Err(DropReason::Malformed);
        }
        if content.len() > MAX_PACKET {
            return Err(DropReason::TooBig);
        }
        if self.transmits.len() >= MAX_TRANSMITS {
            return Err(DropReason::QueueFull);
        }
        channel.seal(envelope, content)?;
        self.flush();
        Ok(())
    }

    /// What is believed of certificates has changed: a link whose peer would not be believed any
    /// more fails.
    pub fn look_again(&mut self) {
        let looked = self.channel.as_mut().map_or(Ok(()), Channel::look_again);
        if let (Err(ended), false) = (looked, self.over) {
            self.fail(ended);
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.over {
            return;
        }
        let carried = self.channel.as_ref().and_then(Channel::records);
        if let Err(why) = self.ice.handle_timeout(now, carried.unwrap_or(0)) {
            return self.fail(Ended::new(why, TerminateReason::ConnectivityError));
        }
        if self.channel.as_ref().is_some_and(Channel::has_ended) {
            let why = "the peer's certificate has ended";
            return self.fail(Ended::new(why, TerminateReason::SecurityError));
        }
        let result = self
            .channel
            .as_mut()
            .map_or(Ok(()), |a| a.handle_timeout(now));
        if let Err(ended) = result {
            return self.fail(ended);
        }
        if self
            .handshake_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            let why = format!(
                "the DTLS handshake was not done within {} s",
                HANDSHAKE_TIMEOUT.as_secs()
            );
            return self.fail(Ended::new(why, TerminateReason::ConnectivityError));
        }
        self.advance(now);
    }

    /// When [`Link::handle_timeout`] is next due.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        if self.over {
            return None;
        }
        let flight = self.channel.as_ref().and_then(Channel::poll_timeout);
        [self.ice.poll_timeout(), flight, self.handshake_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether [`Link::handle_timeout`] does its work up to [`KEEPALIVE_EARLY`] before it is due.
    pub(crate) fn is_patient(&mut self) -> bool {
        self.ice.is_patient() && self.poll_timeout() == self.ice.poll_timeout()
    }

    /// Next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// How far the link is.
    pub fn state(&self) -> &LinkState {
        &self.state
    }

    /// Our and the peer's end of the selected pair.
    pub fn pair(&self) -> Option<(PairEnd, PairEnd)> {
        self.ice.pair().filter(|_| !self.over)
    }

    /// Last round-trip time of an ICE check on the selected pair.
    pub fn rtt(&self) -> Option<Duration> {
        self.ice.rtt()
    }

    /// What seals and opens this link's records, if it changed since this was last asked.
    pub fn poll_keys(&mut self) -> Option<Keys> {
        let up = self.state == LinkState::Up;
        self.channel.as_mut().filter(|_| up)?.poll_keys()
    }

    /// What its records carry in pieces, whoever seals or opens them.
    pub fn fragments(&self) -> &Arc<Fragments> {
        &self.fragments
    }

    /// The fingerprint of the peer's certificate, once it has shown it.
    pub fn shown(&self) -> Option<Fingerprint> {
        self.channel.as_ref()?.shown()
    }

    /// What the key of that certificate is known by in records ([`crate::audit::key_id`]).
    pub fn shown_key(&self) -> Option<String> {
        self.channel.as_ref()?.shown_key()
    }

    /// What the authority says of the peer, once it has shown its certificate, where there is one.
    pub fn certified(&self) -> Option<&Certified> {
        self.channel.as_ref()?.certified()
    }

    /// The peer has begun to use new keys, as whoever opened a record made with them says.
    pub fn confirm_keys(&mut self, now: Instant) {
        if let Some(channel) = &mut self.channel {
            channel.confirm(now);
            self.advance(now);
        }
    }

    /// Base and remote address that datagrams go between.
    pub fn selected(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.selected.filter(|_| !self.over)
    }

    /// Datagrams and packets that were dropped without a call having said so by its result.
    pub fn drops(&self) -> &BTreeMap<DropReason, u64> {
        &self.drops
    }

    /// Ends the link: a DTLS close_notify is queued, nothing is accepted any more. No
    /// [`LinkEvent::Failed`] follows.
    pub fn close(&mut self) {
        self.end("closed by this node".to_owned());
    }

    fn open(&mut self, now: Instant, datagram: BytesMut) -> Result<(), DropReason> {
        let Some(channel) = &mut self.channel else {
            return Err(DropReason::BadRecord);
        };
        let mut contents = Vec::new();
        let result = channel.open(now, datagram, &mut contents);
        for content in contents {
            self.take(content);
        }
        match result {
            Ok(()) => {
                self.advance(now);
                Ok(())
            }
            Err(Rejected::Dropped(reason)) => {
                self.flush();
                Err(reason)
            }
            Err(Rejected::Ended(ended)) => {
                self.fail(ended);
                Ok(())
            }
        }
    }

    /// Follows what ICE and DTLS have come to.
    fn advance(&mut self, now: Instant) {
        let selected = self.ice.selected();
        if selected != self.selected {
            self.selected = selected;
            if let Some((local, remote)) = self.ice.pair() {
                self.push_event(LinkEvent::PairSelected { local, remote });
            }
            if selected.is_some() && self.selected_at.is_none() {
                self.selected_at = Some(now);
                self.enter(LinkState::Handshaking);
                let started = self.channel.as_mut().map_or(Ok(()), |a| a.start(now));
                if let Err(ended) = started {
                    return self.fail(ended);
                }
            }
        }
        let established = self.channel.as_ref().is_some_and(Channel::is_established);
        if established && self.selected.is_some() {
            self.enter(LinkState::Up);
        }
        self.flush();
    }

    /// Moves what ICE and DTLS want sent to the queue. DTLS waits for a selected pair; until then
    /// it has at most a few flights to send.
    fn flush(&mut self) {
        while let Some(transmit) = self.ice.poll_transmit() {
            self.push_transmit(transmit);
        }
        let (Some((local, remote)), Some(_)) = (self.selected, &self.channel) else {
            return;
        };
        while let Some(payload) = self.channel.as_mut().and_then(Channel::poll_transmit) {
            self.push_transmit(Transmit {
                local,
                remote,
                payload,
            });
        }
    }

    fn push_transmit(&mut self, transmit: Transmit) {
        if self.transmits.len() < MAX_TRANSMITS {
            self.transmits.push_back(transmit);
        } else {
            *self.drops.entry(DropReason::QueueFull).or_default() += 1;
        }
    }

    /// Events other than packets are few; they are never dropped.
    fn push_event(&mut self, event: LinkEvent) {
        self.events.push_back(event);
    }

    fn enter(&mut self, state: LinkState) {
        if self.state != state {
            self.state = state.clone();
            self.push_event(LinkEvent::State(state));
        }
    }

    fn handshake_deadline(&self) -> Option<Instant> {
        let waits = self.state == LinkState::Handshaking;
        self.selected_at
            .filter(|_| waits)
            .map(|since| since + HANDSHAKE_TIMEOUT)
    }

    fn fail(&mut self, ended: Ended) {
        let Ended {
            why,
            reason,
            untrusted,
        } = ended;
        self.end(why.clone());
        self.push_event(LinkEvent::Failed {
            why,
            reason,
            untrusted,
        });
    }

    fn end(&mut self, why: String) {
        if self.over {
            return;
        }
        if let Some(channel) = &mut self.channel {
            channel.close();
        }
        self.flush();
        self.over = true;
        self.enter(LinkState::Down { why });
    }
}

/// The crypto library of the whole node.
fn provider() -> Arc<dyn RTCCryptoProvider> {
    Arc::new(AwsLcRsProvider::new())
}
