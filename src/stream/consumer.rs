//! A consumer of windows: workers that poll in turn, hand over and settle, until it is stopped or has had enough.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use super::hub::StreamHub;
use super::lease::Lease;
use super::options::StreamConsumeOptions;
use super::pace::Pace;
use super::window::Window;
use crate::consume::{Settlement, StopReason, StopSignal, Stops};
use crate::core::next_id;
use crate::dispatch::Workers;
use crate::error::{Error, ErrorCode, Result};
use crate::log::Level;
use crate::pending::{Completer, Pending, WaitsFor};
use crate::runtime::{Life, Living, lock};
use crate::transport;

/// A function that handles windows.
pub(super) type Handler = dyn Fn(Window) -> Settlement + Send + Sync;

/// Where windows go.
#[non_exhaustive]
pub enum WindowSink {
    /// A function that runs on handler threads, at most `concurrency` at a time, and may block.
    Handler(Box<Handler>),
    /// A function that takes events on I/O threads and must not block. It returns `false` when nobody reads them any
    /// more, which stops the consumer. At most `concurrency` windows are unsettled at any time.
    Events(Box<dyn Fn(WindowEvent) -> bool + Send + Sync>),
}

/// What a consumer of windows with an event sink tells.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WindowEvent {
    /// A window to handle and to settle.
    Window(Window),
    /// The lease of a window is lost (`certain`) or was not renewed in time.
    LeaseLost {
        /// A JSON object: `stream`, `key`, `windowId`, `leaseId`, `consumerGroup`, `certain`.
        json: String,
    },
    /// The consumer has ended; nothing follows.
    Ended(Result<StreamSummary>),
}

/// What a consumer of windows did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct StreamSummary {
    /// Why it ended.
    pub reason: StopReason,
    /// Windows handed over, each as often as it was.
    pub windows: usize,
    /// Messages in them.
    pub messages: usize,
    /// Windows whose ack counts, as the broker has answered.
    pub acked: usize,
    /// Windows that were given back: they come again.
    pub nacked: usize,
    /// Windows without a verdict that counts: they come again.
    pub lost: usize,
}

/// A running consumer of windows. Dropping it stops it in the background; running handlers finish and settle.
pub struct StreamConsumer(Arc<Shared>);

pub(crate) struct Shared {
    pub(super) id: u64,
    pub(super) hub: Arc<StreamHub>,
    pub(super) stream: String,
    pub(super) group: String,
    pub(super) options: StreamConsumeOptions,
    pub(super) handlers: Arc<Workers>,
    pub(super) pace: Pace,
    sink: Mutex<Option<Arc<WindowSink>>>,
    pub(super) stopping: watch::Sender<bool>,
    reason: Mutex<Option<StopReason>>,
    error: Mutex<Option<Error>>,
    pub(super) counts: Mutex<Counts>,
    pub(super) active: Mutex<Vec<(Arc<Lease>, usize)>>,
    pub(super) running: AtomicUsize,
    pub(super) last_activity: Mutex<Instant>,
    finished: Pending<StreamSummary>,
    _living: Living,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) windows: usize,
    pub(super) messages: usize,
    pub(super) acked: usize,
    pub(super) nacked: usize,
    pub(super) lost: usize,
}

impl StreamHub {
    /// Starts a consumer.
    pub(crate) fn consume(
        self: &Arc<StreamHub>,
        options: StreamConsumeOptions,
        sink: WindowSink,
    ) -> Result<StreamConsumer> {
        let (stream, group) = options.check()?;
        self.core.check_accepting()?;
        let runtime = self.core.runtime()?;
        let id = next_id();
        let workers = options.concurrency as usize;
        let shared = Arc::new(Shared {
            id,
            hub: self.clone(),
            stream,
            group,
            options,
            handlers: Workers::handlers(self.core.id, id, workers),
            pace: Pace::default(),
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
            "stream.start",
            "a consumer of windows starts",
            &[
                ("stream", shared.stream.clone().into()),
                ("consumerGroup", shared.group.clone().into()),
                ("concurrency", workers.into()),
            ],
        );
        runtime.spawn(shared.clone().supervise(workers));
        Ok(StreamConsumer(shared))
    }
}

impl StreamConsumer {
    /// Completes with the summary when the consumer has ended and its last handler has returned.
    pub fn finished(&self) -> Pending<StreamSummary> {
        self.0.finished.follow()
    }

    /// Stops it: the poll that waits is broken off, running and deferred windows are waited for. What is unsettled after
    /// `timeout` is let go and answers [`ErrorCode::Closed`]; if a handler still runs then, the operation ends with
    /// [`ErrorCode::Timeout`] and can be repeated to wait longer.
    pub fn stop(&self, timeout: Duration) -> Pending<StreamSummary> {
        self.0.stop(timeout)
    }

    /// A way to stop the consumer from where it is not at hand.
    pub fn stop_signal(&self) -> StopSignal {
        let weak = Arc::downgrade(&self.0);
        StopSignal::of(weak)
    }
}

impl Drop for StreamConsumer {
    fn drop(&mut self) {
        self.0.ask_to_stop(StopReason::Stopped);
    }
}

impl Stops for Shared {
    fn ask(&self) {
        self.ask_to_stop(StopReason::Stopped);
    }
}

impl Shared {
    /// The sink, until the consumer has ended.
    pub(super) fn sink(&self) -> Option<Arc<WindowSink>> {
        lock(&self.sink).clone()
    }

    /// Ends the consumer with an error of the broker.
    pub(super) fn fail(&self, error: Error) {
        lock(&self.error).get_or_insert(error);
        self.ask_to_stop(StopReason::Error);
    }

    pub(super) fn ask_to_stop(&self, reason: StopReason) {
        lock(&self.reason).get_or_insert(reason);
        self.stopping.send_replace(true);
    }

    /// Tells of a lease that is lost or may be.
    pub(super) fn tell_lost(&self, json: String) {
        if let Some(sink) = self.sink()
            && let WindowSink::Events(tell) = &*sink
        {
            tell(WindowEvent::LeaseLost { json });
        }
    }

    /// Stops, waits until the deadline, lets go of the rest; fails while handlers still run.
    pub(super) async fn stop_until(
        self: Arc<Shared>,
        deadline: tokio::time::Instant,
        reason: StopReason,
    ) -> Result<StreamSummary> {
        self.ask_to_stop(reason);
        if let Ok(summary) = tokio::time::timeout_at(deadline, self.finished.clone()).await {
            return summary;
        }
        let active: Vec<_> = lock(&self.active).iter().map(|one| one.0.clone()).collect();
        active.iter().for_each(|lease| lease.abandon());
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
    pub(super) fn still_running(&self) -> String {
        format!(
            "{} handlers of the consumer of stream `{}` still run",
            self.running.load(Ordering::SeqCst),
            self.stream
        )
    }

    pub(super) fn finished(&self) -> Pending<StreamSummary> {
        self.finished.clone()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished.is_complete()
    }

    /// Windows and messages that are handed over and not settled.
    pub(super) fn in_hand(&self) -> (u64, u64) {
        let active = lock(&self.active);
        let messages = active.iter().map(|one| one.1 as u64).sum();
        (active.len() as u64, messages)
    }

    fn stop(self: &Arc<Shared>, timeout: Duration) -> Pending<StreamSummary> {
        if self.finished.is_complete() {
            return self.finished.clone();
        }
        let deadline = transport::after(transport::ms(timeout));
        let shared = self.clone();
        self.hub.core.start_always(
            deadline + Duration::from_secs(10),
            WaitsFor::Consumer(self.id),
            move |_| shared.stop_until(deadline, StopReason::Stopped),
        )
    }

    /// Runs the workers and ends the consumer when the last of them has.
    async fn supervise(self: Arc<Shared>, workers: usize) {
        let _completer = Completer(self.finished.clone());
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..workers {
            running.spawn(self.clone().work());
        }
        while let Some(ended) = running.join_next().await {
            if ended.is_err() {
                let what = "a worker of the stream consumer panicked";
                self.fail(Error::new(ErrorCode::Internal, what));
            }
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
            "stream.end",
            "a consumer of windows has ended",
            &[("outcome", outcome)],
        );
        let sink = lock(&self.sink).take();
        if let Some(sink) = sink {
            if let WindowSink::Events(tell) = &*sink {
                tell(WindowEvent::Ended(result.clone()));
            }
            // What the host gave along is freed where its callbacks run, before anybody hears of the end.
            let dispatcher = &self.hub.core.dispatcher;
            let _ = dispatcher.run(Box::new(move || drop(sink)));
            dispatcher.drained().await;
        }
        self.hub.remove(self.id);
        self.finished.complete(result);
    }

    /// What it did; the error that ended it carries that as its result.
    fn summary(&self) -> Result<StreamSummary> {
        let counts = *lock(&self.counts);
        let summary = |reason| StreamSummary {
            reason,
            windows: counts.windows,
            messages: counts.messages,
            acked: counts.acked,
            nacked: counts.nacked,
            lost: counts.lost,
        };
        match lock(&self.error).clone() {
            None => Ok(summary(lock(&self.reason).unwrap_or(StopReason::Limit))),
            Some(error) => {
                let summary = summary(StopReason::Error);
                let json = serde_json::to_string(&summary).unwrap_or_default();
                Err(error.with_result(json))
            }
        }
    }
}
