//! What the store tells of traces, read beside the writer.

use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock;
use crate::store::{Db, Result, TraceRow};

/// The traces of a message; none is an empty list.
pub(crate) fn of_message(db: &Db, part: Uuid, txn: &str) -> Result<Option<String>> {
    let rows = db.traces_of(part, txn)?;
    let traces = rows.iter().map(|row| entry(row, ""));
    Ok(Some(format!(r#"{{"traces":[{}]}}"#, joined(traces))))
}

/// A page of the traces with a name.
pub(crate) fn by_name(db: &Db, name: &str, limit: i64, offset: i64) -> Result<Option<String>> {
    let (total, rows) = db.traces_named(name, limit, offset)?;
    let traces = rows.iter().map(|(row, queue, part)| {
        let more = json!({
            "transaction_id": row.txn,
            "partition_id": row.part,
            "queue_name": queue,
            "partition_name": part,
            "message_payload": null,
        });
        // Without the braces: the fields go into the object of the trace.
        let more = more.to_string();
        entry(
            row,
            &format!(",{}", more.trim_start_matches('{').trim_end_matches('}')),
        )
    });
    Ok(Some(format!(
        r#"{{"traces":[{}],"total":{total},"pagination":{{"limit":{limit},"offset":{offset}}}}}"#,
        joined(traces)
    )))
}

/// A page of the names, the latest used first.
pub(crate) fn names(db: &Db, limit: i64, offset: i64) -> Result<Option<String>> {
    let (total, rows) = db.trace_names(limit, offset)?;
    let names = rows.into_iter().map(|(name, traces, messages, last)| {
        json!({
            "trace_name": name,
            "trace_count": traces,
            "message_count": messages,
            "last_seen": clock::iso(last),
        })
    });
    let body = json!({
        "trace_names": Value::from_iter(names),
        "total": total,
        "pagination": { "limit": limit, "offset": offset },
    });
    Ok(Some(body.to_string()))
}

/// One trace, its data letter by letter as it came.
fn entry(row: &TraceRow, more: &str) -> String {
    let head = json!({
        "id": row.id,
        "event_type": row.event,
        "consumer_group": row.group,
        "worker_id": "seg-rust",
        "created_at": clock::iso(row.created),
        "trace_names": row.names,
    });
    let data = RawValue::from_string(row.data.clone()).unwrap_or_default();
    let head = head.to_string();
    format!(r#"{}{more},"data":{data}}}"#, head.trim_end_matches('}'))
}

fn joined(entries: impl Iterator<Item = String>) -> String {
    entries.collect::<Vec<_>>().join(",")
}
