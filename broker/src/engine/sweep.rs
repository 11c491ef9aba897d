//! Retention: removing what is too old, in steps so small that a push never waits for long.

use std::collections::VecDeque;

use super::model::{Model, PartId};
use super::queue_options::QueueOptions;
use super::writer::Writer;
use crate::clock::SECOND;
use crate::store::Result;

/// The time between the end of a pass over the partitions and the next one.
const PAUSE: i64 = 5 * SECOND;
/// The most that one transaction does: segments removed, partitions looked at.
const SEGMENTS: i64 = 8;
const PARTS: usize = 128;

/// Where the present pass stands.
#[derive(Default)]
pub(super) struct Sweep {
    left: VecDeque<PartId>,
    /// When to go on; nothing while no queue asks for retention.
    pub(super) due: Option<i64>,
}

impl QueueOptions {
    /// Whether messages of the queue may get too old.
    fn retains(&self) -> bool {
        self.age_limit().is_some() || self.completed_limit().is_some()
    }

    /// The age in microseconds at which any message goes.
    fn age_limit(&self) -> Option<i64> {
        let wait = seconds(self.max_wait_time_seconds);
        self.retention().into_iter().chain(wait).min()
    }

    /// The part of it that `retentionSeconds` asks for.
    fn retention(&self) -> Option<i64> {
        seconds(self.retention_seconds).filter(|_| self.retention_enabled)
    }

    /// The age in microseconds at which a message goes that every group has finished.
    fn completed_limit(&self) -> Option<i64> {
        seconds(self.completed_retention_seconds).filter(|_| self.retention_enabled)
    }
}

/// A limit in microseconds; zero means none.
fn seconds(limit: i64) -> Option<i64> {
    (limit > 0).then(|| limit.saturating_mul(SECOND))
}

impl Sweep {
    /// Plans the first pass of a store that was just opened or a queue that was just configured.
    pub(super) fn plan(&mut self, model: &Model, now: i64) {
        let wanted = model.queues.values().any(|queue| queue.options.retains());
        self.due = match self.due {
            Some(due) if wanted => Some(due),
            _ => wanted.then(|| now.saturating_add(PAUSE)),
        };
    }

    /// Puts the work off after a failure.
    pub(super) fn postpone(&mut self, now: i64) {
        self.left.clear();
        self.due = self.due.map(|_| now.saturating_add(PAUSE));
    }
}

impl Writer {
    /// Does one step of the pass if it is time.
    pub(super) fn sweep(&mut self) -> Result<()> {
        let now = self.round.now;
        if self.sweep.due.is_none_or(|due| due > now) {
            return Ok(());
        }
        if self.sweep.left.is_empty() {
            self.db.forget_evicted(now)?;
            let queues = self.model.queues.values();
            let retained = queues.filter(|queue| queue.options.retains());
            self.sweep.left = retained
                .flat_map(|queue| queue.parts.values().copied())
                .collect();
        }
        let mut removed = false;
        for _ in 0..PARTS {
            let Some(part) = self.sweep.left.pop_front() else {
                break;
            };
            if self.sweep_part(part)? {
                // There may be more of it.
                self.sweep.left.push_front(part);
                removed = true;
                break;
            }
        }
        if self.sweep.left.is_empty() && !removed {
            self.sweep.due = None;
            self.sweep.plan(&self.model, now);
        }
        Ok(())
    }

    /// Removes some of the oldest messages of a partition; false means that all of the rest may stay.
    fn sweep_part(&mut self, part: PartId) -> Result<bool> {
        self.meter.partitions(1);
        let now = self.round.now;
        let Some(found) = self.model.parts.get(&part) else {
            return Ok(false);
        };
        let (queue, first, next, newest) = (found.queue, found.first, found.next, found.newest);
        let Some(options) = self.model.queues.get(&queue).map(|q| q.options.clone()) else {
            return Ok(false);
        };
        let finished = self.finished(queue, part);
        let limits = [
            options.age_limit().map(|age| (age, i64::MAX)),
            options.completed_limit().map(|age| (age, finished)),
        ];
        let mut reach = [None; 2];
        for (reach, limit) in reach.iter_mut().zip(limits) {
            let Some((age, up_to)) = limit else { continue };
            *reach = self
                .db
                .old_segments(part, now.saturating_sub(age), up_to, SEGMENTS)?;
        }
        let [aged, completed] = reach;
        let Some(last) = aged.max(completed) else {
            return Ok(false);
        };
        let removed = (last + 1 - first).max(0) as u64;
        let by_wait = options.age_limit() != options.retention();
        let counts = self.round.tally.of(Some(queue));
        match aged {
            Some(_) if by_wait => counts.evicted += removed,
            Some(_) => counts.retention += removed,
            None => counts.completed_retention += removed,
        }
        let window = options.dedup_window_seconds.saturating_mul(SECOND);
        self.db.evict(part, last, window, now)?;
        self.db.keep_end(part, next, newest)?;
        if let Some(part) = self.model.parts.get_mut(&part) {
            part.first = last + 1;
        }
        if let Some(queue) = self.model.queues.get_mut(&queue) {
            queue.stored -= removed as i64;
        }
        self.skip(queue, part, last);
        Ok(true)
    }

    /// The last offset that every group with a cursor has finished; without a group nothing is.
    fn finished(&self, queue: i64, part: PartId) -> i64 {
        let groups = self.model.queues.get(&queue).map(|queue| &queue.groups);
        let cursors = groups
            .into_iter()
            .flat_map(|groups| groups.values())
            .filter_map(|group| self.model.groups.get(group)?.cursors.get(&part));
        cursors
            .map(|cursor| cursor.committed)
            .min()
            .unwrap_or(crate::store::NONE)
    }

    /// Moves the cursors of a partition over messages that are gone. A lease on nothing else ends.
    fn skip(&mut self, queue: i64, part: PartId, last: i64) {
        let groups: Vec<i64> = self
            .model
            .queues
            .get(&queue)
            .map_or_else(Vec::new, |queue| queue.groups.values().copied().collect());
        for group in groups {
            let Some(cursor) = self
                .model
                .groups
                .get_mut(&group)
                .and_then(|g| g.cursors.get_mut(&part))
            else {
                continue;
            };
            if cursor.committed >= last {
                continue;
            }
            cursor.committed = last;
            cursor.delivered = cursor.delivered.max(last);
            cursor.retries = 0;
            if let Some(lease) = cursor.lease.filter(|lease| lease.batch_end <= last) {
                cursor.lease = None;
                self.model.forget_lease(lease.id, group, part);
            }
            self.changed(group, part);
        }
    }
}
