//! Which offset a transaction id leads to.
//!
//! Each partition has a table in memory, made from its segments when it is first needed. It knows the messages of the
//! time in which their ids may be asked for; what is older is known while it is leased. A row of the store for each
//! message would cost more than the message.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::ops::RangeBounds;

use uuid::Uuid;

use super::ack::Found;
use super::model::{Model, PartId};
use super::queue_options::QueueOptions;
use super::writer::Writer;
use crate::clock::SECOND;
use crate::store::{Db, Result};

/// Ids of acknowledged messages are known for this long at least, in microseconds.
const SHORTEST: i64 = 15 * 60 * SECOND;
/// A table of this size is not worth a look for what has become too old.
const SMALL: usize = 1024;

impl QueueOptions {
    /// How long the transaction ids of a message are known, in microseconds.
    pub(super) fn txns_known(&self) -> i64 {
        let completed = match self.retention_enabled {
            true => self.completed_retention_seconds,
            false => 0,
        };
        let seconds = self.dedup_window_seconds.max(completed);
        seconds.saturating_mul(SECOND).max(SHORTEST)
    }
}

/// The tables of all partitions.
#[derive(Default)]
pub(super) struct Txns {
    keys: RandomState,
    tables: HashMap<PartId, Table>,
    /// Older messages that were asked for: where the span ends, and its table.
    older: HashMap<PartId, (i64, Table)>,
    /// Partitions whose tables may know messages that were rolled back.
    doubtful: Vec<PartId>,
}

/// The offsets of transaction ids, by 64 bits of a keyed hash: two ids of one partition that share it are not to be
/// expected, and where much depends on it the message is looked at.
#[derive(Default)]
struct Table {
    /// It knows everything from this offset on.
    from: i64,
    newest: HashMap<u64, i64, BuildHasherDefault<Hashed>>,
    /// All offsets, rising, of those ids that came more than once.
    repeated: HashMap<u64, Vec<i64>, BuildHasherDefault<Hashed>>,
    /// When it has grown to this, a look for what has become too old is due.
    limit: usize,
}

/// Takes a key that is a hash already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Table {
    fn read(db: &Db, part: PartId, from: i64, to: i64, keys: &RandomState) -> Result<Table> {
        let mut table = Table {
            from,
            limit: SMALL,
            ..Table::default()
        };
        db.each(part, from, to, |offset, _, record| {
            table.add(keys.hash_one(record.txn), offset);
        })?;
        Ok(table)
    }

    /// Adds a message behind all that are known.
    fn add(&mut self, hash: u64, offset: i64) {
        if let Some(before) = self.newest.insert(hash, offset) {
            let all = self.repeated.entry(hash).or_insert_with(|| vec![before]);
            all.push(offset);
        }
    }

    /// The smallest offset within `low..=high`.
    fn first(&self, hash: u64, low: i64, high: i64) -> Option<i64> {
        let newest = *self.newest.get(&hash)?;
        let first = match self.repeated.get(&hash) {
            None => newest,
            Some(all) => *all.get(all.partition_point(|offset| *offset < low))?,
        };
        (low..=high).contains(&first).then_some(first)
    }

    /// Forgets all other offsets.
    fn keep(&mut self, span: impl RangeBounds<i64>) {
        let newest = &mut self.newest;
        self.repeated.retain(|hash, all| {
            all.retain(|offset| span.contains(offset));
            if let Some(last) = all.last() {
                newest.insert(*hash, *last);
            }
            all.len() > 1
        });
        newest.retain(|_, offset| span.contains(offset));
        let used = newest.len();
        if newest.capacity() / 4 > used {
            newest.shrink_to(2 * used);
        }
    }
}

impl Txns {
    pub(super) fn forget(&mut self, part: PartId) {
        self.tables.remove(&part);
        self.older.remove(&part);
    }

    /// The lease on older messages is over.
    pub(super) fn lease_ended(&mut self, part: PartId) {
        self.older.remove(&part);
    }

    /// Messages of these partitions may have been rolled back.
    pub(super) fn doubt(&mut self, parts: impl Iterator<Item = PartId>) {
        self.doubtful.extend(parts);
    }

    /// Forgets what was rolled back; `next` tells where the log of a partition ends, if it is there.
    pub(super) fn settle(&mut self, next: impl Fn(PartId) -> Option<i64>) {
        for part in std::mem::take(&mut self.doubtful) {
            match (next(part), self.tables.get_mut(&part)) {
                (Some(next), Some(table)) if table.from <= next => table.keep(..next),
                _ => self.forget(part),
            }
        }
    }
}

impl Writer {
    fn txns_of(&mut self, part: PartId) -> Result<&mut Table> {
        if !self.txns.tables.contains_key(&part) {
            // A table is made from what is written.
            self.flush(part)?;
        }
        match self.txns.tables.entry(part) {
            Entry::Occupied(found) => Ok(found.into_mut()),
            Entry::Vacant(place) => {
                let since = known_since(&self.model, part, self.round.now);
                let next = self.model.next(part);
                let from = self.db.oldest_since(part, since)?.unwrap_or(next);
                let table = Table::read(&self.db, part, from, i64::MAX, &self.txns.keys)?;
                Ok(place.insert(table))
            }
        }
    }

    /// Makes the table of a partition if there is none.
    pub(super) fn read_txns(&mut self, part: PartId) -> Result<()> {
        self.txns_of(part).map(drop)
    }

    /// Notes a message that is being appended.
    pub(super) fn add_txn(&mut self, part: PartId, txn: &str, offset: i64) -> Result<()> {
        let hash = self.txns.keys.hash_one(txn);
        let table = self.txns_of(part)?;
        table.add(hash, offset);
        if table.newest.len() >= table.limit {
            self.forget_old_txns(part)?;
        }
        Ok(())
    }

    fn forget_old_txns(&mut self, part: PartId) -> Result<()> {
        let since = known_since(&self.model, part, self.round.now);
        let open = self.round.segments.get(&part);
        let end = open.map_or_else(|| self.model.next(part), |open| open.first());
        let Some(table) = self.txns.tables.get_mut(&part) else {
            return Ok(());
        };
        let from = self.db.first_from(part, table.from, since)?.unwrap_or(end);
        if from > table.from {
            table.keep(from..);
            table.from = from;
        }
        table.limit = SMALL.max(2 * table.newest.len());
        Ok(())
    }

    /// The offset of the newest message with a transaction id, as far as it is known.
    pub(super) fn newest(&mut self, part: Uuid, txn: &str) -> Result<Option<i64>> {
        let Some(part) = self.model.part_ids.get(&part).copied() else {
            return Ok(None);
        };
        let hash = self.txns.keys.hash_one(txn);
        Ok(self.txns_of(part)?.newest.get(&hash).copied())
    }

    /// The message that holds a transaction id within the window, which is in seconds.
    pub(super) fn known(&mut self, part: PartId, txn: &str, window: i64) -> Result<Option<Uuid>> {
        let hash = self.txns.keys.hash_one(txn);
        if let Some(offset) = self.txns_of(part)?.newest.get(&hash).copied() {
            if self.is_open(part, offset) {
                self.flush(part)?;
            }
            if let Some((id, created)) = self.db.message_with(part, offset, txn)? {
                let since = self.round.now.saturating_sub(window.saturating_mul(SECOND));
                return Ok((created >= since).then_some(id));
            }
        }
        self.evicted(part, txn)
    }

    /// The removed message that still holds a transaction id.
    fn evicted(&self, part: PartId, txn: &str) -> Result<Option<Uuid>> {
        match self.model.parts.get(&part) {
            Some(found) if found.first > 0 => self.db.evicted(part, txn, self.round.now),
            // Nothing was ever removed.
            _ => Ok(None),
        }
    }

    /// Where the message with a transaction id stands between what is finished and what may be acknowledged.
    pub(super) fn locate(
        &mut self,
        part: PartId,
        txn: &str,
        committed: i64,
        high: i64,
    ) -> Result<Found> {
        let hash = self.txns.keys.hash_one(txn);
        let low = committed + 1;
        let from = self.txns_of(part)?.from;
        if low < from && low <= high {
            let found = self
                .older_txns(part, low, high.min(from - 1))?
                .first(hash, low, high);
            if let Some(offset) = found {
                return Ok(Found::Open(offset));
            }
        }
        let table = self.txns_of(part)?;
        if let Some(offset) = table.first(hash, low, high) {
            return Ok(Found::Open(offset));
        }
        let mut below = table.first(hash, 0, committed).is_some();
        if let Some((_, older)) = self.txns.older.get(&part) {
            below |= older.first(hash, 0, committed).is_some();
        }
        let below = below || self.evicted(part, txn)?.is_some();
        Ok(if below { Found::Below } else { Found::Nowhere })
    }

    /// The partitions whose tables do not say what a look at their messages says.
    pub(super) fn wrong_txns(&self) -> Result<Vec<PartId>> {
        let mut wrong = Vec::new();
        for (part, table) in &self.txns.tables {
            let first = self.model.parts.get(part).map_or(0, |found| found.first);
            let from = table.from.max(first);
            let fresh = Table::read(&self.db, *part, from, i64::MAX, &self.txns.keys)?;
            let all = |table: &Table, hash: &u64| {
                let newest = table.newest.get(hash).copied();
                let repeated = table.repeated.get(hash).cloned();
                let mut all = repeated.unwrap_or_else(|| newest.into_iter().collect());
                // Retention leaves what it removed to the next look for what is too old.
                all.retain(|offset| *offset >= from);
                all
            };
            let hashes = table.newest.keys().chain(fresh.newest.keys());
            if hashes
                .into_iter()
                .any(|hash| all(table, hash) != all(&fresh, hash))
            {
                wrong.push(*part);
            }
        }
        Ok(wrong)
    }

    /// The table of a span that is older than what the partition's own table knows. It is kept for the acks to come.
    fn older_txns(&mut self, part: PartId, low: i64, high: i64) -> Result<&Table> {
        let known = self.txns.older.get(&part);
        let covers = known.is_some_and(|(end, table)| table.from <= low && *end >= high);
        let (_, table) = match self.txns.older.entry(part) {
            Entry::Occupied(found) if covers => found.into_mut(),
            place => {
                let table = Table::read(&self.db, part, low, high, &self.txns.keys)?;
                place.insert_entry((high, table)).into_mut()
            }
        };
        Ok(table)
    }
}

/// The time from which on the transaction ids of a partition are known.
fn known_since(model: &Model, part: PartId, now: i64) -> i64 {
    let queue = model
        .parts
        .get(&part)
        .and_then(|part| model.queues.get(&part.queue));
    now.saturating_sub(queue.map_or(SHORTEST, |queue| queue.options.txns_known()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(ids: &[u64]) -> Table {
        let mut table = Table::default();
        for (offset, id) in ids.iter().enumerate() {
            table.add(*id, offset as i64);
        }
        table
    }

    #[test]
    fn an_id_leads_to_its_first_offset_within_a_span() {
        let table = table(&[7, 8, 7, 9, 7]);
        assert_eq!(table.newest[&7], 4);
        assert_eq!(table.first(7, 0, 9), Some(0));
        assert_eq!(table.first(7, 1, 9), Some(2));
        assert_eq!(table.first(7, 3, 3), None);
        assert_eq!(table.first(7, 5, 9), None);
        assert_eq!(table.first(8, 1, 1), Some(1));
        assert_eq!(table.first(8, 2, 9), None);
        assert_eq!(table.first(6, 0, 9), None);
    }

    #[test]
    fn what_is_cut_off_at_either_end_is_forgotten() {
        let mut end = table(&[7, 8, 7, 9, 7]);
        end.keep(..3);
        assert_eq!(
            (end.newest[&7], end.newest[&8], end.newest.len()),
            (2, 1, 2)
        );
        assert_eq!(end.first(7, 0, 9), Some(0));
        end.add(7, 3);
        assert_eq!(end.first(7, 3, 3), Some(3));

        let mut start = table(&[7, 8, 7, 9, 7]);
        start.keep(4..);
        assert_eq!((start.newest[&7], start.newest.len()), (4, 1));
        assert_eq!((start.first(7, 0, 9), start.repeated.len()), (Some(4), 0));
    }
}
