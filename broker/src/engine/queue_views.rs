//! What queues hold, as the resources and the status routes tell it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::census::{Census, QueueCount, QueueDetail, Tasks};
use super::history::Counts;
use crate::clock::{self, SECOND};
use crate::store::{Db, Result};

fn tasks(tasks: Tasks) -> Value {
    json!({
        "total": tasks.total, "pending": tasks.pending, "processing": tasks.processing,
        "completed": tasks.completed, "failed": null, "deadLetter": tasks.dead,
    })
}

/// All queues. Bytes and segments are measured for a single queue only, so a list says zero, as the protocol has it.
pub(crate) fn list(census: &Census, with_segments: bool) -> String {
    let queues = census.queues.iter().map(|queue| {
        let mut entry = json!({
            "id": queue.uuid,
            "name": &*queue.name,
            "namespace": &*queue.namespace,
            "task": &*queue.task,
            "createdAt": clock::iso(queue.created),
            "partitions": queue.parts,
            "retainedBytes": 0,
            "messages": {
                "total": queue.tasks.total,
                "pending": queue.tasks.pending,
                "processing": queue.tasks.processing,
            },
        });
        if let Some(entry) = entry.as_object_mut().filter(|_| with_segments) {
            let segments = json!({ "segments": 0, "messages": queue.tasks.total });
            entry.insert("segments".into(), segments);
        }
        entry
    });
    let queues = Value::from_iter(queues);
    json!({ "queues": queues, "kvRows": 0, "kvBytes": 0, "timerRows": 0, "timerBytes": 0 })
        .to_string()
}

/// What a group, or the slowest of all, has not finished in each partition.
pub(crate) fn depth(queue: &QueueDetail, group: Option<&str>) -> String {
    let mut parts: Vec<_> = queue.parts.iter().map(|p| (&p.name, p.waiting())).collect();
    parts.sort_unstable();
    let pending: i64 = parts.iter().map(|(_, pending)| pending).sum();
    let waiting = parts.iter().filter(|(_, pending)| *pending > 0).count();
    let entry =
        |(name, pending): &(&Arc<str>, i64)| json!({ "partition": &***name, "pending": pending });
    json!({
        "queue": &*queue.name,
        "group": group,
        "pending": pending,
        "effectivePending": pending,
        "partitionsPending": waiting,
        "conflation": false,
        "partitions": Value::from_iter(parts.iter().map(entry)),
    })
    .to_string()
}

/// The names that queues have in common, `namespace` or `task`, each with what its queues hold.
pub(crate) fn by_name(
    census: &Census,
    key: &str,
    list: &str,
    name: fn(&QueueCount) -> &str,
) -> String {
    let mut sums: BTreeMap<&str, (usize, usize, Tasks)> = BTreeMap::new();
    for queue in census.queues.iter().filter(|queue| !name(queue).is_empty()) {
        let sum = sums.entry(name(queue)).or_default();
        sum.0 += 1;
        sum.1 += queue.parts;
        sum.2 += queue.tasks;
    }
    let entries = sums.into_iter().map(|(name, (queues, partitions, tasks))| {
        json!({
            key: name, "queues": queues, "partitions": partitions,
            "messages": { "total": tasks.total, "pending": tasks.pending },
        })
    });
    json!({ list: Value::from_iter(entries) }).to_string()
}

/// The broker at a glance; `rates` is what was counted in so many seconds.
pub(crate) fn overview(db: &Db, census: &Census, rates: (Counts, f64)) -> Result<Option<String>> {
    let mut sum = Tasks::default();
    let mut parts = 0;
    for queue in &census.queues {
        sum += queue.tasks;
        parts += queue.parts;
    }
    let different = |name: fn(&QueueCount) -> &str| {
        let names: std::collections::BTreeSet<&str> = census.queues.iter().map(name).collect();
        names.into_iter().filter(|name| !name.is_empty()).count()
    };
    let offsets = census
        .queues
        .iter()
        .map(|q| q.tasks.pending + q.tasks.processing);
    let oldest = db.oldest_open()?;
    let ages = census.queues.iter().map(|queue| {
        let pushed = oldest.get(&queue.uuid);
        pushed.map_or(0, |pushed| (census.taken - pushed).max(0) / SECOND)
    });
    let (counts, seconds) = rates;
    let body = json!({
        "queues": census.queues.len(),
        "partitions": parts,
        "namespaces": different(|queue| &queue.namespace),
        "tasks": different(|queue| &queue.task),
        "messages": tasks(sum),
        "lag": { "time": spread(ages.collect()), "offset": spread(offsets.collect()) },
        "throughput": {
            "ingestedPerSecond": counts.push_messages as f64 / seconds,
            "processedPerSecond": counts.processed as f64 / seconds,
        },
        // A census is kept for a moment at most.
        "statsAge": 0,
        "timestamp": clock::iso(census.taken),
    });
    Ok(Some(body.to_string()))
}

fn spread(mut values: Vec<i64>) -> Value {
    values.sort_unstable();
    let count = values.len().max(1) as f64;
    json!({
        "avg": values.iter().sum::<i64>() as f64 / count,
        "median": values.get(values.len() / 2).unwrap_or(&0),
        "min": values.first().unwrap_or(&0),
        "max": values.last().unwrap_or(&0),
    })
}

/// `GET /resources/queues/:queue`.
pub(crate) fn describe(db: &Db, queue: &QueueDetail) -> Result<Option<String>> {
    let (mut parts, mut sum) = (Vec::with_capacity(queue.parts.len()), Tasks::default());
    let (mut segments, mut messages, mut bytes) = (0, 0, 0);
    for part in &queue.parts {
        let facts = db.facts(part.id, part.open)?;
        sum += part.tasks;
        segments += facts.segments;
        messages += facts.messages;
        bytes += facts.bytes;
        parts.push(json!({
            "id": part.uuid,
            "name": &*part.name,
            "createdAt": clock::iso(part.created),
            "oldestMessage": facts.oldest.map(clock::iso),
            "newestMessage": part.newest.map(clock::iso),
            "stats": tasks(part.tasks),
        }));
    }
    let body = json!({
        "id": queue.uuid,
        "name": &*queue.name,
        "namespace": &*queue.namespace,
        "task": &*queue.task,
        "createdAt": clock::iso(queue.created),
        "retainedBytes": bytes,
        "segments": { "segments": segments, "messages": messages },
        "totals": tasks(sum),
        "partitions": parts,
    });
    Ok(Some(body.to_string()))
}

/// A page of `GET /status/queues`.
pub(crate) fn status_list(
    census: &Census,
    wanted: impl Fn(&QueueCount) -> bool,
    limit: usize,
    offset: usize,
) -> String {
    let all = census.queues.iter().filter(|queue| wanted(queue));
    let page = all.skip(offset).take(limit);
    let entries = page.map(|queue| {
        json!({
            "id": queue.uuid,
            "name": &*queue.name,
            "namespace": &*queue.namespace,
            "task": &*queue.task,
            "createdAt": clock::iso(queue.created),
            "partitions": queue.parts,
            "messages": tasks(queue.tasks),
        })
    });
    json!({
        "queues": Value::from_iter(entries),
        "pagination": { "limit": limit, "offset": offset },
    })
    .to_string()
}

/// `GET /status/queues/:queue`.
pub(crate) fn status_of(db: &Db, queue: &QueueDetail) -> Result<Option<String>> {
    let (mut parts, mut sum) = (Vec::with_capacity(queue.parts.len()), Tasks::default());
    for part in &queue.parts {
        sum += part.tasks;
        parts.push(json!({
            "id": part.uuid,
            "name": &*part.name,
            "createdAt": clock::iso(part.created),
            "stats": tasks(part.tasks),
            "messages": tasks(part.tasks),
            // Batches are not counted.
            "cursor": { "totalConsumed": part.consumed, "batchesConsumed": 0 },
            "lastActivity": part.newest.map(clock::iso),
            "newestMessage": part.newest.map(clock::iso),
            "oldestMessage": db.created_at(part.id, part.open)?.map(clock::iso),
        }));
    }
    let options = &queue.options;
    let body = json!({
        "queue": {
            "id": queue.uuid,
            "name": &*queue.name,
            "namespace": &*queue.namespace,
            "task": &*queue.task,
            "priority": options.priority,
            "createdAt": clock::iso(queue.created),
            "config": {
                "ttl": options.ttl,
                "leaseTime": options.lease_time,
                "retryDelay": options.retry_delay,
                "retryLimit": options.retry_limit,
                "maxQueueSize": options.max_size,
                "deadLetterQueue": options.dead_letter_queue,
            },
        },
        "totals": { "messages": tasks(sum) },
        "partitions": parts,
    });
    Ok(Some(body.to_string()))
}
