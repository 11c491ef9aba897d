//! Where waiting pops are parked: by queue and group, in order of arrival, with the moments at which to look again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::command::{PopReply, PopRequest, Source};

/// A pop that waits for a message.
pub(crate) struct Waiter {
    pub(crate) request: PopRequest,
    pub(crate) deadline: i64,
    pub(crate) reply: PopReply,
}

/// The waiters of one group on one source.
#[derive(Default)]
struct Lane {
    any: BTreeSet<u64>,
    named: BTreeMap<Arc<str>, BTreeSet<u64>>,
    /// The moment for which this lane stands in `Parking::checks`.
    check: Option<i64>,
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.any.is_empty() && self.named.is_empty()
    }
}

/// Names a lane: where it looks, and for which group.
pub(crate) type LaneKey = (Source, Arc<str>);

/// All parked pops.
#[derive(Default)]
pub(crate) struct Parking {
    waiters: HashMap<u64, Waiter>,
    lanes: HashMap<LaneKey, Lane>,
    /// The groups that have a lane on a source.
    groups: HashMap<Source, HashSet<Arc<str>>>,
    /// Pops that found some messages and wait until this moment for more.
    filling: HashMap<u64, i64>,
    deadlines: BTreeSet<(i64, u64)>,
    checks: BTreeSet<(i64, LaneKey)>,
    /// How many of the waiters ask for autoAck: their claims must be durable.
    auto_ack: usize,
}

impl Parking {
    /// Parks a pop. The ids grow, so that the order of ids is the order of arrival.
    pub(crate) fn add(&mut self, waiter: Waiter) {
        let request = &waiter.request;
        let key = (request.source.clone(), request.group.clone());
        self.groups
            .entry(key.0.clone())
            .or_default()
            .insert(key.1.clone());
        let lane = self.lanes.entry(key).or_default();
        match &request.part {
            None => lane.any.insert(request.id),
            Some(part) => lane
                .named
                .entry(part.clone())
                .or_default()
                .insert(request.id),
        };
        self.deadlines.insert((waiter.deadline, request.id));
        self.auto_ack += usize::from(request.auto_ack);
        self.waiters.insert(request.id, waiter);
    }

    /// Takes a pop out, to answer it or because it was given up.
    pub(crate) fn remove(&mut self, id: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&id)?;
        self.filling.remove(&id);
        let request = &waiter.request;
        self.auto_ack -= usize::from(request.auto_ack);
        self.deadlines.remove(&(waiter.deadline, id));
        let key = (request.source.clone(), request.group.clone());
        if let Some(lane) = self.lanes.get_mut(&key) {
            match &request.part {
                None => drop(lane.any.remove(&id)),
                Some(part) => {
                    if let Some(ids) = lane.named.get_mut(part) {
                        ids.remove(&id);
                        if ids.is_empty() {
                            lane.named.remove(part);
                        }
                    }
                }
            }
            if lane.is_empty() {
                if let Some(at) = lane.check {
                    self.checks.remove(&(at, key.clone()));
                }
                self.lanes.remove(&key);
                if let Some(groups) = self.groups.get_mut(&key.0) {
                    groups.remove(&key.1);
                    if groups.is_empty() {
                        self.groups.remove(&key.0);
                    }
                }
            }
        }
        Some(waiter)
    }

    /// The first pop of a lane, whatever it asks for.
    pub(crate) fn first(&self, lane: &LaneKey) -> Option<&Waiter> {
        let lane = self.lanes.get(lane)?;
        let named = lane.named.values().flatten();
        self.get(lane.any.iter().chain(named).min().copied()?)
    }

    /// Looks at a parked pop.
    pub(crate) fn get(&self, id: u64) -> Option<&Waiter> {
        self.waiters.get(&id)
    }

    /// The lanes of a source.
    pub(crate) fn lanes_of(&self, source: &Source) -> Vec<LaneKey> {
        let Some((source, groups)) = self.groups.get_key_value(source) else {
            return Vec::new();
        };
        groups
            .iter()
            .map(|group| (source.clone(), group.clone()))
            .collect()
    }

    /// The first pop of a lane, after another one, that takes any partition or the named one.
    pub(crate) fn next(&self, lane: &LaneKey, part: Option<&str>, after: u64) -> Option<u64> {
        let lane = self.lanes.get(lane)?;
        let ids = match part {
            None => &lane.any,
            Some(part) => lane.named.get(part)?,
        };
        ids.range(after + 1..).next().copied()
    }

    /// Until when a pop that found some messages waits for more; the first to ask decides.
    pub(crate) fn fill_until(&mut self, id: u64, until: i64) -> i64 {
        *self.filling.entry(id).or_insert(until)
    }

    /// The partitions that pops of a lane ask for by name.
    pub(crate) fn named_parts(&self, lane: &LaneKey) -> Vec<Arc<str>> {
        self.lanes
            .get(lane)
            .map_or_else(Vec::new, |lane| lane.named.keys().cloned().collect())
    }

    /// Asks for a look at a lane at a moment, unless an earlier one is planned.
    pub(crate) fn check_at(&mut self, key: &LaneKey, at: i64) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        if let Some(planned) = lane.check {
            if planned <= at {
                return;
            }
            self.checks.remove(&(planned, key.clone()));
        }
        lane.check = Some(at);
        self.checks.insert((at, key.clone()));
    }

    /// The next moment at which something is due.
    pub(crate) fn next_due(&self) -> Option<i64> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let check = self.checks.first().map(|(at, _)| *at);
        deadline.into_iter().chain(check).min()
    }

    /// Takes a lane whose check is due.
    pub(crate) fn due_check(&mut self, now: i64) -> Option<LaneKey> {
        if self.checks.first()?.0 > now {
            return None;
        }
        let (_, key) = self.checks.pop_first()?;
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.check = None;
        }
        Some(key)
    }

    /// Takes a pop whose time has run out.
    pub(crate) fn due_deadline(&mut self, now: i64) -> Option<Waiter> {
        let (at, id) = *self.deadlines.first()?;
        if at > now { None } else { self.remove(id) }
    }

    /// Takes them all.
    pub(crate) fn drain(&mut self) -> Vec<Waiter> {
        let ids: Vec<u64> = self.waiters.keys().copied().collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// How many pops wait on a queue by its name.
    pub(crate) fn waiting(&self, queue: &Arc<str>) -> usize {
        let lanes = self.lanes_of(&Source::Queue(queue.clone()));
        let lanes = lanes.iter().filter_map(|lane| self.lanes.get(lane));
        lanes
            .map(|lane| lane.any.len() + lane.named.values().map(BTreeSet::len).sum::<usize>())
            .sum()
    }

    /// Whether a waiter would commit at delivery.
    pub(crate) fn has_auto_ack(&self) -> bool {
        self.auto_ack > 0
    }
}
