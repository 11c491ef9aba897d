//! Statements that only look.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, params, types::Type};
use uuid::Uuid;

use super::segment::{self, Damaged, Record};
use super::{Db, NONE, Result};
use crate::engine::command::DeadLetterRequest;
use crate::engine::{FinderKey, Mode, Subscription};

/// A queue as it was stored.
pub(crate) struct LoadedQueue {
    pub(crate) id: i64,
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) task: String,
    pub(crate) options: String,
    pub(crate) created: i64,
}

/// A partition as it was stored, with where its log ends.
pub(crate) struct LoadedPart {
    pub(crate) id: i64,
    pub(crate) uuid: Uuid,
    pub(crate) queue: i64,
    pub(crate) name: String,
    pub(crate) created: i64,
    pub(crate) next: i64,
    pub(crate) newest: i64,
    pub(crate) first: i64,
}

/// A consumer group as it was stored.
pub(crate) struct LoadedGroup {
    pub(crate) id: i64,
    pub(crate) queue: i64,
    pub(crate) name: String,
    pub(crate) subscription: Option<Subscription>,
    pub(crate) dormant: bool,
}

/// A cursor as it was stored.
pub(crate) struct LoadedCursor {
    pub(crate) group: i64,
    pub(crate) part: i64,
    pub(crate) committed: i64,
    pub(crate) delivered: i64,
    pub(crate) retries: i64,
    pub(crate) lease: Option<(Uuid, i64, i64)>,
    pub(crate) consumed: i64,
}

/// One stored message, owned.
pub(crate) struct Stored {
    pub(crate) id: Uuid,
    pub(crate) payload: String,
}

/// What `GET /resources/queues/:queue` tells of a partition beyond its cursors.
pub(crate) struct PartFacts {
    pub(crate) segments: i64,
    pub(crate) messages: i64,
    pub(crate) bytes: i64,
    pub(crate) oldest: Option<i64>,
}

/// One dead-letter record with the names it belongs to.
pub(crate) struct DeadLetter {
    pub(crate) id: Uuid,
    pub(crate) txn: String,
    pub(crate) part_id: Uuid,
    pub(crate) queue: String,
    pub(crate) part: String,
    pub(crate) group: String,
    pub(crate) error: String,
    pub(crate) retries: i64,
    pub(crate) payload: String,
    pub(crate) failed: i64,
}

impl Db {
    pub(crate) fn queues(&self) -> Result<Vec<LoadedQueue>> {
        let mut statement = self.sql.prepare(
            "SELECT id, uuid, name, namespace, task, options, created FROM queue ORDER BY id",
        )?;
        let rows = statement.query_map([], |r| {
            Ok(LoadedQueue {
                id: r.get(0)?,
                uuid: uuid(r, 1)?,
                name: r.get(2)?,
                namespace: r.get(3)?,
                task: r.get(4)?,
                options: r.get(5)?,
                created: r.get(6)?,
            })
        })?;
        rows.collect()
    }

    pub(crate) fn parts(&self) -> Result<Vec<LoadedPart>> {
        let mut statement = self.sql.prepare(
            "SELECT p.id, p.uuid, p.queue, p.name, p.created, max(p.next, coalesce(s.last + 1, 0)), \
             max(p.newest, coalesce(s.created, 0)), \
             (SELECT first FROM segment WHERE part = p.id ORDER BY last LIMIT 1) FROM part p LEFT JOIN segment s ON s.part = p.id AND s.last = (SELECT max(last) FROM segment WHERE part = p.id) ORDER BY p.id",
        )?;
        let rows = statement.query_map([], |r| {
            Ok(LoadedPart {
                id: r.get(0)?,
                uuid: uuid(r, 1)?,
                queue: r.get(2)?,
                name: r.get(3)?,
                created: r.get(4)?,
                next: r.get(5)?,
                newest: r.get(6)?,
                first: r.get::<_, Option<i64>>(7)?.map_or_else(|| r.get(5), Ok)?,
            })
        })?;
        rows.collect()
    }

    pub(crate) fn groups(&self) -> Result<Vec<LoadedGroup>> {
        let mut statement = self.sql.prepare(
            "SELECT id, queue, name, mode, since, created, dormant FROM grp ORDER BY id",
        )?;
        let rows = statement.query_map([], |r| {
            let subscription = match r.get::<_, Option<String>>(3)? {
                Some(_) => Some(subscription(r, 3)?),
                None => None,
            };
            Ok(LoadedGroup {
                id: r.get(0)?,
                queue: r.get(1)?,
                name: r.get(2)?,
                subscription,
                dormant: r.get(6)?,
            })
        })?;
        rows.collect()
    }

    /// The groups that read by namespace and task.
    pub(crate) fn finders(&self) -> Result<Vec<(FinderKey, Subscription)>> {
        let mut statement = self
            .sql
            .prepare("SELECT namespace, task, grp, mode, since, created FROM finder")?;
        let rows = statement.query_map([], |r| {
            let name = |column| r.get::<_, String>(column).map(Arc::from);
            Ok(((name(0)?, name(1)?, name(2)?), subscription(r, 3)?))
        })?;
        rows.collect()
    }

    pub(crate) fn cursors(&self) -> Result<Vec<LoadedCursor>> {
        let mut statement = self
            .sql
            .prepare("SELECT grp, part, committed, delivered, retries, lease, expires, batch_end, consumed FROM cursor")?;
        let rows = statement.query_map([], |r| {
            let lease = match r.get::<_, Option<i64>>(6)? {
                Some(expires) => Some((uuid(r, 5)?, expires, r.get(7)?)),
                None => None,
            };
            Ok(LoadedCursor {
                group: r.get(0)?,
                part: r.get(1)?,
                committed: r.get(2)?,
                delivered: r.get(3)?,
                retries: r.get(4)?,
                lease,
                consumed: r.get(8)?,
            })
        })?;
        rows.collect()
    }

    /// The queues that ask for payloads to be encrypted.
    pub(crate) fn encrypting(&self) -> Result<Vec<String>> {
        let mut statement = self
            .sql
            .prepare("SELECT name FROM queue WHERE options ->> 'encryptionEnabled' ORDER BY id")?;
        let rows = statement.query_map([], |r| r.get(0))?;
        rows.collect()
    }

    /// How many dead-letter records each partition has that has any.
    pub(crate) fn dead_counts(&self) -> Result<Vec<(i64, i64)>> {
        let mut statement = self
            .sql
            .prepare("SELECT part, count(*) FROM dead_letter GROUP BY part")?;
        let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
        rows.collect()
    }

    /// Queue, partition and group of every pin.
    pub(crate) fn pins(&self) -> Result<Vec<(String, String, String)>> {
        let mut statement = self.sql.prepare("SELECT queue, part, grp FROM pin")?;
        let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
        rows.collect()
    }

    /// The message at a position, if its segment is still there.
    pub(crate) fn message(&self, part: i64, position: i64) -> Result<Option<Stored>> {
        let mut found = None;
        self.each(part, position, position, |_, _, record| {
            found = Some(Stored {
                id: record.id,
                payload: record.payload.to_owned(),
            });
        })?;
        Ok(found)
    }

    /// Id and time of the message at a position, if it is still there and has that transaction id.
    pub(crate) fn message_with(
        &self,
        part: i64,
        position: i64,
        txn: &str,
    ) -> Result<Option<(Uuid, i64)>> {
        let mut found = None;
        self.each(part, position, position, |_, created, record| {
            found = (record.txn == txn).then_some((record.id, created));
        })?;
        Ok(found)
    }

    /// Shows every message in `from..=to`, in order: position, time, message.
    pub(crate) fn each(
        &self,
        part: i64,
        from: i64,
        to: i64,
        mut show: impl FnMut(i64, i64, Record),
    ) -> Result<()> {
        let mut statement = self.sql.prepare_cached(
            "SELECT first, created, body FROM segment WHERE part = ? AND last >= ? ORDER BY last",
        )?;
        let mut rows = statement.query(params![part, from])?;
        while let Some(row) = rows.next()? {
            let first: i64 = row.get(0)?;
            if first > to {
                break;
            }
            let created = row.get(1)?;
            let body = row.get_ref(2)?.as_blob()?;
            for (position, record) in (first..=to).zip(segment::records(body)) {
                let record = record.map_err(damaged)?;
                if position >= from {
                    show(position, created, record);
                }
            }
        }
        Ok(())
    }

    /// The last position whose segment was pushed at `time` or before.
    pub(crate) fn last_until(&self, part: i64, time: i64) -> Result<i64> {
        let last: Option<i64> = self
            .sql
            .prepare_cached("SELECT last FROM segment WHERE part = ? AND created <= ? ORDER BY last DESC LIMIT 1")?
            .query_row(params![part, time], |r| r.get(0))
            .optional()?;
        Ok(last.unwrap_or(NONE))
    }

    /// The first position whose segment was pushed at `time` or after.
    pub(crate) fn first_since(&self, part: i64, time: i64) -> Result<Option<i64>> {
        self.sql
            .prepare_cached(
                "SELECT first FROM segment WHERE part = ? AND created >= ? ORDER BY last LIMIT 1",
            )?
            .query_row(params![part, time], |r| r.get(0))
            .optional()
    }

    /// The position from which on everything was pushed at `time` or after, found from the end of the log.
    pub(crate) fn oldest_since(&self, part: i64, time: i64) -> Result<Option<i64>> {
        let mut statement = self.sql.prepare_cached(
            "SELECT first, created FROM segment WHERE part = ? ORDER BY last DESC",
        )?;
        let mut rows = statement.query([part])?;
        let mut oldest = None;
        while let Some(row) = rows.next()? {
            if row.get::<_, i64>(1)? < time {
                break;
            }
            oldest = Some(row.get(0)?);
        }
        Ok(oldest)
    }

    /// The same, found from a position that is not behind it.
    pub(crate) fn first_from(&self, part: i64, position: i64, time: i64) -> Result<Option<i64>> {
        self.sql
            .prepare_cached(
                "SELECT first FROM segment WHERE part = ? AND last >= ? AND created >= ? ORDER BY last LIMIT 1",
            )?
            .query_row(params![part, position, time], |r| r.get(0))
            .optional()
    }

    /// When the message at or after a position was pushed.
    pub(crate) fn created_at(&self, part: i64, position: i64) -> Result<Option<i64>> {
        self.sql
            .prepare_cached(
                "SELECT created FROM segment WHERE part = ? AND last >= ? ORDER BY last LIMIT 1",
            )?
            .query_row(params![part, position], |r| r.get(0))
            .optional()
    }

    /// Numbers about a partition; `pending` is the first position some group still waits for.
    pub(crate) fn facts(&self, part: i64, pending: i64) -> Result<PartFacts> {
        let oldest = self.created_at(part, pending)?;
        self.sql
            .prepare_cached(
                "SELECT count(*), coalesce(sum(last - first + 1), 0), coalesce(sum(length(body)), 0) \
                 FROM segment WHERE part = ?",
            )?
            .query_row([part], |r| {
                Ok(PartFacts { segments: r.get(0)?, messages: r.get(1)?, bytes: r.get(2)?, oldest })
            })
    }

    /// When the oldest message was pushed that some group, or everyone where there is no group, still waits for: by
    /// the id of its queue.
    pub(crate) fn oldest_open(&self) -> Result<HashMap<Uuid, i64>> {
        let mut statement = self.sql.prepare_cached(
            "WITH stand AS (SELECT p.id AS part, p.queue, (SELECT min(coalesce(c.committed, -1)) FROM grp g \
             LEFT JOIN cursor c ON c.grp = g.id AND c.part = p.id WHERE g.queue = p.queue \
             AND (c.part IS NOT NULL OR (g.mode IS NOT NULL AND g.dormant = 0))) AS committed FROM part p) \
             SELECT q.uuid, min((SELECT s.created FROM segment s WHERE s.part = stand.part \
             AND s.last > coalesce(stand.committed, -1) ORDER BY s.last LIMIT 1)) AS oldest \
             FROM stand JOIN queue q ON q.id = stand.queue GROUP BY q.id HAVING oldest IS NOT NULL",
        )?;
        let rows = statement.query_map([], |r| Ok((uuid(r, 0)?, r.get(1)?)))?;
        rows.collect()
    }

    /// Dead-letter records, newest first.
    pub(crate) fn dead_letters(&self, wanted: &DeadLetterRequest) -> Result<Vec<DeadLetter>> {
        let mut statement = self.sql.prepare_cached(
            "SELECT d.uuid, d.txn, p.uuid, q.name, p.name, d.grp, d.error, d.retries, d.payload, d.failed \
             FROM dead_letter d JOIN part p ON p.id = d.part JOIN queue q ON q.id = p.queue \
             WHERE (?1 = '' OR q.name = ?1) AND (?2 = '' OR p.name = ?2) AND (?3 = '' OR d.grp = ?3) \
             AND d.failed BETWEEN ?4 AND ?5 ORDER BY d.id DESC LIMIT ?6 OFFSET ?7",
        )?;
        let given = params![
            wanted.queue,
            wanted.part,
            wanted.group,
            wanted.from,
            wanted.to,
            wanted.limit,
            wanted.offset
        ];
        let rows = statement.query_map(given, |r| {
            Ok(DeadLetter {
                id: uuid(r, 0)?,
                txn: r.get(1)?,
                part_id: uuid(r, 2)?,
                queue: r.get(3)?,
                part: r.get(4)?,
                group: r.get(5)?,
                error: r.get(6)?,
                retries: r.get(7)?,
                payload: r.get(8)?,
                failed: r.get(9)?,
            })
        })?;
        rows.collect()
    }
}

/// Mode, beginning and time of registration, in three columns.
fn subscription(row: &Row, column: usize) -> Result<Subscription> {
    Ok(Subscription {
        mode: Mode::parse(&row.get::<_, String>(column)?),
        since: row.get::<_, Option<i64>>(column + 1)?.unwrap_or(0),
        created: row.get(column + 2)?,
    })
}

pub(super) fn uuid(row: &Row, column: usize) -> Result<Uuid> {
    let bytes: Vec<u8> = row.get(column)?;
    Uuid::from_slice(&bytes)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, Box::new(e)))
}

pub(super) fn damaged(error: Damaged) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(2, Type::Blob, Box::new(error))
}
