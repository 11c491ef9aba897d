//! Statements that change the store. They run on the writer's connection, inside its transaction.

use rusqlite::params;
use uuid::Uuid;

use super::{Db, Result};
use crate::engine::{FinderKey, Subscription};

/// One row of `cursor`.
pub(crate) struct CursorRow {
    pub(crate) group: i64,
    pub(crate) part: i64,
    pub(crate) committed: i64,
    pub(crate) delivered: i64,
    pub(crate) retries: i64,
    /// Lease id, expiry and last leased offset.
    pub(crate) lease: Option<(Uuid, i64, i64)>,
    pub(crate) consumed: i64,
}

/// One row of `dead_letter`.
pub(crate) struct DeadLetterRow<'a> {
    pub(crate) part: i64,
    pub(crate) group: &'a str,
    pub(crate) position: i64,
    pub(crate) message: Uuid,
    pub(crate) txn: &'a str,
    pub(crate) payload: &'a str,
    pub(crate) error: &'a str,
    pub(crate) retries: i64,
    pub(crate) failed: i64,
}

impl Db {
    pub(crate) fn insert_queue(
        &self,
        uuid: Uuid,
        name: &str,
        namespace: &str,
        task: &str,
        options: &str,
        created: i64,
    ) -> Result<i64> {
        self.sql
            .prepare_cached("INSERT INTO queue (uuid, name, namespace, task, options, created) VALUES (?,?,?,?,?,?)")?
            .insert(params![uuid.as_bytes(), name, namespace, task, options, created])
    }

    pub(crate) fn update_queue(
        &self,
        id: i64,
        namespace: &str,
        task: &str,
        options: &str,
    ) -> Result<()> {
        self.sql
            .prepare_cached(
                "UPDATE queue SET namespace = ?2, task = ?3, options = ?4 WHERE id = ?1",
            )?
            .execute(params![id, namespace, task, options])
            .map(drop)
    }

    /// Removes a queue with everything in it; `parts` are the ids of its partitions.
    pub(crate) fn delete_queue(&self, id: i64, name: &str, parts: &[i64]) -> Result<()> {
        for part in parts {
            for table in ["segment", "evicted", "dead_letter"] {
                self.sql
                    .prepare_cached(&format!("DELETE FROM {table} WHERE part = ?"))?
                    .execute([part])?;
            }
        }
        for statement in [
            "DELETE FROM cursor WHERE grp IN (SELECT id FROM grp WHERE queue = ?)",
            "DELETE FROM grp WHERE queue = ?",
            "DELETE FROM part WHERE queue = ?",
            "DELETE FROM stream_source WHERE queue = ?",
            "DELETE FROM queue WHERE id = ?",
        ] {
            self.sql.prepare_cached(statement)?.execute([id])?;
        }
        self.sql
            .prepare_cached("DELETE FROM pin WHERE queue = ?")?
            .execute([name])
            .map(drop)
    }

    pub(crate) fn insert_part(
        &self,
        uuid: Uuid,
        queue: i64,
        name: &str,
        created: i64,
    ) -> Result<i64> {
        self.sql
            .prepare_cached("INSERT INTO part (uuid, queue, name, created) VALUES (?,?,?,?)")?
            .insert(params![uuid.as_bytes(), queue, name, created])
    }

    pub(crate) fn insert_segment(
        &self,
        part: i64,
        first: i64,
        last: i64,
        created: i64,
        body: &[u8],
    ) -> Result<()> {
        self.sql
            .prepare_cached(
                "INSERT INTO segment (part, first, last, created, body) VALUES (?,?,?,?,?)",
            )?
            .execute(params![part, first, last, created, body])
            .map(drop)
    }

    /// Creates a group. Without a mode it is known by the cursors of single partitions only.
    pub(crate) fn insert_group(
        &self,
        queue: i64,
        name: &str,
        mode: Option<&str>,
        since: Option<i64>,
        created: i64,
    ) -> Result<i64> {
        self.sql
            .prepare_cached(
                "INSERT INTO grp (queue, name, mode, since, created) VALUES (?,?,?,?,?)",
            )?
            .insert(params![queue, name, mode, since, created])
    }

    pub(crate) fn register_group(&self, id: i64, with: &Subscription) -> Result<()> {
        self.sql
            .prepare_cached(
                "UPDATE grp SET mode = ?2, since = ?3, created = ?4, dormant = 0 WHERE id = ?1",
            )?
            .execute(params![id, with.mode.name(), with.since, with.created])
            .map(drop)
    }

    /// Changes how a group was registered and nothing else.
    pub(crate) fn update_subscription(&self, id: i64, with: &Subscription) -> Result<()> {
        self.sql
            .prepare_cached("UPDATE grp SET mode = ?2, since = ?3 WHERE id = ?1")?
            .execute(params![id, with.mode.name(), with.since])
            .map(drop)
    }

    pub(crate) fn put_finder(&self, key: &FinderKey, with: &Subscription) -> Result<()> {
        let (namespace, task, group) = key;
        self.sql
            .prepare_cached("INSERT OR REPLACE INTO finder (namespace, task, grp, mode, since, created) VALUES (?,?,?,?,?,?)")?
            .execute(params![namespace, task, group, with.mode.name(), with.since, with.created])
            .map(drop)
    }

    pub(crate) fn put_cursor(&self, row: &CursorRow) -> Result<()> {
        let (lease, expires, end) = match &row.lease {
            Some((id, expires, end)) => (Some(id.as_bytes()), Some(*expires), Some(*end)),
            None => (None, None, None),
        };
        self.sql
            .prepare_cached(
                "INSERT OR REPLACE INTO cursor (grp, part, committed, delivered, retries, lease, expires, batch_end, consumed) \
                 VALUES (?,?,?,?,?,?,?,?,?)",
            )?
            .execute(params![row.group, row.part, row.committed, row.delivered, row.retries, lease, expires, end, row.consumed])
            .map(drop)
    }

    pub(crate) fn insert_pin(&self, queue: &str, part: &str, group: &str) -> Result<()> {
        self.sql
            .prepare_cached("INSERT OR IGNORE INTO pin (queue, part, grp) VALUES (?,?,?)")?
            .execute(params![queue, part, group])
            .map(drop)
    }

    pub(crate) fn delete_pins(&self, queue: &str, part: &str) -> Result<()> {
        self.sql
            .prepare_cached("DELETE FROM pin WHERE queue = ? AND part = ?")?
            .execute(params![queue, part])
            .map(drop)
    }

    /// Removes the records of a message, whichever groups gave it up.
    pub(crate) fn delete_dead_letters(&self, part: i64, txn: &str) -> Result<usize> {
        self.sql
            .prepare_cached("DELETE FROM dead_letter WHERE part = ? AND txn = ?")?
            .execute(params![part, txn])
    }

    pub(crate) fn insert_dead_letter(&self, row: &DeadLetterRow) -> Result<()> {
        self.sql
            .prepare_cached(
                "INSERT INTO dead_letter (uuid, part, grp, position, message, txn, payload, error, retries, failed) \
                 VALUES (?,?,?,?,?,?,?,?,?,?)",
            )?
            .execute(params![
                Uuid::now_v7().as_bytes(),
                row.part,
                row.group,
                row.position,
                row.message.as_bytes(),
                row.txn,
                row.payload,
                row.error,
                row.retries,
                row.failed
            ])
            .map(drop)
    }
}
