//! Messages that were taken during push maintenance and are not in the log yet.

use rusqlite::params;
use uuid::Uuid;

use super::read::uuid;
use super::{Db, Result};

/// One buffered message.
pub(crate) struct BufferedRow {
    pub(crate) id: i64,
    /// Tells the requests apart; they grow in the order of arrival.
    pub(crate) request: i64,
    pub(crate) queue: String,
    pub(crate) part: String,
    /// None: the id of the message serves.
    pub(crate) txn: Option<String>,
    pub(crate) message: Uuid,
    pub(crate) producer: Option<String>,
    pub(crate) payload: String,
}

impl Db {
    /// Adds a message behind the others; its `id` is not looked at.
    pub(crate) fn insert_buffered(&self, row: &BufferedRow) -> Result<()> {
        self.sql
            .prepare_cached(
                "INSERT INTO buffered (request, queue, part, txn, message, producer, payload) VALUES (?,?,?,?,?,?,?)",
            )?
            .execute(params![
                row.request,
                row.queue,
                row.part,
                row.txn,
                row.message.as_bytes(),
                row.producer,
                row.payload
            ])
            .map(drop)
    }

    /// How many messages there are, and the number of the last request.
    pub(crate) fn buffered(&self) -> Result<(i64, i64)> {
        self.sql
            .prepare_cached("SELECT count(*), coalesce(max(request), 0) FROM buffered")?
            .query_row([], |r| Ok((r.get(0)?, r.get(1)?)))
    }

    /// The oldest messages: whole requests, until there are `messages` of them or `bytes` of payload.
    pub(crate) fn oldest_buffered(
        &self,
        messages: usize,
        bytes: usize,
    ) -> Result<Vec<BufferedRow>> {
        let mut statement = self.sql.prepare_cached(
            "SELECT id, request, queue, part, txn, message, producer, payload FROM buffered ORDER BY id",
        )?;
        let mut rows = statement.query([])?;
        let (mut found, mut size): (Vec<BufferedRow>, usize) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let row = BufferedRow {
                id: row.get(0)?,
                request: row.get(1)?,
                queue: row.get(2)?,
                part: row.get(3)?,
                txn: row.get(4)?,
                message: uuid(row, 5)?,
                producer: row.get(6)?,
                payload: row.get(7)?,
            };
            let begins = found.last().is_none_or(|last| last.request != row.request);
            if begins && (found.len() >= messages || size >= bytes) {
                break;
            }
            size += row.payload.len();
            found.push(row);
        }
        Ok(found)
    }

    /// Removes the messages up to an id.
    pub(crate) fn delete_buffered(&self, last: i64) -> Result<()> {
        self.sql
            .prepare_cached("DELETE FROM buffered WHERE id <= ?")?
            .execute([last])
            .map(drop)
    }
}
