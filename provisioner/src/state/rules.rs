//! Which nodes have older rules than those that are recorded.

use std::collections::BTreeMap;

use ipop_proto::config::AllowSection;
use rusqlite::params;

use super::Database;
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;

impl Database {
    /// Records other rules, with the settings that have them: from now on all nodes have `older` ones, until
    /// they are told, and whoever had still older ones has those.
    pub fn set_rules(
        &self,
        id: i64,
        settings: &str,
        older: &[AllowSection],
    ) -> Result<(), CliError> {
        let older = serde_json::to_string(older).map_err(|e| {
            CliError::new(ExitCode::Internal, "cannot write a deployment's rules").caused_by(e)
        })?;
        self.write(|tx| {
            tx.execute(
                "UPDATE nodes SET older_rules = ?2 WHERE deployment = ?1 AND older_rules IS NULL",
                params![id, older],
            )?;
            tx.execute(
                "UPDATE deployments SET settings = ?2 WHERE id = ?1",
                params![id, settings],
            )
        })
    }

    /// The rules of those nodes that were not told the newest.
    pub fn older_rules(&self, id: i64) -> Result<BTreeMap<NodeName, Vec<AllowSection>>, CliError> {
        let rows = self.query(
            "SELECT name, older_rules FROM nodes
             WHERE deployment = ?1 AND older_rules IS NOT NULL",
            [id],
            |row| Ok((NodeName(row.get(0)?), row.get::<_, String>(1)?)),
        )?;
        let read = |(name, text): (NodeName, String)| {
            let rules = serde_json::from_str(&text).map_err(|e| {
                let message = format!("the recorded rules of `{name}` are damaged");
                CliError::new(ExitCode::Internal, message).caused_by(e)
            })?;
            Ok((name, rules))
        };
        rows.into_iter().map(read).collect()
    }

    /// A node has the rules that are recorded.
    pub fn has_newest_rules(&self, id: i64, node: &NodeName) -> Result<(), CliError> {
        self.execute(
            "UPDATE nodes SET older_rules = NULL WHERE deployment = ?1 AND name = ?2",
            params![id, node.0],
        )
    }
}
