//! The rendezvous of a deployment: the XMPP server where its nodes meet, with STUN and TURN.
//!
//! ```text
//! Rendezvous::open ── plan() ── (caller records the resources) ── start() ── create_account(…)
//!                                                     │
//!                    provision rendezvous run NAME ◀──┘ supervise()
//! ```
//!
//! The embedded server is an ejabberd from the distribution's package with a configuration, spool,
//! certificate and ports of its own, kept by a supervisor process that outlives the command that
//! started it. It has no Erlang distribution, so no epmd and no cluster port; its API is a Unix
//! socket that only its user and root can reach. An external server is somebody else's ejabberd.
//!
//! What this module refuses to do: run ejabberd as root, let a password travel in the clear, touch
//! the distribution's own ejabberd service.

pub mod api;
pub mod attendant;
pub mod ca;
pub mod config;
pub mod embedded;
pub mod enrolment;
mod error;
pub mod external;
pub mod files;
pub mod http;
mod mark;
pub mod password;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::layout::Layout;
use crate::name::{NodeName, OPERATOR};
use crate::provider::{Delivery, Resource, Tags};
use crate::secret::Secret;

use api::Api;
use config::RendezvousConfig;
use embedded::Embedded;
pub use embedded::{ProcessId, Stray, strays, supervise, supervisor_of};
use enrolment::Tokens;
pub use error::RendezvousError;
use external::External;

/// Resource kind of an XMPP account; the id is its bare JID.
pub const ACCOUNT: &str = "account";
/// Resource kind of a shared roster group; the id is the group's name.
pub const ROSTER_GROUP: &str = "roster-group";
/// Resource kind of the embedded server's processes; the id is the deployment's name.
pub const PROCESS: &str = "process";
/// Resource kind of the rendezvous's directory; the id is its path.
pub const DIR: &str = "dir";

/// How long a machine may take from its account to its first sign-in, where it enrols.
const ENROLMENT_LIFE: Duration = Duration::from_secs(2 * 3600);

/// An XMPP account with its password.
#[derive(Debug, Clone)]
pub struct Account {
    /// Bare JID.
    pub jid: String,
    /// Password.
    pub password: Secret<String>,
}

/// What a client must know to sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// XMPP domain, which the server's certificate names.
    pub domain: String,
    /// Where to connect, `host:port` or `[v6]:port`, tried in order.
    pub servers: Vec<String>,
    /// PEM certificate of the CA to pin.
    pub ca_pem: String,
}

/// Whether the rendezvous serves.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// It answers.
    Running {
        /// Process id of the embedded server's supervisor.
        pid: Option<u32>,
    },
    /// The embedded server's supervisor runs but the server does not answer (starting, or failing).
    Starting {
        /// Process id of the supervisor.
        pid: u32,
    },
    /// It does not answer: start it.
    Stopped,
    /// It was never prepared, or has been removed.
    Absent,
}

/// The rendezvous of one deployment.
pub struct Rendezvous {
    deployment: String,
    /// What others on the same server do not use: name of the roster group, and prefix of the
    /// accounts where deployments share a domain.
    group: String,
    dir: PathBuf,
    kind: Kind,
    /// Written on the group.
    tags: Option<Tags>,
}

enum Kind {
    Embedded(Embedded),
    External(External),
}

impl Rendezvous {
    /// The rendezvous of `deployment`. Nothing is made or started; an external server's CA and
    /// password are read. `tag` tells the deployment from others of its name, made elsewhere, on
    /// an external server.
    pub fn open(
        layout: &Layout,
        deployment: &str,
        tag: &str,
        config: &RendezvousConfig,
    ) -> Result<Self, RendezvousError> {
        let dir = layout.rendezvous(deployment);
        let (kind, group) = match config {
            RendezvousConfig::Embedded(config) => {
                let embedded = Embedded::new(layout, deployment, config.clone());
                (Kind::Embedded(embedded), deployment.to_owned())
            }
            RendezvousConfig::External(config) => {
                let external = External::open(config)?;
                (Kind::External(external), format!("{deployment}-{tag}"))
            }
        };
        Ok(Self {
            group,
            deployment: deployment.to_owned(),
            dir,
            kind,
            tags: None,
        })
    }

    /// The same, writing on what it makes whose it is.
    #[must_use]
    pub fn tagged(self, tags: Tags) -> Self {
        Self {
            tags: Some(tags),
            ..self
        }
    }

    /// Everything that serving `nodes` will make, in creation order, for the state database.
    pub fn plan(&self, nodes: &[NodeName]) -> Vec<Resource> {
        let resource = |kind: &str, id: String| Resource {
            kind: kind.to_owned(),
            id,
        };
        let mut plan = vec![resource(DIR, self.dir.display().to_string())];
        if let Kind::Embedded(_) = self.kind {
            plan.push(resource(PROCESS, self.deployment.clone()));
        }
        plan.push(resource(ROSTER_GROUP, self.group.clone()));
        plan.push(resource(ACCOUNT, self.jid(OPERATOR)));
        plan.extend(
            nodes
                .iter()
                .map(|node| resource(ACCOUNT, self.jid(&node.0))),
        );
        plan
    }

    /// Starts the server and waits until it answers. Running already is no error. `listen` are the
    /// addresses of this machine where the sites' machines reach it; a server that was prepared
    /// before keeps its ports, and its addresses when `listen` is empty.
    pub fn start(&self, listen: &[IpAddr]) -> Result<Endpoint, RendezvousError> {
        self.start_with(listen, None)
    }

    /// Like [`Self::start`], with another command to run the supervisor than this program's own
    /// `rendezvous run NAME`.
    pub fn start_with(
        &self,
        listen: &[IpAddr],
        supervisor: Option<Command>,
    ) -> Result<Endpoint, RendezvousError> {
        match &self.kind {
            Kind::Embedded(embedded) => embedded.start(listen, supervisor),
            Kind::External(external) => {
                files::private_dir(&self.dir)
                    .map_err(|source| RendezvousError::file(&self.dir, source))?;
                external.api().ping()?;
                external.endpoint()
            }
        }
    }

    /// Stops the embedded server; an external one is left alone. Stopped already is no error.
    pub fn stop(&self) -> Result<(), RendezvousError> {
        match &self.kind {
            Kind::Embedded(embedded) => embedded.stop(),
            Kind::External(_) => Ok(()),
        }
    }

    /// Whether it serves.
    pub fn state(&self) -> State {
        match &self.kind {
            Kind::Embedded(embedded) => embedded.state(),
            Kind::External(external) => match external.api().ping() {
                Ok(()) => State::Running { pid: None },
                Err(_) => State::Stopped,
            },
        }
    }

    /// Whether the server is this deployment's own.
    pub fn is_ours(&self) -> bool {
        matches!(self.kind, Kind::Embedded(_))
    }

    /// What a client must know to sign in. The embedded server must have been started once.
    pub fn endpoint(&self) -> Result<Endpoint, RendezvousError> {
        match &self.kind {
            Kind::Embedded(embedded) => embedded.endpoint(),
            Kind::External(external) => external.endpoint(),
        }
    }

    /// The API of the server.
    pub fn api(&self) -> Result<Api, RendezvousError> {
        match &self.kind {
            Kind::Embedded(embedded) => embedded.api(),
            Kind::External(external) => Ok(external.api().clone()),
        }
    }

    /// Bare JID of a node's (or the operator's) account. On an external server, whose domain
    /// deployments share, the local part also names the deployment.
    pub fn jid(&self, node: &str) -> String {
        format!("{}@{}", self.user(node), self.domain())
    }

    /// The node whose account `jid` (bare or full) is, when it is one of this deployment.
    pub fn node_of(&self, jid: &str) -> Option<NodeName> {
        let bare = jid.split('/').next()?;
        let (user, domain) = bare.split_once('@')?;
        let node = user.strip_prefix(&self.user(""))?;
        (domain == self.domain() && !node.is_empty()).then(|| NodeName(node.to_owned()))
    }

    /// Makes the deployment's roster group, whose members see each other, and the operator's
    /// account in it.
    pub fn create_group(&self) -> Result<(), RendezvousError> {
        self.api()?.create_group(&self.group, self.tags.as_ref())?;
        self.operator().map(drop)
    }

    /// Makes one of the things that [`Self::plan`] named, or finds that it is there: the server
    /// starts and listens on `listen`, an account has the password of `attempt`, or an enrolment
    /// token.
    pub fn make(
        &self,
        resource: &Resource,
        listen: &[IpAddr],
        attempt: u32,
        delivery: Delivery,
    ) -> Result<(), RendezvousError> {
        match resource.kind.as_str() {
            DIR => match &self.kind {
                Kind::Embedded(_) => files::private_dir(&self.dir)
                    .map_err(|source| RendezvousError::file(&self.dir, source)),
                Kind::External(_) => self.start(listen).map(drop),
            },
            PROCESS => self.start(listen).map(drop),
            ROSTER_GROUP => Ok(self.api()?.create_group(&resource.id, self.tags.as_ref())?),
            ACCOUNT => match self.node_of(&resource.id) {
                Some(NodeName(name)) if name == OPERATOR => self.operator().map(drop),
                Some(node) => match delivery {
                    Delivery::Private => match self.kept(&node, attempt)? {
                        Some(password) => self.register(&node.0, password).map(drop),
                        None => self.account(&node, attempt).map(drop),
                    },
                    Delivery::Enrolment => {
                        let expires = SystemTime::now() + ENROLMENT_LIFE;
                        let account = self.create_enrolment(&node, expires)?;
                        // Also after it is used: whoever makes a machine again with the same data
                        // gets the machine that is there.
                        self.keep(&node, attempt, &account.password)
                    }
                },
                None => Err(RendezvousError::UnknownResource(resource.id.clone())),
            },
            other => Err(RendezvousError::UnknownResource(other.to_owned())),
        }
    }

    /// A node's account with the password of `attempt`. The first time it is asked for a password
    /// is made up and kept, and the account made.
    pub fn account(&self, node: &NodeName, attempt: u32) -> Result<Account, RendezvousError> {
        if let Some(password) = self.kept(node, attempt)? {
            return Ok(Account {
                jid: self.jid(&node.0),
                password,
            });
        }
        let password = password::generate().map_err(RendezvousError::Entropy)?;
        // First, so that a killed command's next try has the same.
        self.keep(node, attempt, &password)?;
        self.register(&node.0, password)
    }

    fn kept(
        &self,
        node: &NodeName,
        attempt: u32,
    ) -> Result<Option<Secret<String>>, RendezvousError> {
        let path = self.accounts().join(format!("{node}.{attempt}"));
        match std::fs::read_to_string(&path) {
            Ok(password) => Ok(Some(Secret::new(password))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RendezvousError::file(&path, source)),
        }
    }

    fn keep(
        &self,
        node: &NodeName,
        attempt: u32,
        password: &Secret<String>,
    ) -> Result<(), RendezvousError> {
        let dir = self.accounts();
        let path = dir.join(format!("{node}.{attempt}"));
        files::private_dir(&dir)
            .and_then(|()| files::write(&path, password.expose().as_bytes(), 0o600))
            .map_err(|source| RendezvousError::file(&path, source))
    }

    /// Where the passwords of nodes' accounts are kept.
    fn accounts(&self) -> PathBuf {
        self.dir.join("accounts")
    }

    /// Forgets the passwords of a node whose account is removed.
    fn forget(&self, node: &NodeName) -> Result<(), RendezvousError> {
        let dir = self.accounts();
        let file = |source| RendezvousError::file(&dir, source);
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(file)?,
        };
        for entry in entries {
            let path = entry.map_err(file)?.path();
            if path.file_stem().is_some_and(|stem| stem == node.0.as_str()) {
                std::fs::remove_file(&path)
                    .map_err(|source| RendezvousError::file(&path, source))?;
            }
        }
        Ok(())
    }

    /// Makes an account for a node, with a new password, and puts it into the group. An account
    /// that exists gets the new password.
    pub fn create_account(&self, node: &NodeName) -> Result<Account, RendezvousError> {
        self.register(
            &node.0,
            password::generate().map_err(RendezvousError::Entropy)?,
        )
    }

    /// Makes an account for a node that enrols: its password is a token, which dies when the node
    /// exchanges it, at `expires`, or with the account, whichever is first.
    ///
    /// Asked again while the token may be alive it gives the same one, so that a launch that was
    /// interrupted can be repeated without locking out a machine that has the token already.
    pub fn create_enrolment(
        &self,
        node: &NodeName,
        expires: SystemTime,
    ) -> Result<Account, RendezvousError> {
        let (api, user, tokens) = (self.api()?, self.user(&node.0), self.tokens());
        if let Some(token) = tokens.of(&user)?
            && api.check_password(&user, &token)?
        {
            tokens.add(&user, &token, expires)?;
            api.add_member(&self.group, &user)?;
            return Ok(Account {
                jid: self.jid(&node.0),
                password: token,
            });
        }
        let token = password::generate().map_err(RendezvousError::Entropy)?;
        // Noted first: one that is killed in between leaves a token that is nobody's password.
        tokens.add(&user, &token, expires)?;
        self.register(&node.0, token)
    }

    /// Whether the node has exchanged its enrolment token for a password of its own, or never had
    /// one: then a new account would lock it out.
    pub fn is_enrolled(&self, node: &NodeName) -> Result<bool, RendezvousError> {
        let (api, user) = (self.api()?, self.user(&node.0));
        if !api.accounts()?.contains(&user) {
            return Ok(false);
        }
        match self.tokens().of(&user)? {
            Some(token) => Ok(!api.check_password(&user, &token)?),
            None => Ok(true),
        }
    }

    /// When a node's enrolment token dies, while it is alive.
    pub fn invited_until(&self, node: &NodeName) -> Result<Option<SystemTime>, RendezvousError> {
        let user = self.user(&node.0);
        let Some((token, expires)) = self.tokens().noted(&user)? else {
            return Ok(None);
        };
        Ok(self
            .api()?
            .check_password(&user, &token)?
            .then_some(expires))
    }

    /// Kills enrolment tokens that were not used in time; returns the nodes they were for. The
    /// embedded server's supervisor does so by itself; for an external server it is to be called
    /// now and then.
    pub fn expire_tokens(&self, now: SystemTime) -> Result<Vec<NodeName>, RendezvousError> {
        let users = self.tokens().expire(&self.api()?, now)?;
        let node = |user: String| self.node_of(&format!("{user}@{}", self.domain()));
        Ok(users.into_iter().filter_map(node).collect())
    }

    /// The operator's account, that `provision` itself signs in with: made on first use, its
    /// password kept in the rendezvous's directory.
    pub fn operator(&self) -> Result<Account, RendezvousError> {
        let path = self.dir.join("operator.password");
        match std::fs::read_to_string(&path) {
            Ok(password) => Ok(Account {
                jid: self.jid(OPERATOR),
                password: Secret::new(password),
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let password = password::generate().map_err(RendezvousError::Entropy)?;
                let account = self.register(OPERATOR, password)?;
                files::write(&path, account.password.expose().as_bytes(), 0o600)
                    .map_err(|source| RendezvousError::file(&path, source))?;
                Ok(account)
            }
            Err(source) => Err(RendezvousError::file(&path, source)),
        }
    }

    /// The same, if it was made.
    pub fn operator_if_made(&self) -> Result<Option<Account>, RendezvousError> {
        match self.dir.join("operator.password").exists() {
            true => self.operator().map(Some),
            false => Ok(None),
        }
    }

    /// Removes what [`Self::plan`] named; what is already gone is no error. Accounts and groups of
    /// an embedded server that does not run vanish with its directory.
    pub fn remove(&self, resource: &Resource) -> Result<(), RendezvousError> {
        match resource.kind.as_str() {
            PROCESS => self.stop(),
            DIR => {
                self.stop()?;
                match std::fs::remove_dir_all(&self.dir) {
                    Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                        Err(RendezvousError::file(&self.dir, source))
                    }
                    _ => Ok(()),
                }
            }
            ROSTER_GROUP | ACCOUNT if self.vanishes() => Ok(()),
            ROSTER_GROUP => {
                let api = self.api()?;
                api.delete_group(&resource.id)?;
                if let Kind::External(_) = self.kind {
                    // An account may come after its removal: the server goes on with what a
                    // command that was killed had asked for.
                    for user in api.accounts_of(&resource.id)? {
                        api.unregister(&user)?;
                    }
                }
                Ok(())
            }
            ACCOUNT => {
                if let Some(node) = self.node_of(&resource.id) {
                    self.forget(&node)?;
                }
                let user = resource.id.split('@').next().unwrap_or_default();
                // Membership of a shared roster group outlives the account.
                self.api()?.remove_member(&self.group, user)?;
                Ok(self.api()?.unregister(user)?)
            }
            other => Err(RendezvousError::UnknownResource(other.to_owned())),
        }
    }

    /// Ends the sessions of an account (a bare JID) and refuses new ones. Its password is lost.
    pub fn ban(&self, jid: &str) -> Result<(), RendezvousError> {
        Ok(self.api()?.ban(jid.split('@').next().unwrap_or_default())?)
    }

    fn tokens(&self) -> Tokens {
        Tokens::new(&self.dir)
    }

    fn vanishes(&self) -> bool {
        self.is_ours() && !matches!(self.state(), State::Running { .. })
    }

    fn register(&self, node: &str, password: Secret<String>) -> Result<Account, RendezvousError> {
        let (api, user) = (self.api()?, self.user(node));
        api.register(&user, &password)?;
        api.add_member(&self.group, &user)?;
        Ok(Account {
            jid: self.jid(node),
            password,
        })
    }

    fn domain(&self) -> &str {
        match &self.kind {
            Kind::Embedded(embedded) => embedded.domain(),
            Kind::External(external) => external.domain(),
        }
    }

    fn user(&self, node: &str) -> String {
        match &self.kind {
            Kind::Embedded(_) => node.to_owned(),
            Kind::External(_) => format!("{}.{node}", self.group),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployments_of_one_name_share_no_account_and_no_group_on_an_external_server() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let layout = Layout {
            state: dir.path().join("state"),
            cache: dir.path().join("cache"),
        };
        let ca = ca::Ca::open(dir.path(), "x.test", SystemTime::now()).expect("made");
        drop(ca);
        let config = RendezvousConfig::External(config::ExternalConfig {
            api: "unix:/nonexistent/api".to_owned(),
            domain: "x.test".to_owned(),
            servers: vec!["x.test:5222".to_owned()],
            ca_file: dir.path().join("ca.pem"),
            admin: None,
            password_env: None,
            password_file: None,
        });
        let open = |tag| Rendezvous::open(&layout, "demo", tag, &config).expect("opens");
        let (one, other) = (open("0000002a"), open("0000002b"));
        let node = NodeName("worker-0".to_owned());
        let jid = one.jid(&node.0);
        assert_eq!(jid, "demo-0000002a.worker-0@x.test");
        assert_eq!(one.node_of(&jid), Some(node.clone()));
        assert_eq!(other.node_of(&jid), None);
        let others = other.plan(std::slice::from_ref(&node));
        let shared = one
            .plan(std::slice::from_ref(&node))
            .into_iter()
            .filter(|r| others.contains(r));
        let kinds: Vec<_> = shared.map(|r| r.kind).collect();
        assert_eq!(kinds, [DIR]);
    }
}
