//! Push: each partition has a queue of calls of its own and at most one request in flight, so that the calls of one
//! client to one partition are stored in the order in which they were made.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, oneshot};

use crate::core::Core;
use crate::error::{Error, ErrorCode};
use crate::log::Level;
use crate::options::PushOptions;
use crate::pending::Pending;
use crate::protocol::push::{self, Item, Push, PushResult};
use crate::runtime::lock;
use crate::transport::{self, Repeat, Request};

/// The producing side of a client.
pub(crate) struct Producer {
    core: Arc<Core>,
    lanes: Lanes,
}

impl Producer {
    pub(crate) fn new(core: &Arc<Core>) -> Arc<Producer> {
        Arc::new(Producer {
            core: core.clone(),
            lanes: Lanes::default(),
        })
    }

    /// Pushes items to one partition in one request.
    pub(crate) fn push(
        self: &Arc<Producer>,
        queue: &str,
        partition: &str,
        items: &[Item<'_>],
        options: &PushOptions,
    ) -> Pending<Vec<PushResult>> {
        let push = match Push::new(queue, partition, items) {
            Ok(push) => push,
            Err(error) => return Pending::finished(Err(error)),
        };
        let deadline = transport::after(
            options
                .timeout_millis
                .unwrap_or(self.core.config.timeout_millis),
        );
        let cost = (items.len(), push.body.len());
        let address = (queue.to_owned(), partition.to_owned());
        let producer = self.clone();
        self.core.start(cost, deadline, move |pending| {
            pending.note_transaction_ids(push.transaction_ids.clone());
            let number = producer.lanes.submit(push.transaction_ids.len());
            let (settled, ended) = (producer.clone(), pending.clone());
            pending.when_complete(move || {
                settled.lanes.settled(number);
                if let Some(Err(error)) = ended.result() {
                    // Nobody may be looking at the future.
                    settled.core.logger.log(
                        Level::Warn,
                        "producer.push",
                        "a push did not go well",
                        &[("error", error.to_string().into())],
                    );
                }
            });
            let ticket = Ticket::join(&producer, address);
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
                match push::partial(&results) {
                    None => Ok(results),
                    Some(error) => Err(error.with_transaction_ids(push.transaction_ids.clone())),
                }
            }
        })
    }

    /// Completes when every push submitted before is settled; the number is that of the pushes waited for.
    pub(crate) fn flush(self: &Arc<Producer>, timeout_millis: Option<u64>) -> Pending<Flushed> {
        let deadline = transport::after(timeout_millis.unwrap_or(self.core.config.timeout_millis));
        let producer = self.clone();
        let (last, waiting) = self.lanes.submitted();
        self.core.start((0, 0), deadline, move |_| async move {
            producer.lanes.settled_up_to(last).await;
            Ok(Flushed { flushed: waiting })
        })
    }

    /// Completes when no push is in flight.
    pub(crate) async fn all_settled(&self) {
        self.lanes.settled_up_to(u64::MAX).await;
    }

    /// How many messages are in flight.
    pub(crate) fn unsettled(&self) -> usize {
        lock(&self.lanes.unsettled).calls.values().sum()
    }
}

/// What a flush has waited for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Flushed {
    /// Pushes that were in flight when it began.
    pub flushed: usize,
}

type Address = (String, String);

/// The waiting calls of each partition, and which pushes are not settled.
#[derive(Default)]
struct Lanes {
    waiting: Mutex<HashMap<Address, VecDeque<oneshot::Sender<()>>>>,
    unsettled: Mutex<Unsettled>,
    changed: Notify,
}

#[derive(Default)]
struct Unsettled {
    last: u64,
    /// The pushes in flight, with how many messages each has.
    calls: BTreeMap<u64, usize>,
}

impl Lanes {
    fn submit(&self, messages: usize) -> u64 {
        let mut unsettled = lock(&self.unsettled);
        unsettled.last += 1;
        let number = unsettled.last;
        unsettled.calls.insert(number, messages);
        number
    }

    fn settled(&self, number: u64) {
        lock(&self.unsettled).calls.remove(&number);
        self.changed.notify_waiters();
    }

    /// The last number given out, and how many are unsettled.
    fn submitted(&self) -> (u64, usize) {
        let unsettled = lock(&self.unsettled);
        (unsettled.last, unsettled.calls.len())
    }

    /// Completes when no push up to that number is unsettled.
    async fn settled_up_to(&self, last: u64) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if lock(&self.unsettled)
                .calls
                .first_key_value()
                .is_none_or(|(first, _)| *first > last)
            {
                return;
            }
            changed.await;
        }
    }

    /// The next call of a partition has its turn, if there is one.
    fn pass_on(waiting: &mut HashMap<Address, VecDeque<oneshot::Sender<()>>>, address: &Address) {
        if let Some(queue) = waiting.get_mut(address) {
            while let Some(next) = queue.pop_front() {
                if next.send(()).is_ok() {
                    return;
                }
            }
            waiting.remove(address);
        }
    }
}

/// A call's place in the queue of its partition. Dropping it lets the next one go.
struct Ticket {
    producer: Arc<Producer>,
    address: Address,
    /// Empty when the turn came at once.
    turn: tokio::sync::Mutex<Option<oneshot::Receiver<()>>>,
}

impl Ticket {
    fn join(producer: &Arc<Producer>, address: Address) -> Ticket {
        let mut waiting = lock(&producer.lanes.waiting);
        let turn = match waiting.get_mut(&address) {
            Some(queue) => {
                let (sender, receiver) = oneshot::channel();
                queue.push_back(sender);
                Some(receiver)
            }
            None => {
                waiting.insert(address.clone(), VecDeque::new());
                None
            }
        };
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
        let mut waiting = lock(&self.producer.lanes.waiting);
        let had_turn = match self.turn.get_mut() {
            None => true,
            // Turns are given under the lock, so after the close none can come any more.
            Some(receiver) => {
                receiver.close();
                receiver.try_recv().is_ok()
            }
        };
        if had_turn {
            Lanes::pass_on(&mut waiting, &self.address);
        }
    }
}
