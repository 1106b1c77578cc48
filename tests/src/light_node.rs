//! Nodes without a machine: each is a session with the real XMPP server, signs in with what the
//! bundle of a real node holds, enrols if it has to, says that it has a link to the front end and
//! that its role is ready, and answers questions for its status. Hundreds fit into one process.
//!
//! They stand in for guests where a test is about those who launch and count nodes. Nothing is
//! behind what they say: no overlay, no service. Of the overlay itself they prove nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipop_node::xmpp::{self, Account, Enrolment, Event, Password, Preparation, Session};
use ipop_proto::candidate::CandidateKind;
use ipop_proto::config::NodeConfig;
use ipop_proto::status::{
    Advertisement, LinkState, NodeStatus, PairEnd, PeerStatus, RoleState, SignIn,
};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::ec2::{Guest, Guests};

/// Changes of what the front end is linked to are told together.
const GATHERED: Duration = Duration::from_millis(200);

/// Credentials of a node by name, as in its bundle.
pub type Credentials = BTreeMap<String, Vec<u8>>;

/// Light nodes by the machine that they stand in for. Dropping it stops them all.
#[derive(Debug, Default)]
pub struct LightNodes {
    running: Mutex<BTreeMap<String, JoinHandle<()>>>,
}

impl LightNodes {
    /// Starts a node, in the place of one of the same machine. Needs a tokio runtime around it.
    pub fn start(&self, machine: &str, credentials: &Credentials) -> Result<(), String> {
        let node = LightNode::new(credentials)?;
        let task = tokio::spawn(node.run());
        let before = self.lock().insert(machine.to_owned(), task);
        if let Some(before) = before {
            before.abort();
        }
        Ok(())
    }

    /// Stops a node at once, as the end of a machine does.
    pub fn stop(&self, machine: &str) {
        if let Some(task) = self.lock().remove(machine) {
            task.abort();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, JoinHandle<()>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LightNodes {
    fn drop(&mut self) {
        self.lock().values().for_each(JoinHandle::abort);
    }
}

impl Guests for LightNodes {
    fn started(&self, guest: Guest) {
        let started = from_user_data(&guest.user_data)
            .and_then(|credentials| self.start(&guest.instance, &credentials));
        if let Err(error) = started {
            // A real guest would sit there just as mute; its console would say this.
            eprintln!("{}: nothing runs in it: {error}", guest.instance);
        }
    }

    fn stopped(&self, instance: &str) {
        self.stop(instance);
    }
}

/// Reads `{"version":1,"credentials":{"name":"base64",…}}`.
pub fn from_user_data(data: &[u8]) -> Result<Credentials, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct UserData {
        version: u32,
        credentials: BTreeMap<String, String>,
    }
    let data: UserData =
        serde_json::from_slice(data).map_err(|error| format!("unreadable user data: {error}"))?;
    if data.version != 1 {
        return Err(format!("user data of version {}", data.version));
    }
    data.credentials
        .into_iter()
        .map(|(name, text)| match STANDARD.decode(text) {
            Ok(content) => Ok((name, content)),
            Err(error) => Err(format!("credential {name}: {error}")),
        })
        .collect()
}

/// One node.
struct LightNode {
    config: NodeConfig,
    account: Account,
    enrolment: Option<Enrolment>,
    /// Where it keeps the password it made.
    _dir: TempDir,
    is_frontend: bool,
    ssh_host_key: String,
    began: Instant,
    /// The members it says it is linked to.
    linked: BTreeMap<String, Member>,
    jid: String,
}

/// Another node, as it presented itself.
struct Member {
    jid: String,
    advertisement: Advertisement,
}

impl LightNode {
    fn new(credentials: &Credentials) -> Result<Self, String> {
        let text = |name: &str| {
            let content = credentials.get(name);
            content
                .map(|content| String::from_utf8_lossy(content).trim().to_owned())
                .ok_or_else(|| format!("no credential {name}"))
        };
        let config = NodeConfig::parse(&text("ipop.config")?).map_err(|e| e.to_string())?;
        let xmpp = config.xmpp.clone().ok_or("no section `xmpp`")?;
        let dir = TempDir::with_prefix("ipop-light-").map_err(|e| e.to_string())?;
        let (password, enrolment) = match xmpp.enrol_token_file {
            None => (text("ipop.password")?, None),
            Some(_) => {
                let enrolment = Enrolment {
                    token: Password::new(text("ipop.enrol-token")?),
                    // The configured place is that of a machine of its own.
                    password_file: dir.path().join("password"),
                };
                (String::new(), Some(enrolment))
            }
        };
        Ok(Self {
            account: Account {
                jid: xmpp.jid.clone(),
                resource: format!("ipop-{:08x}", rand::random::<u32>()),
                password: Password::new(password),
                servers: xmpp.servers.clone(),
                ca_pem: text("ipop.ca")?.into_bytes(),
            },
            is_frontend: text("ipop.env")?.lines().any(|l| l == "IPOP_ROLE=frontend"),
            ssh_host_key: ssh_host_key(),
            began: Instant::now(),
            linked: BTreeMap::new(),
            jid: xmpp.jid.clone(),
            config,
            enrolment,
            _dir: dir,
        })
    }

    async fn run(mut self) {
        // It makes no links, so that it needs no certificate.
        let preparation = Preparation {
            enrolment: self.enrolment.take(),
            requester: None,
        };
        let opened = xmpp::open_prepared(self.account.clone(), preparation, Default::default());
        let (session, mut events) = match opened {
            Ok(opened) => opened,
            Err(error) => return eprintln!("{}: {error}", self.jid),
        };
        // A worker says nothing before it has what it waits for; the front end is waited for.
        if self.is_frontend {
            session.advertise(self.advertisement());
        }
        let mut tell_at = None;
        loop {
            let deadline = tell_at.unwrap_or_else(|| tokio::time::Instant::now() + GATHERED);
            tokio::select! {
                event = events.recv() => {
                    let Some(event) = event else { return };
                    if self.take(event, &session) {
                        tell_at.get_or_insert_with(|| tokio::time::Instant::now() + GATHERED);
                    }
                }
                () = tokio::time::sleep_until(deadline), if tell_at.is_some() => {
                    tell_at = None;
                    session.advertise(self.advertisement());
                }
            }
        }
    }

    /// Takes in what happened; true when it changes what is to be told of oneself.
    fn take(&mut self, event: Event, session: &Session) -> bool {
        match event {
            Event::Online { jid } => {
                self.jid = jid;
                false
            }
            Event::Presence {
                from,
                advertisement,
            } => {
                let name = advertisement.name.clone();
                let is_frontend = advertisement.name.starts_with("frontend");
                if !(self.is_frontend || is_frontend) {
                    return false;
                }
                let member = Member {
                    jid: from,
                    advertisement,
                };
                self.linked.insert(name, member).is_none()
            }
            Event::Unavailable { from } => {
                let before = self.linked.len();
                self.linked.retain(|_, member| member.jid != from);
                self.linked.len() != before
            }
            Event::StatusQuery { from, id } => {
                session.answer_status(from, id, self.status());
                false
            }
            _ => false,
        }
    }

    fn advertisement(&self) -> Advertisement {
        let linked: BTreeSet<&String> = self.linked.keys().collect();
        Advertisement {
            name: self.config.node.name.clone(),
            addrs: self.config.addrs(),
            role: self.role(),
            linked: linked.into_iter().cloned().collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            fingerprint: None,
        }
    }

    /// A worker's role needs the front end's services.
    fn role(&self) -> RoleState {
        match self.is_frontend || !self.linked.is_empty() {
            true => RoleState::Ready,
            false => RoleState::Pending,
        }
    }

    fn status(&self) -> NodeStatus {
        NodeStatus {
            name: self.config.node.name.clone(),
            overlay: self.config.overlay.name.clone(),
            jid: self.jid.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            addrs: self.config.addrs(),
            interface: self.config.overlay.interface.clone(),
            mtu: self.config.overlay.mtu,
            datapath: Default::default(),
            switch: None,
            uptime_ms: self.began.elapsed().as_millis() as u64,
            sign_in: SignIn::Online,
            role: self.role(),
            ssh_host_key: Some(self.ssh_host_key.clone()),
            candidates: Vec::new(),
            peers: self.linked.values().map(Member::status).collect(),
            drops: BTreeMap::new(),
            certificate: None,
            names: None,
            refused: Vec::new(),
            pinning: None,
            policy: None,
        }
    }
}

impl Member {
    fn status(&self) -> PeerStatus {
        let end = || {
            Some(PairEnd {
                kind: CandidateKind::Host,
                addr: ([127, 0, 0, 1], 9).into(),
            })
        };
        PeerStatus {
            name: self.advertisement.name.clone(),
            jid: self.jid.clone(),
            addrs: self.advertisement.addrs,
            link: LinkState::Up,
            local: end(),
            remote: end(),
            rtt_us: Some(1),
            setup_ms: Some(1),
            tx_bytes: 0,
            tx_packets: 0,
            rx_bytes: 0,
            rx_packets: 0,
            drops: BTreeMap::new(),
            groups: Default::default(),
            role: None,
        }
    }
}

/// An ed25519 public key in form; nobody has the private half.
fn ssh_host_key() -> String {
    let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
    blob.extend(rand::random::<[u8; 32]>());
    format!("ssh-ed25519 {}", STANDARD.encode(blob))
}
