//! Dead letters.

use super::{Call, setters};
use crate::client::Client;
use crate::operation::dlq;
use crate::output::Document;
use crate::pending::Pending;
use crate::queue::Queue;

/// Dead letters: messages that were given up. Made by [`Client::dlq`] or [`Queue::dlq`].
///
/// ```
/// use queen::{Client, Item, MessageVerdict, Status};
/// use std::time::Duration;
///
/// let wait = Duration::from_secs(10);
/// let client = Client::new("embedded:")?;
/// let orders = client.queue("orders");
/// orders.push(&[Item::json(&1)?.transaction_id("order-1")]).wait(wait)?;
/// let delivery = orders.pop().wait(wait)?.take().expect("one delivery");
/// let error = Some("no such customer".into());
/// delivery.settle(vec![MessageVerdict { index: 0, status: Status::Dlq, error }]).wait(wait)?;
///
/// let letters = client.dlq("orders").limit(10).list().wait(wait)?;
/// let letters: serde_json::Value = letters.json()?;
/// let letter = &letters["messages"][0];
/// assert_eq!(letter["errorMessage"], "no such customer");
///
/// let partition_id = letter["partitionId"].as_str().expect("an id");
/// client.dlq("orders").retry(partition_id, "order-1").wait(wait)?;
/// # Ok::<(), queen::Error>(())
/// ```
#[derive(Clone)]
pub struct DeadLetters(Call);

impl Client {
    /// The dead letters of a queue, or of all queues (`None`).
    pub fn dlq<'a>(&self, queue: impl Into<Option<&'a str>>) -> DeadLetters {
        let call = Call::new(self);
        DeadLetters(match queue.into() {
            Some(queue) => call.with("queue", queue),
            None => call,
        })
    }
}

impl Queue {
    /// The dead letters of this queue, and of the partition and group that it names.
    pub fn dlq(&self) -> DeadLetters {
        let mut letters = self.client().dlq(self.name());
        if let Some(partition) = self.partition_name() {
            letters = letters.partition(partition);
        }
        match self.group_name() {
            Some(group) => letters.group(group),
            None => letters,
        }
    }
}

setters! {
    DeadLetters;
    /// Only what this group gave up.
    group: &str = "consumerGroup";
    /// Only this partition, by name.
    partition: &str = "partition";
    /// Nothing older, an ISO 8601 time with a zone.
    from: &str = "from";
    /// Nothing newer, an ISO 8601 time with a zone.
    to: &str = "to";
    /// The most entries. Default 100.
    limit: u64 = "limit";
    /// How many entries to skip. Default 0.
    offset: u64 = "offset";
}

impl DeadLetters {
    /// Lists them, the newest first (`dlq.list`).
    pub fn list(&self) -> Pending<Document> {
        self.0.run(&dlq::LIST)
    }

    /// Pushes a dead letter again, as a new message with ids of its own that every group gets, and removes it
    /// (`dlq.retry`). Never sent twice: after an unknown outcome look whether it is still there.
    pub fn retry(&self, partition_id: &str, transaction_id: &str) -> Pending<Document> {
        let address = [
            ("partitionId", partition_id),
            ("transactionId", transaction_id),
        ];
        self.0.run_apart(&dlq::RETRY, &address)
    }

    /// Deletes a dead letter (`dlq.delete`).
    pub fn delete(&self, partition_id: &str, transaction_id: &str) -> Pending<Document> {
        let address = [
            ("partitionId", partition_id),
            ("transactionId", transaction_id),
        ];
        self.0.run_apart(&dlq::DELETE, &address)
    }
}
