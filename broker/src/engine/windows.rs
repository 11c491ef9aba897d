//! Streams: defining them, handing windows out, and what becomes of these.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::command::{PopRequest, Source};
use super::park::LaneKey;
use super::reader::quote;
use super::streams::{Held, Standing, StreamId};
use super::writer::{Claimed, Writer};
use crate::clock;
use crate::store::{Db, Result, StreamRow};

/// What is asked of streams, apart from windows.
pub(crate) enum StreamCommand {
    Define(Definition),
    /// Whether there is a stream of that name.
    Find(String),
    Settle {
        lease: Uuid,
        success: bool,
    },
    Renew {
        lease: Uuid,
        millis: i64,
    },
    Seek {
        stream: String,
        group: String,
        to: i64,
    },
    Delete(String),
}

/// A stream as a client wants it. Times are microseconds.
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) partitioned: bool,
    pub(crate) duration: i64,
    pub(crate) grace: i64,
    pub(crate) lease: i64,
    pub(crate) strict: bool,
    pub(crate) sources: Vec<String>,
}

/// What came of it.
pub(crate) enum StreamAnswer {
    Defined(Uuid),
    /// There is no such source queue.
    NoQueue(String),
    Done,
    Renewed(i64),
    /// There is no such stream, or no such lease any more.
    Unknown,
}

/// A window that was claimed; its messages are still in the store.
pub(crate) struct WindowClaim {
    stream: Uuid,
    key: Arc<str>,
    pub(super) lease: Uuid,
    start: i64,
    end: i64,
    /// Partitions with the beginning and the end of their logs.
    parts: Vec<(i64, i64, i64)>,
}

impl Writer {
    pub(super) fn on_stream(&mut self, command: &StreamCommand) -> Result<StreamAnswer> {
        match command {
            StreamCommand::Define(definition) => self.define(definition),
            StreamCommand::Find(name) => Ok(match self.model.streams.find(name) {
                Some(_) => StreamAnswer::Done,
                None => StreamAnswer::Unknown,
            }),
            StreamCommand::Settle { lease, success } => self.settle_window(*lease, *success),
            StreamCommand::Renew { lease, millis } => self.renew_window(*lease, *millis),
            StreamCommand::Seek { stream, group, to } => self.seek_stream(stream, group, *to),
            StreamCommand::Delete(name) => self.delete_stream(name),
        }
    }

    /// Sources are only added, so that a client may define what it needs without knowing what others do.
    fn define(&mut self, wanted: &Definition) -> Result<StreamAnswer> {
        let mut sources = Vec::new();
        for name in &wanted.sources {
            match self.model.queue_id(name) {
                Some(queue) => sources.push(queue),
                None => return Ok(StreamAnswer::NoQueue(name.clone())),
            }
        }
        let now = self.round.now;
        let old = self.model.streams.find(&wanted.name);
        let old = old.map(|old| (old.row.id, old.row.uuid, old.row.created));
        let (id, uuid, created) =
            old.unwrap_or_else(|| (self.model.streams.next_id(), Uuid::now_v7(), now));
        let row = StreamRow {
            id,
            uuid,
            name: wanted.name.clone(),
            namespace: wanted.namespace.clone(),
            partitioned: wanted.partitioned,
            duration: wanted.duration,
            grace: wanted.grace,
            lease: wanted.lease,
            strict: wanted.strict,
            created,
            updated: now,
        };
        self.db.put_stream(&row)?;
        self.model.streams.put(row);
        for queue in sources {
            self.db.insert_stream_source(id, queue)?;
            self.model.streams.add_source(id, queue);
        }
        self.look_again(&wanted.name);
        Ok(StreamAnswer::Defined(uuid))
    }

    fn delete_stream(&mut self, name: &str) -> Result<StreamAnswer> {
        let Some(id) = self.model.streams.find(name).map(|stream| stream.row.id) else {
            return Ok(StreamAnswer::Unknown);
        };
        self.db.delete_stream(id)?;
        self.model.streams.remove(id);
        // Who waits for its windows waits for nothing.
        for lane in self.parking.lanes_of(&Source::Stream(name.into())) {
            while let Some(waiter) = self.parking.first(&lane).map(|waiter| waiter.request.id) {
                if let Some(waiter) = self.parking.remove(waiter) {
                    let _ = waiter.reply.send(Ok(None));
                }
            }
        }
        Ok(StreamAnswer::Done)
    }

    /// Where a window stands that is out under a live lease.
    fn held(&mut self, lease: Uuid) -> Result<Option<Held>> {
        let Some((id, group, key)) = self.model.streams.leased(lease) else {
            return Ok(None);
        };
        let Some(name) = self.model.streams.all.get(&id).map(|s| s.name.clone()) else {
            return Ok(None);
        };
        self.know_group(&name, &group)?;
        self.model.streams.expire(&name, &group, self.round.now);
        let found = self.model.streams.leased(lease);
        Ok(found.filter(|_| {
            self.standing(id, &group).is_some_and(|standing| {
                let out = standing.key(&key).and_then(|key| key.out);
                out.is_some_and(|out| out.lease == lease)
            })
        }))
    }

    fn standing(&mut self, stream: StreamId, group: &str) -> Option<&mut Standing> {
        let stream = self.model.streams.all.get_mut(&stream)?;
        stream.groups.get_mut(group)
    }

    /// Ends a lease. A window that was done is followed by the next one, any other comes again.
    fn settle_window(&mut self, lease: Uuid, success: bool) -> Result<StreamAnswer> {
        let Some((id, group, key)) = self.held(lease)? else {
            return Ok(StreamAnswer::Unknown);
        };
        let row = self.standing(id, &group).and_then(|standing| {
            standing.change(&key, |key| {
                if let Some(out) = key.out.take()
                    && success
                {
                    key.finish(out.end);
                }
            })
        });
        if let Some(row) = row {
            self.db.put_stream_window(id, &group, &row)?;
        }
        self.model.streams.forget(&[lease]);
        self.wake_group(id, group);
        Ok(StreamAnswer::Done)
    }

    /// Takes back a window whose answer reached nobody.
    pub(super) fn release_window(&mut self, lease: Uuid) -> Result<()> {
        self.settle_window(lease, false).map(drop)
    }

    fn renew_window(&mut self, lease: Uuid, millis: i64) -> Result<StreamAnswer> {
        let Some((id, group, key)) = self.held(lease)? else {
            return Ok(StreamAnswer::Unknown);
        };
        let expires = self.round.now.saturating_add(millis.saturating_mul(1000));
        let row = self.standing(id, &group).and_then(|standing| {
            standing.change(&key, |key| {
                if let Some(out) = &mut key.out {
                    out.expires = expires;
                }
            })
        });
        if let Some(row) = row {
            self.db.put_stream_window(id, &group, &row)?;
        }
        // It may be shorter than it was.
        self.wake_group(id, group);
        Ok(StreamAnswer::Renewed(expires))
    }

    /// Moves a group in every key. What is out comes to nothing, or its ack would undo the move.
    fn seek_stream(&mut self, name: &str, group: &str, to: i64) -> Result<StreamAnswer> {
        let group: Arc<str> = group.into();
        if !self.know_group(name, &group)? {
            return Ok(StreamAnswer::Unknown);
        }
        let Some(stream) = self.model.streams.find_mut(name) else {
            return Ok(StreamAnswer::Unknown);
        };
        let id = stream.row.id;
        let (ended, rows) = stream.seek(&group, to);
        self.model.streams.forget(&ended);
        self.db.put_stream_since(id, &group, to)?;
        for row in rows {
            self.db.put_stream_window(id, &group, &row)?;
        }
        self.wake_group(id, group);
        Ok(StreamAnswer::Done)
    }

    /// Reads where a group stands, unless that is known. False: there is no such stream.
    fn know_group(&mut self, name: &str, group: &Arc<str>) -> Result<bool> {
        let Some(stream) = self.model.streams.find(name) else {
            return Ok(false);
        };
        if !stream.groups.contains_key(group) {
            let now = self.round.now;
            let standing = self.model.read_standing(&self.db, stream, group, now)?;
            if let Some(stream) = self.model.streams.find_mut(name) {
                stream.groups.insert(group.clone(), standing);
            }
        }
        Ok(true)
    }

    /// Claims the next window that is ready for a poll.
    pub(super) fn claim_window(
        &mut self,
        name: &str,
        request: &PopRequest,
    ) -> Result<Option<Claimed>> {
        let (group, now) = (&request.group, self.round.now);
        if !self.know_group(name, group)? {
            return Ok(None);
        }
        self.model.streams.expire(name, group, now);
        let Some(stream) = self.model.streams.find(name) else {
            return Ok(None);
        };
        let watermark = self.model.watermark(stream);
        let Some(key) = stream.ready(group, now, watermark) else {
            return Ok(None);
        };
        let lease = Uuid::now_v7();
        let Some(stream) = self.model.streams.find_mut(name) else {
            return Ok(None);
        };
        let (id, uuid) = (stream.row.id, stream.row.uuid);
        let Some((start, end, row)) = stream.hand_out(group, &key, lease, now) else {
            return Ok(None);
        };
        self.model.streams.lease(lease, id, group, key.clone());
        self.db.put_stream_window(id, group, &row)?;
        let stream = self.model.streams.find(name);
        let parts = stream.map(|stream| self.model.parts_of_key(stream, &key, start));
        let parts = parts.unwrap_or_default();
        self.meter.partitions(parts.len());
        Ok(Some(Claimed::Window(WindowClaim {
            stream: uuid,
            key,
            lease,
            start,
            end,
            parts,
        })))
    }

    /// Looks again at a lane of polls when its next window closes or its next lease ends.
    pub(super) fn plan_window(&mut self, name: &str, lane: &LaneKey) {
        self.model.streams.expire(name, &lane.1, self.round.now);
        let stream = self.model.streams.find(name);
        if let Some(at) = stream.and_then(|stream| stream.due(&lane.1)) {
            // What is due already was looked at in this round, and would make the writer spin.
            self.parking.check_at(lane, at.max(self.round.now + 1));
        }
    }

    fn wake_group(&mut self, stream: StreamId, group: Arc<str>) {
        if let Some(stream) = self.model.streams.all.get(&stream) {
            let source = Source::Stream(stream.name.clone());
            self.round.lanes.push((source, group));
        }
    }

    fn look_again(&mut self, name: &str) {
        let lanes = self.parking.lanes_of(&Source::Stream(name.into()));
        self.round.lanes.extend(lanes);
    }

    /// Where what is held of streams is not what the store says.
    pub(super) fn wrong_windows(&self) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for stream in self.model.streams.all.values() {
            for (group, held) in &stream.groups {
                for row in self.db.stream_windows(stream.row.id, group)? {
                    let known = held.key(&row.key).map(|key| key.row(&row.key));
                    // A lease that has ended may still be written.
                    let live = row
                        .lease
                        .filter(|(_, expires, _)| *expires > self.round.now);
                    let told =
                        known.map(|known| (known.next, known.closed, known.acked, known.lease));
                    if told != Some((row.next, row.closed, row.acked, live)) {
                        wrong.push(format!(
                            "stream {:?} {group:?} {:?}: {told:?}",
                            stream.name, row.key
                        ));
                    }
                }
            }
        }
        Ok(wrong)
    }
}

/// The answer of a poll, built by hand so that payloads are copied and never parsed.
pub(super) fn window(db: &Db, claim: &WindowClaim) -> Result<Bytes> {
    let mut payloads = String::new();
    let mut messages = Vec::new();
    for (part, first, next) in &claim.parts {
        let from = db.position_at(*part, *first, *next, claim.start)?;
        db.each_before(*part, from, claim.end, |created, record| {
            let at = payloads.len();
            payloads.push_str(record.payload);
            messages.push((created, record.id, at..payloads.len()));
        })?;
    }
    if claim.parts.len() > 1 {
        messages.sort_by_key(|(created, id, _)| (*created, *id));
    }
    let (start, end) = (clock::iso(claim.start), clock::iso(claim.end));
    let id = format!("{}:{}:{start}:{end}", claim.stream, claim.key);
    let mut out = String::with_capacity(payloads.len() + 120 * messages.len() + 400);
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        r#"{{"window":{{"id":{},"leaseId":"{}","key":{},"start":"{start}","end":"{end}","messages":["#,
        quote(&id),
        claim.lease,
        quote(&claim.key),
    );
    let mut time = (i64::MIN, String::new());
    for (n, (created, id, payload)) in messages.into_iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        if time.0 != created {
            time = (created, clock::iso(created));
        }
        let _ = write!(out, r#"{{"id":"{id}","data":"#);
        out.push_str(payloads.get(payload).unwrap_or("null"));
        let _ = write!(out, r#","created_at":"{}"}}"#, time.1);
    }
    out.push_str("]}}");
    Ok(out.into())
}
