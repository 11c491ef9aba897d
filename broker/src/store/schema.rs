//! The tables, their version, and the settings of a connection. `docs/STORE.md` tells the same in prose.

use std::path::PathBuf;

use rusqlite::Connection;

use super::explain;
use crate::error::OpenError;

/// Marks the file as a Queen store in SQLite's header: the letters `QuEN`.
pub(crate) const APPLICATION_ID: i32 = 0x5175_454e;

/// What each version of the layout adds to the one before; the number of steps is the version this program writes.
/// A new store walks through all of them, an older one through those it lacks. A released step never changes.
const STEPS: &[&str] = &[
    TABLES, FINDERS, SIGNATURES, RETENTION, TRACES, BUFFER, NO_TXNS, STREAMS,
];

/// The layout this program writes.
pub(crate) const VERSION: i32 = STEPS.len() as i32;

/// Version 2: discovery by namespace and task.
const FINDERS: &str = "
CREATE TABLE finder (
    namespace TEXT NOT NULL,
    task TEXT NOT NULL,
    grp TEXT NOT NULL,
    mode TEXT NOT NULL,
    since INTEGER NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (namespace, task, grp)
) WITHOUT ROWID;
";

/// Version 3: messages may carry a trace id and a producer. That is all in the body of a segment, so there is nothing
/// to change; but an older program must not try to read it.
const SIGNATURES: &str = "";

/// Version 4: retention, and groups that keep their registration without cursors.
const RETENTION: &str = "
ALTER TABLE part ADD COLUMN next INTEGER NOT NULL DEFAULT 0;
ALTER TABLE part ADD COLUMN newest INTEGER NOT NULL DEFAULT 0;
ALTER TABLE grp ADD COLUMN dormant INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursor ADD COLUMN consumed INTEGER NOT NULL DEFAULT 0;
CREATE TABLE evicted (
    part INTEGER NOT NULL,
    txn TEXT NOT NULL,
    message BLOB NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (part, txn)
) WITHOUT ROWID;
CREATE INDEX evicted_until ON evicted (until);
";

/// Version 5: traces, which clients write about messages.
const TRACES: &str = "
CREATE TABLE trace (
    id INTEGER PRIMARY KEY,
    uuid BLOB NOT NULL,
    part BLOB NOT NULL,
    txn TEXT NOT NULL,
    grp TEXT NOT NULL,
    event TEXT NOT NULL,
    data TEXT NOT NULL,
    names TEXT NOT NULL,
    created INTEGER NOT NULL
);
CREATE INDEX trace_message ON trace (part, txn);
CREATE TABLE trace_name (
    name TEXT NOT NULL,
    trace INTEGER NOT NULL,
    PRIMARY KEY (name, trace)
) WITHOUT ROWID;
";

/// Version 6: messages that came during push maintenance.
const BUFFER: &str = "
CREATE TABLE buffered (
    id INTEGER PRIMARY KEY,
    request INTEGER NOT NULL,
    queue TEXT NOT NULL,
    part TEXT NOT NULL,
    txn TEXT,
    message BLOB NOT NULL,
    producer TEXT,
    payload TEXT NOT NULL
);
";

/// Version 7: where transaction ids lead to is held in memory.
const NO_TXNS: &str = "
DROP TABLE txn;
";

/// Version 8: streams, and where groups stand in their windows.
const STREAMS: &str = "
CREATE TABLE stream (
    id INTEGER PRIMARY KEY,
    uuid BLOB NOT NULL,
    name TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL,
    partitioned INTEGER NOT NULL,
    duration INTEGER NOT NULL,
    grace INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    strict INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
);
CREATE TABLE stream_source (
    stream INTEGER NOT NULL,
    queue INTEGER NOT NULL,
    PRIMARY KEY (stream, queue)
) WITHOUT ROWID;
CREATE TABLE stream_group (
    stream INTEGER NOT NULL,
    grp TEXT NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (stream, grp)
) WITHOUT ROWID;
CREATE TABLE stream_window (
    stream INTEGER NOT NULL,
    grp TEXT NOT NULL,
    key TEXT NOT NULL,
    next INTEGER NOT NULL,
    closed INTEGER NOT NULL,
    acked INTEGER NOT NULL,
    lease BLOB,
    expires INTEGER,
    lease_end INTEGER,
    PRIMARY KEY (stream, grp, key)
) WITHOUT ROWID;
";

/// Version 1.
const TABLES: &str = "
CREATE TABLE queue (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid BLOB NOT NULL,
    name TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL,
    task TEXT NOT NULL,
    options TEXT NOT NULL,
    created INTEGER NOT NULL
);
CREATE TABLE part (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid BLOB NOT NULL,
    queue INTEGER NOT NULL,
    name TEXT NOT NULL,
    created INTEGER NOT NULL,
    UNIQUE (queue, name)
);
CREATE TABLE segment (
    id INTEGER PRIMARY KEY,
    part INTEGER NOT NULL,
    last INTEGER NOT NULL,
    first INTEGER NOT NULL,
    created INTEGER NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (part, last)
);
CREATE TABLE txn (
    part INTEGER NOT NULL,
    txn TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (part, txn, position)
) WITHOUT ROWID;
CREATE TABLE grp (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue INTEGER NOT NULL,
    name TEXT NOT NULL,
    mode TEXT,
    since INTEGER,
    created INTEGER NOT NULL,
    UNIQUE (queue, name)
);
CREATE TABLE cursor (
    grp INTEGER NOT NULL,
    part INTEGER NOT NULL,
    committed INTEGER NOT NULL,
    delivered INTEGER NOT NULL,
    retries INTEGER NOT NULL,
    lease BLOB,
    expires INTEGER,
    batch_end INTEGER,
    PRIMARY KEY (grp, part)
) WITHOUT ROWID;
CREATE TABLE pin (
    queue TEXT NOT NULL,
    part TEXT NOT NULL,
    grp TEXT NOT NULL,
    PRIMARY KEY (queue, part, grp)
) WITHOUT ROWID;
CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY,
    uuid BLOB NOT NULL,
    part INTEGER NOT NULL,
    grp TEXT NOT NULL,
    position INTEGER NOT NULL,
    message BLOB NOT NULL,
    txn TEXT NOT NULL,
    payload TEXT NOT NULL,
    error TEXT NOT NULL,
    retries INTEGER NOT NULL,
    failed INTEGER NOT NULL
);
CREATE INDEX dead_letter_part ON dead_letter (part);
";

/// Why a database cannot be used.
pub(crate) enum SchemaError {
    /// It is not ours, or of another version.
    Foreign(String),
    /// SQLite failed.
    Sql(rusqlite::Error),
}

impl SchemaError {
    /// The error of opening a store.
    pub(crate) fn at(self, path: PathBuf) -> OpenError {
        match self {
            SchemaError::Foreign(reason) => OpenError::Schema { path, reason },
            SchemaError::Sql(error) => OpenError::Store {
                path: path.display().to_string(),
                message: explain(&error),
            },
        }
    }
}

impl From<rusqlite::Error> for SchemaError {
    fn from(error: rusqlite::Error) -> Self {
        SchemaError::Sql(error)
    }
}

/// Creates the tables in an empty database, brings an older store up to date, and refuses any other.
pub(crate) fn prepare(db: &mut Connection) -> Result<(), SchemaError> {
    let version = recognize(db)?;
    Ok(migrate(db, STEPS.get(version..).unwrap_or_default())?)
}

/// The version of a store, zero for an empty database. Any other database is refused.
pub(crate) fn recognize(db: &Connection) -> Result<usize, SchemaError> {
    let application: i32 = db.query_row("PRAGMA application_id", [], |r| r.get(0))?;
    let version: i32 = db.query_row("PRAGMA user_version", [], |r| r.get(0))?;
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_master", [], |r| r.get(0))?;
    if application == APPLICATION_ID {
        return match usize::try_from(version) {
            Ok(version @ 1..) if version <= STEPS.len() => Ok(version),
            _ => Err(SchemaError::Foreign(format!(
                "its layout has version {version} and this program knows the versions up to {VERSION}; \
                 open it with the program that wrote it"
            ))),
        };
    }
    if application != 0 || version != 0 || tables != 0 {
        return Err(SchemaError::Foreign(format!(
            "it is a database of another program (application id {application}, {tables} tables); name another file"
        )));
    }
    Ok(0)
}

/// Every table and index of the layout with the statement that made it. An index that comes with its table has none.
pub(crate) fn objects() -> rusqlite::Result<Vec<(String, Option<String>)>> {
    let mut db = Connection::open_in_memory()?;
    migrate(&mut db, STEPS)?;
    let mut statement = db.prepare("SELECT name, sql FROM sqlite_master ORDER BY rowid")?;
    let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
    rows.collect()
}

/// Takes the steps in one transaction: a store is of the old version or of the new one, never between.
fn migrate(db: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    let tx = db.transaction()?;
    for step in steps {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "user_version", VERSION)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_store_moves_forward_and_keeps_its_rows() {
        let mut db = Connection::open_in_memory().unwrap();
        db.execute_batch(TABLES).unwrap();
        db.pragma_update(None, "user_version", 1).unwrap();
        db.pragma_update(None, "application_id", APPLICATION_ID)
            .unwrap();
        db.execute_batch(
            "INSERT INTO queue (uuid, name, namespace, task, options, created) VALUES (x'00', 'q', '', '', '{}', 1)",
        )
        .unwrap();
        assert!(prepare(&mut db).is_ok());
        assert!(
            prepare(&mut db).is_ok(),
            "the second time nothing is left to do"
        );
        let (version, queues): (i32, i32) = db
            .query_row(
                "SELECT user_version, (SELECT count(*) FROM queue) FROM pragma_user_version",
                [],
                |r| Ok((r.get(0)?, r.get(1)?)),
            )
            .unwrap();
        assert_eq!((version, queues), (VERSION, 1));
        db.pragma_update(None, "user_version", VERSION + 1).unwrap();
        assert!(matches!(prepare(&mut db), Err(SchemaError::Foreign(_))));
    }
}
