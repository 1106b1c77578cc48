//! Ties the parts together: makes a deployment what it is wanted to be, waits until its nodes have
//! joined, and removes it.
//!
//! ```text
//! nodes that are wanted ─▶ wanted ─┐
//! state database ─────────────────▶├─▶ planner ─▶ executor ─▶ hands ─▶ providers, rendezvous
//! what the sites find ────────────┘    (pure)                   │
//!                                                                └─▶ state database, journal
//! ```
//!
//! One [`Engine`](engine::Engine) creates, resumes, scales and destroys: each is the way from what
//! is recorded and observed to what is wanted. Every action is recorded before it is tried.

pub mod apply;
pub mod data;
pub mod destroy;
mod early;
pub mod engine;
pub mod executor;
pub mod fault;
mod follow;
mod hands;
pub mod interrupt;
pub mod join;
pub mod kept;
mod meeting;
pub mod outcome;
pub mod pace;
pub mod planner;
pub mod preview;
pub mod real;
mod revoke;
pub mod settings;
mod starts;
#[cfg(test)]
mod tests;
mod wanted;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipop_proto::status::NodeStatus;

use crate::error::CliError;
use crate::event::{Sink, Stage};
use crate::name::NodeName;
use crate::provider::{Delivery, Image, ImageForm, Provider, Resource};
use crate::rendezvous::{Account, Endpoint, State};
use crate::secret::Secret;
use crate::site::Site;

/// What a deployment is made of. The real parts are [`real::Real`]; tests have fakes.
pub trait Parts: Sync {
    /// Builds the image of a role in a form, or finds it built.
    fn image(&self, role: &str, form: ImageForm, events: &dyn Sink) -> Result<Image, CliError>;

    /// The templates of the credentials that a role has of its own, by credential.
    fn templates(&self, role: &str) -> Result<BTreeMap<String, String>, CliError>;

    /// The provider of a site.
    fn provider(&self, site: &Site) -> Result<Arc<dyn Provider>, CliError>;

    /// The rendezvous of the deployment.
    fn meeting(&self) -> Result<Box<dyn Meeting>, CliError>;

    /// Makes an SSH key pair as `path` and `path.pub`, unless there is one.
    fn ssh_key(&self, path: &Path, comment: &str) -> Result<SshKey, CliError>;
}

/// An SSH key pair.
#[derive(Debug, Clone)]
pub struct SshKey {
    /// OpenSSH private key file.
    pub private: Secret<Vec<u8>>,
    /// `ssh-ed25519 AAAA…`, without comment.
    pub public: String,
}

/// The rendezvous as a deployment uses it.
pub trait Meeting: Send + Sync {
    /// What serving `nodes` will make, in creation order, with the node that a resource is for.
    fn plan(&self, nodes: &[NodeName]) -> Vec<(Option<NodeName>, Resource)>;

    /// Whether it serves.
    fn state(&self) -> State;

    /// Starts it, listening on these addresses of this machine; one that was started before keeps
    /// its ports, and its addresses too.
    fn start(&self, listen: &[IpAddr]) -> Result<Endpoint, CliError>;

    /// What a node must know to sign in. It must have been started once.
    fn endpoint(&self) -> Result<Endpoint, CliError>;

    /// Makes what `plan` named, or finds that it is there. A server listens on `listen`; an
    /// account has the password of `attempt`, or a token that serves `delivery`.
    fn make(
        &self,
        resource: &Resource,
        listen: &[IpAddr],
        attempt: u32,
        delivery: Delivery,
    ) -> Result<(), CliError>;

    /// Whom nodes ask for their certificates, where the overlay has an authority; a full JID.
    fn issuer(&self) -> String;

    /// A node's account with the password or token of `attempt`, the same each time.
    fn account(&self, node: &NodeName, attempt: u32) -> Result<Account, CliError>;

    /// Kills enrolment tokens that were not used in time, where nobody else does; returns the nodes
    /// they were for.
    fn expire_tokens(&self, now: SystemTime) -> Result<Vec<NodeName>, CliError>;

    /// Whether removing has any prospect: a server of ours is removed without its help, one of
    /// somebody else must answer.
    fn can_remove(&self) -> bool;

    /// Removes what `plan` named.
    fn remove(&self, resource: &Resource) -> Result<(), CliError>;

    /// Signs in as the operator and watches the nodes.
    fn watch(&self) -> Result<Box<dyn Watch>, CliError>;
}

/// What the operator sees of the nodes.
pub trait Watch {
    /// All nodes that are signed in, waiting up to `timeout` for news.
    fn look(&mut self, timeout: Duration) -> Result<BTreeMap<NodeName, Seen>, CliError>;

    /// Asks a node for its status; none when it does not answer in time.
    fn status(&mut self, node: &NodeName) -> Option<NodeStatus>;
}

/// How far a node that is signed in has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `SignedIn`, `Linked` or `Ready`.
    pub stage: Stage,
}
