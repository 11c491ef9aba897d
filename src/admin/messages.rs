//! Messages by their address.

use super::{Call, setters};
use crate::client::Client;
use crate::operation::message;
use crate::output::Document;
use crate::pending::Pending;

/// Stored messages, consumed or not. Made by [`Client::messages`].
///
/// ```
/// use queen::{Client, Item};
/// use std::time::Duration;
///
/// let wait = Duration::from_secs(10);
/// let client = Client::new("embedded:")?;
/// client.queue("orders").push(&[Item::json(&1)?]).wait(wait)?;
/// let listed = client.messages().queue("orders").status("pending").list().wait(wait)?;
/// let listed: serde_json::Value = listed.json()?;
/// assert_eq!(listed["messages"][0]["data"], 1);
/// # Ok::<(), queen::Error>(())
/// ```
#[derive(Clone)]
pub struct Messages(Call);

impl Client {
    /// Stored messages, of all queues unless one is named.
    pub fn messages(&self) -> Messages {
        Messages(Call::new(self))
    }
}

setters! {
    Messages;
    /// Only this queue.
    queue: &str = "queue";
    /// Only this partition, by name.
    partition: &str = "partition";
    /// Only queues of this namespace.
    namespace: &str = "namespace";
    /// Only queues of this task.
    task: &str = "task";
    /// Only `pending`, `processing`, `completed` or `dead_letter` messages.
    status: &str = "status";
    /// Nothing older, an ISO 8601 time with a zone. Default: an hour ago.
    from: &str = "from";
    /// Nothing newer, an ISO 8601 time with a zone.
    to: &str = "to";
    /// The most entries. Default 200.
    limit: u64 = "limit";
    /// How many entries to skip. Default 0.
    offset: u64 = "offset";
}

impl Messages {
    /// Lists them, the newest first (`message.list`).
    pub fn list(&self) -> Pending<Document> {
        self.0.run(&message::LIST)
    }

    /// All about one message (`message.get`).
    pub fn get(&self, partition_id: &str, transaction_id: &str) -> Pending<Document> {
        let address = [
            ("partitionId", partition_id),
            ("transactionId", transaction_id),
        ];
        self.0.run_apart(&message::GET, &address)
    }

    /// Deletes a dead letter; brokers before 1.x delete any message (`message.delete`).
    pub fn delete(&self, partition_id: &str, transaction_id: &str) -> Pending<Document> {
        let address = [
            ("partitionId", partition_id),
            ("transactionId", transaction_id),
        ];
        self.0.run_apart(&message::DELETE, &address)
    }

    /// Pushes a dead letter again, as a new message (`message.retry`). Never sent twice.
    pub fn retry(&self, partition_id: &str, transaction_id: &str) -> Pending<Document> {
        let address = [
            ("partitionId", partition_id),
            ("transactionId", transaction_id),
        ];
        self.0.run_apart(&message::RETRY, &address)
    }
}
