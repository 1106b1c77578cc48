//! The resources of deployments, and the journal of what was done with them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Row, Transaction, params};

use super::record::{JournalLine, Key, Owner, ResourceRecord, ResourceState, Verb};
use super::{Database, owner};
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;
use crate::provider::{Made, Resource, Scope};

const RESOURCE: &str = "SELECT owner, kind, ident, scope, after, seconds, state, attempt,
    node_attempt, token, handle, reached_at, error FROM resources";

/// The token for making a thing, see [`Making::token`](crate::provider::Making::token).
pub fn token(uid: &str, key: &Key, attempt: u32) -> String {
    let Resource { kind, id } = &key.resource;
    let parts = [uid, &key.owner.to_string(), kind, id, &attempt.to_string()];
    owner::hex(&parts, 16)
}

/// An action in hand: its line in the journal.
#[derive(Debug, Clone, Copy)]
pub struct Begun(i64);

impl Database {
    /// What was decided or done for a deployment and not undone, in the order it was decided.
    pub fn resources(&self, id: i64) -> Result<Vec<ResourceRecord>, CliError> {
        let all = self.all_resources(id)?;
        let left = |r: &ResourceRecord| r.state != ResourceState::Removed;
        Ok(all.into_iter().filter(left).collect())
    }

    /// As [`Self::resources`], with those that were removed.
    pub fn all_resources(&self, id: i64) -> Result<Vec<ResourceRecord>, CliError> {
        let sql = format!("{RESOURCE} WHERE deployment = ?1 ORDER BY rowid");
        let rows = self.query(&sql, [id], read)?;
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            let (mut record, after) = row;
            record.after = match after {
                Some(text) => serde_json::from_str(&text).map_err(|e| damaged(&record.key, e))?,
                None => before(&record, &records),
            };
            records.push(record);
        }
        Ok(records)
    }

    /// Records that resources shall be made, before anything is tried. One that is recorded stays
    /// as it is: what it was made from is needed to remove it in order.
    pub fn want(&self, id: i64, records: &[ResourceRecord]) -> Result<(), CliError> {
        let rows = records
            .iter()
            .map(|r| Ok((r, json(&r.scope)?, json(&r.after)?)));
        let rows = rows.collect::<Result<Vec<_>, CliError>>()?;
        self.write(|tx| {
            let mut insert = tx.prepare(
                "INSERT INTO resources (deployment, owner, kind, ident, scope, after, seconds,
                     state, attempt, node_attempt, token)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'wanted', ?8, ?9, ?10)
                 ON CONFLICT (deployment, owner, kind, ident) DO UPDATE SET
                     scope = excluded.scope, after = excluded.after, seconds = excluded.seconds,
                     state = 'wanted', attempt = excluded.attempt,
                     node_attempt = excluded.node_attempt, token = excluded.token, handle = NULL,
                     reached_at = NULL, error = NULL
                 WHERE state = 'removed'",
            )?;
            for (record, scope, after) in &rows {
                let Resource { kind, id: ident } = &record.key.resource;
                insert.execute(params![
                    id,
                    record.key.owner,
                    kind,
                    ident,
                    scope,
                    after,
                    i64::try_from(record.deadline.as_secs()).unwrap_or(i64::MAX),
                    record.attempt,
                    record.node_attempt,
                    record.token
                ])?;
            }
            Ok(())
        })
    }

    /// Records that a resource is about to be made: its key, scope, needs, deadline, attempts and
    /// token are those of `record`.
    pub fn begin_making(&self, id: i64, record: &ResourceRecord) -> Result<Begun, CliError> {
        let (scope, after) = (json(&record.scope)?, json(&record.after)?);
        let (key, node) = (&record.key, record.node());
        self.begin(id, Verb::Make, key, node, record.attempt, |tx| {
            let Resource { kind, id: ident } = &key.resource;
            // What another attempt made is no more.
            tx.execute(
                "UPDATE resources SET state = 'planned', scope = ?5, after = ?6, seconds = ?7,
                     token = ?8, node_attempt = ?9,
                     handle = CASE attempt WHEN ?10 THEN handle END, attempt = ?10
                 WHERE deployment = ?1 AND owner = ?2 AND kind = ?3 AND ident = ?4",
                params![
                    id,
                    key.owner,
                    kind,
                    ident,
                    scope,
                    after,
                    i64::try_from(record.deadline.as_secs()).unwrap_or(i64::MAX),
                    record.token,
                    record.node_attempt,
                    record.attempt
                ],
            )
        })
    }

    /// Records that a resource is about to be removed.
    pub fn begin_removing(
        &self,
        id: i64,
        key: &Key,
        node: Option<&NodeName>,
        attempt: u32,
    ) -> Result<Begun, CliError> {
        self.begin(id, Verb::Remove, key, node, attempt, |tx| {
            set_state(tx, id, key, ResourceState::Removing)
        })
    }

    fn begin(
        &self,
        id: i64,
        verb: Verb,
        key: &Key,
        node: Option<&NodeName>,
        attempt: u32,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<usize>,
    ) -> Result<Begun, CliError> {
        let mut line = 0;
        self.write(|tx| {
            if write(tx)? != 1 {
                return Err(rusqlite::Error::QueryReturnedNoRows);
            }
            let Resource { kind, id: ident } = &key.resource;
            tx.execute(
                "INSERT INTO journal (deployment, owner, kind, ident, node, verb, attempt, began)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    id,
                    key.owner,
                    kind,
                    ident,
                    node.map(|n| &n.0),
                    verb,
                    attempt,
                    milliseconds()
                ],
            )?;
            line = tx.last_insert_rowid();
            Ok(())
        })?;
        Ok(Begun(line))
    }

    /// Records what was made.
    pub fn made(&self, id: i64, key: &Key, begun: Begun, made: &Made) -> Result<(), CliError> {
        self.write(|tx| {
            let Resource { kind, id: ident } = &key.resource;
            tx.execute(
                "UPDATE resources SET state = 'made', error = NULL,
                     handle = coalesce(?5, handle), reached_at = coalesce(?6, reached_at)
                 WHERE deployment = ?1 AND owner = ?2 AND kind = ?3 AND ident = ?4",
                params![
                    id,
                    key.owner,
                    kind,
                    ident,
                    made.handle,
                    made.reached_at.map(|a| a.to_string())
                ],
            )?;
            end(tx, begun, None)
        })
    }

    /// Records that a resource was removed.
    pub fn removed(&self, id: i64, key: &Key, begun: Begun) -> Result<(), CliError> {
        self.write(|tx| {
            set_state(tx, id, key, ResourceState::Removed)?;
            end(tx, begun, None)
        })
    }

    /// Records that an action failed; the resource may exist or not.
    pub fn failed(&self, id: i64, key: &Key, begun: Begun, why: &str) -> Result<(), CliError> {
        self.write(|tx| {
            let Resource { kind, id: ident } = &key.resource;
            tx.execute(
                "UPDATE resources SET error = ?5
                 WHERE deployment = ?1 AND owner = ?2 AND kind = ?3 AND ident = ?4",
                params![id, key.owner, kind, ident, why],
            )?;
            end(tx, begun, Some(why))
        })
    }

    /// A deployment has nothing to do with a resource any more: it was never tried, or it stays
    /// for others.
    pub fn release(&self, id: i64, keys: &[Key]) -> Result<(), CliError> {
        self.write(|tx| {
            for key in keys {
                set_state(tx, id, key, ResourceState::Removed)?;
            }
            Ok(())
        })
    }

    /// What was done for a deployment, oldest first.
    pub fn journal(&self, id: i64) -> Result<Vec<JournalLine>, CliError> {
        self.query(
            "SELECT verb, owner, kind, ident, node, attempt, began, ended, error FROM journal
             WHERE deployment = ?1 ORDER BY id",
            [id],
            |row| {
                Ok(JournalLine {
                    verb: row.get(0)?,
                    key: key(row, 1)?,
                    node: row.get::<_, Option<String>>(4)?.map(NodeName),
                    attempt: row.get(5)?,
                    began_ms: row.get(6)?,
                    ended_ms: row.get(7)?,
                    error: row.get(8)?,
                })
            },
        )
    }
}

fn set_state(
    tx: &Transaction<'_>,
    id: i64,
    key: &Key,
    state: ResourceState,
) -> rusqlite::Result<usize> {
    let Resource { kind, id: ident } = &key.resource;
    tx.execute(
        "UPDATE resources SET state = ?5
         WHERE deployment = ?1 AND owner = ?2 AND kind = ?3 AND ident = ?4",
        params![id, key.owner, kind, ident, state],
    )
}

fn end(tx: &Transaction<'_>, begun: Begun, error: Option<&str>) -> rusqlite::Result<usize> {
    tx.execute(
        "UPDATE journal SET ended = ?2, error = ?3 WHERE id = ?1",
        params![begun.0, milliseconds(), error],
    )
}

fn key(row: &Row<'_>, first: usize) -> rusqlite::Result<Key> {
    Ok(Key {
        owner: row.get(first)?,
        resource: Resource {
            kind: row.get(first + 1)?,
            id: row.get(first + 2)?,
        },
    })
}

fn read(row: &Row<'_>) -> rusqlite::Result<(ResourceRecord, Option<String>)> {
    let scope: String = row.get(3)?;
    let scope: Scope = serde_json::from_str(&scope).map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, Box::new(e))
    })?;
    let reached_at: Option<String> = row.get(11)?;
    let record = ResourceRecord {
        key: key(row, 0)?,
        scope,
        after: Vec::new(),
        deadline: Duration::from_secs(row.get::<_, i64>(5)?.unsigned_abs()),
        state: row.get(6)?,
        attempt: row.get(7)?,
        node_attempt: row.get(8)?,
        token: row.get(9)?,
        handle: row.get(10)?,
        reached_at: reached_at.and_then(|a| a.parse().ok()),
        error: row.get(12)?,
    };
    Ok((record, row.get(4)?))
}

/// A database of version 1 has the order alone: everything is after what came before it, but for
/// the machines, which are not after each other.
fn before(record: &ResourceRecord, earlier: &[ResourceRecord]) -> Vec<Key> {
    let part = |r: &ResourceRecord| match r.key.owner {
        Owner::Site(_) => r.node().cloned(),
        _ => None,
    };
    let own = part(record);
    earlier
        .iter()
        .filter(|r| part(r).is_none() || part(r) == own)
        .map(|r| r.key.clone())
        .collect()
}

fn json(value: &impl serde::Serialize) -> Result<String, CliError> {
    serde_json::to_string(value)
        .map_err(|e| CliError::new(ExitCode::Internal, "cannot record a resource").caused_by(e))
}

fn damaged(key: &Key, error: serde_json::Error) -> CliError {
    CliError::new(
        ExitCode::Internal,
        format!("what is recorded of {key} is damaged"),
    )
    .caused_by(error)
}

fn milliseconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}
