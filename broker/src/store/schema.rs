//! The tables, their version, and the settings of a connection. `docs/STORE.md` tells the same in prose.

use rusqlite::Connection;

/// Marks the file as a Queen store in SQLite's header: the letters `QuEN`.
pub(crate) const APPLICATION_ID: i32 = 0x5175_454e;

/// The layout this program writes. Raise it together with a migration in [`prepare`].
pub(crate) const VERSION: i32 = 1;

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

impl From<rusqlite::Error> for SchemaError {
    fn from(error: rusqlite::Error) -> Self {
        SchemaError::Sql(error)
    }
}

/// Creates the tables in an empty database and checks the marks of any other.
pub(crate) fn prepare(db: &mut Connection) -> Result<(), SchemaError> {
    let application: i32 = db.query_row("PRAGMA application_id", [], |r| r.get(0))?;
    let version: i32 = db.query_row("PRAGMA user_version", [], |r| r.get(0))?;
    if application == APPLICATION_ID {
        return if version == VERSION {
            Ok(())
        } else {
            Err(SchemaError::Foreign(format!(
                "its layout has version {version} and this program uses version {VERSION}; \
                 open it with the program that wrote it"
            )))
        };
    }
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_master", [], |r| r.get(0))?;
    if application != 0 || version != 0 || tables != 0 {
        return Err(SchemaError::Foreign(format!(
            "it is a database of another program (application id {application}, {tables} tables); name another file"
        )));
    }
    let tx = db.transaction()?;
    tx.execute_batch(TABLES)?;
    tx.pragma_update(None, "user_version", VERSION)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.commit()?;
    Ok(())
}
