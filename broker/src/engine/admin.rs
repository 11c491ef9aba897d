//! Queues as a whole: configure, describe, delete.

use super::command::{ConfigureRequest, Configured};
use super::model::PartId;
use super::queue_options::QueueOptions;
use super::writer::Writer;
use crate::store::Result;

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
                let parts: Vec<PartId> = self.parts_of(id);
                if let Some(mut queue) = self.model.remove_queue(id) {
                    if options.txns_known() > queue.options.txns_known() {
                        // Their tables know too little now.
                        parts.iter().for_each(|part| self.txns.forget(*part));
                    }
                    queue.namespace = namespace.as_str().into();
                    queue.task = task.as_str().into();
                    queue.options = options.clone();
                    self.model.add_queue(id, queue);
                }
                // A shorter delay may make messages deliverable at once.
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
        self.meter.partitions(1);
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
        self.model.streams.forget_queue(id);
        for part in parts {
            self.round.segments.remove(&part);
            self.txns.forget(part);
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

/// Options as they are stored. Integers and booleans always serialise.
pub(super) fn to_text(options: &QueueOptions) -> String {
    serde_json::to_string(options).unwrap_or_default()
}
