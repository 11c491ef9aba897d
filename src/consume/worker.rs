//! One worker of a consumer: poll, hand over, wait for the settlement, poll again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::claim::{Claim, OnLost};
use super::consumer::{ConsumerEvent, ConsumerSink, Settlement, Shared, StopReason};
use super::delivery::Delivery;
use crate::error::{Error, ErrorCode, Result};
use crate::log::Level;
use crate::protocol::ack::Status;
use crate::runtime::lock;
use crate::transport;

/// The least time between two polls when the first was empty.
const EMPTY_PAUSE: Duration = Duration::from_millis(100);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(5);

impl Shared {
    pub(super) async fn work(self: Arc<Shared>) {
        let mut backoff = FIRST_BACKOFF;
        let mut handed = 0u64;
        self.hub.core.logger.log(
            Level::Debug,
            "consumer.worker",
            "a worker begins to poll",
            &[("queue", self.options.queue.clone().into())],
        );
        while !self.is_stopping() {
            if self.options.limit.is_some_and(|limit| handed >= limit) {
                return self.note_reason(StopReason::Limit);
            }
            let Some(patience) = self.patience() else {
                // Idle means that no worker has anything to do, so it ends them all.
                return self.ask_to_stop(StopReason::Idle);
            };
            let began = Instant::now();
            match self.poll(patience).await {
                Some(Ok(deliveries)) => {
                    backoff = FIRST_BACKOFF;
                    if deliveries.is_empty() {
                        // A broker that does not wait, asked to or not, is not asked again at once.
                        let rest = EMPTY_PAUSE.min(patience).saturating_sub(began.elapsed());
                        if !rest.is_zero() {
                            self.pause(rest).await;
                        }
                        continue;
                    }
                    self.touch();
                    self.hand_over(deliveries, &mut handed).await;
                }
                Some(Err(error)) if ends_consumer(&error) => return self.fail(error),
                Some(Err(error)) => {
                    let most = Duration::from_millis(self.hub.core.config.retry_max_delay_millis);
                    let asked = error.retry_after().unwrap_or_default().min(most);
                    let pause = transport::jittered(backoff).max(asked);
                    self.hub.core.logger.log(
                        Level::Warn,
                        "consumer.poll",
                        "a poll failed and is tried again",
                        &[
                            ("error", error.to_string().into()),
                            ("backoffMillis", transport::ms(pause).into()),
                        ],
                    );
                    self.pause(pause).await;
                    backoff = (backoff * 2).min(LAST_BACKOFF);
                }
                None => {}
            }
        }
    }

    /// Hands deliveries over one after another. What a stop or the limit leaves goes back.
    async fn hand_over(self: &Arc<Shared>, deliveries: Vec<Delivery>, handed: &mut u64) {
        let claims: Vec<_> = deliveries
            .iter()
            .map(|delivery| delivery.claim().clone())
            .collect();
        lock(&self.active).extend(claims.iter().cloned());
        for delivery in deliveries {
            if self.is_stopping() || self.options.limit.is_some_and(|limit| *handed >= limit) {
                break;
            }
            *handed += delivery.messages().len() as u64;
            self.handle(delivery).await;
            self.touch();
        }
        for claim in &claims {
            claim.give_back();
            claim.ended().await;
        }
        lock(&self.active).retain(|active| !claims.iter().any(|claim| Arc::ptr_eq(active, claim)));
    }

    fn touch(&self) {
        *lock(&self.last_activity) = Instant::now();
    }

    /// How long the next poll may wait. `None`: the consumer has been idle for long enough.
    fn patience(&self) -> Option<Duration> {
        let poll = Duration::from_millis(self.options.poll_timeout_millis);
        let Some(idle) = self.options.idle_millis.map(Duration::from_millis) else {
            return Some(poll);
        };
        // Deliveries that are deferred or with a poller count as running.
        if !lock(&self.active).is_empty() {
            return Some(poll.min(idle));
        }
        let left = idle.saturating_sub(lock(&self.last_activity).elapsed());
        (!left.is_zero()).then(|| poll.min(left.max(Duration::from_millis(1))))
    }

    /// Sleeps unless the consumer stops.
    async fn pause(&self, pause: Duration) {
        let mut stopping = self.stopping.subscribe();
        let _ = tokio::time::timeout(pause, stopping.wait_for(|stopping| *stopping)).await;
    }

    /// One poll, interrupted by a stop: its request is then kept for the grace period and what it brings goes back.
    async fn poll(self: &Arc<Shared>, patience: Duration) -> Option<Result<Vec<Delivery>>> {
        let mut query = self.query.clone();
        query.wait_millis = self.options.wait.then(|| transport::ms(patience).max(1));
        let weak = Arc::downgrade(self);
        let on_lost: OnLost = Some(Arc::new(move |source, certain| {
            if let Some(shared) = weak.upgrade() {
                shared.tell_lost(source, certain);
            }
        }));
        let (hub, renew) = (self.hub.clone(), self.renewal());
        let wait = query.wait_millis.unwrap_or(0);
        let deadline = transport::after(wait.saturating_add(hub.core.config.timeout_millis));
        let mut poll =
            Box::pin(async move { hub.poll(&query, deadline, || true, renew, on_lost).await });
        let mut stopping = self.stopping.subscribe();
        tokio::select! {
            result = &mut poll => return Some(result),
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
        let grace = self.hub.core.cancel_grace();
        if !grace.is_zero() {
            self.hub.core.background(async move {
                let _ = tokio::time::timeout(grace, poll).await;
            });
        }
        None
    }

    /// Hands a delivery over and waits until the broker has answered its last verdict, or it is lost.
    async fn handle(self: &Arc<Shared>, delivery: Delivery) {
        let claim = delivery.claim().clone();
        let Some(sink) = self.sink() else { return };
        let logger = &self.hub.core.logger;
        if logger.wants(Level::Debug) {
            logger.log(
                Level::Debug,
                "consumer.handle",
                "messages are handed over",
                &[
                    ("partition", claim.source().partition.clone().into()),
                    ("leaseId", claim.source().lease_id.clone().into()),
                    ("messages", claim.messages.len().into()),
                ],
            );
        }
        {
            let mut counts = lock(&self.counts);
            counts.deliveries += 1;
            counts.messages += claim.messages.len();
        }
        match &*sink {
            ConsumerSink::Handler(_) => self.run_handler(sink, delivery).await,
            ConsumerSink::Events(tell) => {
                if !tell(ConsumerEvent::Delivery(delivery)) {
                    self.ask_to_stop(StopReason::Stopped);
                }
            }
        }
        claim.ended().await;
        let (acked, nacked) = claim.tally();
        let mut counts = lock(&self.counts);
        counts.acked += acked;
        counts.nacked += nacked;
    }

    async fn run_handler(self: &Arc<Shared>, sink: Arc<ConsumerSink>, delivery: Delivery) {
        let claim = delivery.claim().clone();
        let (done, returned) = oneshot::channel();
        let shared = self.clone();
        let job = move || {
            let ConsumerSink::Handler(handler) = &*sink else {
                return;
            };
            let settlement = match delivery.take() {
                true => catch_unwind(AssertUnwindSafe(|| handler(delivery.clone()))),
                // A stop was faster and has given it back.
                false => Ok(Settlement::Defer),
            };
            shared.running.fetch_sub(1, Ordering::SeqCst);
            drop(sink);
            // A handler that panicked has not done its work.
            let _ = done.send((settlement.unwrap_or(Settlement::Nack), delivery));
        };
        self.running.fetch_add(1, Ordering::SeqCst);
        if self.handlers.run(Box::new(job)).is_err() {
            self.running.fetch_sub(1, Ordering::SeqCst);
            return self.fail(Error::new(
                ErrorCode::Internal,
                "no thread could be started to run a handler",
            ));
        }
        let Ok((settlement, delivery)) = returned.await else {
            return;
        };
        match settlement {
            Settlement::Ack if self.options.auto_ack => {
                self.settle_rest(&claim, Status::Completed);
            }
            Settlement::Ack => {
                // Settled by hand: the lease lives until the last verdict.
                claim.ended().await;
            }
            Settlement::Nack => {
                self.settle_rest(&claim, Status::Failed);
            }
            Settlement::Other(number) => {
                self.hub.core.logger.log(
                    Level::Warn,
                    "consumer.handler",
                    "a handler answered with a number that is none of its answers, which counts as a nack",
                    &[("answer", number.into())],
                );
                self.settle_rest(&claim, Status::Failed);
            }
            Settlement::Defer => {}
        }
        drop(delivery);
    }

    /// The verdict of the handler for what has none; what the broker makes of it goes to the log.
    fn settle_rest(&self, claim: &Arc<Claim>, status: Status) {
        let reason = status
            .is_negative()
            .then_some("the handler answered with a nack");
        let Some(settled) = claim.settle_rest(status, reason) else {
            return;
        };
        let (core, outcome) = (self.hub.core.clone(), settled.clone());
        settled.when_complete(move || {
            if let Some(Err(error)) = outcome.result() {
                core.logger.log(
                    Level::Warn,
                    "consumer.settle",
                    "a verdict does not count",
                    &[("error", error.to_string().into())],
                );
            }
        });
    }
}

/// Errors that no further poll would mend.
fn ends_consumer(error: &Error) -> bool {
    use ErrorCode::*;
    matches!(
        error.code(),
        Unauthorized
            | Forbidden
            | BadRequest
            | NotFound
            | TooLarge
            | InvalidArgument
            | Closed
            | Store
            | Locked
            | Forked
            | Internal
    )
}
