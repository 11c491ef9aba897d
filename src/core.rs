//! What every room of a client shares: settings, the way to the brokers, and how operations start and end.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::budget::Budget;
use crate::config::Config;
use crate::dispatch::Workers;
use crate::error::{Error, ErrorCode, Result};
use crate::log::{Level, Logger};
use crate::pending::{Completer, Pending, WaitsFor};
use crate::registry::Registry;
use crate::runtime::{self, Life, Living, Role};
use crate::stats::{Route, Stats};
use crate::transport::{self, Answer, Request, Transport};

/// A number that no other client or consumer of the process has.
pub(crate) fn next_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

pub(crate) struct Core {
    pub(crate) id: u64,
    pub(crate) config: Config,
    pub(crate) transport: Transport,
    pub(crate) logger: Arc<Logger>,
    /// The thread on which callbacks run, one at a time.
    pub(crate) dispatcher: Arc<Workers>,
    pub(crate) budget: Budget,
    pub(crate) stats: Stats,
    phase: AtomicU8,
    registry: Registry,
    /// Tasks nobody waits for but the close: verdicts and returns.
    tasks: AtomicUsize,
    task_ended: Notify,
    _living: Living,
}

/// How far the client's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    Open,
    /// Running handlers may go on working, nothing else starts.
    Closing,
    Closed,
}

impl Core {
    /// Connects to nothing and starts nothing.
    pub(crate) fn new(config: Config) -> Result<Arc<Core>> {
        let id = next_id();
        let logger = Arc::new(Logger::from_environment());
        let transport = Transport::new(&config, &logger)?;
        logger.log(
            Level::Info,
            "client.new",
            "a client was made",
            &[("urls", config.urls.clone().into())],
        );
        Ok(Arc::new(Core {
            id,
            transport,
            logger,
            dispatcher: Workers::dispatcher(id),
            budget: Budget::new(config.max_pending_messages, config.max_pending_bytes),
            stats: Stats::default(),
            phase: AtomicU8::new(Phase::Open as u8),
            registry: Registry::default(),
            tasks: AtomicUsize::new(0),
            task_ended: Notify::new(),
            config,
            _living: Living::new(Life::Inner),
        }))
    }

    pub(crate) fn runtime(&self) -> Result<Handle> {
        runtime::handle()
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Open,
            1 => Phase::Closing,
            _ => Phase::Closed,
        }
    }

    /// Goes on to a later phase.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
    }

    /// Whether new calls may start. While the client closes, its own handlers may still work.
    pub(crate) fn check_accepting(&self) -> Result<()> {
        let own = matches!(runtime::role(), Role::Callbacks { client, .. } if client == self.id);
        match self.phase() {
            Phase::Open => Ok(()),
            Phase::Closing if own => Ok(()),
            _ => Err(closed()),
        }
    }

    /// Whether verdicts may still be given.
    pub(crate) fn check_open(&self) -> Result<()> {
        match self.phase() {
            Phase::Closed => Err(closed()),
            _ => Ok(()),
        }
    }

    /// Starts an operation that counts `cost` (messages, bytes) against the bounds. It ends at `deadline` at the latest.
    pub(crate) fn start<T, F>(
        self: &Arc<Core>,
        cost: (usize, usize),
        deadline: Instant,
        work: impl FnOnce(Pending<T>) -> F,
    ) -> Pending<T>
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let permit = match self
            .check_accepting()
            .and_then(|()| self.budget.take(cost.0, cost.1))
        {
            Ok(permit) => permit,
            Err(error) => return Pending::finished(Err(error)),
        };
        let pending = Pending::new(WaitsFor::Broker);
        pending.hold(permit);
        self.launch(pending, deadline, work)
    }

    /// Starts an operation that is neither counted nor refused while the client closes.
    pub(crate) fn start_always<T, F>(
        self: &Arc<Core>,
        deadline: Instant,
        waits_for: WaitsFor,
        work: impl FnOnce(Pending<T>) -> F,
    ) -> Pending<T>
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        match self.check_open() {
            Ok(()) => self.launch(Pending::new(waits_for), deadline, work),
            Err(error) => Pending::finished(Err(error)),
        }
    }

    fn launch<T, F>(
        self: &Arc<Core>,
        pending: Pending<T>,
        deadline: Instant,
        work: impl FnOnce(Pending<T>) -> F,
    ) -> Pending<T>
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let runtime = match self.runtime() {
            Ok(runtime) => runtime,
            Err(error) => return Pending::finished(Err(error)),
        };
        let pending = self.register(pending);
        let work = work(pending.clone());
        let core = self.clone();
        let operation = pending.clone();
        // By its address: a task is moved half a dozen times.
        runtime.spawn(Box::pin(async move {
            // Completes the operation even if the work panics or the runtime ends.
            let _completer = Completer(operation.clone());
            let _registered = Registered(core, &operation);
            // At the deadline the work is dropped first, with all that it holds, so that nobody hears of the end before.
            let ended = tokio::time::timeout_at(deadline, work).await;
            match ended {
                Ok(result) => operation.complete(result),
                Err(_) => operation.abort(ErrorCode::Timeout, "no answer before the deadline"),
            }
        }));
        pending
    }

    /// Sends a request, counts it and logs how it went.
    pub(crate) async fn send(&self, request: &Request) -> Result<Answer> {
        let began = Instant::now();
        let _in_flight = self.stats.requests_in_flight.enter();
        let path = request.bare_path();
        let bytes = request.body.as_ref().map_or(0, bytes::Bytes::len);
        let log = |operation: &str, message: &str, more: &[(&str, Value)]| {
            if self.logger.wants(Level::Debug) {
                let mut fields = vec![
                    ("method", request.method.as_str().into()),
                    ("path", path.into()),
                ];
                fields.extend(more.iter().cloned());
                self.logger.log(Level::Debug, operation, message, &fields);
            }
        };
        log(
            "transport.request",
            "a request is sent",
            &[("bytes", bytes.into())],
        );
        let result = self.transport.send(request).await;
        let took = began.elapsed();
        let answer = result
            .as_ref()
            .map(|answer| (answer.status, answer.body.len()));
        let outcome = match &answer {
            Ok((status, _)) => ("status", (*status).into()),
            Err(error) => ("error", error.to_string().into()),
        };
        let millis = ("millis", transport::ms(took).into());
        log(
            "transport.response",
            "a request has ended",
            &[outcome, millis],
        );
        self.stats.request(Route::of(path), took, bytes, answer);
        result
    }

    /// Logs how an operation ends, where somebody listens. Payloads do not belong into `fields`.
    pub(crate) fn watch<T: Clone + Send + Sync + 'static>(
        self: &Arc<Core>,
        operation: &'static str,
        pending: Pending<T>,
        fields: impl FnOnce() -> Vec<(&'static str, Value)>,
    ) -> Pending<T> {
        if self.logger.wants(Level::Debug) {
            let (core, ended) = (self.clone(), pending.clone());
            let (mut fields, began) = (fields(), Instant::now());
            pending.when_complete(move || {
                fields.push(("millis", transport::ms(began.elapsed()).into()));
                if let Some(Err(error)) = ended.result() {
                    fields.push(("error", error.to_string().into()));
                }
                let message = "an operation has ended";
                core.logger.log(Level::Debug, operation, message, &fields);
            });
        }
        pending
    }

    /// Notes an operation so that a close can end it.
    pub(crate) fn register<T: Clone + Send + Sync + 'static>(
        &self,
        pending: Pending<T>,
    ) -> Pending<T> {
        if !self.registry.insert(&pending) {
            pending.abort(ErrorCode::Closed, "the client is closed");
        }
        pending
    }

    pub(crate) fn unregister<T: Clone>(&self, pending: &Pending<T>) {
        self.registry.remove(pending);
    }

    /// Ends every operation that is left, and tells how many those were; no new one can begin after this.
    pub(crate) fn abort_rest(&self) -> usize {
        self.enter(Phase::Closed);
        let rest = self.registry.close();
        for operation in &rest {
            operation.abort(ErrorCode::Closed, "the client was closed first");
        }
        rest.len()
    }

    /// Runs a task that a close waits for.
    pub(crate) fn background(self: &Arc<Core>, task: impl Future<Output = ()> + Send + 'static) {
        struct Ended(Arc<Core>);
        impl Drop for Ended {
            fn drop(&mut self) {
                self.0.tasks.fetch_sub(1, Ordering::SeqCst);
                self.0.task_ended.notify_waiters();
            }
        }
        if let Ok(runtime) = self.runtime() {
            self.tasks.fetch_add(1, Ordering::SeqCst);
            let ended = Ended(self.clone());
            runtime.spawn(async move {
                let _ended = ended;
                task.await;
            });
        }
    }

    /// Completes when no such task runs.
    pub(crate) async fn tasks_ended(&self) {
        loop {
            let ended = self.task_ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.tasks.load(Ordering::SeqCst) == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Runs a task that ends by itself once its client does.
    pub(crate) fn detach(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = self.runtime() {
            runtime.spawn(Box::pin(task)); // by its address: a task is moved half a dozen times
        }
    }

    /// How long the request of a cancelled poll is kept; not at all where the broker itself releases dropped polls.
    pub(crate) fn cancel_grace(&self) -> Duration {
        match self.transport.releases_dropped_polls() {
            true => Duration::ZERO,
            false => Duration::from_millis(self.config.cancel_grace_millis),
        }
    }
}

/// Takes an operation out of the table when its task ends.
struct Registered<'a, T: Clone>(Arc<Core>, &'a Pending<T>);

impl<T: Clone> Drop for Registered<'_, T> {
    fn drop(&mut self) {
        self.0.unregister(self.1);
    }
}

fn closed() -> Error {
    Error::new(ErrorCode::Closed, "the client is closed")
}
