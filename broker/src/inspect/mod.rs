//! What a broker holds, at a glance: from the file of a store, or from a running broker.

mod file;
mod server;
mod table;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use file::inspect;
pub use server::inspect_server;

use crate::error::OpenError;

/// What a store or a broker holds. As JSON its names are in camel case; `docs/BROKER.md` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Inspection {
    /// The file or the URL.
    pub source: String,
    /// The process that has the file open, if there is one.
    pub owner_pid: Option<u32>,
    /// By name.
    pub queues: Vec<InspectedQueue>,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct InspectedQueue {
    /// Its name.
    pub name: String,
    /// Empty if it has none.
    pub namespace: String,
    /// Empty if it has none.
    pub task: String,
    /// When it was made: ISO-8601, UTC.
    pub created_at: String,
    /// What its partitions hold together.
    pub messages: Messages,
    /// By name.
    pub partitions: Vec<InspectedPartition>,
    /// By name.
    pub groups: Vec<InspectedGroup>,
}

/// How many messages there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Messages {
    /// Stored.
    pub total: u64,
    /// Not finished by the slowest group, those in `leased` included; all of them where no group reads.
    pub waiting: u64,
    /// Handed out and not settled, where the lease lives.
    pub leased: u64,
    /// Dead-letter records.
    pub dead_letters: u64,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct InspectedPartition {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub messages: Messages,
    /// When the oldest waiting message was pushed: ISO-8601, UTC.
    pub oldest_at: Option<String>,
    /// When the newest message was pushed.
    pub newest_at: Option<String>,
}

/// A consumer group of a queue. The one of pops without a group is `__QUEUE_MODE__`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct InspectedGroup {
    /// Its name.
    pub name: String,
    /// How it was registered: `all`, `new`, `timestamp`; nothing for a group that only reads named partitions.
    pub mode: Option<String>,
    /// Messages that it has not finished, in all partitions.
    pub lag: u64,
    /// How old the oldest of them is, in seconds.
    pub lag_seconds: u64,
    /// By name.
    pub partitions: Vec<GroupPartition>,
}

/// Where a group stands in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupPartition {
    /// The name of the partition.
    pub name: String,
    /// Messages that the group has not finished.
    pub lag: u64,
    /// How old the oldest of them is, in seconds.
    pub lag_seconds: u64,
    /// The lease under which somebody has messages of it.
    pub lease_id: Option<String>,
}

/// Why something could not be inspected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// The file is no store that this version reads.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The broker does not answer, or not as a broker does.
    #[error("{url}: {reason}")]
    Server {
        /// As it was given.
        url: String,
        /// What happened and what to do.
        reason: String,
    },
    /// There is no queue of that name.
    #[error("there is no queue {0:?}")]
    NoQueue(String),
}

/// Where the answers of the read-only routes come from. The two sources speak the same words, so that there is one way
/// to read them.
trait Source {
    /// The names of all queues, as `GET /resources/queues` has them.
    fn queues(&mut self) -> Result<Value, InspectError>;
    /// `GET /resources/queues/:queue`; nothing for an unknown one.
    fn queue(&mut self, name: &str) -> Result<Option<Value>, InspectError>;
    /// `GET /consumer-groups`.
    fn groups(&mut self) -> Result<Value, InspectError>;
    /// `GET /consumer-groups/:group`.
    fn group(&mut self, name: &str) -> Result<Value, InspectError>;
    /// An answer that is not what it should be.
    fn odd(&self, what: &str) -> InspectError;
}

#[derive(Deserialize)]
struct Listed {
    queues: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    name: String,
    namespace: String,
    task: String,
    created_at: String,
    partitions: Vec<DescribedPart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescribedPart {
    name: String,
    oldest_message: Option<String>,
    newest_message: Option<String>,
    stats: Stats,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    total: u64,
    completed: u64,
    processing: u64,
    dead_letter: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    queue_name: String,
    subscription_mode: Option<String>,
}

#[derive(Deserialize)]
struct Standing {
    partitions: Vec<StandingPart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StandingPart {
    partition: String,
    worker_id: Option<String>,
    lease_active: bool,
    offset_lag: i64,
    time_lag_seconds: i64,
}

fn read<T: for<'a> Deserialize<'a>>(source: &impl Source, value: Value) -> Result<T, InspectError> {
    serde_json::from_value(value).map_err(|error| source.odd(&error.to_string()))
}

/// Looks at all queues, or at one.
fn survey(
    source: &mut impl Source,
    only: Option<&str>,
) -> Result<Vec<InspectedQueue>, InspectError> {
    let names = match only {
        Some(name) => vec![name.to_owned()],
        None => {
            let listed = source.queues()?;
            let listed: Listed = read(source, listed)?;
            listed.queues.into_iter().map(|queue| queue.name).collect()
        }
    };
    let mut queues = Vec::with_capacity(names.len());
    for name in names {
        match source.queue(&name)? {
            Some(described) => queues.push(queue(read(source, described)?)),
            None if only.is_some() => return Err(InspectError::NoQueue(name)),
            // Deleted meanwhile.
            None => {}
        }
    }
    queues.sort_by(|a, b| a.name.cmp(&b.name));
    let listed = source.groups()?;
    let mut listed: Vec<Group> = read(source, listed)?;
    listed.retain(|group| queues.iter().any(|queue| queue.name == group.queue_name));
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    // One answer tells of a group in all its queues.
    for rows in listed.chunk_by(|a, b| a.name == b.name) {
        let Some(first) = rows.first() else { continue };
        let standing = source.group(&first.name)?;
        let mut standing: std::collections::HashMap<String, Standing> = read(source, standing)?;
        for row in rows {
            let queue = queues.iter_mut().find(|queue| queue.name == row.queue_name);
            if let (Some(queue), Some(found)) = (queue, standing.remove(&row.queue_name)) {
                queue.groups.push(group(row, found));
            }
        }
    }
    Ok(queues)
}

fn queue(described: Described) -> InspectedQueue {
    let mut partitions: Vec<InspectedPartition> = described
        .partitions
        .into_iter()
        .map(|part| InspectedPartition {
            name: part.name,
            messages: Messages {
                total: part.stats.total,
                // Brokers do not agree on whether `pending` includes what is leased.
                waiting: part.stats.total.saturating_sub(part.stats.completed),
                leased: part.stats.processing,
                dead_letters: part.stats.dead_letter,
            },
            oldest_at: part.oldest_message,
            newest_at: part.newest_message,
        })
        .collect();
    partitions.sort_by(|a, b| a.name.cmp(&b.name));
    let mut messages = Messages::default();
    for part in &partitions {
        messages.total += part.messages.total;
        messages.waiting += part.messages.waiting;
        messages.leased += part.messages.leased;
        messages.dead_letters += part.messages.dead_letters;
    }
    InspectedQueue {
        name: described.name,
        namespace: described.namespace,
        task: described.task,
        created_at: described.created_at,
        messages,
        partitions,
        groups: Vec::new(),
    }
}

fn group(row: &Group, standing: Standing) -> InspectedGroup {
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    let mut partitions: Vec<GroupPartition> = standing
        .partitions
        .into_iter()
        .map(|part| GroupPartition {
            name: part.partition,
            lag: count(part.offset_lag),
            lag_seconds: count(part.time_lag_seconds),
            lease_id: part.worker_id.filter(|_| part.lease_active),
        })
        .collect();
    partitions.sort_by(|a, b| a.name.cmp(&b.name));
    InspectedGroup {
        name: row.name.clone(),
        mode: row.subscription_mode.clone(),
        lag: partitions.iter().map(|part| part.lag).sum(),
        lag_seconds: partitions
            .iter()
            .map(|part| part.lag_seconds)
            .max()
            .unwrap_or(0),
        partitions,
    }
}

impl fmt::Display for Inspection {
    /// Tables for people: queues, partitions, groups, leases.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        table::write(self, f)
    }
}
