//! Storing messages.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::command::{PushItem, PushRequest, Pushed};
use super::model::{Group, Part, PartId, Queue, QueueId};
use super::queue_options::QueueOptions;
use super::writer::Writer;
use crate::store::segment::{self, MAX_BYTES, MAX_MESSAGES, Record};
use crate::store::{NONE, Result};

/// The end of a partition's log that is not in a row yet.
pub(super) struct OpenSegment {
    first: i64,
    count: i64,
    created: i64,
    body: Vec<u8>,
}

impl OpenSegment {
    pub(super) fn first(&self) -> i64 {
        self.first
    }
}

impl Writer {
    pub(super) fn push(&mut self, request: &PushRequest) -> Result<Vec<Pushed>> {
        let mut answers = vec![Pushed::Stored(Uuid::nil()); request.count];
        for group in &request.groups {
            let queue = self.queue_or_create(&group.queue)?;
            let part = self.part_or_create(queue, &group.part)?;
            let window = self
                .model
                .queues
                .get(&queue)
                .map_or(0, |q| q.options.dedup_window_seconds);
            let mut seen = HashMap::new();
            for item in &group.items {
                let answer = self.push_item(queue, part, window, item, &mut seen)?;
                if let Some(slot) = answers.get_mut(item.index) {
                    *slot = answer;
                }
            }
            self.grown(queue, part);
            let stored =
                |item: &&PushItem| matches!(answers.get(item.index), Some(Pushed::Stored(_)));
            let stored = group.items.iter().filter(stored).count();
            let counts = self.round.tally.of(Some(queue));
            counts.push_requests += 1;
            counts.push_messages += stored as u64;
        }
        Ok(answers)
    }

    fn push_item<'a>(
        &mut self,
        queue: QueueId,
        part: PartId,
        window: i64,
        item: &'a PushItem,
        seen: &mut HashMap<&'a str, Uuid>,
    ) -> Result<Pushed> {
        let known = match &item.txn {
            None => None,
            // Without a window a key counts within its own request only.
            Some(txn) if window == 0 => seen.get(txn.as_str()).copied(),
            Some(txn) => self.known(part, txn, window)?,
        };
        if let Some(id) = known {
            return Ok(Pushed::Duplicate(id));
        }
        if let (Some(most), None) = (self.is_full(queue), item.accepted) {
            return Ok(Pushed::Full(most));
        }
        let id = item.accepted.unwrap_or_else(|| self.round.ids.next());
        match &item.txn {
            None => self.append(part, id, &id.to_string(), item)?,
            Some(txn) => {
                self.append(part, id, txn, item)?;
                if window == 0 {
                    seen.insert(txn, id);
                }
            }
        }
        Ok(Pushed::Stored(id))
    }

    /// Takes one place of a bounded queue; its `maxSize` when there is none left.
    fn is_full(&mut self, queue: QueueId) -> Option<i64> {
        let (most, room) = self.room(queue)?;
        self.round.room.insert(queue, room - 1);
        (room <= 0).then_some(most)
    }

    /// The `maxSize` of a bounded queue and how many messages it may still take.
    pub(super) fn room(&self, queue: QueueId) -> Option<(i64, i64)> {
        let most = self.model.queues.get(&queue)?.options.max_size;
        // Counted once per transaction.
        let room = || match self.round.room.get(&queue) {
            Some(room) => *room,
            None => most.saturating_sub(self.undelivered(queue)),
        };
        (most > 0).then(|| (most, room()))
    }

    /// How many messages of a queue its slowest group was not given yet.
    fn undelivered(&self, queue: QueueId) -> i64 {
        let Some(queue) = self.model.queues.get(&queue) else {
            return 0;
        };
        let groups = queue.groups.values();
        let registered = groups
            .filter_map(|id| self.model.groups.get(id))
            .filter(|group| group.registered);
        let slowest = registered.map(Group::undelivered).max();
        // Without a group everything waits.
        slowest.unwrap_or(queue.stored)
    }

    /// Whether a message is not in a row yet.
    pub(super) fn is_open(&self, part: PartId, position: i64) -> bool {
        let open = self.round.segments.get(&part);
        open.is_some_and(|open| position >= open.first)
    }

    fn append(&mut self, id: PartId, message: Uuid, txn: &str, item: &PushItem) -> Result<()> {
        // The door lets only JSON in, and JSON is UTF-8.
        let Ok(payload) = std::str::from_utf8(&item.payload) else {
            return Ok(());
        };
        // A table that is made after the message would know it twice.
        self.read_txns(id)?;
        let Some(part) = self.model.parts.get_mut(&id) else {
            return Ok(());
        };
        let queue = self.model.queues.get_mut(&part.queue);
        let streams = &mut self.model.streams;
        let open = self.round.segments.entry(id).or_insert_with(|| {
            // Strictly later than what is stored, so that a time names a place in the log.
            let floor = streams.floor(part.queue);
            part.newest = self.round.now.max(part.newest + 1).max(floor);
            streams.note(part.queue, &part.name, part.newest);
            OpenSegment {
                first: part.next,
                count: 0,
                created: part.newest,
                body: Vec::new(),
            }
        });
        let record = Record {
            id: message,
            trace: item.trace,
            txn,
            producer: item.producer.as_deref(),
            payload,
        };
        segment::append(&mut open.body, &record);
        let position = part.next;
        part.next += 1;
        if let Some(queue) = queue {
            queue.stored += 1;
            queue.newest = queue.newest.max(open.created);
        }
        open.count += 1;
        let full = open.count >= MAX_MESSAGES || open.body.len() >= MAX_BYTES;
        self.add_txn(id, txn, position)?;
        if full {
            self.flush(id)?;
        }
        Ok(())
    }

    /// Writes the open segment of a partition.
    pub(super) fn flush(&mut self, part: PartId) -> Result<()> {
        let Some(open) = self.round.segments.get_mut(&part) else {
            return Ok(());
        };
        if open.count > 0 {
            self.db.insert_segment(
                part,
                open.first,
                open.first + open.count - 1,
                open.created,
                &open.body,
            )?;
            open.first += open.count;
            open.count = 0;
            open.body.clear();
        }
        Ok(())
    }

    pub(super) fn flush_all(&mut self) -> Result<()> {
        let parts: Vec<PartId> = self.round.segments.keys().copied().collect();
        parts.into_iter().try_for_each(|part| self.flush(part))
    }

    /// Tells the groups of a queue that a partition has more.
    fn grown(&mut self, queue: QueueId, part: PartId) {
        let next = self.model.next(part);
        let Some(queue) = self.model.queues.get(&queue) else {
            return;
        };
        for group in queue.groups.values() {
            if let Some(group) = self.model.groups.get_mut(group) {
                group.cursor(part);
                group.settle(part, next, self.round.now);
            }
        }
        self.wake_part(part);
    }

    /// The queue of that name, made with the options of an automatic queue when it is missing.
    pub(super) fn queue_or_create(&mut self, name: &str) -> Result<QueueId> {
        if let Some(id) = self.model.queue_id(name) {
            return Ok(id);
        }
        let (namespace, task) = derived(name);
        self.create_queue(
            name,
            namespace.into(),
            task.into(),
            QueueOptions::automatic(),
        )
    }

    pub(super) fn create_queue(
        &mut self,
        name: &str,
        namespace: String,
        task: String,
        options: QueueOptions,
    ) -> Result<QueueId> {
        let (uuid, created) = (Uuid::now_v7(), self.round.now);
        let text = super::admin::to_text(&options);
        let id = self
            .db
            .insert_queue(uuid, name, &namespace, &task, &text, created)?;
        let (parts, groups) = (HashMap::new(), HashMap::new());
        self.model.add_queue(
            id,
            Queue {
                uuid,
                name: name.into(),
                namespace: namespace.into(),
                task: task.into(),
                options,
                created,
                parts,
                groups,
                stored: 0,
                newest: 0,
            },
        );
        Ok(id)
    }

    fn part_or_create(&mut self, queue: QueueId, name: &str) -> Result<PartId> {
        if let Some(id) = self
            .model
            .queues
            .get(&queue)
            .and_then(|q| q.parts.get(name))
        {
            return Ok(*id);
        }
        let (uuid, created) = (Uuid::now_v7(), self.round.now);
        let id = self.db.insert_part(uuid, queue, name, created)?;
        let shared: Arc<str> = name.into();
        self.model.part_ids.insert(uuid, id);
        if let Some(queue) = self.model.queues.get_mut(&queue) {
            queue.parts.insert(shared.clone(), id);
        }
        self.model.parts.insert(
            id,
            Part {
                uuid,
                queue,
                name: shared,
                created,
                first: 0,
                next: 0,
                newest: 0,
                dead: 0,
            },
        );
        self.round.tally.of(Some(queue)).partitions_created += 1;
        self.unpin(queue, id, name)?;
        Ok(id)
    }

    /// Gives the groups that waited for this partition a cursor at its start.
    fn unpin(&mut self, queue: QueueId, part: PartId, name: &str) -> Result<()> {
        let queue_name = self.queue_name(queue);
        let Some(groups) = self
            .model
            .pins
            .remove(&(queue_name.to_string(), name.to_owned()))
        else {
            return Ok(());
        };
        for group in groups {
            let id = self.group_or_create(queue, &group)?;
            if let Some(group) = self.model.groups.get_mut(&id) {
                group.start(part, NONE);
            }
            self.changed(id, part);
        }
        self.db.delete_pins(&queue_name, name)
    }

    /// The group of that name, made without a registration when it is missing.
    pub(super) fn group_or_create(&mut self, queue: QueueId, name: &str) -> Result<i64> {
        if let Some(id) = self
            .model
            .queues
            .get(&queue)
            .and_then(|q| q.groups.get(name))
        {
            return Ok(*id);
        }
        let id = self
            .db
            .insert_group(queue, name, None, None, self.round.now)?;
        let name: Arc<str> = name.into();
        if let Some(queue) = self.model.queues.get_mut(&queue) {
            queue.groups.insert(name.clone(), id);
        }
        self.model.groups.insert(id, Group::new(name, None));
        Ok(id)
    }
}

/// The namespace and the task that a queue's name tells: `billing.invoices.pdf` belongs to `billing` and `invoices`.
pub(super) fn derived(name: &str) -> (&str, &str) {
    let mut words = name.split('.');
    (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    )
}
