//! What the store tells of streams, read beside the writer.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock;
use crate::store::{Db, Result, StreamRow, WindowRow};

fn describe(db: &Db, row: &StreamRow) -> Result<Value> {
    Ok(json!({
        "id": row.uuid.to_string(),
        "name": row.name,
        "namespace": row.namespace,
        "partitioned": row.partitioned,
        "windowType": "tumbling",
        "windowDurationMs": row.duration / 1000,
        "windowGracePeriodMs": row.grace / 1000,
        "windowLeaseTimeoutMs": row.lease / 1000,
        "strictWatermark": row.strict,
        "sourceQueues": db.source_names(row.id)?,
        "createdAt": clock::iso(row.created),
        "updatedAt": clock::iso(row.updated),
    }))
}

/// The lease of a window that is out.
fn live(row: &WindowRow, now: i64) -> Option<(Uuid, i64, i64)> {
    row.lease.filter(|(_, expires, _)| *expires > now)
}

/// How many groups a stream has, live leases, and windows that were acked.
fn count(db: &Db, row: &StreamRow, now: i64) -> Result<(usize, usize, i64)> {
    let stands = db.stream_stands(row.id)?;
    let groups: BTreeSet<&str> = stands.iter().map(|stand| &*stand.group).collect();
    let leases = stands.iter().filter(|s| live(&s.window, now).is_some());
    let acked = stands.iter().map(|stand| stand.window.acked).sum();
    Ok((groups.len(), leases.count(), acked))
}

/// All streams, the newest first.
pub(crate) fn list(db: &Db, now: i64) -> Result<Option<String>> {
    let mut streams = Vec::new();
    for row in db.streams(None)?.iter().rev() {
        let mut told = describe(db, row)?;
        let (groups, leases, _) = count(db, row, now)?;
        if let Some(told) = told.as_object_mut() {
            told.insert("consumerGroups".into(), groups.into());
            told.insert("activeLeases".into(), leases.into());
        }
        streams.push(told);
    }
    Ok(Some(json!({ "streams": streams }).to_string()))
}

/// One stream.
pub(crate) fn details(db: &Db, name: &str) -> Result<Option<String>> {
    let rows = db.streams(Some(name))?;
    let told = rows.first().map(|row| describe(db, row)).transpose()?;
    Ok(told.map(|told| told.to_string()))
}

/// Totals over all streams.
pub(crate) fn stats(db: &Db, now: i64) -> Result<Option<String>> {
    let rows = db.streams(None)?;
    let (mut groups, mut leases, mut acked) = (0, 0, 0);
    for row in &rows {
        let counted = count(db, row, now)?;
        groups += counted.0;
        leases += counted.1;
        acked += counted.2;
    }
    let told = json!({
        "totalStreams": rows.len(),
        "partitionedStreams": rows.iter().filter(|row| row.partitioned).count(),
        "totalConsumerGroups": groups,
        "activeLeases": leases,
        "totalWindowsProcessed": acked,
    });
    Ok(Some(told.to_string()))
}

/// Where each group of a stream stands, key by key.
pub(crate) fn consumers(db: &Db, name: &str, now: i64) -> Result<Option<String>> {
    let Some(row) = db.streams(Some(name))?.pop() else {
        return Ok(None);
    };
    let stands = db.stream_stands(row.id)?.into_iter().map(|stand| {
        let window = &stand.window;
        let lease = live(window, now);
        json!({
            "consumerGroup": stand.group,
            "key": window.key,
            "nextWindowStart": clock::iso(window.next),
            "windowsProcessed": window.acked,
            "leaseId": lease.map(|(id, _, _)| id.to_string()),
            "leaseExpiresAt": lease.map(|(_, expires, _)| clock::iso(expires)),
        })
    });
    let consumers: Vec<Value> = stands.collect();
    Ok(Some(json!({ "consumers": consumers }).to_string()))
}
