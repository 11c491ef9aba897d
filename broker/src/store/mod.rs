//! SQLite and nothing else: every statement of the broker stands in this folder.

mod audit;
mod buffer;
mod group;
mod message;
mod read;
mod schema;
pub(crate) mod segment;
mod trace;
mod write;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

pub(crate) use audit::{beside, length};
pub(crate) use buffer::BufferedRow;
pub(crate) use group::GroupRow;
pub(crate) use message::{GroupState, Home, Page};
pub(crate) use read::{LoadedCursor, LoadedGroup, LoadedPart, Stored};
use schema::SchemaError;
pub(crate) use schema::{APPLICATION_ID, VERSION};
pub(crate) use trace::TraceRow;
pub(crate) use write::{CursorRow, DeadLetterRow};

use crate::error::OpenError;
use crate::options::{Durability, Store};

pub(crate) type Result<T> = rusqlite::Result<T>;

/// Offsets are counted from zero; this is "nothing yet".
pub(crate) const NONE: i64 = -1;

/// A connection with its settings.
pub(crate) struct Db {
    sql: Connection,
    durability: Durability,
    /// Whether the next commit waits for the disk; kept because setting the pragma costs a statement.
    syncing: bool,
}

impl Db {
    /// Opens the one connection that writes, creating or checking the store.
    pub(crate) fn writer(
        store: &Store,
        durability: Durability,
    ) -> std::result::Result<Db, OpenError> {
        let name = display(store);
        let failed = |e: rusqlite::Error| OpenError::Store {
            path: name.clone(),
            message: explain(&e),
        };
        let mut sql = match store {
            Store::Memory => Connection::open_in_memory(),
            Store::File(path) => Connection::open(path),
        }
        .map_err(failed)?;
        // A store that turns out to be another program's keeps its log as it is.
        let keep_log = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        sql.set_db_config(keep_log, true).map_err(failed)?;
        schema::prepare(&mut sql).map_err(|e| match e {
            SchemaError::Foreign(reason) => OpenError::Schema {
                path: PathBuf::from(&name),
                reason,
            },
            SchemaError::Sql(e) => failed(e),
        })?;
        sql.set_db_config(keep_log, false).map_err(failed)?;
        let db = Db {
            sql,
            durability,
            syncing: durability == Durability::Full,
        };
        db.settings(matches!(store, Store::File(_)))
            .map_err(failed)?;
        Ok(db)
    }

    /// Opens a connection that only reads. A store in memory has none: it is private to its writer.
    pub(crate) fn reader(path: &Path) -> Result<Db> {
        let sql = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        sql.busy_timeout(Duration::from_secs(10))?;
        sql.set_prepared_statement_cache_capacity(32);
        Ok(Db {
            sql,
            durability: Durability::Memory,
            syncing: false,
        })
    }

    fn settings(&self, file: bool) -> Result<()> {
        // With one owner per file the only contender is a reader during recovery, for a moment.
        self.sql.busy_timeout(Duration::from_secs(10))?;
        self.sql.set_prepared_statement_cache_capacity(64);
        if file {
            self.sql.pragma_update(None, "journal_mode", "wal")?;
            self.sql.pragma_update(None, "wal_autocheckpoint", 2000)?;
        }
        self.sql.pragma_update(None, "cache_size", -32_000)?;
        self.sql
            .pragma_update(None, "synchronous", level(self.durability, true))
    }

    /// Starts a transaction. With `sync` its commit waits for the disk where the durability asks for it.
    pub(crate) fn begin(&mut self, sync: bool) -> Result<()> {
        if self.durability == Durability::Full && sync != self.syncing {
            self.sql
                .pragma_update(None, "synchronous", level(self.durability, sync))?;
            self.syncing = sync;
        }
        self.sql.prepare_cached("BEGIN")?.execute([]).map(drop)
    }

    pub(crate) fn commit(&self) -> Result<()> {
        self.sql.prepare_cached("COMMIT")?.execute([]).map(drop)
    }

    /// Ends a failed transaction. SQLite may have ended it already, which is as good.
    pub(crate) fn rollback(&self) {
        if !self.sql.is_autocommit() {
            let _ = self.sql.execute_batch("ROLLBACK");
        }
    }
}

/// Refuses what cannot be a store before anything is written beside it.
pub(crate) fn check_file(path: &Path) -> std::result::Result<(), OpenError> {
    let refuse = |message: &str| {
        let path = path.display().to_string();
        Err(OpenError::Store {
            path,
            message: message.into(),
        })
    };
    let io = |source| OpenError::Io {
        path: path.to_path_buf(),
        source,
    };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return refuse("it is a directory; name a file"),
        // To open a pipe would be to wait for somebody at its other end.
        Ok(found) if !found.is_file() => return refuse("it is no regular file; name another one"),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
    }
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(16).read_to_end(&mut head))
        .map_err(io)?;
    if head.is_empty() || head == b"SQLite format 3\0" {
        return Ok(());
    }
    refuse("the file is not a Queen store, name another one")
}

fn level(durability: Durability, sync: bool) -> &'static str {
    match durability {
        Durability::Full if sync => "FULL",
        Durability::Full | Durability::Normal => "NORMAL",
        Durability::Memory => "OFF",
    }
}

fn display(store: &Store) -> String {
    match store {
        Store::Memory => ":memory:".into(),
        Store::File(path) => path.display().to_string(),
    }
}

/// SQLite's words, and what to do where we know it.
pub(crate) fn explain(error: &rusqlite::Error) -> String {
    let hint = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "; free some space on the disk of the store",
        Some(ErrorCode::ReadOnly) => "; make the file and its directory writable",
        Some(ErrorCode::NotADatabase) => "; the file is not a Queen store, name another one",
        Some(ErrorCode::DatabaseCorrupt) => "; the file is damaged, restore it from a copy",
        Some(ErrorCode::CannotOpen) => "; check that its directory exists and may be written",
        _ => "",
    };
    format!("{error}{hint}")
}
