//! What happened when: counts by minute, kept in memory since the broker was opened.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::command::{PopRequest, Source};
use super::model::{Model, QueueId};
use super::writer::Writer;
use crate::clock::SECOND;

pub(crate) const MINUTE: i64 = 60 * SECOND;
/// How long the counts of all queues together are kept, and those of single ones.
const KEPT: i64 = 24 * 60 * MINUTE;
const KEPT_BY_QUEUE: i64 = 60 * MINUTE;
/// The queues that are told apart in one minute at most; the others count in the sum alone.
const QUEUES: usize = 500;

/// What is counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) push_requests: u64,
    pub(crate) push_messages: u64,
    pub(crate) pop_requests: u64,
    pub(crate) pop_empty: u64,
    pub(crate) pop_messages: u64,
    pub(crate) ack_requests: u64,
    pub(crate) ack_success: u64,
    pub(crate) ack_failed: u64,
    /// Messages that a group has finished.
    pub(crate) processed: u64,
    pub(crate) transactions: u64,
    pub(crate) dead_letters: u64,
    pub(crate) partitions_created: u64,
    pub(crate) retention: u64,
    pub(crate) completed_retention: u64,
    pub(crate) evicted: u64,
    /// The ages at which messages were delivered, in milliseconds: their sum and the greatest.
    pub(crate) lag_sum: u64,
    pub(crate) lag_max: u64,
}

impl std::ops::AddAssign<&Counts> for Counts {
    fn add_assign(&mut self, other: &Counts) {
        self.push_requests += other.push_requests;
        self.push_messages += other.push_messages;
        self.pop_requests += other.pop_requests;
        self.pop_empty += other.pop_empty;
        self.pop_messages += other.pop_messages;
        self.ack_requests += other.ack_requests;
        self.ack_success += other.ack_success;
        self.ack_failed += other.ack_failed;
        self.processed += other.processed;
        self.transactions += other.transactions;
        self.dead_letters += other.dead_letters;
        self.partitions_created += other.partitions_created;
        self.retention += other.retention;
        self.completed_retention += other.completed_retention;
        self.evicted += other.evicted;
        self.lag_sum += other.lag_sum;
        self.lag_max = self.lag_max.max(other.lag_max);
    }
}

/// Counts by queue that are not in the history yet; those of no single queue stand under none.
#[derive(Default)]
pub(super) struct Tally(HashMap<Option<QueueId>, Counts>);

impl Tally {
    pub(super) fn of(&mut self, queue: Option<QueueId>) -> &mut Counts {
        self.0.entry(queue).or_default()
    }

    /// Takes over what another one has counted.
    pub(super) fn absorb(&mut self, other: Tally) {
        for (queue, counts) in other.0 {
            *self.of(queue) += &counts;
        }
    }
}

/// The counts of a minute.
#[derive(Clone)]
pub(crate) struct Minute {
    /// When it began.
    pub(crate) start: i64,
    pub(crate) all: Counts,
    pub(crate) queues: HashMap<Arc<str>, Counts>,
}

/// The minutes in which something happened, oldest first. Shared by the writer and the readers.
#[derive(Default)]
pub(crate) struct History(Mutex<VecDeque<Minute>>);

impl History {
    fn minutes(&self) -> MutexGuard<'_, VecDeque<Minute>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what the writer has counted.
    pub(super) fn add(&self, now: i64, tally: &mut Tally, model: &Model) {
        if tally.0.is_empty() {
            return;
        }
        let mut minutes = self.minutes();
        for (queue, counts) in tally.0.drain() {
            let name = queue.and_then(|queue| model.queues.get(&queue));
            count(&mut minutes, now, name.map(|queue| &queue.name), &counts);
        }
    }

    /// Adds what a reader has delivered from a queue.
    pub(super) fn delivered(&self, now: i64, queue: &Arc<str>, counts: &Counts) {
        count(&mut self.minutes(), now, Some(queue), counts);
    }

    /// The minutes that begin in a span of time, oldest first.
    pub(crate) fn between(&self, from: i64, to: i64) -> Vec<Minute> {
        let minutes = self.minutes();
        let within = minutes
            .iter()
            .filter(|minute| minute.start > from - MINUTE && minute.start <= to);
        within.cloned().collect()
    }
}

fn count(minutes: &mut VecDeque<Minute>, now: i64, queue: Option<&Arc<str>>, counts: &Counts) {
    let start = now - now.rem_euclid(MINUTE);
    if minutes.back().is_none_or(|last| last.start < start) {
        while minutes
            .front()
            .is_some_and(|first| first.start < start - KEPT)
        {
            minutes.pop_front();
        }
        for old in minutes.iter_mut() {
            if old.start >= start - KEPT_BY_QUEUE {
                break;
            }
            old.queues = HashMap::new();
        }
        minutes.push_back(Minute {
            start,
            all: Counts::default(),
            queues: HashMap::new(),
        });
    }
    let Some(minute) = minutes.back_mut() else {
        return;
    };
    minute.all += counts;
    let Some(queue) = queue else { return };
    if let Some(known) = minute.queues.get_mut(queue) {
        *known += counts;
    } else if minute.queues.len() < QUEUES {
        minute.queues.insert(queue.clone(), *counts);
    }
}

impl Writer {
    /// What is counted for the queue of a pop, if it names one.
    pub(super) fn counts_for(&mut self, request: &PopRequest) -> &mut Counts {
        let queue = match &request.source {
            Source::Queue(name) => self.model.queue_id(name),
            Source::Find { .. } | Source::Stream(_) => None,
        };
        self.tally.of(queue)
    }

    pub(super) fn count_empty(&mut self, request: &PopRequest) {
        self.counts_for(request).pop_empty += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(n: u64) -> Counts {
        Counts {
            push_messages: n,
            lag_max: n,
            ..Counts::default()
        }
    }

    #[test]
    fn minutes_are_summed_and_forgotten_in_time() {
        let history = History::default();
        let queue: Arc<str> = "q".into();
        history.delivered(0, &queue, &pushed(1));
        history.delivered(MINUTE - 1, &queue, &pushed(2));
        history.delivered(2 * MINUTE, &queue, &pushed(3));
        let seen = |from, to| -> Vec<(i64, u64, Option<u64>)> {
            let minutes = history.between(from, to);
            let of = |m: &Minute| {
                (
                    m.start,
                    m.all.push_messages,
                    m.queues.get(&queue).map(|c| c.lag_max),
                )
            };
            minutes.iter().map(of).collect()
        };
        let (first, second) = ((0, 3, Some(2)), (2 * MINUTE, 3, Some(3)));
        assert_eq!(seen(0, 2 * MINUTE), [first, second]);
        assert_eq!(seen(0, MINUTE), [first]);
        assert_eq!(seen(MINUTE, 3 * MINUTE), [second]);
        history.delivered(KEPT_BY_QUEUE + MINUTE, &queue, &pushed(1));
        assert_eq!(seen(0, 2 * MINUTE), [(0, 3, None), second]);
        history.delivered(KEPT + 2 * MINUTE, &queue, &pushed(1));
        assert_eq!(seen(0, 2 * MINUTE), [(2 * MINUTE, 3, None)]);
    }

    #[test]
    fn too_many_queues_count_in_the_sum() {
        let history = History::default();
        for n in 0..QUEUES + 10 {
            history.delivered(0, &format!("q{n}").into(), &pushed(1));
        }
        let minutes = history.between(0, 0);
        assert_eq!(minutes[0].queues.len(), QUEUES);
        assert_eq!(minutes[0].all.push_messages, QUEUES as u64 + 10);
    }
}
