//! Questions of this side, and what becomes of their answers.

use std::time::{Duration, SystemTime};

use ipop_proto::stanza;
use ipop_proto::stanza::services::Service;
use tokio::time::Instant;
use tokio_xmpp::jid::Jid;
use tokio_xmpp::minidom::Element;
use tokio_xmpp::parsers::iq::IqPayload;
use tokio_xmpp::parsers::presence::Presence;
use tokio_xmpp::parsers::roster::Roster;

use super::Event;
use super::online::Online;
use super::pending::{self, Answer, Question};
use super::task::End;

/// Services are asked for again no sooner and no later than this.
const SERVICES_AGAIN: (Duration, Duration) =
    (Duration::from_secs(60), Duration::from_secs(6 * 3600));
/// ... and after this when the server did not answer.
const SERVICES_RETRY: Duration = Duration::from_secs(300);

impl Online<'_> {
    /// Acts on how a question ended.
    pub(super) async fn settle(
        &mut self,
        to: Option<Jid>,
        question: Question,
        answer: Answer,
    ) -> Result<(), End> {
        let patience = self.pending.patience();
        let asked = to
            .as_ref()
            .map_or_else(|| self.task.login.domain().to_owned(), Jid::to_string);
        match question {
            Question::Roster => return self.roster(answer).await,
            Question::Ping => match answer {
                // Any answer shows that the server lives; the stream itself watches for silence.
                Answer::Result(_) | Answer::Error(_) | Answer::Offline => {}
                Answer::Timeout => return Err(End::Lost("the server does not answer".to_owned())),
            },
            Question::Signal(sid) => {
                if let Some(event) = pending::signal_event(to, sid, answer) {
                    self.task.emit(event).await;
                }
            }
            // An error means that nobody waits for the answer any more.
            Question::Status(reply) => {
                drop(reply.send(pending::status(&asked, answer, patience)));
            }
            Question::Services(reply) => {
                drop(reply.send(pending::services(&asked, answer, patience)));
            }
            Question::Certificate(reply) => {
                drop(reply.send(pending::certificate(&asked, answer, patience)));
            }
            Question::Revocations(reply) => {
                drop(reply.send(pending::revocations(&asked, answer, patience)));
            }
            Question::OwnServices => match pending::services(&asked, answer, patience) {
                Ok(services) => {
                    self.services_at = Some(Instant::now() + refresh(&services, SystemTime::now()));
                    self.task.emit(Event::Services(services)).await;
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "no STUN or TURN");
                    self.services_at = Some(Instant::now() + SERVICES_RETRY);
                }
            },
        }
        Ok(())
    }

    /// The roster is there: now we can be seen and hear others.
    async fn roster(&mut self, answer: Answer) -> Result<(), End> {
        let roster = match answer {
            Answer::Result(Some(payload)) => Roster::try_from(payload).ok(),
            _ => None,
        };
        let Some(roster) = roster else {
            return Err(End::Lost("the server gave no roster".to_owned()));
        };
        let left = self.task.members.replace(&roster.items);
        self.settle_at = Some(Instant::now() + self.task.timing.settle);
        self.visible = true;
        let presented = self.present().await;
        if presented.is_ok() {
            let jid = self.jid.to_string();
            self.task.emit(Event::Online { jid }).await;
        }
        // Whoever left is not in the next roster's difference: told even when the stream breaks.
        self.expel(left).await;
        presented?;
        self.ask_services(Question::OwnServices).await
    }

    pub(super) async fn present(&mut self) -> Result<(), End> {
        // Negative: this client takes no messages sent to the account (RFC 6121 section 4.7.2.3).
        let mut presence = Presence::available().with_priority(-1);
        if let Some(advertisement) = &self.task.advertisement {
            match stanza::advertisement::to_element(advertisement) {
                Ok(payload) => presence.payloads.push(payload),
                Err(error) => tracing::warn!(%error, "advertisement not sent"),
            }
        }
        self.pace.told(self.task.members.count(), Instant::now());
        self.send(presence.into()).await
    }

    pub(super) async fn ask_services(&mut self, question: Question) -> Result<(), End> {
        let domain = Jid::from(self.jid.domain().to_owned());
        self.ask(Some(domain), question, false, stanza::services::query())
            .await
    }

    pub(super) async fn ask(
        &mut self,
        to: Option<Jid>,
        question: Question,
        set: bool,
        payload: Element,
    ) -> Result<(), End> {
        let id = self.pending.ask(Instant::now(), to.clone(), question);
        let payload = if set {
            IqPayload::Set(payload)
        } else {
            IqPayload::Get(payload)
        };
        self.reply(to, id, payload).await
    }
}

/// When to ask again: at three quarters of the shortest credential's life.
fn refresh(services: &[Service], now: SystemTime) -> Duration {
    let (least, most) = SERVICES_AGAIN;
    services
        .iter()
        .filter_map(|service| service.expires)
        .map(|expires| expires.duration_since(now).unwrap_or_default() / 4 * 3)
        .min()
        .map_or(most, |life| life.clamp(least, most))
}
