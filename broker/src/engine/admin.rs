//! Queues as a whole: configure, describe, delete.

use serde_json::json;

use super::command::{ConfigureRequest, Configured};
use super::model::PartId;
use super::queue_options::QueueOptions;
use super::writer::Writer;
use crate::clock;
use crate::store::{NONE, Result};

impl Writer {
    pub(super) fn configure(&mut self, request: &ConfigureRequest) -> Result<Configured> {
        let ConfigureRequest {
            queue: name,
            namespace,
            task,
            options,
        } = request;
        let id = match self.model.queue_id(name) {
            None => self.create_queue(name, namespace.clone(), task.clone(), options.clone())?,
            Some(id) => {
                self.db
                    .update_queue(id, namespace, task, &to_text(options))?;
                self.round.room.remove(&id);
                if let Some(mut queue) = self.model.remove_queue(id) {
                    queue.namespace = namespace.as_str().into();
                    queue.task = task.as_str().into();
                    queue.options = options.clone();
                    self.model.add_queue(id, queue);
                }
                // A shorter delay may make messages deliverable at once.
                let parts: Vec<PartId> = self.parts_of(id);
                parts.into_iter().for_each(|part| self.unhold(id, part));
                id
            }
        };
        self.sweep.plan(&self.model, self.round.now);
        Ok(Configured {
            id: self
                .model
                .queues
                .get(&id)
                .map(|q| q.uuid)
                .unwrap_or_default(),
        })
    }

    fn unhold(&mut self, queue: i64, part: PartId) {
        let next = self.model.next(part);
        let Some(queue) = self.model.queues.get(&queue) else {
            return;
        };
        for group in queue.groups.values() {
            if let Some(group) = self.model.groups.get_mut(group) {
                group.settle(part, next, self.round.now);
            }
        }
        self.wake_part(part);
    }

    pub(super) fn parts_of(&self, queue: i64) -> Vec<PartId> {
        self.model
            .queues
            .get(&queue)
            .map_or_else(Vec::new, |q| q.parts.values().copied().collect())
    }

    /// The answer of `GET /resources/queues/:queue`, or nothing for an unknown queue.
    pub(super) fn describe(&mut self, name: &str) -> Result<Option<String>> {
        let Some(id) = self.model.queue_id(name) else {
            return Ok(None);
        };
        let mut ids = self.parts_of(id);
        ids.sort_unstable();
        let (mut parts, mut segments, mut messages, mut bytes) = (Vec::new(), 0, 0, 0);
        let mut sums = [0; 5];
        for part in ids {
            self.flush(part)?;
            let (slowest, leased) = self.progress(id, part);
            let Some(found) = self.model.parts.get(&part) else {
                continue;
            };
            let facts = self.db.facts(part, slowest + 1)?;
            let total = facts.messages;
            let completed = total - (found.next - 1 - slowest).clamp(0, total);
            let processing = leased.min(total - completed);
            let stats = [
                total,
                total - completed - processing,
                processing,
                completed,
                facts.dead,
            ];
            sums.iter_mut().zip(stats).for_each(|(sum, n)| *sum += n);
            (segments, messages, bytes) = (
                segments + facts.segments,
                messages + total,
                bytes + facts.bytes,
            );
            parts.push(json!({
                "id": found.uuid,
                "name": &*found.name,
                "createdAt": clock::iso(found.created),
                "oldestMessage": facts.oldest.map(clock::iso),
                "newestMessage": (found.next > 0).then(|| clock::iso(found.newest)),
                "stats": counters(stats),
            }));
        }
        let Some(queue) = self.model.queues.get(&id) else {
            return Ok(None);
        };
        let answer = json!({
            "id": queue.uuid,
            "name": &*queue.name,
            "namespace": &*queue.namespace,
            "task": &*queue.task,
            "createdAt": clock::iso(queue.created),
            "retainedBytes": bytes,
            "segments": { "segments": segments, "messages": messages },
            "totals": counters(sums),
            "partitions": parts,
        });
        Ok(Some(answer.to_string()))
    }

    /// What the slowest group has finished in a partition, and how much of the rest is out on a lease.
    fn progress(&self, queue: i64, part: PartId) -> (i64, i64) {
        let Some(queue) = self.model.queues.get(&queue) else {
            return (NONE, 0);
        };
        let cursors: Vec<_> = queue
            .groups
            .values()
            .filter_map(|group| self.model.groups.get(group)?.cursors.get(&part))
            .collect();
        let slowest = cursors
            .iter()
            .map(|cursor| cursor.committed)
            .min()
            .unwrap_or(NONE);
        let live = cursors
            .iter()
            .filter_map(|cursor| cursor.lease.map(|lease| (cursor, lease)));
        let leased = live
            .filter(|(_, lease)| lease.expires > self.round.now)
            .map(|(cursor, lease)| lease.batch_end - cursor.committed)
            .max();
        (slowest, leased.unwrap_or(0))
    }

    /// Removes a queue with its messages, partitions, groups and leases. False: there was none.
    pub(super) fn delete(&mut self, name: &str) -> Result<bool> {
        let Some(id) = self.model.queue_id(name) else {
            return Ok(false);
        };
        let parts = self.parts_of(id);
        self.db.delete_queue(id, name, &parts)?;
        let Some(queue) = self.model.remove_queue(id) else {
            return Ok(false);
        };
        for group in queue.groups.values() {
            self.model.groups.remove(group);
        }
        for part in parts {
            self.round.segments.remove(&part);
            if let Some(part) = self.model.parts.remove(&part) {
                self.model.part_ids.remove(&part.uuid);
            }
        }
        let groups = &self.model.groups;
        self.model.leases.retain(|_, claims| {
            claims.retain(|(group, _)| groups.contains_key(group));
            !claims.is_empty()
        });
        self.model.pins.retain(|(queue, _), _| queue != name);
        Ok(true)
    }
}

fn counters([total, pending, processing, completed, dead]: [i64; 5]) -> serde_json::Value {
    json!({
        "total": total, "pending": pending, "processing": processing, "completed": completed,
        "failed": null, "deadLetter": dead,
    })
}

/// Options as they are stored. Integers and booleans always serialise.
pub(super) fn to_text(options: &QueueOptions) -> String {
    serde_json::to_string(options).unwrap_or_default()
}
