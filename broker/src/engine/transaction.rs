//! Pushes and acks that happen together or not at all.
//!
//! The writer does one thing at a time: everything is checked first, and what was found to be right can no longer fail
//! but by a failure of the store, which undoes it with the transaction around it.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::ack::Found;
use super::command::{
    AckItem, Acked, Exhumed, Grave, PushGroup, PushItem, PushRequest, Pushed, Rejected, Transacted,
    Transaction,
};
use super::model::{GroupId, PartId, QueueId};
use super::writer::Writer;
use crate::store::{NONE, Result};

/// The acks for one partition and group.
struct AckGroup {
    group: GroupId,
    part: PartId,
    fenced: bool,
    items: Vec<usize>,
}

impl Writer {
    pub(super) fn do_transaction(&mut self, request: &Transaction) -> Result<Transacted> {
        let groups = match self.check_acks(&request.acks)? {
            Ok(groups) => groups,
            Err(rejected) => return Ok(Err(rejected)),
        };
        if let Some(rejected) = self.check_pushes(&request.pushes.groups)? {
            return Ok(Err(rejected));
        }
        let pushed = self.push(&request.pushes)?;
        self.round.tally.of(None).transactions += 1;
        let mut acked = vec![Acked::default(); request.acks.len()];
        for group in groups {
            let items: Vec<&AckItem> = group
                .items
                .iter()
                .filter_map(|i| request.acks.get(*i).map(|(_, item)| item))
                .collect();
            let results = self.ack_group(group.group, group.part, group.fenced, &items)?;
            for (index, result) in group.items.into_iter().zip(results) {
                if let Some(slot) = acked.get_mut(index) {
                    *slot = result;
                }
            }
        }
        Ok(Ok((pushed, acked)))
    }

    /// Sorts the acks by partition and group, and checks their leases and transaction ids. An ack without a lease is
    /// not fenced, as outside of a transaction.
    fn check_acks(
        &mut self,
        acks: &[(String, AckItem)],
    ) -> Result<std::result::Result<Vec<AckGroup>, Rejected>> {
        let mut groups: Vec<AckGroup> = Vec::new();
        let mut places: HashMap<(GroupId, PartId), usize> = HashMap::new();
        for (index, (name, item)) in acks.iter().enumerate() {
            let known = item.part.parse::<Uuid>().ok();
            if known.is_none_or(|id| !self.model.part_ids.contains_key(&id)) {
                return Ok(Err(ack_rejected(format!(
                    "QTXN ack references partition {} not owned by this tenant",
                    item.part
                ))));
            }
            let (group, part) = match self.find(name, &item.part, &item.lease) {
                Ok(found) => found,
                Err(error) => {
                    return Ok(Err(ack_rejected(format!(
                        "QTXN ack failed for partition {} group {name:?}: {error}; transaction rolled back",
                        item.part
                    ))));
                }
            };
            if self.stands(group, part, &item.txn)? == Found::Nowhere {
                return Ok(Err(ack_rejected(
                    "QTXN ack references unknown transactionId; transaction rolled back".into(),
                )));
            }
            let place = *places.entry((group, part)).or_insert_with(|| {
                groups.push(AckGroup {
                    group,
                    part,
                    fenced: false,
                    items: Vec::new(),
                });
                groups.len() - 1
            });
            if let Some(group) = groups.get_mut(place) {
                group.fenced |= !item.lease.is_empty();
                group.items.push(index);
            }
        }
        Ok(Ok(groups))
    }

    /// Where a message stands for a group.
    fn stands(&mut self, group: GroupId, part: PartId, txn: &str) -> Result<Found> {
        let cursor = self
            .model
            .groups
            .get(&group)
            .and_then(|g| g.cursors.get(&part));
        let Some(cursor) = cursor else {
            return self.locate(part, txn, NONE, NONE);
        };
        let high = cursor
            .lease
            .map_or(cursor.delivered, |lease| lease.batch_end);
        self.locate(part, txn, cursor.committed, high)
    }

    /// Looks for what would be a duplicate of a stored message, or would not fit.
    fn check_pushes(&mut self, groups: &[PushGroup]) -> Result<Option<Rejected>> {
        let mut wanted: HashMap<QueueId, i64> = HashMap::new();
        for group in groups {
            let Some(id) = self.model.queue_id(&group.queue) else {
                continue;
            };
            let Some(queue) = self.model.queues.get(&id) else {
                continue;
            };
            let window = queue.options.dedup_window_seconds;
            let part = queue.parts.get(group.part.as_str()).copied();
            let mut own = HashSet::new();
            for item in &group.items {
                if let (Some(part), Some(txn), true) = (part, &item.txn, window > 0)
                    && self.known(part, txn, window)?.is_some()
                {
                    return Ok(Some(Rejected {
                        reason: "duplicate",
                        error: format!(
                            "QDUP duplicate messages in queue {:?} partition {:?}; transaction rolled back",
                            group.queue, group.part
                        ),
                    }));
                }
                if item.txn.as_ref().is_none_or(|txn| own.insert(txn)) {
                    *wanted.entry(id).or_default() += 1;
                }
            }
            if let Some((most, room)) = self.room(id)
                && wanted.get(&id).is_some_and(|n| *n > room)
            {
                return Ok(Some(Rejected {
                    reason: "queue_full",
                    error: format!(
                        "queue {:?} is full: maxSize {most}; transaction rolled back",
                        group.queue
                    ),
                }));
            }
        }
        Ok(None)
    }

    /// Removes the dead-letter records of a message and, for a replay, pushes it under a new id.
    pub(super) fn exhume(&mut self, grave: &Grave) -> Result<Option<Exhumed>> {
        let Some(part) = self.model.part_ids.get(&grave.part).copied() else {
            return Ok(None);
        };
        let Some(payload) = self.db.buried(part, &grave.txn)? else {
            return Ok(None);
        };
        let Some(found) = self.model.parts.get(&part) else {
            return Ok(None);
        };
        let (home, name) = (found.queue, found.name.clone());
        let queue = self.queue_name(home);
        let removed = self.db.delete_dead_letters(part, &grave.txn)?;
        if let Some(part) = self.model.parts.get_mut(&part) {
            part.dead -= removed as i64;
        }
        let mut copy = None;
        if grave.replay {
            let item = PushItem {
                index: 0,
                accepted: None,
                txn: None,
                trace: None,
                producer: None,
                payload: payload.into(),
            };
            let group = PushGroup {
                queue: queue.to_string(),
                part: name.to_string(),
                items: vec![item],
            };
            // It was in the queue before, so it is let in even where the queue is full.
            if let Some((_, room)) = self.room(home) {
                self.round.room.insert(home, room.max(1));
            }
            let request = PushRequest {
                groups: vec![group],
                count: 1,
            };
            copy = match self.push(&request)?.first() {
                Some(Pushed::Stored(id) | Pushed::Duplicate(id)) => Some(*id),
                _ => None,
            };
        }
        Ok(Some(Exhumed {
            queue,
            part: name,
            copy,
        }))
    }
}

fn ack_rejected(error: String) -> Rejected {
    Rejected {
        reason: "ack_rejected",
        error,
    }
}
