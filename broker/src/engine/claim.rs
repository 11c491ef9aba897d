//! Handing messages out: registration of groups, claims, and their return.

use std::sync::Arc;

use uuid::Uuid;

use super::command::{ClaimKey, Extended, PopRequest, Source, Start, Taken};
use super::model::{GroupId, Lease, PartId, QueueId};
use super::reader::{Claim, ClaimedPart};
use super::subscription::Subscription;
use super::writer::{Claimed, Writer};
use crate::clock::{self, SECOND};
use crate::store::{NONE, Result};

/// How far a partition may be read now.
enum Reach {
    Until(i64),
    /// Nothing before this moment.
    Later(i64),
}

/// A pop being served.
struct Taking<'a> {
    request: &'a PopRequest,
    lease: Option<Uuid>,
    /// Messages and partitions it may still get.
    budget: i64,
    left: i64,
    parts: Vec<ClaimedPart>,
    taken: Vec<Taken>,
}

/// A queue to take from, the group, and the partition if it must be that one.
type Place = (QueueId, GroupId, Option<PartId>);

impl Writer {
    /// Claims messages for a pop. A pop that was `parked` has been waiting since before anything that is new to it,
    /// so where its group has to be made again (the queue was deleted meanwhile) it starts at the start.
    pub(super) fn claim(&mut self, request: &PopRequest, parked: bool) -> Result<Option<Claimed>> {
        if let Source::Stream(name) = &request.source {
            return self.claim_window(name, request);
        }
        let places = self.enter(request, parked)?;
        let mut taking = Taking {
            request,
            lease: (!request.auto_ack).then(Uuid::now_v7),
            budget: request.batch,
            left: if request.part.is_some() {
                1
            } else {
                request.parts
            },
            parts: Vec::new(),
            taken: Vec::new(),
        };
        for place in places {
            if taking.budget <= 0 || taking.left <= 0 {
                break;
            }
            let before = taking.parts.len();
            self.claim_from(&mut taking, place)?;
            if taking.parts.len() > before {
                self.found(request, place.0);
            }
        }
        if taking.parts.is_empty() {
            return Ok(None);
        }
        let queue = match &request.source {
            Source::Queue(name) => name.clone(),
            // The partitions may be of several queues, and the protocol has one name only.
            Source::Find { .. } | Source::Stream(_) => Arc::from(""),
        };
        let claim = Claim {
            queue,
            group: request.group.clone(),
            lease: taking.lease,
            parts: taking.parts,
            echo: request.echo.then_some((request.batch, request.parts)),
        };
        let key = ClaimKey {
            lease: taking.lease,
            parts: taking.taken,
        };
        Ok(Some(Claimed::Messages(claim, key)))
    }

    /// Finds the queues of a pop and its group on each; makes what is missing.
    pub(super) fn enter(&mut self, request: &PopRequest, parked: bool) -> Result<Vec<Place>> {
        Ok(match (&request.source, &request.part) {
            (Source::Queue(name), None) => self
                .enter_queue(name, request, parked)?
                .map(|(queue, group)| (queue, group, None))
                .into_iter()
                .collect(),
            (Source::Queue(name), Some(part)) => self
                .enter_part(name, request, part, parked)?
                .into_iter()
                .collect(),
            (Source::Find { .. }, _) => self.enter_found(request, parked)?,
            (Source::Stream(_), _) => Vec::new(),
        })
    }

    /// Claims partitions of one queue.
    fn claim_from(&mut self, taking: &mut Taking, (queue, group, only): Place) -> Result<()> {
        self.unblock(group);
        while taking.budget > 0 && taking.left > 0 {
            let candidate = match only {
                Some(part) => self.is_free(group, part).then_some(part),
                None => self.model.groups.get(&group).and_then(|g| g.first_ready()),
            };
            let Some(part) = candidate else { break };
            self.meter.partitions(1);
            let committed = self.committed(group, part);
            match self.reach(queue, part, committed)? {
                Reach::Later(due) => {
                    if let Some(group) = self.model.groups.get_mut(&group) {
                        group.hold(part, due);
                    }
                }
                Reach::Until(end) => {
                    let to = end.min(committed.saturating_add(taking.budget));
                    taking.budget -= to - committed;
                    taking.left -= 1;
                    self.take(taking, (queue, group, part), to);
                    taking.taken.push(Taken {
                        group,
                        part,
                        before: committed,
                        after: to,
                    });
                    if let Some(found) = self.model.parts.get(&part) {
                        taking.parts.push(ClaimedPart {
                            id: part,
                            uuid: found.uuid,
                            name: found.name.clone(),
                            queue: self.queue_name(queue),
                            from: committed + 1,
                            to,
                        });
                    }
                }
            }
            if only.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Until when a waiting pop should let its batch fill: `minPopWaitTime` from now where there is something, but
    /// less than it asked for.
    pub(super) fn fill_until(&mut self, request: &PopRequest) -> Option<i64> {
        if request.wait.is_none() || request.batch <= 1 {
            return None;
        }
        let mut longest = 0;
        let mut available = 0;
        for queue in self.model.queues_of(&request.source) {
            let Some(found) = self.model.queues.get(&queue) else {
                continue;
            };
            if found.options.min_pop_wait_time <= 0 {
                continue;
            }
            let (wait, group) = (
                found.options.min_pop_wait_time,
                found.groups.get(&request.group).copied(),
            );
            let only = request
                .part
                .as_ref()
                .map(|name| found.parts.get(name).copied());
            let Some(group) = group else { continue };
            self.unblock(group);
            let parts: Vec<PartId> = match (only, self.model.groups.get(&group)) {
                (Some(part), _) => part
                    .filter(|part| self.is_free(group, *part))
                    .into_iter()
                    .collect(),
                (None, Some(group)) => group.ready(request.parts).collect(),
                (None, None) => Vec::new(),
            };
            self.meter.partitions(parts.len());
            if !parts.is_empty() {
                longest = longest.max(wait);
            }
            for part in parts {
                available += self.model.next(part) - 1 - self.committed(group, part);
            }
        }
        let short = available > 0 && available < request.batch;
        short.then(|| self.round.now.saturating_add(longest.saturating_mul(1000)))
    }

    /// Moves the cursor of one claimed partition.
    fn take(&mut self, taking: &Taking, (queue, group, part): (QueueId, GroupId, PartId), to: i64) {
        let lease = taking.lease;
        let default = self
            .model
            .queues
            .get(&queue)
            .map_or(0, |q| q.options.lease_time);
        let asked = taking.request.lease_seconds.filter(|s| *s > 0);
        let expires = clock::after_seconds(self.round.now, asked.unwrap_or(default));
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
                let finished = to - cursor.committed;
                cursor.finish(to);
                cursor.retries = 0;
                self.round.tally.of(Some(queue)).processed += finished as u64;
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
        for taken in &key.parts {
            let (group, part) = (taken.group, taken.part);
            // Retention may have removed what was to come back.
            let first = self.model.parts.get(&part).map_or(0, |p| p.first);
            let before = taken.before.max(first - 1);
            let Some(cursor) = self
                .model
                .groups
                .get_mut(&group)
                .and_then(|g| g.cursors.get_mut(&part))
            else {
                continue;
            };
            match (key.lease, cursor.lease) {
                (Some(id), Some(lease)) if lease.id == id => {
                    cursor.lease = None;
                    self.model.forget_lease(id, group, part);
                }
                // Delivered under autoAck: nobody else may have read on in the meantime.
                (None, None) if cursor.committed == taken.after => {
                    cursor.consumed -= taken.after - before;
                    cursor.committed = before;
                }
                _ => continue,
            }
            self.changed(group, part);
            self.wake_part(part);
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
        name: &str,
        request: &PopRequest,
        parked: bool,
    ) -> Result<Option<(QueueId, GroupId)>> {
        let queue = match self.model.queue_id(name) {
            Some(queue) => queue,
            // A parked pop does not bring back the queue that was deleted under it.
            None if parked => return Ok(None),
            None => self.queue_or_create(name)?,
        };
        if let Some(group) = self.registered(queue, &request.group) {
            return Ok(Some((queue, group)));
        }
        let start = if parked { Start::All } else { request.start };
        Ok(Some((queue, self.register(queue, &request.group, start)?)))
    }

    /// Finds or makes the cursor of a pop that names its partition.
    fn enter_part(
        &mut self,
        queue_name: &str,
        request: &PopRequest,
        name: &Arc<str>,
        parked: bool,
    ) -> Result<Option<Place>> {
        let queue = self.model.queue_id(queue_name);
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
                self.pin(queue_name, name, &request.group)?;
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
            let kept = self.model.groups.get(&group).and_then(|g| g.subscription);
            let start = match kept {
                Some(kept) => kept.start(),
                None if parked => Start::All,
                None => request.start,
            };
            let committed = self.start_of(part, start)?;
            if let Some(group) = self.model.groups.get_mut(&group) {
                group.start(part, committed);
            }
            self.changed(group, part);
        }
        Ok(Some((queue, group, Some(part))))
    }

    /// Remembers that a group waits for a partition, so that it misses nothing when the partition comes into being.
    fn pin(&mut self, queue: &str, part: &str, group: &str) -> Result<()> {
        let groups = self
            .model
            .pins
            .entry((queue.to_owned(), part.to_owned()))
            .or_default();
        if groups.insert(group.to_owned()) {
            self.db.insert_pin(queue, part, group)?;
        }
        Ok(())
    }

    fn group_id(&self, queue: QueueId, name: &str) -> Option<GroupId> {
        self.model.queues.get(&queue)?.groups.get(name).copied()
    }

    /// The group of that name if it reads every partition of the queue.
    pub(super) fn registered(&self, queue: QueueId, name: &str) -> Option<GroupId> {
        self.group_id(queue, name)
            .filter(|id| self.model.groups.get(id).is_some_and(|g| g.registered))
    }

    /// Registers a group on a queue: it has a cursor on every partition from now on.
    pub(super) fn register(&mut self, queue: QueueId, name: &str, start: Start) -> Result<GroupId> {
        let id = self.group_or_create(queue, name)?;
        let kept = self.model.groups.get(&id).and_then(|g| g.subscription);
        let subscription = kept.unwrap_or_else(|| Subscription::new(start, self.round.now));
        let start = kept.map_or(start, |kept| kept.start());
        self.db.register_group(id, &subscription)?;
        let parts: Vec<PartId> = self
            .model
            .queues
            .get(&queue)
            .map_or_else(Vec::new, |q| q.parts.values().copied().collect());
        self.meter.partitions(parts.len());
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
            group.subscription = Some(subscription);
        }
        Ok(id)
    }

    /// The committed offset of a group that starts on a partition that exists.
    pub(super) fn start_of(&mut self, part: PartId, start: Start) -> Result<i64> {
        let end = self.model.next(part) - 1;
        Ok(match start {
            Start::All => self.model.parts.get(&part).map_or(NONE, |p| p.first - 1),
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
