//! Looking at single messages and pages of them.

use rusqlite::{OptionalExtension, params};
use uuid::Uuid;

use super::read::{damaged, uuid};
use super::segment::{self, Record};
use super::{Db, Result};

/// A partition with the queue it belongs to.
pub(crate) struct Home {
    pub(crate) part: i64,
    pub(crate) part_id: Uuid,
    pub(crate) part_name: String,
    pub(crate) queue_name: String,
    pub(crate) namespace: String,
    pub(crate) task: String,
    /// The options of the queue, as JSON.
    pub(crate) options: String,
}

/// Where a group stands in a partition.
pub(crate) struct GroupState {
    pub(crate) name: String,
    pub(crate) committed: i64,
    /// When its lease ends, or ended.
    pub(crate) expires: Option<i64>,
}

/// Which messages to show; empty names mean any.
pub(crate) struct Page {
    pub(crate) queue: String,
    pub(crate) part: String,
    pub(crate) namespace: String,
    pub(crate) task: String,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

const HOME: &str = "p.id, p.uuid, p.name, q.name, q.namespace, q.task, q.options";

fn home(row: &rusqlite::Row) -> Result<Home> {
    Ok(Home {
        part: row.get(0)?,
        part_id: uuid(row, 1)?,
        part_name: row.get(2)?,
        queue_name: row.get(3)?,
        namespace: row.get(4)?,
        task: row.get(5)?,
        options: row.get(6)?,
    })
}

impl Db {
    /// The partition with that id.
    pub(crate) fn home(&self, part: Uuid) -> Result<Option<Home>> {
        self.sql
            .prepare_cached(&format!(
                "SELECT {HOME} FROM part p JOIN queue q ON q.id = p.queue WHERE p.uuid = ?"
            ))?
            .query_row([part.as_bytes()], home)
            .optional()
    }

    /// The groups that read a partition, with where they stand.
    pub(crate) fn group_states(&self, part: i64) -> Result<Vec<GroupState>> {
        let mut statement = self.sql.prepare_cached(
            "SELECT g.name, coalesce(c.committed, -1), c.expires FROM part p JOIN grp g ON g.queue = p.queue \
             LEFT JOIN cursor c ON c.grp = g.id AND c.part = p.id \
             WHERE p.id = ? AND (c.part IS NOT NULL OR (g.mode IS NOT NULL AND g.dormant = 0)) ORDER BY g.id",
        )?;
        let rows = statement.query_map([part], |r| {
            Ok(GroupState {
                name: r.get(0)?,
                committed: r.get(1)?,
                expires: r.get(2)?,
            })
        })?;
        rows.collect()
    }

    /// The groups of a queue, by name; without a name there are none.
    pub(crate) fn group_names(&self, queue: &str) -> Result<Vec<String>> {
        let mut statement = self.sql.prepare_cached(
            "SELECT g.name FROM grp g JOIN queue q ON q.id = g.queue WHERE q.name = ?",
        )?;
        let rows = statement.query_map([queue], |r| r.get(0))?;
        rows.collect()
    }

    /// Position, error and count of the newest dead-letter record of a message.
    pub(crate) fn dead_letter_of(
        &self,
        part: i64,
        txn: &str,
    ) -> Result<Option<(i64, String, i64)>> {
        self.sql
            .prepare_cached(
                "SELECT position, error, retries FROM dead_letter WHERE part = ? AND txn = ? ORDER BY id DESC LIMIT 1",
            )?
            .query_row(params![part, txn], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
            .optional()
    }

    /// The payload of a dead-lettered message.
    pub(crate) fn buried(&self, part: i64, txn: &str) -> Result<Option<String>> {
        self.sql
            .prepare_cached("SELECT payload FROM dead_letter WHERE part = ? AND txn = ? ORDER BY id DESC LIMIT 1")?
            .query_row(params![part, txn], |r| r.get(0))
            .optional()
    }

    /// The positions of a partition's dead-lettered messages within a span.
    pub(crate) fn dead_positions(&self, part: i64, first: i64, last: i64) -> Result<Vec<i64>> {
        let mut statement = self.sql.prepare_cached(
            "SELECT position FROM dead_letter WHERE part = ? AND position BETWEEN ? AND ?",
        )?;
        let rows = statement.query_map(params![part, first, last], |r| r.get(0))?;
        rows.collect()
    }

    /// Shows messages from the newest to the oldest until told to stop: home, position of the segment's first message,
    /// own position, time, message.
    pub(crate) fn browse(
        &self,
        page: &Page,
        mut show: impl FnMut(&Home, i64, i64, i64, &Record) -> Result<bool>,
    ) -> Result<()> {
        let mut statement = self.sql.prepare_cached(&format!(
            "SELECT {HOME}, s.first, s.created, s.body FROM segment s JOIN part p ON p.id = s.part \
             JOIN queue q ON q.id = p.queue \
             WHERE (?1 = '' OR q.name = ?1) AND (?2 = '' OR p.name = ?2) AND (?3 = '' OR q.namespace = ?3) \
             AND (?4 = '' OR q.task = ?4) AND s.created BETWEEN ?5 AND ?6 ORDER BY s.created DESC, s.last DESC"
        ))?;
        let mut rows = statement.query(params![
            page.queue,
            page.part,
            page.namespace,
            page.task,
            page.from,
            page.to
        ])?;
        while let Some(row) = rows.next()? {
            let home = home(row)?;
            let (first, created): (i64, i64) = (row.get(7)?, row.get(8)?);
            let body = row.get_ref(9)?.as_blob()?;
            let records = segment::records(body).collect::<std::result::Result<Vec<_>, _>>();
            let records = records.map_err(damaged)?;
            for (record, position) in records
                .iter()
                .rev()
                .zip((first..first + records.len() as i64).rev())
            {
                if !show(&home, first, position, created, record)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Shows the newest message with a transaction id in a partition: position, time, message. It is looked for at a
    /// position first, if one is given. False: there is none.
    pub(crate) fn find_message(
        &self,
        part: i64,
        txn: &str,
        at: Option<i64>,
        show: impl FnOnce(i64, i64, &Record),
    ) -> Result<bool> {
        let mut show = Some(show);
        if let Some(at) = at {
            self.each(part, at, at, |position, created, record| {
                if record.txn == txn
                    && let Some(show) = show.take()
                {
                    show(position, created, &record);
                }
            })?;
        }
        let Some(show) = show else { return Ok(true) };
        let mut statement = self.sql.prepare_cached(
            "SELECT first, created, body FROM segment WHERE part = ? ORDER BY last DESC",
        )?;
        let mut rows = statement.query([part])?;
        while let Some(row) = rows.next()? {
            let (first, created): (i64, i64) = (row.get(0)?, row.get(1)?);
            let mut found = None;
            for (position, record) in (first..).zip(segment::records(row.get_ref(2)?.as_blob()?)) {
                let record = record.map_err(damaged)?;
                if record.txn == txn {
                    found = Some((position, record));
                }
            }
            if let Some((position, record)) = found {
                show(position, created, &record);
                return Ok(true);
            }
        }
        Ok(false)
    }
}
