//! A lane with a request in flight: sends it, gives each call its own result, and goes on with what has come meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::Producer;
use super::fuse::Fused;
use super::outcome::Failed;
use crate::error::{Error, ErrorCode, Result};
use crate::log::Level;
use crate::protocol::push::{self, PushResult};
use crate::transport::{self, Paced, Repeat, Request};

/// A request that takes longer does not keep others from being sent.
const OVERDUE: Duration = Duration::from_secs(1);

/// So many tasks have their turn between a request that is handed over and its first byte.
const STEPS: usize = 4;

/// A request on its way. Its calls end if the task does so without having done with them.
pub(super) struct Lane {
    producer: Arc<Producer>,
    request: Option<Fused>,
    overdue: bool,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.in_time();
        let Some(request) = self.request.take() else {
            return;
        };
        let error = Error::new(ErrorCode::Internal, "the task that sent it has ended");
        let error = error.with_outcome(crate::error::Outcome::Unknown);
        self.producer.request_failed(request, &error, false, 1);
    }
}

/// How long before the last deadline of its calls a request ends: its error tells more than that the time is up.
const EARLY: Duration = Duration::from_millis(25);

impl Lane {
    pub(super) fn new(producer: &Arc<Producer>, request: Fused) -> Lane {
        Lane {
            producer: producer.clone(),
            request: Some(request),
            overdue: false,
        }
    }

    /// Runs until there is nothing to send.
    pub(super) async fn run(mut self) {
        let producer = self.producer.clone();
        while let Some(request) = &self.request {
            let core = &producer.core;
            let now = Instant::now();
            let deadline = request.deadline().unwrap_or(now);
            let left = deadline.saturating_duration_since(now);
            let deadline = deadline - EARLY.min(left / 10);
            let half = left / 2;
            let limit = core.config.request_timeout_millis;
            let paced = Paced {
                limit: limit.map_or(half, Duration::from_millis),
                ..Paced::default()
            };
            let attempts = paced.attempts.clone();
            // The items have their ids, so that the broker takes a repeat for a duplicate.
            let message = Request::post(push::PATH, request.body(), deadline)
                .repeat(Repeat::Safe)
                .paced(paced);
            let answer = {
                let sending = core.send(&message);
                tokio::pin!(sending);
                match tokio::time::timeout(OVERDUE, &mut sending).await {
                    Ok(answer) => answer,
                    Err(_) => {
                        self.overdue = true;
                        producer.change(super::state::State::overdue);
                        sending.await
                    }
                }
            };
            self.in_time();
            let answered = answer.is_ok();
            let Some(request) = self.request.take() else {
                return;
            };
            let results = answer.and_then(|answer| {
                let unknown = answer.past.unknown;
                let body = answer.success()?;
                let calls = request.calls.iter();
                push::answers(
                    calls.map(|call| (&call.push, call.course.unknown || unknown)),
                    &body,
                )
            });
            match results {
                Ok(results) => self.request = producer.request_answered(request, results),
                Err(error) => {
                    let attempts = attempts.load(Ordering::Relaxed);
                    producer.request_failed(request, &error, answered, attempts);
                }
            }
        }
    }

    fn in_time(&mut self) {
        if std::mem::take(&mut self.overdue) {
            self.producer.change(|state, _| state.no_longer_overdue());
        }
    }
}

/// Calls that have their results once this is dropped, whether its task runs or not.
struct Released(Arc<Producer>, Option<(Fused, Vec<Result<Vec<PushResult>>>)>);

impl Drop for Released {
    fn drop(&mut self) {
        if let Some((request, results)) = self.1.take() {
            self.0.give_results(&request, results);
            self.0.change(|state, now| state.settle(&request, now));
            self.0.changed.notify_waiters();
        }
    }
}

impl Producer {
    /// Sees to the calls of a request that was answered. Returns the next request of the lane.
    fn request_answered(
        self: &Arc<Producer>,
        mut request: Fused,
        results: Vec<Result<Vec<PushResult>>>,
    ) -> Option<Fused> {
        let mut ahead = false;
        let next =
            self.change_and_take(|state, now| ahead = state.answered_ahead(&mut request, now));
        if ahead {
            // The next request is on its way while this is done.
            let released = Released(self.clone(), Some((request, results)));
            self.core.detach(async move {
                // First come those who write it to the connection.
                for _ in 0..STEPS {
                    tokio::task::yield_now().await;
                }
                drop(released);
            });
            return next;
        }
        if let Some(other) = next {
            self.core.detach(Lane::new(self, other).run());
        }
        // Whoever is released and back already goes along with the next request.
        self.give_results(&request, results);
        let later = self.change_and_take(|state, now| state.answered(&request, now));
        self.changed.notify_waiters();
        later
    }

    fn give_results(&self, request: &Fused, results: Vec<Result<Vec<PushResult>>>) {
        for (call, results) in request.calls.iter().zip(results) {
            let with_ids =
                |error: Error| error.with_transaction_ids(call.push.transaction_ids.to_vec());
            let result = results.map_err(with_ids).and_then(|results| {
                self.count(&results);
                match push::partial(&results) {
                    None => Ok(results),
                    Some(error) => Err(with_ids(error)),
                }
            });
            self.log_end(&call.address, &result);
            call.pending.settle(result);
        }
    }

    fn request_failed(
        self: &Arc<Producer>,
        request: Fused,
        error: &Error,
        answered: bool,
        attempts: u32,
    ) {
        let calls = request.calls.len();
        let Failed {
            over,
            again,
            pause,
            alone,
        } = self.change(|state, now| state.request_failed(request, error, answered, attempts, now));
        if again > 0 {
            self.core.stats.push_retries.add(1);
            self.log_retry(error, pause, calls, alone);
        }
        for (call, error) in &over {
            let error = error
                .clone()
                .with_transaction_ids(call.push.transaction_ids.to_vec());
            let result = Err(error);
            self.log_end(&call.address, &result);
            call.pending.settle(result);
        }
        self.change(|state, now| {
            for (call, _) in &over {
                state.settled(call.ticket, now);
            }
        });
        self.changed.notify_waiters();
    }

    fn log_retry(&self, error: &Error, pause: Duration, calls: usize, alone: bool) {
        let logger = &self.core.logger;
        if !logger.wants(Level::Warn) {
            return;
        }
        let (operation, message) = match alone {
            true => (
                "producer.split",
                "a request did not go well; its calls are sent one by one",
            ),
            false => (
                "producer.retry",
                "a request did not go well and is sent again",
            ),
        };
        let fields: [(&str, Value); 3] = [
            ("calls", calls.into()),
            ("pauseMillis", transport::ms(pause).into()),
            ("error", error.to_string().into()),
        ];
        logger.log(Level::Warn, operation, message, &fields);
    }
}
