//! Rows of the state database.

use std::fmt;
use std::time::SystemTime;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde::Serialize;

use crate::backend::Resource;
use crate::event::Stage;
use crate::name::NodeName;

/// How far a deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Being made, or the command that made it was stopped.
    Creating,
    /// All nodes joined.
    Joined,
    /// Some node did not join in time.
    Partial,
    /// Being removed, or something could not be removed.
    Destroying,
}

/// Who made a resource and can remove it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// The backend of a site.
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

/// A recorded node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRecord {
    /// Name.
    pub name: NodeName,
    /// Role.
    pub role: String,
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
    /// Stages reached, in order, with the seconds each took since the command began.
    pub stages: Vec<(Stage, f64)>,
}

/// A recorded resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceRecord {
    /// Who removes it.
    pub owner: Owner,
    /// The node it belongs to, if to one.
    pub node: Option<NodeName>,
    /// The resource.
    pub resource: Resource,
    /// Whether it is known to have been made; otherwise it may exist or not.
    pub made: bool,
}

const PHASES: [(Phase, &str); 4] = [
    (Phase::Creating, "creating"),
    (Phase::Joined, "joined"),
    (Phase::Partial, "partial"),
    (Phase::Destroying, "destroying"),
];

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

impl ToSql for Phase {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(text(&PHASES, self).into())
    }
}

impl FromSql for Phase {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        parse(&PHASES, value)
    }
}

impl ToSql for Stage {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(text(&STAGES, self).into())
    }
}

impl FromSql for Stage {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        parse(&STAGES, value)
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
        match value.as_str()? {
            "rendezvous" => Ok(Self::Rendezvous),
            "files" => Ok(Self::Files),
            other => match other.strip_prefix("site ") {
                Some(site) => Ok(Self::Site(site.to_owned())),
                None => Err(FromSqlError::InvalidType),
            },
        }
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
