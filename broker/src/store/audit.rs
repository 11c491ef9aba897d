//! Looking at a store without changing it: how it is opened for that, and statements that check it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::segment::{self, Damaged, Record};
use super::{Db, Result, explain, schema};
use crate::error::OpenError;
use crate::options::Durability;

/// A segment as it was stored.
pub(crate) struct SegmentRow {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) created: i64,
}

/// A dead-letter record, as far as it can be checked.
pub(crate) struct BuriedRow {
    pub(crate) id: i64,
    pub(crate) part: i64,
    pub(crate) group: String,
    pub(crate) position: i64,
    pub(crate) message: Vec<u8>,
    pub(crate) payload: String,
}

/// The tables whose rows name a row of another table: table, column, what it names.
const REFERENCES: [(&str, &str, &str); 12] = [
    ("part", "queue", "queue"),
    ("grp", "queue", "queue"),
    ("segment", "part", "part"),
    ("evicted", "part", "part"),
    ("dead_letter", "part", "part"),
    ("cursor", "part", "part"),
    ("cursor", "grp", "grp"),
    ("trace_name", "trace", "trace"),
    ("stream_source", "stream", "stream"),
    ("stream_source", "queue", "queue"),
    ("stream_group", "stream", "stream"),
    ("stream_window", "stream", "stream"),
];

impl Db {
    /// Opens a store that nobody changes meanwhile. Nothing is written, unless there is a log to be read: then SQLite
    /// brings the index of that log (`-shm`) up to date.
    pub(crate) fn at_rest(path: &Path) -> std::result::Result<Db, OpenError> {
        let journal = beside(path, "-journal");
        if length(&journal) > 0 {
            return Err(OpenError::Schema {
                path: path.to_path_buf(),
                reason: format!(
                    "it was interrupted while it was made and {} waits to be rolled back; \
                     start queen-broker serve on it once",
                    journal.display()
                ),
            });
        }
        let immutable = length(&beside(path, "-wal")) == 0;
        Db::look(path, immutable).map_err(|e| OpenError::Store {
            path: path.display().to_string(),
            message: explain(&e),
        })
    }

    /// Opens a store that another process may be working on. Nothing is written: SQLite sees to it that neither disturbs
    /// the other.
    pub(crate) fn at_work(path: &Path) -> std::result::Result<Db, OpenError> {
        Db::look(path, false).map_err(|e| OpenError::Store {
            path: path.display().to_string(),
            message: explain(&e),
        })
    }

    fn look(path: &Path, immutable: bool) -> Result<Db> {
        let mut uri = String::from("file:");
        for byte in path.as_os_str().as_bytes() {
            match byte {
                b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                    uri.push(char::from(*byte));
                }
                other => uri.push_str(&format!("%{other:02X}")),
            }
        }
        uri.push_str("?mode=ro");
        if immutable {
            uri.push_str("&immutable=1");
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_URI;
        let sql = Connection::open_with_flags(uri, flags)?;
        sql.busy_timeout(std::time::Duration::from_secs(10))?;
        sql.set_prepared_statement_cache_capacity(32);
        // One picture for everything that is asked.
        sql.execute_batch("BEGIN")?;
        Ok(Db {
            sql,
            durability: Durability::Memory,
            syncing: false,
        })
    }

    /// Application id and layout version, as SQLite reads them.
    pub(crate) fn identity(&self) -> Result<(i32, i32)> {
        let pragma = |name: &str| {
            self.sql
                .query_row(&format!("PRAGMA {name}"), [], |r| r.get(0))
        };
        Ok((pragma("application_id")?, pragma("user_version")?))
    }

    /// What SQLite's own check of the file finds, line by line.
    pub(crate) fn integrity(&self, mut fault: impl FnMut(&str)) -> Result<()> {
        let mut statement = self.sql.prepare("PRAGMA integrity_check(1000)")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let found: String = row.get(0)?;
            found
                .lines()
                .filter(|line| *line != "ok" && !line.starts_with("*** in database"))
                .for_each(&mut fault);
        }
        Ok(())
    }

    /// The tables and indexes that are missing or not as this program makes them.
    pub(crate) fn strange_tables(&self) -> Result<Vec<String>> {
        let mut strange = Vec::new();
        for (name, sql) in schema::objects()? {
            let found: Option<Option<String>> = self
                .sql
                .prepare_cached("SELECT sql FROM sqlite_master WHERE name = ?")?
                .query_map([&name], |r| r.get(0))?
                .next()
                .transpose()?;
            match found {
                None => strange.push(format!("{name} is missing")),
                Some(found) if found != sql => strange.push(format!("{name} has another layout")),
                Some(_) => {}
            }
        }
        Ok(strange)
    }

    /// The segments of a partition in the order of their offsets, each with its messages.
    pub(crate) fn each_segment(
        &self,
        part: i64,
        mut show: impl FnMut(
            SegmentRow,
            &mut dyn Iterator<Item = std::result::Result<Record<'_>, Damaged>>,
        ) -> Result<()>,
    ) -> Result<()> {
        let mut statement = self.sql.prepare_cached(
            "SELECT first, last, created, body FROM segment WHERE part = ? ORDER BY last",
        )?;
        let mut rows = statement.query([part])?;
        while let Some(row) = rows.next()? {
            let segment = SegmentRow {
                first: row.get(0)?,
                last: row.get(1)?,
                created: row.get(2)?,
            };
            let body = row.get_ref(3)?.as_blob()?;
            show(segment, &mut segment::records(body))?;
        }
        Ok(())
    }

    /// How a group or a search was registered, once for each way.
    pub(crate) fn modes(&self) -> Result<Vec<String>> {
        let mut statement = self
            .sql
            .prepare("SELECT mode FROM grp WHERE mode IS NOT NULL UNION SELECT mode FROM finder")?;
        let rows = statement.query_map([], |r| r.get(0))?;
        rows.collect()
    }

    /// Whether retention may have removed messages of a partition.
    pub(crate) fn was_swept(&self, part: i64) -> Result<bool> {
        self.sql
            .prepare_cached("SELECT next > 0 FROM part WHERE id = ?")?
            .query_row([part], |r| r.get(0))
    }

    /// Every dead-letter record.
    pub(crate) fn each_buried(&self, mut show: impl FnMut(BuriedRow) -> Result<()>) -> Result<()> {
        let mut statement = self.sql.prepare(
            "SELECT id, part, grp, position, message, payload FROM dead_letter ORDER BY part, position",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            show(BuriedRow {
                id: row.get(0)?,
                part: row.get(1)?,
                group: row.get(2)?,
                position: row.get(3)?,
                message: row.get(4)?,
                payload: row.get(5)?,
            })?;
        }
        Ok(())
    }

    /// How many rows of each table name something that does not exist.
    pub(crate) fn orphans(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for (table, column, target) in REFERENCES {
            let (rows, example): (i64, Option<i64>) = self.sql.query_row(
                &format!(
                    "SELECT count(*), min({column}) FROM {table} WHERE {column} NOT IN (SELECT id FROM {target})"
                ),
                [],
                |r| Ok((r.get(0)?, r.get(1)?)),
            )?;
            if let (1.., Some(example)) = (rows, example) {
                found.push(format!(
                    "{rows} rows of {table} belong to no {target}, one of them to number {example}"
                ));
            }
        }
        Ok(found)
    }

    /// Whether an error tells of damage in the store. The others tell of the machine: a failing disk, no memory.
    pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
        !matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::SystemIoFailure
                    | ErrorCode::CannotOpen
                    | ErrorCode::PermissionDenied
                    | ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::OutOfMemory
                    | ErrorCode::ReadOnly
            )
        )
    }
}

/// The file beside a store that SQLite names with an ending.
pub(crate) fn beside(store: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(store);
    name.push(ending);
    PathBuf::from(name)
}

/// The size of a file; zero when there is none.
pub(crate) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}
