//! Handing messages out: registration of groups, claims, and their return.

use std::sync::Arc;

use uuid::Uuid;

use super::command::{ClaimKey, Extended, PopRequest, Start};
use super::model::{GroupId, Lease, PartId, QueueId};
use super::reader::{Claim, ClaimedPart};
use super::writer::{Claimed, Writer};
use crate::clock::{self, SECOND};
use crate::store::{NONE, Result};

/// How far a partition may be read now.
enum Reach {
    Until(i64),
    /// Nothing before this moment.
    Later(i64),
}

impl Writer {
    /// Claims messages for a pop. A pop that was `parked` has been waiting since before anything that is new to it,
    /// so where its group has to be made again (the queue was deleted meanwhile) it starts at the start.
    pub(super) fn claim(&mut self, request: &PopRequest, parked: bool) -> Result<Option<Claimed>> {
        let found = match &request.part {
            None => self
                .enter_queue(request, parked)?
                .map(|(queue, group)| (queue, group, None)),
            Some(part) => self.enter_part(request, part, parked)?,
        };
        let Some((queue, group, only)) = found else {
            return Ok(None);
        };
        self.unblock(group);
        let lease = (!request.auto_ack).then(Uuid::now_v7);
        let mut parts = Vec::new();
        let mut key = ClaimKey {
            group,
            lease,
            parts: Vec::new(),
        };
        let mut budget = request.batch;
        let mut left = if only.is_some() { 1 } else { request.parts };
        while budget > 0 && left > 0 {
            let candidate = match only {
                Some(part) => self.is_free(group, part).then_some(part),
                None => self.model.groups.get(&group).and_then(|g| g.first_ready()),
            };
            let Some(part) = candidate else { break };
            let committed = self.committed(group, part);
            match self.reach(queue, part, committed)? {
                Reach::Later(due) => {
                    if let Some(group) = self.model.groups.get_mut(&group) {
                        group.hold(part, due);
                    }
                    if only.is_some() {
                        break;
                    }
                }
                Reach::Until(end) => {
                    let to = end.min(committed.saturating_add(budget));
                    budget -= to - committed;
                    left -= 1;
                    self.take(request, queue, group, part, lease, to);
                    key.parts.push((part, committed, to));
                    if let Some(found) = self.model.parts.get(&part) {
                        let (uuid, name) = (found.uuid, found.name.clone());
                        parts.push(ClaimedPart {
                            id: part,
                            uuid,
                            name,
                            from: committed + 1,
                            to,
                        });
                    }
                    if only.is_some() {
                        break;
                    }
                }
            }
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let (queue, group) = (request.queue.clone(), request.group.clone());
        Ok(Some((
            Claim {
                queue,
                group,
                lease,
                parts,
            },
            key,
        )))
    }

    /// Moves the cursor of one claimed partition.
    fn take(
        &mut self,
        request: &PopRequest,
        queue: QueueId,
        group: GroupId,
        part: PartId,
        lease: Option<Uuid>,
        to: i64,
    ) {
        let default = self
            .model
            .queues
            .get(&queue)
            .map_or(0, |q| q.options.lease_time);
        let seconds = request.lease_seconds.filter(|s| *s > 0).unwrap_or(default);
        let expires = clock::after_seconds(self.round.now, seconds);
        let Some(cursor) = self
            .model
            .groups
            .get_mut(&group)
            .and_then(|g| g.cursor(part))
        else {
            return;
        };
        let old = cursor.lease.take();
        cursor.delivered = cursor.delivered.max(to);
        match lease {
            Some(id) => {
                cursor.lease = Some(Lease {
                    id,
                    expires,
                    batch_end: to,
                })
            }
            None => {
                cursor.committed = to;
                cursor.retries = 0;
            }
        }
        if let Some(old) = old {
            self.model.forget_lease(old.id, group, part);
        }
        if let Some(id) = lease {
            self.model.leases.entry(id).or_default().push((group, part));
        }
        self.changed(group, part);
    }

    /// Takes back a claim whose answer reached nobody.
    pub(super) fn release(&mut self, key: &ClaimKey) {
        for (part, before, after) in &key.parts {
            let Some(cursor) = self
                .model
                .groups
                .get_mut(&key.group)
                .and_then(|g| g.cursors.get_mut(part))
            else {
                continue;
            };
            match (key.lease, cursor.lease) {
                (Some(id), Some(lease)) if lease.id == id => {
                    cursor.lease = None;
                    self.model.forget_lease(id, key.group, *part);
                }
                // Delivered under autoAck: nobody else may have read on in the meantime.
                (None, None) if cursor.committed == *after => cursor.committed = *before,
                _ => continue,
            }
            self.changed(key.group, *part);
            self.wake_part(*part);
        }
    }

    /// Moves the end of every live claim of a lease, never back.
    pub(super) fn extend(&mut self, lease: Uuid, seconds: i64) -> Extended {
        let now = self.round.now;
        let wanted = clock::after_seconds(now, seconds.max(1));
        let mut extended = Extended {
            renewed: 0,
            expires: None,
        };
        for (group, part) in self.model.leases.get(&lease).cloned().unwrap_or_default() {
            let Some(cursor) = self
                .model
                .groups
                .get_mut(&group)
                .and_then(|g| g.cursors.get_mut(&part))
            else {
                continue;
            };
            let Some(held) = cursor
                .lease
                .as_mut()
                .filter(|held| held.id == lease && held.expires > now)
            else {
                continue;
            };
            held.expires = held.expires.max(wanted);
            extended.renewed += 1;
            extended.expires = Some(
                extended
                    .expires
                    .map_or(held.expires, |e| e.min(held.expires)),
            );
            self.changed(group, part);
        }
        extended
    }

    /// Lets the partitions whose lease or delay has ended back into the row.
    pub(super) fn unblock(&mut self, group: GroupId) {
        let Some(group) = self.model.groups.get_mut(&group) else {
            return;
        };
        while let Some((due, part)) = group.first_blocked() {
            if due > self.round.now {
                return;
            }
            let next = self.model.parts.get(&part).map_or(0, |p| p.next);
            group.settle(part, next, self.round.now);
        }
    }

    fn is_free(&self, group: GroupId, part: PartId) -> bool {
        let Some(cursor) = self
            .model
            .groups
            .get(&group)
            .and_then(|g| g.cursors.get(&part))
        else {
            return false;
        };
        let leased = cursor
            .lease
            .is_some_and(|lease| lease.expires > self.round.now);
        !leased && cursor.committed < self.model.next(part) - 1
    }

    fn committed(&self, group: GroupId, part: PartId) -> i64 {
        let cursor = self
            .model
            .groups
            .get(&group)
            .and_then(|g| g.cursors.get(&part));
        cursor.map_or(NONE, |cursor| cursor.committed)
    }

    /// Applies `delayedProcessing` and `windowBuffer`.
    fn reach(&mut self, queue: QueueId, part: PartId, committed: i64) -> Result<Reach> {
        let Some(options) = self.model.queues.get(&queue).map(|q| &q.options) else {
            return Ok(Reach::Until(committed));
        };
        let delay = options.delayed_processing.max(0).saturating_mul(SECOND);
        let window = options.window_buffer.max(0).saturating_mul(SECOND);
        let Some(found) = self.model.parts.get(&part) else {
            return Ok(Reach::Until(committed));
        };
        let (next, newest) = (found.next, found.newest);
        let quiet = newest.saturating_add(window);
        if window > 0 && quiet > self.round.now {
            return Ok(Reach::Later(quiet));
        }
        if delay == 0 {
            return Ok(Reach::Until(next - 1));
        }
        self.flush(part)?;
        let end = self
            .db
            .last_until(part, self.round.now.saturating_sub(delay))?;
        if end > committed {
            return Ok(Reach::Until(end));
        }
        let created = self.db.created_at(part, committed + 1)?.unwrap_or(newest);
        Ok(Reach::Later(created.saturating_add(delay)))
    }

    /// Finds or makes queue and group of a pop that takes any partition.
    fn enter_queue(
        &mut self,
        request: &PopRequest,
        parked: bool,
    ) -> Result<Option<(QueueId, GroupId)>> {
        let queue = match self.model.queue_id(&request.queue) {
            Some(queue) => queue,
            // A parked pop does not bring back the queue that was deleted under it.
            None if parked => return Ok(None),
            None => self.queue_or_create(&request.queue)?,
        };
        let known = self.group_id(queue, &request.group);
        if let Some(group) =
            known.filter(|g| self.model.groups.get(g).is_some_and(|g| g.registered))
        {
            return Ok(Some((queue, group)));
        }
        let start = if parked { Start::All } else { request.start };
        Ok(Some((queue, self.register(queue, &request.group, start)?)))
    }

    /// Finds or makes the cursor of a pop that names its partition.
    fn enter_part(
        &mut self,
        request: &PopRequest,
        name: &Arc<str>,
        parked: bool,
    ) -> Result<Option<(QueueId, GroupId, Option<PartId>)>> {
        let queue = self.model.queue_id(&request.queue);
        let part = queue
            .and_then(|id| self.model.queues.get(&id))
            .and_then(|q| q.parts.get(name))
            .copied();
        let known = queue.and_then(|id| self.group_id(id, &request.group));
        let registered = known
            .and_then(|id| self.model.groups.get(&id))
            .is_some_and(|g| g.registered);
        let (Some(queue), Some(part)) = (queue, part) else {
            if !registered && request.start != Start::All {
                self.pin(request, name)?;
            }
            return Ok(None);
        };
        let group = self.group_or_create(queue, &request.group)?;
        if self
            .model
            .groups
            .get_mut(&group)
            .is_some_and(|g| g.cursor(part).is_none())
        {
            let start = if parked { Start::All } else { request.start };
            let committed = self.start_of(part, start)?;
            if let Some(group) = self.model.groups.get_mut(&group) {
                group.start(part, committed);
            }
            self.changed(group, part);
        }
        Ok(Some((queue, group, Some(part))))
    }

    /// Remembers that a group waits for a partition, so that it misses nothing when the partition comes into being.
    fn pin(&mut self, request: &PopRequest, part: &str) -> Result<()> {
        let groups = self
            .model
            .pins
            .entry((request.queue.to_string(), part.to_owned()))
            .or_default();
        if groups.insert(request.group.to_string()) {
            self.db.insert_pin(&request.queue, part, &request.group)?;
        }
        Ok(())
    }

    fn group_id(&self, queue: QueueId, name: &str) -> Option<GroupId> {
        self.model.queues.get(&queue)?.groups.get(name).copied()
    }

    /// Registers a group on a queue: it has a cursor on every partition from now on.
    fn register(&mut self, queue: QueueId, name: &str, start: Start) -> Result<GroupId> {
        let id = self.group_or_create(queue, name)?;
        let (mode, since) = match start {
            Start::All => ("all", 0),
            Start::New => ("new", self.round.now),
            Start::Time(time) => ("timestamp", time),
        };
        self.db.register_group(id, mode, since, self.round.now)?;
        let parts: Vec<PartId> = self
            .model
            .queues
            .get(&queue)
            .map_or_else(Vec::new, |q| q.parts.values().copied().collect());
        for part in parts {
            if self
                .model
                .groups
                .get(&id)
                .is_some_and(|g| g.cursors.contains_key(&part))
            {
                continue;
            }
            let committed = self.start_of(part, start)?;
            let next = self.model.next(part);
            if let Some(group) = self.model.groups.get_mut(&id) {
                group.start(part, committed);
                group.settle(part, next, self.round.now);
            }
            // A cursor at the start needs no row: it is where a registered group stands by default.
            if committed != NONE {
                self.round.cursors.insert((id, part));
            }
        }
        if let Some(group) = self.model.groups.get_mut(&id) {
            group.registered = true;
        }
        Ok(id)
    }

    /// The committed offset of a group that starts on a partition that exists.
    fn start_of(&mut self, part: PartId, start: Start) -> Result<i64> {
        let end = self.model.next(part) - 1;
        Ok(match start {
            Start::All => NONE,
            Start::New => end,
            Start::Time(time) => {
                self.flush(part)?;
                self.db
                    .first_since(part, time)?
                    .map_or(end, |first| first - 1)
            }
        })
    }
}
