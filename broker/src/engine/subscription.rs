//! Where a consumer group began to read, and what it found by namespace and task.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::command::{PopRequest, Source, Start};
use super::model::{GroupId, Model, PartId, Queue, QueueId};
use super::writer::Writer;
use crate::store::Result;

/// The way in which a group was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    All,
    New,
    Timestamp,
}

impl Mode {
    /// The name in the protocol and in the store.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::All => "all",
            Mode::New => "new",
            Mode::Timestamp => "timestamp",
        }
    }

    pub(crate) fn parse(name: &str) -> Mode {
        match name {
            "new" => Mode::New,
            "timestamp" => Mode::Timestamp,
            _ => Mode::All,
        }
    }
}

/// The registration of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) mode: Mode,
    /// Nothing older than this is read; zero with `all`.
    pub(crate) since: i64,
    pub(crate) created: i64,
}

impl Subscription {
    pub(crate) fn new(start: Start, now: i64) -> Subscription {
        let (mode, since) = match start {
            Start::All => (Mode::All, 0),
            Start::New => (Mode::New, now),
            Start::Time(time) => (Mode::Timestamp, time),
        };
        Subscription {
            mode,
            since,
            created: now,
        }
    }

    /// Where a group with this registration starts on what it has not met yet.
    pub(crate) fn start(&self) -> Start {
        match self.mode {
            Mode::All => Start::All,
            Mode::New | Mode::Timestamp => Start::Time(self.since),
        }
    }
}

/// A group that reads by namespace and task.
pub(crate) struct Finder {
    pub(crate) subscription: Subscription,
    /// The queue that was served last; the next search begins behind it.
    last: QueueId,
}

impl Finder {
    pub(crate) fn new(subscription: Subscription) -> Finder {
        Finder {
            subscription,
            last: 0,
        }
    }
}

/// Namespace, task and group; an empty name stands for "any".
pub(crate) type FinderKey = (Arc<str>, Arc<str>, Arc<str>);

/// Which queues have a namespace or a task.
#[derive(Default)]
pub(crate) struct Index(HashMap<Arc<str>, BTreeSet<QueueId>>);

impl Index {
    pub(crate) fn add(&mut self, name: &Arc<str>, queue: QueueId) {
        self.0.entry(name.clone()).or_default().insert(queue);
    }

    pub(crate) fn remove(&mut self, name: &str, queue: QueueId) {
        if let Some(queues) = self.0.get_mut(name) {
            queues.remove(&queue);
            if queues.is_empty() {
                self.0.remove(name);
            }
        }
    }

    fn of(&self, name: &str) -> impl Iterator<Item = QueueId> {
        self.0.get(name).into_iter().flatten().copied()
    }
}

impl Queue {
    /// The sources whose pops may take from this queue.
    pub(crate) fn sources(&self) -> [Source; 4] {
        let (namespace, task) = (Some(self.namespace.clone()), Some(self.task.clone()));
        let find = |namespace, task| Source::Find { namespace, task };
        [
            Source::Queue(self.name.clone()),
            find(namespace.clone(), None),
            find(None, task.clone()),
            find(namespace, task),
        ]
    }
}

impl Model {
    /// The queues of a source, in the order of their ids.
    pub(crate) fn queues_of(&self, source: &Source) -> Vec<QueueId> {
        match source {
            Source::Queue(name) => self.queue_id(name).into_iter().collect(),
            Source::Stream(_) => Vec::new(),
            Source::Find {
                namespace: Some(namespace),
                task: None,
            } => self.by_namespace.of(namespace).collect(),
            Source::Find {
                namespace: Some(namespace),
                task: Some(task),
            } => {
                let has = |id: &QueueId| self.queues.get(id).is_some_and(|q| q.task == *task);
                self.by_namespace.of(namespace).filter(has).collect()
            }
            Source::Find {
                namespace: None,
                task,
            } => task.iter().flat_map(|task| self.by_task.of(task)).collect(),
        }
    }

    /// The group of that name on each queue of a source where there is one.
    pub(crate) fn groups_of(&self, source: &Source, group: &str) -> Vec<GroupId> {
        let queues = self.queues_of(source).into_iter();
        queues
            .filter_map(|id| self.queues.get(&id)?.groups.get(group).copied())
            .collect()
    }
}

impl Writer {
    /// Finds the queues of a pop by namespace and task and registers its group where it is new. A queue that came
    /// after the group's first search is read from where the group began, not from where it was found.
    pub(super) fn enter_found(
        &mut self,
        request: &PopRequest,
        parked: bool,
    ) -> Result<Vec<(QueueId, GroupId, Option<PartId>)>> {
        let Some(key) = finder_key(request) else {
            return Ok(Vec::new());
        };
        let now = self.round.now;
        let (start, last) = match self.model.finders.get(&key) {
            Some(finder) => (finder.subscription.start(), finder.last),
            None => {
                let start = if parked { Start::All } else { request.start };
                let subscription = Subscription::new(start, now);
                self.db.put_finder(&key, &subscription)?;
                self.model
                    .finders
                    .insert(key.clone(), Finder::new(subscription));
                (start, 0)
            }
        };
        let mut queues = self.model.queues_of(&request.source);
        let behind = queues.partition_point(|id| *id <= last);
        queues.rotate_left(behind);
        let mut places = Vec::with_capacity(queues.len());
        for queue in queues {
            let group = match self.registered(queue, &request.group) {
                Some(group) => group,
                None => self.register(queue, &request.group, start)?,
            };
            places.push((queue, group, None));
        }
        Ok(places)
    }

    /// Lets the next search begin behind this queue.
    pub(super) fn found(&mut self, request: &PopRequest, queue: QueueId) {
        if let Some(finder) = finder_key(request).and_then(|key| self.model.finders.get_mut(&key)) {
            finder.last = queue;
        }
    }
}

/// The key of a pop by namespace and task.
pub(super) fn finder_key(request: &PopRequest) -> Option<FinderKey> {
    let Source::Find { namespace, task } = &request.source else {
        return None;
    };
    let name = |name: &Option<Arc<str>>| name.clone().unwrap_or_else(|| Arc::from(""));
    Some((name(namespace), name(task), request.group.clone()))
}
