//! What the store tells of consumer groups, read beside the writer.

use serde_json::{Map, Value, json};

use crate::clock::{self, SECOND};
use crate::store::{Db, GroupRow, Result};

/// A group whose oldest message is older than this lags.
const LAGGING: i64 = 300;

/// All groups: one entry for each group and queue.
pub(crate) fn list(db: &Db, now: i64) -> Result<Option<String>> {
    let rows = db.group_rows(None)?;
    let same = |a: &GroupRow, b: &GroupRow| (&a.group, &a.queue) == (&b.group, &b.queue);
    let entries = rows.chunk_by(same).filter_map(|rows| {
        let first = rows.first()?;
        let time_lag = rows.iter().map(|row| time_lag(row, now)).max().unwrap_or(0);
        let behind = rows.iter().filter(|row| row.lag > 0).count();
        let state = match time_lag {
            lag if lag > LAGGING => "Lagging",
            _ if rows.iter().any(|row| row.consumed > 0) => "Stable",
            _ => "Dead",
        };
        let registered = first.mode.is_some();
        Some(json!({
            "name": first.group,
            "topics": [first.queue],
            "queueName": first.queue,
            // The protocol counts partitions here.
            "members": rows.len(),
            "partitionCursors": rows.len(),
            "partitionsWithLag": behind,
            "totalLag": rows.iter().map(|row| row.lag).sum::<i64>(),
            "maxTimeLag": time_lag,
            "state": state,
            "storage": "segments",
            "subscriptionMode": first.mode,
            "subscriptionTimestamp": registered.then(|| clock::iso(first.since)),
            "subscriptionCreatedAt": registered.then(|| clock::iso(first.created)),
            "conflation": false,
        }))
    });
    Ok(Some(Value::from_iter(entries).to_string()))
}

/// One group, by queue and partition; an unknown one is empty.
pub(crate) fn details(db: &Db, group: &str, now: i64) -> Result<Option<String>> {
    let rows = db.group_rows(Some(group))?;
    let queues = rows.chunk_by(|a, b| a.queue == b.queue).filter_map(|rows| {
        let partitions = rows.iter().map(|row| {
            let lease = live(row, now);
            json!({
                "partition": row.part,
                "workerId": lease,
                "leaseActive": lease.is_some(),
                "lastConsumedAt": null,
                "totalConsumed": row.consumed,
                "offsetLag": row.lag,
                "timeLagSeconds": time_lag(row, now),
            })
        });
        let entry = json!({ "conflation": false, "partitions": Value::from_iter(partitions) });
        Some((rows.first()?.queue.clone(), entry))
    });
    Ok(Some(Value::from(Map::from_iter(queues)).to_string()))
}

/// The partitions in which some group is at least so many seconds behind.
pub(crate) fn lagging(db: &Db, seconds: i64, now: i64) -> Result<Option<String>> {
    let rows = db.group_rows(None)?;
    let late = rows
        .iter()
        .filter(|row| row.lag > 0 && time_lag(row, now) >= seconds);
    let entries = late.map(|row| {
        let lag = time_lag(row, now);
        json!({
            "consumer_group": row.group,
            "queue_name": row.queue,
            "partition_name": row.part,
            "partition_id": row.part_id,
            "worker_id": live(row, now),
            "offset_lag": row.lag,
            "time_lag_seconds": lag,
            "lag_hours": lag as f64 / 3600.0,
            "oldest_unconsumed_at": row.oldest.map(clock::iso),
            "last_consumed_at": null,
        })
    });
    Ok(Some(Value::from_iter(entries).to_string()))
}

/// How old the oldest message is that the group waits for, in seconds.
fn time_lag(row: &GroupRow, now: i64) -> i64 {
    row.oldest
        .map_or(0, |oldest| (now - oldest).max(0) / SECOND)
}

/// The lease, while it lives.
fn live(row: &GroupRow, now: i64) -> Option<uuid::Uuid> {
    row.lease
        .filter(|(_, expires)| *expires > now)
        .map(|(id, _)| id)
}
