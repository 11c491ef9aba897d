//! Messages whose verdicts a transaction has taken over: nobody else may settle them until it has ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::claim::Claim;
use super::slots::{End, State, Verdict, already_committed, already_settled};
use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::protocol::ack::{Ack, Status};

/// How far the transaction has come with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// It has taken over the verdict.
    Taken,
    /// Its commit has begun.
    Committing,
}

/// The messages of one claim that one transaction has taken over. Dropped, it lets go of them: they are unsettled again,
/// or lost where the broker may have applied the transaction.
pub(crate) struct Taken {
    claim: Arc<Claim>,
    verdicts: BTreeMap<usize, (Status, Option<String>)>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not at the broker.
    Held,
    /// As before, and the claim sends nothing else.
    Turn,
    /// At the broker, without an answer.
    Sent,
    Over,
}

impl Taken {
    pub(crate) fn new(claim: Arc<Claim>) -> Taken {
        Taken {
            claim,
            verdicts: BTreeMap::new(),
            stage: Stage::Held,
        }
    }

    /// The affinity key under which the broker of its pop is found.
    pub(crate) fn near(&self) -> &str {
        &self.claim.near
    }

    pub(crate) fn is_of(&self, claim: &Arc<Claim>) -> bool {
        Arc::ptr_eq(&self.claim, claim)
    }

    /// Takes over one verdict, and tells how the broker is told of it.
    pub(crate) fn take(&mut self, verdict: Verdict) -> Result<Ack> {
        let index = verdict.index;
        if self.claim.is_committed() {
            return Err(already_committed());
        }
        self.claim.with_state(|state| {
            if let Some(end) = state.end {
                return Err(over(end));
            }
            let slot = &mut state.slots[index];
            if slot.verdict.is_some() || slot.hold.is_some() {
                return Err(already_settled());
            }
            slot.hold = Some(Hold::Taken);
            Ok(())
        })?;
        let message = &self.claim.messages[index];
        let ack = Ack {
            transaction_id: message.transaction_id.clone(),
            partition_id: message.source.partition_id.clone(),
            lease_id: Some(message.source.lease_id.clone()),
            status: verdict.status,
            error: verdict.reason.clone(),
        };
        self.verdicts
            .insert(index, (verdict.status, verdict.reason));
        Ok(ack)
    }

    /// The first and the last message, with the first whose verdict ends the lease.
    fn span(&self) -> Option<(usize, usize, Option<usize>)> {
        let first = *self.verdicts.first_key_value()?.0;
        let last = *self.verdicts.last_key_value()?.0;
        let negative = |(_, (status, _)): &(&usize, &(Status, _))| status.is_negative();
        let end = self.verdicts.iter().find(negative).map(|(index, _)| *index);
        Some((first, last, end))
    }

    /// The commit begins. [`ErrorCode::Order`] where it would pass a message that is unsettled.
    pub(crate) fn enter(&mut self) -> Result<()> {
        let Some((first, last, end)) = self.span() else {
            return Ok(());
        };
        if let Some(end) = end {
            let behind = self.verdicts.range(end + 1..);
            let kept = |(_, (status, _)): &(&usize, &(Status, _))| {
                matches!(status, Status::Completed | Status::Dlq)
            };
            if let Some((index, _)) = behind.into_iter().find(kept) {
                return Err(Error::new(
                    ErrorCode::Order,
                    format!(
                        "message {index} lies behind message {end}, which the transaction gives up, so it comes again; \
                         nothing was sent"
                    ),
                ));
            }
        }
        self.claim.with_state(|state| {
            if let Some(end) = state.end {
                return Err(over(end));
            }
            let gap = (first..last).find(|index| !self.verdicts.contains_key(index));
            match gap.or_else(|| state.unsettled_before(first)) {
                Some(index) => Err(passes(index, last)),
                None => {
                    for index in self.verdicts.keys() {
                        state.slots[*index].hold = Some(Hold::Committing);
                    }
                    Ok(())
                }
            }
        })
    }

    /// Waits until every earlier message is answered for and nothing else of the claim is on its way.
    pub(crate) async fn turn(&mut self) -> Result<()> {
        let Some((first, last, _)) = self.span() else {
            return Ok(());
        };
        loop {
            let changed = self.claim.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let turn = self.claim.look(|state| match state.end {
                Some(end) => Err(over(end)),
                None if state.next == first && !state.sending => {
                    state.sending = true;
                    Ok(true)
                }
                // Another transaction may have let go of an earlier message.
                None => match state.unsettled_before(first) {
                    Some(index) => Err(passes(index, last)),
                    None => Ok(false),
                },
            })?;
            if turn {
                self.stage = Stage::Turn;
                return Ok(());
            }
            changed.await;
        }
    }

    /// The request leaves: without an answer the messages are lost from now on.
    pub(crate) fn sent(&mut self) {
        self.stage = Stage::Sent;
    }

    /// The broker has committed: the verdicts count.
    pub(crate) fn committed(mut self) {
        self.stage = Stage::Over;
        let Some((_, last, negative)) = self.span() else {
            return;
        };
        let verdicts = std::mem::take(&mut self.verdicts);
        self.claim.with_state(|state| {
            if state.end.is_some() {
                return;
            }
            for (index, verdict) in verdicts {
                state.slots[index].hold = None;
                state.slots[index].verdict = Some(verdict);
            }
            state.sending = false;
            state.next = negative.unwrap_or(last) + 1;
            if negative.is_some() {
                self.claim.finish(state, End::Nacked);
            } else if state.next == state.slots.len() {
                self.claim.finish(state, End::Settled);
            } else {
                let all = 0..state.slots.len();
                self.claim.go_on(state, &all);
            }
        });
    }

    /// The broker has applied nothing: the messages are unsettled again.
    pub(crate) fn released(mut self) {
        self.release();
    }

    fn release(&mut self) {
        let had_turn = self.stage == Stage::Turn || self.stage == Stage::Sent;
        self.stage = Stage::Over;
        let verdicts = std::mem::take(&mut self.verdicts);
        self.claim.with_state(|state| {
            for index in verdicts.keys() {
                state.slots[*index].hold = None;
            }
            state.sending &= !had_turn;
            let all = 0..state.slots.len();
            self.claim.go_on(state, &all);
        });
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        match self.stage {
            Stage::Over => {}
            Stage::Sent => {
                self.stage = Stage::Over;
                self.claim.lose();
                // Late verdicts are told that it is lost, not that it is settled.
                self.claim.with_state(|state| {
                    for index in self.verdicts.keys() {
                        state.slots[*index].hold = None;
                    }
                });
            }
            Stage::Held | Stage::Turn => self.release(),
        }
    }
}

impl State {
    /// The first message before `index` whose verdict nobody has given and no commit will bring.
    fn unsettled_before(&self, index: usize) -> Option<usize> {
        (self.next..index).find(|index| {
            let slot = &self.slots[*index];
            slot.verdict.is_none() && slot.hold != Some(Hold::Committing)
        })
    }
}

fn over(end: End) -> Error {
    end.refusal().with_outcome(Outcome::NotApplied)
}

fn passes(index: usize, last: usize) -> Error {
    Error::new(
        ErrorCode::Order,
        format!(
            "the commit of message {last} would pass message {index} of the partition, which is unsettled; nothing was \
             sent, settle that one first or within the transaction"
        ),
    )
}
