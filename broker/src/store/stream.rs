//! Streams: their definitions, and where groups stand in their windows.

use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use super::read::{damaged, uuid};
use super::segment::{self, Record};
use super::{Db, Result};

/// A stream as it is stored. Times are microseconds.
pub(crate) struct StreamRow {
    pub(crate) id: i64,
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) partitioned: bool,
    pub(crate) duration: i64,
    pub(crate) grace: i64,
    pub(crate) lease: i64,
    pub(crate) strict: bool,
    pub(crate) created: i64,
    pub(crate) updated: i64,
}

/// Where a group stands in the windows of one key.
pub(crate) struct WindowRow {
    pub(crate) key: String,
    /// Where its next window begins.
    pub(crate) next: i64,
    /// The latest end of all windows that were handed out.
    pub(crate) closed: i64,
    /// How many windows were acked.
    pub(crate) acked: i64,
    /// Lease id, expiry and end of the window that is out.
    pub(crate) lease: Option<(Uuid, i64, i64)>,
}

/// A live lease, for the lists.
pub(crate) struct StandRow {
    pub(crate) group: String,
    pub(crate) window: WindowRow,
}

const ROW: &str =
    "id, uuid, name, namespace, partitioned, duration, grace, lease, strict, created, updated";

fn stream(r: &Row) -> Result<StreamRow> {
    Ok(StreamRow {
        id: r.get(0)?,
        uuid: uuid(r, 1)?,
        name: r.get(2)?,
        namespace: r.get(3)?,
        partitioned: r.get(4)?,
        duration: r.get(5)?,
        grace: r.get(6)?,
        lease: r.get(7)?,
        strict: r.get(8)?,
        created: r.get(9)?,
        updated: r.get(10)?,
    })
}

/// Key, next, closed, acked, lease, expires, lease end from a column on.
fn window(r: &Row, at: usize) -> Result<WindowRow> {
    let lease = match r.get::<_, Option<i64>>(at + 5)? {
        Some(expires) => Some((uuid(r, at + 4)?, expires, r.get(at + 6)?)),
        None => None,
    };
    Ok(WindowRow {
        key: r.get(at)?,
        next: r.get(at + 1)?,
        closed: r.get(at + 2)?,
        acked: r.get(at + 3)?,
        lease,
    })
}

impl Db {
    /// Every stream, or the one of that name.
    pub(crate) fn streams(&self, name: Option<&str>) -> Result<Vec<StreamRow>> {
        let mut statement = self.sql.prepare_cached(&format!(
            "SELECT {ROW} FROM stream WHERE ?1 IS NULL OR name = ?1 ORDER BY id"
        ))?;
        let rows = statement.query_map([name], stream)?;
        rows.collect()
    }

    /// Stores a new stream, or what has changed of one that is known.
    pub(crate) fn put_stream(&self, row: &StreamRow) -> Result<()> {
        self.sql
            .prepare_cached(&format!(
                "INSERT OR REPLACE INTO stream ({ROW}) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
            ))?
            .execute(params![
                row.id,
                row.uuid.as_bytes(),
                row.name,
                row.namespace,
                row.partitioned,
                row.duration,
                row.grace,
                row.lease,
                row.strict,
                row.created,
                row.updated
            ])
            .map(drop)
    }

    pub(crate) fn delete_stream(&self, id: i64) -> Result<()> {
        for statement in [
            "DELETE FROM stream_source WHERE stream = ?",
            "DELETE FROM stream_group WHERE stream = ?",
            "DELETE FROM stream_window WHERE stream = ?",
            "DELETE FROM stream WHERE id = ?",
        ] {
            self.sql.prepare_cached(statement)?.execute([id])?;
        }
        Ok(())
    }

    /// Stream and queue of every source.
    pub(crate) fn stream_sources(&self) -> Result<Vec<(i64, i64)>> {
        let mut statement = self
            .sql
            .prepare_cached("SELECT stream, queue FROM stream_source ORDER BY stream, queue")?;
        let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
        rows.collect()
    }

    /// The names of the queues that a stream reads.
    pub(crate) fn source_names(&self, stream: i64) -> Result<Vec<String>> {
        let mut statement = self.sql.prepare_cached(
            "SELECT q.name FROM stream_source s JOIN queue q ON q.id = s.queue WHERE s.stream = ? ORDER BY q.id",
        )?;
        let rows = statement.query_map([stream], |r| r.get(0))?;
        rows.collect()
    }

    pub(crate) fn insert_stream_source(&self, stream: i64, queue: i64) -> Result<()> {
        self.sql
            .prepare_cached("INSERT OR IGNORE INTO stream_source (stream, queue) VALUES (?,?)")?
            .execute([stream, queue])
            .map(drop)
    }

    /// The time a group was moved to, for the keys that come later.
    pub(crate) fn stream_since(&self, stream: i64, group: &str) -> Result<Option<i64>> {
        self.sql
            .prepare_cached("SELECT since FROM stream_group WHERE stream = ? AND grp = ?")?
            .query_row(params![stream, group], |r| r.get(0))
            .optional()
    }

    pub(crate) fn put_stream_since(&self, stream: i64, group: &str, since: i64) -> Result<()> {
        self.sql
            .prepare_cached(
                "INSERT OR REPLACE INTO stream_group (stream, grp, since) VALUES (?,?,?)",
            )?
            .execute(params![stream, group, since])
            .map(drop)
    }

    /// Where a group stands in each key that it has met.
    pub(crate) fn stream_windows(&self, stream: i64, group: &str) -> Result<Vec<WindowRow>> {
        let mut statement = self.sql.prepare_cached(
            "SELECT key, next, closed, acked, lease, expires, lease_end FROM stream_window \
             WHERE stream = ? AND grp = ? ORDER BY key",
        )?;
        let rows = statement.query_map(params![stream, group], |r| window(r, 0))?;
        rows.collect()
    }

    /// The same for every group.
    pub(crate) fn stream_stands(&self, stream: i64) -> Result<Vec<StandRow>> {
        let mut statement = self.sql.prepare_cached(
            "SELECT grp, key, next, closed, acked, lease, expires, lease_end FROM stream_window \
             WHERE stream = ? ORDER BY grp, key",
        )?;
        let rows = statement.query_map([stream], |r| {
            Ok(StandRow {
                group: r.get(0)?,
                window: window(r, 1)?,
            })
        })?;
        rows.collect()
    }

    /// Every lease with its stream, group and key.
    pub(crate) fn stream_leases(&self) -> Result<Vec<(Uuid, i64, String, String)>> {
        let mut statement = self.sql.prepare_cached(
            "SELECT lease, stream, grp, key FROM stream_window WHERE lease IS NOT NULL",
        )?;
        let rows =
            statement.query_map([], |r| Ok((uuid(r, 0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?;
        rows.collect()
    }

    /// The end of the latest window that was handed out, by stream.
    pub(crate) fn closed_windows(&self) -> Result<Vec<(i64, i64)>> {
        let mut statement = self
            .sql
            .prepare_cached("SELECT stream, max(closed) FROM stream_window GROUP BY stream")?;
        let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
        rows.collect()
    }

    pub(crate) fn put_stream_window(
        &self,
        stream: i64,
        group: &str,
        row: &WindowRow,
    ) -> Result<()> {
        let (lease, expires, end) = match &row.lease {
            Some((id, expires, end)) => (Some(id.as_bytes()), Some(*expires), Some(*end)),
            None => (None, None, None),
        };
        self.sql
            .prepare_cached(
                "INSERT OR REPLACE INTO stream_window (stream, grp, key, next, closed, acked, lease, expires, lease_end) \
                 VALUES (?,?,?,?,?,?,?,?,?)",
            )?
            .execute(params![stream, group, row.key, row.next, row.closed, row.acked, lease, expires, end])
            .map(drop)
    }

    /// The first position in `first..next` that was pushed at `time` or after, found by halving: what is stored later was
    /// pushed later.
    pub(crate) fn position_at(&self, part: i64, first: i64, next: i64, time: i64) -> Result<i64> {
        let mut statement = self.sql.prepare_cached(
            "SELECT first, last, created FROM segment WHERE part = ? AND last >= ? ORDER BY last LIMIT 1",
        )?;
        let (mut low, mut high) = (first, next);
        while low < high {
            let middle = low + (high - low) / 2;
            let found: Option<(i64, i64, i64)> = statement
                .query_row([part, middle], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
                .optional()?;
            match found {
                Some((_, last, created)) if created < time => low = last + 1,
                Some((first, _, _)) => high = first.max(low).min(middle),
                None => high = middle,
            }
        }
        Ok(low)
    }

    /// Shows every message from a position on that was pushed before `end`, in order: time and message.
    pub(crate) fn each_before(
        &self,
        part: i64,
        from: i64,
        end: i64,
        mut show: impl FnMut(i64, Record),
    ) -> Result<()> {
        let mut statement = self.sql.prepare_cached(
            "SELECT first, created, body FROM segment WHERE part = ? AND last >= ? ORDER BY last",
        )?;
        let mut rows = statement.query(params![part, from])?;
        while let Some(row) = rows.next()? {
            let (first, created): (i64, i64) = (row.get(0)?, row.get(1)?);
            if created >= end {
                break;
            }
            let body = row.get_ref(2)?.as_blob()?;
            for (position, record) in (first..).zip(segment::records(body)) {
                let record = record.map_err(damaged)?;
                if position >= from {
                    show(created, record);
                }
            }
        }
        Ok(())
    }
}
