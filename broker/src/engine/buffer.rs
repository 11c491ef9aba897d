//! Push maintenance: pushes are kept beside the log, and reach it in their order when the maintenance ends.

use std::collections::HashMap;

use bytes::Bytes;
use uuid::Uuid;

use super::command::{Maintenance, PushGroup, PushItem, PushRequest, Pushed};
use super::writer::Writer;
use crate::clock::SECOND;
use crate::store::{BufferedRow, Db, Result};

/// What one transaction moves to the log at least.
const MESSAGES: usize = 1000;
const BYTES: usize = 4 << 20;

/// The messages beside the log.
pub(super) struct Buffer {
    on: bool,
    rows: i64,
    last_request: i64,
    /// When to move the next ones; nothing while there are none, or they must stay.
    pub(super) due: Option<i64>,
}

impl Buffer {
    /// Finds what an earlier run left behind; it moves at once.
    pub(super) fn load(db: &Db, now: i64) -> Result<Buffer> {
        let (rows, last_request) = db.buffered()?;
        Ok(Buffer {
            on: false,
            rows,
            last_request,
            due: (rows > 0).then_some(now),
        })
    }

    /// Puts the work off after a failure and counts anew.
    pub(super) fn reload(&mut self, db: &Db, now: i64) -> Result<()> {
        let (rows, last_request) = db.buffered()?;
        self.rows = rows;
        self.last_request = self.last_request.max(last_request);
        self.due = (rows > 0 && !self.on).then(|| now.saturating_add(SECOND));
        Ok(())
    }

    /// Whether pushes go here: also when the maintenance is over, until nothing is left that came before them.
    pub(super) fn takes_pushes(&self) -> bool {
        self.on || self.rows > 0
    }
}

/// What the transaction at hand has buffered.
#[derive(Default)]
pub(super) struct Fresh {
    messages: usize,
    bytes: usize,
}

impl Writer {
    /// Switches the maintenance if told so, and says how it stands.
    pub(super) fn maintain(&mut self, switch: Option<bool>) -> Maintenance {
        if let Some(on) = switch {
            self.buffer.on = on;
            self.buffer.due = (!on && self.buffer.rows > 0).then_some(self.round.now);
        }
        Maintenance {
            on: self.buffer.on,
            buffered: self.buffer.rows,
        }
    }

    /// Keeps the items of a push, each under the id that it will have in the log.
    pub(super) fn buffer(&mut self, request: &PushRequest) -> Result<Vec<Pushed>> {
        let mut answers = vec![Pushed::Buffered(Uuid::nil()); request.count];
        self.buffer.last_request += 1;
        for group in &request.groups {
            for item in &group.items {
                let id = Uuid::now_v7();
                self.db.insert_buffered(&BufferedRow {
                    id: 0,
                    request: self.buffer.last_request,
                    queue: group.queue.clone(),
                    part: group.part.clone(),
                    txn: item.txn.clone(),
                    message: id,
                    producer: item.producer.as_deref().map(Into::into),
                    // The door lets only JSON in, and JSON is UTF-8.
                    payload: String::from_utf8_lossy(&item.payload).into_owned(),
                })?;
                self.buffer.rows += 1;
                self.round.fresh.messages += 1;
                self.round.fresh.bytes += item.payload.len();
                if let Some(slot) = answers.get_mut(item.index) {
                    *slot = Pushed::Buffered(id);
                }
            }
        }
        Ok(answers)
    }

    /// Moves the oldest messages to the log if it is time: more of them than have come in this transaction, so that
    /// there is an end to it.
    pub(super) fn drain(&mut self) -> Result<()> {
        if self.buffer.due.is_none_or(|due| due > self.round.now) {
            return Ok(());
        }
        let messages = MESSAGES.max(self.round.fresh.messages.saturating_mul(2));
        let bytes = BYTES.max(self.round.fresh.bytes.saturating_mul(2));
        let rows = self.db.oldest_buffered(messages, bytes)?;
        if let Some(last) = rows.last() {
            self.db.delete_buffered(last.id)?;
        }
        // Request by request: within one a transaction id counts once, even without a window for duplicates.
        for rows in rows.chunk_by(|a, b| a.request == b.request) {
            self.push(&as_pushed(rows))?;
        }
        self.buffer.rows -= rows.len() as i64;
        let more = self.buffer.rows > 0 && !rows.is_empty();
        self.buffer.due = more.then_some(self.round.now);
        Ok(())
    }
}

/// A request as it came.
fn as_pushed(rows: &[BufferedRow]) -> PushRequest {
    let mut request = PushRequest {
        groups: Vec::new(),
        count: rows.len(),
    };
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    for (index, row) in rows.iter().enumerate() {
        let place = *places.entry((&row.queue, &row.part)).or_insert_with(|| {
            request.groups.push(PushGroup {
                queue: row.queue.clone(),
                part: row.part.clone(),
                items: Vec::new(),
            });
            request.groups.len() - 1
        });
        if let Some(group) = request.groups.get_mut(place) {
            group.items.push(PushItem {
                index,
                accepted: Some(row.message),
                txn: row.txn.clone(),
                trace: None,
                producer: row.producer.as_deref().map(Into::into),
                payload: Bytes::copy_from_slice(row.payload.as_bytes()),
            });
        }
    }
    request
}
