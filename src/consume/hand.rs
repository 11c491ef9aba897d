//! How a worker hands deliveries over, and what it makes of what handlers answer.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::claim::Claim;
use super::consumer::{ConsumerEvent, ConsumerSink, Handler, Settlement, Shared, StopReason};
use super::delivery::Delivery;
use super::quota::Share;
use super::run::Run;
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
        let run = Run::new(self, &deliveries, *handed, share);
        match &self.side_by_side {
            Some(places) => self.hand_side_by_side(&run, places).await,
            None => while self.hand_in_turn(&run).await {},
        }
        let ends;
        (ends, *handed) = run.end();
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

    /// How many messages of a delivery are handed over next.
    pub(super) fn count_of_next(
        &self,
        delivery: &Delivery,
        next: &Range<usize>,
        handed: u64,
        share: &Option<Share>,
    ) -> usize {
        let committed = delivery.claim().is_committed();
        // What the broker has acked at delivery would be lost, so it is handed over whatever happens.
        if !committed
            && (self.is_stopping() || self.is_at_limit(handed) || delivery.claim().is_broken_off())
        {
            return 0;
        }
        let count = match self.options.hands_one() {
            true => next.len().min(1),
            false => next.len(),
        };
        match share {
            Some(share) if !committed => count.min(share.len() as usize),
            _ => count,
        }
    }

    /// Hands over as many at the same time as there are places.
    async fn hand_side_by_side(self: &Arc<Shared>, run: &Run, places: &Arc<Semaphore>) {
        let mut in_hand = JoinSet::new();
        while let Ok(place) = places.clone().acquire_owned().await
            && let Some(part) = run.take(self)
        {
            let handled = self.handle(part);
            in_hand.spawn(async move {
                handled.await;
                drop(place);
            });
            self.touch();
        }
        while in_hand.join_next().await.is_some() {}
    }

    /// Hands over one after another, each when the one before it is settled, up to one that was settled by hand. `false`:
    /// there is nothing more to hand over.
    async fn hand_in_turn(self: &Arc<Shared>, run: &Arc<Run>) -> bool {
        let Some(sink) = self.sink() else {
            return false;
        };
        if let ConsumerSink::Events(tell) = &*sink {
            let Some(part) = run.take_open(self) else {
                return false;
            };
            if !tell(ConsumerEvent::Delivery(part)) {
                self.ask_to_stop(StopReason::Stopped);
            }
            run.settled(self).await;
            self.touch();
            return true;
        }
        let (shared, handing) = (self.clone(), run.clone());
        // Those that their handler settles follow one another on its thread.
        let returned = self.run_handler(sink, move |handler| {
            while let Some(part) = handing.take(&shared) {
                let settlement = run_one(handler, &part);
                let settled = shared.settle_as(settlement, part.claim(), part.range());
                shared.touch();
                if !settled {
                    return true;
                }
            }
            false
        });
        let Some(returned) = returned else {
            return false;
        };
        let goes_on = returned.await.unwrap_or(false);
        if goes_on {
            run.settled(self).await;
            self.touch();
        }
        goes_on
    }

    /// Hands a delivery over. What it returns waits until each message has its verdict, or it is lost.
    fn handle(self: &Arc<Shared>, delivery: Delivery) -> impl Future<Output = ()> + Send + use<> {
        let (claim, range) = (delivery.claim().clone(), delivery.range().clone());
        let shared = self.clone();
        let mut returned = None;
        if let Some(sink) = self.sink() {
            match &*sink {
                ConsumerSink::Handler(_) => {
                    let shared = self.clone();
                    returned = self.run_handler(sink, move |handler| {
                        let settlement = run_one(handler, &delivery);
                        shared.settle_as(settlement, delivery.claim(), delivery.range());
                    });
                }
                ConsumerSink::Events(tell) => {
                    if !tell(ConsumerEvent::Delivery(delivery)) {
                        self.ask_to_stop(StopReason::Stopped);
                    }
                }
            }
        }
        async move {
            if let Some(returned) = returned {
                let _ = returned.await;
            }
            claim.settled(&range).await;
            shared.note_handled(&claim, &range);
        }
    }

    /// Takes back what [`note_handed`](Self::note_handed) counted where a stop was faster than whoever was to take it.
    pub(super) fn note_handled(&self, claim: &Claim, range: &Range<usize>) {
        if claim.went_back(range) {
            let mut counts = lock(&self.counts);
            counts.deliveries -= 1;
            counts.messages -= range.len();
        }
    }

    /// Counts what is handed over.
    pub(super) fn note_handed(&self, delivery: &Delivery) {
        let (claim, range) = (delivery.claim(), delivery.range());
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
        let mut counts = lock(&self.counts);
        counts.deliveries += 1;
        counts.messages += range.len();
        if claim.is_committed() {
            counts.acked += range.len();
        }
    }

    /// Queues what is done with the handler on one of its threads. What it returns tells of the result.
    fn run_handler<R: Send + 'static>(
        self: &Arc<Shared>,
        sink: Arc<ConsumerSink>,
        work: impl FnOnce(&Handler) -> R + Send + 'static,
    ) -> Option<oneshot::Receiver<R>> {
        let (done, returned) = oneshot::channel();
        let shared = self.clone();
        let job = move || {
            let ConsumerSink::Handler(handler) = &*sink else {
                return;
            };
            let result = work(handler);
            shared.running.fetch_sub(1, Ordering::SeqCst);
            drop(sink);
            let _ = done.send(result);
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

    /// Settles what has no verdict as the handler has answered. `false`: somebody settles it by hand, and the lease lives
    /// until the last verdict.
    fn settle_as(&self, settlement: Settlement, claim: &Arc<Claim>, range: &Range<usize>) -> bool {
        let reason = match settlement {
            Settlement::Ack if self.options.auto_ack => {
                claim.ack_rest(range, true);
                return true;
            }
            Settlement::Ack | Settlement::Defer => return false,
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
        // What the broker makes of it goes to the log.
        if let Some(nacked) = claim.settle_rest(range, Status::Failed, Some(&reason)) {
            let (claim, outcome) = (claim.clone(), nacked.clone());
            nacked.when_complete(move || {
                if let Some(Err(error)) = outcome.result() {
                    claim.warn_of(&error);
                }
            });
        }
        true
    }
}

/// Runs the handler; a panic is a nack.
fn run_one(handler: &Handler, delivery: &Delivery) -> Settlement {
    if !delivery.take() {
        // A stop was faster and has given it back.
        return Settlement::Defer;
    }
    catch_unwind(AssertUnwindSafe(|| handler(delivery.clone())))
        .unwrap_or_else(|panic| Settlement::NackWith(told(&*panic)))
}

/// What a handler panicked with.
pub(crate) fn told(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    match text {
        Some(text) => format!("the handler panicked: {text}"),
        None => "the handler panicked".into(),
    }
}
