//! How a worker hands deliveries over, and what it makes of what handlers answer.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::claim::Claim;
use super::consumer::{ConsumerEvent, ConsumerSink, Settlement, Shared, StopReason};
use super::delivery::Delivery;
use super::quota::Share;
use crate::error::{Error, ErrorCode};
use crate::log::Level;
use crate::protocol::ack::Status;
use crate::runtime::lock;

impl Shared {
    /// Hands deliveries over one after another. What a stop or a limit leaves goes back. What it returns completes when the
    /// verdicts are answered.
    pub(super) async fn hand_over(
        self: &Arc<Shared>,
        deliveries: Vec<Delivery>,
        handed: &mut u64,
        mut share: Option<Share>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (began, before) = (Instant::now(), *handed);
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
                let Some(part) = self.next_part(delivery, &next, *handed, share.as_ref()) else {
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
        let bytes = deliveries.iter().flat_map(Delivery::messages);
        let bytes = bytes.map(|message| message.payload().len()).sum();
        let count = claims.iter().map(|claim| claim.messages.len() as u64).sum();
        if *handed - before == count {
            self.sizing.note(count, bytes, began.elapsed());
        }
        // Gives back what was not handed over.
        drop(deliveries);
        let shared = self.clone();
        async move {
            for (claim, end) in claims.iter().zip(ends) {
                claim.ended().await;
                // Somebody may have settled by ids what was not handed over.
                let (acked, nacked) = claim.tally(end);
                let mut counts = lock(&shared.counts);
                counts.acked += acked;
                counts.nacked += nacked;
            }
            shared.touch();
            lock(&shared.active)
                .retain(|active| !claims.iter().any(|claim| Arc::ptr_eq(active, claim)));
        }
    }

    /// What is handed over next of a delivery. `None`: nothing of it.
    fn next_part(
        &self,
        delivery: &Delivery,
        next: &Range<usize>,
        handed: u64,
        share: Option<&Share>,
    ) -> Option<Delivery> {
        let claim = delivery.claim();
        // What the broker has acked at delivery would be lost, so it is handed over whatever happens.
        if !claim.is_committed()
            && (self.is_stopping() || self.is_at_limit(handed) || claim.is_broken_off())
        {
            return None;
        }
        let mut count = if self.options.hands_one() {
            1
        } else {
            next.len()
        };
        if let Some(share) = share
            && !claim.is_committed()
        {
            count = count.min(share.len() as usize);
        }
        (count > 0).then(|| delivery.part(next.start..next.start + count))
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
