//! The broker's picture of its queues, held in memory by the writer and mirrored in the store.
//!
//! It answers "which partition has something for this group" without looking at the others: every cursor stands in at
//! most one of two ordered sets of its group, those that may be claimed and those that wait for a moment in time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::queue_options::QueueOptions;
use super::streams::Streams;
use super::subscription::{Finder, FinderKey, Index, Subscription};
use crate::store::{Db, NONE, Result};

pub(crate) type QueueId = i64;
pub(crate) type PartId = i64;
pub(crate) type GroupId = i64;

/// A queue.
pub(crate) struct Queue {
    pub(crate) uuid: Uuid,
    pub(crate) name: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) task: Arc<str>,
    pub(crate) options: QueueOptions,
    pub(crate) created: i64,
    pub(crate) parts: HashMap<Arc<str>, PartId>,
    pub(crate) groups: HashMap<Arc<str>, GroupId>,
    /// How many messages are stored.
    pub(crate) stored: i64,
    /// When the newest message was pushed, to whichever partition.
    pub(crate) newest: i64,
}

/// A partition: an append-only log.
pub(crate) struct Part {
    pub(crate) uuid: Uuid,
    pub(crate) queue: QueueId,
    pub(crate) name: Arc<str>,
    pub(crate) created: i64,
    /// The offset of the oldest message that is still stored, or of the next one.
    pub(crate) first: i64,
    /// The offset of the next message.
    pub(crate) next: i64,
    /// When the newest message was pushed.
    pub(crate) newest: i64,
    /// How many dead-letter records it has.
    pub(crate) dead: i64,
}

/// A lease of one partition by one group.
#[derive(Clone, Copy)]
pub(crate) struct Lease {
    pub(crate) id: Uuid,
    pub(crate) expires: i64,
    pub(crate) batch_end: i64,
}

/// Where a group stands in a partition.
pub(crate) struct Cursor {
    /// The last finished offset.
    pub(crate) committed: i64,
    /// The last offset that was ever handed out.
    pub(crate) delivered: i64,
    /// Failures of the message behind `committed`.
    pub(crate) retries: i64,
    /// Kept after it expired, until the next claim: its batch can still be acknowledged without a lease id.
    pub(crate) lease: Option<Lease>,
    /// How many messages the group has finished here.
    pub(crate) consumed: i64,
    /// What was pushed behind `delivered`, as its group has counted it.
    undelivered: i64,
    place: Place,
}

impl Cursor {
    /// Finishes everything up to an offset.
    pub(crate) fn finish(&mut self, committed: i64) {
        self.consumed += (committed - self.committed).max(0);
        self.committed = committed;
        self.delivered = self.delivered.max(committed);
    }

    fn at(committed: i64) -> Cursor {
        Cursor {
            committed,
            delivered: committed,
            retries: 0,
            lease: None,
            consumed: 0,
            undelivered: 0,
            place: Place::Idle,
        }
    }
}

/// In which set of its group a cursor stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing to deliver.
    Idle,
    /// May be claimed; the number keeps the order of arrival.
    Ready(u64),
    /// Not before this time: leased, or delayed.
    Blocked(i64),
}

/// A consumer group of one queue.
pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    /// A registered group reads every partition, those to come included. Another one reads where it has cursors.
    pub(crate) registered: bool,
    /// How it was registered; kept when only its cursors are deleted, so that it starts again there.
    pub(crate) subscription: Option<Subscription>,
    pub(crate) cursors: HashMap<PartId, Cursor>,
    ready: BTreeSet<(u64, PartId)>,
    blocked: BTreeSet<(i64, PartId)>,
    tickets: u64,
    /// The sum over all cursors, so that a bounded queue need not look at each.
    undelivered: i64,
}

impl Group {
    pub(crate) fn new(name: Arc<str>, subscription: Option<Subscription>) -> Group {
        Group {
            name,
            registered: subscription.is_some(),
            subscription,
            cursors: HashMap::new(),
            ready: BTreeSet::new(),
            blocked: BTreeSet::new(),
            tickets: 0,
            undelivered: 0,
        }
    }

    /// Puts a cursor where its lease and the end of its partition say.
    pub(crate) fn settle(&mut self, part: PartId, next: i64, now: i64) {
        let Some(cursor) = self.cursors.get_mut(&part) else {
            return;
        };
        let undelivered = (next - 1 - cursor.delivered).max(0);
        self.undelivered += undelivered - std::mem::replace(&mut cursor.undelivered, undelivered);
        let place = match cursor.lease {
            Some(lease) if lease.expires > now => Place::Blocked(lease.expires),
            _ if cursor.committed >= next - 1 => Place::Idle,
            // A cursor that is ready keeps its turn.
            _ => match cursor.place {
                Place::Ready(ticket) => Place::Ready(ticket),
                _ => {
                    self.tickets += 1;
                    Place::Ready(self.tickets)
                }
            },
        };
        self.put(part, place);
    }

    /// Holds a cursor back until a moment in time.
    pub(crate) fn hold(&mut self, part: PartId, until: i64) {
        self.put(part, Place::Blocked(until));
    }

    fn put(&mut self, part: PartId, place: Place) {
        let Some(cursor) = self.cursors.get_mut(&part) else {
            return;
        };
        if cursor.place == place {
            return;
        }
        match cursor.place {
            Place::Idle => {}
            Place::Ready(ticket) => drop(self.ready.remove(&(ticket, part))),
            Place::Blocked(until) => drop(self.blocked.remove(&(until, part))),
        }
        cursor.place = place;
        match place {
            Place::Idle => {}
            Place::Ready(ticket) => drop(self.ready.insert((ticket, part))),
            Place::Blocked(until) => drop(self.blocked.insert((until, part))),
        }
    }

    /// The partition that has waited longest to be claimed.
    pub(crate) fn first_ready(&self) -> Option<PartId> {
        self.ready.first().map(|(_, part)| *part)
    }

    /// The partitions that may be claimed, at most so many, in their order.
    pub(crate) fn ready(&self, most: i64) -> impl Iterator<Item = PartId> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        self.ready.iter().map(|(_, part)| *part).take(most)
    }

    /// The first moment at which a held partition may become ready, with that partition.
    pub(crate) fn first_blocked(&self) -> Option<(i64, PartId)> {
        self.blocked.first().copied()
    }

    /// The cursor on a partition; a registered group has one on each, from the start unless it was placed elsewhere.
    pub(crate) fn cursor(&mut self, part: PartId) -> Option<&mut Cursor> {
        if self.registered {
            return Some(self.cursors.entry(part).or_insert_with(|| Cursor::at(NONE)));
        }
        self.cursors.get_mut(&part)
    }

    /// Places a new cursor.
    pub(crate) fn start(&mut self, part: PartId, committed: i64) {
        self.put(part, Place::Idle);
        if let Some(old) = self.cursors.insert(part, Cursor::at(committed)) {
            self.undelivered -= old.undelivered;
        }
    }

    /// How many messages were never handed out.
    pub(crate) fn undelivered(&self) -> i64 {
        self.undelivered
    }
}

/// Everything, by id; the names lead to the ids.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) queues: HashMap<QueueId, Queue>,
    /// How often one was added or taken out; one that gets another namespace or task is both.
    pub(crate) queue_changes: u64,
    pub(crate) names: HashMap<Arc<str>, QueueId>,
    pub(crate) parts: HashMap<PartId, Part>,
    pub(crate) part_ids: HashMap<Uuid, PartId>,
    pub(crate) groups: HashMap<GroupId, Group>,
    /// The claims made under a lease id.
    pub(crate) leases: HashMap<Uuid, Vec<(GroupId, PartId)>>,
    /// Groups that asked for a partition before it existed: by queue and partition name. They start at its start.
    pub(crate) pins: HashMap<(String, String), HashSet<String>>,
    pub(crate) by_namespace: Index,
    pub(crate) by_task: Index,
    pub(crate) finders: HashMap<FinderKey, Finder>,
    pub(crate) streams: Streams,
}

impl Model {
    /// Builds the picture from the store.
    pub(crate) fn load(db: &Db, now: i64) -> Result<Model> {
        let mut model = Model::default();
        for q in db.queues()? {
            let options = serde_json::from_str(&q.options).map_err(|e| {
                rusqlite::Error::FromSqlConversionFailure(
                    5,
                    rusqlite::types::Type::Text,
                    Box::new(e),
                )
            })?;
            model.add_queue(
                q.id,
                Queue {
                    uuid: q.uuid,
                    name: q.name.into(),
                    namespace: q.namespace.into(),
                    task: q.task.into(),
                    options,
                    created: q.created,
                    parts: HashMap::new(),
                    groups: HashMap::new(),
                    stored: 0,
                    newest: 0,
                },
            );
        }
        for p in db.parts()? {
            let Some(queue) = model.queues.get_mut(&p.queue) else {
                continue;
            };
            let name: Arc<str> = p.name.into();
            queue.stored += p.next - p.first;
            queue.newest = queue.newest.max(p.newest);
            queue.parts.insert(name.clone(), p.id);
            model.part_ids.insert(p.uuid, p.id);
            let part = Part {
                uuid: p.uuid,
                queue: p.queue,
                name,
                created: p.created,
                first: p.first,
                next: p.next,
                newest: p.newest,
                dead: 0,
            };
            model.parts.insert(p.id, part);
        }
        for (part, count) in db.dead_counts()? {
            if let Some(part) = model.parts.get_mut(&part) {
                part.dead = count;
            }
        }
        for g in db.groups()? {
            let Some(queue) = model.queues.get_mut(&g.queue) else {
                continue;
            };
            let name: Arc<str> = g.name.into();
            queue.groups.insert(name.clone(), g.id);
            let mut group = Group::new(name, g.subscription);
            group.registered &= !g.dormant;
            model.groups.insert(g.id, group);
        }
        model.load_cursors(db)?;
        model.streams = Streams::load(db)?;
        for (key, subscription) in db.finders()? {
            model.finders.insert(key, Finder::new(subscription));
        }
        for (queue, part, group) in db.pins()? {
            model.pins.entry((queue, part)).or_default().insert(group);
        }
        for queue in model.queues.values() {
            for group in queue.groups.values() {
                let Some(group) = model.groups.get_mut(group) else {
                    continue;
                };
                for part in queue.parts.values() {
                    group.cursor(*part);
                    group.settle(*part, model.parts.get(part).map_or(0, |p| p.next), now);
                }
            }
        }
        Ok(model)
    }

    fn load_cursors(&mut self, db: &Db) -> Result<()> {
        for c in db.cursors()? {
            let Some(group) = self.groups.get_mut(&c.group) else {
                continue;
            };
            let lease = c.lease.map(|(id, expires, batch_end)| Lease {
                id,
                expires,
                batch_end,
            });
            if let Some(lease) = lease {
                self.leases
                    .entry(lease.id)
                    .or_default()
                    .push((c.group, c.part));
            }
            let cursor = Cursor {
                committed: c.committed,
                delivered: c.delivered,
                retries: c.retries,
                lease,
                consumed: c.consumed,
                undelivered: 0,
                place: Place::Idle,
            };
            group.cursors.insert(c.part, cursor);
        }
        Ok(())
    }

    /// Adds a queue under its name, namespace and task.
    pub(crate) fn add_queue(&mut self, id: QueueId, queue: Queue) {
        self.names.insert(queue.name.clone(), id);
        self.by_namespace.add(&queue.namespace, id);
        self.by_task.add(&queue.task, id);
        self.queues.insert(id, queue);
        self.queue_changes += 1;
    }

    /// Takes a queue out; its partitions and groups stay behind.
    pub(crate) fn remove_queue(&mut self, id: QueueId) -> Option<Queue> {
        let queue = self.queues.remove(&id)?;
        self.queue_changes += 1;
        self.names.remove(&queue.name);
        self.by_namespace.remove(&queue.namespace, id);
        self.by_task.remove(&queue.task, id);
        Some(queue)
    }

    /// The queue of that name.
    pub(crate) fn queue_id(&self, name: &str) -> Option<QueueId> {
        self.names.get(name).copied()
    }

    /// The end of a partition's log.
    pub(crate) fn next(&self, part: PartId) -> i64 {
        self.parts.get(&part).map_or(0, |p| p.next)
    }

    /// Forgets one claim of a lease.
    pub(crate) fn forget_lease(&mut self, lease: Uuid, group: GroupId, part: PartId) {
        if let Some(claims) = self.leases.get_mut(&lease) {
            claims.retain(|claim| *claim != (group, part));
            if claims.is_empty() {
                self.leases.remove(&lease);
            }
        }
    }
}
