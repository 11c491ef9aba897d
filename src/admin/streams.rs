//! Streams: all of them, and one.

use std::time::Duration;

use super::{Call, setters};
use crate::client::Client;
use crate::consume::Settlement;
use crate::error::Result;
use crate::operation::{Operation, stream};
use crate::output::Document;
use crate::pending::Pending;
use crate::stream::{
    PolledWindow, StreamConsumeOptions, StreamConsumer, StreamPollOptions, Window, WindowSink,
};
use crate::transport::ms;

/// All streams of the broker. Made by [`Client::streams`].
#[derive(Clone)]
pub struct Streams(Call);

/// One stream: how it is to be defined, and its windows. Made by [`Client::stream`].
///
/// ```
/// use queen::{Client, Item, Settlement, StreamConsumeOptions};
/// use std::time::Duration;
///
/// let wait = Duration::from_secs(10);
/// let client = Client::new("embedded:")?;
/// client.queue("orders").push(&[Item::json(&1)?, Item::json(&2)?]).wait(wait)?;
///
/// let seconds = client.stream("orders-by-second");
/// let by_second = seconds.clone().sources(&["orders"]).tumbling(Duration::from_secs(1)).grace_period(Duration::ZERO);
/// by_second.namespace("shop").define().wait(wait)?;
///
/// let options = StreamConsumeOptions { limit: Some(1), ..StreamConsumeOptions::default() };
/// let consumer = seconds.consume_with("totals", options, |window| {
///     println!("{} messages from {} to {}", window.size(), window.start(), window.end());
/// })?;
/// assert_eq!(consumer.finished().wait(wait)?.acked, 1);
/// # Ok::<(), queen::Error>(())
/// ```
#[derive(Clone)]
pub struct Stream {
    client: Client,
    name: String,
    call: Call,
}

impl Client {
    /// All streams.
    pub fn streams(&self) -> Streams {
        Streams(Call::new(self))
    }

    /// One stream by its name. Nothing is sent.
    pub fn stream(&self, name: impl Into<String>) -> Stream {
        let name = name.into();
        Stream {
            client: self.clone(),
            call: Call::new(self).with("stream", &name),
            name,
        }
    }
}

setters! { Streams; }

impl Streams {
    /// Lists them (`stream.list`).
    pub fn list(&self) -> Pending<Document> {
        self.0.run(&stream::LIST)
    }

    /// Totals over all of them (`stream.stats`).
    pub fn stats(&self) -> Pending<Document> {
        self.0.run(&stream::STATS)
    }
}

impl Stream {
    fn with(mut self, key: &str, value: impl serde::Serialize) -> Stream {
        self.call = self.call.with(key, value);
        self
    }

    /// What is not about the definition.
    fn run(&self, operation: &'static Operation, more: &[(&str, &str)]) -> Pending<Document> {
        let mut params = vec![("stream", &*self.name)];
        params.extend(more);
        self.call.run_apart(operation, &params)
    }

    /// The stream's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace of the stream; a definition needs one.
    pub fn namespace(self, namespace: &str) -> Stream {
        self.with("namespace", namespace)
    }

    /// The queues to read.
    pub fn sources(self, queues: &[&str]) -> Stream {
        self.with("sources", queues)
    }

    /// Whether each partition name has windows of its own. Default false.
    pub fn partitioned(self, partitioned: bool) -> Stream {
        self.with("partitioned", partitioned)
    }

    /// Windows of that length, one after another. Default: a minute.
    pub fn tumbling(self, length: Duration) -> Stream {
        self.with("windowMillis", ms(length))
    }

    /// How long after its end a window closes. Default: 30 seconds.
    pub fn grace_period(self, grace: Duration) -> Stream {
        self.with("graceMillis", ms(grace))
    }

    /// The length of a window's lease. Default: a minute.
    pub fn lease_timeout(self, lease: Duration) -> Stream {
        self.with("leaseMillis", ms(lease))
    }

    /// Whether windows close only when something later came to every source, as on brokers of generation 0.7. Default
    /// false.
    pub fn strict_watermark(self, strict: bool) -> Stream {
        self.with("strictWatermark", strict)
    }

    /// Deadline of each call. Default: the client's `timeoutMillis`.
    pub fn timeout_millis(self, millis: u64) -> Stream {
        self.with("timeoutMillis", millis)
    }

    /// Defines the stream, or replaces its definition (`stream.define`).
    pub fn define(&self) -> Pending<Document> {
        self.call.run(&stream::DEFINE)
    }

    /// How it is defined (`stream.get`).
    pub fn get(&self) -> Pending<Document> {
        self.run(&stream::GET, &[])
    }

    /// Where its groups stand (`stream.consumers`).
    pub fn consumers(&self) -> Pending<Document> {
        self.run(&stream::CONSUMERS, &[])
    }

    /// Deletes it (`stream.delete`).
    pub fn delete(&self) -> Pending<Document> {
        self.run(&stream::DELETE, &[])
    }

    /// Moves a group to a time, ISO 8601 with a zone (`stream.seek`).
    pub fn seek(&self, group: &str, timestamp: &str) -> Pending<Document> {
        let to = [("consumerGroup", group), ("timestamp", timestamp)];
        self.run(&stream::SEEK, &to)
    }

    /// Polls for one window, waiting for it for up to 30 s.
    pub fn poll(&self, group: &str) -> Pending<PolledWindow> {
        self.poll_with(group, &StreamPollOptions::default())
    }

    /// Polls with options.
    pub fn poll_with(&self, group: &str, options: &StreamPollOptions) -> Pending<PolledWindow> {
        self.client.poll_window(&self.name, group, options)
    }

    /// Consumes with a handler that runs on threads of its own and may block. It returns a [`Settlement`], or what becomes
    /// one: nothing, which is an ack, or a `Result`, whose error is a nack. A panic is a nack too.
    pub fn consume<R: Into<Settlement> + 'static>(
        &self,
        group: &str,
        handler: impl Fn(Window) -> R + Send + Sync + 'static,
    ) -> Result<StreamConsumer> {
        self.consume_with(group, StreamConsumeOptions::default(), handler)
    }

    /// Consumes with options; the stream and the group come from here.
    pub fn consume_with<R: Into<Settlement> + 'static>(
        &self,
        group: &str,
        mut options: StreamConsumeOptions,
        handler: impl Fn(Window) -> R + Send + Sync + 'static,
    ) -> Result<StreamConsumer> {
        options.stream = Some(self.name.clone());
        options.group = Some(group.to_owned());
        let handler = move |window| handler(window).into();
        self.client
            .consume_windows(options, WindowSink::Handler(Box::new(handler)))
    }
}
