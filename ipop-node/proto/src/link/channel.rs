//! What carries a link's packets: the keys in use, the ones before, and the handshake that makes
//! the next.
//!
//! Keys are renewed by a whole new handshake beside the association that works, so that what was
//! recorded cannot be read with keys of another time, and without losing a record: the client
//! sends with new keys as soon as it has them, since the server had them first; the server when it
//! has seen a record made with them; both go on receiving with the old ones for a while. A
//! handshake that fails changes nothing.
//!
//! Keys that carry nothing are kept for longer: with many peers most links are idle, and a handshake
//! is by far the most work that a link makes.
//!
//! A peer that has lost its state is met in the same way: see [`Channel::begin_anew`].
//!
//! Deviation from RFC 6347 section 4.2.8, by which a new ClientHello on an association's addresses
//! is a peer that lost its state: here it is a renewal, and the old association goes on until the
//! new one has shown the same certificate, which serves both cases.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ipop_datapath::envelope::{ENVELOPE, Envelope, Kind};
use ipop_datapath::generation::{Generation, Refused};
use ipop_datapath::record::{ContentType, RecordHeader, TAG};
use ipop_datapath::secret::Side;

use super::content::Content;
use super::dtls::{Association, Ended, Rejected};
use super::identity::Identity;
use super::record::Form;
use super::trust::Expected;
use crate::authority::Certified;
use crate::signal::Fingerprint;
use crate::status::DropReason;

/// Age at which keys in use are renewed.
pub const RENEW_EVERY: Duration = Duration::from_secs(180);
/// The same for keys that have carried next to nothing.
pub const RENEW_IDLE: Duration = Duration::from_secs(3600);
/// How often it is seen whether keys of that age have been used.
const RENEW_LOOK: Duration = Duration::from_secs(60);
/// More records than it takes to change over to new keys.
const NEXT_TO_NOTHING: u64 = 32;
/// From a renewal that failed to the next.
const RENEW_AGAIN: Duration = Duration::from_secs(30);
/// How long a renewal may take.
const RENEW_WITHIN: Duration = Duration::from_secs(30);
/// Least time between two renewals that a peer begins.
const RENEW_PACE: Duration = Duration::from_secs(1);
/// How long old keys are good for after the peer has used the new ones.
const OVERLAP: Duration = Duration::from_secs(10);
/// How often a client shows its new keys until it sees a record made with them, and how many times
/// at most.
const NUDGE: Duration = Duration::from_millis(500);
const NUDGES: u8 = 20;
/// Least time between two handshakes that a peer's new link is given.
const ANEW_PACE: Duration = Duration::from_secs(2);
/// Least time between two answers to records of unknown keys.
const ANSWER_PACE: Duration = Duration::from_millis(250);
/// RFC 5246 section 7.2.
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
const FATAL: u8 = 2;

/// The keys that records are sealed and opened with.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Seals.
    pub sending: Arc<Generation>,
    /// Open.
    pub receiving: Vec<Arc<Generation>>,
}

/// See the module.
pub(super) struct Channel {
    identity: Arc<Identity>,
    expected: Expected,
    side: Side,
    current: Association,
    /// Keys that are good for receiving beside the current ones, and until when; open-ended while
    /// the peer may not have the new ones.
    previous: Option<(Arc<Generation>, Option<Instant>)>,
    sending: Option<Arc<Generation>>,
    /// What follows from the peer using the current keys is done.
    is_confirmed: bool,
    nudge_at: Option<Instant>,
    nudges: u8,
    next: Option<(Association, Instant)>,
    /// When keys are renewed; for a server, from when on it takes part in that.
    renew_at: Option<Instant>,
    /// When a client renews them even if they were not used.
    renew_by: Option<Instant>,
    /// The first handshake may begin.
    started: bool,
    /// When a handshake with a peer that began anew is due, and before when there is none.
    anew_at: Option<Instant>,
    anew_after: Option<Instant>,
    /// No answer to records of unknown keys before this.
    quiet_until: Option<Instant>,
    out: Vec<BytesMut>,
    /// [`Self::keys`] has changed since it was asked.
    changed: bool,
}

impl Channel {
    /// Prepares the first handshake; only the peer that is `expected` is accepted, in this one and in
    /// all that follow.
    pub(super) fn new(
        side: Side,
        identity: &Arc<Identity>,
        expected: Expected,
    ) -> Result<Self, String> {
        Ok(Self {
            identity: identity.clone(),
            current: Association::new(side, identity, expected.clone())?,
            expected,
            side,
            previous: None,
            sending: None,
            is_confirmed: false,
            nudge_at: None,
            nudges: 0,
            next: None,
            renew_at: None,
            renew_by: None,
            started: false,
            anew_at: None,
            anew_after: None,
            quiet_until: None,
            out: Vec::new(),
            changed: false,
        })
    }

    /// There is a path to the peer: a client sends its ClientHello.
    pub(super) fn start(&mut self, now: Instant) -> Result<(), Ended> {
        self.started = true;
        self.current.start(now)
    }

    /// The peer's link is another one than before, and knows nothing of this one's keys. A client
    /// makes new ones with it; a server gives up the handshake that was under way, so as to take
    /// part in the next. The keys in use stay until there are others.
    ///
    /// Whoever says so may be an attacker: it happens once in a while only.
    pub(super) fn begin_anew(&mut self, now: Instant) -> Result<(), Ended> {
        match self.anew_after.filter(|after| now < *after) {
            Some(after) => {
                self.anew_at = Some(after);
                Ok(())
            }
            None => self.anew(now),
        }
    }

    fn anew(&mut self, now: Instant) -> Result<(), Ended> {
        self.anew_at = None;
        self.anew_after = Some(now + ANEW_PACE);
        if !self.is_established() {
            let current = Association::new(self.side, &self.identity, self.expected.clone());
            if let Ok(current) = current {
                self.current = current;
            }
            return match self.started {
                true => self.current.start(now),
                false => Ok(()),
            };
        }
        self.next = None;
        // Whatever the keys in use have carried: the peer does not have them.
        self.renew_by = Some(now);
        match self.side {
            Side::Client => self.renew(now),
            Side::Server => self.renew_at = Some(now),
        }
        Ok(())
    }

    /// Whether packets can flow.
    pub(super) fn is_established(&self) -> bool {
        self.sending.is_some()
    }

    /// What this side shows from the next handshake on.
    pub(super) fn set_identity(&mut self, identity: Arc<Identity>) {
        self.identity = identity;
    }

    /// Whether keys are in use that nobody would be given for the certificate they were made with,
    /// because it has ended.
    pub(super) fn has_ended(&self) -> bool {
        let certified = self.current.certified();
        certified.is_some_and(|certified| self.expected.has_ended(certified))
    }

    /// Looks once more whether the one that has the keys in use is the peer.
    pub(super) fn look_again(&mut self) -> Result<(), Ended> {
        match self.is_established() {
            true => self.current.look_again(),
            false => Ok(()),
        }
    }

    /// The fingerprint of the certificate that the peer has shown last.
    pub(super) fn shown(&self) -> Option<Fingerprint> {
        self.current.shown()
    }

    /// What the key of that certificate is known by in records.
    pub(super) fn shown_key(&self) -> Option<String> {
        self.current.shown_key()
    }

    /// What the authority says of the peer by that certificate, where there is one.
    pub(super) fn certified(&self) -> Option<&Certified> {
        self.current.certified()
    }

    /// The keys in use, if they are others than when this was last asked.
    pub(super) fn poll_keys(&mut self) -> Option<Keys> {
        let sending = self.sending.clone().filter(|_| self.changed)?;
        self.changed = false;
        let old = self.previous.as_ref().map(|(generation, _)| generation);
        let new = self.current.generation();
        Some(Keys {
            sending,
            receiving: new.into_iter().chain(old).cloned().collect(),
        })
    }

    /// Seals `content` after an envelope; the datagram comes out of [`Self::poll_transmit`].
    pub(super) fn seal(&mut self, envelope: Envelope, content: &[u8]) -> Result<(), DropReason> {
        let envelope = envelope.bytes();
        self.seal_record(ContentType::ApplicationData, &[&envelope, content])
    }

    /// Takes a datagram from the peer's address and appends what its records carry to `contents`.
    pub(super) fn open(
        &mut self,
        now: Instant,
        mut datagram: BytesMut,
        contents: &mut Vec<Content>,
    ) -> Result<(), Rejected> {
        let header = RecordHeader::read(&datagram);
        if !self.is_established()
            && header.is_some_and(|header| header.content == ContentType::ApplicationData)
        {
            // Made with keys that a link before this one had, or lost by overtaking.
            return Err(BAD);
        }
        if header.is_none() || !self.is_established() {
            return self.handshake(now, datagram);
        }
        while !datagram.is_empty() {
            let header = RecordHeader::read(&datagram).ok_or(BAD)?;
            let record = datagram.split_to(header.len);
            self.open_record(now, &header, record, contents)?;
        }
        Ok(())
    }

    /// Draws the conclusion when the peer has begun to use the current keys, whoever opened the
    /// record that shows it.
    pub(super) fn confirm(&mut self, now: Instant) {
        let current = self.current.generation();
        if self.is_confirmed || !current.is_some_and(|keys| keys.is_heard()) {
            return;
        }
        self.is_confirmed = true;
        self.nudge_at = None;
        if let Some((_, until)) = &mut self.previous {
            *until = Some(now + OVERLAP);
            if self.side == Side::Server {
                self.sending = self.current.generation().cloned();
                self.changed = true;
                self.nudge();
            }
        }
    }

    /// Next datagram for the peer.
    pub(super) fn poll_transmit(&mut self) -> Option<BytesMut> {
        if let Some(datagram) = self.current.poll_transmit() {
            return Some(datagram);
        }
        let next = self.next.as_mut().map(|(association, _)| association);
        if let Some(datagram) = next.and_then(Association::poll_transmit) {
            return Some(datagram);
        }
        (!self.out.is_empty()).then(|| self.out.remove(0))
    }

    /// When [`Self::handle_timeout`] is next due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let next = self.next.as_ref();
        [
            self.current.poll_timeout(),
            next.and_then(|(association, _)| association.poll_timeout()),
            next.map(|(_, since)| *since + RENEW_WITHIN),
            self.previous.as_ref().and_then(|(_, until)| *until),
            self.nudge_at,
            self.anew_at,
            self.renew_at.filter(|_| self.renews()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), Ended> {
        self.current.handle_timeout(now)?;
        if let Some((association, since)) = &mut self.next {
            let late = now >= *since + RENEW_WITHIN;
            if association.handle_timeout(now).is_err() || late {
                self.give_up_renewal(now);
            }
        }
        if self
            .previous
            .as_ref()
            .is_some_and(|(_, until)| until.is_some_and(|until| until <= now))
        {
            self.previous = None;
            self.changed = true;
        }
        if self.nudge_at.is_some_and(|at| at <= now) {
            self.nudges += 1;
            self.nudge_at = Some(now + NUDGE).filter(|_| self.nudges < NUDGES);
            self.nudge();
        }
        if self.anew_at.is_some_and(|at| at <= now) {
            self.anew(now)?;
        }
        let worn = self.sending.as_ref().is_some_and(|keys| keys.is_worn());
        let is_due = self.renew_at.is_some_and(|at| at <= now);
        if self.renews() && (worn || is_due) {
            if is_due && self.is_idle(now) {
                self.renew_at = Some(now + RENEW_LOOK);
            } else {
                self.renew(now);
            }
        }
        Ok(())
    }

    /// Queues a close_notify.
    pub(super) fn close(&mut self) {
        // Before the keys are there a close_notify would be plaintext, and is not sent.
        if self.sending.is_some() {
            // Nothing is to be done about keys that are used up.
            let _ = self.seal_record(ContentType::Alert, &[&CLOSE_NOTIFY]);
        }
        self.current.close();
        self.next = None;
        self.sending = None;
    }

    /// Whether it is for this side to begin a renewal now.
    fn renews(&self) -> bool {
        self.side == Side::Client && self.next.is_none() && self.is_established()
    }

    fn renew(&mut self, now: Instant) {
        self.renew_at = Some(now + RENEW_AGAIN);
        if let Ok(mut next) = self.renewal()
            && next.start(now).is_ok()
        {
            self.next = Some((next, now));
        }
    }

    fn renewal(&self) -> Result<Association, String> {
        Association::new(self.side, &self.identity, self.expected.again())
    }

    fn give_up_renewal(&mut self, now: Instant) {
        self.next = None;
        self.renew_at = Some(match self.side {
            Side::Client => now + RENEW_AGAIN,
            Side::Server => now + RENEW_PACE,
        });
    }

    /// A datagram of a handshake: of the first one, of a renewal, or a repeat of one that is over.
    fn handshake(&mut self, now: Instant, datagram: BytesMut) -> Result<(), Rejected> {
        if !self.is_established() {
            self.current.handle_datagram(now, datagram)?;
            if let Some(generation) = self.current.generation() {
                self.sending = Some(generation.clone());
                self.changed = true;
                self.keep(now);
                if self.side == Side::Client {
                    // To a server that goes on from an earlier link this is a renewal.
                    self.nudge();
                }
            }
            return Ok(());
        }
        let begins = self.side == Side::Server
            && self.next.is_none()
            && self.renew_at.is_none_or(|at| at <= now)
            && Form::of(&datagram).is_some_and(|form| form.client_hello);
        if begins && let Ok(next) = self.renewal() {
            self.next = Some((next, now));
        }
        let Some((next, _)) = &mut self.next else {
            return match self.current.handle_datagram(now, datagram) {
                // What is over cannot be ended by anything that has no key.
                Err(Rejected::Ended(_)) => Err(BAD),
                result => result,
            };
        };
        match next.handle_datagram(now, datagram) {
            Ok(()) if next.generation().is_some() => {
                self.promote(now);
                Ok(())
            }
            Err(Rejected::Ended(_)) => {
                self.give_up_renewal(now);
                Err(BAD)
            }
            result => result,
        }
    }

    /// The renewal has led to new keys.
    fn promote(&mut self, now: Instant) {
        let Some((next, _)) = self.next.take() else {
            return;
        };
        let old = std::mem::replace(&mut self.current, next);
        self.previous = old
            .generation()
            .map(|generation| (generation.clone(), None));
        self.is_confirmed = false;
        self.changed = true;
        match self.side {
            Side::Client => {
                self.sending = self.current.generation().cloned();
                self.nudges = 0;
                self.nudge_at = Some(now + NUDGE);
                self.nudge();
            }
            Side::Server => {}
        }
        self.keep(now);
    }

    /// There are new keys, which are good for a while.
    fn keep(&mut self, now: Instant) {
        self.renew_at = Some(match self.side {
            Side::Client => now + RENEW_EVERY,
            Side::Server => now + RENEW_PACE,
        });
        self.renew_by = Some(now + RENEW_IDLE);
    }

    /// Records that the keys in use have sealed or opened, if there are keys.
    pub(super) fn records(&self) -> Option<u64> {
        self.current.generation().map(|keys| keys.records())
    }

    /// Whether keys that are of an age to be renewed need not be yet.
    fn is_idle(&self, now: Instant) -> bool {
        self.records()
            .is_some_and(|records| records <= NEXT_TO_NOTHING)
            && self.renew_by.is_some_and(|by| now < by)
    }

    /// Sends a record that shows which keys this side uses.
    fn nudge(&mut self) {
        let nothing = Envelope {
            kind: Kind::Nothing,
            partial_sum: false,
        };
        // When the keys are used up, the next handshake comes to the rescue, not this.
        let _ = self.seal(nothing, &[]);
    }

    /// A record of unknown keys: a server may not have heard yet that there are new ones.
    fn answer_unknown(&mut self, now: Instant) {
        if self.side == Side::Client && self.quiet_until.is_none_or(|until| until <= now) {
            self.quiet_until = Some(now + ANSWER_PACE);
            self.nudge();
        }
    }

    fn seal_record(&mut self, content: ContentType, parts: &[&[u8]]) -> Result<(), DropReason> {
        let generation = self.sending.as_ref().ok_or(DropReason::NoLink)?;
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let mut record = BytesMut::with_capacity(generation.overhead() + len);
        record.resize(generation.prefix(), 0);
        for part in parts {
            record.extend_from_slice(part);
        }
        record.resize(record.len() + TAG, 0);
        let mut numbers = generation.reserve(1).ok_or(DropReason::KeysWorn)?;
        generation
            .seal(content, &mut numbers, &mut record)
            .map_err(|_| DropReason::SendFailed)?;
        self.out.push(record);
        Ok(())
    }

    fn open_record(
        &mut self,
        now: Instant,
        header: &RecordHeader,
        mut record: BytesMut,
        contents: &mut Vec<Content>,
    ) -> Result<(), Rejected> {
        let current = self.current.generation().ok_or(BAD)?;
        let old = self.previous.as_ref().map(|(old, _)| old);
        let generation = match old.filter(|old| old.owns(header.sequence)) {
            Some(old) => old,
            None if current.may_own(header.sequence) => current,
            None => {
                self.answer_unknown(now);
                return Err(BAD);
            }
        };
        let range = generation
            .open(header, &mut record)
            .map_err(|refused| match refused {
                Refused::Bad => BAD,
                Refused::Replayed => Rejected::Dropped(DropReason::Replayed),
            })?;
        let mut content = record.split_off(range.start);
        content.truncate(range.len());
        generation.hear();
        self.confirm(now);
        match header.content {
            ContentType::Alert => match content[..] {
                [_, 0] => Err(Rejected::Ended(Ended::closed_by_peer())),
                [FATAL, _] => Err(Rejected::Ended(Ended::fatal_alert())),
                _ => Ok(()),
            },
            ContentType::ApplicationData => {
                let envelope = Envelope::read(&content)
                    .ok_or(Rejected::Dropped(DropReason::UnknownContent))?;
                if envelope.kind != Kind::Nothing {
                    contents.push(Content {
                        sequence: header.sequence,
                        envelope,
                        bytes: content.split_off(ENVELOPE),
                    });
                }
                Ok(())
            }
        }
    }
}

const BAD: Rejected = Rejected::Dropped(DropReason::BadRecord);
