//! One call that settles messages: it completes when each of its verdicts has an answer.

use std::sync::{Arc, Mutex};

use super::hub::Hub;
use crate::error::{Error, ErrorCode, Outcome};
use crate::pending::{Pending, WaitsFor};
use crate::protocol::ack::{self, AckResult};
use crate::runtime::lock;

pub(crate) struct SettleCall {
    hub: Arc<Hub>,
    pending: Pending<Vec<AckResult>>,
    state: Mutex<State>,
}

/// Who is told the answer to a verdict.
pub(super) enum Waiter {
    /// A call, and the place in its results.
    Call(Arc<SettleCall>, usize),
    /// Nobody: only that it does not count is worth a line in the log.
    Log,
}

impl Waiter {
    pub(super) fn is_of(&self, call: &Arc<SettleCall>) -> bool {
        matches!(self, Waiter::Call(own, _) if Arc::ptr_eq(own, call))
    }
}

struct State {
    results: Vec<AckResult>,
    errors: Vec<Error>,
    open: usize,
}

impl SettleCall {
    /// A call for messages of these transaction ids. The client's close waits for it.
    pub(crate) fn new(hub: &Arc<Hub>, transaction_ids: Vec<String>) -> Arc<SettleCall> {
        let open = transaction_ids.len();
        let results = transaction_ids
            .into_iter()
            .map(AckResult::unanswered)
            .collect();
        let pending = hub.core.register(Pending::new(WaitsFor::Broker));
        Arc::new(SettleCall {
            hub: hub.clone(),
            pending,
            state: Mutex::new(State {
                results,
                errors: Vec::new(),
                open,
            }),
        })
    }

    pub(crate) fn pending(&self) -> Pending<Vec<AckResult>> {
        self.pending.clone()
    }

    /// The broker has answered for one message.
    pub(crate) fn note(&self, place: usize, result: AckResult) {
        let mut state = lock(&self.state);
        if let Some(slot) = state.results.get_mut(place) {
            *slot = AckResult {
                index: place,
                ..result
            };
        }
        self.one_less(state);
    }

    /// One message has no answer and will get none.
    pub(crate) fn refuse(&self, place: usize, error: Error) {
        let mut state = lock(&self.state);
        if let Some(slot) = state.results.get_mut(place) {
            slot.error = Some(error.message().to_owned());
        }
        state.errors.push(error);
        self.one_less(state);
    }

    fn one_less(&self, mut state: std::sync::MutexGuard<'_, State>) {
        state.open = state.open.saturating_sub(1);
        if state.open > 0 {
            return;
        }
        let results = std::mem::take(&mut state.results);
        let errors = std::mem::take(&mut state.errors);
        drop(state);
        let error = overall(&results, &errors);
        self.pending.complete(match error {
            None => Ok(results),
            Some(error) => Err(error),
        });
        self.hub.core.unregister(&self.pending);
    }
}

/// The error of the whole call: the shared cause where there is one, else [`ErrorCode::Partial`].
fn overall(results: &[AckResult], errors: &[Error]) -> Option<Error> {
    let refused = results.iter().filter(|result| !result.success).count();
    match errors.first() {
        None => ack::partial(results),
        Some(first) => {
            let shared =
                errors.len() == refused && errors.iter().all(|error| error.code() == first.code());
            let json = ack::results_json(results);
            Some(match shared {
                true => first.clone().with_result(json),
                false => Error::new(
                    ErrorCode::Partial,
                    format!(
                        "{refused} of {} verdicts do not count; the first: {}",
                        results.len(),
                        first.message()
                    ),
                )
                .with_outcome(Outcome::Refused)
                .with_result(json),
            })
        }
    }
}
