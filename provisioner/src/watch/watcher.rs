//! The XMPP session of the operator, seen by blocking code.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use ipop_node::xmpp::{self, AccountError, Event, Password, QueryError, Session};
use ipop_proto::address::OverlayAddrs;
use ipop_proto::candidate::CandidateKind;
use ipop_proto::status::NodeStatus;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::progress::{NodeChange, Progress};
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;
use crate::rendezvous::{Account, Endpoint, Rendezvous, password};

/// Longest wait for the operator's own sign-in.
const SIGN_IN_LIMIT: Duration = Duration::from_secs(60);
/// How often a node is asked for its status before it counts as silent; each try has the
/// session's own time limit.
const STATUS_TRIES: usize = 3;

/// What the watcher tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// Something happened to a node.
    Node(NodeChange),
    /// The stream to the rendezvous is lost; the watcher goes on trying.
    RendezvousLost {
        /// Why.
        error: String,
    },
    /// The stream to the rendezvous is back.
    RendezvousBack,
}

/// What a node answered about itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Facts {
    /// Overlay addresses.
    pub addrs: OverlayAddrs,
    /// Kind of its link to the front end; none for the front end itself and without a link.
    pub link: Option<CandidateKind>,
    /// Round-trip time of that link's last check, in microseconds.
    pub rtt_us: Option<u64>,
}

/// Watching failed.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The operator's account cannot be used.
    #[error("cannot sign in to the rendezvous")]
    Account(#[from] AccountError),
    /// The server refuses it.
    #[error("the rendezvous refuses the account `{jid}`: {condition}")]
    Refused {
        /// Bare JID.
        jid: String,
        /// The server's condition (RFC 6120 section 6.5).
        condition: String,
    },
    /// No sign-in in time.
    #[error("no sign-in to the rendezvous at {servers} within {waited:?}: {last}")]
    NoSignIn {
        /// Where.
        servers: String,
        /// How long was waited.
        waited: Duration,
        /// Why the last attempt failed.
        last: String,
    },
    /// The session ended without being told to.
    #[error("the session with the rendezvous ended")]
    Ended,
    /// The node is not signed in.
    #[error("`{0}` is not signed in")]
    Absent(NodeName),
    /// The node did not say.
    #[error("cannot get the status of `{node}`")]
    Status {
        /// The node.
        node: NodeName,
        /// Why not.
        #[source]
        source: QueryError,
    },
    /// No runtime or no randomness.
    #[error("cannot start watching")]
    System(#[source] std::io::Error),
}

/// A client of the rendezvous that follows the expected nodes. Its methods block.
pub struct Watcher {
    jid: String,
    nodes: BTreeMap<String, NodeName>,
    progress: Progress,
    pending: VecDeque<WatchEvent>,
    online: bool,
    session: Session,
    events: mpsc::Receiver<Event>,
    // Last, so that it is dropped last: the session's task runs on it.
    runtime: Runtime,
}

impl Watcher {
    /// Signs in as the deployment's operator and waits until that is done.
    pub fn open(
        rendezvous: &Rendezvous,
        frontend: &NodeName,
        nodes: &[NodeName],
    ) -> Result<Self, CliError> {
        let (endpoint, account) = (rendezvous.endpoint()?, rendezvous.operator()?);
        let nodes: BTreeMap<String, NodeName> = nodes
            .iter()
            .map(|node| (rendezvous.jid(&node.0), node.clone()))
            .collect();
        Ok(Self::connect(&endpoint, &account, frontend, nodes)?)
    }

    /// Signs in with `account` and waits until that is done. `nodes` are the expected nodes by
    /// bare JID.
    pub fn connect(
        endpoint: &Endpoint,
        account: &Account,
        frontend: &NodeName,
        nodes: BTreeMap<String, NodeName>,
    ) -> Result<Self, WatchError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("watch")
            .enable_all()
            .build()
            .map_err(WatchError::System)?;
        // Two commands may watch one deployment at once.
        let random = password::generate().map_err(WatchError::System)?;
        let login = xmpp::Account {
            jid: account.jid.clone(),
            resource: format!("watch-{}", &random.expose()[..8]),
            password: Password::new(account.password.expose().clone()),
            servers: endpoint.servers.clone(),
            ca_pem: endpoint.ca_pem.clone().into_bytes(),
        };
        let (session, events) = {
            let _guard = runtime.enter();
            xmpp::open(login)?
        };
        let progress = Progress::new(frontend.clone(), nodes.values().cloned());
        let mut watcher = Self {
            jid: account.jid.clone(),
            nodes,
            progress,
            pending: VecDeque::new(),
            online: false,
            session,
            events,
            runtime,
        };
        watcher.sign_in(endpoint)?;
        Ok(watcher)
    }

    /// The next thing that happens, or none by `deadline`.
    pub fn next(&mut self, deadline: Instant) -> Result<Option<WatchEvent>, WatchError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            match self.receive(deadline)? {
                Some(event) => self.take(event)?,
                None => return Ok(None),
            }
        }
    }

    /// How far the nodes are.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Asks a signed-in node for its addresses and its link to the front end.
    pub fn facts(&self, node: &NodeName) -> Result<Facts, WatchError> {
        let status = self.status(node)?;
        let frontend = self.progress.frontend();
        let peer = status
            .peers
            .iter()
            .find(|peer| peer.name == frontend.0 && node != frontend);
        Ok(Facts {
            addrs: status.addrs,
            link: peer.and_then(|peer| peer.link_kind()),
            rtt_us: peer.and_then(|peer| peer.rtt_us),
        })
    }

    /// Asks a signed-in node for everything it says of itself.
    pub fn status(&self, node: &NodeName) -> Result<NodeStatus, WatchError> {
        let jid = self
            .progress
            .jid(node)
            .ok_or_else(|| WatchError::Absent(node.clone()))?;
        let mut tries = 1;
        loop {
            match self.runtime.block_on(self.session.query_status(jid)) {
                Ok(status) => return Ok(status),
                Err(QueryError::Timeout(..) | QueryError::Offline) if tries < STATUS_TRIES => {
                    tries += 1;
                }
                Err(source) => {
                    return Err(WatchError::Status {
                        node: node.clone(),
                        source,
                    });
                }
            }
        }
    }

    /// Signs out.
    pub fn leave(self) {
        self.runtime.block_on(self.session.leave());
    }

    fn sign_in(&mut self, endpoint: &Endpoint) -> Result<(), WatchError> {
        let deadline = Instant::now() + SIGN_IN_LIMIT;
        let mut last = "no answer".to_owned();
        while !self.online {
            match self.receive(deadline)? {
                Some(Event::Offline { error }) => last = error,
                Some(event) => self.take(event)?,
                None => {
                    let servers = endpoint.servers.join(", ");
                    return Err(WatchError::NoSignIn {
                        servers,
                        waited: SIGN_IN_LIMIT,
                        last,
                    });
                }
            }
        }
        self.pending
            .retain(|event| !matches!(event, WatchEvent::RendezvousBack));
        Ok(())
    }

    fn receive(&mut self, deadline: Instant) -> Result<Option<Event>, WatchError> {
        let events = &mut self.events;
        let received = self
            .runtime
            .block_on(async { tokio::time::timeout_at(deadline.into(), events.recv()).await });
        match received {
            Ok(Some(event)) => Ok(Some(event)),
            Ok(None) => Err(WatchError::Ended),
            Err(_) => Ok(None),
        }
    }

    fn take(&mut self, event: Event) -> Result<(), WatchError> {
        match event {
            Event::Online { .. } => {
                self.online = true;
                self.pending.push_back(WatchEvent::RendezvousBack);
            }
            // Every failed attempt is one; the first is news.
            Event::Offline { error } if std::mem::take(&mut self.online) => {
                self.pending.push_back(WatchEvent::RendezvousLost { error });
            }
            Event::Refused { condition } => {
                return Err(WatchError::Refused {
                    jid: self.jid.clone(),
                    condition,
                });
            }
            Event::Presence {
                from,
                advertisement,
            } => {
                let bare = from.split('/').next().unwrap_or_default();
                let Some(node) = self.nodes.get(bare) else {
                    return Ok(());
                };
                let changes = self.progress.presence(node, &from, advertisement);
                self.pending
                    .extend(changes.into_iter().map(WatchEvent::Node));
            }
            Event::Unavailable { from } => {
                let changes = self.progress.unavailable(&from);
                self.pending
                    .extend(changes.into_iter().map(WatchEvent::Node));
            }
            // The operator is no node: it sets up no links and answers no questions.
            _ => {}
        }
        Ok(())
    }
}

impl From<WatchError> for CliError {
    fn from(error: WatchError) -> Self {
        let code = match &error {
            WatchError::System(_) => ExitCode::Internal,
            _ => ExitCode::Unavailable,
        };
        let mut cli = Self::new(code, error.to_string());
        cli.source = match error {
            WatchError::Account(source) => Some(source.into()),
            WatchError::Status { source, .. } => Some(source.into()),
            WatchError::System(source) => Some(source.into()),
            _ => return cli.hint("see whether the rendezvous runs: provision status"),
        };
        cli
    }
}
