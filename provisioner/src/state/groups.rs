//! Which people are in which groups. A group is there as long as somebody is in it.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Transaction, params};

use super::Database;
use crate::error::CliError;

impl Database {
    /// Puts a person into groups, besides those that the person is in.
    pub fn put_in_groups(
        &self,
        id: i64,
        person: &str,
        groups: &BTreeSet<String>,
    ) -> Result<(), CliError> {
        self.write(|tx| put_in(tx, id, person, groups))
    }

    /// Takes a person out of a group.
    pub fn take_out_of_group(&self, id: i64, person: &str, group: &str) -> Result<(), CliError> {
        self.execute(
            "DELETE FROM group_members WHERE deployment = ?1 AND name = ?2 AND person = ?3",
            params![id, group, person],
        )
    }

    /// The groups of everybody who is in one.
    pub(super) fn groups_by_person(
        &self,
        id: i64,
    ) -> Result<BTreeMap<String, BTreeSet<String>>, CliError> {
        let rows = self.query(
            "SELECT person, name FROM group_members WHERE deployment = ?1",
            [id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (person, group) in rows {
            groups.entry(person).or_default().insert(group);
        }
        Ok(groups)
    }
}

pub(super) fn put_in(
    tx: &Transaction<'_>,
    id: i64,
    person: &str,
    groups: &BTreeSet<String>,
) -> rusqlite::Result<()> {
    for group in groups {
        tx.execute(
            "INSERT OR IGNORE INTO group_members (deployment, name, person) VALUES (?1, ?2, ?3)",
            params![id, group, person],
        )?;
    }
    Ok(())
}

/// Takes those out of all groups who have no machine that is wanted: who is invited again is somebody
/// else.
pub(super) fn forget_strangers(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
    tx.execute(
        "DELETE FROM group_members WHERE deployment = ?1 AND person NOT IN
             (SELECT person FROM nodes
              WHERE deployment = ?1 AND wanted = 1 AND person IS NOT NULL)",
        [id],
    )?;
    Ok(())
}
