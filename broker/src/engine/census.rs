//! Counting what the queues hold, from the picture in memory: no message is looked at.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::model::{Group, Model, PartId, Queue};
use super::queue_options::QueueOptions;
use super::writer::Writer;
use crate::store::NONE;

/// The share of its time that the writer gives to counting at most: one part in so many.
const SHARE: u32 = 20;
/// A count that took less than this is always made anew.
const QUICK: Duration = Duration::from_millis(1);

/// Messages by what became of them. Those that no group waits for are completed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tasks {
    pub(crate) total: i64,
    pub(crate) pending: i64,
    pub(crate) processing: i64,
    pub(crate) completed: i64,
    pub(crate) dead: i64,
}

impl std::ops::AddAssign for Tasks {
    fn add_assign(&mut self, other: Tasks) {
        self.total += other.total;
        self.pending += other.pending;
        self.processing += other.processing;
        self.completed += other.completed;
        self.dead += other.dead;
    }
}

/// What is known of a queue without its partitions.
#[derive(Clone)]
pub(crate) struct QueueCount {
    pub(crate) uuid: Uuid,
    pub(crate) name: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) task: Arc<str>,
    pub(crate) created: i64,
    pub(crate) parts: usize,
    pub(crate) tasks: Tasks,
    /// Claims whose lease lives.
    pub(crate) leases: usize,
    /// Pops that wait on this queue by its name.
    pub(crate) parked: usize,
    /// Each group that reads a partition, with the messages it has not finished.
    pub(crate) lags: Vec<(Arc<str>, i64)>,
}

/// All queues, by name.
pub(crate) struct Census {
    pub(crate) taken: i64,
    pub(crate) queues: Vec<QueueCount>,
}

impl Census {
    /// Queues, partitions, stored messages, dead-letter records.
    pub(crate) fn sums(&self) -> [i64; 4] {
        let mut tasks = Tasks::default();
        let mut parts = 0;
        for queue in &self.queues {
            tasks += queue.tasks;
            parts += queue.parts as i64;
        }
        [self.queues.len() as i64, parts, tasks.total, tasks.dead]
    }
}

/// The last census and what it cost.
pub(super) struct Counted {
    census: Arc<Census>,
    /// The model's when it was made.
    queue_changes: u64,
    at: Instant,
    cost: Duration,
}

/// One queue with its partitions, by their age.
pub(crate) struct QueueDetail {
    pub(crate) uuid: Uuid,
    pub(crate) name: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) task: Arc<str>,
    pub(crate) created: i64,
    pub(crate) options: QueueOptions,
    pub(crate) parts: Vec<PartDetail>,
}

/// One partition.
pub(crate) struct PartDetail {
    pub(crate) id: PartId,
    pub(crate) uuid: Uuid,
    pub(crate) name: Arc<str>,
    pub(crate) created: i64,
    /// When its newest message was pushed, if it ever had one.
    pub(crate) newest: Option<i64>,
    pub(crate) tasks: Tasks,
    /// The first offset that the group, or the slowest of all, has not finished.
    pub(crate) open: i64,
    /// Messages finished, over all groups that were looked at.
    pub(crate) consumed: i64,
}

impl PartDetail {
    /// What is not finished, leased or not.
    pub(crate) fn waiting(&self) -> i64 {
        self.tasks.pending + self.tasks.processing
    }
}

impl Writer {
    /// Counts all queues, or tells the last counts where new ones would cost the writer too much of its time.
    /// Which queues there are is never old.
    pub(super) fn census(&mut self, anew: bool) -> Arc<Census> {
        if let Some(last) = &self.counted
            && !anew
            && last.cost > QUICK
            && last.at.elapsed() < last.cost.saturating_mul(SHARE)
        {
            if last.queue_changes == self.model.queue_changes {
                return last.census.clone();
            }
            let (at, cost) = (last.at, last.cost);
            let census = self.topped_up(&last.census);
            return self.keep(census, at, cost);
        }
        let began = Instant::now();
        let mut queues: Vec<QueueCount> =
            self.model.queues.values().map(|q| self.count(q)).collect();
        queues.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let census = Census {
            taken: self.round.now,
            queues,
        };
        self.keep(census, Instant::now(), began.elapsed())
    }

    /// Notes a census, which has cost that much then.
    fn keep(&mut self, census: Census, at: Instant, cost: Duration) -> Arc<Census> {
        let census = Arc::new(census);
        self.counted = Some(Counted {
            census: census.clone(),
            queue_changes: self.model.queue_changes,
            at,
            cost,
        });
        census
    }

    /// An old census with the queues of now.
    fn topped_up(&self, old: &Census) -> Census {
        let known: HashMap<Uuid, &QueueCount> = old.queues.iter().map(|q| (q.uuid, q)).collect();
        let of_now = |queue: &Queue| {
            let names = (&queue.namespace, &queue.task);
            let count = known.get(&queue.uuid)?;
            ((&count.namespace, &count.task) == names).then(|| QueueCount::clone(count))
        };
        let queues = self.model.queues.values();
        let mut queues: Vec<QueueCount> = queues
            .map(|queue| of_now(queue).unwrap_or_else(|| self.count(queue)))
            .collect();
        queues.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let taken = old.taken;
        Census { taken, queues }
    }

    fn count(&self, queue: &Queue) -> QueueCount {
        let mut tasks = Tasks::default();
        let mut leases = 0;
        let groups = self.model.groups_on(queue, None);
        let mut lags = vec![0; groups.len()];
        for part in queue.parts.values() {
            if let Some((part, live)) = self.model.look(&groups, *part, &mut lags, self.round.now) {
                tasks += part.tasks;
                leases += live;
            }
        }
        let names = groups.iter().map(|group| group.name.clone());
        let mut lags: Vec<_> = names.zip(lags).collect();
        lags.sort_unstable();
        QueueCount {
            uuid: queue.uuid,
            name: queue.name.clone(),
            namespace: queue.namespace.clone(),
            task: queue.task.clone(),
            created: queue.created,
            parts: queue.parts.len(),
            tasks,
            leases,
            parked: self.parking.waiting(&queue.name),
            lags,
        }
    }

    /// One queue as a group sees it, or as the slowest of all does; nothing for an unknown queue.
    pub(super) fn detail(&self, name: &str, group: Option<&str>) -> Option<QueueDetail> {
        self.model.detail(name, group, self.round.now)
    }
}

impl Model {
    /// One queue at a moment, as a group sees it or as the slowest of all does; nothing for an unknown queue.
    pub(crate) fn detail(&self, name: &str, group: Option<&str>, now: i64) -> Option<QueueDetail> {
        let queue = self.queues.get(&self.queue_id(name)?)?;
        let mut ids: Vec<PartId> = queue.parts.values().copied().collect();
        ids.sort_unstable();
        let parts = ids.into_iter();
        let groups = self.groups_on(queue, group);
        Some(QueueDetail {
            uuid: queue.uuid,
            name: queue.name.clone(),
            namespace: queue.namespace.clone(),
            task: queue.task.clone(),
            created: queue.created,
            options: queue.options.clone(),
            parts: parts
                .filter_map(|part| Some(self.look(&groups, part, &mut [], now)?.0))
                .collect(),
        })
    }

    /// The groups of a queue, or the named one alone.
    fn groups_on(&self, queue: &Queue, only: Option<&str>) -> Vec<&Group> {
        let wanted = |name: &str| only.is_none_or(|only| only == name);
        let groups = queue.groups.iter().filter(|(name, _)| wanted(name));
        groups
            .filter_map(|(_, id)| self.groups.get(id))
            .filter(|group| !group.cursors.is_empty())
            .collect()
    }

    /// One partition as the slowest of some groups sees it, and how many of them hold a lease on it. Adds to `lags`, in
    /// the order of the groups, what each has not finished.
    fn look(
        &self,
        groups: &[&Group],
        id: PartId,
        lags: &mut [i64],
        now: i64,
    ) -> Option<(PartDetail, usize)> {
        let part = self.parts.get(&id)?;
        let (mut open, mut out, mut leases, mut consumed) = (None::<i64>, 0, 0, 0);
        for (n, group) in groups.iter().enumerate() {
            let Some(cursor) = group.cursors.get(&id) else {
                continue;
            };
            consumed += cursor.consumed;
            let next = cursor.committed + 1;
            if let Some(lag) = lags.get_mut(n) {
                *lag += part.next - next;
            }
            open = Some(open.map_or(next, |open| open.min(next)));
            if let Some(lease) = cursor.lease.filter(|lease| lease.expires > now) {
                out = out.max(lease.batch_end - cursor.committed);
                leases += 1;
            }
        }
        let open = open.unwrap_or(NONE + 1);
        let total = part.next - part.first;
        let left = (part.next - open).clamp(0, total);
        let processing = out.clamp(0, left);
        let detail = PartDetail {
            id,
            uuid: part.uuid,
            name: part.name.clone(),
            created: part.created,
            newest: (part.next > 0).then_some(part.newest),
            tasks: Tasks {
                total,
                pending: left - processing,
                processing,
                completed: total - left,
                dead: part.dead,
            },
            open,
            consumed,
        };
        Some((detail, leases))
    }
}
