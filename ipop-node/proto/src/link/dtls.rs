//! One DTLS 1.2 handshake with the peer, and the keys that come out of it.
//!
//! The handshake is the library's; records of application data and alerts after it are sealed and
//! opened by [`ipop_datapath::generation`], see [`super::channel`].

use std::collections::{HashSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ipop_datapath::generation::Generation;
use ipop_datapath::secret::Side;
use rtc_dtls::cipher_suite::CipherSuiteId;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error;

use super::identity::{Identity, fingerprint_of, key_of};
use super::key_tap::KeyTap;
use super::record::{Form, HANDSHAKE};
use super::trust::{Expected, Untrusted};
use crate::authority::Certified;
use crate::signal::{Fingerprint, TerminateReason};
use crate::status::DropReason;

/// How long a flight may stay unanswered before it is sent again, at first.
const FLIGHT_INTERVAL: Duration = Duration::from_millis(500);
/// The same at last: the time doubles (RFC 6347 section 4.2.4.1). The library sends a flight eight
/// times at most, which gives 23 s to answer one: a machine that starts may need some of it.
const FLIGHT_INTERVAL_AT_LAST: Duration = Duration::from_secs(4);
/// How long an unanswered flight waits before its datagrams are sent once more as they are, so
/// that one loss costs less than a [`FLIGHT_INTERVAL`]. A peer that has them drops them as replays.
const ECHO_AFTER: Duration = Duration::from_millis(150);
/// Largest handshake datagram in bytes. Every flight of a P-256 handshake fits in one, which
/// matters: the library stops its retransmission timer when it has seen a part of a flight.
const HANDSHAKE_MTU: usize = 1200;
/// Datagrams with handshake records the library is given before the handshake is complete. It
/// never forgets a fragment, so there must be a bound.
const HANDSHAKE_BUDGET: usize = 128;
/// The same after completion, when the peer repeats its last flight because ours was lost.
const REPEAT_BUDGET: usize = 16;
/// Records of the next epoch the library may hold until the handshake is complete.
const EARLY_RECORDS: usize = 64;
/// The association does not know addresses: its datagrams go wherever ICE says. The library wants
/// one to file it under.
const PEER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9));

/// The association is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) why: String,
    pub(super) reason: TerminateReason,
    /// Whoever answered is not the peer.
    pub(super) untrusted: bool,
}

impl Ended {
    pub(super) fn new(why: impl Into<String>, reason: TerminateReason) -> Self {
        Self {
            why: why.into(),
            reason,
            untrusted: false,
        }
    }

    pub(super) fn closed_by_peer() -> Self {
        Self::new("the peer closed the link", TerminateReason::Success)
    }

    pub(super) fn fatal_alert() -> Self {
        let why = "the peer ended DTLS with a fatal alert";
        Self::new(why, TerminateReason::SecurityError)
    }
}

/// What became of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rejected {
    /// It was dropped; nothing else happened.
    Dropped(DropReason),
    /// It ended the association.
    Ended(Ended),
}

/// One DTLS association with one peer, whatever path it takes.
pub(super) struct Association {
    endpoint: Endpoint,
    config: Arc<HandshakeConfig>,
    side: Side,
    expected: Expected,
    /// What the authority says of the peer, once it has proven to be it.
    certified: Option<Certified>,
    tap: Arc<KeyTap>,
    generation: Option<Arc<Generation>>,
    over: bool,
    /// (message_seq, fragment_offset) of the epoch 0 handshake fragments seen.
    seen: HashSet<(u16, u32)>,
    handshake_datagrams: usize,
    repeats: usize,
    early_records: usize,
    out: VecDeque<BytesMut>,
    /// The last flight sent, and when it is echoed.
    flight: Vec<BytesMut>,
    echo_at: Option<Instant>,
    /// How many times it was sent again.
    resent: u32,
}

impl Association {
    /// Prepares an association that accepts exactly the peer that is `expected`.
    pub(super) fn new(side: Side, identity: &Identity, expected: Expected) -> Result<Self, String> {
        let tap = KeyTap::new();
        let checked = expected.clone();
        let config = ConfigBuilder::default()
            .with_crypto_provider(tap.clone())
            .with_certificates(vec![identity.certificate()])
            .with_cipher_suites(vec![
                CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256,
                CipherSuiteId::Tls_Ecdhe_Ecdsa_With_ChaCha20_Poly1305_Sha256,
            ])
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .with_flight_interval(FLIGHT_INTERVAL)
            .with_mtu(HANDSHAKE_MTU)
            // Off is the library's own check, which reads the clock and knows servers' names only;
            // the one below takes its place.
            .with_insecure_skip_verify(true)
            .with_verify_peer_certificate(Some(Arc::new(move |chain: &[Vec<u8>], _: &_| {
                let checked = checked.check(chain);
                checked.map_or(Err(Error::ErrInvalidCertificate), |_| Ok(()))
            })))
            .build(side == Side::Client, Some(PEER))
            .map_err(|error| error.to_string())?;
        let config = Arc::new(config);
        let accepts = (side == Side::Server).then(|| config.clone());
        Ok(Self {
            endpoint: Endpoint::new(PEER, TransportProtocol::UDP, accepts),
            config,
            side,
            expected,
            certified: None,
            tap,
            generation: None,
            over: false,
            seen: HashSet::new(),
            handshake_datagrams: 0,
            repeats: 0,
            early_records: 0,
            out: VecDeque::new(),
            flight: Vec::new(),
            echo_at: None,
            resent: 0,
        })
    }

    /// There is a path to the peer: a client sends its ClientHello.
    pub(super) fn start(&mut self, now: Instant) -> Result<(), Ended> {
        if self.side == Side::Server {
            return Ok(());
        }
        let started = self.endpoint.connect(now, PEER, self.config.clone(), None);
        self.collect(now);
        started.map_err(|error| self.end(format!("the DTLS handshake could not start: {error}")))
    }

    /// The keys, once the peer has proven to hold the key of the expected certificate.
    pub(super) fn generation(&self) -> Option<&Arc<Generation>> {
        self.generation.as_ref().filter(|_| !self.over)
    }

    /// Takes a datagram from the peer's address that begins with a record of the handshake.
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        datagram: BytesMut,
    ) -> Result<(), Rejected> {
        let bad = Rejected::Dropped(DropReason::BadRecord);
        if self.over {
            return Err(Rejected::Dropped(DropReason::NoLink));
        }
        if self.side == Side::Client && self.endpoint.get_connection_state(PEER).is_none() {
            return Err(bad);
        }
        if !self.admit(&datagram).map_err(Rejected::Dropped)? {
            return Ok(());
        }
        let result = self.endpoint.read(now, PEER, None, datagram);
        if self.collect(now) {
            self.resent = 0;
        }
        let events = match result {
            Ok(events) => events,
            Err(error) if self.is_established() && error != Error::ErrAlertFatalOrClose => {
                return Err(bad);
            }
            Err(error) => return Err(Rejected::Ended(self.refused(&error))),
        };
        for event in events {
            match event {
                EndpointEvent::HandshakeComplete => self.complete().map_err(Rejected::Ended)?,
                EndpointEvent::PeerClosed => {
                    self.over = true;
                    return Err(Rejected::Ended(Ended::closed_by_peer()));
                }
                // Application data is opened with the generation; what came before that is lost,
                // as datagrams may be.
                _ => {}
            }
        }
        Ok(())
    }

    /// Keys are taken out. Nothing is accepted or sent on the strength of a callback having been
    /// called: the certificate is looked at again.
    fn complete(&mut self) -> Result<(), Ended> {
        match self.check() {
            Ok(certified) => self.certified = certified,
            Err(untrusted) => return Err(self.untrusted(&untrusted)),
        }
        let generation = self
            .tap
            .take()
            .and_then(|secret| Generation::new(&secret, self.side).ok())
            .ok_or_else(|| self.end("the DTLS handshake left no keys".to_owned()))?;
        self.generation = Some(Arc::new(generation));
        if self.side == Side::Client {
            self.echo_at = None;
            self.flight.clear();
        }
        Ok(())
    }

    /// What the authority says of the peer, where there is one, once there are keys.
    pub(super) fn certified(&self) -> Option<&Certified> {
        self.certified.as_ref()
    }

    /// Looks once more whether the certificates that were shown make the one with the keys the peer:
    /// what is believed may have changed.
    pub(super) fn look_again(&mut self) -> Result<(), Ended> {
        self.check()
            .map(|_| ())
            .map_err(|untrusted| self.untrusted(&untrusted))
    }

    /// The fingerprint of the certificate that was shown, if one was.
    pub(super) fn shown(&self) -> Option<Fingerprint> {
        let state = self.endpoint.get_connection_state(PEER)?;
        state
            .peer_certificates
            .first()
            .map(|der| fingerprint_of(der))
    }

    /// What the key of that certificate is known by in records.
    pub(super) fn shown_key(&self) -> Option<String> {
        let state = self.endpoint.get_connection_state(PEER)?;
        state.peer_certificates.first().and_then(|der| key_of(der))
    }

    fn is_established(&self) -> bool {
        self.generation.is_some()
    }

    /// Next datagram for the peer.
    pub(super) fn poll_transmit(&mut self) -> Option<BytesMut> {
        self.out.pop_front()
    }

    /// When a flight is to be sent again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        [self.flight_due(), self.echo_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Sends a flight again if it is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), Ended> {
        if self.over {
            return Ok(());
        }
        if self.echo_at.is_some_and(|due| due <= now) {
            self.echo_at = None;
            self.out.extend(self.flight.iter().cloned());
        }
        if self.flight_due().is_none_or(|due| now < due) {
            return Ok(());
        }
        self.resent += 1;
        let sent = self.endpoint.handle_timeout(PEER, now);
        self.collect(now);
        sent.map_err(|_| Ended {
            reason: TerminateReason::ConnectivityError,
            ..self.end("the peer did not answer the DTLS handshake".to_owned())
        })
    }

    /// Says no more and takes no more.
    pub(super) fn close(&mut self) {
        self.over = true;
    }

    /// Checks a datagram's form and keeps away from the library what would hurt it: whether to
    /// hand it over.
    fn admit(&mut self, datagram: &[u8]) -> Result<bool, DropReason> {
        let form = Form::of(datagram).ok_or(DropReason::BadRecord)?;
        if self.is_established() {
            self.repeats += usize::from(form.handshake);
            return Ok(!form.handshake || self.repeats <= REPEAT_BUDGET);
        }
        if form.plain_data {
            return Err(DropReason::BadRecord);
        }
        self.early_records += form.early;
        if self.early_records > EARLY_RECORDS && form.early > 0 {
            return Err(DropReason::QueueFull);
        }
        if form.fragments.is_empty() {
            return Ok(true);
        }
        // What comes of a handshake that the peer, or this node, has forgotten does not begin with
        // the first message. It would stop the library's timer, and take the place of what is to
        // come.
        if self.seen.is_empty() && form.fragments.iter().all(|(seq, _)| *seq > 0) {
            return Err(DropReason::BadRecord);
        }
        // The library stops its own timer on a repeated flight without answering it, after which
        // neither side would send again. The one repeat it must see is that of the first
        // ClientHello, because a HelloVerifyRequest has no timer (RFC 6347 section 4.2.1).
        let repeated = form.early == 0
            && form
                .fragments
                .iter()
                .all(|fragment| self.seen.contains(fragment));
        let first_hello = self.side == Side::Server && self.seen.iter().all(|(seq, _)| *seq == 0);
        if repeated && !first_hello {
            return Ok(false);
        }
        self.handshake_datagrams += 1;
        if self.handshake_datagrams > HANDSHAKE_BUDGET {
            return Err(DropReason::QueueFull);
        }
        self.seen.extend(form.fragments);
        Ok(true)
    }

    fn flight_due(&self) -> Option<Instant> {
        let due = self.endpoint.poll_timeout(&PEER);
        let due = due.filter(|_| !self.is_established())?;
        // The library knows the first interval only.
        let interval = FLIGHT_INTERVAL.saturating_mul(1 << self.resent.min(8));
        Some(due + (interval.min(FLIGHT_INTERVAL_AT_LAST) - FLIGHT_INTERVAL))
    }

    /// Takes out what the library wants sent, and keeps a flight for its echo; whether there is one.
    fn collect(&mut self, now: Instant) -> bool {
        let sent = self.out.len();
        self.out
            .extend(std::iter::from_fn(|| self.endpoint.poll_transmit()).map(|t| t.message));
        let mut flight = self
            .out
            .range(sent..)
            .filter(|d| d.first() == Some(&HANDSHAKE))
            .peekable();
        let is_flight = flight.peek().is_some();
        if is_flight {
            self.flight = flight.cloned().collect();
            self.echo_at = Some(now + ECHO_AFTER);
        }
        is_flight
    }

    /// What to make of the certificates that were shown.
    fn check(&self) -> Result<Option<Certified>, Untrusted> {
        let state = self.endpoint.get_connection_state(PEER);
        self.expected
            .check(state.map_or(&[], |state| &state.peer_certificates))
    }

    /// Why the library gave up.
    fn refused(&mut self, error: &Error) -> Ended {
        let state = self.endpoint.get_connection_state(PEER);
        let has_shown = state.is_some_and(|state| !state.peer_certificates.is_empty());
        if let (true, Err(untrusted)) = (has_shown, self.check()) {
            return self.untrusted(&untrusted);
        }
        self.end(match error {
            Error::ErrAlertFatalOrClose => Ended::fatal_alert().why,
            error => format!("the DTLS handshake failed: {error}"),
        })
    }

    fn untrusted(&mut self, untrusted: &Untrusted) -> Ended {
        Ended {
            untrusted: true,
            ..self.end(untrusted.to_string())
        }
    }

    fn end(&mut self, why: String) -> Ended {
        self.over = true;
        Ended::new(why, TerminateReason::SecurityError)
    }
}
