//! Consumer groups.

use super::{Call, setters};
use crate::client::Client;
use crate::operation::group;
use crate::output::Document;
use crate::pending::Pending;

/// All consumer groups of the broker. Made by [`Client::groups`].
#[derive(Clone)]
pub struct Groups(Call);

/// One consumer group. Made by [`Client::group`].
///
/// ```
/// use queen::{Client, Item, PopOptions, SeekTo};
/// use std::time::Duration;
///
/// let wait = Duration::from_secs(10);
/// let client = Client::new("embedded:")?;
/// let orders = client.queue("orders").group("billing");
/// orders.push(&[Item::json(&1)?]).wait(wait)?;
/// let from_start = PopOptions { subscription_mode: Some("all".into()), ..PopOptions::default() };
/// orders.pop_with(&from_start).wait(wait)?.take().expect("one delivery").ack().wait(wait)?;
///
/// // Once more from the beginning.
/// client.group("billing").seek("orders", SeekTo::Time("1970-01-01T00:00:00Z")).wait(wait)?;
/// assert!(orders.pop().wait(wait)?.take().is_some());
/// client.group("billing").delete().wait(wait)?;
/// # Ok::<(), queen::Error>(())
/// ```
#[derive(Clone)]
pub struct Group(Call);

/// Where a seek goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeekTo<'a> {
    /// Behind the newest message.
    End,
    /// To the first message of that time or later, an ISO 8601 time with a zone.
    Time(&'a str),
}

impl Client {
    /// All consumer groups.
    pub fn groups(&self) -> Groups {
        Groups(Call::new(self))
    }

    /// One consumer group; `__QUEUE_MODE__` is that of reading without a group.
    pub fn group(&self, name: &str) -> Group {
        Group(Call::new(self).with("consumerGroup", name))
    }
}

setters! { Groups; }

impl Groups {
    /// Lists them, one entry for each queue that a group has read (`group.list`).
    pub fn list(&self) -> Pending<Document> {
        self.0.run(&group::LIST)
    }

    /// The partitions in which a group lags at least that long behind (`group.lagging`).
    pub fn lagging(&self, min_lag_seconds: u64) -> Pending<Document> {
        let call = self.0.clone().with("minLagSeconds", min_lag_seconds);
        call.run(&group::LAGGING)
    }
}

setters! {
    Group;
    /// Whether a delete forgets the subscription too. Default true; kept, it says where the group begins when it comes back.
    delete_metadata: bool = "deleteMetadata";
}

impl Group {
    fn apart(&self) -> Call {
        let mut call = self.0.clone();
        call.params.remove("deleteMetadata");
        call
    }

    /// Where the group stands in each partition (`group.get`).
    pub fn get(&self) -> Pending<Document> {
        self.apart().run(&group::GET)
    }

    /// Moves the begin of the subscription, for partitions that the group has not read yet (`group.subscribe`).
    pub fn subscribe(&self, timestamp: &str) -> Pending<Document> {
        self.apart()
            .with("timestamp", timestamp)
            .run(&group::SUBSCRIBE)
    }

    /// Moves the group in all partitions of a queue (`group.seek`). Leases end with it.
    pub fn seek(&self, queue: &str, to: SeekTo<'_>) -> Pending<Document> {
        self.seek_call(queue, to).run(&group::SEEK)
    }

    /// Moves the group in one partition, by name (`group.seek`).
    pub fn seek_partition(
        &self,
        queue: &str,
        partition: &str,
        to: SeekTo<'_>,
    ) -> Pending<Document> {
        let call = self.seek_call(queue, to).with("partition", partition);
        call.run(&group::SEEK)
    }

    fn seek_call(&self, queue: &str, to: SeekTo<'_>) -> Call {
        let call = self.apart().with("queue", queue);
        match to {
            SeekTo::End => call.with("toEnd", true),
            SeekTo::Time(timestamp) => call.with("timestamp", timestamp),
        }
    }

    /// Forgets where the group stands, in all queues (`group.delete`).
    pub fn delete(&self) -> Pending<Document> {
        self.0.run(&group::DELETE)
    }

    /// Forgets where the group stands in one queue (`group.delete`).
    pub fn delete_in(&self, queue: &str) -> Pending<Document> {
        self.0.clone().with("queue", queue).run(&group::DELETE)
    }
}
