//! Consumer groups as a whole, and what retention removes.

use rusqlite::{OptionalExtension, params};
use uuid::Uuid;

use super::read::uuid;
use super::{Db, NONE, Result};

/// Where a group stands in one partition, with the names it belongs to.
pub(crate) struct GroupRow {
    pub(crate) group: String,
    pub(crate) queue: String,
    pub(crate) part: String,
    pub(crate) part_id: Uuid,
    pub(crate) mode: Option<String>,
    pub(crate) since: i64,
    pub(crate) created: i64,
    pub(crate) lag: i64,
    pub(crate) consumed: i64,
    pub(crate) lease: Option<(Uuid, i64)>,
    /// When the oldest message it waits for was pushed.
    pub(crate) oldest: Option<i64>,
}

impl Db {
    /// All groups that have cursors, by partition; a name restricts them to one group.
    pub(crate) fn group_rows(&self, group: Option<&str>) -> Result<Vec<GroupRow>> {
        let mut statement = self.sql.prepare_cached(
            "WITH stand AS (SELECT g.id AS grp, p.id AS part, g.name, q.name AS queue, p.name AS part_name, p.uuid, \
             g.mode, g.since, g.created, coalesce(c.committed, -1) AS committed, coalesce(c.consumed, 0) AS consumed, \
             c.lease, c.expires, max(p.next, coalesce((SELECT max(last) + 1 FROM segment WHERE part = p.id), 0)) AS next \
             FROM grp g JOIN queue q ON q.id = g.queue JOIN part p ON p.queue = q.id \
             LEFT JOIN cursor c ON c.grp = g.id AND c.part = p.id \
             WHERE (?1 IS NULL OR g.name = ?1) AND (c.part IS NOT NULL OR (g.mode IS NOT NULL AND g.dormant = 0))) \
             SELECT name, queue, part_name, uuid, mode, since, created, next - 1 - committed, consumed, lease, expires, \
             CASE WHEN next - 1 > committed THEN (SELECT s.created FROM segment s WHERE s.part = stand.part \
             AND s.last > stand.committed ORDER BY s.last LIMIT 1) END FROM stand ORDER BY name, queue, part_name",
        )?;
        let rows = statement.query_map([group], |r| {
            let lease = match r.get::<_, Option<i64>>(10)? {
                Some(expires) => Some((uuid(r, 9)?, expires)),
                None => None,
            };
            Ok(GroupRow {
                group: r.get(0)?,
                queue: r.get(1)?,
                part: r.get(2)?,
                part_id: uuid(r, 3)?,
                mode: r.get(4)?,
                since: r.get::<_, Option<i64>>(5)?.unwrap_or(0),
                created: r.get(6)?,
                lag: r.get(7)?,
                consumed: r.get(8)?,
                lease,
                oldest: r.get(11)?,
            })
        })?;
        rows.collect()
    }

    /// Removes the cursors of a group, and the group itself unless its registration is kept.
    pub(crate) fn delete_group(&self, id: i64, keep: bool) -> Result<()> {
        self.sql
            .prepare_cached("DELETE FROM cursor WHERE grp = ?")?
            .execute([id])?;
        let statement = match keep {
            true => "UPDATE grp SET dormant = 1 WHERE id = ?",
            false => "DELETE FROM grp WHERE id = ?",
        };
        self.sql.prepare_cached(statement)?.execute([id]).map(drop)
    }

    /// Forgets that a group waits for partitions or searches queues.
    pub(crate) fn forget_group(&self, name: &str, queue: Option<&str>) -> Result<()> {
        match queue {
            Some(queue) => self
                .sql
                .prepare_cached("DELETE FROM pin WHERE grp = ? AND queue = ?")?
                .execute([name, queue])
                .map(drop),
            None => {
                for table in ["pin", "finder"] {
                    self.sql
                        .prepare_cached(&format!("DELETE FROM {table} WHERE grp = ?"))?
                        .execute([name])?;
                }
                Ok(())
            }
        }
    }

    /// The last position of the oldest segments of a partition that are older than `before` and end at or below `last`.
    /// At most `most` segments.
    pub(crate) fn old_segments(
        &self,
        part: i64,
        before: i64,
        last: i64,
        most: i64,
    ) -> Result<Option<i64>> {
        self.sql
            .prepare_cached(
                "SELECT max(last) FROM (SELECT last, created FROM segment WHERE part = ? ORDER BY last LIMIT ?) \
                 WHERE created <= ? AND last <= ?",
            )?
            .query_row(params![part, most, before, last], |r| r.get(0))
    }

    /// Removes the messages of a partition up to a position. Their transaction ids count as known until `window`
    /// microseconds after they were pushed.
    pub(crate) fn evict(&self, part: i64, last: i64, window: i64, now: i64) -> Result<()> {
        let mut known = Vec::new();
        self.each(part, NONE, last, |_, created, record| {
            let until = created.saturating_add(window);
            if until > now {
                known.push((until, record.id, record.txn.to_owned()));
            }
        })?;
        for (until, id, txn) in known {
            self.sql
                .prepare_cached(
                    "INSERT OR REPLACE INTO evicted (part, txn, message, until) VALUES (?,?,?,?)",
                )?
                .execute(params![part, txn, id.as_bytes(), until])?;
        }
        self.sql
            .prepare_cached("DELETE FROM segment WHERE part = ? AND last <= ?")?
            .execute([part, last])
            .map(drop)
    }

    /// Keeps the end of a partition's log, which its segments no longer tell when all are removed.
    pub(crate) fn keep_end(&self, part: i64, next: i64, newest: i64) -> Result<()> {
        self.sql
            .prepare_cached("UPDATE part SET next = ?2, newest = ?3 WHERE id = ?1")?
            .execute([part, next, newest])
            .map(drop)
    }

    /// The removed message that still holds a transaction id.
    pub(crate) fn evicted(&self, part: i64, txn: &str, now: i64) -> Result<Option<Uuid>> {
        self.sql
            .prepare_cached("SELECT message FROM evicted WHERE part = ? AND txn = ? AND until > ?")?
            .query_row(params![part, txn, now], |r| uuid(r, 0))
            .optional()
    }

    /// Forgets transaction ids whose window has passed.
    pub(crate) fn forget_evicted(&self, now: i64) -> Result<()> {
        self.sql
            .prepare_cached(
                "DELETE FROM evicted WHERE (part, txn) IN (SELECT part, txn FROM evicted WHERE until <= ? LIMIT 1000)",
            )?
            .execute([now])
            .map(drop)
    }
}
