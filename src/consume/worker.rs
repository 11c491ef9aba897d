//! One worker of a consumer: poll, hand over, wait for the settlement, poll again.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::claim::{Claim, OnLost};
use super::consumer::{ConsumerEvent, ConsumerSink, Settlement, Shared, StopReason};
use super::delivery::Delivery;
use super::quota::Share;
use crate::error::{Error, ErrorCode, Result};
use crate::log::Level;
use crate::protocol::ack::Status;
use crate::runtime::lock;
use crate::transport;

/// The least time between two polls when the first was empty.
const EMPTY_PAUSE: Duration = Duration::from_millis(100);
/// What a poll that waited until an idle consumer ends may take to come back.
const IDLE_GRACE: Duration = Duration::from_millis(500);
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
            if self.is_at_limit(handed) {
                return;
            }
            let mut share = match &self.quota {
                None => None,
                Some(quota) => match self.until_stop(quota.take(self.options.batch)).await {
                    Some(Some(share)) => Some(share),
                    // All is handed over, or the consumer stops.
                    Some(None) | None => return,
                },
            };
            let Some(patience) = self.patience() else {
                // Idle means that no worker has anything to do, so it ends them all.
                return self.ask_to_stop(StopReason::Idle);
            };
            let began = Instant::now();
            let batch = share.as_ref().map_or(self.options.batch, Share::len);
            match self.poll(patience, batch).await {
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
                    self.hand_over(deliveries, &mut handed, share.as_mut())
                        .await;
                }
                Some(Err(error)) if ends_consumer(&error) => return self.fail(error),
                Some(Err(error)) => {
                    drop(share);
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

    fn is_at_limit(&self, handed: u64) -> bool {
        self.options.limit.is_some_and(|limit| handed >= limit)
    }

    /// Hands deliveries over one after another. What a stop or a limit leaves goes back.
    async fn hand_over(
        self: &Arc<Shared>,
        deliveries: Vec<Delivery>,
        handed: &mut u64,
        mut share: Option<&mut Share<'_>>,
    ) {
        let claims: Vec<_> = deliveries
            .iter()
            .map(|delivery| delivery.claim().clone())
            .collect();
        lock(&self.active).extend(claims.iter().cloned());
        if let Some(share) = &mut share {
            share.keep(claims.iter().map(|claim| claim.messages.len() as u64).sum());
        }
        let side_by_side = &mut JoinSet::new();
        let mut ends = Vec::with_capacity(deliveries.len());
        for delivery in &deliveries {
            let mut next = delivery.range().clone();
            while !next.is_empty() {
                // One more that is in hand at the same time.
                let place = match &self.side_by_side {
                    Some(places) => places.clone().acquire_owned().await.ok(),
                    None => None,
                };
                let Some(part) = self.next_part(delivery, &next, *handed, share.as_deref()) else {
                    break;
                };
                next.start = part.range().end;
                let count = part.messages().len() as u64;
                *handed += count;
                if let Some(share) = &mut share {
                    share.spend(count);
                }
                let handled = self.handle(part);
                match place {
                    None => handled.await,
                    Some(place) => {
                        side_by_side.spawn(async move {
                            handled.await;
                            drop(place);
                        });
                    }
                }
                self.touch();
            }
            ends.push(next.start);
        }
        while side_by_side.join_next().await.is_some() {}
        // Gives back what was not handed over.
        drop(deliveries);
        for (claim, end) in claims.iter().zip(ends) {
            claim.ended().await;
            // Somebody may have settled by ids what was not handed over.
            let (acked, nacked) = claim.tally(end);
            let mut counts = lock(&self.counts);
            counts.acked += acked;
            counts.nacked += nacked;
        }
        self.touch();
        lock(&self.active).retain(|active| !claims.iter().any(|claim| Arc::ptr_eq(active, claim)));
    }

    /// What is handed over next of a delivery. `None`: nothing of it.
    fn next_part(
        &self,
        delivery: &Delivery,
        next: &Range<usize>,
        handed: u64,
        share: Option<&Share<'_>>,
    ) -> Option<Delivery> {
        let claim = delivery.claim();
        // What the broker has acked at delivery would be lost, so it is handed over whatever happens.
        if !claim.is_committed()
            && (self.is_stopping() || self.is_at_limit(handed) || claim.is_broken_off())
        {
            return None;
        }
        let mut count = if self.options.each { 1 } else { next.len() };
        if let Some(share) = share
            && !claim.is_committed()
        {
            count = count.min(share.len() as usize);
        }
        (count > 0).then(|| delivery.part(next.start..next.start + count))
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

    /// Ends the consumer when it has been idle for long enough, even where a broker holds a poll longer than it was asked to.
    pub(super) async fn watch_idle(self: Arc<Shared>) {
        let Some(idle) = self.options.idle_millis.map(Duration::from_millis) else {
            return;
        };
        loop {
            let busy = !lock(&self.active).is_empty();
            let quiet = lock(&self.last_activity).elapsed();
            let left = match busy {
                true => idle,
                false => (idle + IDLE_GRACE).saturating_sub(quiet),
            };
            if left.is_zero() {
                return self.ask_to_stop(StopReason::Idle);
            }
            tokio::time::sleep(left).await;
        }
    }

    /// The result of a future, unless the consumer stops first.
    async fn until_stop<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut stopping = self.stopping.subscribe();
        tokio::select! {
            result = future => Some(result),
            _ = stopping.wait_for(|stopping| *stopping) => None,
        }
    }

    /// Sleeps unless the consumer stops.
    async fn pause(&self, pause: Duration) {
        self.until_stop(tokio::time::sleep(pause)).await;
    }

    /// One poll, interrupted by a stop: its request is then kept for the grace period and what it brings goes back.
    async fn poll(
        self: &Arc<Shared>,
        patience: Duration,
        batch: u64,
    ) -> Option<Result<Vec<Delivery>>> {
        let mut query = self.query.clone();
        query.batch = batch;
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
        if let Some(result) = self.until_stop(&mut poll).await {
            return Some(result);
        }
        let grace = self.hub.core.cancel_grace();
        if self.options.commit_on_delivery {
            // What still comes cannot be given back, so it is handled.
            return tokio::time::timeout(grace, poll).await.ok();
        }
        if !grace.is_zero() {
            self.hub.core.background(async move {
                let _ = tokio::time::timeout(grace, poll).await;
            });
        }
        None
    }

    /// Hands a delivery over. What it returns waits until each message has its verdict, or it is lost.
    fn handle(self: &Arc<Shared>, delivery: Delivery) -> impl Future<Output = ()> + Send + use<> {
        let (claim, range) = (delivery.claim().clone(), delivery.range().clone());
        let logger = &self.hub.core.logger;
        if logger.wants(Level::Debug) {
            logger.log(
                Level::Debug,
                "consumer.handle",
                "messages are handed over",
                &[
                    ("partition", claim.source().partition.clone().into()),
                    ("leaseId", claim.source().lease_id.clone().into()),
                    ("messages", range.len().into()),
                ],
            );
        }
        {
            let mut counts = lock(&self.counts);
            counts.deliveries += 1;
            counts.messages += range.len();
            if claim.is_committed() {
                counts.acked += range.len();
            }
        }
        let mut returned = None;
        if let Some(sink) = self.sink() {
            match &*sink {
                ConsumerSink::Handler(_) => returned = self.run_handler(sink, delivery),
                ConsumerSink::Events(tell) => {
                    if !tell(ConsumerEvent::Delivery(delivery)) {
                        self.ask_to_stop(StopReason::Stopped);
                    }
                }
            }
        }
        let shared = self.clone();
        async move {
            if let Some(returned) = returned
                && let Ok((settlement, delivery)) = returned.await
            {
                shared.settle_as(settlement, &claim, &range).await;
                drop(delivery);
            }
            claim.settled(&range).await;
        }
    }

    /// Queues a run of the handler. What it returns tells of the answer.
    fn run_handler(
        self: &Arc<Shared>,
        sink: Arc<ConsumerSink>,
        delivery: Delivery,
    ) -> Option<oneshot::Receiver<(Settlement, Delivery)>> {
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
            let settlement = settlement.unwrap_or_else(|panic| Settlement::NackWith(told(&*panic)));
            let _ = done.send((settlement, delivery));
        };
        self.running.fetch_add(1, Ordering::SeqCst);
        if self.handlers.run(Box::new(job)).is_err() {
            self.running.fetch_sub(1, Ordering::SeqCst);
            self.fail(Error::new(
                ErrorCode::Internal,
                "no thread could be started to run a handler",
            ));
            return None;
        }
        Some(returned)
    }

    /// Settles what has no verdict as the handler has answered.
    async fn settle_as(&self, settlement: Settlement, claim: &Arc<Claim>, range: &Range<usize>) {
        let reason = match settlement {
            Settlement::Ack if self.options.auto_ack => {
                return self.settle_rest(claim, range, Status::Completed, None);
            }
            // Settled by hand: the lease lives until the last verdict.
            Settlement::Ack => return claim.settled(range).await,
            Settlement::Defer => return,
            Settlement::Nack => "the handler answered with a nack".into(),
            Settlement::NackWith(reason) => reason,
            Settlement::Other(number) => {
                self.hub.core.logger.log(
                    Level::Warn,
                    "consumer.handler",
                    "a handler answered with a number that is none of its answers, which counts as a nack",
                    &[("answer", number.into())],
                );
                "the handler answered with a number that is none of its answers".into()
            }
        };
        self.settle_rest(claim, range, Status::Failed, Some(&reason));
    }

    /// The verdict of the handler for what has none; what the broker makes of it goes to the log.
    fn settle_rest(
        &self,
        claim: &Arc<Claim>,
        range: &Range<usize>,
        status: Status,
        reason: Option<&str>,
    ) {
        let settled = match claim.settle_rest(range, status, reason) {
            // An ack of what the broker has acked already says nothing new.
            Some(_) if claim.is_committed() && !status.is_negative() => return,
            Some(settled) => settled,
            None => return,
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

/// What a handler panicked with.
fn told(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    match text {
        Some(text) => format!("the handler panicked: {text}"),
        None => "the handler panicked".into(),
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
            | Unsupported
            | TooLarge
            | InvalidArgument
            | Closed
            | Store
            | Locked
            | Forked
            | Internal
    )
}
