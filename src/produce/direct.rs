//! Direct pushes from the caller's side: how they start, and how they end.

use std::sync::{Arc, MutexGuard, Weak};

use tokio::time::Instant;

use super::Producer;
use super::address::Address;
use super::desk::{Arrival, Kept};
use super::sender::Lane;
use super::state::State;
use crate::core::Phase;
use crate::error::{ErrorCode, Result};
use crate::log::Level;
use crate::pending::{Keeper, Pending, Ticket};
use crate::protocol::push::{self, Push, PushResult};

impl Producer {
    /// Pushes to one partition, together with other calls or alone, as soon as a lane is free.
    pub(super) fn push_now(
        self: &Arc<Producer>,
        place: (&str, &str),
        push: Push,
        deadline: Instant,
    ) -> Pending<Vec<PushResult>> {
        match self.try_push_now(place, push, deadline) {
            Ok(pending) => pending,
            Err(error) => Pending::finished(Err(error)),
        }
    }

    fn try_push_now(
        self: &Arc<Producer>,
        place: (&str, &str),
        push: Push,
        deadline: Instant,
    ) -> Result<Pending<Vec<PushResult>>> {
        self.runtime()?;
        self.core.check_accepting()?;
        let permit = self
            .core
            .budget
            .take(push.messages(), push.bytes() + push::FRAME)?;
        let pending = Pending::kept(permit, push.transaction_ids.clone());
        let now = Instant::now();
        match self.desk.try_open() {
            Some(mut kept) => {
                self.take_in(&mut kept, now);
                self.take_place(&mut kept.state, place, push, &pending, deadline, now);
                self.send_off(kept, now);
            }
            None => {
                self.desk.lay_down(Arrival {
                    address: Address::new(place.0, place.1),
                    push,
                    pending: pending.clone(),
                    deadline,
                });
                if let Some(mut kept) = self.desk.again() {
                    self.take_in(&mut kept, now);
                    self.send_off(kept, now);
                }
            }
        }
        Ok(pending)
    }

    fn send_off(self: &Arc<Producer>, kept: MutexGuard<'_, Kept>, now: Instant) {
        if let Some(request) = self.leave(kept, now) {
            self.core.detach(Lane::new(self, request).run());
        }
    }

    /// Those that were laid down take their places, in the order in which they came.
    pub(super) fn take_in(self: &Arc<Producer>, kept: &mut Kept, now: Instant) {
        while let Some(arrival) = self.desk.take(kept) {
            let Arrival {
                address,
                push,
                pending,
                deadline,
            } = arrival;
            let place = (&*address.queue, &*address.partition);
            self.take_place(&mut kept.state, place, push, &pending, deadline, now);
        }
    }

    fn take_place(
        self: &Arc<Producer>,
        state: &mut State,
        place: (&str, &str),
        push: Push,
        pending: &Pending<Vec<PushResult>>,
        deadline: Instant,
        now: Instant,
    ) {
        if state.is_closed() || self.core.phase() == Phase::Closed {
            state.after.refused.push(pending.clone());
            return;
        }
        let ticket = state.push(place, push, pending, deadline, now);
        if !pending.keep(self.clone(), ticket) {
            // Its caller has it already, and has cancelled it.
            state.settled(ticket, now);
        }
    }

    /// Ends direct pushes at their deadline, and the pauses of lines after failures, while there are any.
    pub(super) async fn keep_time(producer: Weak<Producer>) {
        loop {
            let Some(producer) = producer.upgrade() else {
                return;
            };
            let time = producer.time.clone();
            let earlier = time.notified();
            tokio::pin!(earlier);
            earlier.as_mut().enable();
            let Some(at) = producer.change(State::look) else {
                return;
            };
            drop(producer);
            let _ = tokio::time::timeout_at(at, earlier).await;
        }
    }

    /// Ends every direct push that is left, when the client closes; how many those were.
    pub(crate) fn abort_rest(self: &Arc<Self>) -> usize {
        let rest: Vec<_> = self.change(|state, _| {
            let calls = state.calls.iter();
            calls.filter_map(|(_, call)| call.pending.clone()).collect()
        });
        let ended = rest
            .iter()
            .filter(|pending| pending.abort(ErrorCode::Closed, "the client was closed first"));
        ended.count()
    }

    /// Nobody may be looking at the future.
    pub(super) fn log_end(&self, address: &Address, result: &Result<Vec<PushResult>>) {
        let logger = &self.core.logger;
        let level = match result {
            Ok(_) => Level::Debug,
            Err(_) => Level::Warn,
        };
        if !logger.wants(level) {
            return;
        }
        let (message, outcome) = match result {
            Ok(results) => ("messages were pushed", ("messages", results.len().into())),
            Err(error) => (
                "a push did not go well",
                ("error", error.to_string().into()),
            ),
        };
        logger.log(level, "producer.push", message, &address.fields(&[outcome]));
    }
}

/// A direct push has ended by itself.
impl Keeper for Producer {
    fn ended(self: Arc<Self>, ticket: Ticket) {
        let call = self.change(|state, now| {
            let call = state.calls.get(ticket);
            let call = call.and_then(|call| Some((call.address.clone(), call.pending.clone()?)));
            state.settled(ticket, now);
            call
        });
        self.changed.notify_waiters();
        if let Some((address, pending)) = call
            && let Some(result) = pending.result()
        {
            self.log_end(&address, result);
        }
    }
}
