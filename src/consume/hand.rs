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
use super::consumer::{ConsumerEvent, ConsumerSink, Handler, Settlement, Shared, StopReason};
use super::delivery::Delivery;
use super::quota::Share;
use crate::error::{Error, ErrorCode};
use crate::log::Level;
use crate::protocol::ack::Status;
use crate::runtime::lock;

/// How far the messages of a delivery are handed over.
struct Turn {
    /// Those that are not.
    next: Range<usize>,
    /// Messages that the worker has handed over.
    handed: u64,
    share: Option<Share>,
}

impl Turn {
    /// Notes that the next messages are handed over.
    fn took(&mut self, part: &Delivery) {
        let count = part.messages().len() as u64;
        self.next.start = part.range().end;
        self.handed += count;
        if let Some(share) = &mut self.share {
            share.spend(count);
        }
    }
}

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
            let mut turn = Turn {
                next: delivery.range().clone(),
                handed: *handed,
                share: share.take(),
            };
            while !turn.next.is_empty() {
                // One more that is in hand at the same time.
                let place = match &self.side_by_side {
                    Some(places) => places.clone().acquire_owned().await.ok(),
                    None => None,
                };
                let Some(place) = place else {
                    let left = turn.next.len();
                    turn = self.hand_in_turn(delivery, turn).await;
                    if turn.next.len() == left {
                        break;
                    }
                    continue;
                };
                let Some(part) = self.next_part(delivery, &turn) else {
                    break;
                };
                turn.took(&part);
                let handled = self.handle(part);
                side_by_side.spawn(async move {
                    handled.await;
                    drop(place);
                });
                self.touch();
            }
            ends.push(turn.next.start);
            *handed = turn.handed;
            share = turn.share;
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
    fn next_part(&self, delivery: &Delivery, turn: &Turn) -> Option<Delivery> {
        let next = &turn.next;
        if next.is_empty() {
            return None;
        }
        let claim = delivery.claim();
        // What the broker has acked at delivery would be lost, so it is handed over whatever happens.
        if !claim.is_committed()
            && (self.is_stopping() || self.is_at_limit(turn.handed) || claim.is_broken_off())
        {
            return None;
        }
        let mut count = if self.options.hands_one() {
            1
        } else {
            next.len()
        };
        if let Some(share) = &turn.share
            && !claim.is_committed()
        {
            count = count.min(share.len() as usize);
        }
        (count > 0).then(|| delivery.part(next.start..next.start + count))
    }

    /// Hands messages of a delivery over, each part when the one before it is settled.
    async fn hand_in_turn(self: &Arc<Shared>, delivery: &Delivery, mut turn: Turn) -> Turn {
        let handler = self
            .sink()
            .filter(|sink| matches!(**sink, ConsumerSink::Handler(_)));
        let Some(sink) = handler else {
            if let Some(part) = self.next_part(delivery, &turn) {
                turn.took(&part);
                self.handle(part).await;
                self.touch();
            }
            return turn;
        };
        let (shared, whole, claim) = (self.clone(), delivery.clone(), delivery.claim().clone());
        let (next, handed) = (turn.next.clone(), turn.handed);
        // Those that their handler settles follow one another on its thread.
        let returned = self.run_handler(sink, move |handler| {
            while let Some(part) = shared.next_part(&whole, &turn) {
                turn.took(&part);
                shared.note_handed(&part);
                let settlement = run(handler, &part);
                let settled = shared.settle_as(settlement, part.claim(), part.range());
                shared.touch();
                if !settled {
                    return (turn, Some(part.range().clone()));
                }
            }
            (turn, None)
        });
        let returned = match returned {
            Some(returned) => returned.await.ok(),
            None => None,
        };
        let Some((turn, waits)) = returned else {
            let share = None;
            return Turn {
                next,
                handed,
                share,
            };
        };
        if let Some(range) = waits {
            claim.settled(&range).await;
            self.note_handled(&claim, &range);
            self.touch();
        }
        turn
    }

    /// Hands a delivery over. What it returns waits until each message has its verdict, or it is lost.
    fn handle(self: &Arc<Shared>, delivery: Delivery) -> impl Future<Output = ()> + Send + use<> {
        let (claim, range) = (delivery.claim().clone(), delivery.range().clone());
        let shared = self.clone();
        self.note_handed(&delivery);
        let mut returned = None;
        if let Some(sink) = self.sink() {
            match &*sink {
                ConsumerSink::Handler(_) => {
                    let shared = self.clone();
                    returned = self.run_handler(sink, move |handler| {
                        let settlement = run(handler, &delivery);
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
    fn note_handled(&self, claim: &Claim, range: &Range<usize>) {
        if claim.went_back(range) {
            let mut counts = lock(&self.counts);
            counts.deliveries -= 1;
            counts.messages -= range.len();
        }
    }

    /// Counts what is handed over.
    fn note_handed(&self, delivery: &Delivery) {
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
                self.settle_rest(claim, range, Status::Completed, None);
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
        self.settle_rest(claim, range, Status::Failed, Some(&reason));
        true
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

/// Runs the handler; a panic is a nack.
fn run(handler: &Handler, delivery: &Delivery) -> Settlement {
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
