//! The task behind a session: sign in, live on the stream, wait, again.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use ipop_proto::stanza;
use ipop_proto::status::Advertisement;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::account::Login;
use super::certify;
use super::command::Command;
use super::connect::{ConnectError, connect};
use super::enrol;
use super::members::Members;
use super::online::Online;
use super::{Event, Preparation, QueryError, Timing};
use crate::backoff::Backoff;

/// A stream that lasted this long was good: the next pause is the shortest again.
const GOOD: Duration = Duration::from_secs(30);

/// The stream error of RFC 6120 section 4.9.3.3: another client bound our resource.
const CONFLICT: &str = "conflict";

pub(super) struct Task {
    pub login: Login,
    preparation: Preparation,
    pub timing: Timing,
    pub commands: mpsc::UnboundedReceiver<Command>,
    pub advertisement: Option<Advertisement>,
    pub members: Members,
    events: mpsc::Sender<Event>,
    leaving: watch::Receiver<bool>,
    retry: Arc<Notify>,
}

/// Why a stream, or the session, ended.
pub(super) enum End {
    /// The stream is lost.
    Lost(String),
    /// Another client took our place.
    Conflict,
    /// The owner is done with the session, and may be waiting to hear that it is over.
    Left(Option<oneshot::Sender<()>>),
}

/// The time before the next attempt.
struct Pause {
    length: Duration,
    /// A change of the network may have mended what made the last attempt fail; it does not make
    /// a server take back its refusal.
    may_end_early: bool,
}

impl Task {
    pub fn new(
        login: Login,
        preparation: Preparation,
        timing: Timing,
        commands: mpsc::UnboundedReceiver<Command>,
        events: mpsc::Sender<Event>,
        leaving: watch::Receiver<bool>,
        retry: Arc<Notify>,
    ) -> Self {
        let members = Members::new(login.jid.clone());
        Self {
            login,
            preparation,
            timing,
            commands,
            advertisement: None,
            members,
            events,
            leaving,
            retry,
        }
    }

    pub async fn run(mut self) {
        let done = self.live().await;
        if let Some(done) = done {
            // An error means that whoever waited for it has stopped waiting.
            let _ = done.send(());
        }
    }

    async fn live(&mut self) -> Option<oneshot::Sender<()>> {
        let mut backoff = Backoff::new(self.timing.retry_min, self.timing.retry_max);
        loop {
            let (mut login, timing) = (self.login.clone(), self.timing.clone());
            let preparation = self.preparation.clone();
            // What was to be retried at once before this attempt is retried by it.
            self.clear_retry();
            let attempt = async {
                if let Some(enrolment) = &preparation.enrolment {
                    login.password = enrol::password(enrolment, &login, &timing).await?;
                }
                if let Some(requester) = &preparation.requester {
                    certify::obtain(requester, &login, &timing).await?;
                }
                let (stream, jid) = connect(&login, &timing).await?;
                Ok::<_, ConnectError>((stream, jid, login.password))
            };
            let pause = match self.meanwhile(attempt).await {
                Err(left) => return left,
                Ok(Ok((stream, jid, password))) => {
                    self.login.password = password;
                    let prepared = std::mem::take(&mut self.preparation);
                    if prepared.requester.is_some() {
                        self.emit(Event::Certified).await;
                    }
                    tracing::debug!(%jid, "signed in");
                    let since = Instant::now();
                    let end = Online::new(self, stream, jid).run().await;
                    // What came while the stream worked made nothing fail.
                    self.clear_retry();
                    if since.elapsed() >= GOOD {
                        backoff.reset();
                    }
                    match end {
                        End::Left(done) => return done,
                        End::Conflict => self.refused(CONFLICT.to_owned()).await,
                        End::Lost(error) => self.offline(error, &mut backoff).await,
                    }
                }
                Ok(Err(error)) => match error.refused {
                    Some(condition) => {
                        tracing::debug!(error = error.text, "sign-in refused");
                        self.refused(condition).await
                    }
                    None => self.offline(error.text, &mut backoff).await,
                },
            };
            let retry = self.retry.clone();
            let paused = async {
                tokio::select! {
                    () = tokio::time::sleep(pause.length) => false,
                    () = retry.notified(), if pause.may_end_early => true,
                }
            };
            match self.meanwhile(paused).await {
                Err(left) => return left,
                Ok(true) => backoff.reset(),
                Ok(false) => {}
            }
        }
    }

    async fn refused(&mut self, condition: String) -> Pause {
        self.emit(Event::Refused { condition }).await;
        Pause {
            length: self.timing.retry_refused,
            may_end_early: false,
        }
    }

    async fn offline(&mut self, error: String, backoff: &mut Backoff) -> Pause {
        let length = backoff.pause(rand::random());
        tracing::debug!(error, pause_ms = length.as_millis() as u64, "offline");
        self.emit(Event::Offline { error }).await;
        Pause {
            length,
            may_end_early: true,
        }
    }

    /// Takes back a wish to retry at once that nobody has waited for.
    fn clear_retry(&self) {
        let _stale = self.retry.notified().now_or_never();
    }

    /// Runs `work` while commands are answered as can be without a stream. An error is the
    /// owner's wish to end the session.
    async fn meanwhile<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, Option<oneshot::Sender<()>>> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                value = &mut work => return Ok(value),
                command = self.commands.recv() => match command {
                    None => return Err(None),
                    Some(Command::Leave { done }) => return Err(Some(done)),
                    Some(command) => self.without_stream(command).await,
                }
            }
        }
    }

    async fn without_stream(&mut self, command: Command) {
        match command {
            Command::Advertise(advertisement) => self.advertisement = Some(advertisement),
            Command::Signal { to, signal } => {
                let sid = stanza::jingle::sid(&signal).clone();
                let condition = "not-connected".to_owned();
                self.emit(Event::SignalFailed { to, sid, condition }).await;
            }
            // Who asked has lost its stream too, or will time out.
            Command::AnswerStatus { .. } => {}
            // An error means that nobody waits for the answer any more.
            Command::QueryStatus { reply, .. } => drop(reply.send(Err(QueryError::Offline))),
            Command::QueryServices { reply } => drop(reply.send(Err(QueryError::Offline))),
            Command::AnswerCertificate { .. } | Command::AnswerRevocations { .. } => {}
            Command::TellRevocations { reply, .. } => {
                drop(reply.send(Err(QueryError::Offline)));
            }
            Command::QueryCertificate { reply, .. } => {
                drop(reply.send(Err(QueryError::Offline)));
            }
            Command::Leave { .. } => {}
        }
    }

    /// Hands an event to the owner. Waits while its queue is full, unless it wants to leave: then
    /// it does not look at events any more.
    pub async fn emit(&mut self, event: Event) {
        tokio::select! {
            biased;
            _ = self.leaving.wait_for(|leaving| *leaving) => {}
            // An error means that the owner does not want events, only to send.
            _ = self.events.send(event) => {}
        }
    }
}
