//! What sites lend, as last heard of.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::params;

use super::{Database, seconds};
use crate::error::CliError;
use crate::provider::Lease;

impl Database {
    /// Keeps what a site said of a lease.
    pub fn set_lease(&self, id: i64, site: &str, lease: Lease) -> Result<(), CliError> {
        self.execute(
            "INSERT OR REPLACE INTO leases (deployment, site, ends, refused)
             VALUES (?1, ?2, ?3, ?4)",
            params![id, site, seconds(lease.ends), lease.refused],
        )
    }

    /// The leases of a deployment by site.
    pub fn leases(&self, id: i64) -> Result<Vec<(String, Lease)>, CliError> {
        self.query(
            "SELECT site, ends, refused FROM leases WHERE deployment = ?1 ORDER BY site",
            [id],
            |row| {
                let lease = Lease {
                    ends: time(row.get(1)?),
                    refused: row.get(2)?,
                };
                Ok((row.get(0)?, lease))
            },
        )
    }
}

fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs())
}
