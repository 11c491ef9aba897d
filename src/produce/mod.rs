//! Push: each partition has a line of its own with at most one request in flight, so that the pushes of one client to one
//! partition are stored in the order in which they were made, buffered or not.

mod accept;
mod address;
mod backoff;
mod buffer;
mod calls;
mod desk;
mod direct;
mod flights;
mod flusher;
mod fuse;
#[cfg(test)]
mod lane_tests;
mod lanes;
mod outcome;
mod places;
mod report;
mod room;
mod sender;
mod state;
mod tuner;
mod turns;
mod unsettled;

use std::sync::{Arc, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::desk::{Desk, Kept};
use self::fuse::Fused;
use self::lanes::{LaneOptions, Lanes};
use self::outcome::Rules;
use self::report::Reports;
use self::sender::Lane;
use self::state::{Bounds, State};
use crate::core::Core;
use crate::dispatch::Workers;
use crate::error::{Error, ErrorCode, Result};
use crate::options::{FlushOptions, PushOptions};
use crate::pending::Pending;
use crate::protocol::push::{Item, Push, PushResult};
use crate::stats::BufferStats;
use crate::transport;

pub(crate) use self::address::Scope;
pub use self::report::{DeliveryReport, DeliveryStatus, ReportSink};

/// The producing side of a client.
pub(crate) struct Producer {
    core: Arc<Core>,
    desk: Desk,
    reports: Reports,
    /// Wakes the task that sends what is buffered.
    look: Notify,
    /// Something was settled.
    changed: Notify,
    closing: watch::Sender<bool>,
    /// Says that a deadline or the end of a pause comes earlier than was thought.
    time: Arc<Notify>,
    /// The thread that ends the short waiting of lanes: the timers of the runtime count whole milliseconds.
    gathering: Arc<Workers>,
    runtime: OnceLock<Handle>,
}

impl Producer {
    pub(crate) fn new(core: &Arc<Core>) -> Arc<Producer> {
        let bounds = Bounds {
            messages: core.config.max_buffered_messages,
            bytes: core.config.max_buffered_bytes,
        };
        let config = &core.config;
        let lanes = LaneOptions {
            fuses: config.coalesce_pushes,
            gather: Duration::from_micros(config.gather_micros),
            most: match config.coalesce_pushes {
                true => config.max_push_lanes,
                false => usize::MAX / 2,
            },
        };
        let rules = Rules {
            rounds: config.retry_attempts,
            delay: Duration::from_millis(config.retry_delay_millis),
            longest_pause: Duration::from_millis(config.retry_max_delay_millis),
        };
        Arc::new(Producer {
            core: core.clone(),
            desk: Desk::new(State::new(bounds, Lanes::new(lanes, rules))),
            reports: Reports::default(),
            look: Notify::new(),
            changed: Notify::new(),
            closing: watch::Sender::new(false),
            time: Arc::default(),
            gathering: Workers::timer(),
            runtime: OnceLock::new(),
        })
    }

    /// The background runtime, which lives as long as any client.
    fn runtime(&self) -> Result<&Handle> {
        match self.runtime.get() {
            Some(runtime) => Ok(runtime),
            None => {
                let runtime = self.core.runtime()?;
                Ok(self.runtime.get_or_init(|| runtime))
            }
        }
    }

    /// Changes the state, then does what the change left to be done without the lock.
    fn change<R>(self: &Arc<Self>, change: impl FnOnce(&mut State, Instant) -> R) -> R {
        let (result, request) = self.change_with(change);
        if let Some(request) = request {
            self.core.detach(Lane::new(self, request).run());
        }
        result
    }

    /// The same for a lane, which sends the first request itself.
    fn change_and_take(
        self: &Arc<Self>,
        change: impl FnOnce(&mut State, Instant),
    ) -> Option<Fused> {
        self.change_with(change).1
    }

    fn change_with<R>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut State, Instant) -> R,
    ) -> (R, Option<Fused>) {
        let now = Instant::now();
        let mut kept = self.desk.open();
        self.take_in(&mut kept, now);
        let result = change(&mut kept.state, now);
        (result, self.leave(kept, now))
    }

    /// Lets go of the state, and sees to what was laid down meanwhile. Returns the first request that is to be sent.
    fn leave(self: &Arc<Self>, kept: MutexGuard<'_, Kept>, now: Instant) -> Option<Fused> {
        let first = self.act(kept, now);
        while let Some(mut kept) = self.desk.again() {
            let now = Instant::now();
            self.take_in(&mut kept, now);
            if let Some(request) = self.act(kept, now) {
                self.core.detach(Lane::new(self, request).run());
            }
        }
        first
    }

    /// Does what a change left to be done without the lock, but for the first request.
    fn act(self: &Arc<Self>, mut kept: MutexGuard<'_, Kept>, now: Instant) -> Option<Fused> {
        let state = &mut kept.state;
        // Whatever has freed a line, a lane may be idle.
        state.start(now);
        let after = state.take_after();
        let start = after.wake && !state.running && !state.is_done();
        state.running |= start;
        let keep_time = after.look && !std::mem::replace(&mut state.keeps_time, true);
        drop(kept);
        for (pending, results) in after.accepted {
            pending.complete(Ok(results));
        }
        if start {
            self.core.detach(self.clone().send_buffers());
        } else if after.wake {
            self.look.notify_one();
        }
        if keep_time {
            self.core.detach(Producer::keep_time(Arc::downgrade(self)));
        } else if after.look {
            self.time.notify_one();
        }
        if let Some(until) = after.gather {
            self.gather_until(until);
        }
        for pending in after.expired {
            pending.abort(ErrorCode::Timeout, "no answer before the deadline");
        }
        for pending in after.refused {
            pending.abort(ErrorCode::Closed, "the client is closed");
        }
        let mut requests = after.requests.into_iter();
        let first = requests.next();
        for request in requests {
            self.core.detach(Lane::new(self, request).run());
        }
        first
    }

    /// Ends the waiting of a lane at that time.
    fn gather_until(self: &Arc<Self>, until: Instant) {
        let producer = self.clone();
        let job = Box::new(move || {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
            producer.change(|state, now| state.gathered(now));
        });
        if let Err(job) = self.gathering.run(job) {
            // The client closes, or there can be no thread: whoever is here waits that long.
            job();
        }
    }

    /// Pushes items to one partition in one request, or into the buffer of the partition.
    pub(crate) fn push(
        self: &Arc<Producer>,
        queue: &str,
        partition: &str,
        items: &[Item<'_>],
        options: &PushOptions,
    ) -> Pending<Vec<PushResult>> {
        let deadline = transport::after(
            options
                .timeout_millis
                .unwrap_or(self.core.config.timeout_millis),
        );
        match &options.buffer {
            Some(buffer) => self.push_buffered(queue, partition, items, buffer, deadline),
            None => match Push::new(queue, partition, items) {
                Ok(push) => self.push_now((queue, partition), push, deadline),
                Err(error) => Pending::finished(Err(error)),
            },
        }
    }

    fn count(&self, results: &[PushResult]) {
        for result in results {
            self.core.stats.pushed.note(&result.status);
        }
    }

    /// Sends what is buffered and completes when every push submitted before is settled.
    pub(crate) fn flush(self: &Arc<Producer>, options: &FlushOptions) -> Pending<Flushed> {
        if options.partition.is_some() && options.queue.is_none() {
            return Pending::finished(Err(Error::argument(
                "flush names a partition and no queue; name both, or the queue alone",
            )));
        }
        let deadline = transport::after(
            options
                .timeout_millis
                .unwrap_or(self.core.config.timeout_millis),
        );
        let scope = Scope {
            queue: options.queue.clone(),
            partition: options.partition.clone(),
        };
        let producer = self.clone();
        // The work has its own deadline, which tells more; the call's is a little later.
        let late = deadline + Duration::from_secs(1);
        self.core.start((0, 0), late, move |_| {
            let settling = producer.clone().settle(scope, deadline);
            async move {
                let (flushed, left) = settling.await;
                match left {
                    0 => Ok(flushed),
                    left => Err(Error::new(
                        ErrorCode::Timeout,
                        format!(
                            "{left} of {} messages are not answered for at the deadline; they are sent on, flush \
                             again to wait longer",
                            flushed.messages
                        ),
                    )
                    .with_result(
                        serde_json::json!({
                            "flushed": flushed.flushed,
                            "messages": flushed.messages,
                            "left": left,
                        })
                        .to_string(),
                    )),
                }
            }
        })
    }

    /// Begins to send what those places hold; the future waits until it is settled or the deadline has come, and tells how
    /// many messages are left then.
    pub(crate) fn settle(
        self: Arc<Producer>,
        scope: Scope,
        deadline: Instant,
    ) -> impl Future<Output = (Flushed, usize)> + Send {
        let mut unsettled = self.change(|state, now| {
            state.cover_all(&scope, now);
            state.hurry(&scope, now);
            state.hurried += 1;
            state.unsettled(&scope)
        });
        let hurry = Hurry(self.clone());
        let flushed = Flushed {
            flushed: unsettled.calls(),
            messages: unsettled.messages,
        };
        async move {
            let _hurry = hurry;
            let settled = async {
                loop {
                    let changed = self.changed.notified();
                    tokio::pin!(changed);
                    changed.as_mut().enable();
                    if self.change(|state, _| state.is_settled(&mut unsettled)) {
                        return;
                    }
                    changed.await;
                }
            };
            let left = match tokio::time::timeout_at(deadline, settled).await {
                Ok(()) => 0,
                Err(_) => self.change(|state, _| state.left_of(&unsettled)),
            };
            (flushed, left)
        }
    }

    /// Where reports of buffered messages go; `None` stops them.
    pub(crate) fn set_reports(&self, sink: Option<ReportSink>) {
        self.reports.set(sink);
    }

    /// How many messages of direct pushes are not answered for.
    pub(crate) fn unsettled_direct(self: &Arc<Self>) -> usize {
        self.change(|state, _| state.direct_messages())
    }

    /// What the buffers hold, without what is only counted.
    pub(crate) fn buffers(self: &Arc<Self>) -> BufferStats {
        let counts = self.change(|state, _| state.counts());
        let age = counts
            .oldest
            .map_or(Duration::ZERO, |since| since.elapsed());
        BufferStats {
            active_buffers: counts.active as u64,
            total_buffered_messages: counts.queued as u64,
            buffered_bytes: counts.bytes as u64,
            oldest_buffer_age: transport::ms(age),
            in_flight_messages: counts.in_flight as u64,
            waiting_pushes: counts.waiting as u64,
            ..BufferStats::default()
        }
    }
}

/// What a flush has waited for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Flushed {
    /// Direct pushes that were in flight when it began.
    pub flushed: usize,
    /// Messages that were not settled when it began, buffered ones included.
    pub messages: usize,
}

/// Keeps the pauses between attempts short while somebody waits.
struct Hurry(Arc<Producer>);

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.change(|state, _| state.hurried -= 1);
    }
}

/// An error to give back at once.
fn check_accepting(core: &Core, state: &State) -> Result<()> {
    core.check_accepting()?;
    match state.is_closed() {
        false => Ok(()),
        true => Err(Error::new(ErrorCode::Closed, "the client is closed")),
    }
}
