//! Messages of one partition under one lease, and the order in which verdicts on them may leave.
//!
//! The broker commits a cursor: an ack finishes everything before it in its partition, and a negative verdict ends the
//! lease. So verdicts leave in the order of the messages, each only when every earlier message has one, and a negative
//! verdict travels with the acks before it and never with anything behind it.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::hub::Hub;
use super::lease::Lease;
use super::settle::{SettleCall, Waiter};
use super::slots::{End, Slot, State, Verdict, already_committed, closed, lost};
use crate::core::Core;
use crate::dispatch::Dispatcher;
use crate::error::Result;
use crate::log::Level;
use crate::pending::Pending;
use crate::protocol::ack::{Ack, AckResult, Status};
use crate::protocol::pop::{Message, Source};
use crate::runtime::lock;

pub(crate) struct Claim {
    hub: Arc<Hub>,
    pub(crate) messages: Vec<Message>,
    /// Without one the broker itself has acked at delivery: there is nothing to settle, and the claim only lasts while
    /// somebody has its messages in hand.
    lease: Option<Arc<Lease>>,
    /// The affinity key of the pop: verdicts go to the same broker, because others of a cluster hear late that a
    /// partition is free again.
    pub(super) near: Arc<str>,
    /// Whether the broker takes `retry` as "not charged"; where it does not, the lease is left to end.
    gives_back: bool,
    pub(super) state: Mutex<State>,
    /// Notified after each change of the state.
    pub(super) changed: Notify,
    pub(super) on_lost: OnLost,
}

/// Told once when the lease of a claim turns out to be lost, with whether that is certain.
pub(crate) type OnLost = Option<Arc<dyn Fn(&Source, bool) + Send + Sync>>;

impl Claim {
    pub(crate) fn new(
        hub: &Arc<Hub>,
        messages: Vec<Message>,
        lease: Option<Arc<Lease>>,
        near: Arc<str>,
        gives_back: bool,
        on_lost: OnLost,
    ) -> Arc<Claim> {
        let slots = messages.iter().map(|_| Slot::default()).collect();
        let claim = Arc::new(Claim {
            hub: hub.clone(),
            messages,
            lease,
            near,
            gives_back,
            state: Mutex::new(State {
                slots,
                next: 0,
                sending: false,
                left: false,
                negative: false,
                end: None,
                gone: false,
                told: None,
                answers: Vec::new(),
            }),
            changed: Notify::new(),
            on_lost,
        });
        if let Some(lease) = &claim.lease {
            lease.cover(&claim);
            hub.claims.insert(&claim);
        }
        claim
    }

    pub(crate) fn source(&self) -> &Arc<Source> {
        // A claim is made of at least one message.
        &self.messages[0].source
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.hub.core
    }

    pub(crate) fn dispatcher(&self) -> Dispatcher {
        Dispatcher::new(&self.hub.core.dispatcher)
    }

    /// Whether the broker has acked at delivery.
    pub(crate) fn is_committed(&self) -> bool {
        self.lease.is_none()
    }

    /// Whether the broker takes its messages back without a charge.
    pub(super) fn gives_back(&self) -> bool {
        self.gives_back
    }

    /// Notes that a handler, a poller or a caller has messages in hand. `false`: too late, they went back or the claim has
    /// ended.
    pub(crate) fn take(&self, range: &Range<usize>) -> bool {
        let mut state = lock(&self.state);
        let open = state.end.is_none();
        let slots = &mut state.slots[range.clone()];
        let in_time = open && slots.iter().any(|slot| !slot.is_taken());
        if in_time {
            slots.iter_mut().for_each(|slot| slot.in_hand = true);
        }
        in_time
    }

    /// Whether these messages were called back before anybody had them in hand.
    pub(super) fn went_back(&self, range: &Range<usize>) -> bool {
        let state = lock(&self.state);
        state.slots[range.clone()].iter().all(|slot| slot.recalled)
    }

    /// Whether verdicts on some of these messages can no longer count.
    pub(crate) fn is_lost(&self, range: &Range<usize>) -> bool {
        let state = lock(&self.state);
        match state.end {
            Some(End::Lost) => true,
            // The nack itself, and what lies behind it.
            Some(End::Nacked) => range.end >= state.next,
            Some(End::Settled | End::Closed) => false,
            None => state.gone,
        }
    }

    /// Whether nothing more of it should be handed over, because it would come again.
    pub(crate) fn is_broken_off(&self) -> bool {
        let state = lock(&self.state);
        state.end.is_some() || state.gone || state.left || state.negative
    }

    /// Completes when each of these messages has a verdict, answered or not, or the claim has ended.
    pub(crate) async fn settled(&self, range: &Range<usize>) {
        self.until(|state| {
            let mut slots = state.slots[range.clone()].iter();
            (state.end.is_some() || slots.all(|slot| slot.verdict.is_some())).then_some(())
        })
        .await
    }

    /// Completes with the way the claim ended.
    pub(crate) async fn ended(&self) -> End {
        self.until(|state| state.end).await
    }

    async fn until<R>(&self, look: impl Fn(&State) -> Option<R>) -> R {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let seen = look(&lock(&self.state));
            match seen {
                Some(seen) => return seen,
                None => changed.await,
            }
        }
    }

    /// How many of the first `handed` messages are acked and how many failed or dead-lettered, because the broker has said
    /// that it counts.
    pub(crate) fn tally(&self, handed: usize) -> (usize, usize) {
        let state = lock(&self.state);
        let count = |wanted: &[Status]| {
            let answered = state.slots.iter().take(state.next.min(handed));
            answered
                .filter(|slot| !slot.refused)
                .filter(|slot| {
                    slot.verdict
                        .as_ref()
                        .is_some_and(|(status, _)| wanted.contains(status))
                })
                .count()
        };
        (
            count(&[Status::Completed]),
            count(&[Status::Failed, Status::Dlq]),
        )
    }

    /// The place of a message by its transaction id.
    pub(crate) fn position(&self, transaction_id: &str) -> Option<usize> {
        self.messages
            .iter()
            .position(|message| message.transaction_id == transaction_id)
    }

    /// Gives verdicts on messages. Each counts once; the operation completes when the broker has answered all of them.
    pub(crate) fn settle(self: &Arc<Self>, verdicts: Vec<Verdict>) -> Pending<Vec<AckResult>> {
        if self.is_committed() {
            return Pending::finished(Err(already_committed()));
        }
        if let Err(error) = self.hub.core.check_open() {
            return Pending::finished(Err(error));
        }
        let call = SettleCall::new(
            &self.hub,
            verdicts
                .iter()
                .map(|verdict| self.id_of(verdict.index))
                .collect(),
        );
        let pending = call.pending();
        self.with_state(|state| {
            for (place, verdict) in verdicts.into_iter().enumerate() {
                let waiter = Waiter::Call(call.clone(), place);
                state.give(verdict, waiter);
            }
            self.advance(state);
        });
        pending
    }

    /// Acks those of these messages that have no verdict. Nobody waits for the answer. `wake`: whether those who wait for a
    /// change are told.
    pub(super) fn ack_rest(self: &Arc<Self>, range: &Range<usize>, wake: bool) {
        // What the broker has acked already needs no more.
        if self.is_committed() {
            return;
        }
        if let Err(error) = self.hub.core.check_open() {
            return self.warn_of(&error);
        }
        self.change(wake, |state| {
            for index in range.clone() {
                if !state.slots[index].is_taken() {
                    let (status, reason) = (Status::Completed, None);
                    let verdict = Verdict {
                        index,
                        status,
                        reason,
                    };
                    state.give(verdict, Waiter::Log);
                }
            }
            self.advance(state);
        });
    }

    /// Logs that a verdict for which nobody waits does not count.
    pub(super) fn warn_of(&self, error: &dyn std::fmt::Display) {
        self.hub.core.logger.log(
            Level::Warn,
            "consumer.settle",
            "a verdict does not count",
            &[("error", error.to_string().into())],
        );
    }

    /// Looks at the state on behalf of somebody who waits for a change, and would be woken by one of its own.
    pub(super) fn look<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut lock(&self.state))
    }

    /// Runs `change` under the lock, and hands out the answers it left after the lock is released.
    pub(super) fn with_state<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        self.change(true, change)
    }

    fn change<R>(&self, wake: bool, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = lock(&self.state);
        let result = change(&mut state);
        let answers = std::mem::take(&mut state.answers);
        drop(state);
        if wake {
            self.changed.notify_waiters();
        }
        for (waiter, answer) in answers {
            match (waiter, answer) {
                (Waiter::Call(call, place), Ok(answer)) => call.note(place, answer),
                (Waiter::Call(call, place), Err(error)) => call.refuse(place, error),
                (Waiter::Log, Err(error)) => self.warn_of(&error),
                (Waiter::Log, Ok(answer)) if !answer.success => {
                    self.warn_of(&answer.error.as_deref().unwrap_or("the broker refused it"));
                }
                (Waiter::Log, Ok(_)) => {}
            }
        }
        result
    }

    /// Those of these messages that have no verdict.
    pub(crate) fn unsettled(&self, range: &Range<usize>) -> Vec<usize> {
        let state = lock(&self.state);
        let open = |index: &usize| !state.slots[*index].is_taken();
        range.clone().filter(open).collect()
    }

    /// Gives the same verdict to all messages of a range that have none. `None` when each has one already.
    pub(crate) fn settle_rest(
        self: &Arc<Self>,
        range: &Range<usize>,
        status: Status,
        reason: Option<&str>,
    ) -> Option<Pending<Vec<AckResult>>> {
        let open = self.unsettled(range);
        // A negative verdict ends the lease at the first message; the ones behind it only come again.
        let verdict = |index: usize| Verdict {
            index,
            status,
            reason: reason.map(str::to_owned),
        };
        (!open.is_empty()).then(|| self.settle(open.into_iter().map(verdict).collect()))
    }

    /// Returns those of these messages that have no verdict to the broker, without charging a retry. Nobody waits for the
    /// answer.
    pub(crate) fn give_back(self: &Arc<Self>, range: &Range<usize>) {
        self.with_state(|state| self.return_some(state, range, |_| true));
    }

    /// As [`give_back`](Self::give_back), for what nobody has in hand. What the broker has acked is kept: it would be lost.
    pub(crate) fn give_back_untaken(self: &Arc<Self>) {
        if !self.is_committed() {
            let all = 0..self.messages.len();
            self.with_state(|state| {
                for slot in &mut state.slots {
                    slot.recalled |= state.end.is_none() && !slot.in_hand && !slot.is_taken();
                }
                self.return_some(state, &all, |slot| !slot.in_hand);
            });
        }
    }

    fn return_some(
        self: &Arc<Self>,
        state: &mut State,
        range: &Range<usize>,
        which: impl Fn(&Slot) -> bool,
    ) {
        if state.end.is_some() {
            return;
        }
        for slot in &mut state.slots[range.clone()] {
            slot.returned |= which(slot);
        }
        self.go_on(state, range);
    }

    /// Goes on after a change to these messages: gives back what nobody holds any more, and sends what may be sent.
    pub(super) fn go_on(self: &Arc<Self>, state: &mut State, range: &Range<usize>) {
        let back = |slot: &&mut Slot| slot.returned && !slot.is_taken();
        let changed = state.slots[range.clone()].iter_mut();
        let mut back = changed.filter(back).peekable();
        if back.peek().is_some() && !self.gives_back && !self.is_committed() {
            state.left = true;
            self.end_if_left(state);
        } else {
            state.negative |= back.peek().is_some();
            back.for_each(|slot| slot.verdict = Some((Status::Retry, None)));
        }
        self.advance(state);
    }

    /// Lets go of the claim: verdicts that were not answered complete with `Closed`, later ones too.
    pub(crate) fn abandon(&self) {
        self.with_state(|state| self.finish(state, End::Closed));
    }

    /// Sends what may be sent, unless a request of this claim is under way already.
    fn advance(self: &Arc<Self>, state: &mut State) {
        if self.is_committed() {
            if state.slots.iter().all(|slot| slot.verdict.is_some()) {
                self.finish(state, End::Settled);
            }
            return;
        }
        if state.end.is_some()
            || state.sending
            || state
                .slots
                .get(state.next)
                .is_none_or(|slot| slot.verdict.is_none())
        {
            return;
        }
        state.sending = true;
        self.hub.send_verdicts(self);
    }

    /// At most `most` of the verdicts that are ready to be sent; the answer is due in [`answered`](Self::answered). None:
    /// nothing is, and the claim has left its lane.
    pub(super) fn begin_sending(self: &Arc<Self>, most: usize) -> Vec<Ack> {
        self.with_state(|state| {
            let acks = match state.end {
                None => self.ready(state, most),
                Some(_) => Vec::new(),
            };
            state.sending = !acks.is_empty();
            self.end_if_left(state);
            acks
        })
    }

    /// The answer to verdicts that were sent.
    pub(super) fn answered(self: &Arc<Self>, acks: &[Ack], answer: Result<Vec<AckResult>>) {
        let lost = self.with_state(|state| {
            let lost = self.note(state, acks, answer);
            state.sending = false;
            self.advance(state);
            self.end_if_left(state);
            lost
        });
        if let Some(certain) = lost {
            self.tell_lost(certain);
        }
    }

    /// Ends a claim that is left to its lease, once the verdicts given before are answered and transactions have ended.
    fn end_if_left(&self, state: &mut State) {
        if !state.left || state.sending {
            return;
        }
        let held = state.slots.iter().any(|slot| slot.hold.is_some());
        if !held && self.ready(state, 1).is_empty() {
            self.finish(state, End::Lost);
        }
    }

    /// The verdicts from `next` on up to a gap or the first negative one, at most so many.
    fn ready(&self, state: &State, most: usize) -> Vec<Ack> {
        let mut acks = Vec::new();
        let open = state.slots.iter().zip(&self.messages).skip(state.next);
        for (slot, message) in open.take(most) {
            let Some((status, reason)) = &slot.verdict else {
                break;
            };
            acks.push(Ack {
                transaction_id: message.transaction_id.clone(),
                partition_id: message.source.partition_id.clone(),
                lease_id: Some(message.source.lease_id.clone()),
                status: *status,
                error: reason.clone(),
            });
            if status.is_negative() {
                break;
            }
        }
        acks
    }

    /// Takes in the answer for the verdicts from `next` on. Where it means that the lease is lost: whether that is certain,
    /// because the broker has said so.
    fn note(
        &self,
        state: &mut State,
        acks: &[Ack],
        answer: Result<Vec<AckResult>>,
    ) -> Option<bool> {
        if state.end.is_some() {
            return None;
        }
        let first = state.next;
        let last = first + acks.len() - 1;
        let results = match answer {
            Ok(results) => results,
            Err(error) => {
                // What the broker thinks now is unknown; the lease ends by itself and unfinished messages come again.
                (first..=last).for_each(|index| state.answer(index, Err(error.clone())));
                self.finish(state, End::Lost);
                return Some(false);
            }
        };
        let lease_lost = results.iter().any(AckResult::is_lease_lost);
        let negative = acks.last().is_some_and(|ack| ack.status.is_negative());
        let call = match &state.slots[last].waiter {
            Some(Waiter::Call(call, _)) => Some(call.clone()),
            _ => None,
        };
        for (index, result) in (first..).zip(results) {
            state.slots[index].refused = !result.success;
            state.answer(index, Ok(result));
        }
        state.next = last + 1;
        if lease_lost {
            self.finish(state, End::Lost);
        } else if negative {
            if let Some(call) = call {
                self.answer_behind(state, &call);
            }
            self.finish(state, End::Nacked);
        } else if state.next == state.slots.len() {
            self.finish(state, End::Settled);
        }
        lease_lost.then_some(true)
    }

    /// Messages behind a nack that the same call gives up too come again, as it asked.
    fn answer_behind(&self, state: &mut State, call: &Arc<SettleCall>) {
        for index in state.next..state.slots.len() {
            let slot = &state.slots[index];
            let same = slot.waiter.as_ref().is_some_and(|own| own.is_of(call));
            if same && matches!(slot.verdict, Some((Status::Failed | Status::Retry, _))) {
                state.answer(index, Ok(AckResult::comes_again(self.id_of(index))));
            }
        }
    }

    pub(super) fn finish(&self, state: &mut State, end: End) {
        if state.end.is_some() {
            return;
        }
        state.end = Some(end);
        let error = if end == End::Closed { closed() } else { lost() };
        (0..state.slots.len()).for_each(|index| state.answer(index, Err(error.clone())));
        if let Some(lease) = &self.lease {
            lease.release();
        }
        self.hub.claims.remove(self);
    }

    fn id_of(&self, index: usize) -> String {
        self.messages[index].transaction_id.clone()
    }
}
