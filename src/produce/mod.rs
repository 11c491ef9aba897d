//! Push: each partition has a line of its own with at most one request in flight, so that the pushes of one client to one
//! partition are stored in the order in which they were made, buffered or not.

mod accept;
mod address;
mod backoff;
mod buffer;
mod flights;
mod flusher;
mod report;
mod room;
mod state;
mod turns;
mod unsettled;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use self::address::Address;
use self::report::Reports;
use self::state::{Bounds, State};
use crate::core::Core;
use crate::error::{Error, ErrorCode, Result};
use crate::log::Level;
use crate::options::{FlushOptions, PushOptions};
use crate::pending::Pending;
use crate::protocol::push::{self, Item, Push, PushResult};
use crate::runtime::lock;
use crate::stats::BufferStats;
use crate::transport::{self, Repeat, Request};

pub(crate) use self::address::Scope;
pub use self::report::{DeliveryReport, DeliveryStatus, ReportSink};

/// The producing side of a client.
pub(crate) struct Producer {
    core: Arc<Core>,
    state: Mutex<State>,
    reports: Reports,
    /// Wakes the task that sends what is buffered.
    look: Notify,
    /// Something was settled.
    changed: Notify,
    closing: watch::Sender<bool>,
}

impl Producer {
    pub(crate) fn new(core: &Arc<Core>) -> Arc<Producer> {
        let bounds = Bounds {
            messages: core.config.max_buffered_messages,
            bytes: core.config.max_buffered_bytes,
        };
        Arc::new(Producer {
            core: core.clone(),
            state: Mutex::new(State::new(bounds)),
            reports: Reports::default(),
            look: Notify::new(),
            changed: Notify::new(),
            closing: watch::Sender::new(false),
        })
    }

    /// Changes the state, then does what the change left to be done without the lock.
    fn change<R>(self: &Arc<Self>, change: impl FnOnce(&mut State, Instant) -> R) -> R {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let result = change(&mut state, now);
        let after = state.take_after();
        let start = after.wake && !state.running && !state.is_done();
        state.running |= start;
        drop(state);
        for (pending, results) in after.accepted {
            pending.complete(Ok(results));
        }
        if start {
            self.core.detach(self.clone().send_buffers());
        } else if after.wake {
            self.look.notify_one();
        }
        result
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
                Ok(push) => self.push_now(Address::new(queue, partition), push, deadline),
                Err(error) => Pending::finished(Err(error)),
            },
        }
    }

    fn push_now(
        self: &Arc<Producer>,
        address: Address,
        push: Push,
        deadline: Instant,
    ) -> Pending<Vec<PushResult>> {
        let cost = (push.transaction_ids.len(), push.body.len());
        let producer = self.clone();
        self.core.start(cost, deadline, move |pending| {
            pending.note_transaction_ids(push.transaction_ids.clone());
            let messages = push.transaction_ids.len();
            let (address, number, turn) =
                producer.change(|state, now| state.join(address, messages, now));
            let (settled, ended, place) = (producer.clone(), pending.clone(), address.clone());
            pending.when_complete(move || settled.note_end(number, &place, &ended));
            let ticket = Ticket::new(&producer, address, turn);
            async move {
                ticket.turn().await;
                if !pending.mark_sent() {
                    return Err(Error::new(ErrorCode::Cancelled, "the call was cancelled"));
                }
                // The items have their ids, so that the broker takes a repeat for a duplicate.
                let request =
                    Request::post(push::PATH, push.body.clone(), deadline).repeat(Repeat::Safe);
                let answer = producer
                    .core
                    .send(&request)
                    .await
                    .and_then(transport::Answer::success);
                drop(ticket);
                let body = answer
                    .map_err(|error| error.with_transaction_ids(push.transaction_ids.clone()))?;
                let results = push
                    .results(&body)
                    .map_err(|error| error.with_transaction_ids(push.transaction_ids.clone()))?;
                producer.count(&results);
                match push::partial(&results) {
                    None => Ok(results),
                    Some(error) => Err(error.with_transaction_ids(push.transaction_ids.clone())),
                }
            }
        })
    }

    /// A direct push has completed.
    fn note_end(
        self: &Arc<Self>,
        number: u64,
        address: &Address,
        ended: &Pending<Vec<PushResult>>,
    ) {
        self.change(|state, _| state.settled(number));
        self.changed.notify_waiters();
        let (level, message, outcome) = match ended.result() {
            // Nobody may be looking at the future.
            Some(Err(error)) => (
                Level::Warn,
                "a push did not go well",
                ("error", error.to_string().into()),
            ),
            Some(Ok(results)) => (
                Level::Debug,
                "messages were pushed",
                ("messages", results.len().into()),
            ),
            None => return,
        };
        let logger = &self.core.logger;
        if logger.wants(level) {
            logger.log(level, "producer.push", message, &address.fields(&[outcome]));
        }
    }

    /// Lines up in several partitions at once, with that many messages for each: behind everything that was pushed there
    /// before. Where several take the same partitions, all see the others in the same order.
    pub(crate) fn line_up<T: Clone + Send + Sync + 'static>(
        self: &Arc<Producer>,
        places: BTreeMap<(String, String), usize>,
        ended: &Pending<T>,
    ) -> Places {
        let mut numbers = Vec::with_capacity(places.len());
        let tickets = self.change(|state, now| {
            let join = |((queue, partition), messages): ((String, String), usize)| {
                let (address, number, turn) =
                    state.join(Address::new(&queue, &partition), messages, now);
                numbers.push(number);
                Ticket::new(self, address, turn)
            };
            places.into_iter().map(join).collect()
        });
        let producer = self.clone();
        ended.when_complete(move || {
            producer.change(|state, _| numbers.iter().for_each(|number| state.settled(*number)));
            producer.changed.notify_waiters();
        });
        Places(tickets)
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
                    if lock(&self.state).is_settled(&mut unsettled) {
                        return;
                    }
                    changed.await;
                }
            };
            let left = match tokio::time::timeout_at(deadline, settled).await {
                Ok(()) => 0,
                Err(_) => lock(&self.state).left_of(&unsettled),
            };
            (flushed, left)
        }
    }

    /// Where reports of buffered messages go; `None` stops them.
    pub(crate) fn set_reports(&self, sink: Option<ReportSink>) {
        self.reports.set(sink);
    }

    /// How many messages of direct pushes are not answered for.
    pub(crate) fn unsettled_direct(&self) -> usize {
        lock(&self.state).direct_messages()
    }

    /// What the buffers hold, without what is only counted.
    pub(crate) fn buffers(&self) -> BufferStats {
        let counts = lock(&self.state).counts();
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
        lock(&self.0.state).hurried -= 1;
    }
}

/// A direct push's place in the line of its partition. Dropping it lets the next one go.
struct Ticket {
    producer: Arc<Producer>,
    address: Arc<Address>,
    /// Empty when the turn came at once.
    turn: tokio::sync::Mutex<Option<oneshot::Receiver<()>>>,
}

/// The places of a transaction in the lines of its partitions. Dropping them lets the next ones go.
pub(crate) struct Places(Vec<Ticket>);

impl Places {
    /// Waits for the turn in every line.
    pub(crate) async fn turn(&self) {
        for ticket in &self.0 {
            ticket.turn().await;
        }
    }
}

impl Ticket {
    fn new(
        producer: &Arc<Producer>,
        address: Arc<Address>,
        turn: Option<oneshot::Receiver<()>>,
    ) -> Ticket {
        Ticket {
            producer: producer.clone(),
            address,
            turn: tokio::sync::Mutex::new(turn),
        }
    }

    async fn turn(&self) {
        let mut turn = self.turn.lock().await;
        if let Some(receiver) = turn.as_mut() {
            let _ = receiver.await;
            *turn = None;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let (turn, address) = (self.turn.get_mut(), &self.address);
        self.producer.change(|state, now| {
            let had_turn = match turn {
                None => true,
                // Turns are given under the lock, so after the close none can come any more.
                Some(receiver) => {
                    receiver.close();
                    receiver.try_recv().is_ok()
                }
            };
            if had_turn {
                state.pass_on(address, now);
            }
        });
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
