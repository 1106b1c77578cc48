//! The state database: what was planned, made and removed.
//!
//! Every resource is written here before it is created, so that whatever happens in between,
//! destroy knows of it. No secret is stored.

mod groups;
mod leases;
pub mod lock;
pub mod owner;
pub mod record;
pub mod resources;
mod rules;
mod schema;

use std::collections::BTreeMap;
use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, params,
};

use self::record::{Deployment, NewDeployment, NodeRecord, Phase};
use crate::error::{CliError, ExitCode};
use crate::event::Stage;
use crate::gc::plan::Known;
use crate::name::NodeName;

/// Mode of the database and the files beside it.
const MODE: u32 = 0o600;
/// How long to wait for another process's transaction.
const BUSY: Duration = Duration::from_secs(10);

/// The database.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Database {
    /// Opens the database, making or upgrading it as needed. Only its owner may read it.
    pub fn open(path: &Path) -> Result<Self, CliError> {
        keep_private(path)?;
        let failed = |e| failed(path, "open", e);
        let mut connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        connection
            .pragma_update(None, "journal_mode", "wal")
            .map_err(failed)?;
        connection
            .pragma_update(None, "foreign_keys", false)
            .map_err(failed)?;
        schema::migrate(&mut connection, path)?;
        connection
            .pragma_update(None, "foreign_keys", true)
            .map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            connection: Mutex::new(connection),
        })
    }

    /// What is recorded of all deployments that are not destroyed, for `provision gc`.
    pub fn known(&self) -> Result<Known, CliError> {
        let mut known = Known::default();
        for deployment in self.deployments()? {
            for record in self.resources(deployment.id)? {
                known.resources.insert(record.key.resource, record.handle);
            }
            known.uids.insert(deployment.uid);
            known.names.insert(deployment.name);
        }
        Ok(known)
    }

    /// Records a deployment with its nodes, in phase `creating`. The name must be free.
    pub fn create(&self, new: &NewDeployment, now: SystemTime) -> Result<i64, CliError> {
        let owner = self.owner();
        self.transaction(|tx| {
            tx.execute(
                "INSERT INTO deployments
                     (name, uid, owner, created, quorum, phase, domain, net4, net6, settings)
                 VALUES (?1, ?2, ?3, ?4, ?5, 'creating', ?6, ?7, ?8, ?9)",
                params![
                    new.name,
                    new.uid,
                    owner,
                    seconds(now),
                    new.quorum,
                    new.domain,
                    new.net4,
                    new.net6,
                    new.settings
                ],
            )?;
            let id = tx.last_insert_rowid();
            insert_nodes(tx, id, &new.nodes)?;
            Ok(id)
        })
        .map_err(|e| match e.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => name_taken(&new.name),
            _ => failed(&self.path, "write", e),
        })
    }

    /// This installation's mark, see [`Tags::owner`](crate::provider::Tags::owner).
    pub fn owner(&self) -> String {
        owner::mark(self.path.parent().unwrap_or(Path::new("/")))
    }

    /// The deployment of this name that is not destroyed.
    pub fn deployment(&self, name: &str) -> Result<Option<Deployment>, CliError> {
        let sql = format!("{DEPLOYMENT} WHERE name = ?1 AND phase <> 'destroyed'");
        let found = self.query_one(&sql, [name], deployment)?;
        Ok(found.map(|d| self.with_owner(d)))
    }

    /// All deployments that are not destroyed, oldest first.
    pub fn deployments(&self) -> Result<Vec<Deployment>, CliError> {
        let sql = format!("{DEPLOYMENT} WHERE phase <> 'destroyed' ORDER BY created, id");
        let all = self.query(&sql, [], deployment)?;
        Ok(all.into_iter().map(|d| self.with_owner(d)).collect())
    }

    /// A database of version 1 does not say who made its deployments: only this installation can.
    fn with_owner(&self, deployment: Deployment) -> Deployment {
        let owner = match deployment.owner.as_str() {
            "" => self.owner(),
            known => known.to_owned(),
        };
        Deployment {
            owner,
            ..deployment
        }
    }

    /// Whether a deployment of this name existed and was destroyed.
    pub fn was_destroyed(&self, name: &str) -> Result<bool, CliError> {
        let found = self.query_one(
            "SELECT 1 FROM deployments WHERE name = ?1 AND phase = 'destroyed' LIMIT 1",
            [name],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    /// Moves a deployment to another phase.
    pub fn set_phase(&self, id: i64, phase: Phase) -> Result<(), CliError> {
        self.execute(
            "UPDATE deployments SET phase = ?2 WHERE id = ?1",
            params![id, phase],
        )
    }

    /// Says when a deployment is to be destroyed by itself, or that it is not.
    pub fn set_expiry(&self, id: i64, expires: Option<SystemTime>) -> Result<(), CliError> {
        self.execute(
            "UPDATE deployments SET expires = ?2 WHERE id = ?1",
            params![id, expires.map(seconds)],
        )
    }

    /// Says how many workers must join.
    pub fn set_quorum(&self, id: i64, quorum: Option<u32>) -> Result<(), CliError> {
        self.execute(
            "UPDATE deployments SET quorum = ?2 WHERE id = ?1",
            params![id, quorum],
        )
    }

    /// The deployment is gone: its nodes and resources are forgotten, its name stays as a
    /// tombstone, and so does the journal.
    pub fn bury(&self, id: i64, now: SystemTime) -> Result<(), CliError> {
        self.write(|tx| {
            tx.execute("DELETE FROM resources WHERE deployment = ?1", [id])?;
            tx.execute("DELETE FROM nodes WHERE deployment = ?1", [id])?;
            tx.execute("DELETE FROM leases WHERE deployment = ?1", [id])?;
            tx.execute("DELETE FROM group_members WHERE deployment = ?1", [id])?;
            tx.execute(
                "UPDATE deployments SET phase = 'destroyed', destroyed = ?2, settings = '{}'
                 WHERE id = ?1",
                params![id, seconds(now)],
            )
        })
    }

    /// Changes which nodes are wanted, with the settings of the sites they are on: all or nothing. Whose
    /// last machine goes is in no group any more.
    pub fn rescale(
        &self,
        id: i64,
        settings: &str,
        added: &[NodeRecord],
        removed: &[NodeName],
    ) -> Result<(), CliError> {
        self.write(|tx| {
            insert_nodes(tx, id, added)?;
            for node in removed {
                tx.execute(
                    "UPDATE nodes SET wanted = 0 WHERE deployment = ?1 AND name = ?2",
                    params![id, node.0],
                )?;
            }
            groups::forget_strangers(tx, id)?;
            tx.execute(
                "UPDATE deployments SET phase = 'scaling', settings = ?2 WHERE id = ?1",
                params![id, settings],
            )
        })
    }

    /// Changes the settings where no node comes or goes by that.
    pub fn set_settings(&self, id: i64, settings: &str) -> Result<(), CliError> {
        self.execute(
            "UPDATE deployments SET settings = ?2 WHERE id = ?1",
            params![id, settings],
        )
    }

    /// Forgets nodes of which nothing is left, so that their names are free again.
    pub fn forget_nodes(&self, id: i64, nodes: &[NodeName]) -> Result<(), CliError> {
        self.write(|tx| {
            for node in nodes {
                tx.execute(
                    "DELETE FROM nodes WHERE deployment = ?1 AND name = ?2",
                    params![id, node.0],
                )?;
            }
            Ok(nodes.len())
        })
    }

    /// A node's machine shall be made anew: its stages are forgotten.
    pub fn replace_node(&self, id: i64, node: &NodeName) -> Result<(), CliError> {
        self.write(|tx| {
            tx.execute(
                "DELETE FROM stages WHERE deployment = ?1 AND node = ?2",
                params![id, node.0],
            )?;
            tx.execute(
                "UPDATE nodes SET attempt = attempt + 1, underlay = NULL, host_key = NULL,
                     older_rules = NULL
                 WHERE deployment = ?1 AND name = ?2",
                params![id, node.0],
            )
        })
    }

    /// The nodes of a deployment, in the order they were planned.
    pub fn nodes(&self, id: i64) -> Result<Vec<NodeRecord>, CliError> {
        let mut stages: BTreeMap<NodeName, Vec<(Stage, f64)>> = BTreeMap::new();
        let rows = self.query(
            "SELECT node, stage, seconds FROM stages WHERE deployment = ?1",
            [id],
            |row| Ok((NodeName(row.get(0)?), row.get(1)?, row.get(2)?)),
        )?;
        for (node, stage, seconds) in rows {
            stages.entry(node).or_default().push((stage, seconds));
        }
        let groups = self.groups_by_person(id)?;
        self.query(
            "SELECT name, role, site, ipv4, ipv6, host_key, underlay, memory_mib, cpus, disk_gib,
                    slot, wanted, attempt, image, person
             FROM nodes WHERE deployment = ?1 ORDER BY rowid",
            [id],
            |row| {
                let name = NodeName(row.get(0)?);
                let mut stages = stages.remove(&name).unwrap_or_default();
                stages.sort_by_key(|(stage, _)| *stage);
                let person: Option<String> = row.get(14)?;
                let groups = person.as_ref().and_then(|person| groups.get(person));
                Ok(NodeRecord {
                    name,
                    role: row.get(1)?,
                    site: row.get(2)?,
                    ipv4: row.get(3)?,
                    ipv6: row.get(4)?,
                    host_key: row.get(5)?,
                    underlay: row.get(6)?,
                    memory_mib: row.get(7)?,
                    cpus: row.get(8)?,
                    disk_gib: row.get(9)?,
                    slot: row.get(10)?,
                    wanted: row.get(11)?,
                    attempt: row.get(12)?,
                    image: row.get(13)?,
                    groups: groups.cloned().unwrap_or_default(),
                    person,
                    stages,
                })
            },
        )
    }

    /// Keeps a node's public SSH host key.
    pub fn set_host_key(&self, id: i64, node: &NodeName, key: &str) -> Result<(), CliError> {
        self.execute(
            "UPDATE nodes SET host_key = ?3 WHERE deployment = ?1 AND name = ?2",
            params![id, node.0, key],
        )
    }

    /// Keeps the address that a node's machine has on its host's network.
    pub fn set_underlay(&self, id: i64, node: &NodeName, addr: &str) -> Result<(), CliError> {
        self.execute(
            "UPDATE nodes SET underlay = ?3 WHERE deployment = ?1 AND name = ?2",
            params![id, node.0, addr],
        )
    }

    /// Keeps that a node reached a stage, and after how many seconds.
    pub fn set_stage(
        &self,
        id: i64,
        node: &NodeName,
        stage: Stage,
        seconds: f64,
    ) -> Result<(), CliError> {
        self.execute(
            "INSERT OR IGNORE INTO stages (deployment, node, stage, seconds)
             VALUES (?1, ?2, ?3, ?4)",
            params![id, node.0, stage, seconds],
        )
    }

    /// Writes all or nothing.
    fn write<T>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<(), CliError> {
        let written = self.transaction(write);
        written
            .map(drop)
            .map_err(|e| failed(&self.path, "write", e))
    }

    fn transaction<T>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let mut connection = self.lock();
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let written = write(&tx)?;
        tx.commit()?;
        Ok(written)
    }

    fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Result<(), CliError> {
        let done = self.lock().execute(sql, params);
        done.map(drop).map_err(|e| failed(&self.path, "write", e))
    }

    fn query<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, CliError> {
        let connection = self.lock();
        let rows = connection.prepare(sql).and_then(|mut s| {
            s.query_map(params, read)?
                .collect::<rusqlite::Result<Vec<T>>>()
        });
        rows.map_err(|e| failed(&self.path, "read", e))
    }

    fn query_one<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, CliError> {
        let row = self.lock().query_row(sql, params, read).optional();
        row.map_err(|e| failed(&self.path, "read", e))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error for a name that a deployment has already.
pub fn name_taken(name: &str) -> CliError {
    CliError::new(
        ExitCode::Name,
        format!("there is a deployment `{name}` already"),
    )
    .hint(format!(
        "choose another --name, or remove it with `provision destroy {name}`"
    ))
}

const DEPLOYMENT: &str = "SELECT id, name, uid, owner, created, expires, quorum, phase, domain,
    net4, net6, settings FROM deployments";

fn deployment(row: &Row<'_>) -> rusqlite::Result<Deployment> {
    Ok(Deployment {
        id: row.get(0)?,
        name: row.get(1)?,
        uid: row.get(2)?,
        owner: row.get(3)?,
        created: time(row.get(4)?),
        expires: row.get::<_, Option<i64>>(5)?.map(time),
        quorum: row.get(6)?,
        phase: row.get(7)?,
        domain: row.get(8)?,
        net4: row.get(9)?,
        net6: row.get(10)?,
        settings: row.get(11)?,
    })
}

fn insert_nodes(tx: &Transaction<'_>, id: i64, nodes: &[NodeRecord]) -> rusqlite::Result<()> {
    let mut insert = tx.prepare(
        "INSERT INTO nodes
             (deployment, name, role, site, ipv4, ipv6, memory_mib, cpus, disk_gib, slot,
              image, person)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    for node in nodes {
        insert.execute(params![
            id,
            node.name.0,
            node.role,
            node.site,
            node.ipv4,
            node.ipv6,
            node.memory_mib,
            node.cpus,
            node.disk_gib,
            node.slot,
            node.image,
            node.person
        ])?;
        if let Some(person) = &node.person {
            groups::put_in(tx, id, person, &node.groups)?;
        }
    }
    Ok(())
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs())
}

/// Makes an empty database of mode 0600, or gives that mode to one that is there with its log and
/// index; SQLite takes it over for those it makes. A file that is there is not opened: closing it
/// would drop the locks that other connections of this process hold (close(2) and fcntl(2)).
fn keep_private(path: &Path) -> Result<(), CliError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path);
    match made {
        Ok(_) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(CliError::file("create", path, e)),
    }
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        let file = PathBuf::from(file);
        let set = match std::fs::metadata(&file) {
            Ok(metadata) if metadata.permissions().mode() & 0o777 == MODE => Ok(()),
            Ok(_) => std::fs::set_permissions(&file, Permissions::from_mode(MODE)),
            Err(e) => Err(e),
        };
        match set {
            // The last connection of another process takes the two away when it ends.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(|e| CliError::file("set the mode of", &file, e))?,
        }
    }
    Ok(())
}

fn failed(path: &Path, verb: &str, error: rusqlite::Error) -> CliError {
    let message = format!("cannot {verb} the state database `{}`", path.display());
    let error_code = error.sqlite_error_code();
    let cli = match error_code {
        Some(ErrorCode::DiskFull) => CliError::new(ExitCode::Missing, message).hint(format!(
            "free some space: `df -h {}` shows what is left",
            path.display()
        )),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            CliError::new(ExitCode::Missing, message)
                .hint("run it as root, or choose another directory with --state-dir")
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            CliError::new(ExitCode::Internal, message)
                .hint("restore it from a copy; it knows what there is to destroy")
        }
        _ => CliError::new(ExitCode::Internal, message),
    };
    cli.caused_by(error)
}

#[cfg(test)]
mod tests;
