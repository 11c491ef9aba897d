//! A consumer: workers that poll, hand over and settle, until it is stopped or has had enough.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use super::claim::Claim;
use super::cut::Cut;
use super::delivery::Delivery;
use super::hub::Hub;
use super::lease::Renew;
use super::options::ConsumeOptions;
use super::quota::Quota;
use super::sizing::Sizing;
use super::worker::Shelf;
use crate::core::next_id;
use crate::dispatch::Workers;
use crate::error::{Error, ErrorCode, Result};
use crate::log::Level;
use crate::pending::{Completer, Pending, WaitsFor};
use crate::protocol::pop::Query;
use crate::runtime::{Life, Living, lock};
use crate::transport;

/// What a handler decides about the messages that have no verdict yet.
///
/// A handler may return whatever becomes one: `()` is an ack, a `Result<(), E>` an ack or a nack with the error's text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// They are done.
    Ack,
    /// They are not done: the first is charged a retry, all come again.
    Nack,
    /// As [`Nack`](Settlement::Nack), with a reason that the dead-letter queue will show.
    NackWith(String),
    /// Somebody who holds a clone of the delivery settles them later.
    Defer,
    /// The answer of a foreign handler that is none of the numbers it may be: a nack, and logged.
    Other(i32),
}

impl From<()> for Settlement {
    fn from((): ()) -> Settlement {
        Settlement::Ack
    }
}

impl<E: std::fmt::Display> From<std::result::Result<(), E>> for Settlement {
    fn from(result: std::result::Result<(), E>) -> Settlement {
        match result {
            Ok(()) => Settlement::Ack,
            Err(error) => Settlement::NackWith(error.to_string()),
        }
    }
}

/// A function that handles deliveries.
pub(super) type Handler = dyn Fn(Delivery) -> Settlement + Send + Sync;

/// Where deliveries go.
#[non_exhaustive]
pub enum ConsumerSink {
    /// A function that runs on handler threads, at most `concurrency` at a time, and may block.
    Handler(Box<Handler>),
    /// A function that takes events on I/O threads and must not block. It returns `false` when nobody reads them any
    /// more, which stops the consumer. At most `concurrency` deliveries are unsettled at any time.
    Events(Box<dyn Fn(ConsumerEvent) -> bool + Send + Sync>),
}

/// What a consumer with an event sink tells.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConsumerEvent {
    /// Messages to handle and to settle.
    Delivery(Delivery),
    /// The lease of a delivery is lost (`certain`) or a renewal has failed.
    LeaseLost {
        /// A JSON object: `queue`, `partition`, `partitionId`, `leaseId`, `consumerGroup`, `certain`.
        json: String,
    },
    /// The consumer has ended; nothing follows.
    Ended(Result<Summary>),
}

/// Why a consumer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StopReason {
    /// Each worker has reached its limit, or all together the total.
    Limit,
    /// Nothing came for `idle_millis`.
    Idle,
    /// It was stopped.
    Stopped,
    /// The client was closed.
    Closed,
    /// The broker refused in a way that no further poll would mend.
    Error,
}

/// What a consumer did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Summary {
    /// Why it ended.
    pub reason: StopReason,
    /// Deliveries handed over.
    pub deliveries: usize,
    /// Messages in them, each as often as it was handed over.
    pub messages: usize,
    /// Messages whose ack counts, as the broker has answered, or that it counted as done when it handed them out
    /// (`commit_on_delivery`).
    pub acked: usize,
    /// Messages that were failed or dead-lettered.
    pub nacked: usize,
    /// Messages without a verdict that counts: they come again.
    pub unsettled: usize,
}

/// A running consumer. Dropping it stops it in the background; running handlers finish and settle.
/// ```
/// use queen::{Client, ConsumeOptions, Item, Settlement, StopReason};
/// use std::time::Duration;
///
/// const SOON: Duration = Duration::from_secs(20);
/// let client = Client::new("embedded:")?;
/// let orders = client.queue("orders");
/// orders.push(&[Item::json(&1)?, Item::json(&2)?]).wait(SOON)?;
/// let options = ConsumeOptions { limit: Some(2), ..ConsumeOptions::default() };
/// let consumer = orders.consume_with(options, |delivery| {
///     match delivery.messages()[0].json::<u32>() {
///         Ok(_order) => Settlement::Ack,
///         Err(_) => Settlement::Nack,
///     }
/// })?;
/// let summary = consumer.finished().wait(SOON)?;
/// assert_eq!((summary.reason, summary.acked), (StopReason::Limit, 2));
/// # Ok::<(), queen::Error>(())
/// ```
pub struct Consumer(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) id: u64,
    pub(super) hub: Arc<Hub>,
    pub(super) options: ConsumeOptions,
    pub(super) query: Query,
    pub(super) handlers: Arc<Workers>,
    /// What `limit_total` leaves.
    pub(super) quota: Option<Quota>,
    pub(super) sizing: Sizing,
    pub(super) shelf: Shelf,
    pub(super) cut: Cut,
    /// Bounds the messages that are in hand at the same time, where those of a partition do not wait for each other.
    pub(super) side_by_side: Option<Arc<Semaphore>>,
    sink: Mutex<Option<Arc<ConsumerSink>>>,
    pub(super) stopping: watch::Sender<bool>,
    reason: Mutex<Option<StopReason>>,
    error: Mutex<Option<Error>>,
    pub(super) counts: Mutex<Counts>,
    pub(super) active: Mutex<Vec<Arc<Claim>>>,
    pub(super) running: AtomicUsize,
    pub(super) last_activity: Mutex<Instant>,
    finished: Pending<Summary>,
    _living: Living,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) deliveries: usize,
    pub(super) messages: usize,
    pub(super) acked: usize,
    pub(super) nacked: usize,
}

impl Hub {
    /// Starts a consumer.
    pub(crate) fn consume(
        self: &Arc<Hub>,
        options: ConsumeOptions,
        sink: ConsumerSink,
    ) -> Result<Consumer> {
        let query = options.query()?;
        self.core.check_accepting()?;
        let runtime = self.core.runtime()?;
        let id = next_id();
        let workers = options.concurrency as usize;
        let (quota, ordered) = (options.limit_total.map(Quota::new), options.ordered);
        let shared = Arc::new(Shared {
            id,
            hub: self.clone(),
            options,
            query,
            handlers: Workers::handlers(self.core.id, id, workers),
            quota,
            sizing: Sizing::new(),
            shelf: Shelf::new(),
            cut: Cut::default(),
            side_by_side: (!ordered).then(|| Arc::new(Semaphore::new(workers))),
            sink: Mutex::new(Some(Arc::new(sink))),
            stopping: watch::Sender::new(false),
            reason: Mutex::default(),
            error: Mutex::default(),
            counts: Mutex::default(),
            active: Mutex::default(),
            running: AtomicUsize::new(0),
            last_activity: Mutex::new(Instant::now()),
            finished: Pending::new(WaitsFor::Consumer(id)),
            _living: Living::new(Life::Inner),
        });
        self.add(&shared)?;
        self.core.logger.log(
            Level::Info,
            "consumer.start",
            "a consumer starts",
            &[
                ("queue", shared.options.queue.clone().into()),
                ("concurrency", workers.into()),
            ],
        );
        runtime.spawn(shared.clone().supervise(workers));
        Ok(Consumer(shared))
    }
}

impl Consumer {
    /// Completes with the summary when the consumer has ended and its last handler has returned.
    pub fn finished(&self) -> Pending<Summary> {
        self.0.finished.follow()
    }

    /// Stops it: no new polls, what no handler has taken goes back, running and deferred deliveries are waited for.
    /// What is unsettled after `timeout` is let go and answers [`ErrorCode::Closed`]; if a handler still runs then, the
    /// operation ends with [`ErrorCode::Timeout`] and can be repeated to wait longer.
    pub fn stop(&self, timeout: Duration) -> Pending<Summary> {
        self.0.stop(timeout, StopReason::Stopped)
    }
}

/// What can be told to stop.
pub(crate) trait Stops: Send + Sync {
    fn ask(&self);
}

impl Stops for Shared {
    fn ask(&self) {
        self.ask_to_stop(StopReason::Stopped);
    }
}

/// Stops a consumer, of messages or of windows, without keeping it alive.
#[derive(Clone)]
pub struct StopSignal(Weak<dyn Stops>);

impl StopSignal {
    pub(crate) fn of(stops: Weak<dyn Stops>) -> StopSignal {
        StopSignal(stops)
    }

    /// Begins the stop and returns.
    pub fn stop(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.ask();
        }
    }

    /// Whether the consumer still exists.
    pub fn is_live(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Consumer {
    /// A way to stop the consumer from where it is not at hand.
    pub fn stop_signal(&self) -> StopSignal {
        let weak = Arc::downgrade(&self.0);
        StopSignal::of(weak)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.0.ask_to_stop(StopReason::Stopped);
    }
}

/// A task that ends with whoever started it.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Shared {
    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// The sink, until the consumer has ended.
    pub(super) fn sink(&self) -> Option<Arc<ConsumerSink>> {
        lock(&self.sink).clone()
    }

    pub(super) fn note_reason(&self, reason: StopReason) {
        lock(&self.reason).get_or_insert(reason);
    }

    /// Ends the consumer with an error of the broker.
    pub(super) fn fail(&self, error: Error) {
        lock(&self.error).get_or_insert(error);
        self.ask_to_stop(StopReason::Error);
    }

    /// Begins the stop and gives back what nobody has taken.
    pub(crate) fn ask_to_stop(&self, reason: StopReason) {
        self.note_reason(reason);
        self.stopping.send_replace(true);
        if !self.options.commit_on_delivery {
            self.shelf.close();
        }
        let active = lock(&self.active).clone();
        active.iter().for_each(Claim::give_back_untaken);
    }

    /// Lets go of everything that is unsettled.
    pub(crate) fn abandon(&self) {
        let active = lock(&self.active).clone();
        active.iter().for_each(|claim| claim.abandon());
    }

    /// Stops, waits until the deadline, lets go of the rest; fails while handlers still run.
    pub(crate) async fn stop_until(
        self: Arc<Shared>,
        deadline: tokio::time::Instant,
        reason: StopReason,
    ) -> Result<Summary> {
        self.ask_to_stop(reason);
        if let Ok(summary) = tokio::time::timeout_at(deadline, self.finished.clone()).await {
            return summary;
        }
        self.abandon();
        // Without a running handler the workers end at once; the pause is for their last steps.
        if self.running.load(Ordering::SeqCst) == 0
            && let Ok(summary) =
                tokio::time::timeout(Duration::from_secs(5), self.finished.clone()).await
        {
            return summary;
        }
        Err(Error::new(ErrorCode::Timeout, self.still_running()))
    }

    /// What still runs, for an error message.
    pub(crate) fn still_running(&self) -> String {
        let place = self
            .options
            .queue
            .as_deref()
            .unwrap_or("a namespace or task");
        format!(
            "{} handlers of the consumer of `{place}` still run",
            self.running.load(Ordering::SeqCst)
        )
    }

    pub(super) fn finished(&self) -> Pending<Summary> {
        self.finished.clone()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished.is_complete()
    }

    fn stop(self: &Arc<Shared>, timeout: Duration, reason: StopReason) -> Pending<Summary> {
        if self.finished.is_complete() {
            return self.finished.clone();
        }
        let deadline = transport::after(transport::ms(timeout));
        // Nothing is handed over any more when this returns.
        self.ask_to_stop(reason);
        let shared = self.clone();
        self.hub.core.start_always(
            deadline + Duration::from_secs(10),
            WaitsFor::Consumer(self.id),
            move |_| shared.stop_until(deadline, reason),
        )
    }

    /// Runs the workers and ends the consumer when the last of them has.
    async fn supervise(self: Arc<Shared>, workers: usize) {
        let _completer = Completer(self.finished.clone());
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..workers {
            running.spawn(self.clone().work());
        }
        let idle = AbortOnDrop(tokio::spawn(self.clone().watch_idle()));
        while let Some(ended) = running.join_next().await {
            if ended.is_err() {
                self.fail(Error::new(
                    ErrorCode::Internal,
                    "a worker of the consumer panicked",
                ));
            }
        }
        drop(idle);
        // Workers that have reached their limits may have left something.
        for claim in self.shelf.close() {
            claim.ended().await;
        }
        self.handlers.seal();
        let result = self.summary();
        let (level, outcome) = match &result {
            Ok(summary) => (
                Level::Info,
                serde_json::to_value(summary).unwrap_or_default(),
            ),
            Err(error) => (Level::Error, error.to_string().into()),
        };
        self.hub.core.logger.log(
            level,
            "consumer.end",
            "a consumer has ended",
            &[("outcome", outcome)],
        );
        let sink = lock(&self.sink).take();
        if let Some(sink) = sink {
            if let ConsumerSink::Events(tell) = &*sink {
                tell(ConsumerEvent::Ended(result.clone()));
            }
            // What the host gave along is freed where its callbacks run, before anybody hears of the end.
            let _ = self.hub.core.dispatcher.run(Box::new(move || drop(sink)));
            self.hub.core.dispatcher.drained().await;
        }
        self.hub.remove(self.id);
        self.finished.complete(result);
    }

    /// What it did; the error that ended it carries that as its result.
    fn summary(&self) -> Result<Summary> {
        let counts = *lock(&self.counts);
        let summary = Summary {
            // Without another reason every worker has ended by its limit.
            reason: lock(&self.reason).unwrap_or(StopReason::Limit),
            deliveries: counts.deliveries,
            messages: counts.messages,
            acked: counts.acked,
            nacked: counts.nacked,
            unsettled: counts.messages.saturating_sub(counts.acked + counts.nacked),
        };
        match lock(&self.error).clone() {
            None => Ok(summary),
            Some(error) => {
                let reason = StopReason::Error;
                let summary = Summary { reason, ..summary };
                Err(error.with_result(serde_json::to_string(&summary).unwrap_or_default()))
            }
        }
    }

    pub(super) fn renewal(&self) -> Option<Renew> {
        self.options.renew_lease.then_some(Renew {
            lease_seconds: self.options.lease_seconds,
            max_handling_seconds: self.options.max_handling_seconds,
            unsure: false,
        })
    }

    /// Tells the host that a lease is lost, if it takes events.
    pub(super) fn tell_lost(&self, source: &crate::protocol::pop::Source, certain: bool) {
        let Some(sink) = self.sink() else { return };
        if let ConsumerSink::Events(tell) = &*sink {
            let json = serde_json::json!({
                "queue": source.queue,
                "partition": source.partition,
                "partitionId": source.partition_id,
                "leaseId": source.lease_id,
                "consumerGroup": source.consumer_group,
                "certain": certain,
            });
            tell(ConsumerEvent::LeaseLost {
                json: json.to_string(),
            });
        }
    }
}
