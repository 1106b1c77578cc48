//! Rows of the state database.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde::{Deserialize, Serialize};

use crate::event::Stage;
use crate::name::NodeName;
use crate::provider::{Resource, Scope, Tags};

/// How far a deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Being made, or the command that made it was stopped.
    Creating,
    /// Nodes are being added or removed, or the command that did so was stopped.
    Scaling,
    /// The machines were started and nobody waited for them to join.
    Started,
    /// All nodes joined.
    Joined,
    /// Some node did not join in time.
    Partial,
    /// Being removed, or something could not be removed.
    Destroying,
}

/// Who made a resource and can remove it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Owner {
    /// The provider of a site.
    Site(String),
    /// The rendezvous.
    Rendezvous,
    /// `provision` itself: files.
    Files,
}

/// A deployment about to be recorded.
#[derive(Debug, Clone)]
pub struct NewDeployment {
    /// Its name.
    pub name: String,
    /// See [`Tags::uid`].
    pub uid: String,
    /// Workers that must join, if not all.
    pub quorum: Option<u32>,
    /// XMPP domain.
    pub domain: String,
    /// IPv4 overlay, `10.200.7.0/24`.
    pub net4: String,
    /// IPv6 overlay, `fd12:3456:789a::/64`.
    pub net6: String,
    /// JSON of what destroy needs to know even when `sites.toml` has changed.
    pub settings: String,
    /// Its nodes.
    pub nodes: Vec<NodeRecord>,
}

/// A recorded deployment.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Row.
    pub id: i64,
    /// Name.
    pub name: String,
    /// See [`Tags::uid`].
    pub uid: String,
    /// See [`Tags::owner`].
    pub owner: String,
    /// When it is to be destroyed by itself.
    pub expires: Option<SystemTime>,
    /// Workers that must join, if not all.
    pub quorum: Option<u32>,
    /// When `provision cluster` was run.
    pub created: SystemTime,
    /// How far it is.
    pub phase: Phase,
    /// XMPP domain.
    pub domain: String,
    /// IPv4 overlay.
    pub net4: String,
    /// IPv6 overlay.
    pub net6: String,
    /// See [`NewDeployment::settings`].
    pub settings: String,
}

impl Deployment {
    /// What is written on everything that it makes.
    pub fn tags(&self) -> Tags {
        Tags {
            owner: self.owner.clone(),
            deployment: self.name.clone(),
            uid: self.uid.clone(),
        }
    }
}

/// A recorded node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRecord {
    /// Name.
    pub name: NodeName,
    /// Role.
    pub role: String,
    /// Role whose image its machine starts from: the same, or one that extends it.
    pub image: String,
    /// Whose machine it is, of a member's.
    pub person: Option<String>,
    /// The groups that this person is in, with all machines.
    pub groups: BTreeSet<String>,
    /// Site.
    pub site: String,
    /// IPv4 overlay address, without prefix.
    pub ipv4: String,
    /// IPv6 overlay address, without prefix.
    pub ipv6: String,
    /// Public SSH host key, `ssh-ed25519 AAAA…`.
    pub host_key: Option<String>,
    /// Address on its host's network, once known.
    pub underlay: Option<String>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Root disk in GiB.
    pub disk_gib: u32,
    /// Position among the deployment's machines on its site.
    pub slot: u32,
    /// Whether it shall be there; otherwise what it has is to be removed.
    pub wanted: bool,
    /// The machine that is wanted, from 1: a replacement is the next.
    pub attempt: u32,
    /// Stages reached, in order, with the seconds each took since the command began.
    pub stages: Vec<(Stage, f64)>,
}

/// A resource and who has it: what tells resources of a deployment apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Who makes and removes it.
    pub owner: Owner,
    /// The resource.
    #[serde(flatten)]
    pub resource: Resource,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Resource { kind, id } = &self.resource;
        write!(f, "{}: {kind} {id}", self.owner)
    }
}

/// What is known of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResourceState {
    /// It shall be made and was not tried yet: it does not exist by our doing.
    Wanted,
    /// Making it was tried: it may exist or not.
    Planned,
    /// It was made.
    Made,
    /// Removing it was tried: it may exist or not.
    Removing,
    /// It was removed.
    Removed,
}

/// A recorded resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceRecord {
    /// What it is and whose.
    pub key: Key,
    /// For whom it is made.
    pub scope: Scope,
    /// What must be made before it and removed after it.
    pub after: Vec<Key>,
    /// How long making it may take.
    pub deadline: Duration,
    /// What is known of it.
    pub state: ResourceState,
    /// How often it was made anew, from 1.
    pub attempt: u32,
    /// [`NodeRecord::attempt`] for which it was made; 1 when it is no node's.
    pub node_attempt: u32,
    /// See [`Making::token`](crate::provider::Making::token).
    pub token: String,
    /// The owner's own identifier.
    pub handle: Option<String>,
    /// The address on which machines that use it reach this host.
    pub reached_at: Option<IpAddr>,
    /// Why the last try failed.
    pub error: Option<String>,
}

impl ResourceRecord {
    /// The node it is for, if for one.
    pub fn node(&self) -> Option<&NodeName> {
        self.scope.node()
    }

    /// Whether it may exist by our doing.
    pub fn may_exist(&self) -> bool {
        !matches!(self.state, ResourceState::Wanted | ResourceState::Removed)
    }
}

/// What an action does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Makes a resource.
    Make,
    /// Removes one.
    Remove,
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalLine {
    /// What was done.
    pub verb: Verb,
    /// With what.
    #[serde(flatten)]
    pub key: Key,
    /// For which node.
    pub node: Option<NodeName>,
    /// See [`ResourceRecord::attempt`].
    pub attempt: u32,
    /// Milliseconds of Unix time when it was begun.
    pub began_ms: i64,
    /// When it ended; nothing when the process was killed in it.
    pub ended_ms: Option<i64>,
    /// How it failed.
    pub error: Option<String>,
}

const PHASES: [(Phase, &str); 6] = [
    (Phase::Creating, "creating"),
    (Phase::Scaling, "scaling"),
    (Phase::Started, "started"),
    (Phase::Joined, "joined"),
    (Phase::Partial, "partial"),
    (Phase::Destroying, "destroying"),
];

const RESOURCE_STATES: [(ResourceState, &str); 5] = [
    (ResourceState::Wanted, "wanted"),
    (ResourceState::Planned, "planned"),
    (ResourceState::Made, "made"),
    (ResourceState::Removing, "removing"),
    (ResourceState::Removed, "removed"),
];

const VERBS: [(Verb, &str); 2] = [(Verb::Make, "make"), (Verb::Remove, "remove")];

const STAGES: [(Stage, &str); 6] = [
    (Stage::Image, "image"),
    (Stage::Created, "created"),
    (Stage::Booted, "booted"),
    (Stage::SignedIn, "signed-in"),
    (Stage::Linked, "linked"),
    (Stage::Ready, "ready"),
];

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(text(&PHASES, self))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site(site) => write!(f, "site {site}"),
            Self::Rendezvous => f.write_str("rendezvous"),
            Self::Files => f.write_str("files"),
        }
    }
}

/// Values that are kept as the words of a table.
macro_rules! kept_as_words {
    ($($kind:ty: $table:ident),*) => {$(
        impl ToSql for $kind {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(text(&$table, self).into())
            }
        }

        impl FromSql for $kind {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                parse(&$table, value)
            }
        }
    )*};
}

kept_as_words!(Phase: PHASES, ResourceState: RESOURCE_STATES, Verb: VERBS, Stage: STAGES);

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(text(&VERBS, self))
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.to_string()
    }
}

impl TryFrom<String> for Owner {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("`{text}` is no owner of resources"))
    }
}

impl Owner {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "rendezvous" => Some(Self::Rendezvous),
            "files" => Some(Self::Files),
            other => Some(Self::Site(other.strip_prefix("site ")?.to_owned())),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(text(&STAGES, self))
    }
}

impl ToSql for Owner {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.to_string().into())
    }
}

impl FromSql for Owner {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

fn text<T: PartialEq>(table: &[(T, &'static str)], value: &T) -> &'static str {
    table
        .iter()
        .find(|(v, _)| v == value)
        .map_or("", |(_, text)| text)
}

fn parse<T: Copy>(table: &[(T, &'static str)], value: ValueRef<'_>) -> FromSqlResult<T> {
    let value = value.as_str()?;
    let found = table.iter().find(|(_, text)| *text == value);
    found.map(|(v, _)| *v).ok_or(FromSqlError::InvalidType)
}
