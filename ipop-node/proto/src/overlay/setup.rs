//! How links come and go: signalling, failures, attempts.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rand::Rng;

use super::peer::{PeerId, Timer};
use super::session::{ANSWER_TIMEOUT, Session};
use super::static_peers::PAUSES;
use super::{Output, Overlay};
use crate::link::{IceCredentials, IceRole, Link, LinkConfig};
use crate::signal::{LinkDescription, SessionId, Setup, Signal, TerminateReason};

/// How long a peer that said it leaves is left alone, should its presence not end.
const LEFT: Duration = Duration::from_secs(60);

impl Overlay {
    pub(super) fn signalled(&mut self, now: Instant, from: &str, signal: Signal) {
        let id = self.table.by_jid(from);
        let current = id
            .and_then(|id| self.table.get(id))
            .and_then(|p| p.session.as_ref())
            .map(|s| s.sid.clone());
        match (signal, id) {
            (Signal::Initiate { sid, description }, Some(id)) => {
                if current.as_ref() != Some(&sid) {
                    self.initiated(now, id, from, sid, &description);
                }
            }
            (Signal::Initiate { sid, .. }, None) => {
                self.terminate(from, sid, TerminateReason::GeneralError);
            }
            (Signal::Accept { sid, description }, Some(id)) if current.as_ref() == Some(&sid) => {
                self.accepted(now, id, &description);
            }
            (Signal::Accept { sid, .. }, _) => {
                self.terminate(from, sid, TerminateReason::GeneralError);
            }
            (
                Signal::Candidates {
                    sid,
                    ufrag,
                    candidates,
                },
                Some(id),
            ) if current.as_ref() == Some(&sid) => {
                if let Some(session) = self.peer_mut(id).and_then(|p| p.session.as_mut()) {
                    session.add_remote(now, &ufrag, candidates);
                }
                self.advance(now, id);
            }
            (Signal::Terminate { sid, reason }, Some(id)) if current.as_ref() == Some(&sid) => {
                self.terminated(now, id, reason);
            }
            // Its DTLS alert was faster.
            (
                Signal::Terminate {
                    sid,
                    reason: TerminateReason::Success,
                },
                Some(id),
            ) if current.is_none()
                && self
                    .table
                    .get(id)
                    .is_some_and(|p| p.last.as_ref() == Some(&sid)) =>
            {
                self.terminated(now, id, TerminateReason::Success);
            }
            (Signal::Candidates { .. } | Signal::Terminate { .. }, _) => {}
        }
    }

    /// The peer asks for a session.
    fn initiated(
        &mut self,
        now: Instant,
        id: PeerId,
        from: &str,
        sid: SessionId,
        description: &LinkDescription,
    ) {
        let Some(peer) = self.table.get(id) else {
            return;
        };
        if peer.refused.is_some() || !self.stands(peer) {
            return self.terminate(from, sid, TerminateReason::GeneralError);
        }
        if let Some(why) = self.is_other_key(id, description.fingerprint) {
            self.refuse_key(now, id, Some(description.fingerprint), &why);
            return self.terminate(from, sid, TerminateReason::SecurityError);
        }
        let ours = peer
            .session
            .as_ref()
            .filter(|s| s.role == IceRole::Controlling && !s.was_up);
        if let Some(ours) = ours {
            // Glare: the session of the one that sorts first is kept.
            if self.me.as_deref().is_some_and(|me| me < from) {
                return self.terminate(from, sid, TerminateReason::AlternativeSession);
            }
            let ours = ours.sid.clone();
            self.terminate(from, ours, TerminateReason::AlternativeSession);
        }
        self.end(now, id, "the peer began a new session", None);
        if let Some(peer) = self.peer_mut(id) {
            from.clone_into(&mut peer.jid);
        }
        let Some(link) = self.link(now, id, IceRole::Controlled, None) else {
            self.schedule(id);
            return self.terminate(from, sid, TerminateReason::GeneralError);
        };
        let session = Session::offered(now, sid, link, description.clone());
        self.install(now, id, session);
    }

    /// Answers the session that the peer asked for.
    fn answer(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.table.get_mut(id) else {
            return;
        };
        let (to, Some(session)) = (peer.jid.clone(), &mut peer.session) else {
            return;
        };
        let Some(offer) = session.take_offer() else {
            return;
        };
        if let Err(error) = session.link.set_remote(now, &offer) {
            let why = error.to_string();
            return self.fail(now, id, why, Some(TerminateReason::GeneralError));
        }
        session.answered(now, offer.ufrag);
        let sid = session.sid.clone();
        let description = session.link.description(Setup::Active);
        self.signal(to, Signal::Accept { sid, description });
        self.begun(id);
        self.advance(now, id);
    }

    /// The peer answered our session.
    fn accepted(&mut self, now: Instant, id: PeerId, description: &LinkDescription) {
        let other_key = self.is_other_key(id, description.fingerprint);
        let Some(session) = self.table.get_mut(id).and_then(|p| p.session.as_mut()) else {
            return;
        };
        if !session.is_unanswered() {
            return;
        }
        if let Some(why) = other_key {
            self.refuse_key(now, id, Some(description.fingerprint), &why);
            return self.fail(now, id, why, Some(TerminateReason::SecurityError));
        }
        match session.link.set_remote(now, description) {
            Ok(()) => {
                session.answered(now, description.ufrag.clone());
                self.begun(id);
                self.advance(now, id);
            }
            Err(error) => {
                self.fail(
                    now,
                    id,
                    error.to_string(),
                    Some(TerminateReason::GeneralError),
                );
            }
        }
    }

    /// The peer ended the session.
    fn terminated(&mut self, now: Instant, id: PeerId, reason: TerminateReason) {
        let why = match reason {
            TerminateReason::Success => {
                self.end(now, id, "the peer left", None);
                if let Some(peer) = self.peer_mut(id) {
                    peer.failure = Some("the peer left".to_owned());
                    peer.backoff.until = Some(now + LEFT);
                }
                return self.advance(now, id);
            }
            TerminateReason::ConnectivityError => "the peer found no working path",
            TerminateReason::SecurityError => "the peer refused our certificate",
            TerminateReason::AlternativeSession => "the peer keeps another session",
            TerminateReason::GeneralError if self.approvals.is_some() => {
                "the peer refused the session; its owner may not have approved this node yet"
            }
            TerminateReason::GeneralError => "the peer refused the session",
        };
        self.fail(now, id, why.to_owned(), None);
    }

    /// Asks a peer for a session.
    fn initiate(&mut self, now: Instant, id: PeerId) {
        if self.table.get(id).is_some_and(|p| p.configured.is_some()) {
            return self.link_static(now, id);
        }
        if let Some(peer) = self.table.get_mut(id) {
            peer.asks = false;
        }
        let mut random = [0; 16];
        self.rng.fill_bytes(&mut random);
        let sid = SessionId(random.iter().fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        }));
        let Some(link) = self.link(now, id, IceRole::Controlling, None) else {
            return self.schedule(id);
        };
        let session = Session::new(now, sid.clone(), IceRole::Controlling, link);
        let Some(to) = self.table.get(id).map(|p| p.jid.clone()) else {
            return;
        };
        let description = session.link.description(Setup::Actpass);
        self.signal(to, Signal::Initiate { sid, description });
        self.begun(id);
        self.install(now, id, session);
    }

    /// A link that knows this node's candidates. A failure is noted with the peer.
    pub(super) fn link(
        &mut self,
        now: Instant,
        id: PeerId,
        role: IceRole,
        credentials: Option<IceCredentials>,
    ) -> Option<Link> {
        let config = LinkConfig {
            role,
            identity: self.identity.clone(),
            relay_only: self.config.relay_only,
            credentials,
            trust: self.trust_in(id),
        };
        match Link::new(now, config, &mut self.rng) {
            Ok(mut link) => {
                for local in self.gatherer.candidates() {
                    link.add_local(now, self.to_tell(local));
                }
                Some(link)
            }
            Err(error) => {
                let peer = self.table.get_mut(id)?;
                peer.failure = Some(error.to_string());
                peer.backoff.failed(now, &mut self.rng);
                None
            }
        }
    }

    pub(super) fn install(&mut self, now: Instant, id: PeerId, session: Session) {
        self.demux.add_ufrag(session.link.local_ufrag(), id);
        if let Some(peer) = self.peer_mut(id) {
            peer.session = Some(session);
        }
        self.advance(now, id);
    }

    fn terminate(&mut self, to: &str, sid: SessionId, reason: TerminateReason) {
        self.signal(to.to_owned(), Signal::Terminate { sid, reason });
    }

    /// Does what a peer's state asks for, and files it under its next deadline.
    pub(super) fn advance(&mut self, now: Instant, id: PeerId) {
        self.drain_link(now, id);
        self.tell_path(id);
        let Some(peer) = self.table.get_mut(id) else {
            return;
        };
        if peer.session.as_ref().is_some_and(Session::is_offered) {
            if self.has_room(now) {
                return self.answer(now, id);
            }
            self.wait(id);
        } else if let Some(session) = &mut peer.session {
            if session.is_overdue(now) {
                let why = format!(
                    "the peer did not answer within {} s",
                    ANSWER_TIMEOUT.as_secs()
                );
                return self.fail(now, id, why, Some(TerminateReason::ConnectivityError));
            }
            if let Some(signal) = session.flush(now) {
                let to = peer.jid.clone();
                self.signal(to, signal);
            }
        } else if peer.configured.is_none() && !peer.is_present() && self.me.is_some() {
            self.table.remove(id);
            return self.settle_refused(now);
        } else if self.may_initiate(id) && self.table.get(id).is_some_and(|p| p.is_due(now)) {
            let is_configured = self.table.get(id).is_some_and(|p| p.configured.is_some());
            if is_configured || self.has_room(now) {
                return self.initiate(now, id);
            }
            self.wait(id);
            return self.table.schedule(id, None);
        }
        self.schedule(id);
    }

    pub(super) fn schedule(&mut self, id: PeerId) {
        let initiates = self.may_initiate(id);
        let timer = self
            .table
            .get_mut(id)
            .and_then(|peer| match &mut peer.session {
                Some(session) => session.timer(),
                None => peer.backoff.until.filter(|_| initiates).map(Timer::exact),
            });
        self.table.schedule(id, timer);
    }

    fn may_initiate(&self, id: PeerId) -> bool {
        let Some(peer) = self.table.get(id).filter(|_| !self.left) else {
            return false;
        };
        if peer.configured.is_some() {
            return peer.refused.is_none();
        }
        let Some(me) = &self.me else {
            return false;
        };
        let is_first = *me < peer.jid || peer.asks;
        peer.is_present() && peer.refused.is_none() && is_first && self.stands(peer)
    }

    /// The session is over and another one is wanted.
    pub(super) fn fail(
        &mut self,
        now: Instant,
        id: PeerId,
        why: String,
        tell: Option<TerminateReason>,
    ) {
        let session = self.table.get(id).and_then(|p| p.session.as_ref());
        let never_worked = session.is_some_and(|s| !s.was_up);
        let settled = session.is_some_and(|s| s.is_settled(now));
        self.end(now, id, &why, tell);
        if let Some(peer) = self.table.get_mut(id) {
            peer.failure = Some(why);
            match peer.configured {
                // Nobody else sees to it.
                Some(_) if settled => peer.backoff.reset(),
                Some(_) => peer.backoff.failed_within(now, &mut self.rng, PAUSES),
                None => peer.backoff.failed(now, &mut self.rng),
            }
        }
        if never_worked {
            return self.take_next(now, id);
        }
        if self.approvals.is_some() {
            // It may have come to claim something else while it had the link.
            return self.take_newest(now, id);
        }
        self.advance(now, id);
    }

    /// Drops a peer's session, if there is one; `tell` says it to the peer.
    pub(super) fn end(
        &mut self,
        now: Instant,
        id: PeerId,
        why: &str,
        tell: Option<TerminateReason>,
    ) {
        let Some(peer) = self.table.get_mut(id) else {
            return;
        };
        let Some(mut session) = peer.session.take() else {
            return;
        };
        self.withdraw_path(id);
        if let Some(trust) = &mut self.trust {
            trust.gossip.unlinked(id);
            self.table.release(id);
        }
        let Some(peer) = self.table.get_mut(id) else {
            return;
        };
        let (to, name) = (peer.jid.clone(), peer.name.clone());
        peer.last = Some(session.sid.clone());
        if session.was_up {
            peer.since = now;
        }
        let fingerprint = session.link.shown();
        let key = session.link.shown_key();
        session.link.close();
        while let Some(transmit) = session.link.poll_transmit() {
            self.send(now, id, transmit);
        }
        // Its counters go on, in the peer's.
        if let Some(peer) = self.table.get_mut(id) {
            for (reason, count) in session.link.drops() {
                peer.traffic.dropped_many(*reason, *count);
            }
        }
        self.demux.remove(session.link.local_ufrag(), id);
        if let Some(reason) = tell {
            self.terminate(&to, session.sid, reason);
        }
        if session.was_up {
            self.outputs.push_back(Output::LinkDown {
                peer: name,
                fingerprint,
                key,
                why: why.to_owned(),
            });
        }
    }
}
