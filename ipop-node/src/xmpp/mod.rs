//! The session with the XMPP server: sign-in, presence, signals, status queries, services.
//!
//! [`open`] starts one task that owns the stream for as long as a [`Session`] handle lives. It
//! signs in, stays signed in, and connects again with growing pauses when the stream is lost.
//! What others say arrives as [`Event`]s; only members of the account's roster are heard.
//!
//! It never talks to a server whose certificate does not chain to the pinned CA, never sends
//! anything but STARTTLS in the clear, never offers PLAIN, and does not keep signals for later: one
//! that cannot be sent or is not answered comes back as [`Event::SignalFailed`].
//!
//! The library below logs whole stanzas, TURN credentials among them, at TRACE: make the log with
//! [`crate::log::subscriber`], which leaves them out.

use std::sync::Arc;
use std::time::Duration;

use ipop_proto::signal::{SessionId, Signal};
use ipop_proto::stanza::certificate::CertificateRequest;
use ipop_proto::stanza::services::Service;
use ipop_proto::status::{Advertisement, NodeStatus};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::requester::Requester;

mod account;
mod answers;
mod certify;
mod command;
mod connect;
mod enrol;
mod inbound;
mod members;
mod online;
mod pace;
mod pending;
mod sasl;
mod task;

pub use account::{Account, AccountError, Password};
use command::Command;
pub use enrol::Enrolment;

/// How many events wait for the caller before the stream is no longer read.
const EVENT_QUEUE: usize = 1024;

/// How long closing a stream may take.
const CLOSE: Duration = Duration::from_secs(2);

/// What the session tells its owner.
#[derive(Debug)]
pub enum Event {
    /// Signed in and visible to the other members.
    Online {
        /// Full JID as the server gave it.
        jid: String,
    },
    /// The stream is lost, or no server could be reached; it goes on trying.
    Offline {
        /// Why.
        error: String,
    },
    /// The server refuses the account; it goes on trying, slowly.
    Refused {
        /// The condition of RFC 6120 section 6.5 (`not-authorized`), or `conflict` when another
        /// client signed in under the same full JID.
        condition: String,
    },
    /// A member's node, first seen or changed.
    Presence {
        /// Full JID.
        from: String,
        /// What it says of itself.
        advertisement: Advertisement,
    },
    /// A member's node that was seen before is gone.
    Unavailable {
        /// Full JID.
        from: String,
    },
    /// An account is no longer a member, whether its node was present or not. After a sign-in,
    /// also for those that left the roster meanwhile.
    Expelled {
        /// Bare JID.
        jid: String,
    },
    /// A member's node signals. It has been acknowledged.
    Signal {
        /// Full JID.
        from: String,
        /// What it says.
        signal: Signal,
    },
    /// A signal was refused, not answered in time, or not sent at all.
    SignalFailed {
        /// Full JID it was meant for.
        to: String,
        /// Session it belongs to.
        sid: SessionId,
        /// The stanza error's condition (RFC 6120 section 8.3.3); `remote-server-timeout` when
        /// nothing came back, `not-connected` when there was no stream to send it on.
        condition: String,
    },
    /// A member asks for this node's status; answer with [`Session::answer_status`].
    StatusQuery {
        /// Full JID to answer to.
        from: String,
        /// Identifier to answer with.
        id: String,
    },
    /// The node has got its certificate, and is going to be online.
    Certified,
    /// A member asks for its certificate; answer with [`Session::answer_certificate`].
    CertificateRequest {
        /// Full JID to answer to.
        from: String,
        /// Identifier to answer with.
        id: String,
        /// What it asks.
        request: CertificateRequest,
    },
    /// A member tells a revocation list; answer with [`Session::answer_revocations`].
    Revocations {
        /// Full JID to answer to.
        from: String,
        /// Identifier to answer with.
        id: String,
        /// The list's DER form, from anybody so far.
        list: Vec<u8>,
    },
    /// STUN and TURN services with fresh credentials: after every sign-in, and again before they
    /// expire.
    Services(Vec<Service>),
}

/// What a node says to a revocation list that it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationsAnswer {
    /// It is in force, or a newer one is.
    InForce,
    /// Whoever told it is not who tells this node such lists.
    Forbidden,
    /// It is none of an authority that is believed here.
    Refused,
}

/// A question was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Not signed in, or the stream was lost meanwhile.
    #[error("not signed in to the XMPP server")]
    Offline,
    /// The JID to ask is none.
    #[error("`{0}` is not a JID")]
    Jid(String),
    /// Nobody answered in time.
    #[error("`{0}` did not answer within {1:?}")]
    Timeout(String, Duration),
    /// The answer was an error.
    #[error("`{0}` answered `{1}`")]
    Refused(String, String),
    /// The answer cannot be read.
    #[error("unreadable answer from `{0}`: {1}")]
    Unreadable(String, String),
}

/// How long things may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// For one TCP connection to one address.
    pub tcp: Duration,
    /// For TLS, authentication and binding together, once TCP is connected.
    pub sign_in: Duration,
    /// Silence after which the server is pinged (XEP-0199).
    pub ping_after: Duration,
    /// Silence after the ping that ends the stream.
    pub ping_reply: Duration,
    /// For the answer to an IQ.
    pub reply: Duration,
    /// First pause before connecting again; doubles, with jitter.
    pub retry_min: Duration,
    /// Longest pause before connecting again.
    pub retry_max: Duration,
    /// Pause after the account was refused.
    pub retry_refused: Duration,
    /// After signing in again, nodes not seen for this long are gone.
    pub settle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            tcp: Duration::from_secs(5),
            sign_in: Duration::from_secs(15),
            ping_after: Duration::from_secs(30),
            ping_reply: Duration::from_secs(15),
            reply: Duration::from_secs(10),
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_secs(30),
            retry_refused: Duration::from_secs(60),
            settle: Duration::from_secs(45),
        }
    }
}

/// Starts a session with the default [`Timing`]. Needs a tokio runtime with I/O and time.
pub fn open(account: Account) -> Result<(Session, mpsc::Receiver<Event>), AccountError> {
    open_with(account, Timing::default())
}

/// What is to be had before a node can be online.
#[derive(Debug, Clone, Default)]
pub struct Preparation {
    /// How to exchange a token for the account's password, as long as that is not known to be right.
    pub enrolment: Option<Enrolment>,
    /// How to get the node's certificate, as long as it has none.
    pub requester: Option<Requester>,
}

/// Starts a session that has something to do before. Until that is done it is not signed in, and says
/// why, as for any other reason.
pub fn open_prepared(
    account: Account,
    preparation: Preparation,
    timing: Timing,
) -> Result<(Session, mpsc::Receiver<Event>), AccountError> {
    start(account, preparation, timing)
}

/// Starts a session.
pub fn open_with(
    account: Account,
    timing: Timing,
) -> Result<(Session, mpsc::Receiver<Event>), AccountError> {
    start(account, Preparation::default(), timing)
}

fn start(
    account: Account,
    preparation: Preparation,
    timing: Timing,
) -> Result<(Session, mpsc::Receiver<Event>), AccountError> {
    let login = account::Login::new(account)?;
    let (commands, command_queue) = mpsc::unbounded_channel();
    let (event_queue, events) = mpsc::channel(EVENT_QUEUE);
    let (leaving, leaving_seen) = watch::channel(false);
    let retry = Arc::new(Notify::new());
    let task = task::Task::new(
        login,
        preparation,
        timing,
        command_queue,
        event_queue,
        leaving_seen,
        retry.clone(),
    );
    tokio::spawn(task.run());
    Ok((
        Session {
            commands,
            leaving,
            retry,
        },
        events,
    ))
}

/// A handle on the session; clones share it. The session ends when the last one is dropped, as
/// [`Session::leave`] does but without anyone waiting.
#[derive(Debug, Clone)]
pub struct Session {
    commands: mpsc::UnboundedSender<Command>,
    leaving: watch::Sender<bool>,
    retry: Arc<Notify>,
}

impl Session {
    /// Ends the pause before the next attempt to connect, because what made the last one fail may
    /// be over: an address or a route came.
    pub fn retry_now(&self) {
        self.retry.notify_one();
    }

    /// Publishes `advertisement` from now on, now and after every sign-in. Before the first call
    /// the session is present without being a node.
    pub fn advertise(&self, advertisement: Advertisement) {
        self.send(Command::Advertise(advertisement));
    }

    /// Sends `signal` to the full JID `to`, in the order of the calls.
    pub fn signal(&self, to: String, signal: Signal) {
        self.send(Command::Signal { to, signal });
    }

    /// Answers an [`Event::StatusQuery`].
    pub fn answer_status(&self, to: String, id: String, status: NodeStatus) {
        self.send(Command::AnswerStatus {
            to,
            id,
            status: Box::new(status),
        });
    }

    /// Answers an [`Event::CertificateRequest`] with a certificate (PEM), or refuses it.
    pub fn answer_certificate(&self, to: String, id: String, certificate: Option<String>) {
        self.send(Command::AnswerCertificate {
            to,
            id,
            certificate,
        });
    }

    /// Asks `issuer` (a full JID) for a certificate (PEM).
    pub async fn query_certificate(
        &self,
        issuer: &str,
        request: CertificateRequest,
    ) -> Result<String, QueryError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::QueryCertificate {
            issuer: issuer.to_owned(),
            request,
            reply,
        });
        answer.await.unwrap_or(Err(QueryError::Offline))
    }

    /// Tells the node with the full JID `jid` a revocation list (DER). It is in force there when this
    /// succeeds, or a newer one is.
    pub async fn tell_revocations(&self, jid: &str, list: Vec<u8>) -> Result<(), QueryError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::TellRevocations {
            jid: jid.to_owned(),
            list,
            reply,
        });
        answer.await.unwrap_or(Err(QueryError::Offline))
    }

    /// Answers an [`Event::Revocations`].
    pub fn answer_revocations(&self, to: String, id: String, answer: RevocationsAnswer) {
        self.send(Command::AnswerRevocations { to, id, answer });
    }

    /// Asks the node with the full JID `jid` for its status.
    pub async fn query_status(&self, jid: &str) -> Result<NodeStatus, QueryError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::QueryStatus {
            jid: jid.to_owned(),
            reply,
        });
        answer
            .await
            .unwrap_or(Err(QueryError::Offline))
            .map(|status| *status)
    }

    /// Asks the server for its STUN and TURN services.
    pub async fn query_services(&self) -> Result<Vec<Service>, QueryError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::QueryServices { reply });
        answer.await.unwrap_or(Err(QueryError::Offline))
    }

    /// Sends what was asked for before, says good-bye, closes the stream, and ends the session.
    /// Returns when that is done, at most a few seconds later. No event follows.
    pub async fn leave(&self) {
        let (done, ended) = oneshot::channel();
        self.leaving.send_replace(true);
        self.send(Command::Leave { done });
        // An error means that the task is gone already.
        let _ = ended.await;
    }

    /// A session that has ended takes no commands; its owner has seen the end of the events.
    fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}
