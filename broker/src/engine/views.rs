//! What the store tells of messages, read beside the writer.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::push::derived;
use super::queue_options::QueueOptions;
use crate::clock;
use crate::store::{Db, GroupState, Home, Page, Result};

const QUEUE_MODE: &str = "__QUEUE_MODE__";

/// Which messages `GET /messages` shows.
pub(crate) struct MessagesRequest {
    pub(crate) page: Page,
    /// Only those with this status; empty means any.
    pub(crate) status: String,
    pub(crate) limit: usize,
    pub(crate) offset: usize,
}

/// What both views of a message share.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    id: Uuid,
    transaction_id: String,
    trace_id: Option<Uuid>,
    producer_sub: Option<String>,
    data: Box<RawValue>,
    payload: Box<RawValue>,
    is_encrypted: bool,
    created_at: String,
    partition_id: Uuid,
    partition: String,
    queue: String,
    queue_path: String,
    namespace: String,
    task: String,
    status: &'static str,
    lease_expires_at: Option<String>,
    #[serde(flatten)]
    rest: Value,
}

/// One message with all that is known of it, or nothing. It is looked for at an offset first, if one is known.
pub(crate) fn message(
    db: &Db,
    part: Uuid,
    txn: &str,
    at: Option<i64>,
    now: i64,
) -> Result<Option<String>> {
    let Some(home) = db.home(part)? else {
        return Ok(None);
    };
    let groups = group_states(db, home.part, now)?;
    let dead = db.dead_letter_of(home.part, txn)?;
    let mut found = None;
    db.find_message(home.part, txn, at, |position, created, record| {
        let dead = dead.as_ref().filter(|(at, ..)| *at == position);
        let options: QueueOptions =
            serde_json::from_str(&home.options).unwrap_or_else(|_| QueueOptions::default());
        let rest = json!({
            "errorMessage": dead.map(|(_, error, _)| error),
            "retryCount": dead.map_or(0, |(.., retries)| *retries),
            "queueConfig": {
                "leaseTime": options.lease_time,
                "retryLimit": options.retry_limit,
                "retryDelay": options.retry_delay,
                "ttl": options.ttl,
                "priority": options.priority,
            },
            "mode": mode(groups.iter().map(|group| group.name.as_str())),
            "consumerGroups": groups.iter().map(|group| json!({
                "name": group.name,
                "group": group.name,
                "consumed": group.committed >= position,
                "leaseExpiresAt": group.expires.map(clock::iso),
            })).collect::<Vec<_>>(),
        });
        found = Some(build(
            &home,
            &groups,
            position,
            dead.is_some(),
            created,
            record,
            rest,
        ));
    })?;
    Ok(found.map(|message| to_text(&message)))
}

/// A page of messages, newest first.
pub(crate) fn messages(db: &Db, request: &MessagesRequest, now: i64) -> Result<Option<String>> {
    let mut found: Vec<Message> = Vec::new();
    let mut skip = request.offset;
    // The messages of a segment come one after another, so what was read for the last one serves the next.
    let mut last: Option<(i64, i64, Vec<GroupState>, Vec<i64>)> = None;
    if request.limit > 0 {
        db.browse(&request.page, |home, first, position, created, record| {
            let known = last
                .as_ref()
                .is_some_and(|(part, segment, ..)| (*part, *segment) == (home.part, first));
            if !known {
                let groups = group_states(db, home.part, now)?;
                let dead = db.dead_positions(home.part, first, position)?;
                last = Some((home.part, first, groups, dead));
            }
            let Some((_, _, groups, dead)) = &last else {
                return Ok(true);
            };
            let status = status(groups, position, dead.contains(&position));
            if !request.status.is_empty() && status != request.status {
                return Ok(true);
            }
            if skip > 0 {
                skip -= 1;
                return Ok(true);
            }
            let named = named(groups);
            let priority = serde_json::from_str::<QueueOptions>(&home.options)
                .map_or(0, |options| options.priority);
            let rest = json!({
                "queueStatus": status,
                "busStatus": {
                    "consumedBy": named.iter().filter(|group| group.committed >= position).count(),
                    "totalGroups": named.len(),
                },
                "payloadAvailable": true,
                "queuePriority": priority,
                "segment": { "seq": first, "frameIdx": position - first },
                // Transaction ids are kept whole, not hashed.
                "txnHash": null,
            });
            let dead = dead.contains(&position);
            found.push(build(home, groups, position, dead, created, record, rest));
            Ok(found.len() < request.limit)
        })?;
    }
    let names = db.group_names(&request.page.queue)?;
    let text = to_text(&Answer {
        total: found.len(),
        mode: mode(names.iter().map(String::as_str)),
        messages: found,
    });
    Ok(Some(text))
}

#[derive(Serialize)]
struct Answer {
    messages: Vec<Message>,
    mode: Value,
    total: usize,
}

fn build(
    home: &Home,
    groups: &[GroupState],
    position: i64,
    dead: bool,
    created: i64,
    record: &crate::store::segment::Record,
    rest: Value,
) -> Message {
    // Only JSON is let in, so this never falls back.
    let data = || RawValue::from_string(record.payload.to_owned()).unwrap_or_default();
    // A queue that was configured without names shows those that its own name tells.
    let (namespace, task) = derived(&home.queue_name);
    let or = |given: &str, derived: &str| if given.is_empty() { derived } else { given }.to_owned();
    Message {
        id: record.id,
        transaction_id: record.txn.to_owned(),
        trace_id: record.trace,
        producer_sub: record.producer.map(Into::into),
        data: data(),
        payload: data(),
        is_encrypted: false,
        created_at: clock::iso(created),
        partition_id: home.part_id,
        partition: home.part_name.clone(),
        queue: home.queue_name.clone(),
        queue_path: format!("{}/{}", home.queue_name, home.part_name),
        namespace: or(&home.namespace, namespace),
        task: or(&home.task, task),
        status: status(groups, position, dead),
        lease_expires_at: groups
            .iter()
            .filter_map(|group| group.expires)
            .max()
            .map(clock::iso),
        rest,
    }
}

/// The groups on a partition, without the leases that have ended.
fn group_states(db: &Db, part: i64, now: i64) -> Result<Vec<GroupState>> {
    let mut groups = db.group_states(part)?;
    for group in &mut groups {
        group.expires = group.expires.filter(|at| *at > now);
    }
    Ok(groups)
}

fn named(groups: &[GroupState]) -> Vec<&GroupState> {
    groups
        .iter()
        .filter(|group| group.name != QUEUE_MODE)
        .collect()
}

/// Named groups count before those that share the queue.
fn status(groups: &[GroupState], position: i64, dead: bool) -> &'static str {
    let named = named(groups);
    let passed = |group: &GroupState| group.committed >= position;
    if dead {
        "dead_letter"
    } else if !groups.is_empty()
        && (named.iter().all(|group| passed(group)))
        && (!named.is_empty() || groups.iter().all(passed))
    {
        "completed"
    } else if groups.iter().any(|group| group.expires.is_some()) {
        "processing"
    } else {
        "pending"
    }
}

fn mode<'a>(groups: impl Iterator<Item = &'a str>) -> Value {
    let (shared, named): (Vec<&str>, Vec<&str>) = groups.partition(|name| *name == QUEUE_MODE);
    let kind = match (shared.is_empty(), named.is_empty()) {
        (true, true) => "none",
        (false, true) => "queue",
        (true, false) => "bus",
        (false, false) => "hybrid",
    };
    json!({ "type": kind, "hasQueueMode": !shared.is_empty(), "busGroupsCount": named.len() })
}

/// Strings, numbers and raw JSON always serialise.
fn to_text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
