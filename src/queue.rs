//! The fluent way to a queue.

use std::borrow::Cow;

use crate::client::Client;
use crate::consume::{
    ConsumeOptions, Consumer, ConsumerSink, Delivery, PopOptions, Popped, Settlement,
};
use crate::error::Result;
use crate::options::{BufferOptions, FlushOptions, PushOptions};
use crate::pending::Pending;
use crate::produce::Flushed;
use crate::protocol::DEFAULT_PARTITION;
use crate::protocol::push::{Item, PushResult};

/// A queue of a client, with the partition and the consumer group that its calls use.
///
/// ```
/// use queen::{Client, Item};
/// use std::time::Duration;
///
/// let client = Client::new("embedded:")?;
/// let orders = client.queue("orders").partition("customer-42");
/// orders.push(&[Item::json(&"first")?]).wait(Duration::from_secs(10))?;
/// let popped = orders.pop().wait(Duration::from_secs(10))?;
/// let delivery = popped.take().expect("one delivery");
/// assert_eq!(delivery.messages()[0].payload(), "\"first\"");
/// delivery.ack().wait(Duration::from_secs(10))?;
/// client.close(Duration::from_secs(10)).wait(Duration::from_secs(10))?;
/// # Ok::<(), queen::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Queue {
    client: Client,
    name: String,
    partition: Option<String>,
    group: Option<String>,
    buffer: Option<BufferOptions>,
}

impl Client {
    /// A queue by its name. Nothing is sent.
    pub fn queue(&self, name: impl Into<String>) -> Queue {
        Queue {
            client: self.clone(),
            name: name.into(),
            partition: None,
            group: None,
            buffer: None,
        }
    }
}

impl Queue {
    /// The queue's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn partition_name(&self) -> Option<&str> {
        self.partition.as_deref()
    }

    pub(crate) fn group_name(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// Pushes to and pops from this partition alone. Without it pushes go to `Default` and pops to any.
    pub fn partition(mut self, name: impl Into<String>) -> Queue {
        self.partition = Some(name.into());
        self
    }

    /// Pops and consumes for this consumer group.
    pub fn group(mut self, name: impl Into<String>) -> Queue {
        self.group = Some(name.into());
        self
    }

    /// Collects what is pushed in the client and sends it together later: a push completes when its messages are accepted,
    /// and a delivery report follows for each ([`Client::set_reports`]).
    ///
    /// ```
    /// use queen::{BufferOptions, Client, Item};
    /// use std::time::Duration;
    ///
    /// let client = Client::new("embedded:")?;
    /// let events = client.queue("events").buffer(BufferOptions::default());
    /// for n in 0..250 {
    ///     events.push(&[Item::json(&n)?]).wait(Duration::from_secs(10))?;
    /// }
    /// assert!(events.flush().wait(Duration::from_secs(30))?.messages <= 250);
    /// # Ok::<(), queen::Error>(())
    /// ```
    pub fn buffer(mut self, options: BufferOptions) -> Queue {
        self.buffer = Some(options);
        self
    }

    /// Pushes messages in one request, or into the buffer. Calls of one client to one partition are stored in the order of
    /// the calls. A push goes out at once while none is in flight; those that come meanwhile share the next request
    /// ([`Config::coalesce_pushes`](crate::Config::coalesce_pushes)), and each gets its own result.
    pub fn push(&self, items: &[Item<'_>]) -> Pending<Vec<PushResult>> {
        self.push_with(items, &PushOptions::default())
    }

    /// As [`push`](Self::push), with options.
    pub fn push_with(&self, items: &[Item<'_>], options: &PushOptions) -> Pending<Vec<PushResult>> {
        let partition = self.partition.as_deref().unwrap_or(DEFAULT_PARTITION);
        let options = self.with_buffer(options);
        self.client
            .producer()
            .push(&self.name, partition, items, &options)
    }

    /// As [`push_with`](Self::push_with), from a JSON array of `{payload, transactionId?, traceId?}`, or as
    /// [`PushOptions::classic_items`] says.
    pub fn push_json(&self, items: &str, options: &PushOptions) -> Pending<Vec<PushResult>> {
        let options = self.with_buffer(options);
        self.client
            .push_json(&self.name, self.partition.as_deref(), items, &options)
    }

    /// The options, with the buffer of the queue unless they have one.
    fn with_buffer<'a>(&self, options: &'a PushOptions) -> Cow<'a, PushOptions> {
        let mut options = Cow::Borrowed(options);
        if options.buffer.is_none() && self.buffer.is_some() {
            options.to_mut().buffer.clone_from(&self.buffer);
        }
        options
    }

    /// Sends what is buffered for the partition, without one for every partition of the queue, and completes when every
    /// push made there before is settled.
    pub fn flush(&self) -> Pending<Flushed> {
        self.client.flush(&FlushOptions {
            queue: Some(self.name.clone()),
            partition: self.partition.clone(),
            ..FlushOptions::default()
        })
    }

    /// Pops one message, waiting for it at the broker for up to 30 s.
    pub fn pop(&self) -> Pending<Popped> {
        self.pop_with(&PopOptions::default())
    }

    /// Pops with options.
    pub fn pop_with(&self, options: &PopOptions) -> Pending<Popped> {
        let mut options = options.clone();
        options.group = options.group.or_else(|| self.group.clone());
        self.client
            .pop(Some(&self.name), self.partition.as_deref(), &options)
    }

    /// Consumes with a handler that runs on threads of its own and may block. It returns a [`Settlement`], or what becomes
    /// one: nothing, which is an ack, or a `Result`, whose error is a nack with its text. A panic is a nack too.
    pub fn consume<R: Into<Settlement> + 'static>(
        &self,
        handler: impl Fn(Delivery) -> R + Send + Sync + 'static,
    ) -> Result<Consumer> {
        self.consume_with(ConsumeOptions::default(), handler)
    }

    /// Consumes with options; queue, partition and group come from here where the options name none.
    pub fn consume_with<R: Into<Settlement> + 'static>(
        &self,
        mut options: ConsumeOptions,
        handler: impl Fn(Delivery) -> R + Send + Sync + 'static,
    ) -> Result<Consumer> {
        options.queue = options.queue.or_else(|| Some(self.name.clone()));
        options.partition = options.partition.or_else(|| self.partition.clone());
        options.group = options.group.or_else(|| self.group.clone());
        let handler = move |delivery| handler(delivery).into();
        self.client
            .consume(options, ConsumerSink::Handler(Box::new(handler)))
    }
}
