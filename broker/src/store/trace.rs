//! What clients write about the way of a message.

use rusqlite::{Row, params};
use uuid::Uuid;

use super::read::uuid;
use super::{Db, Result};

/// One trace. The partition is the id that a client gave; it need not exist.
pub(crate) struct TraceRow {
    pub(crate) id: Uuid,
    pub(crate) part: Uuid,
    pub(crate) txn: String,
    pub(crate) group: String,
    pub(crate) event: String,
    /// JSON, as it came.
    pub(crate) data: String,
    pub(crate) names: Vec<String>,
    pub(crate) created: i64,
}

/// How many there are in all, and a page of them.
pub(crate) type Counted<T> = (i64, Vec<T>);

const ROW: &str = "t.uuid, t.part, t.txn, t.grp, t.event, t.data, t.names, t.created";

fn row(r: &Row) -> Result<TraceRow> {
    let names: String = r.get(6)?;
    Ok(TraceRow {
        id: uuid(r, 0)?,
        part: uuid(r, 1)?,
        txn: r.get(2)?,
        group: r.get(3)?,
        event: r.get(4)?,
        data: r.get(5)?,
        names: serde_json::from_str(&names).unwrap_or_default(),
        created: r.get(7)?,
    })
}

impl Db {
    pub(crate) fn insert_trace(&self, trace: &TraceRow) -> Result<()> {
        let names = serde_json::to_string(&trace.names).unwrap_or_default();
        let id = self
            .sql
            .prepare_cached(
                "INSERT INTO trace (uuid, part, txn, grp, event, data, names, created) VALUES (?,?,?,?,?,?,?,?)",
            )?
            .insert(params![
                trace.id.as_bytes(),
                trace.part.as_bytes(),
                trace.txn,
                trace.group,
                trace.event,
                trace.data,
                names,
                trace.created
            ])?;
        for name in &trace.names {
            self.sql
                .prepare_cached("INSERT OR IGNORE INTO trace_name (name, trace) VALUES (?,?)")?
                .execute(params![name, id])?;
        }
        Ok(())
    }

    /// The traces of a message, oldest first.
    pub(crate) fn traces_of(&self, part: Uuid, txn: &str) -> Result<Vec<TraceRow>> {
        let mut statement = self.sql.prepare_cached(&format!(
            "SELECT {ROW} FROM trace t WHERE t.part = ? AND t.txn = ? ORDER BY t.id"
        ))?;
        let rows = statement.query_map(params![part.as_bytes(), txn], row)?;
        rows.collect()
    }

    /// The traces with a name whose partition still exists, with queue and partition, and how many there are.
    pub(crate) fn traces_named(
        &self,
        name: &str,
        limit: i64,
        offset: i64,
    ) -> Result<Counted<(TraceRow, String, String)>> {
        const FROM: &str = "FROM trace_name n JOIN trace t ON t.id = n.trace JOIN part p ON p.uuid = t.part \
                            JOIN queue q ON q.id = p.queue WHERE n.name = ?";
        let total = self
            .sql
            .prepare_cached(&format!("SELECT count(*) {FROM}"))?
            .query_row([name], |r| r.get(0))?;
        let mut statement = self.sql.prepare_cached(&format!(
            "SELECT {ROW}, q.name, p.name {FROM} ORDER BY t.id LIMIT ? OFFSET ?"
        ))?;
        let rows = statement.query_map(params![name, limit, offset], |r| {
            Ok((row(r)?, r.get(8)?, r.get(9)?))
        })?;
        Ok((total, rows.collect::<Result<_>>()?))
    }

    /// Name, number of traces, number of messages and time of the last trace; and how many names there are.
    pub(crate) fn trace_names(
        &self,
        limit: i64,
        offset: i64,
    ) -> Result<Counted<(String, i64, i64, i64)>> {
        let total = self
            .sql
            .prepare_cached("SELECT count(DISTINCT name) FROM trace_name")?
            .query_row([], |r| r.get(0))?;
        let mut statement = self.sql.prepare_cached(
            "SELECT n.name, count(*), count(DISTINCT hex(t.part) || t.txn), max(t.created) FROM trace_name n \
             JOIN trace t ON t.id = n.trace GROUP BY n.name ORDER BY max(t.id) DESC LIMIT ? OFFSET ?",
        )?;
        let rows = statement.query_map([limit, offset], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))
        })?;
        Ok((total, rows.collect::<Result<_>>()?))
    }
}
