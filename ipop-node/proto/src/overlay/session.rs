//! One Jingle session with a peer and the link it sets up.

use std::time::{Duration, Instant};

use super::peer::Timer;
use crate::candidate::{Candidate, CandidateKind};
use crate::link::{IceRole, Link};
use crate::signal::{LinkDescription, SessionId, Signal};

/// How long the initiator waits for an answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A link that is not up this long after it was begun is not counted among those that are set up.
const YOUNG: Duration = Duration::from_secs(3);
/// How long a found candidate waits for others to be signalled with it.
const BATCH: Duration = Duration::from_millis(20);
/// See [`Session::is_settled`].
const SETTLED: Duration = Duration::from_secs(5);
/// Candidates kept that came before the half they belong to.
const MAX_EARLY: usize = 64;

/// A session, from the first signal to the link's end.
pub(super) struct Session {
    pub(super) sid: SessionId,
    pub(super) role: IceRole,
    pub(super) link: Link,
    /// The link was up at some time.
    pub(super) was_up: bool,
    up_at: Option<Instant>,
    /// When it was asked for, or answered.
    begun: Instant,
    /// The peer's half, which is to be answered when there is room for a link more.
    offer: Option<LinkDescription>,
    /// Username fragment of the peer's half, once it came.
    remote_ufrag: Option<String>,
    early: Vec<(String, Candidate)>,
    unsent: Vec<Candidate>,
    flush: Option<Instant>,
    answer_by: Instant,
}

impl Session {
    pub(super) fn new(now: Instant, sid: SessionId, role: IceRole, link: Link) -> Self {
        Self {
            sid,
            role,
            link,
            was_up: false,
            up_at: None,
            begun: now,
            offer: None,
            remote_ufrag: None,
            early: Vec::new(),
            unsent: Vec::new(),
            flush: None,
            answer_by: now + ANSWER_TIMEOUT,
        }
    }

    /// One that the peer asks for.
    pub(super) fn offered(
        now: Instant,
        sid: SessionId,
        link: Link,
        offer: LinkDescription,
    ) -> Self {
        Self {
            offer: Some(offer),
            ..Self::new(now, sid, IceRole::Controlled, link)
        }
    }

    /// Whether the peer waits for this node's answer.
    pub(super) fn is_offered(&self) -> bool {
        self.offer.is_some()
    }

    /// What is to be answered, once.
    pub(super) fn take_offer(&mut self) -> Option<LinkDescription> {
        self.offer.take()
    }

    /// Whether its link is being set up and has been for a short time only.
    pub(super) fn is_young(&self, now: Instant) -> bool {
        !self.was_up && self.offer.is_none() && now < self.young_until()
    }

    /// Until when it is young at the most.
    pub(super) fn young_until(&self) -> Instant {
        self.begun + YOUNG
    }

    /// The link is up.
    pub(super) fn came_up(&mut self, now: Instant) {
        self.was_up = true;
        self.up_at.get_or_insert(now);
    }

    /// Whether the link has been up long enough that what the peer now says of it was said after
    /// it came up there too.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        self.up_at.is_some_and(|at| at + SETTLED <= now)
    }

    /// Whether the peer's half is still to come.
    pub(super) fn is_unanswered(&self) -> bool {
        self.remote_ufrag.is_none()
    }

    fn awaits_answer(&self) -> bool {
        self.is_unanswered() && self.offer.is_none()
    }

    /// Whether the peer has not answered in time.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.awaits_answer() && self.answer_by <= now
    }

    /// The peer's half has come: candidates that ran ahead of it are handed to the link.
    pub(super) fn answered(&mut self, now: Instant, remote_ufrag: String) {
        for (ufrag, candidate) in std::mem::take(&mut self.early) {
            if ufrag == remote_ufrag {
                self.link.add_remote(now, &candidate);
            }
        }
        self.remote_ufrag = Some(remote_ufrag);
        self.begun = now;
    }

    /// Candidates of the peer; those of another half than the link's are dropped.
    pub(super) fn add_remote(&mut self, now: Instant, ufrag: &str, candidates: Vec<Candidate>) {
        for candidate in candidates {
            match &self.remote_ufrag {
                Some(known) if known == ufrag => self.link.add_remote(now, &candidate),
                Some(_) => {}
                None if self.early.len() < MAX_EARLY => {
                    self.early.push((ufrag.to_owned(), candidate));
                }
                None => {}
            }
        }
    }

    /// A candidate of this node to be signalled soon.
    pub(super) fn trickle(&mut self, now: Instant, candidate: Candidate, relay_only: bool) {
        // What is answered later has it too.
        if self.is_offered() || relay_only && candidate.kind != CandidateKind::Relay {
            return;
        }
        self.unsent.push(candidate);
        self.flush.get_or_insert(now + BATCH);
    }

    /// The signal with candidates whose time has come.
    pub(super) fn flush(&mut self, now: Instant) -> Option<Signal> {
        self.flush.filter(|due| *due <= now)?;
        self.flush = None;
        Some(Signal::Candidates {
            sid: self.sid.clone(),
            ufrag: self.link.local_ufrag().to_owned(),
            candidates: std::mem::take(&mut self.unsent),
        })
    }

    pub(super) fn timer(&mut self) -> Option<Timer> {
        let answer = self.awaits_answer().then_some(self.answer_by);
        let others = [self.flush, answer].into_iter().flatten().min();
        let link = self.link.poll_timeout().map(|at| Timer {
            at,
            patient: self.link.is_patient(),
        });
        let others = others.map(Timer::exact);
        [link, others].into_iter().flatten().min_by_key(|t| t.at)
    }
}
