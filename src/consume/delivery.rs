//! What a consumer holds in hand: messages of one partition under one lease.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::claim::Claim;
use super::hub::Hub;
use super::run::Run;
use super::slots::{Verdict, already_committed};
use crate::core::Core;
use crate::dispatch::Dispatcher;
use crate::error::{Error, ErrorCode, Result};
use crate::pending::Pending;
use crate::protocol::ack::{AckResult, Status};
use crate::protocol::pop::{Message, MessageDocument, Source};

/// Messages of one partition under one lease. Clones are the same delivery.
///
/// Each message is settled once. When the last clone is dropped, messages without a verdict go back to the broker and
/// are delivered again without counting as a retry.
/// ```
/// use queen::{Client, Item, MessageVerdict, PopOptions, Status};
/// use std::time::Duration;
///
/// const SOON: Duration = Duration::from_secs(20);
/// let client = Client::new("embedded:")?;
/// let orders = client.queue("orders");
/// orders.push(&[Item::json(&1)?, Item::json(&2)?]).wait(SOON)?;
/// let options = PopOptions { batch: 2, ..PopOptions::default() };
/// let delivery = orders.pop_with(&options).wait(SOON)?.take().expect("both messages");
/// // The first is done, the second comes again.
/// let verdict = |index, status| MessageVerdict { index, status, error: None };
/// let verdicts = vec![verdict(0, Status::Completed), verdict(1, Status::Retry)];
/// assert!(delivery.settle(verdicts).wait(SOON)?.iter().all(|result| result.success));
/// # Ok::<(), queen::Error>(())
/// ```
#[derive(Clone)]
pub struct Delivery(Arc<Hold>);

/// Gives back what has no verdict when nobody holds the delivery any more.
struct Hold {
    claim: Arc<Claim>,
    /// Which messages of the claim it is made of.
    range: Range<usize>,
    /// Where the next comes from.
    run: Option<Arc<Run>>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.claim.give_back(&self.range);
    }
}

/// A verdict on one message of a delivery, as a caller writes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageVerdict {
    /// Which message, from 0.
    pub index: usize,
    /// What to do with it.
    pub status: Status,
    /// Why, recorded when the message goes to the dead-letter queue.
    #[serde(default)]
    pub error: Option<String>,
}

impl MessageVerdict {
    /// Reads a JSON array of `{"index", "status", "error"?}`.
    pub fn parse_list(json: &str) -> Result<Vec<MessageVerdict>> {
        serde_json::from_str(json).map_err(|error| {
            Error::new(
                ErrorCode::InvalidJson,
                format!(
                    "verdicts: {error}; expected an array of {{\"index\", \"status\", \"error\"?}}"
                ),
            )
        })
    }
}

impl Delivery {
    pub(crate) fn new(claim: Arc<Claim>) -> Delivery {
        let range = 0..claim.messages.len();
        Delivery::of(claim, range, None)
    }

    fn of(claim: Arc<Claim>, range: Range<usize>, run: Option<Arc<Run>>) -> Delivery {
        Delivery(Arc::new(Hold { claim, range, run }))
    }

    /// A delivery of some of its messages, by their places in the claim.
    pub(super) fn part(&self, range: Range<usize>, run: Option<Arc<Run>>) -> Delivery {
        Delivery::of(self.claim().clone(), range, run)
    }

    pub(crate) fn claim(&self) -> &Arc<Claim> {
        &self.0.claim
    }

    pub(crate) fn range(&self) -> &Range<usize> {
        &self.0.range
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        self.claim().core()
    }

    /// Whether it came from that client.
    pub(crate) fn is_of(&self, hub: &Arc<Hub>) -> bool {
        Arc::ptr_eq(self.core(), &hub.core)
    }

    /// Notes that somebody has it in hand, so that a stop or close does not give it back behind their back. `false`: it is
    /// too late, the messages went back to the broker and must not be handled.
    pub fn take(&self) -> bool {
        self.claim().take(self.range())
    }

    /// The messages, at least one.
    pub fn messages(&self) -> &[Message] {
        &self.claim().messages[self.range().clone()]
    }

    /// Queue, partition, lease and group that the messages share.
    pub fn source(&self) -> &Source {
        self.claim().source()
    }

    /// Finishes every message that has no verdict yet. Completes when the broker has answered;
    /// [`ErrorCode::AlreadySettled`] when each has one.
    pub fn ack(&self) -> Pending<Vec<AckResult>> {
        self.rest(Status::Completed, None)
    }

    /// Acks as [`ack`](Self::ack) what has been handled, and takes the next that its consumer has at hand, without a turn
    /// through its event sink. The answer to the ack is not told; one that does not count is logged as a warning. `None`:
    /// the next, if there is one, comes by the sink, as it does after any other verdict.
    pub fn next(&self) -> Option<Delivery> {
        if let Some(run) = &self.0.run {
            return run.follow(self);
        }
        self.claim().ack_rest(self.range(), true);
        None
    }

    /// Fails the messages that have no verdict yet: the first of them is charged a retry, all come again.
    pub fn nack(&self, reason: Option<&str>) -> Pending<Vec<AckResult>> {
        self.rest(Status::Failed, reason)
    }

    fn rest(&self, status: Status, reason: Option<&str>) -> Pending<Vec<AckResult>> {
        let settled = self.claim().settle_rest(self.range(), status, reason);
        settled.unwrap_or_else(|| {
            Pending::finished(Err(match self.claim().is_committed() {
                true => already_committed(),
                false => Error::new(
                    ErrorCode::AlreadySettled,
                    "every message of the delivery has a verdict",
                ),
            }))
        })
    }

    /// Gives verdicts on some messages. One that has a verdict already keeps it and is reported as refused.
    pub fn settle(&self, verdicts: Vec<MessageVerdict>) -> Pending<Vec<AckResult>> {
        if verdicts.is_empty() {
            return Pending::finished(Err(Error::argument("verdicts is empty; give at least one")));
        }
        match self.verdicts(verdicts) {
            Ok(verdicts) => self.claim().settle(verdicts),
            Err(error) => Pending::finished(Err(error)),
        }
    }

    /// Verdicts by the places in the claim.
    pub(crate) fn verdicts(&self, verdicts: Vec<MessageVerdict>) -> Result<Vec<Verdict>> {
        let count = self.messages().len();
        if let Some(verdict) = verdicts.iter().find(|verdict| verdict.index >= count) {
            return Err(Error::argument(format!(
                "verdict for message {}; the delivery has {count} messages",
                verdict.index
            )));
        }
        let first = self.range().start;
        let verdicts = verdicts.into_iter().map(|verdict| Verdict {
            index: first + verdict.index,
            status: verdict.status,
            reason: verdict.error,
        });
        Ok(verdicts.collect())
    }

    /// As [`settle`](Self::settle), from a JSON array of `{"index", "status", "error"?}`.
    pub fn settle_json(&self, json: &str) -> Pending<Vec<AckResult>> {
        match MessageVerdict::parse_list(json) {
            Ok(verdicts) => self.settle(verdicts),
            Err(error) => Pending::finished(Err(error)),
        }
    }

    /// Runs callbacks of the client that the delivery came from.
    pub fn dispatcher(&self) -> Dispatcher {
        self.claim().dispatcher()
    }

    /// Whether the lease is over for certain, so that a verdict can no longer count. A handler that works for long looks now
    /// and then, and stops when it is.
    pub fn is_lost(&self) -> bool {
        self.claim().is_lost(self.range())
    }

    /// The delivery as a JSON object: `queue`, `partition`, `partitionId`, `leaseId`, `consumerGroup` and `messages`.
    pub fn to_json(&self) -> Result<String> {
        document(self.messages())
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Delivery({} messages of {:?})",
            self.messages().len(),
            self.source().partition
        )
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeliveryDocument<'a> {
    queue: &'a str,
    partition: &'a str,
    partition_id: &'a str,
    lease_id: &'a str,
    consumer_group: &'a str,
    messages: Vec<MessageDocument<'a>>,
}

impl<'a> DeliveryDocument<'a> {
    /// Of messages of one claim, at least one.
    pub(crate) fn new(messages: &'a [Message]) -> DeliveryDocument<'a> {
        let source = &messages[0].source;
        DeliveryDocument {
            queue: &source.queue,
            partition: &source.partition,
            partition_id: &source.partition_id,
            lease_id: &source.lease_id,
            consumer_group: &source.consumer_group,
            messages: messages.iter().map(MessageDocument::new).collect(),
        }
    }
}

fn document(messages: &[Message]) -> Result<String> {
    serde_json::to_string(&DeliveryDocument::new(messages)).map_err(|error| {
        Error::new(
            ErrorCode::Internal,
            format!("a delivery cannot be written as JSON: {error}"),
        )
    })
}
