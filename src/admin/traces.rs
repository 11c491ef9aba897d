//! Traces: what happened to a message, told by whoever handled it.

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::{Call, setters};
use crate::client::Client;
use crate::consume::Delivery;
use crate::error::{Error, ErrorCode, Result};
use crate::operation::{Params, trace};
use crate::output::Document;
use crate::pending::Pending;
use crate::protocol::pop::Message;

/// What to tell of a message.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trace {
    data: Box<RawValue>,
    #[serde(default, rename = "traceNames", deserialize_with = "one_or_more")]
    names: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event_type: Option<String>,
}

impl Trace {
    /// A trace whose data is the JSON form of `value`.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Trace> {
        let data = to_raw_value(value).map_err(|error| bad(&error))?;
        Ok(Trace {
            data,
            names: Vec::new(),
            event_type: None,
        })
    }

    /// Reads `{"data": any, "traceNames"?: string or array, "eventType"?: string}`.
    pub fn parse(json: &str) -> Result<Trace> {
        serde_json::from_str(json).map_err(|error| bad(&error))
    }

    /// A name under which the trace is found, beside those that it has.
    pub fn name(mut self, name: impl Into<String>) -> Trace {
        self.names.push(name.into());
        self
    }

    /// What kind of event it is. Default `info`.
    pub fn event_type(mut self, event_type: impl Into<String>) -> Trace {
        self.event_type = Some(event_type.into());
        self
    }
}

fn bad(error: &serde_json::Error) -> Error {
    Error::new(ErrorCode::InvalidJson, format!("trace: {error}"))
}

fn one_or_more<'de, D: serde::Deserializer<'de>>(
    json: D,
) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Names {
        None(()),
        One(String),
        More(Vec<String>),
    }
    Ok(match Names::deserialize(json)? {
        Names::None(()) => Vec::new(),
        Names::One(name) => vec![name],
        Names::More(names) => names,
    })
}

/// The traces of messages. Made by [`Client::traces`].
///
/// ```
/// use queen::{Client, Item, Trace};
/// use std::time::Duration;
///
/// let wait = Duration::from_secs(10);
/// let client = Client::new("embedded:")?;
/// let orders = client.queue("orders");
/// orders.push(&[Item::json(&1)?]).wait(wait)?;
/// let delivery = orders.pop().wait(wait)?.take().expect("one delivery");
///
/// // Inside a handler nobody has to wait for it.
/// delivery.trace(0, Trace::json("paid")?.name("order-1").event_type("payment")).wait(wait)?;
///
/// let told: serde_json::Value = client.traces().by_name("order-1").wait(wait)?.json()?;
/// assert_eq!(told["traces"][0]["data"], "paid");
/// # Ok::<(), queen::Error>(())
/// ```
#[derive(Clone)]
pub struct Traces(Call);

impl Client {
    /// The traces of messages.
    pub fn traces(&self) -> Traces {
        Traces(Call::new(self))
    }
}

setters! {
    Traces;
    /// The most entries of a list. Default 100 traces or 50 names.
    limit: u64 = "limit";
    /// How many entries of a list to skip. Default 0.
    offset: u64 = "offset";
}

impl Traces {
    /// Adds a trace to a message (`trace.add`). One that fails is also logged as a warning.
    pub fn add(&self, message: &Message, trace: Trace) -> Pending<Document> {
        let mut params = about(message, trace);
        if let Some(millis) = self.0.params.get::<u64>("timeoutMillis") {
            params.set("timeoutMillis", millis);
        }
        trace::ADD.start(&self.0.core, params)
    }

    /// The traces of a message, the oldest first (`trace.list`).
    pub fn list(&self, partition_id: &str, transaction_id: &str) -> Pending<Document> {
        let address = [
            ("partitionId", partition_id),
            ("transactionId", transaction_id),
        ];
        self.0.run_apart(&trace::LIST, &address)
    }

    /// The traces of that name (`trace.by_name`).
    pub fn by_name(&self, name: &str) -> Pending<Document> {
        self.0.clone().with("traceName", name).run(&trace::BY_NAME)
    }

    /// The names that traces have (`trace.names`).
    pub fn names(&self) -> Pending<Document> {
        self.0.run(&trace::NAMES)
    }
}

impl Delivery {
    /// Adds a trace to the message at `index` (`trace.add`). It never touches the delivery, and one that fails is also logged
    /// as a warning, so a handler need not wait for it.
    pub fn trace(&self, index: usize, trace: Trace) -> Pending<Document> {
        match self.messages().get(index) {
            Some(message) => trace::ADD.start(self.core(), about(message, trace)),
            None => Pending::failed(Error::argument(format!(
                "trace for message {index}; the delivery has {} messages",
                self.messages().len()
            ))),
        }
    }
}

/// The parameters of a trace: those of the message, and nothing that could be another's.
fn about(message: &Message, trace: Trace) -> Params {
    let mut params = Params::default();
    params.set("transactionId", &message.transaction_id);
    params.set("partitionId", &message.source.partition_id);
    params.set("consumerGroup", &message.source.consumer_group);
    params.set("traceNames", &trace.names);
    params.set("eventType", &trace.event_type);
    params.set("data", &trace.data);
    params
}
