//! The client: the rooms under one roof, and how it all ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::{Config, Secret};
use crate::consume::{
    AckOptions, ConsumeOptions, Consumer, ConsumerSink, Hub, PopOptions, Popped, StopReason,
};
use crate::core::{Core, Phase};
use crate::dispatch::Dispatcher;
use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::log::{Level, LogSink};
use crate::options::{FlushOptions, PushOptions, RenewOptions};
use crate::pending::{Completer, Pending, WaitsFor};
use crate::produce::{Flushed, Producer, ReportSink, Scope};
use crate::protocol::DEFAULT_PARTITION;
use crate::protocol::ack::{Ack, AckResult};
use crate::protocol::lease::{Renewal, RenewalResult};
use crate::protocol::push::{Item, PushResult};
use crate::runtime;
use crate::stats::{ConsumerStats, Gauges, PendingStats, Statistics, StatisticsSink};
use crate::stream::{
    PolledWindow, StreamConsumeOptions, StreamConsumer, StreamHub, StreamPollOptions, WindowSink,
};
use crate::sys;
use crate::transport::{self, BackendSink, Backends, TokenSink};

/// The client. Clones are the same client; when the last one is dropped without [`close`](Client::close), it closes in
/// the background with a deadline of zero.
/// ```
/// use queen::{Client, Config, Level};
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// // By a URL, a JSON object, or field by field.
/// let mut config = Config::new("embedded:");
/// config.timeout_millis = 10_000;
/// let client = Client::with_config(config)?;
/// client.set_log(Level::Warn, Some(Arc::new(|_level, record| eprintln!("{record}"))));
///
/// let closed = client.close(Duration::from_secs(10)).wait(Duration::from_secs(11))?;
/// assert_eq!((closed.aborted, closed.unsent), (0, 0));
/// # Ok::<(), queen::Error>(())
/// ```
#[derive(Clone)]
pub struct Client(Arc<Owner>);

/// Closes the client when the last handle goes.
struct Owner(Arc<House>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close_behind();
    }
}

/// The rooms of one client.
struct House {
    core: Arc<Core>,
    producer: Arc<Producer>,
    hub: Arc<Hub>,
    streams: Arc<StreamHub>,
    /// Changed when the task that tells the statistics is to end.
    telling: watch::Sender<()>,
    /// Buffered messages that no close has told of yet.
    lost: AtomicUsize,
    /// Closes under way.
    closes: AtomicUsize,
    /// Whether the last handle is gone.
    dropped: AtomicBool,
}

/// What a close has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Closed {
    /// Calls that were cut short and completed with [`ErrorCode::Closed`].
    pub aborted: usize,
    /// Buffered messages that were not stored before the deadline; each has its report.
    pub unsent: usize,
}

impl Client {
    /// Makes a client from a URL, a JSON list of URLs or a JSON object; see [`Config::parse`]. Connects to nothing.
    pub fn new(config: &str) -> Result<Client> {
        Client::with_config(Config::parse(config)?)
    }

    /// Makes a client. Connects to nothing and starts nothing.
    pub fn with_config(config: Config) -> Result<Client> {
        config.check()?;
        sys::install();
        let core = Core::new(config)?;
        Ok(Client(Arc::new(Owner(Arc::new(House {
            producer: Producer::new(&core),
            hub: Hub::new(&core),
            streams: StreamHub::new(&core),
            telling: watch::Sender::new(()),
            lost: AtomicUsize::new(0),
            closes: AtomicUsize::new(0),
            dropped: AtomicBool::new(false),
            core,
        })))))
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0.0.core
    }

    pub(crate) fn producer(&self) -> &Arc<Producer> {
        &self.0.0.producer
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.0.0.hub
    }

    /// Pushes to one partition, else to `Default`, from a JSON array of `{payload, transactionId?, traceId?}`, or as
    /// [`PushOptions::classic_items`] says.
    pub fn push_json(
        &self,
        queue: &str,
        partition: Option<&str>,
        items: &str,
        options: &PushOptions,
    ) -> Pending<Vec<PushResult>> {
        let partition = partition.unwrap_or(DEFAULT_PARTITION);
        match Item::read_list(items, options.classic_items) {
            Ok(items) => self.producer().push(queue, partition, &items, options),
            Err(error) => Pending::finished(Err(error)),
        }
    }

    /// Pops from a queue, or from any queue of the namespace or task that the options name.
    pub fn pop(
        &self,
        queue: Option<&str>,
        partition: Option<&str>,
        options: &PopOptions,
    ) -> Pending<Popped> {
        let popping = self.hub().pop(queue, partition, options);
        self.core().watch("client.pop", popping, || {
            vec![("queue", queue.into()), ("partition", partition.into())]
        })
    }

    /// Starts a consumer; see [`ConsumeOptions`] and [`ConsumerSink`].
    pub fn consume(&self, options: ConsumeOptions, sink: ConsumerSink) -> Result<Consumer> {
        self.hub().consume(options, sink)
    }

    /// Polls for one window of a stream, in turn with all polls of that group in this process.
    pub fn poll_window(
        &self,
        stream: &str,
        group: &str,
        options: &StreamPollOptions,
    ) -> Pending<PolledWindow> {
        let polling = self.0.0.streams.poll_once(stream, group, options);
        self.core().watch("stream.poll", polling, || {
            vec![("stream", stream.into()), ("consumerGroup", group.into())]
        })
    }

    /// Acks a window by the id of its lease, or gives it back. That of a window which this client has in hand settles it
    /// there.
    pub fn settle_window(
        &self,
        lease_id: &str,
        success: bool,
        timeout_millis: Option<u64>,
    ) -> Pending<()> {
        self.0.0.streams.settle(lease_id, success, timeout_millis)
    }

    /// Makes the lease of a window last that long from now.
    pub fn renew_window(
        &self,
        lease_id: &str,
        extend_millis: u64,
        options: &RenewOptions,
    ) -> Pending<Renewal> {
        let streams = &self.0.0.streams;
        streams.renew(lease_id, extend_millis, options.timeout_millis)
    }

    /// Starts a consumer of windows; see [`StreamConsumeOptions`] and [`WindowSink`].
    pub fn consume_windows(
        &self,
        options: StreamConsumeOptions,
        sink: WindowSink,
    ) -> Result<StreamConsumer> {
        self.0.0.streams.consume(options, sink)
    }

    /// Gives verdicts by ids. Those of a live delivery of this client settle it there; the rest goes to the broker as
    /// written.
    pub fn ack(&self, acks: Vec<Ack>, options: &AckOptions) -> Pending<Vec<AckResult>> {
        let count = acks.len();
        let acking = self.hub().ack(acks, options);
        self.core()
            .watch("client.ack", acking, || vec![("messages", count.into())])
    }

    /// Makes a lease last at least `lease_seconds` from now.
    pub fn renew(
        &self,
        lease_id: &str,
        lease_seconds: u64,
        options: &RenewOptions,
    ) -> Pending<Renewal> {
        let renewing = self
            .hub()
            .renew(lease_id, lease_seconds, options.timeout_millis);
        self.core().watch("client.renew", renewing, || {
            vec![
                ("leaseId", lease_id.into()),
                ("leaseSeconds", lease_seconds.into()),
            ]
        })
    }

    /// Renews several leases, each of them once however often it is named, and tells what became of each, in the caller's
    /// order. [`ErrorCode::Partial`] where some were not renewed, or the error that all share.
    pub fn renew_many(
        &self,
        lease_ids: &[String],
        lease_seconds: u64,
        options: &RenewOptions,
    ) -> Pending<Vec<RenewalResult>> {
        let renewing = self
            .hub()
            .renew_many(lease_ids, lease_seconds, options.timeout_millis);
        self.core().watch("renew.many", renewing, || {
            vec![
                ("leases", lease_ids.len().into()),
                ("leaseSeconds", lease_seconds.into()),
            ]
        })
    }

    /// Sends what is buffered and completes when every push submitted before is settled, well or not. Fails with
    /// [`ErrorCode::Timeout`] at the deadline; the result of the error, and its message, have the number of messages that
    /// are left.
    pub fn flush(&self, options: &FlushOptions) -> Pending<Flushed> {
        let flushing = self.producer().flush(options);
        self.core().watch("client.flush", flushing, || {
            vec![
                ("queue", options.queue.clone().into()),
                ("partition", options.partition.clone().into()),
            ]
        })
    }

    /// Sends delivery reports of buffered messages to a sink, instead of where they went before; `None` stops them.
    pub fn set_reports(&self, sink: Option<ReportSink>) {
        self.producer().set_reports(sink);
    }

    /// What the client has done and what it has under way.
    pub fn stats(&self) -> Statistics {
        let message = "the statistics were asked for";
        self.core()
            .logger
            .log(Level::Debug, "client.stats", message, &[]);
        self.0.0.stats()
    }

    /// Completes when there is room for further calls.
    pub fn ready(&self) -> Pending<()> {
        let core = self.core().clone();
        self.core().start_always(
            transport::after(u64::MAX),
            WaitsFor::Broker,
            move |_| async move {
                core.budget.ready().await;
                Ok(())
            },
        )
    }

    /// Sends log records of that level and above to a sink, instead of where they went before; `None` stops them.
    pub fn set_log(&self, level: Level, sink: Option<LogSink>) {
        self.core().logger.set(level, sink);
    }

    /// Sends the statistics to a sink every `statistics_interval_millis`, instead of where they went before; `None` stops
    /// them. [`ErrorCode::InvalidConfig`] when the interval is 0.
    pub fn set_statistics(&self, sink: Option<StatisticsSink>) -> Result<()> {
        self.0.0.tell_statistics(sink)
    }

    /// Sets the bearer token of all further requests, those that wait for one included. `None` says that there is none to
    /// be had: who waits for it fails with [`ErrorCode::Unauthorized`].
    pub fn set_token(&self, token: Option<&Secret>) -> Result<()> {
        self.core().transport.set_token(token)
    }

    /// Asks a sink for a bearer token when there is none and when a broker refuses it (HTTP 401): one question at a time,
    /// answered by [`set_token`](Client::set_token). Requests wait for the answer until their deadline. `None` asks nobody.
    pub fn set_token_wanted(&self, sink: Option<TokenSink>) {
        self.core().transport.watch_tokens(sink);
    }

    /// Tells a sink when a broker becomes unhealthy or recovers, instead of whom it told before; `None` tells nobody.
    pub fn set_backend_states(&self, sink: Option<BackendSink>) {
        self.core().transport.watch_backends(sink);
    }

    /// The brokers with their health, and how requests are spread over them.
    pub fn backends(&self) -> Backends {
        self.core().transport.backends()
    }

    /// The thread on which callbacks of this client run. Holding it does not keep the client open.
    pub fn dispatcher(&self) -> Dispatcher {
        Dispatcher::new(&self.core().dispatcher)
    }

    /// Closes the client within `timeout`: stops consumers, flushes pushes and verdicts, ends what is left with
    /// [`ErrorCode::Closed`], waits for callbacks, and closes an embedded store. [`ErrorCode::Timeout`] names what still
    /// runs; call again to wait longer. [`ErrorCode::Partial`]: the client is closed, and buffered messages were not
    /// stored; the message and the result of the error have their number.
    pub fn close(&self, timeout: Duration) -> Pending<Closed> {
        self.0.0.close(timeout)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({:?})", self.core().config.urls)
    }
}

impl House {
    fn stats(&self) -> Statistics {
        let (messages, bytes) = self.core.budget.used();
        self.core.stats.snapshot(Gauges {
            retries: self.core.transport.resent() + self.core.stats.push_retries.get(),
            pending: PendingStats {
                messages: messages as u64,
                bytes: bytes as u64,
            },
            buffers: self.producer.buffers(),
            consumers: self.counts(),
        })
    }

    fn counts(&self) -> ConsumerStats {
        let counts = self.hub.counts();
        let (running, windows, messages) = self.streams.counts();
        ConsumerStats {
            running: counts.running + running,
            deliveries: counts.deliveries + windows,
            messages: counts.messages + messages,
        }
    }

    /// Handlers that have not returned, for an error message.
    fn still_running(&self) -> Vec<String> {
        let mut running = self.hub.still_running();
        running.extend(self.streams.still_running());
        running
    }

    /// Starts the task that tells the statistics, or ends it.
    fn tell_statistics(self: &Arc<House>, sink: Option<StatisticsSink>) -> Result<()> {
        let millis = self.core.config.statistics_interval_millis;
        if sink.is_some() && millis == 0 {
            return Err(Error::new(
                ErrorCode::InvalidConfig,
                "config `statisticsIntervalMillis` is 0, so statistics are never told; set it when the client is made",
            ));
        }
        if sink.is_some() {
            self.core.check_accepting()?;
        }
        self.telling.send_replace(());
        let Some(sink) = sink else { return Ok(()) };
        let mut changed = self.telling.subscribe();
        let house = Arc::downgrade(self);
        self.core.runtime()?.spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(millis));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            loop {
                tokio::select! {
                    _ = changed.changed() => return,
                    _ = ticks.tick() => {}
                }
                // It does not keep the client alive, and ends with it.
                let Some(house) = house.upgrade() else { return };
                sink(&house.stats());
            }
        });
        Ok(())
    }

    fn close(self: &Arc<House>, timeout: Duration) -> Pending<Closed> {
        let pending = Pending::new(WaitsFor::Client(self.core.id));
        let runtime = match self.core.runtime() {
            Ok(runtime) => runtime,
            Err(error) => return Pending::finished(Err(error)),
        };
        self.closes.fetch_add(1, Ordering::SeqCst);
        self.core.enter(Phase::Closing);
        let (house, operation) = (self.clone(), pending.clone());
        let deadline = transport::after(transport::ms(timeout));
        runtime.spawn(async move {
            let _completer = Completer(operation.clone());
            let result = house.close_until(deadline).await;
            let closed = match &result {
                Ok(_) => true,
                // Messages are lost, but nothing runs any more.
                Err(error) => error.code() == ErrorCode::Partial,
            };
            // Its own callback is queued here, as the last one.
            operation.complete(result);
            if house.closes.fetch_sub(1, Ordering::SeqCst) > 1 {
                return;
            }
            if closed {
                house.core.dispatcher.seal();
            } else if house.dropped.load(Ordering::SeqCst) {
                house.end().await;
            }
        });
        pending
    }

    /// The steps of a close, all under one deadline.
    async fn close_until(&self, deadline: Instant) -> Result<Closed> {
        let core = &self.core;
        core.logger
            .log(Level::Info, "client.close", "the client closes", &[]);
        self.telling.send_replace(());
        let (hub, streams) = (&self.hub, &self.streams);
        tokio::join!(
            hub.stop_all(deadline, StopReason::Closed),
            streams.stop_all(deadline, StopReason::Closed)
        );
        let (_, _) = self
            .producer
            .clone()
            .settle(Scope::default(), deadline)
            .await;
        let direct = self.producer.unsettled_direct();
        let unsent = self.producer.close(PROMPT).await;
        self.lost.fetch_add(unsent, Ordering::SeqCst);
        self.hub.give_back_untaken();
        let _ = tokio::time::timeout_at(deadline, core.tasks_ended()).await;
        if unsent + direct > 0 {
            core.logger.log(
                Level::Warn,
                "client.close",
                "messages are not answered for when the client closes",
                &[
                    ("messages", (unsent + direct).into()),
                    ("buffered", unsent.into()),
                ],
            );
        }
        let aborted = self.producer.abort_rest() + core.abort_rest();
        self.hub.abandon_all();
        core.transport.close().await;
        // What the host gave along with its callbacks is freed on the dispatcher.
        let (sinks, producer) = (core.clone(), self.producer.clone());
        let _ = core.dispatcher.run(Box::new(move || {
            producer.set_reports(None);
            sinks.logger.set(Level::Error, None);
            sinks.transport.watch_backends(None);
            sinks.transport.watch_tokens(None);
        }));
        let patience = deadline.max(Instant::now() + SHORT);
        let drained = tokio::time::timeout_at(patience, core.dispatcher.drained())
            .await
            .is_ok();
        let running = self.still_running();
        match (running.is_empty(), drained) {
            (true, true) => match self.lost.swap(0, Ordering::SeqCst) {
                0 => Ok(Closed { aborted, unsent: 0 }),
                unsent => Err(unsent_error(aborted, unsent)),
            },
            (false, _) => Err(Error::new(
                ErrorCode::Timeout,
                format!("the close waits: {}", running.join("; ")),
            )),
            (true, false) => Err(Error::new(
                ErrorCode::Timeout,
                "the close waits: a callback still runs",
            )),
        }
    }

    /// The close of a client that was dropped: nobody hears how it went.
    fn close_behind(self: &Arc<House>) {
        let over = self.core.phase() == Phase::Closed && self.still_running().is_empty();
        if over || !runtime::is_running() {
            self.core.enter(Phase::Closed);
            return self.core.dispatcher.seal();
        }
        self.dropped.store(true, Ordering::SeqCst);
        if self.closes.load(Ordering::SeqCst) > 0 {
            // A close is under way and has its own deadline.
            return;
        }
        self.core.enter(Phase::Closing);
        let Ok(runtime) = self.core.runtime() else {
            return;
        };
        let house = self.clone();
        runtime.spawn(async move {
            let _ = house.close_until(Instant::now()).await;
            house.end().await;
        });
    }

    /// Waits for handlers that still run, however long they take, so that the threads end after them.
    async fn end(&self) {
        self.hub.all_finished().await;
        self.streams.all_finished().await;
        self.core.dispatcher.drained().await;
        self.core.dispatcher.seal();
    }
}

fn unsent_error(aborted: usize, unsent: usize) -> Error {
    let result = serde_json::json!({"aborted": aborted, "unsent": unsent});
    Error::new(
        ErrorCode::Partial,
        format!(
            "the client is closed, and {unsent} buffered messages were not stored before the deadline; their reports \
             name them"
        ),
    )
    .with_outcome(Outcome::Unknown)
    .with_result(result.to_string())
}

/// What callbacks that are queued already may take beyond a deadline of zero.
const SHORT: Duration = Duration::from_millis(20);

/// What tasks that were told to end may take to do so.
const PROMPT: Duration = Duration::from_secs(5);
