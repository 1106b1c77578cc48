//! The life of one stream, from the roster to the last good-bye.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use ipop_proto::stanza::{self, jingle};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_xmpp::Stanza;
use tokio_xmpp::jid::{BareJid, FullJid, Jid};
use tokio_xmpp::minidom::Element;
use tokio_xmpp::parsers::iq::{Iq, IqHeader, IqPayload};
use tokio_xmpp::parsers::ping::Ping;
use tokio_xmpp::parsers::presence::{Presence, Type as PresenceType};
use tokio_xmpp::parsers::roster::Roster;
use tokio_xmpp::xmlstream::{
    FallibleStreamElement, ReadError, StreamElementError, XmppStreamElement,
};

use super::command::Command;
use super::connect::Stream;
use super::inbound::{self, Request, Seen, Sender};
use super::members::Change;
use super::pace::Pace;
use super::pending::{Answer, Pending, Question};
use super::task::{End, Task};
use super::{CLOSE, Event, QueryError, RevocationsAnswer};

/// The server takes what we send within this, or the stream is dead.
const WRITE: Duration = Duration::from_secs(30);

pub(super) struct Online<'a> {
    pub(super) task: &'a mut Task,
    stream: Stream,
    pub(super) jid: FullJid,
    pub(super) pending: Pending,
    /// Whether the initial presence has been sent.
    pub(super) visible: bool,
    pub(super) pace: Pace,
    /// When to tell others what has changed.
    present_at: Option<Instant>,
    /// When nodes that have not been seen again are reported as gone.
    pub(super) settle_at: Option<Instant>,
    /// When to ask for services again.
    pub(super) services_at: Option<Instant>,
}

/// What woke the task up.
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack for one turn of the loop"
)]
enum Wake {
    Command(Option<Command>),
    Element(Option<Result<FallibleStreamElement, ReadError>>),
    Time,
}

impl<'a> Online<'a> {
    pub fn new(task: &'a mut Task, stream: Stream, jid: FullJid) -> Self {
        let pending = Pending::new(task.timing.reply);
        Self {
            task,
            stream,
            jid,
            pending,
            visible: false,
            pace: Pace::new(Instant::now()),
            present_at: None,
            settle_at: None,
            services_at: None,
        }
    }

    pub async fn run(mut self) -> End {
        let end = match self.live().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        for (to, question) in self.pending.drain() {
            // The stream is gone, so sending in answer to this is out of the question.
            if let Question::Services(_)
            | Question::Status(_)
            | Question::Certificate(_)
            | Question::Revocations(_)
            | Question::Signal(_) = question
            {
                let _ = self.settle(to, question, Answer::Offline).await;
            }
        }
        end
    }

    async fn live(&mut self) -> Result<std::convert::Infallible, End> {
        self.task.members.begin();
        // Members first: presence is not looked at before we know whose counts.
        self.ask(
            None,
            Question::Roster,
            false,
            Roster {
                ver: None,
                items: Vec::new(),
            }
            .into(),
        )
        .await?;
        loop {
            let deadlines = [
                self.pending.deadline(),
                self.present_at,
                self.settle_at,
                self.services_at,
            ];
            let deadline = deadlines.into_iter().flatten().min();
            let wake = tokio::select! {
                command = self.task.commands.recv() => Wake::Command(command),
                element = self.stream.next() => Wake::Element(element),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    Wake::Time
                }
            };
            match wake {
                Wake::Command(command) => self.command(command).await?,
                Wake::Element(element) => self.element(element).await?,
                Wake::Time => self.time().await?,
            }
        }
    }

    async fn command(&mut self, command: Option<Command>) -> Result<(), End> {
        match command {
            None => Err(self.good_bye(None).await),
            Some(Command::Leave { done }) => Err(self.good_bye(Some(done)).await),
            Some(Command::Advertise(advertisement)) => {
                self.task.advertisement = Some(advertisement);
                // Before the roster is there, nobody has been told that we are here.
                if self.visible {
                    self.present_at = Some(self.pace.next(self.task.members.count()));
                }
                Ok(())
            }
            Some(Command::Signal { to, signal }) => {
                let sid = jingle::sid(&signal).clone();
                match Jid::new(&to) {
                    Ok(jid) => {
                        let payload = jingle::to_element(&signal);
                        self.ask(Some(jid), Question::Signal(sid), true, payload)
                            .await
                    }
                    Err(_) => {
                        let condition = "jid-malformed".to_owned();
                        self.task
                            .emit(Event::SignalFailed { to, sid, condition })
                            .await;
                        Ok(())
                    }
                }
            }
            Some(Command::AnswerStatus { to, id, status }) => {
                match (Jid::new(&to), stanza::status::to_element(&status)) {
                    (Ok(to), Ok(payload)) => {
                        self.reply(Some(to), id, IqPayload::Result(Some(payload)))
                            .await
                    }
                    (to, payload) => {
                        let error = (to.err(), payload.err());
                        tracing::debug!(?error, "status not sent");
                        Ok(())
                    }
                }
            }
            Some(Command::QueryStatus { jid, reply }) => match Jid::new(&jid) {
                Ok(to) => {
                    let payload = stanza::status::query();
                    self.ask(Some(to), Question::Status(reply), false, payload)
                        .await
                }
                Err(_) => {
                    // An error means that nobody waits for the answer any more.
                    let _ = reply.send(Err(QueryError::Jid(jid)));
                    Ok(())
                }
            },
            Some(Command::AnswerCertificate {
                to,
                id,
                certificate,
            }) => {
                let Ok(to) = Jid::new(&to) else { return Ok(()) };
                let payload = match certificate {
                    Some(pem) => IqPayload::Result(Some(stanza::certificate::answer(&pem))),
                    None => IqPayload::Error(inbound::forbidden()),
                };
                self.reply(Some(to), id, payload).await
            }
            Some(Command::QueryCertificate {
                issuer,
                request,
                reply,
            }) => match Jid::new(&issuer) {
                Ok(to) => {
                    let payload = stanza::certificate::to_element(&request);
                    self.ask(Some(to), Question::Certificate(reply), true, payload)
                        .await
                }
                Err(_) => {
                    let _ = reply.send(Err(QueryError::Jid(issuer)));
                    Ok(())
                }
            },
            Some(Command::TellRevocations { jid, list, reply }) => match Jid::new(&jid) {
                Ok(to) => {
                    let payload = stanza::revocation::to_element(&list);
                    self.ask(Some(to), Question::Revocations(reply), true, payload)
                        .await
                }
                Err(_) => {
                    let _ = reply.send(Err(QueryError::Jid(jid)));
                    Ok(())
                }
            },
            Some(Command::AnswerRevocations { to, id, answer }) => {
                let Ok(to) = Jid::new(&to) else { return Ok(()) };
                let payload = match answer {
                    RevocationsAnswer::InForce => IqPayload::Result(None),
                    RevocationsAnswer::Forbidden => IqPayload::Error(inbound::forbidden()),
                    RevocationsAnswer::Refused => IqPayload::Error(inbound::not_acceptable()),
                };
                self.reply(Some(to), id, payload).await
            }
            Some(Command::QueryServices { reply }) => {
                self.ask_services(Question::Services(reply)).await
            }
        }
    }

    async fn element(
        &mut self,
        element: Option<Result<FallibleStreamElement, ReadError>>,
    ) -> Result<(), End> {
        let lost = |text: String| Err(End::Lost(text));
        match element {
            None | Some(Err(ReadError::StreamFooterReceived)) => {
                lost("stream closed by the server".to_owned())
            }
            Some(Err(ReadError::HardError(error))) => lost(format!("stream broken: {error}")),
            Some(Err(ReadError::SoftTimeout)) => {
                self.ask(None, Question::Ping, false, Ping.into()).await
            }
            Some(Err(ReadError::ParseError(error))) => {
                tracing::debug!(%error, "unknown element ignored");
                Ok(())
            }
            Some(Ok(FallibleStreamElement::Err(error))) => self.unreadable(error).await,
            Some(Ok(FallibleStreamElement::Ok(XmppStreamElement::StreamError(error)))) => {
                let condition = Element::from(error.0.condition.clone());
                if condition.name() == "conflict" {
                    return Err(End::Conflict);
                }
                lost(format!("stream error: {error}"))
            }
            Some(Ok(FallibleStreamElement::Ok(XmppStreamElement::Stanza(stanza)))) => {
                match stanza {
                    Stanza::Iq(iq) => self.iq(iq).await,
                    Stanza::Presence(presence) => {
                        self.presence(presence).await;
                        Ok(())
                    }
                    Stanza::Message(_) => Ok(()),
                }
            }
            Some(Ok(FallibleStreamElement::Ok(_))) => Ok(()),
        }
    }

    async fn time(&mut self) -> Result<(), End> {
        let now = Instant::now();
        for (to, question) in self.pending.expired(now) {
            self.settle(to, question, Answer::Timeout).await?;
        }
        if self.present_at.is_some_and(|at| at <= now) {
            self.present_at = None;
            self.present().await?;
        }
        if self.settle_at.is_some_and(|at| at <= now) {
            self.settle_at = None;
            for jid in self.task.members.sweep() {
                self.task
                    .emit(Event::Unavailable {
                        from: jid.to_string(),
                    })
                    .await;
            }
        }
        if self.services_at.is_some_and(|at| at <= now) {
            self.services_at = None;
            self.ask_services(Question::OwnServices).await?;
        }
        Ok(())
    }

    /// Answers a request that could not be parsed, so that nobody waits.
    async fn unreadable(&mut self, error: StreamElementError) -> Result<(), End> {
        tracing::debug!(%error, "unreadable stanza");
        let StreamElementError::InvalidStanza { name, header, .. } = error else {
            return Ok(());
        };
        let request = matches!(header.type_.as_deref(), Some("get" | "set"));
        let from = header.from.as_deref().map(Jid::new).transpose();
        match (name.to_string().as_str(), from, header.id) {
            ("iq", Ok(from), Some(id)) if request => {
                // Strangers do not learn that somebody is here.
                let error = match self.sender(from.as_ref()) {
                    Sender::Stranger => inbound::service_unavailable(),
                    Sender::Server | Sender::Member | Sender::Own => inbound::bad_request(),
                };
                self.reply(from, id, IqPayload::Error(error)).await
            }
            _ => Ok(()),
        }
    }

    async fn iq(&mut self, iq: Iq) -> Result<(), End> {
        let sender = self.sender(iq.from());
        match iq {
            Iq::Get {
                from, id, payload, ..
            } => self.handle(from, id, inbound::get(sender, &payload)).await,
            Iq::Set {
                from, id, payload, ..
            } => self.handle(from, id, inbound::set(sender, payload)).await,
            Iq::Result {
                from, id, payload, ..
            } => self.answer(from, &id, Answer::Result(payload)).await,
            Iq::Error {
                from, id, error, ..
            } => self.answer(from, &id, Answer::Error(error)).await,
        }
    }

    async fn handle(&mut self, from: Option<Jid>, id: String, request: Request) -> Result<(), End> {
        match request {
            Request::Result(payload) => self.reply(from, id, IqPayload::Result(payload)).await,
            Request::Error(error) => self.reply(from, id, IqPayload::Error(error)).await,
            Request::Signal(signal) => {
                let Some(from) = from else { return Ok(()) };
                self.reply(Some(from.clone()), id, IqPayload::Result(None))
                    .await?;
                self.task
                    .emit(Event::Signal {
                        from: from.to_string(),
                        signal,
                    })
                    .await;
                Ok(())
            }
            Request::StatusQuery => {
                let Some(from) = from else { return Ok(()) };
                self.task
                    .emit(Event::StatusQuery {
                        from: from.to_string(),
                        id,
                    })
                    .await;
                Ok(())
            }
            Request::Certificate(request) => {
                let Some(from) = from else { return Ok(()) };
                self.task
                    .emit(Event::CertificateRequest {
                        from: from.to_string(),
                        id,
                        request,
                    })
                    .await;
                Ok(())
            }
            Request::Revocations(list) => {
                let Some(from) = from else { return Ok(()) };
                self.task
                    .emit(Event::Revocations {
                        from: from.to_string(),
                        id,
                        list,
                    })
                    .await;
                Ok(())
            }
            Request::RosterPush(roster) => {
                self.reply(from, id, IqPayload::Result(None)).await?;
                let (mut more, mut left) = (false, Vec::new());
                for item in &roster.items {
                    match self.task.members.update(item) {
                        Change::Joined => more = true,
                        Change::Left(account) => left.push(account),
                        Change::None => {}
                    }
                }
                self.expel(left).await;
                if more && self.visible {
                    self.present().await
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Reports accounts that are no longer members, and the nodes of theirs that were present.
    pub(super) async fn expel(&mut self, accounts: Vec<BareJid>) {
        for jid in self.task.members.expel() {
            let from = jid.to_string();
            self.task.emit(Event::Unavailable { from }).await;
        }
        for account in accounts {
            let jid = account.to_string();
            self.task.emit(Event::Expelled { jid }).await;
        }
    }

    async fn presence(&mut self, presence: Presence) {
        let sender = presence
            .from
            .as_ref()
            .map_or(Sender::Server, |from| self.sender(Some(from)));
        let seen = inbound::presence(sender, &presence);
        let Some(from) = presence.from else { return };
        match seen {
            Seen::Node(advertisement) => {
                self.task.members.appeared(from.clone());
                self.task
                    .emit(Event::Presence {
                        from: from.to_string(),
                        advertisement,
                    })
                    .await;
            }
            Seen::Gone | Seen::NoNode(_) => {
                if let Seen::NoNode(why) = seen {
                    tracing::debug!(%from, error = &why as &dyn std::error::Error, "no node");
                }
                if self.task.members.vanished(&from) {
                    self.task
                        .emit(Event::Unavailable {
                            from: from.to_string(),
                        })
                        .await;
                }
            }
            Seen::Nothing => {}
        }
    }

    async fn answer(&mut self, from: Option<Jid>, id: &str, answer: Answer) -> Result<(), End> {
        match self
            .pending
            .answered(id, from.as_ref(), &Jid::from(self.jid.clone()))
        {
            Some((to, question)) => self.settle(to, question, answer).await,
            None => {
                tracing::debug!(id, "answer to no question");
                Ok(())
            }
        }
    }

    pub(super) async fn reply(
        &mut self,
        to: Option<Jid>,
        id: String,
        payload: IqPayload,
    ) -> Result<(), End> {
        self.send(IqHeader { from: None, to, id }.assemble(payload).into())
            .await
    }

    pub(super) async fn send(&mut self, stanza: Stanza) -> Result<(), End> {
        match timeout(WRITE, self.stream.send(&XmppStreamElement::Stanza(stanza))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(End::Lost(format!("cannot send: {error}"))),
            Err(_) => Err(End::Lost("the server takes nothing more".to_owned())),
        }
    }

    /// Says that we go, and closes the stream from our side and then the server's.
    async fn good_bye(&mut self, done: Option<tokio::sync::oneshot::Sender<()>>) -> End {
        let closing = async {
            let gone = Presence::new(PresenceType::Unavailable);
            self.send(gone.into()).await.ok()?;
            self.stream.shutdown().await.ok()?;
            while let Some(Ok(_) | Err(ReadError::ParseError(_))) = self.stream.next().await {}
            Some(())
        };
        if timeout(CLOSE, closing).await.is_err() {
            tracing::debug!("the server did not close the stream in time");
        }
        tracing::info!(jid = %self.jid, "signed out");
        End::Left(done)
    }

    fn sender(&self, from: Option<&Jid>) -> Sender {
        match from {
            None => Sender::Server,
            Some(from) if *from == self.task.login.jid => Sender::Server,
            Some(from) if from.is_bare() && from.to_string() == self.task.login.domain() => {
                Sender::Server
            }
            Some(from) if self.task.members.is_own(from) => Sender::Own,
            Some(from) if self.task.members.contains(from) => Sender::Member,
            Some(_) => Sender::Stranger,
        }
    }
}
