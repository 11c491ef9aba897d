//! Streams in memory: which window of which key is next for a group, and when it is ready.
//!
//! A group keeps its keys in three ordered sets: those that have messages at or behind their next window, those that have
//! none, and those whose window is out. All windows of a stream are equally long, so the first of a set is the first to be
//! ready, and nothing behind it need be looked at.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::model::{Model, PartId, QueueId};
use crate::store::{Db, Result, StreamRow, WindowRow};

pub(crate) type StreamId = i64;

/// The key of a stream that is not partitioned.
pub(crate) const WHOLE: &str = "__GLOBAL__";

/// A stream.
pub(crate) struct Stream {
    pub(crate) row: StreamRow,
    pub(crate) name: Arc<str>,
    pub(crate) sources: BTreeSet<QueueId>,
    /// The groups that have asked since the store was opened.
    pub(crate) groups: HashMap<Arc<str>, Standing>,
    /// The latest end of all windows that were handed out.
    closed: i64,
}

/// A window that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Out {
    pub(crate) lease: Uuid,
    pub(crate) expires: i64,
    pub(crate) end: i64,
}

/// Where a group stands in one key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// Where its next window begins.
    pub(crate) next: i64,
    /// When its newest message was pushed.
    newest: i64,
    closed: i64,
    acked: i64,
    pub(crate) out: Option<Out>,
}

impl Key {
    fn place(&self) -> Place {
        match self.out {
            Some(out) => Place::Out(out.expires),
            None if self.newest >= self.next => Place::Live(self.next),
            None => Place::Idle(self.next),
        }
    }

    /// Goes on to the window that begins there.
    pub(crate) fn finish(&mut self, end: i64) {
        self.next = end;
        self.acked += 1;
    }

    /// As it is stored.
    pub(crate) fn row(&self, key: &str) -> WindowRow {
        WindowRow {
            key: key.to_owned(),
            next: self.next,
            closed: self.closed,
            acked: self.acked,
            lease: self.out.map(|out| (out.lease, out.expires, out.end)),
        }
    }
}

/// In which set a key stands, and where there.
enum Place {
    Live(i64),
    Idle(i64),
    Out(i64),
}

/// Where a group stands in all keys of a stream.
#[derive(Default, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    /// Keys that come later begin here at the earliest.
    since: Option<i64>,
    keys: HashMap<Arc<str>, Key>,
    live: BTreeSet<(i64, Arc<str>)>,
    idle: BTreeSet<(i64, Arc<str>)>,
    out: BTreeSet<(i64, Arc<str>)>,
}

impl Standing {
    /// Changes a key and puts it where it belongs. `None`: there is no such key.
    pub(crate) fn change(&mut self, key: &str, change: impl FnOnce(&mut Key)) -> Option<WindowRow> {
        let (name, found) = self.keys.get_key_value(key)?;
        let (name, before) = (name.clone(), found.place());
        match before {
            Place::Live(at) => self.live.remove(&(at, name.clone())),
            Place::Idle(at) => self.idle.remove(&(at, name.clone())),
            Place::Out(at) => self.out.remove(&(at, name.clone())),
        };
        let found = self.keys.get_mut(key)?;
        change(found);
        let row = found.row(key);
        self.place(name);
        Some(row)
    }

    fn place(&mut self, key: Arc<str>) {
        match self.keys.get(&key).map(Key::place) {
            Some(Place::Live(at)) => drop(self.live.insert((at, key))),
            Some(Place::Idle(at)) => drop(self.idle.insert((at, key))),
            Some(Place::Out(at)) => drop(self.out.insert((at, key))),
            None => {}
        }
    }

    fn add(&mut self, name: Arc<str>, key: Key) {
        self.keys.insert(name.clone(), key);
        self.place(name);
    }

    /// Takes back the windows whose lease has run out.
    fn expire(&mut self, now: i64) -> Vec<Uuid> {
        let mut ended = Vec::new();
        while let Some((expires, name)) = self.out.first().cloned() {
            if expires > now {
                break;
            }
            self.change(&name, |key| {
                ended.extend(key.out.take().map(|out| out.lease))
            });
        }
        ended
    }

    pub(crate) fn key(&self, key: &str) -> Option<&Key> {
        self.keys.get(key)
    }

    pub(crate) fn names(&self) -> Vec<Arc<str>> {
        self.keys.keys().cloned().collect()
    }
}

impl Stream {
    /// The key of a partition.
    fn key_of(&self, part: &Arc<str>) -> Arc<str> {
        match self.row.partitioned {
            true => part.clone(),
            false => WHOLE.into(),
        }
    }

    /// Where the first window begins of a key whose first message was pushed at a time.
    fn beginning(&self, first: i64, since: Option<i64>) -> i64 {
        let aligned = first - first.rem_euclid(self.row.duration.max(1));
        since.map_or(aligned, |since| aligned.max(since))
    }

    fn end_of(&self, start: i64) -> i64 {
        start.saturating_add(self.row.duration)
    }

    /// When the window that begins there is over, the grace period included.
    fn over(&self, start: i64) -> i64 {
        self.end_of(start).saturating_add(self.row.grace)
    }

    /// The key whose window is ready, the oldest of them. `watermark` is how far the sources have come.
    pub(crate) fn ready(&self, group: &str, now: i64, watermark: i64) -> Option<Arc<str>> {
        let standing = self.groups.get(group)?;
        let passed = |start: i64| self.over(start) <= watermark;
        // Nothing of what is stored from now on can fall into a window that lies behind the clock.
        let closed = |start: i64| !self.row.strict && self.over(start) <= now;
        let live = standing
            .live
            .first()
            .filter(|(at, _)| closed(*at) || passed(*at));
        let idle = standing.idle.first().filter(|(at, _)| passed(*at));
        let first = live.into_iter().chain(idle).min_by_key(|(at, _)| *at);
        first.map(|(_, name)| name.clone())
    }

    /// When a group should be looked at again, if nothing happens before.
    pub(crate) fn due(&self, group: &str) -> Option<i64> {
        let standing = self.groups.get(group)?;
        let lease = standing.out.first().map(|(at, _)| *at);
        let live = standing.live.first().filter(|_| !self.row.strict);
        let closes = live.map(|(at, _)| self.over(*at));
        lease.into_iter().chain(closes).min()
    }

    /// Hands the next window of a key out: its beginning, and the row to store.
    pub(crate) fn hand_out(
        &mut self,
        group: &str,
        key: &str,
        lease: Uuid,
        now: i64,
    ) -> Option<(i64, i64, WindowRow)> {
        let standing = self.groups.get(group)?;
        let start = standing.key(key)?.next;
        let end = self.end_of(start);
        let expires = now.saturating_add(self.row.lease);
        let standing = self.groups.get_mut(group)?;
        let row = standing.change(key, |key| {
            key.closed = key.closed.max(end);
            key.out = Some(Out {
                lease,
                expires,
                end,
            });
        })?;
        self.closed = self.closed.max(end);
        Some((start, end, row))
    }

    /// Moves every key of a group.
    pub(crate) fn seek(&mut self, group: &str, to: i64) -> (Vec<Uuid>, Vec<WindowRow>) {
        let (mut ended, mut rows) = (Vec::new(), Vec::new());
        let Some(standing) = self.groups.get_mut(group) else {
            return (ended, rows);
        };
        standing.since = Some(to);
        for name in standing.names() {
            rows.extend(standing.change(&name, |key| {
                ended.extend(key.out.take().map(|out| out.lease));
                key.next = to;
            }));
        }
        (ended, rows)
    }
}

/// Stream, group and key of a window that is out.
pub(crate) type Held = (StreamId, Arc<str>, Arc<str>);

/// All streams.
#[derive(Default)]
pub(crate) struct Streams {
    pub(crate) all: HashMap<StreamId, Stream>,
    names: HashMap<Arc<str>, StreamId>,
    by_queue: HashMap<QueueId, BTreeSet<StreamId>>,
    leases: HashMap<Uuid, Held>,
}

impl Streams {
    pub(crate) fn load(db: &Db) -> Result<Streams> {
        let mut streams = Streams::default();
        for row in db.streams(None)? {
            streams.put(row);
        }
        for (stream, queue) in db.stream_sources()? {
            streams.add_source(stream, queue);
        }
        for (stream, closed) in db.closed_windows()? {
            if let Some(stream) = streams.all.get_mut(&stream) {
                stream.closed = closed;
            }
        }
        for (lease, stream, group, key) in db.stream_leases()? {
            let place = (stream, group.into(), key.into());
            streams.leases.insert(lease, place);
        }
        Ok(streams)
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Stream> {
        self.all.get(self.names.get(name)?)
    }

    pub(crate) fn find_mut(&mut self, name: &str) -> Option<&mut Stream> {
        self.all.get_mut(self.names.get(name)?)
    }

    pub(crate) fn next_id(&self) -> StreamId {
        self.all.keys().max().map_or(1, |id| id + 1)
    }

    /// Adds a stream, or replaces what is known of it; its groups are read anew when they ask again.
    pub(crate) fn put(&mut self, row: StreamRow) {
        let name: Arc<str> = row.name.as_str().into();
        self.names.insert(name.clone(), row.id);
        let old = self.all.remove(&row.id);
        let (sources, closed) = old.map_or_else(Default::default, |old| (old.sources, old.closed));
        let stream = Stream {
            name,
            sources,
            groups: HashMap::new(),
            closed,
            row,
        };
        self.all.insert(stream.row.id, stream);
    }

    pub(crate) fn add_source(&mut self, stream: StreamId, queue: QueueId) {
        if let Some(found) = self.all.get_mut(&stream) {
            found.sources.insert(queue);
            self.by_queue.entry(queue).or_default().insert(stream);
        }
    }

    pub(crate) fn remove(&mut self, id: StreamId) {
        let Some(stream) = self.all.remove(&id) else {
            return;
        };
        self.names.remove(&stream.name);
        for queue in stream.sources {
            self.unlink(queue, id);
        }
        self.leases.retain(|_, (stream, _, _)| *stream != id);
    }

    fn unlink(&mut self, queue: QueueId, stream: StreamId) {
        if let Some(readers) = self.by_queue.get_mut(&queue) {
            readers.remove(&stream);
            if readers.is_empty() {
                self.by_queue.remove(&queue);
            }
        }
    }

    /// A queue is gone.
    pub(crate) fn forget_queue(&mut self, queue: QueueId) {
        for stream in self.by_queue.remove(&queue).unwrap_or_default() {
            if let Some(stream) = self.all.get_mut(&stream) {
                stream.sources.remove(&queue);
                stream.groups.clear();
            }
        }
    }

    /// The names of the streams that read a queue.
    pub(crate) fn readers(&self, queue: QueueId) -> Vec<Arc<str>> {
        let readers = self.by_queue.get(&queue).into_iter().flatten();
        readers
            .filter_map(|id| Some(self.all.get(id)?.name.clone()))
            .collect()
    }

    /// Nothing that a queue stores may be older than a window that was handed out, whatever the system's clock does.
    pub(crate) fn floor(&self, queue: QueueId) -> i64 {
        let readers = self.by_queue.get(&queue).into_iter().flatten();
        let closed = readers.filter_map(|id| Some(self.all.get(id)?.closed));
        closed.max().unwrap_or(0)
    }

    /// A partition has a message of that time.
    pub(crate) fn note(&mut self, queue: QueueId, part: &Arc<str>, created: i64) {
        for id in self.by_queue.get(&queue).into_iter().flatten() {
            let Some(stream) = self.all.get_mut(id) else {
                continue;
            };
            let name = stream.key_of(part);
            let mut groups = std::mem::take(&mut stream.groups);
            for standing in groups.values_mut() {
                if standing.keys.contains_key(&name) {
                    standing.change(&name, |key| key.newest = key.newest.max(created));
                } else {
                    let next = stream.beginning(created, standing.since);
                    standing.add(name.clone(), fresh(next, created));
                }
            }
            stream.groups = groups;
        }
    }

    /// Notes under which lease a window is out.
    pub(crate) fn lease(&mut self, lease: Uuid, stream: StreamId, group: &Arc<str>, key: Arc<str>) {
        self.leases.insert(lease, (stream, group.clone(), key));
    }

    pub(crate) fn leased(&self, lease: Uuid) -> Option<Held> {
        self.leases.get(&lease).cloned()
    }

    pub(crate) fn forget(&mut self, leases: &[Uuid]) {
        for lease in leases {
            self.leases.remove(lease);
        }
    }

    /// Takes back what a group has held for too long.
    pub(crate) fn expire(&mut self, stream: &str, group: &str, now: i64) {
        let standing = self
            .find_mut(stream)
            .and_then(|stream| stream.groups.get_mut(group));
        let ended = standing.map(|standing| standing.expire(now));
        self.forget(&ended.unwrap_or_default());
    }
}

fn fresh(next: i64, newest: i64) -> Key {
    Key {
        next,
        newest,
        closed: 0,
        acked: 0,
        out: None,
    }
}

impl Model {
    /// How far all sources of a stream have come that ever had a message.
    pub(crate) fn watermark(&self, stream: &Stream) -> i64 {
        let queues = stream.sources.iter();
        let newest = queues.filter_map(|queue| Some(self.queues.get(queue)?.newest));
        newest.filter(|newest| *newest > 0).min().unwrap_or(0)
    }

    /// The partitions of a key, with where their logs begin and end, that have anything at or after a time.
    pub(crate) fn parts_of_key(
        &self,
        stream: &Stream,
        key: &str,
        since: i64,
    ) -> Vec<(PartId, i64, i64)> {
        let queues = stream.sources.iter();
        let queues = queues.filter_map(|queue| self.queues.get(queue));
        let parts = queues.flat_map(|queue| match stream.row.partitioned {
            true => queue
                .parts
                .get(key)
                .copied()
                .into_iter()
                .collect::<Vec<_>>(),
            false => queue.parts.values().copied().collect(),
        });
        let found = parts.filter_map(|id| Some((id, self.parts.get(&id)?)));
        found
            .filter(|(_, part)| part.newest >= since && part.next > part.first)
            .map(|(id, part)| (id, part.first, part.next))
            .collect()
    }

    /// Where a group stands, read from the store and from the logs of the sources.
    pub(crate) fn read_standing(
        &self,
        db: &Db,
        stream: &Stream,
        group: &str,
        now: i64,
    ) -> Result<Standing> {
        let mut standing = Standing {
            since: db.stream_since(stream.row.id, group)?,
            ..Standing::default()
        };
        for row in db.stream_windows(stream.row.id, group)? {
            let out = row.lease.filter(|(_, expires, _)| *expires > now);
            let key = Key {
                closed: row.closed,
                acked: row.acked,
                out: out.map(|(lease, expires, end)| Out {
                    lease,
                    expires,
                    end,
                }),
                ..fresh(row.next, 0)
            };
            standing.add(row.key.into(), key);
        }
        // Keys without a row begin at the oldest message of all their partitions.
        let mut oldest: HashMap<Arc<str>, i64> = HashMap::new();
        for queue in stream.sources.iter().filter_map(|id| self.queues.get(id)) {
            for part in queue
                .parts
                .values()
                .filter_map(|id| Some((id, self.parts.get(id)?)))
            {
                let (id, part) = part;
                let name = stream.key_of(&part.name);
                if standing.keys.contains_key(&name) {
                    standing.change(&name, |key| key.newest = key.newest.max(part.newest));
                    if !oldest.contains_key(&name) {
                        continue;
                    }
                }
                if part.next == part.first {
                    continue;
                }
                // What this round has pushed is in no row yet.
                let first = db.created_at(*id, part.first)?.unwrap_or(part.newest);
                let known = oldest.entry(name.clone()).or_insert(first);
                *known = first.min(*known);
                let next = stream.beginning(*known, standing.since);
                match standing.keys.contains_key(&name) {
                    true => drop(standing.change(&name, |key| key.next = next)),
                    false => standing.add(name, fresh(next, part.newest)),
                }
            }
        }
        Ok(standing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(strict: bool) -> Stream {
        let row = StreamRow {
            id: 1,
            uuid: Uuid::nil(),
            name: "s".into(),
            namespace: "n".into(),
            partitioned: true,
            duration: 10,
            grace: 3,
            lease: 100,
            strict,
            created: 0,
            updated: 0,
        };
        let mut streams = Streams::default();
        streams.put(row);
        let mut stream = streams.all.remove(&1).unwrap();
        stream.groups.insert("g".into(), Standing::default());
        stream
    }

    fn add(stream: &mut Stream, key: &str, next: i64, newest: i64) {
        let standing = stream.groups.get_mut("g").unwrap();
        standing.add(key.into(), fresh(next, newest));
    }

    #[test]
    fn windows_begin_at_multiples_of_their_length() {
        let stream = stream(false);
        assert_eq!(stream.beginning(29, None), 20);
        assert_eq!(stream.beginning(30, None), 30);
        assert_eq!(stream.beginning(29, Some(7)), 20);
        assert_eq!(stream.beginning(29, Some(27)), 27);
    }

    #[test]
    fn a_window_is_ready_when_clock_or_watermark_are_beyond_its_grace_period() {
        let mut stream = stream(false);
        add(&mut stream, "a", 20, 25);
        assert_eq!(stream.ready("g", 32, 32), None);
        assert_eq!(stream.due("g"), Some(33));
        assert_eq!(stream.ready("g", 33, 0).as_deref(), Some("a"));
        assert_eq!(stream.ready("g", 0, 33).as_deref(), Some("a"));
        stream.row.strict = true;
        assert_eq!(stream.ready("g", 33, 32), None);
        assert_eq!(stream.due("g"), None);
        assert_eq!(stream.ready("g", 33, 33).as_deref(), Some("a"));
    }

    #[test]
    fn an_empty_window_waits_for_something_later_anywhere() {
        let mut stream = stream(false);
        add(&mut stream, "quiet", 10, 5);
        assert_eq!(stream.ready("g", 1000, 22), None);
        assert_eq!(stream.ready("g", 1000, 23).as_deref(), Some("quiet"));
        // In its own key the clock is enough.
        add(&mut stream, "gap", 10, 45);
        assert_eq!(stream.ready("g", 23, 0).as_deref(), Some("gap"));
    }

    #[test]
    fn the_oldest_window_goes_first_and_one_that_is_out_comes_back_when_its_lease_ends() {
        let mut stream = stream(false);
        add(&mut stream, "a", 20, 25);
        add(&mut stream, "b", 10, 15);
        let lease = Uuid::now_v7();
        let ready = stream.ready("g", 50, 0).unwrap();
        let (start, end, row) = stream.hand_out("g", &ready, lease, 50).unwrap();
        assert_eq!((&*ready, start, end), ("b", 10, 20));
        assert_eq!(row.lease, Some((lease, 150, 20)));
        assert_eq!(stream.ready("g", 50, 0).as_deref(), Some("a"));
        let standing = stream.groups.get_mut("g").unwrap();
        assert!(standing.expire(149).is_empty());
        assert_eq!(standing.expire(150), [lease]);
        assert_eq!(stream.ready("g", 150, 0).as_deref(), Some("b"));
    }

    #[test]
    fn a_seek_moves_every_key_and_those_to_come() {
        let mut stream = stream(false);
        add(&mut stream, "a", 20, 25);
        stream.hand_out("g", "a", Uuid::now_v7(), 50).unwrap();
        let (ended, rows) = stream.seek("g", 7);
        assert_eq!((ended.len(), rows.len(), rows[0].next), (1, 1, 7));
        assert_eq!(rows[0].closed, 30, "what was handed out stays closed");
        let since = stream.groups["g"].since;
        assert_eq!(stream.beginning(3, since), 7);
    }
}
