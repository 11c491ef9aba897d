//! What the streaming side of a client shares: single polls, and its running consumers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;

use super::consumer::Shared;
use super::lease::{Lease, OnLost, affinity, ask};
use super::turns::turn;
use super::window::Window;
use crate::consume::StopReason;
use crate::core::Core;
use crate::error::{Error, ErrorCode, Result};
use crate::options;
use crate::pending::Pending;
use crate::protocol::check_name;
use crate::protocol::lease::Renewal;
use crate::protocol::stream;
use crate::runtime::lock;
use crate::transport::{self, Answer, Repeat, Request};

/// How much longer than it was asked to a broker may hold a poll. One of generation 0.7 looks every five seconds.
const LATE: u64 = 6_000;

pub(crate) struct StreamHub {
    pub(super) core: Arc<Core>,
    consumers: Mutex<HashMap<u64, Weak<Shared>>>,
    /// Of the windows that are in somebody's hands, by their ids.
    leases: Mutex<HashMap<String, Weak<Lease>>>,
}

/// How to poll for one window. Every field has a default.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StreamPollOptions {
    /// How long to wait at the broker. Default 30 000; 0 only looks.
    pub poll_timeout_millis: u64,
    /// Deadline of the call beyond the waiting. Default: the client's `timeoutMillis`.
    pub timeout_millis: Option<u64>,
}

impl Default for StreamPollOptions {
    fn default() -> Self {
        StreamPollOptions {
            poll_timeout_millis: 30_000,
            timeout_millis: None,
        }
    }
}

impl StreamPollOptions {
    /// Reads an options object with the keys in camelCase.
    pub fn parse(json: &str) -> Result<StreamPollOptions> {
        options::parse("stream.poll", json)
    }
}

/// What a poll brought: a window or nothing. One that is not taken out goes back when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct PolledWindow(Arc<Mutex<Option<Window>>>);

impl PolledWindow {
    fn new(window: Option<Window>) -> PolledWindow {
        PolledWindow(Arc::new(Mutex::new(window)))
    }

    /// Takes the window out.
    pub fn take(&self) -> Option<Window> {
        lock(&self.0).take()
    }

    /// `{"window": …}` as [`Window::to_json`] writes it; null where nothing came, or it was taken out.
    pub fn to_json(&self) -> String {
        let window = lock(&self.0).clone();
        let json = window.map_or_else(|| "null".to_owned(), |window| window.to_json());
        format!("{{\"window\":{json}}}")
    }
}

impl StreamHub {
    pub(crate) fn new(core: &Arc<Core>) -> Arc<StreamHub> {
        Arc::new(StreamHub {
            core: core.clone(),
            consumers: Mutex::default(),
            leases: Mutex::default(),
        })
    }

    /// Polls once, when it is the turn of this call. Without a verdict the window comes again when its lease ends: it is not
    /// renewed.
    pub(crate) fn poll_once(
        self: &Arc<StreamHub>,
        stream: &str,
        group: &str,
        options: &StreamPollOptions,
    ) -> Pending<PolledWindow> {
        if let Err(error) = stream::check(stream, group) {
            return Pending::finished(Err(error));
        }
        let wait = options.poll_timeout_millis;
        let patience = options
            .timeout_millis
            .unwrap_or(self.core.config.timeout_millis);
        let deadline = transport::after(wait.saturating_add(patience));
        let (hub, stream, group) = (self.clone(), stream.to_owned(), group.to_owned());
        self.core.start(
            (1, 0),
            deadline + Duration::from_secs(1),
            move |pending| async move {
                let turn = turn(&hub.core, &stream, &group).await;
                if !pending.mark_sent() {
                    return Err(Error::new(ErrorCode::Cancelled, "the call was cancelled"));
                }
                let grace = hub.core.cancel_grace();
                let poll = hub.poll(&stream, &group, wait, deadline, None);
                tokio::pin!(poll);
                let window = tokio::select! {
                    window = &mut poll => window?,
                    // Nobody waits any more: what still comes goes back when this is dropped.
                    _ = pending.ended() => match tokio::time::timeout(grace, poll).await {
                        Ok(window) => window?,
                        Err(_) => None,
                    },
                };
                drop(turn);
                Ok(PolledWindow::new(window))
            },
        )
    }

    /// One request for a window. Whoever calls has the turn.
    pub(super) async fn poll(
        &self,
        stream: &str,
        group: &str,
        wait_millis: u64,
        deadline: Instant,
        on_lost: Option<OnLost>,
    ) -> Result<Option<Window>> {
        let core = &self.core;
        let asked = Duration::from_millis(wait_millis);
        let began = Instant::now();
        let place = tokio::time::timeout(asked, core.transport.parking_place()).await;
        let wait = match &place {
            Ok(_) => asked.saturating_sub(began.elapsed()),
            // None has become free: it only looks.
            Err(_) => Duration::ZERO,
        };
        let wait_millis = transport::ms(wait);
        let late = transport::after(wait_millis.saturating_add(LATE));
        let request = Request::post(
            stream::POLL,
            stream::poll(stream, group, wait_millis),
            late.min(deadline),
        )
        .repeat(Repeat::IfNotSent)
        .waiting(wait_millis > 0)
        .near(&affinity(stream, group));
        let parked = (wait_millis > 0).then(|| core.stats.parked_polls.enter());
        let answer = core.send(&request).await.and_then(Answer::success);
        drop(parked);
        let body = match answer {
            Ok(body) => body,
            // Of several polls that wait a broker of generation 0.7 answers one and forgets the others, maybe this one for
            // that of another process.
            Err(error) if error.code() == ErrorCode::Timeout && wait_millis > 0 => return Ok(None),
            Err(error) => return Err(stream::meant(error)),
        };
        let Some(wire) = stream::parse(&body)? else {
            return Ok(None);
        };
        core.stats.popped.add(wire.messages.len());
        let window = Window::new(core, (stream, group), wire, on_lost);
        let lease = window.lease();
        let mut leases = lock(&self.leases);
        leases.retain(|_, lease| lease.strong_count() > 0);
        leases.insert(lease.lease_id.clone(), Arc::downgrade(lease));
        drop(leases);
        Ok(Some(window))
    }

    /// Gives a verdict by the id of a lease. That of a window in somebody's hands settles it there.
    pub(crate) fn settle(
        &self,
        lease_id: &str,
        success: bool,
        timeout_millis: Option<u64>,
    ) -> Pending<()> {
        let live = lock(&self.leases).get(lease_id).and_then(Weak::upgrade);
        if let Some(lease) = live {
            return lease.settle(success);
        }
        let body = stream::settle("", lease_id, success);
        self.ask_by_id(
            "stream ack",
            stream::ACK,
            lease_id,
            body,
            timeout_millis,
            |_| (),
        )
    }

    /// Makes the lease of a window last that long from now; it may become shorter.
    pub(crate) fn renew(
        &self,
        lease_id: &str,
        extend_millis: u64,
        timeout_millis: Option<u64>,
    ) -> Pending<Renewal> {
        if extend_millis == 0 {
            let error = Error::argument("extendMillis is 0; it must be at least 1");
            return Pending::finished(Err(error));
        }
        let (body, id) = (stream::renew(lease_id, extend_millis), lease_id.to_owned());
        let read = move |body: &Bytes| Renewal {
            lease_id: id,
            renewed: None,
            expires_at: stream::expiry(body),
        };
        self.ask_by_id(
            "stream renew-lease",
            stream::RENEW,
            lease_id,
            body,
            timeout_millis,
            read,
        )
    }

    fn ask_by_id<T: Clone + Send + Sync + 'static>(
        &self,
        what: &'static str,
        path: &'static str,
        lease_id: &str,
        body: Vec<u8>,
        timeout_millis: Option<u64>,
        read: impl FnOnce(&Bytes) -> T + Send + 'static,
    ) -> Pending<T> {
        if let Err(error) = check_name("leaseId", lease_id, false) {
            return Pending::finished(Err(error));
        }
        let core = self.core.clone();
        let deadline = transport::after(timeout_millis.unwrap_or(core.config.timeout_millis));
        self.core
            .start((1, body.len()), deadline, move |pending| async move {
                if !pending.mark_sent() {
                    return Err(Error::new(ErrorCode::Cancelled, "the call was cancelled"));
                }
                let body = ask(&core, what, Request::post(path, body, deadline)).await?;
                Ok(read(&body))
            })
    }

    pub(super) fn add(&self, consumer: &Arc<Shared>) -> Result<()> {
        let mut consumers = lock(&self.consumers);
        // Under the lock, so that a close that comes later sees the consumer.
        self.core.check_accepting()?;
        consumers.insert(consumer.id, Arc::downgrade(consumer));
        Ok(())
    }

    pub(super) fn remove(&self, id: u64) {
        lock(&self.consumers).remove(&id);
    }

    fn consumers(&self) -> Vec<Arc<Shared>> {
        let consumers = lock(&self.consumers);
        consumers.values().filter_map(Weak::upgrade).collect()
    }

    /// Stops every consumer by the deadline.
    pub(crate) async fn stop_all(&self, deadline: Instant, reason: StopReason) {
        let consumers = self.consumers().into_iter();
        let stops: Vec<_> = consumers
            .map(|one| tokio::spawn(one.stop_until(deadline, reason)))
            .collect();
        for stop in stops {
            let _ = stop.await;
        }
    }

    /// What has not ended, for an error message.
    pub(crate) fn still_running(&self) -> Vec<String> {
        let consumers = self.consumers().into_iter();
        consumers
            .filter(|one| !one.is_finished())
            .map(|one| one.still_running())
            .collect()
    }

    /// Consumers that run, and windows and messages in hand.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let consumers = self.consumers();
        let running = consumers.iter().filter(|one| !one.is_finished()).count() as u64;
        let in_hand = consumers.iter().map(|one| one.in_hand());
        in_hand.fold((running, 0, 0), |sum, one| {
            (sum.0, sum.1 + one.0, sum.2 + one.1)
        })
    }

    /// Completes when every consumer has ended.
    pub(crate) async fn all_finished(&self) {
        for consumer in self.consumers() {
            let _ = consumer.finished().await;
        }
    }
}
