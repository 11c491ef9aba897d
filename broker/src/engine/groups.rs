//! Consumer groups as a whole: seek, delete, and the beginning of a subscription.

use super::command::{DeleteGroup, Seek, SeekPart, Sought, Start};
use super::model::{Group, GroupId, PartId, QueueId};
use super::park::LaneKey;
use super::subscription::Mode;
use super::writer::Writer;
use crate::store::Result;

impl Writer {
    /// Moves a group, known or not, to another place in a queue. Its leases there end.
    pub(super) fn seek(&mut self, request: &Seek) -> Result<Sought> {
        let Some(queue) = self.model.queue_id(&request.queue) else {
            return Ok(Sought::NoQueue);
        };
        let parts: Vec<PartId> = match &request.part {
            SeekPart::All => self.parts_of(queue),
            SeekPart::Named(name) => {
                let found = self
                    .model
                    .queues
                    .get(&queue)
                    .and_then(|q| q.parts.get(name.as_str()));
                found.copied().into_iter().collect()
            }
        };
        if parts.is_empty() {
            return Ok(Sought::NoPart);
        }
        let group = self.group_or_create(queue, &request.group)?;
        for part in &parts {
            self.place(group, *part, request.to)?;
        }
        Ok(Sought::Moved(parts.len()))
    }

    fn place(&mut self, group: GroupId, part: PartId, to: Start) -> Result<()> {
        let committed = self.start_of(part, to)?;
        let Some(found) = self.model.groups.get_mut(&group) else {
            return Ok(());
        };
        if found.cursor(part).is_none() {
            found.start(part, committed);
        }
        let Some(cursor) = found.cursor(part) else {
            return Ok(());
        };
        cursor.committed = committed;
        // What lies behind the new place counts as not delivered yet.
        cursor.delivered = committed;
        cursor.retries = 0;
        if let Some(lease) = cursor.lease.take() {
            self.model.forget_lease(lease.id, group, part);
        }
        self.changed(group, part);
        self.wake_part(part);
        Ok(())
    }

    /// Removes the cursors of a group on one queue or on all; returns how many there were.
    pub(super) fn delete_group(&mut self, request: &DeleteGroup) -> Result<usize> {
        let queues: Vec<QueueId> = match &request.queue {
            Some(name) => self.model.queue_id(name).into_iter().collect(),
            None => self.model.queues.keys().copied().collect(),
        };
        let mut lanes = Vec::new();
        let mut removed = 0;
        for id in queues {
            let Some(queue) = self.model.queues.get(&id) else {
                continue;
            };
            let Some(group) = queue.groups.get(request.group.as_str()).copied() else {
                continue;
            };
            for source in queue.sources() {
                lanes.push((source, request.group.as_str().into()));
            }
            removed += self.forget(id, group, request.keep)?;
        }
        if !request.keep {
            self.db
                .forget_group(&request.group, request.queue.as_deref())?;
            self.model.pins.retain(|(queue, _), groups| {
                if request.queue.as_ref().is_none_or(|only| only == queue) {
                    groups.remove(&request.group);
                }
                !groups.is_empty()
            });
            if request.queue.is_none() {
                self.model
                    .finders
                    .retain(|(.., group), _| **group != *request.group);
            }
        }
        lanes
            .into_iter()
            .try_for_each(|lane| self.enter_anew(&lane))?;
        Ok(removed)
    }

    /// Removes one group with its cursors and leases. With `keep` its registration stays for its next pop.
    fn forget(&mut self, queue: QueueId, id: GroupId, keep: bool) -> Result<usize> {
        let Some(group) = self.model.groups.remove(&id) else {
            return Ok(0);
        };
        for (part, cursor) in &group.cursors {
            self.round.cursors.remove(&(id, *part));
            if let Some(lease) = cursor.lease {
                self.model.forget_lease(lease.id, id, *part);
            }
        }
        let keep = keep && group.subscription.is_some();
        self.db.delete_group(id, keep)?;
        let removed = group.cursors.len();
        if keep {
            let mut dormant = Group::new(group.name, group.subscription);
            dormant.registered = false;
            self.model.groups.insert(id, dormant);
        } else if let Some(queue) = self.model.queues.get_mut(&queue) {
            queue.groups.remove(&group.name);
        }
        Ok(removed)
    }

    /// A pop that waits while its group is deleted is the group's next pop: it registers the group again.
    fn enter_anew(&mut self, lane: &LaneKey) -> Result<()> {
        let waiting = self
            .parking
            .first(lane)
            .map(|waiter| waiter.request.clone());
        if let Some(request) = waiting {
            self.enter(&request, false)?;
            self.round.lanes.push(lane.clone());
        }
        Ok(())
    }

    /// Moves the beginning of a group's subscriptions, which decides where it starts on what it has not met yet. Moves
    /// no cursor. Returns how many queues it concerns.
    pub(super) fn resubscribe(&mut self, name: &str, since: i64) -> Result<usize> {
        let mut moved = 0;
        for queue in self.model.queues.values() {
            let Some(id) = queue.groups.get(name) else {
                continue;
            };
            let group = self.model.groups.get_mut(id);
            if let Some(subscription) = group.and_then(|group| group.subscription.as_mut()) {
                (subscription.mode, subscription.since) = (Mode::Timestamp, since);
                self.db.update_subscription(*id, subscription)?;
                moved += 1;
            }
        }
        for (key, finder) in &mut self.model.finders {
            if *key.2 == *name {
                let subscription = &mut finder.subscription;
                (subscription.mode, subscription.since) = (Mode::Timestamp, since);
                self.db.put_finder(key, subscription)?;
            }
        }
        Ok(moved)
    }
}
