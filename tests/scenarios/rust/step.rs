//! What a step may have, and the results that the README beside promises.

use std::collections::HashMap;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use queen::{Delivery, Message};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::pattern::matches;
use crate::world::lock;

/// A step. A field that is not known is a mistake.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Step {
    pub r#do: String,
    pub client: Option<String>,
    pub queue: Option<String>,
    pub stream: String,
    pub group: String,
    pub aggregate: Option<Value>,
    pub partition: Option<String>,
    pub r#as: Option<String>,
    pub of: String,
    pub reason: Option<String>,
    pub name: String,
    pub operation: String,
    pub items: Value,
    pub options: Option<Value>,
    pub config: Map<String, Value>,
    pub parameters: Option<Value>,
    pub change: Value,
    pub verdicts: Value,
    pub acks: Value,
    pub operations: Vec<Value>,
    pub handler: Vec<Rule>,
    pub faults: Value,
    pub step: Option<Box<Value>>,
    pub expect: Map<String, Value>,
    pub save: Map<String, Value>,
    pub timeout_millis: Option<u64>,
    pub stop_millis: Option<u64>,
    pub millis: u64,
    pub within: u64,
}

/// What a handler does with some messages, or with a window, whose key is its payload.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rule {
    pub payload: Option<Value>,
    pub call: Option<u64>,
    pub then: String,
    pub reason: String,
    pub status: Option<String>,
    pub queue: String,
    pub items: Value,
    pub sleep_millis: u64,
}

/// The rules of a handler, and how often each payload came.
pub struct Rules {
    rules: Vec<Rule>,
    calls: Mutex<HashMap<String, u64>>,
}

impl Rules {
    pub fn of(step: &Step) -> Rules {
        Rules {
            rules: step.handler.clone(),
            calls: Mutex::default(),
        }
    }

    /// The one that decides on this call, once its time to sleep is over.
    pub fn next(&self, payload: &Value) -> Option<&Rule> {
        let call = {
            let mut calls = lock(&self.calls);
            let count = calls.entry(payload.to_string()).or_default();
            *count += 1;
            *count
        };
        let rule = self.rules.iter().find(|rule| {
            let fits = |wanted| matches(wanted, payload, "").is_ok();
            rule.payload.as_ref().is_none_or(fits) && rule.call.is_none_or(|n| n == call)
        })?;
        thread::sleep(Duration::from_millis(rule.sleep_millis));
        Some(rule)
    }
}

impl Step {
    pub fn client(&self) -> &str {
        self.client.as_deref().unwrap_or("main")
    }

    /// The options as JSON.
    pub fn options(&self) -> String {
        self.options.as_ref().map_or("{}".into(), Value::to_string)
    }
}

pub fn payload(message: &Message) -> Value {
    serde_json::from_str(message.payload()).unwrap_or_default()
}

fn describe(message: &Message) -> Value {
    let source = &message.source;
    json!({
        "queue": source.queue, "partition": source.partition, "partitionId": source.partition_id,
        "leaseId": source.lease_id, "consumerGroup": source.consumer_group, "id": message.id,
        "transactionId": message.transaction_id, "traceId": message.trace_id, "payload": payload(message),
    })
}

/// Describes the messages of deliveries.
pub fn tell(deliveries: &[Delivery]) -> Value {
    let messages = || deliveries.iter().flat_map(Delivery::messages);
    json!({
        "payloads": messages().map(payload).collect::<Vec<_>>(),
        "messages": messages().map(describe).collect::<Vec<_>>(),
        "deliveries": deliveries.len(),
    })
}
