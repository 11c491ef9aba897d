//! Direct pushes from the caller's side: how they start, and how they end.

use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::address::Address;
use super::{Producer, check_accepting};
use crate::error::{Error, ErrorCode, Result};
use crate::log::Level;
use crate::pending::{Keeper, Pending, Ticket};
use crate::protocol::push::{self, Push, PushResult};
use crate::runtime::lock;

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
        let permit = self
            .core
            .budget
            .take(push.messages(), push.bytes() + push::FRAME)?;
        let pending = Pending::kept(permit, push.transaction_ids.clone());
        self.change(|state, now| {
            check_accepting(&self.core, state)?;
            let ticket = state.push(place, push, &pending, deadline, now);
            // Nobody else has it yet, so it cannot have ended.
            pending.keep(self.clone(), ticket);
            Ok::<_, Error>(())
        })?;
        Ok(pending)
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
            let Some(at) = producer.change(super::state::State::look) else {
                return;
            };
            drop(producer);
            let _ = tokio::time::timeout_at(at, earlier).await;
        }
    }

    /// Ends every direct push that is left, when the client closes; how many those were.
    pub(crate) fn abort_rest(&self) -> usize {
        let rest: Vec<_> = {
            let state = lock(&self.state);
            let calls = state.calls.iter();
            calls.filter_map(|(_, call)| call.pending.clone()).collect()
        };
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
