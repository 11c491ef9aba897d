//! SQLite and nothing else: every statement of the broker stands in this folder.

mod audit;
mod buffer;
mod group;
mod message;
mod metered;
mod read;
mod schema;
pub(crate) mod segment;
mod stream;
mod trace;
mod write;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

pub(crate) use audit::{beside, length};
pub(crate) use buffer::BufferedRow;
pub(crate) use group::GroupRow;
pub(crate) use message::{GroupState, Home, Page};
pub(crate) use read::{LoadedCursor, LoadedGroup, LoadedPart};
pub(crate) use schema::{APPLICATION_ID, VERSION};
pub(crate) use stream::{StreamRow, WindowRow};
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
            Store::File(path) => Connection::open_with_flags(
                path,
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )
            .and_then(|sql| {
                // Until it is clear that the store can be used, what is in its log must not be moved.
                let log = length(&beside(path, "-wal")) > 0;
                sql.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, log)?;
                Ok(sql)
            }),
        }
        .map_err(failed)?;
        schema::prepare(&mut sql).map_err(|e| e.at(PathBuf::from(&name)))?;
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

    /// The store can be used: from now on its log may be moved into it when it is closed.
    pub(crate) fn accept(&self) -> Result<()> {
        let flag = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        self.sql.set_db_config(flag, false).map(drop)
    }

    fn settings(&self, file: bool) -> Result<()> {
        // With one owner per file the only contender is a reader during recovery, for a moment.
        self.sql.busy_timeout(Duration::from_secs(10))?;
        self.sql.set_prepared_statement_cache_capacity(64);
        if file {
            self.sql.pragma_update(None, "journal_mode", "wal")?;
            self.sql.pragma_update(None, "wal_autocheckpoint", 2000)?;
        }
        // In KiB. Messages are written once and read by others; what is read again are a few tables and indexes.
        self.sql.pragma_update(None, "cache_size", -4_000)?;
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

/// What is at the path of a store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// A file without a byte.
    Empty,
    /// A file that begins like a database.
    Database,
}

/// Looks at what is at the path of a store, and refuses what cannot be one.
pub(crate) fn find(path: &Path) -> std::result::Result<Found, OpenError> {
    let refuse = |reason: &str| {
        Err(OpenError::Schema {
            path: path.to_path_buf(),
            reason: reason.into(),
        })
    };
    let io = |source| OpenError::Io {
        path: path.to_path_buf(),
        source,
    };
    let found = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return refuse("it is a directory; name a file"),
        // To open a pipe would be to wait for somebody at its other end.
        Ok(found) if !found.is_file() => return refuse("it is no regular file; name another one"),
        Ok(found) if found.len() == 0 => Found::Empty,
        Ok(_) => Found::Database,
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
            return refuse("it is a link to a file that is not there; name that file");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Nothing,
        Err(error) => return Err(io(error)),
    };
    if found == Found::Database {
        let head = head(path).map_err(io)?;
        if head != b"SQLite format 3\0" {
            return refuse("it is not a Queen store; name another file");
        }
    } else if length(&beside(path, "-wal")) > 0 {
        // SQLite would begin a new database and remove this log.
        let state = match found {
            Found::Nothing => "missing",
            _ => "empty",
        };
        return refuse(&format!(
            "it is {state}, but its log {} is there and holds answered work; put the store back beside its log, or move \
             the log away to begin a new store",
            beside(path, "-wal").display()
        ));
    }
    Ok(found)
}

/// Refuses a database that this program must not open, and one whose log cannot be read. Changes nothing.
pub(crate) fn recognize(path: &Path) -> std::result::Result<(), OpenError> {
    if let Some(reason) = broken_log(path) {
        return Err(OpenError::Schema {
            path: path.to_path_buf(),
            reason: format!(
                "{reason}; put the right log back, or move this one away to go on without that work"
            ),
        });
    }
    if length(&beside(path, "-journal")) > 0 {
        // Only SQLite can settle what was interrupted; the store is looked at when that is done.
        return Ok(());
    }
    let db = Db::at_rest(path)?;
    match schema::recognize(&db.sql) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.at(path.to_path_buf())),
    }
}

/// What is wrong with the log of a store. SQLite takes one whose beginning it cannot read for an empty one.
pub(crate) fn broken_log(path: &Path) -> Option<String> {
    let log = beside(path, "-wal");
    let head = head(&log).ok()?;
    // A log that a crash cut off while it was begun holds nothing yet.
    let begins = head.starts_with(&0x377f_0682_u32.to_be_bytes())
        || head.starts_with(&0x377f_0683_u32.to_be_bytes());
    let fine = begins || head.iter().all(|byte| *byte == 0);
    (!fine).then(|| {
        format!(
            "{} is not a write-ahead log; the work that was in it is missing",
            log.display()
        )
    })
}

/// The first sixteen bytes of a file, or fewer.
fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(16).read_to_end(&mut head)?;
    Ok(head)
}

/// SQLite would be content to read a file that it may not write.
pub(crate) fn must_be_writable(path: &Path) -> std::result::Result<(), OpenError> {
    match File::options().read(true).write(true).open(path) {
        Ok(_) => Ok(()),
        Err(source) => Err(OpenError::Io {
            path: path.to_path_buf(),
            source,
        }),
    }
}

/// Makes the empty file that becomes a store; false when there is one meanwhile.
pub(crate) fn create(path: &Path) -> std::result::Result<bool, OpenError> {
    let mut options = File::options();
    // The mode that SQLite gives to its files.
    match options.write(true).create_new(true).mode(0o644).open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(OpenError::Io {
            path: path.to_path_buf(),
            source,
        }),
    }
}

/// Removes a store that was just created and could not be opened.
pub(crate) fn discard(path: &Path) {
    for file in ["", "-journal", "-wal", "-shm"] {
        // What cannot be removed is empty or holds nothing.
        let _ = fs::remove_file(beside(path, file));
    }
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
        Some(ErrorCode::DatabaseCorrupt) => {
            "; the file is damaged: queen-broker check tells where; restore it from a copy"
        }
        Some(ErrorCode::CannotOpen) => "; check that its directory exists and may be written",
        Some(ErrorCode::SystemIoFailure) => {
            "; the disk of the store fails, is full or over a quota, or a file may not grow further"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "; another program has it open; close that"
        }
        _ => "",
    };
    format!("{error}{hint}")
}

/// Whether it is the disk that failed, and not what was asked of it.
pub(crate) fn is_of_disk(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    is_full(error) || matches!(code, Some(ErrorCode::SystemIoFailure | ErrorCode::ReadOnly))
}

/// Whether there is no space left.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}
