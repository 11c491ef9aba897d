//! Acknowledgement: moving a group's cursor, with retries and dead letters.

use std::collections::HashMap;

use uuid::Uuid;

use super::command::{AckItem, AckRequest, Acked, Verdict};
use super::history::Counts;
use super::model::{GroupId, PartId};
use super::writer::Writer;
use crate::store::{DeadLetterRow, Result};

const EXPIRED: &str = "invalid or expired lease";
const NO_CONSUMER: &str = "consumer not found";
const UNKNOWN: &str = "unresolvable: transaction not in the ack window (hash purged or never pushed); \
                       if leased, the message redelivers";
const COMMITTED: &str = "already committed: the cursor moved past this message before this ack";

/// Where an acknowledged message stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// At this offset, open to acknowledgement.
    Open(i64),
    /// At or below the committed offset.
    Below,
    Nowhere,
}

impl Writer {
    pub(super) fn ack(&mut self, request: &AckRequest) -> Result<Vec<Acked>> {
        let mut answers = vec![Acked::default(); request.items.len()];
        // One decision per partition and lease; the order among them is that of their first item.
        let mut order: Vec<(&str, &str)> = Vec::new();
        let mut groups: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
        for (index, item) in request.items.iter().enumerate() {
            let key = (&*item.part, &*item.lease);
            groups.entry(key).or_insert_with(|| {
                order.push(key);
                Vec::new()
            });
            if let Some(group) = groups.get_mut(&key) {
                group.push(index);
            }
        }
        for key in order {
            let Some(indexes) = groups.remove(&key) else {
                continue;
            };
            let items: Vec<&AckItem> = indexes
                .iter()
                .filter_map(|i| request.items.get(*i))
                .collect();
            let results = match self.find(&request.group, key.0, key.1) {
                Ok((group, part)) => self.ack_group(group, part, !key.1.is_empty(), &items)?,
                Err(error) => {
                    self.round.tally.of(None).ack_failed += items.len() as u64;
                    vec![
                        Acked {
                            error: Some(error),
                            ..Acked::default()
                        };
                        items.len()
                    ]
                }
            };
            for (index, result) in indexes.into_iter().zip(results) {
                if let Some(slot) = answers.get_mut(index) {
                    *slot = result;
                }
            }
        }
        Ok(answers)
    }

    /// The cursor that acknowledgements speak of, if their lease still holds it.
    pub(super) fn find(
        &mut self,
        group: &str,
        part: &str,
        lease: &str,
    ) -> std::result::Result<(GroupId, PartId), String> {
        if part.is_empty() {
            return Err("partitionId is required".into());
        }
        let id: Uuid = part
            .parse()
            .map_err(|_| format!("partitionId {part:?} is not a partition id"))?;
        let part = *self.model.part_ids.get(&id).ok_or(NO_CONSUMER)?;
        let queue = self
            .model
            .parts
            .get(&part)
            .and_then(|p| self.model.queues.get(&p.queue))
            .ok_or(NO_CONSUMER)?;
        let group = *queue.groups.get(group).ok_or(NO_CONSUMER)?;
        let cursor = self
            .model
            .groups
            .get_mut(&group)
            .and_then(|g| g.cursor(part))
            .ok_or(NO_CONSUMER)?;
        if lease.is_empty() {
            return Ok((group, part));
        }
        let held = cursor.lease.filter(|held| held.expires > self.round.now);
        match lease.parse::<Uuid>() {
            Ok(id) if held.is_some_and(|held| held.id == id) => Ok((group, part)),
            _ => Err(EXPIRED.into()),
        }
    }

    pub(super) fn ack_group(
        &mut self,
        group: GroupId,
        part: PartId,
        fenced: bool,
        items: &[&AckItem],
    ) -> Result<Vec<Acked>> {
        let Some(cursor) = self
            .model
            .groups
            .get_mut(&group)
            .and_then(|g| g.cursor(part))
        else {
            return Ok(Vec::new());
        };
        let (committed, lease, retries) = (cursor.committed, cursor.lease, cursor.retries);
        // Without a batch an ack reaches what was delivered once, and never beyond.
        let high = lease.map_or(cursor.delivered, |lease| lease.batch_end);
        let mut found = Vec::with_capacity(items.len());
        for item in items {
            found.push(self.locate(part, &item.txn, committed, high)?);
        }

        // The first negative message decides; completed ones count up to it.
        let negative = items
            .iter()
            .zip(&found)
            .filter_map(|(item, found)| match found {
                Found::Open(position) if item.verdict != Verdict::Completed => {
                    Some((*position, item.verdict))
                }
                _ => None,
            })
            .min();
        let limit = negative.map_or(i64::MAX, |(position, _)| position);
        let reached = items
            .iter()
            .zip(&found)
            .filter_map(|(item, found)| match found {
                Found::Open(position)
                    if item.verdict == Verdict::Completed && *position < limit =>
                {
                    Some(*position)
                }
                _ => None,
            })
            .max()
            .unwrap_or(committed);

        // Progress clears the count: it belongs to the message at the head.
        let retries = if reached > committed { 0 } else { retries };
        let mut after = (
            reached,
            retries,
            lease.is_some_and(|lease| reached < lease.batch_end),
        );
        let mut dead = None;
        if let (Some((position, verdict)), Some(_)) = (negative, lease) {
            let options = self.options_of(part);
            after = match verdict {
                Verdict::Failed if retries < options.0 => (reached, retries + 1, false),
                Verdict::Failed | Verdict::Dlq => {
                    if verdict == Verdict::Dlq || options.1 {
                        self.bury(group, part, position, retries, items, &found)?;
                        dead = Some(position);
                    }
                    (reached.max(position), 0, false)
                }
                Verdict::Retry | Verdict::Completed => (reached, retries, false),
            };
        }
        self.apply_ack(group, part, after);

        let stays = fenced && after.2;
        let answers: Vec<Acked> = items
            .iter()
            .zip(found)
            .map(|(item, found)| judge(item, found, stays, dead))
            .collect();
        let success = answers.iter().filter(|answer| answer.success).count();
        let counts = self.counts_of(part);
        counts.ack_requests += 1;
        counts.ack_success += success as u64;
        counts.ack_failed += (answers.len() - success) as u64;
        Ok(answers)
    }

    /// Retry limit, and whether running out of retries leaves a record.
    fn options_of(&self, part: PartId) -> (i64, bool) {
        let queue = self
            .model
            .parts
            .get(&part)
            .and_then(|p| self.model.queues.get(&p.queue));
        queue.map_or((0, true), |q| {
            (q.options.retry_limit, q.options.dead_letters())
        })
    }

    fn apply_ack(
        &mut self,
        group: GroupId,
        part: PartId,
        (committed, retries, keep): (i64, i64, bool),
    ) {
        let Some(cursor) = self
            .model
            .groups
            .get_mut(&group)
            .and_then(|g| g.cursor(part))
        else {
            return;
        };
        let finished = (committed - cursor.committed).max(0);
        cursor.finish(committed);
        cursor.retries = retries;
        if let Some(lease) = cursor.lease.filter(|_| !keep) {
            cursor.lease = None;
            self.model.forget_lease(lease.id, group, part);
            self.txns.lease_ended(part);
            self.wake_part(part);
        }
        self.changed(group, part);
        self.counts_of(part).processed += finished as u64;
    }

    /// What is counted for the queue of a partition.
    pub(super) fn counts_of(&mut self, part: PartId) -> &mut Counts {
        let queue = self.model.parts.get(&part).map(|part| part.queue);
        self.round.tally.of(queue)
    }

    /// Writes the dead-letter record of the message at a position.
    fn bury(
        &mut self,
        group: GroupId,
        part: PartId,
        position: i64,
        retries: i64,
        items: &[&AckItem],
        found: &[Found],
    ) -> Result<()> {
        let Some(message) = self.db.message(part, position)? else {
            return Ok(());
        };
        let negatives = || {
            items
                .iter()
                .zip(found)
                .filter(|(item, _)| item.verdict != Verdict::Completed)
        };
        let own = negatives()
            .find(|(_, found)| **found == Found::Open(position))
            .map(|(item, _)| item);
        let error = own
            .and_then(|item| item.error.as_deref())
            .or_else(|| negatives().find_map(|(item, _)| item.error.as_deref()))
            .unwrap_or("Retries exhausted");
        let name = self
            .model
            .groups
            .get(&group)
            .map(|g| g.name.clone())
            .unwrap_or_default();
        if let Some(part) = self.model.parts.get_mut(&part) {
            part.dead += 1;
        }
        self.counts_of(part).dead_letters += 1;
        self.db.insert_dead_letter(&DeadLetterRow {
            part,
            group: &name,
            position,
            message: message.id,
            txn: own.map_or("", |item| item.txn.as_str()),
            payload: &message.payload,
            error,
            retries,
            failed: self.round.now,
        })
    }
}

/// The answer for one item. `stays`: the lease named by the item lives on. `dead`: the message that was dead-lettered.
fn judge(item: &AckItem, found: Found, stays: bool, dead: Option<i64>) -> Acked {
    let done = Acked {
        success: true,
        lease_released: true,
        ..Acked::default()
    };
    match found {
        Found::Open(position) => {
            let dlq = item.verdict != Verdict::Completed && dead == Some(position);
            Acked {
                lease_released: !stays,
                dlq,
                ..done
            }
        }
        Found::Below if item.verdict == Verdict::Completed => Acked { noop: true, ..done },
        Found::Below => Acked {
            success: false,
            error: Some(COMMITTED.into()),
            ..done
        },
        Found::Nowhere => Acked {
            error: Some(UNKNOWN.into()),
            ..Acked::default()
        },
    }
}
