//! The catalogue: every operation by name, with its parameters and its result. Powers `queen_call` and
//! `docs/OPERATIONS.md`.

use std::borrow::Cow;

use once_cell::sync::Lazy;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::consume::{AckOptions, PopOptions};
use crate::error::{Error, ErrorCode, Result};
use crate::options::{FlushOptions, PushOptions, RenewOptions};
use crate::output::AnyPending;
use crate::protocol::ack;

/// One operation of the catalogue.
pub struct Operation {
    /// The name for [`Client::call`].
    pub name: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// The keys of its parameters.
    pub parameters: &'static [Parameter],
    /// The shape of its result.
    pub result: &'static str,
    run: fn(&Client, &str) -> Result<Box<dyn AnyPending>>,
}

/// One key of an operation's parameters.
pub struct Parameter {
    /// The key.
    pub name: &'static str,
    /// The JSON type, with the unit.
    pub kind: &'static str,
    /// The default, or `required`.
    pub default: &'static str,
    /// What it means.
    pub doc: &'static str,
}

const fn parameter(
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    doc: &'static str,
) -> Parameter {
    Parameter {
        name,
        kind,
        default,
        doc,
    }
}

const QUEUE: Parameter = parameter("queue", "string", "required", "The queue.");
const TIMEOUT: Parameter = parameter(
    "timeoutMillis",
    "integer, milliseconds",
    "the client's",
    "Deadline of the call.",
);

/// Every operation.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "push",
        summary: "Stores messages in one partition, in one request. Missing transaction ids are minted.",
        parameters: &[
            QUEUE,
            parameter(
                "partition",
                "string",
                "\"Default\"",
                "The partition; made by its first push.",
            ),
            parameter(
                "items",
                "array",
                "required",
                "`[{\"payload\": any, \"transactionId\"?: string, \"traceId\"?: string}]`",
            ),
            TIMEOUT,
        ],
        result: "`[{\"index\", \"transactionId\", \"messageId\", \"status\", \"error\"?}]`, status `queued`, `duplicate`, \
                 `buffered` (successes), `failed` or `error`",
        run: |client, params| {
            let params: PushParams<'_> = read("push", params)?;
            let options = PushOptions {
                timeout_millis: params.timeout_millis,
            };
            let mut queue = client.queue(params.queue);
            if let Some(partition) = params.partition {
                queue = queue.partition(partition);
            }
            Ok(Box::new(queue.push_json(params.items.get(), &options)))
        },
    },
    Operation {
        name: "pop",
        summary: "Takes messages under a lease. They come again when the lease ends without a verdict.",
        parameters: &[
            parameter(
                "queue",
                "string",
                "none",
                "The queue; or name a namespace or task.",
            ),
            parameter("partition", "string", "any", "One partition of the queue."),
            parameter(
                "namespace",
                "string",
                "none",
                "Any queue of that namespace.",
            ),
            parameter("task", "string", "none", "Any queue of that task."),
            parameter(
                "consumerGroup",
                "string",
                "queue mode",
                "The consumer group.",
            ),
            parameter(
                "batch",
                "integer",
                "1",
                "The most messages, over all partitions.",
            ),
            parameter(
                "wait",
                "boolean",
                "true",
                "Whether to wait for messages at the broker.",
            ),
            parameter(
                "pollTimeoutMillis",
                "integer, milliseconds",
                "30000",
                "How long to wait there.",
            ),
            parameter(
                "autoAck",
                "boolean",
                "false",
                "Whether handing out counts as acked; what a cancelled pop still brings is lost then.",
            ),
            parameter(
                "leaseSeconds",
                "integer, seconds",
                "the queue's leaseTime",
                "The length of the lease.",
            ),
            parameter(
                "renewLease",
                "boolean",
                "false",
                "Renew the lease until the messages are settled.",
            ),
            parameter(
                "partitions",
                "integer",
                "1",
                "The most partitions to take messages from.",
            ),
            parameter(
                "subscriptionMode",
                "string",
                "the broker's, `new`",
                "Where a new group starts: `all` or `new`.",
            ),
            parameter(
                "subscriptionFrom",
                "string",
                "none",
                "Where a new group starts: `now` or an ISO 8601 time.",
            ),
            parameter(
                "timeoutMillis",
                "integer, milliseconds",
                "the client's",
                "Deadline of the call beyond the waiting.",
            ),
        ],
        result: "`{\"deliveries\": [{\"queue\", \"partition\", \"partitionId\", \"leaseId\", \"consumerGroup\", \"messages\": \
                 [{\"id\", \"transactionId\", \"traceId\", \"data\", \"producerSub\", \"createdAt\", …}]}]}`; each delivery \
                 can be taken from the future",
        run: |client, params| {
            let mut params: Map<String, Value> = read("pop", params)?;
            let mut name = |key: &str| match params.remove(key) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(name)) => Ok(Some(name)),
                Some(other) => Err(bad_params(
                    "pop",
                    format!("`{key}` is {other}; it must be a string"),
                )),
            };
            let (queue, partition) = (name("queue")?, name("partition")?);
            let options: PopOptions = serde_json::from_value(Value::Object(params))
                .map_err(|error| bad_params("pop", error))?;
            Ok(Box::new(client.pop(
                queue.as_deref(),
                partition.as_deref(),
                &options,
            )))
        },
    },
    Operation {
        name: "ack",
        summary: "Gives verdicts by ids. Those of a live delivery of this client settle it there; the rest goes to the \
                  broker as written.",
        parameters: &[
            parameter(
                "acks",
                "array",
                "required",
                "`[{\"transactionId\", \"partitionId\", \"leaseId\", \"status\"?, \"error\"?}]`, status `completed` (default), \
                 `failed`, `retry` or `dlq`",
            ),
            parameter(
                "consumerGroup",
                "string",
                "queue mode",
                "The consumer group of the pop.",
            ),
            parameter(
                "unfenced",
                "boolean",
                "false",
                "Allows acks without a lease id, which the broker does not check.",
            ),
            TIMEOUT,
        ],
        result: "`[{\"index\", \"transactionId\", \"success\", \"error\", \"dlq\", \"noop\"}]`",
        run: |client, params| {
            let mut params: Map<String, Value> = read("ack", params)?;
            let acks = params
                .remove("acks")
                .ok_or_else(|| bad_params("ack", "`acks` is missing"))?;
            let options: AckOptions = serde_json::from_value(Value::Object(params))
                .map_err(|error| bad_params("ack", error))?;
            Ok(Box::new(
                client.ack(ack::parse_list(&acks.to_string())?, &options),
            ))
        },
    },
    Operation {
        name: "renew",
        summary: "Makes a lease last at least that long from now. It never gets shorter.",
        parameters: &[
            parameter("leaseId", "string", "required", "The lease."),
            parameter(
                "leaseSeconds",
                "integer, seconds",
                "60",
                "How long from now.",
            ),
            TIMEOUT,
        ],
        result: "`{\"leaseId\", \"renewed\", \"expiresAt\"}`",
        run: |client, params| {
            let params: RenewParams = read("renew", params)?;
            let options = RenewOptions {
                timeout_millis: params.timeout_millis,
            };
            Ok(Box::new(client.renew(
                &params.lease_id,
                params.lease_seconds,
                &options,
            )))
        },
    },
    Operation {
        name: "flush",
        summary: "Completes when every push submitted before is settled.",
        parameters: &[TIMEOUT],
        result: "`{\"flushed\"}`: how many calls were waited for",
        run: |client, params| {
            let options: FlushOptions = read("flush", params)?;
            Ok(Box::new(client.flush(&options)))
        },
    },
    Operation {
        name: "queue.create",
        summary: "Creates a queue, or sets the options of one that exists. Options that are not named get their defaults.",
        parameters: &[
            QUEUE,
            parameter(
                "namespace",
                "string",
                "none",
                "The key under which consumers can find the queue.",
            ),
            parameter("task", "string", "none", "The second such key."),
            parameter(
                "options",
                "object",
                "{}",
                "`leaseTime` (300 s), `retryLimit` (3), `priority` (0), `delayedProcessing` (0 s), `windowBuffer` (0 s), \
                 `maxSize` (0), `retentionSeconds` (0), `completedRetentionSeconds` (0), `encryptionEnabled` (false), and \
                 further ones that the broker knows",
            ),
            TIMEOUT,
        ],
        result: "the broker's document: `{\"configured\", \"queueId\", \"queue\", \"namespace\", \"task\", \"options\", …}`",
        run: |client, params| {
            let params: CreateParams = read("queue.create", params)?;
            Ok(Box::new(client.core().queue_create(
                &params.queue,
                params.namespace.as_deref(),
                params.task.as_deref(),
                &params.options,
                params.timeout_millis,
            )))
        },
    },
    Operation {
        name: "queue.delete",
        summary: "Deletes a queue with everything in it. One that does not exist is no error.",
        parameters: &[QUEUE, TIMEOUT],
        result: "the broker's document: `{\"queue\", \"deleted\", \"existed\"}`",
        run: |client, params| {
            let params: QueueParams = read("queue.delete", params)?;
            Ok(Box::new(
                client
                    .core()
                    .queue_delete(&params.queue, params.timeout_millis),
            ))
        },
    },
    Operation {
        name: "queue.get",
        summary: "Tells a queue's partitions and counters.",
        parameters: &[QUEUE, TIMEOUT],
        result: "the broker's document: `{\"id\", \"name\", \"namespace\", \"task\", \"totals\", \"partitions\", …}`",
        run: |client, params| {
            let params: QueueParams = read("queue.get", params)?;
            Ok(Box::new(
                client
                    .core()
                    .queue_get(&params.queue, params.timeout_millis),
            ))
        },
    },
    Operation {
        name: "health",
        summary: "Asks the broker how it is.",
        parameters: &[TIMEOUT],
        result: "the broker's document, with `status`",
        run: |client, params| {
            let params: TimeoutParams = read("health", params)?;
            Ok(Box::new(client.core().health(params.timeout_millis)))
        },
    },
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PushParams<'a> {
    #[serde(borrow)]
    queue: Cow<'a, str>,
    #[serde(borrow, default)]
    partition: Option<Cow<'a, str>>,
    #[serde(borrow)]
    items: &'a RawValue,
    timeout_millis: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RenewParams {
    lease_id: String,
    #[serde(default = "sixty")]
    lease_seconds: u64,
    timeout_millis: Option<u64>,
}

fn sixty() -> u64 {
    60
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TimeoutParams {
    timeout_millis: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct QueueParams {
    queue: String,
    timeout_millis: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CreateParams {
    queue: String,
    namespace: Option<String>,
    task: Option<String>,
    #[serde(default)]
    options: Map<String, Value>,
    timeout_millis: Option<u64>,
}

fn read<'a, T: Deserialize<'a>>(operation: &str, params: &'a str) -> Result<T> {
    let params = if params.trim().is_empty() {
        "{}"
    } else {
        params
    };
    // serde would read a list as the fields in order.
    if !params.trim_start().starts_with('{') {
        return Err(bad_params(
            operation,
            format!("they are not a JSON object: {params:.60}"),
        ));
    }
    serde_json::from_str(params).map_err(|error| bad_params(operation, error))
}

fn bad_params(operation: &str, why: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorCode::InvalidJson,
        format!("parameters of {operation}: {why}"),
    )
}

impl Client {
    /// Runs an operation of the catalogue by its name, with its parameters as a JSON object (empty: `{}`).
    pub fn call(&self, operation: &str, params: &str) -> Result<Box<dyn AnyPending>> {
        let found = OPERATIONS
            .iter()
            .find(|one| one.name == operation)
            .ok_or_else(|| {
                let names: Vec<_> = OPERATIONS.iter().map(|one| one.name).collect();
                Error::new(
                    ErrorCode::UnknownOperation,
                    format!(
                        "there is no operation `{operation}`; there are {}",
                        names.join(", ")
                    ),
                )
            })?;
        (found.run)(self, params)
    }
}

/// The catalogue as a JSON array of `{name, summary, parameters: [{name, type, default, doc}], result}`.
pub fn operations_json() -> &'static str {
    static JSON: Lazy<String> = Lazy::new(|| {
        let operations: Vec<Value> = OPERATIONS
            .iter()
            .map(|operation| {
                let parameters: Vec<Value> = operation
                    .parameters
                    .iter()
                    .map(|one| json!({"name": one.name, "type": one.kind, "default": one.default, "doc": one.doc}))
                    .collect();
                json!({
                    "name": operation.name,
                    "summary": operation.summary,
                    "parameters": parameters,
                    "result": operation.result,
                })
            })
            .collect();
        Value::from(operations).to_string()
    });
    &JSON
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_and_parameters_are_named() {
        let client = Client::new("embedded:").unwrap();
        let error = |operation: &str, params: &str| {
            client
                .call(operation, params)
                .err()
                .map(|error| error.message().to_owned())
        };
        assert!(error("queue.crate", "{}").unwrap().contains("queue.crate"));
        assert!(
            error("queue.create", r#"{"que":"a"}"#)
                .unwrap()
                .contains("que")
        );
        assert!(
            error("pop", r#"{"queue":"a","btch":2}"#)
                .unwrap()
                .contains("btch")
        );
        assert!(error("pop", r#"{"queue":7}"#).unwrap().contains('7'));
        assert!(error("ack", "{}").unwrap().contains("acks"));
        assert!(error("flush", "[").is_some());
    }

    #[test]
    fn the_catalogue_lists_each_name_once() {
        let listed: Vec<Value> = serde_json::from_str(operations_json()).unwrap();
        let mut names: Vec<_> = listed
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), OPERATIONS.len());
    }
}
