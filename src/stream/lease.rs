//! The lease of a window: its one verdict, its renewal, and how it is lost.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::watch;

use crate::core::Core;
use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::log::Level;
use crate::pending::{Pending, WaitsFor};
use crate::protocol::stream;
use crate::transport::{self, Repeat, Request};

/// The pause between tries to renew while a broker cannot be reached.
const RETRY: Duration = Duration::from_secs(1);
/// When a lease is renewed first: the answer to a poll does not tell how long it is.
const FIRST: Duration = Duration::from_secs(1);

/// How a window's lease stands.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The one that was given first.
    verdict: Option<bool>,
    /// The broker has answered the verdict, or none can come any more.
    over: bool,
    /// The broker has taken it.
    taken: bool,
    /// For certain.
    lost: bool,
    closed: bool,
}

/// Told, with a JSON object, when a lease is lost for certain (`true`) or perhaps.
pub(super) type OnLost = Arc<dyn Fn(String) + Send + Sync>;

/// Names a window for its broker.
pub(super) struct Lease {
    core: Arc<Core>,
    pub(super) stream: String,
    pub(super) group: String,
    pub(super) key: String,
    pub(super) window_id: String,
    pub(super) lease_id: String,
    on_lost: Option<OnLost>,
    state: watch::Sender<State>,
}

/// How a window ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Acked,
    Nacked,
    /// It comes again.
    Lost,
}

/// Requests about the windows of a group go to one broker where that is the strategy.
pub(super) fn affinity(stream: &str, group: &str) -> String {
    format!("stream:{stream}:{group}")
}

/// Sends what may be done twice, and looks whether the answer tells of success.
pub(super) async fn ask(core: &Core, what: &str, request: Request) -> Result<Bytes> {
    let answer = core.send(&request.repeat(Repeat::Safe)).await?;
    let past = answer.past;
    let body = answer.success().map_err(stream::meant)?;
    match stream::answered(what, &body) {
        Ok(()) => Ok(body),
        // Where a lease is over, it may be an earlier attempt that has ended it.
        Err(error) => Err(past.end(error)),
    }
}

impl Lease {
    pub(super) fn new(
        core: &Arc<Core>,
        (stream, group): (&str, &str),
        window: &stream::WireWindow,
        on_lost: Option<OnLost>,
    ) -> Arc<Lease> {
        Arc::new(Lease {
            core: core.clone(),
            stream: stream.to_owned(),
            group: group.to_owned(),
            key: window.key.clone(),
            window_id: window.id.clone(),
            lease_id: window.lease_id.clone(),
            on_lost,
            state: watch::Sender::new(State::default()),
        })
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(super) fn is_lost(&self) -> bool {
        self.state.borrow().lost
    }

    /// Gives the verdict. Of several the first counts; a lost lease needs none.
    pub(super) fn settle(self: &Arc<Lease>, success: bool) -> Pending<()> {
        let mut refused = None;
        self.state.send_if_modified(|state| {
            let code = match *state {
                State { closed: true, .. } => Some(ErrorCode::Closed),
                State {
                    verdict: Some(_), ..
                } => Some(ErrorCode::AlreadySettled),
                State { lost: true, .. } => Some(ErrorCode::LeaseLost),
                _ => None,
            };
            if code.is_none() || code == Some(ErrorCode::LeaseLost) {
                state.verdict = Some(success);
            }
            refused = code;
            true
        });
        if let Some(code) = refused {
            if code == ErrorCode::LeaseLost {
                self.end();
            }
            return Pending::finished(Err(Error::new(
                code,
                match code {
                    ErrorCode::Closed => "the stream consumer or its client was closed first",
                    ErrorCode::AlreadySettled => "the window has a verdict",
                    _ => "the lease of the window is lost: it comes again, and nothing was sent",
                },
            )));
        }
        let core = &self.core;
        let deadline = transport::after(core.config.timeout_millis);
        let lease = self.clone();
        let settling = core.start_always(deadline, WaitsFor::Broker, move |_| async move {
            let _over = Over(&lease);
            let body = stream::settle(&lease.window_id, &lease.lease_id, success);
            let answer = lease.ask("stream ack", stream::ACK, body, deadline).await;
            lease
                .state
                .send_modify(|state| state.taken = answer.is_ok());
            if let Err(error) = &answer
                && error.code() == ErrorCode::LeaseLost
                && error.outcome() == Outcome::Refused
            {
                lease.lose(true);
            }
            answer
        });
        let lease = self.clone();
        // It may have been refused before it began.
        settling.when_complete(move || lease.end());
        settling
    }

    async fn ask(
        &self,
        what: &str,
        path: &str,
        body: Vec<u8>,
        deadline: tokio::time::Instant,
    ) -> Result<()> {
        let request =
            Request::post(path, body, deadline).near(&affinity(&self.stream, &self.group));
        ask(&self.core, what, request).await.map(drop)
    }

    fn end(&self) {
        self.state.send_modify(|state| state.over = true);
    }

    /// The lease is over, for certain or perhaps. Who works on the window hears of it.
    fn lose(&self, certain: bool) {
        let before = self.state.borrow().lost;
        if certain {
            self.state.send_modify(|state| state.lost = true);
        }
        if before {
            return;
        }
        if certain {
            self.core.stats.leases.lost.add(1);
        }
        self.core.logger.log(
            Level::Warn,
            "stream.lease",
            match certain {
                true => "the lease of a window is lost",
                false => "the lease of a window may be lost",
            },
            &[
                ("stream", self.stream.clone().into()),
                ("window", self.window_id.clone().into()),
            ],
        );
        if let Some(tell) = &self.on_lost {
            let told = json!({
                "stream": self.stream,
                "key": self.key,
                "windowId": self.window_id,
                "leaseId": self.lease_id,
                "consumerGroup": self.group,
                "certain": certain,
            });
            tell(told.to_string());
        }
    }

    /// Nobody holds the window any more: without a verdict it goes back.
    pub(super) fn give_back(self: &Arc<Lease>) {
        let state = *self.state.borrow();
        if state.verdict.is_none() && !state.lost && !state.closed {
            let settling = self.settle(false);
            self.core.background(async move {
                let _ = settling.await;
            });
        }
        if state.lost && state.verdict.is_none() {
            self.end();
        }
    }

    /// Lets go: a verdict from now on answers [`ErrorCode::Closed`].
    pub(super) fn abandon(&self) {
        self.state.send_modify(|state| {
            state.closed = true;
            state.over = true;
        });
    }

    /// Completes when its verdict is answered, or none counts any more.
    pub(super) async fn ended(&self) -> Ending {
        let mut watched = self.state.subscribe();
        let state = watched
            .wait_for(|state| state.over)
            .await
            .map(|state| *state);
        match state {
            Ok(State {
                taken: true,
                verdict: Some(success),
                ..
            }) => match success {
                true => Ending::Acked,
                false => Ending::Nacked,
            },
            _ => Ending::Lost,
        }
    }

    /// Renews the lease until it is settled or lost, or `longest` is over.
    pub(super) async fn keep(self: Arc<Lease>, extend_millis: u64, longest: Duration) {
        let third = Duration::from_millis((extend_millis / 3).max(1));
        let began = tokio::time::Instant::now();
        let mut watched = self.state.subscribe();
        let mut pause = third.min(FIRST);
        // Of the first length nothing is known.
        let mut known_until = None;
        loop {
            let settled =
                watched.wait_for(|state| state.verdict.is_some() || state.over || state.lost);
            if tokio::time::timeout(pause, settled).await.is_ok() {
                return;
            }
            if began.elapsed() >= longest {
                return self.lose(true);
            }
            let sent = tokio::time::Instant::now();
            let deadline = transport::after(extend_millis.min(self.core.config.timeout_millis));
            let body = stream::renew(&self.lease_id, extend_millis);
            let renewed = self
                .ask("stream renew-lease", stream::RENEW, body, deadline)
                .await;
            self.core.stats.leases.note_renewal(renewed.is_ok());
            match renewed {
                Ok(()) => {
                    known_until = Some(sent + Duration::from_millis(extend_millis));
                    pause = third;
                }
                Err(error) if error.code() == ErrorCode::LeaseLost => {
                    // A verdict that was faster may have ended it.
                    if self.state.borrow().verdict.is_none() {
                        self.lose(true);
                    }
                    return;
                }
                Err(_) => {
                    if known_until.is_some_and(|until| tokio::time::Instant::now() >= until) {
                        // The broker decides; the verdict is still sent.
                        known_until = None;
                        self.lose(false);
                    }
                    pause = third.min(RETRY);
                }
            }
        }
    }
}

/// Ends a lease whose verdict was sent, however its task ends.
struct Over<'a>(&'a Lease);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
