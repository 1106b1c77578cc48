//! The state database: what was planned, made and removed.
//!
//! Every resource is written here before it is created, so that whatever happens in between,
//! destroy knows of it. No secret is stored.

pub mod lock;
pub mod record;
mod schema;

use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};

use self::record::{Deployment, NewDeployment, NodeRecord, Owner, Phase, ResourceRecord};
use crate::backend::Resource;
use crate::error::{CliError, ExitCode};
use crate::event::Stage;
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
            .pragma_update(None, "foreign_keys", true)
            .map_err(failed)?;
        schema::migrate(&mut connection, path)?;
        Ok(Self {
            path: path.to_owned(),
            connection: Mutex::new(connection),
        })
    }

    /// SHIM
    pub fn known(&self) -> Result<crate::gc::plan::Known, CliError> {
        Ok(crate::gc::plan::Known::default())
    }
    /// Records a deployment with its nodes, in phase `creating`. The name must be free.
    pub fn create(&self, new: &NewDeployment, now: SystemTime) -> Result<i64, CliError> {
        let mut connection = self.lock();
        let write = || -> rusqlite::Result<i64> {
            let tx = connection.transaction()?;
            tx.execute(
                "INSERT INTO deployments (name, created, phase, domain, net4, net6, settings)
                 VALUES (?1, ?2, 'creating', ?3, ?4, ?5, ?6)",
                params![
                    new.name,
                    seconds(now),
                    new.domain,
                    new.net4,
                    new.net6,
                    new.settings
                ],
            )?;
            let id = tx.last_insert_rowid();
            for node in &new.nodes {
                tx.execute(
                    "INSERT INTO nodes (deployment, name, role, site, ipv4, ipv6)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![id, node.name.0, node.role, node.site, node.ipv4, node.ipv6],
                )?;
            }
            tx.commit()?;
            Ok(id)
        };
        let mut write = write;
        write().map_err(|e| match e.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => name_taken(&new.name),
            _ => failed(&self.path, "write", e),
        })
    }

    /// The deployment of this name that is not destroyed.
    pub fn deployment(&self, name: &str) -> Result<Option<Deployment>, CliError> {
        self.query_one(
            "SELECT id, name, created, phase, domain, net4, net6, settings FROM deployments
             WHERE name = ?1 AND phase <> 'destroyed'",
            [name],
            deployment,
        )
    }

    /// All deployments that are not destroyed, oldest first.
    pub fn deployments(&self) -> Result<Vec<Deployment>, CliError> {
        self.query(
            "SELECT id, name, created, phase, domain, net4, net6, settings FROM deployments
             WHERE phase <> 'destroyed' ORDER BY created, id",
            [],
            deployment,
        )
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

    /// The deployment is gone: its nodes and resources are forgotten, its name stays as a
    /// tombstone.
    pub fn bury(&self, id: i64, now: SystemTime) -> Result<(), CliError> {
        self.execute("DELETE FROM resources WHERE deployment = ?1", [id])?;
        self.execute("DELETE FROM nodes WHERE deployment = ?1", [id])?;
        self.execute(
            "UPDATE deployments SET phase = 'destroyed', destroyed = ?2, settings = '{}'
             WHERE id = ?1",
            params![id, seconds(now)],
        )
    }

    /// The nodes of a deployment, in the order they were planned.
    pub fn nodes(&self, id: i64) -> Result<Vec<NodeRecord>, CliError> {
        let mut nodes = self.query(
            "SELECT name, role, site, ipv4, ipv6, host_key, underlay FROM nodes
             WHERE deployment = ?1 ORDER BY rowid",
            [id],
            |row| {
                Ok(NodeRecord {
                    name: NodeName(row.get(0)?),
                    role: row.get(1)?,
                    site: row.get(2)?,
                    ipv4: row.get(3)?,
                    ipv6: row.get(4)?,
                    host_key: row.get(5)?,
                    underlay: row.get(6)?,
                    stages: Vec::new(),
                })
            },
        )?;
        for node in &mut nodes {
            node.stages = self.query(
                "SELECT stage, seconds FROM stages WHERE deployment = ?1 AND node = ?2
                 ORDER BY seconds, rowid",
                params![id, node.name.0],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            node.stages.sort_by_key(|(stage, _)| *stage);
        }
        Ok(nodes)
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

    /// Records that a resource is about to be made. Recording it twice is no error.
    pub fn plan_resource(
        &self,
        id: i64,
        owner: &Owner,
        node: Option<&NodeName>,
        resource: &Resource,
    ) -> Result<(), CliError> {
        self.execute(
            "INSERT INTO resources (deployment, owner, node, kind, ident, state)
             VALUES (?1, ?2, ?3, ?4, ?5, 'planned')
             ON CONFLICT (deployment, owner, kind, ident) DO UPDATE SET state = 'planned'",
            params![id, owner, node.map(|n| &n.0), resource.kind, resource.id],
        )
    }

    /// Records that a planned resource was made.
    pub fn made(&self, id: i64, owner: &Owner, resource: &Resource) -> Result<(), CliError> {
        self.set_resource(id, owner, resource, "made")
    }

    /// Records that a resource was removed.
    pub fn removed(&self, id: i64, owner: &Owner, resource: &Resource) -> Result<(), CliError> {
        self.set_resource(id, owner, resource, "removed")
    }

    /// What may exist of a deployment, in the order it was planned.
    pub fn resources(&self, id: i64) -> Result<Vec<ResourceRecord>, CliError> {
        self.query(
            "SELECT owner, node, kind, ident, state FROM resources
             WHERE deployment = ?1 AND state <> 'removed' ORDER BY rowid",
            [id],
            |row| {
                Ok(ResourceRecord {
                    owner: row.get(0)?,
                    node: row.get::<_, Option<String>>(1)?.map(NodeName),
                    resource: Resource {
                        kind: row.get(2)?,
                        id: row.get(3)?,
                    },
                    made: row.get::<_, String>(4)? == "made",
                })
            },
        )
    }

    fn set_resource(
        &self,
        id: i64,
        owner: &Owner,
        resource: &Resource,
        state: &str,
    ) -> Result<(), CliError> {
        self.execute(
            "UPDATE resources SET state = ?5
             WHERE deployment = ?1 AND owner = ?2 AND kind = ?3 AND ident = ?4",
            params![id, owner, resource.kind, resource.id, state],
        )
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

fn deployment(row: &Row<'_>) -> rusqlite::Result<Deployment> {
    Ok(Deployment {
        id: row.get(0)?,
        name: row.get(1)?,
        created: UNIX_EPOCH + Duration::from_secs(row.get::<_, i64>(2)?.unsigned_abs()),
        phase: row.get(3)?,
        domain: row.get(4)?,
        net4: row.get(5)?,
        net6: row.get(6)?,
        settings: row.get(7)?,
    })
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
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
