//! Answers nodes that ask for their certificate, in the operator's name and as long as it runs, and tells
//! them who is a member no more ([`herald`](super::herald)).
//!
//! It is part of what always runs beside a rendezvous. A node is asked nothing and believed nothing:
//! what is signed is what is recorded of it, and [`Authority::grant`] says for which key.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ipop_node::xmpp::{self, Event, Password, RevocationsAnswer, Session};
use ipop_proto::audit::{self, Record};
use ipop_proto::stanza::certificate::CertificateRequest;
use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;

use super::herald::{Herald, LOOK};
use super::refusals::{Refusal, Refusals};
use super::{Authority, AuthorityError, GrantError, key_of};
use crate::audit::{Audit, By};
use crate::deploy::settings::Settings;
use crate::error::{CliError, ExitCode};
use crate::layout::Layout;
use crate::name::{NodeName, OPERATOR};
use crate::plan::ClusterPlan;
use crate::rendezvous::{Account, Endpoint, Rendezvous};
use crate::state::Database;
use crate::state::record::{Deployment, NodeRecord};

/// The resource under which it is online.
const RESOURCE: &str = "issuer";
/// Between tries to be online, and looks whether there is something to be online for.
const PAUSE: Duration = Duration::from_secs(2);

/// Whom nodes of `rendezvous` ask for their certificates, a full JID.
pub fn issuer(rendezvous: &Rendezvous) -> String {
    format!("{}/{RESOURCE}", rendezvous.jid(OPERATOR))
}

/// What became of a request.
enum Answer {
    /// Its certificate, PEM.
    Signed(String),
    /// It is to be told so.
    Refused,
    /// Nothing can be signed now, and why. The node asks again when it has waited for an answer.
    Later(AuthorityError),
}

/// The registrar of one deployment.
#[derive(Debug, Clone)]
pub struct Registrar {
    layout: Layout,
    deployment: String,
    refusals: Refusals,
    /// That the key is locked was said, and not since that it was unlocked.
    said_locked: Arc<AtomicBool>,
}

impl Registrar {
    /// That of `deployment`.
    pub fn new(layout: &Layout, deployment: &str) -> Self {
        Self {
            layout: layout.clone(),
            deployment: deployment.to_owned(),
            refusals: Refusals::default(),
            said_locked: Arc::default(),
        }
    }

    /// Answers until it is dropped. What keeps it from that is written to standard error once, and
    /// tried again.
    pub async fn serve(&self) -> Infallible {
        let mut said: Option<String> = None;
        loop {
            let served = self.serve_once().await;
            let trouble = served.err().map(|error| error.one_line());
            if let Some(text) = trouble.as_ref().filter(|text| said.as_ref() != Some(*text)) {
                eprintln!("certificates of {} are not signed: {text}", self.deployment);
            }
            said = trouble;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Answers until the session ends, or finds that there is no authority, or not yet an account.
    async fn serve_once(&self) -> Result<(), CliError> {
        let own = self.clone();
        let Some((rendezvous, endpoint, account)) = blocking(move || own.account()).await? else {
            return Ok(());
        };
        let login = xmpp::Account {
            jid: account.jid.clone(),
            resource: RESOURCE.to_owned(),
            password: Password::new(account.password.expose().clone()),
            servers: endpoint.servers,
            ca_pem: endpoint.ca_pem.into_bytes(),
        };
        let unusable = |e| CliError::new(ExitCode::Internal, "unusable account").caused_by(e);
        let (session, mut events) = xmpp::open(login).map_err(unusable)?;
        let mut herald = Herald::new(self.layout.authority(&self.deployment));
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    herald.hear(&event, |jid| rendezvous.node_of(jid));
                    self.handle(event, &session, &account.jid).await?;
                }
                answer = herald.answer() => {
                    if let Some((node, list)) = herald.answered(&answer) {
                        self.audit().write(Record {
                            node: Some(node.0),
                            list: Some(list),
                            ..Record::new(audit::Event::ListInForce, SystemTime::now())
                        });
                    }
                }
                _ = look.tick() => {
                    herald.look();
                    self.refusals.look(|| self.audit(), Instant::now());
                }
            }
            herald.tell(&session);
        }
    }

    async fn handle(&self, event: Event, session: &Session, own: &str) -> Result<(), CliError> {
        match event {
            Event::CertificateRequest { from, id, request } => {
                let (own, asking) = (self.clone(), from.clone());
                let answer = blocking(move || own.answer(&asking, &request)).await?;
                let is_later = matches!(answer, Answer::Later(_));
                let was_later = self.said_locked.swap(is_later, Ordering::Relaxed);
                match answer {
                    Answer::Signed(certificate) => {
                        session.answer_certificate(from, id, Some(certificate));
                    }
                    Answer::Refused => session.answer_certificate(from, id, None),
                    Answer::Later(why) if !was_later => {
                        eprintln!("certificates of {} are not signed: {why}", self.deployment);
                    }
                    Answer::Later(_) => {}
                }
            }
            Event::Revocations { from, id, .. } => {
                session.answer_revocations(from, id, RevocationsAnswer::Forbidden);
            }
            Event::Refused { condition } => {
                let message = format!("the rendezvous refuses `{own}`: {condition}");
                return Err(CliError::new(ExitCode::Unavailable, message));
            }
            _ => {}
        }
        Ok(())
    }

    /// Where to sign in, if there is an authority, and the account is made.
    fn account(&self) -> Result<Option<(Rendezvous, Endpoint, Account)>, CliError> {
        let Some((_, deployment)) = self.deployment()? else {
            return Ok(None);
        };
        let settings = Settings::of(&deployment)?;
        if !settings.authority {
            return Ok(None);
        }
        let rendezvous = self.rendezvous(&settings)?;
        match rendezvous.operator_if_made()? {
            Some(account) => {
                let endpoint = rendezvous.endpoint()?;
                Ok(Some((rendezvous, endpoint, account)))
            }
            None => Ok(None),
        }
    }

    /// What the account `from` (a full JID) gets for its request.
    fn answer(&self, from: &str, request: &CertificateRequest) -> Result<Answer, CliError> {
        let refused = |audit: &Audit, node: Option<&NodeName>, why: &str| {
            let refusal = Refusal {
                account: from.split('/').next().unwrap_or_default().to_owned(),
                node: node.map(|node| node.0.clone()),
                why: why.to_owned(),
            };
            self.refusals
                .note(audit, &refusal, key_of(request), Instant::now());
            Ok(Answer::Refused)
        };
        let Some((database, deployment)) = self.deployment()? else {
            return refused(&self.audit_of(&[]), None, "the deployment is gone");
        };
        let settings = Settings::of(&deployment)?;
        let nodes = database.nodes(deployment.id)?;
        let audit = self.audit_of(&nodes);
        let Some(name) = self.rendezvous(&settings)?.node_of(from) else {
            return refused(&audit, None, "it is no node's account");
        };
        let find = || {
            let plan = ClusterPlan::recorded(&deployment, &database.nodes(deployment.id)?)?;
            let found = plan.nodes.into_iter().find(|node| node.name == name);
            Ok::<_, CliError>(found)
        };
        let now = SystemTime::now();
        let dir = self.layout.authority(&self.deployment);
        let authority = match Authority::open(&dir, &self.deployment, audit.clone(), now) {
            Ok(authority) => authority,
            Err(error @ AuthorityError::Locked(_)) => return Ok(Answer::Later(error)),
            Err(error) => return Err(error.into()),
        };
        let mut node = find()?;
        loop {
            let Some(recorded) = node else {
                return refused(&audit, Some(&name), "it is no node that is wanted");
            };
            let certificate = match authority.grant(&recorded, request, now) {
                Ok(certificate) => certificate,
                Err(GrantError::Refused(why)) => return refused(&audit, Some(&name), &why),
                Err(GrantError::Failed(error)) => return Err(error.into()),
            };
            node = find()?;
            match &node {
                // Its groups were changed meanwhile, perhaps before there was this certificate to revoke.
                Some(now_recorded) if now_recorded.groups != recorded.groups => {
                    authority.regroup(now_recorded, now)?;
                }
                _ => return Ok(Answer::Signed(certificate)),
            }
        }
    }

    /// Where what it does is written down. Whose machines are whose is left out while the database
    /// cannot be read.
    fn audit(&self) -> Audit {
        let nodes = self.deployment().ok().flatten();
        let nodes = nodes.and_then(|(database, deployment)| database.nodes(deployment.id).ok());
        self.audit_of(&nodes.unwrap_or_default())
    }

    fn audit_of(&self, nodes: &[NodeRecord]) -> Audit {
        Audit::new(&self.layout, &self.deployment, By::Registrar, nodes)
    }

    fn deployment(&self) -> Result<Option<(Database, Deployment)>, CliError> {
        let database = Database::open(&self.layout.database())?;
        let deployment = database.deployment(&self.deployment)?;
        Ok(deployment.map(|deployment| (database, deployment)))
    }

    fn rendezvous(&self, settings: &Settings) -> Result<Rendezvous, CliError> {
        let Settings {
            tag, rendezvous, ..
        } = settings;
        Ok(Rendezvous::open(
            &self.layout,
            &self.deployment,
            tag,
            rendezvous,
        )?)
    }
}

/// Does what waits for files elsewhere.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(CliError::new(ExitCode::Internal, "a defect").caused_by(e)))
}
