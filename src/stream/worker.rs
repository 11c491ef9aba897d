//! One worker of a consumer of windows.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedMutexGuard, oneshot};

use super::consumer::{Handler, Shared, WindowEvent, WindowSink};
use super::lease::{Ending, Lease, OnLost};
use super::turns::turn;
use super::window::Window;
use crate::consume::{Settlement, StopReason, ends_consumer, told};
use crate::error::{Error, ErrorCode, Result};
use crate::log::Level;
use crate::runtime::lock;
use crate::transport;

/// The least time between two polls when the first was empty.
const EMPTY_PAUSE: Duration = Duration::from_millis(100);

impl Shared {
    pub(super) async fn work(self: Arc<Shared>) {
        while let Some(window) = self.next().await {
            self.handle(window).await;
            self.touch();
        }
    }

    /// The next window. `None`: there is no more to do.
    async fn next(self: &Arc<Shared>) -> Option<Window> {
        loop {
            if let Some(until) = self.pace.until() {
                self.until_stop(tokio::time::sleep_until(until)).await?;
            }
            let turn = turn(&self.hub.core, &self.stream, &self.group);
            let turn = self.until_stop(turn).await?;
            // While it waited for its turn others may have failed.
            if self
                .pace
                .until()
                .is_some_and(|at| at > tokio::time::Instant::now())
            {
                continue;
            }
            if self.is_at_limit() {
                self.ask_to_stop(StopReason::Limit);
                return None;
            }
            let Some(patience) = self.patience() else {
                self.ask_to_stop(StopReason::Idle);
                return None;
            };
            let began = Instant::now();
            match self.poll(patience, turn).await? {
                Ok(Some(window)) => return Some(window),
                Ok(None) => {
                    // A broker that does not wait is not asked again at once.
                    let rest = EMPTY_PAUSE.min(patience).saturating_sub(began.elapsed());
                    self.until_stop(tokio::time::sleep(rest)).await?;
                }
                Err(error) if ends_consumer(&error) => {
                    self.fail(error);
                    return None;
                }
                Err(error) => {
                    let most = Duration::from_millis(self.hub.core.config.retry_max_delay_millis);
                    let asked = error.retry_after().unwrap_or_default().min(most);
                    let pause = self.pace.failed(asked);
                    self.hub.core.logger.log(
                        Level::Warn,
                        "stream.poll",
                        "a poll failed and is tried again",
                        &[
                            ("stream", self.stream.clone().into()),
                            ("error", error.to_string().into()),
                            ("backoffMillis", transport::ms(pause).into()),
                        ],
                    );
                }
            }
        }
    }

    /// One poll; a stop breaks it off. Its request is then kept for the grace period, and what it brings goes back.
    async fn poll(
        self: &Arc<Shared>,
        patience: Duration,
        turn: OwnedMutexGuard<()>,
    ) -> Option<Result<Option<Window>>> {
        let weak = Arc::downgrade(self);
        let on_lost: OnLost = Arc::new(move |json| {
            if let Some(shared) = weak.upgrade() {
                shared.tell_lost(json);
            }
        });
        let (hub, stream, group) = (self.hub.clone(), self.stream.clone(), self.group.clone());
        let wait = transport::ms(patience);
        let deadline = transport::after(wait.saturating_add(hub.core.config.timeout_millis));
        let mut poll = Box::pin(async move {
            let polled = hub.poll(&stream, &group, wait, deadline, Some(on_lost));
            let polled = polled.await;
            drop(turn);
            polled
        });
        match self.until_stop(&mut poll).await {
            Some(Ok(Some(window))) => {
                self.note(&window);
                Some(Ok(Some(window)))
            }
            Some(polled) => Some(polled),
            None => {
                let grace = self.hub.core.cancel_grace();
                if !grace.is_zero() {
                    self.hub.core.background(async move {
                        let _ = tokio::time::timeout(grace, poll).await;
                    });
                }
                None
            }
        }
    }

    /// Counts a window before any other worker polls.
    fn note(&self, window: &Window) {
        self.touch();
        let messages = window.original_size();
        let mut counts = lock(&self.counts);
        counts.windows += 1;
        counts.messages += messages;
        drop(counts);
        lock(&self.active).push((window.lease().clone(), messages));
    }

    fn is_at_limit(&self) -> bool {
        let limit = self.options.limit;
        limit.is_some_and(|limit| lock(&self.counts).windows as u64 >= limit)
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
        if !lock(&self.active).is_empty() {
            return Some(poll.min(idle));
        }
        let left = idle.saturating_sub(lock(&self.last_activity).elapsed());
        (!left.is_zero()).then(|| poll.min(left.max(Duration::from_millis(1))))
    }

    /// The result of a future, unless the consumer stops first.
    async fn until_stop<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut stopping = self.stopping.subscribe();
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => None,
            result = future => Some(result),
        }
    }

    /// Hands a window over and waits until its verdict is answered.
    async fn handle(self: &Arc<Shared>, window: Window) {
        let lease = window.lease().clone();
        if self.options.renew_lease {
            let core = &self.hub.core;
            core.detach(
                lease
                    .clone()
                    .keep(self.options.extend_millis, self.options.longest()),
            );
        }
        if let Some(sink) = self.sink() {
            match &*sink {
                WindowSink::Handler(_) => {
                    if let Some(returned) = self.run_handler(sink.clone(), window) {
                        let _ = returned.await;
                    }
                }
                WindowSink::Events(tell) => {
                    if !tell(WindowEvent::Window(window)) {
                        self.ask_to_stop(StopReason::Stopped);
                    }
                }
            }
        }
        let ending = lease.ended().await;
        {
            let mut counts = lock(&self.counts);
            match ending {
                Ending::Acked => counts.acked += 1,
                Ending::Nacked => counts.nacked += 1,
                Ending::Lost => counts.lost += 1,
            }
        }
        match ending {
            Ending::Acked => self.pace.went_well(),
            Ending::Nacked | Ending::Lost => drop(self.pace.failed(Duration::ZERO)),
        }
        lock(&self.active).retain(|active| !Arc::ptr_eq(&active.0, &lease));
    }

    /// Queues the handler on one of its threads. What it returns tells that it is done.
    fn run_handler(
        self: &Arc<Shared>,
        sink: Arc<WindowSink>,
        window: Window,
    ) -> Option<oneshot::Receiver<()>> {
        let (done, returned) = oneshot::channel();
        let shared = self.clone();
        let job = move || {
            if let WindowSink::Handler(handler) = &*sink {
                let lease = window.lease().clone();
                // Held until the verdict is given, or the window would go back with the handler's own.
                let settlement = run(handler, window.clone());
                shared.settle_as(settlement, &lease);
                drop(window);
            }
            shared.running.fetch_sub(1, Ordering::SeqCst);
            drop(sink);
            let _ = done.send(());
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

    /// Settles the window as the handler has answered, unless it has a verdict.
    fn settle_as(&self, settlement: Settlement, lease: &Arc<Lease>) {
        let (success, reason) = match settlement {
            Settlement::Defer => return,
            Settlement::Ack => (true, None),
            Settlement::Nack => (false, Some("the handler answered with a nack".to_owned())),
            Settlement::NackWith(reason) => (false, Some(reason)),
            Settlement::Other(number) => (
                false,
                Some(format!(
                    "the handler answered with {number}, which is none of its answers"
                )),
            ),
        };
        let logger = self.hub.core.logger.clone();
        let window = lease.window_id.clone();
        if let Some(reason) = reason {
            logger.log(
                Level::Warn,
                "stream.handler",
                "a window is given back and comes again",
                &[("window", window.clone().into()), ("reason", reason.into())],
            );
        }
        let settled = lease.settle(success);
        let outcome = settled.clone();
        settled.when_complete(move || match outcome.result() {
            // The handler has given the verdict itself.
            Some(Err(error)) if error.code() == ErrorCode::AlreadySettled => {}
            Some(Err(error)) => logger.log(
                Level::Warn,
                "stream.settle",
                "a verdict does not count",
                &[
                    ("window", window.into()),
                    ("error", error.to_string().into()),
                ],
            ),
            _ => {}
        });
    }
}

/// Runs the handler; a panic is a nack.
fn run(handler: &Handler, window: Window) -> Settlement {
    catch_unwind(AssertUnwindSafe(|| handler(window)))
        .unwrap_or_else(|panic| Settlement::NackWith(told(&*panic)))
}
