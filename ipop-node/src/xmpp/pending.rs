//! IQs that wait for their answer (RFC 6120 section 8.2.3).

use std::collections::HashMap;
use std::time::Duration;

use ipop_proto::signal::SessionId;
use ipop_proto::stanza;
use ipop_proto::stanza::services::Service;
use tokio::time::Instant;
use tokio_xmpp::jid::Jid;
use tokio_xmpp::minidom::Element;
use tokio_xmpp::parsers::stanza_error::StanzaError;

use super::command::{CertificateReply, RevocationsReply, ServicesReply, StatusReply};
use super::{Event, QueryError};

/// What was asked.
#[derive(Debug)]
pub(super) enum Question {
    Roster,
    Ping,
    Signal(SessionId),
    Status(StatusReply),
    /// Services for the caller.
    Services(ServicesReply),
    Certificate(CertificateReply),
    Revocations(RevocationsReply),
    /// Services to be reported as an event.
    OwnServices,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Answer {
    Result(Option<Element>),
    Error(StanzaError),
    Timeout,
    /// The stream was lost.
    Offline,
}

#[derive(Debug)]
struct Entry {
    to: Option<Jid>,
    question: Question,
    deadline: Instant,
}

/// The table of what is not answered yet.
#[derive(Debug)]
pub(super) struct Pending {
    entries: HashMap<String, Entry>,
    last_id: u64,
    reply: Duration,
}

impl Pending {
    pub fn new(reply: Duration) -> Self {
        Self {
            entries: HashMap::new(),
            last_id: 0,
            reply,
        }
    }

    /// Notes a question to `to` (`None`: the server on behalf of the account) and gives its IQ's
    /// identifier.
    pub fn ask(&mut self, now: Instant, to: Option<Jid>, question: Question) -> String {
        self.last_id += 1;
        let id = format!("q{}", self.last_id);
        self.entries.insert(
            id.clone(),
            Entry {
                to,
                question,
                deadline: now + self.reply,
            },
        );
        id
    }

    /// The question that an answer with `id` from `from` belongs to. An answer counts only from
    /// whom was asked: identifiers can be guessed.
    pub fn answered(
        &mut self,
        id: &str,
        from: Option<&Jid>,
        own: &Jid,
    ) -> Option<(Option<Jid>, Question)> {
        let entry = self.entries.get(id)?;
        let right = match &entry.to {
            Some(to) => from == Some(to),
            None => from.is_none_or(|from| *from == own.to_bare() || from == own),
        };
        if !right {
            return None;
        }
        self.entries
            .remove(id)
            .map(|entry| (entry.to, entry.question))
    }

    /// When the next question runs out of time.
    pub fn deadline(&self) -> Option<Instant> {
        self.entries.values().map(|entry| entry.deadline).min()
    }

    /// Removes and gives the questions whose time is over at `now`.
    pub fn expired(&mut self, now: Instant) -> Vec<(Option<Jid>, Question)> {
        self.entries
            .extract_if(|_, entry| entry.deadline <= now)
            .map(|(_, entry)| (entry.to, entry.question))
            .collect()
    }

    /// Removes and gives everything.
    pub fn drain(&mut self) -> Vec<(Option<Jid>, Question)> {
        self.entries
            .drain()
            .map(|(_, entry)| (entry.to, entry.question))
            .collect()
    }

    /// How long answers may take.
    pub fn patience(&self) -> Duration {
        self.reply
    }
}

/// The event, if any, by which the owner of the session learns how a signal ended.
pub(super) fn signal_event(to: Option<Jid>, sid: SessionId, answer: Answer) -> Option<Event> {
    let condition = match answer {
        Answer::Result(_) => return None,
        Answer::Error(error) => condition(&error),
        Answer::Timeout => "remote-server-timeout".to_owned(),
        Answer::Offline => "not-connected".to_owned(),
    };
    Some(Event::SignalFailed {
        to: to?.to_string(),
        sid,
        condition,
    })
}

/// Reads the answer to a status query.
pub(super) fn status(
    to: &str,
    answer: Answer,
    patience: Duration,
) -> Result<Box<ipop_proto::status::NodeStatus>, QueryError> {
    let payload = payload(to, answer, patience)?;
    stanza::status::from_element(payload.as_ref())
        .map(Box::new)
        .map_err(|error| QueryError::Unreadable(to.to_owned(), error.to_string()))
}

/// Reads the answer to a services query.
pub(super) fn services(
    to: &str,
    answer: Answer,
    patience: Duration,
) -> Result<Vec<Service>, QueryError> {
    let payload = payload(to, answer, patience)?;
    stanza::services::from_element(payload.as_ref())
        .map_err(|error| QueryError::Unreadable(to.to_owned(), error.to_string()))
}

/// Reads the answer to a question for a certificate.
pub(super) fn certificate(
    to: &str,
    answer: Answer,
    patience: Duration,
) -> Result<String, QueryError> {
    let payload = payload(to, answer, patience)?;
    stanza::certificate::from_answer(payload.as_ref())
        .map_err(|error| QueryError::Unreadable(to.to_owned(), error.to_string()))
}

/// Reads the answer to a revocation list.
pub(super) fn revocations(to: &str, answer: Answer, patience: Duration) -> Result<(), QueryError> {
    payload(to, answer, patience).map(drop)
}

fn payload(to: &str, answer: Answer, patience: Duration) -> Result<Option<Element>, QueryError> {
    match answer {
        Answer::Result(payload) => Ok(payload),
        Answer::Error(error) => Err(QueryError::Refused(to.to_owned(), condition(&error))),
        Answer::Timeout => Err(QueryError::Timeout(to.to_owned(), patience)),
        Answer::Offline => Err(QueryError::Offline),
    }
}

/// The condition's name. Jingle's own one (XEP-0166 section 10) says more than the general one.
pub(super) fn condition(error: &StanzaError) -> String {
    match &error.other {
        Some(other) if other.has_ns(stanza::NS_JINGLE_ERRORS) => other.name().to_owned(),
        _ => Element::from(error.defined_condition.clone())
            .name()
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> Jid {
        Jid::new(text).expect("valid")
    }

    #[test]
    fn an_answer_counts_only_from_whom_was_asked() {
        let (own, peer) = (jid("me@x/1"), jid("a@x/1"));
        let mut pending = Pending::new(Duration::from_secs(10));
        let id = pending.ask(Instant::now(), Some(peer.clone()), Question::Ping);
        assert!(pending.answered(&id, Some(&jid("b@x/1")), &own).is_none());
        assert!(pending.answered(&id, None, &own).is_none());
        assert!(pending.answered(&id, Some(&peer), &own).is_some());
        assert!(pending.answered(&id, Some(&peer), &own).is_none());
        let id = pending.ask(Instant::now(), None, Question::Roster);
        assert!(pending.answered(&id, Some(&peer), &own).is_none());
        assert!(pending.answered(&id, Some(&jid("me@x")), &own).is_some());
    }

    #[test]
    fn questions_expire_at_their_deadline() {
        let now = Instant::now();
        let mut pending = Pending::new(Duration::from_secs(10));
        pending.ask(now, None, Question::Ping);
        let deadline = pending.deadline().expect("one question");
        assert_eq!(deadline, now + Duration::from_secs(10));
        assert!(
            pending
                .expired(deadline - Duration::from_millis(1))
                .is_empty()
        );
        assert_eq!(pending.expired(deadline).len(), 1);
        assert_eq!(pending.deadline(), None);
    }

    #[test]
    fn a_jingle_condition_is_preferred_to_the_general_one() {
        let error = stanza::JingleError::UnknownSession.to_stanza_error();
        assert_eq!(condition(&error), "unknown-session");
        let error = stanza::JingleFault::TooManyCandidates(99).to_stanza_error();
        assert_eq!(condition(&error), "bad-request");
    }
}
