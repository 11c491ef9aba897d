//! One worker of a consumer: it polls ahead while handlers work on what the last poll brought.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::claim::{Claim, OnLost};
use super::consumer::{Shared, StopReason};
use super::delivery::Delivery;
use super::quota::Share;
use super::sizing::Sizing;
use crate::error::{Error, ErrorCode};
use crate::log::Level;
use crate::runtime::lock;
use crate::transport;

/// The least time between two polls when the first was empty.
const EMPTY_PAUSE: Duration = Duration::from_millis(100);
/// What a poll that waited until an idle consumer ends may take to come back.
const IDLE_GRACE: Duration = Duration::from_millis(500);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(5);

/// The most deliveries of one worker that are handed over and whose verdicts are not answered.
const MOST_ENDING: usize = 2;

/// What polls have brought and no worker has begun to hand over: the first that has time takes it, whoever polled.
pub(super) struct Shelf {
    /// `None` when it is closed.
    catches: Mutex<Option<VecDeque<Catch>>>,
    more: Notify,
}

impl Shelf {
    pub(super) fn new() -> Shelf {
        Shelf {
            catches: Mutex::new(Some(VecDeque::new())),
            more: Notify::new(),
        }
    }

    /// Gives back what comes when it is closed: a stop may be faster than the poll whose answer has just come.
    fn put(&self, catch: Catch) {
        if let Some(catches) = &mut *lock(&self.catches) {
            catches.push_back(catch);
        }
        self.more.notify_one();
    }

    fn take(&self) -> Option<Catch> {
        let mut catches = lock(&self.catches);
        let catches = catches.as_mut()?;
        let catch = catches.pop_front()?;
        if !catches.is_empty() {
            // One notification may have stood for several.
            self.more.notify_one();
        }
        Some(catch)
    }

    /// Gives back what is there and what still comes; the claims of what is there.
    pub(super) fn close(&self) -> Vec<Arc<Claim>> {
        let catches = lock(&self.catches).take().unwrap_or_default();
        let deliveries = catches.iter().flat_map(|catch| &catch.deliveries);
        deliveries.map(|one| one.claim().clone()).collect()
    }
}

/// A worker and its poll. While handlers work the next poll runs ahead, and puts on the shelf what it brings.
struct Worker {
    shared: Arc<Shared>,
    poll: Option<JoinHandle<Got>>,
    /// When the poll began, unless it runs ahead.
    poll_began: Option<Instant>,
    /// Deliveries that are handed over and whose verdicts are on their way.
    ending: JoinSet<()>,
    /// Messages handed over.
    handed: u64,
    backoff: Duration,
    /// Set when the worker polls no more.
    enough: watch::Sender<bool>,
}

/// What a poll brought, with the share of the total that it may hand over.
struct Catch {
    deliveries: Vec<Delivery>,
    share: Option<Share>,
}

impl Catch {
    /// How many messages.
    fn len(&self) -> u64 {
        let deliveries = self.deliveries.iter();
        deliveries.map(|one| one.messages().len() as u64).sum()
    }
}

/// How a poll ended.
enum Got {
    /// It has put something on the shelf.
    Some,
    Nothing,
    Failed(Error),
    /// All of `limit_total` is handed over.
    Spent,
    /// The consumer or the worker stops.
    Stopped,
}

impl Shared {
    pub(super) async fn work(self: Arc<Shared>) {
        self.hub.core.logger.log(
            Level::Debug,
            "consumer.worker",
            "a worker begins to poll",
            &[("queue", self.options.queue.clone().into())],
        );
        let mut worker = Worker {
            shared: self,
            poll: None,
            poll_began: None,
            ending: JoinSet::new(),
            handed: 0,
            backoff: FIRST_BACKOFF,
            enough: watch::Sender::new(false),
        };
        worker.run().await;
        worker.finish().await;
    }
}

impl Worker {
    async fn run(&mut self) {
        while !self.shared.is_stopping() && !self.shared.is_at_limit(self.handed) {
            let ahead = self.shared.prefetches();
            if let Some(catch) = self.shared.shelf.take() {
                let planned = self.handed + catch.len();
                if ahead && !self.shared.is_at_limit(planned) && self.poll.is_none() {
                    // It does not wait: what waits at a broker when its client dies may lease something for nobody.
                    self.begin_poll(None, planned);
                }
                self.hand_over(catch).await;
                continue;
            }
            if !ahead {
                while self.ending.join_next().await.is_some() {}
            }
            if self.poll.is_none() {
                let Some(patience) = self.shared.patience() else {
                    // Idle means that no worker has anything to do, so it ends them all.
                    return self.shared.ask_to_stop(StopReason::Idle);
                };
                self.begin_poll(Some(patience), self.handed);
            }
            let got = self.wait().await;
            if !self.take(got).await {
                return;
            }
        }
    }

    async fn hand_over(&mut self, catch: Catch) {
        while self.ending.len() >= MOST_ENDING {
            self.ending.join_next().await;
        }
        let shared = self.shared.clone();
        let ending = shared.hand_over(catch.deliveries, &mut self.handed, catch.share);
        let ending = ending.await;
        self.ending.spawn(ending);
    }

    fn begin_poll(&mut self, patience: Option<Duration>, planned: u64) {
        self.poll_began = patience.map(|_| Instant::now());
        let (shared, enough) = (self.shared.clone(), self.enough.subscribe());
        let room = self.room(planned);
        self.poll = Some(tokio::spawn(async move {
            let share = match &shared.quota {
                None => None,
                Some(quota) => match shared.until_stop(&enough, quota.take(room)).await {
                    Some(Some(share)) => Some(share),
                    Some(None) => return Got::Spent,
                    None => return Got::Stopped,
                },
            };
            Box::pin(shared.fetch(None, patience, room, share, &enough)).await
        }));
    }

    /// How many messages the next poll may bring, when that many are handed over.
    fn room(&self, planned: u64) -> u64 {
        let options = &self.shared.options;
        // What the broker counts as done when it hands it out is not fetched ahead.
        let usual = if options.commit_on_delivery {
            Some(1)
        } else {
            None
        };
        options.batch.or(usual).unwrap_or_else(|| {
            let size = self.shared.sizing.messages();
            let left = options.limit.map(|limit| limit.saturating_sub(planned));
            size.min(left.unwrap_or(size)).max(1)
        })
    }

    /// Waits until there is something on the shelf, from the poll of this worker, of another one, or from one beside it: when
    /// verdicts are answered a partition is free again, of which the poll that waits at the broker may hear late. That one
    /// is left alone, since it may be about to lease something.
    async fn wait(&mut self) -> Got {
        loop {
            let Some(poll) = &mut self.poll else {
                return Got::Nothing;
            };
            tokio::select! {
                biased;
                got = poll => {
                    self.poll = None;
                    return got.unwrap_or_else(|_| Got::Failed(Error::new(ErrorCode::Internal, "a poll panicked")));
                }
                _ = self.shared.shelf.more.notified() => return Got::Some,
                Some(_) = self.ending.join_next() => {}
            }
            if self.shared.prefetches()
                && let found @ (Got::Some | Got::Stopped) = self.look().await
            {
                return found;
            }
        }
    }

    /// Polls that do not wait: one of everything, then those of partitions that the broker may have lost sight of.
    async fn look(&self) -> Got {
        let (shared, mut partition) = (&self.shared, None);
        let enough = self.enough.subscribe();
        loop {
            let room = self.room(self.handed);
            let share = match &shared.quota {
                None => None,
                Some(quota) => match quota.try_take(room) {
                    Some(share) => Some(share),
                    None => return Got::Nothing,
                },
            };
            let fetch = shared.fetch(partition.as_deref(), None, room, share, &enough);
            let got = Box::pin(fetch).await;
            if !matches!(got, Got::Nothing) {
                return got;
            }
            partition = shared.cut.take(|name| shared.works_on(name));
            if partition.is_none() {
                return got;
            }
        }
    }

    /// Goes on with what a poll brought; `false`: there is no more to do.
    async fn take(&mut self, got: Got) -> bool {
        let shared = self.shared.clone();
        match got {
            Got::Some => self.backoff = FIRST_BACKOFF,
            Got::Nothing => {
                self.backoff = FIRST_BACKOFF;
                // A broker that does not wait, asked to or not, is not asked again at once.
                let least = EMPTY_PAUSE.min(shared.patience().unwrap_or_default());
                let rest = match self.poll_began {
                    Some(began) => least.saturating_sub(began.elapsed()),
                    None => Duration::ZERO,
                };
                if !rest.is_zero() {
                    shared.pause(rest).await;
                }
            }
            Got::Spent | Got::Stopped => return false,
            Got::Failed(error) if ends_consumer(&error) => {
                shared.fail(error);
                return false;
            }
            Got::Failed(error) => {
                let most = Duration::from_millis(shared.hub.core.config.retry_max_delay_millis);
                let asked = error.retry_after().unwrap_or_default().min(most);
                let pause = transport::jittered(self.backoff).max(asked);
                shared.hub.core.logger.log(
                    Level::Warn,
                    "consumer.poll",
                    "a poll failed and is tried again",
                    &[
                        ("error", error.to_string().into()),
                        ("backoffMillis", transport::ms(pause).into()),
                    ],
                );
                shared.pause(pause).await;
                self.backoff = (self.backoff * 2).min(LAST_BACKOFF);
            }
        }
        true
    }

    /// Ends the poll and waits for the answers to the verdicts.
    async fn finish(mut self) {
        self.enough.send_replace(true);
        if let Some(poll) = self.poll.take() {
            let _ = poll.await;
        }
        if self.shared.options.commit_on_delivery {
            // It cannot be given back, so it is handled.
            while let Some(catch) = self.shared.shelf.take() {
                self.hand_over(catch).await;
            }
        }
        while self.ending.join_next().await.is_some() {}
    }
}

impl Shared {
    /// Whether a poll may run ahead of the handlers: leases have to be renewed for that, and what was fetched to be given back.
    fn prefetches(&self) -> bool {
        self.options.renew_lease && !self.options.commit_on_delivery && self.sizing.may_prefetch()
    }

    pub(super) fn is_at_limit(&self, handed: u64) -> bool {
        self.options.limit.is_some_and(|limit| handed >= limit)
    }

    pub(super) fn touch(&self) {
        *lock(&self.last_activity) = Instant::now();
    }

    /// How long the next poll may wait. `None`: the consumer has been idle for long enough.
    fn patience(&self) -> Option<Duration> {
        let poll = self.options.poll_timeout();
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

    /// The result of a future, unless the consumer or the worker stops first.
    async fn until_stop<T>(
        &self,
        enough: &watch::Receiver<bool>,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let (mut stopping, mut enough) = (self.stopping.subscribe(), enough.clone());
        tokio::select! {
            result = future => Some(result),
            _ = stopping.wait_for(|stopping| *stopping) => None,
            _ = enough.wait_for(|enough| *enough) => None,
        }
    }

    /// Sleeps unless the consumer stops.
    async fn pause(&self, pause: Duration) {
        let mut stopping = self.stopping.subscribe();
        let stopped = stopping.wait_for(|stopping| *stopping);
        let _ = tokio::time::timeout(pause, stopped).await;
    }

    /// Whether messages of the partition are in hand.
    fn works_on(&self, partition: &str) -> bool {
        let active = lock(&self.active);
        active
            .iter()
            .any(|claim| claim.source().partition == partition)
    }

    /// One poll for at most `room` messages, of one partition alone where it is named, interrupted by a stop: its request is then kept for the grace period and what it
    /// brings goes back.
    async fn fetch(
        self: &Arc<Shared>,
        partition: Option<&str>,
        patience: Option<Duration>,
        room: u64,
        share: Option<Share>,
        enough: &watch::Receiver<bool>,
    ) -> Got {
        let mut query = self.query.clone();
        if let Some(partition) = partition {
            query.partition = Some(partition.to_owned());
        }
        query.batch = share.as_ref().map_or(room, Share::len);
        let most = query.batch;
        query.partitions = match self.options.partitions {
            Some(partitions) => partitions,
            None if self.options.batch.is_some() => 1,
            None => Sizing::partitions(query.batch),
        };
        query.wait_millis = patience
            .filter(|_| self.options.wait)
            .map(|patience| transport::ms(patience).max(1));
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
        let deliveries = match self.until_stop(enough, &mut poll).await {
            Some(result) => result,
            None => {
                let grace = self.hub.core.cancel_grace();
                if self.options.commit_on_delivery {
                    // What still comes cannot be given back, so it is handled.
                    let late = tokio::time::timeout(grace, poll).await;
                    late.unwrap_or_else(|_| Ok(Vec::new()))
                } else {
                    if !grace.is_zero() {
                        self.hub.core.background(async move {
                            let _ = tokio::time::timeout(grace, poll).await;
                        });
                    }
                    return Got::Stopped;
                }
            }
        };
        match deliveries {
            Err(error) => Got::Failed(error),
            Ok(deliveries) if deliveries.is_empty() => Got::Nothing,
            Ok(deliveries) => {
                let gives_back = |one: &Delivery| one.claim().gives_back();
                self.sizing.note_broker(deliveries.iter().all(gives_back));
                self.touch();
                if self.query.partition.is_none() && self.query.queue.is_some() {
                    self.cut.note(most, &deliveries);
                }
                self.shelf.put(Catch { deliveries, share });
                Got::Some
            }
        }
    }
}

/// Errors that no further poll would mend.
pub(crate) fn ends_consumer(error: &Error) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Catch {
        Catch {
            deliveries: Vec::new(),
            share: None,
        }
    }

    #[test]
    fn a_closed_shelf_keeps_nothing() {
        let shelf = Shelf::new();
        shelf.put(nothing());
        assert!(shelf.take().is_some());
        shelf.put(nothing());
        shelf.close();
        shelf.put(nothing());
        assert!(shelf.take().is_none());
    }
}
