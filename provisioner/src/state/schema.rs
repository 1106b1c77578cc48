//! The tables, and how an older database becomes a newer one.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::failed;
use crate::error::{CliError, ExitCode};

/// One step per schema version; a step is never changed after a release.
pub(super) const STEPS: &[&str] = &[
    "
CREATE TABLE deployments (
    id        INTEGER PRIMARY KEY,
    name      TEXT NOT NULL,
    created   INTEGER NOT NULL,
    destroyed INTEGER,
    phase     TEXT NOT NULL
              CHECK (phase IN ('creating', 'joined', 'partial', 'destroying', 'destroyed')),
    domain    TEXT NOT NULL,
    net4      TEXT NOT NULL,
    net6      TEXT NOT NULL,
    settings  TEXT NOT NULL
);
CREATE UNIQUE INDEX name_of_the_living ON deployments (name) WHERE phase <> 'destroyed';
CREATE TABLE nodes (
    deployment INTEGER NOT NULL REFERENCES deployments (id),
    name       TEXT NOT NULL,
    role       TEXT NOT NULL,
    site       TEXT NOT NULL,
    ipv4       TEXT NOT NULL,
    ipv6       TEXT NOT NULL,
    host_key   TEXT,
    underlay   TEXT,
    UNIQUE (deployment, name)
);
CREATE TABLE stages (
    deployment INTEGER NOT NULL,
    node       TEXT NOT NULL,
    stage      TEXT NOT NULL,
    seconds    REAL NOT NULL,
    UNIQUE (deployment, node, stage),
    FOREIGN KEY (deployment, node) REFERENCES nodes (deployment, name) ON DELETE CASCADE
);
CREATE TABLE resources (
    deployment INTEGER NOT NULL REFERENCES deployments (id),
    owner      TEXT NOT NULL,
    node       TEXT,
    kind       TEXT NOT NULL,
    ident      TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('planned', 'made', 'removed')),
    UNIQUE (deployment, owner, kind, ident)
);
",
    "
CREATE TABLE deployments_2 (
    id        INTEGER PRIMARY KEY,
    name      TEXT NOT NULL,
    uid       TEXT NOT NULL,
    owner     TEXT NOT NULL,
    created   INTEGER NOT NULL,
    destroyed INTEGER,
    expires   INTEGER,
    quorum    INTEGER,
    phase     TEXT NOT NULL
              CHECK (phase IN ('creating', 'scaling', 'started', 'joined', 'partial',
                               'destroying', 'destroyed')),
    domain    TEXT NOT NULL,
    net4      TEXT NOT NULL,
    net6      TEXT NOT NULL,
    settings  TEXT NOT NULL
);
INSERT INTO deployments_2
    SELECT id, name, lower(hex(randomblob(8))), '', created, destroyed, NULL, NULL, phase, domain,
           net4, net6, settings
    FROM deployments;
DROP TABLE deployments;
ALTER TABLE deployments_2 RENAME TO deployments;
CREATE UNIQUE INDEX name_of_the_living ON deployments (name) WHERE phase <> 'destroyed';

ALTER TABLE nodes ADD COLUMN memory_mib INTEGER NOT NULL DEFAULT 512;
ALTER TABLE nodes ADD COLUMN cpus INTEGER NOT NULL DEFAULT 1;
ALTER TABLE nodes ADD COLUMN disk_gib INTEGER NOT NULL DEFAULT 4;
ALTER TABLE nodes ADD COLUMN slot INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN wanted INTEGER NOT NULL DEFAULT 1;
ALTER TABLE nodes ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1;
UPDATE nodes SET slot = (
    SELECT count(*) FROM nodes AS other
    WHERE other.deployment = nodes.deployment AND other.site = nodes.site
          AND other.rowid < nodes.rowid);

CREATE TABLE resources_2 (
    deployment   INTEGER NOT NULL REFERENCES deployments (id),
    owner        TEXT NOT NULL,
    kind         TEXT NOT NULL,
    ident        TEXT NOT NULL,
    scope        TEXT NOT NULL,
    after        TEXT,
    seconds      INTEGER NOT NULL,
    state        TEXT NOT NULL
                 CHECK (state IN ('wanted', 'planned', 'made', 'removing', 'removed')),
    attempt      INTEGER NOT NULL,
    node_attempt INTEGER NOT NULL,
    token        TEXT NOT NULL,
    handle       TEXT,
    reached_at   TEXT,
    error        TEXT,
    UNIQUE (deployment, owner, kind, ident)
);
INSERT INTO resources_2
    SELECT deployment, owner, kind, ident,
           CASE WHEN node IS NULL THEN '\"deployment\"'
                ELSE json_object('node', node) END,
           NULL, 600, state, 1, 1, '', NULL, NULL, NULL
    FROM resources ORDER BY rowid;
DROP TABLE resources;
ALTER TABLE resources_2 RENAME TO resources;

CREATE TABLE journal (
    id         INTEGER PRIMARY KEY,
    deployment INTEGER NOT NULL REFERENCES deployments (id),
    owner      TEXT NOT NULL,
    kind       TEXT NOT NULL,
    ident      TEXT NOT NULL,
    node       TEXT,
    verb       TEXT NOT NULL CHECK (verb IN ('make', 'remove')),
    attempt    INTEGER NOT NULL,
    began      INTEGER NOT NULL,
    ended      INTEGER,
    error      TEXT
);
CREATE INDEX journal_of_a_deployment ON journal (deployment, id);
",
    "
CREATE TABLE leases (
    deployment INTEGER NOT NULL REFERENCES deployments (id),
    site       TEXT NOT NULL,
    ends       INTEGER NOT NULL,
    refused    INTEGER NOT NULL,
    UNIQUE (deployment, site)
);
",
    "
ALTER TABLE nodes ADD COLUMN image TEXT NOT NULL DEFAULT '';
UPDATE nodes SET image = role;
ALTER TABLE nodes ADD COLUMN person TEXT;
",
    "
CREATE TABLE group_members (
    deployment INTEGER NOT NULL REFERENCES deployments (id),
    name       TEXT NOT NULL,
    person     TEXT NOT NULL,
    UNIQUE (deployment, name, person)
);
",
    "
ALTER TABLE nodes ADD COLUMN older_rules TEXT;
",
];

/// Brings the database to the newest version. One that is newer still is refused. Foreign keys
/// must not be enforced meanwhile: a table that others refer to is made anew.
pub fn migrate(connection: &mut Connection, path: &Path) -> Result<(), CliError> {
    let result = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let tx = result.map_err(|e| failed(path, "upgrade", e))?;
    let read = tx.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0));
    let version = read.map_err(|e| failed(path, "read", e))?;
    if version as usize > STEPS.len() {
        let message = format!(
            "the state database `{}` has version {version}",
            path.display()
        );
        return Err(CliError::new(ExitCode::Missing, message).hint(format!(
            "this provision knows versions up to {}; use a newer one",
            STEPS.len()
        )));
    }
    for step in &STEPS[version as usize..] {
        tx.execute_batch(step)
            .map_err(|e| failed(path, "upgrade", e))?;
    }
    tx.pragma_update(None, "user_version", STEPS.len() as u32)
        .and_then(|()| tx.commit())
        .map_err(|e| failed(path, "upgrade", e))
}
