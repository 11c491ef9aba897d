//! Queues: all of them, and what is told of one.

use super::{Call, setters};
use crate::client::Client;
use crate::operation::queue;
use crate::output::Document;
use crate::pending::Pending;
use crate::protocol::queue::QueueOptions;
use crate::queue::Queue;

/// All queues of the broker. Made by [`Client::queues`].
///
/// ```
/// use queen::{Client, QueueOptions};
/// use std::time::Duration;
///
/// let wait = Duration::from_secs(10);
/// let client = Client::new("embedded:")?;
/// client.queue("orders").create(QueueOptions::new().namespace("shop")).wait(wait)?;
/// let found: serde_json::Value = client.queue("orders").get().wait(wait)?.json()?;
/// assert_eq!(found["namespace"], "shop");
/// # Ok::<(), queen::Error>(())
/// ```
#[derive(Clone)]
pub struct Queues(Call);

impl Client {
    /// All queues of the broker.
    pub fn queues(&self) -> Queues {
        Queues(Call::new(self))
    }
}

setters! { Queues; }

impl Queues {
    /// Every queue with its counters (`queue.list`).
    pub fn list(&self) -> Pending<Document> {
        self.0.run(&queue::LIST)
    }

    /// The namespaces of the queues (`namespace.list`).
    pub fn namespaces(&self) -> Pending<Document> {
        self.0.run(&queue::NAMESPACES)
    }

    /// The tasks of the queues (`task.list`).
    pub fn tasks(&self) -> Pending<Document> {
        self.0.run(&queue::TASKS)
    }

    /// The totals of the broker (`overview`).
    pub fn overview(&self) -> Pending<Document> {
        self.0.run(&queue::OVERVIEW)
    }
}

impl Queue {
    fn call(&self) -> Call {
        Call::new(self.client()).with("queue", self.name())
    }

    /// Creates the queue, or sets the options of one that exists; what is not set gets its default (`queue.create`). The
    /// options may also be a JSON object with the names of the wire.
    pub fn create(&self, options: impl Into<QueueOptions>) -> Pending<Document> {
        let options = options.into();
        self.call().with("options", options).run(&queue::CREATE)
    }

    /// Deletes the queue with everything in it (`queue.delete`). One that does not exist is no error.
    pub fn delete(&self) -> Pending<Document> {
        self.call().run(&queue::DELETE)
    }

    /// The queue with its partitions and counters (`queue.get`).
    pub fn get(&self) -> Pending<Document> {
        self.call().run(&queue::GET)
    }

    /// How many messages wait, for the group that is named, else for any (`queue.depth`).
    pub fn depth(&self) -> Pending<Document> {
        match self.group_name() {
            Some(group) => self.call().with("consumerGroup", group).run(&queue::DEPTH),
            None => self.call().run(&queue::DEPTH),
        }
    }
}
