//! Push, pop, ack, renew, flush: what has typed functions of its own.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::route::{bad_params, read};
use super::{Operation, Parameter, QUEUE, Run, TIMEOUT};
use crate::consume::{AckOptions, PopOptions};
use crate::options::{self, BufferOptions, FlushOptions, PushOptions, RenewOptions};
use crate::pending::Pending;
use crate::protocol::ack;

pub(super) static TABLE: &[&Operation] = &[&PUSH, &POP, &ACK, &RENEW, &RENEW_MANY, &FLUSH, &STATS];

/// A parameter that is read by serde.
pub(super) const fn described(
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    doc: &'static str,
) -> Parameter {
    Parameter::new(super::Reads::Any, name, kind, doc).or(default)
}

static PUSH: Operation = Operation {
    name: "push",
    summary: "Stores messages in one partition, in one request, which it may share with other calls. Missing transaction ids \
              are minted.",
    parameters: &[
        QUEUE,
        described(
            "partition",
            "string",
            "\"Default\"",
            "The partition; made by its first push.",
        ),
        described(
            "items",
            "array",
            "required",
            "`[{\"payload\": any, \"transactionId\"?: string, \"traceId\"?: string}]`",
        ),
        described(
            "buffer",
            "boolean or object",
            "false",
            "Collects messages in the client and sends them later, together: `{\"messageCount\": 100, \"timeMillis\": 1000, \
             \"maxMessages\"?, \"maxBytes\"?, \"whenFull\": \"wait\", \"fail\" or \"dropOldest\"}`; `true` takes the \
             defaults. The call completes when they are accepted, with status `buffered`; delivery reports tell the rest.",
        ),
        described(
            "classicItems",
            "boolean",
            "false",
            "Items of any form, as in the classic clients: one value or an array. An object's payload is what it has under \
             `data`, else under `payload`, else the object itself; its `transactionId` and `traceId` count.",
        ),
        TIMEOUT,
    ],
    result: "`[{\"index\", \"transactionId\", \"messageId\", \"status\", \"error\"?, \"resent\"?}]`, status `queued`, \
             `duplicate`, `buffered` (successes), `failed` or `error`; `resent` is true with a `duplicate` that may be its own, \
             because the call was sent before without an answer",
    run: Run::Typed(|client, params| {
        let params: PushParams<'_> = read("push", params)?;
        let options = PushOptions {
            timeout_millis: params.timeout_millis,
            buffer: params.buffer,
            classic_items: params.classic_items,
        };
        let partition = params.partition.as_deref();
        let items = params.items.get();
        Ok(Box::new(client.push_json(
            &params.queue,
            partition,
            items,
            &options,
        )))
    }),
};

static POP: Operation = Operation {
    name: "pop",
    summary: "Takes messages under a lease. They come again when the lease ends without a verdict.",
    parameters: &[
        described(
            "queue",
            "string",
            "none",
            "The queue; or name a namespace or task.",
        ),
        described("partition", "string", "any", "One partition of the queue."),
        described(
            "namespace",
            "string",
            "none",
            "Any queue of that namespace.",
        ),
        described("task", "string", "none", "Any queue of that task."),
        described(
            "consumerGroup",
            "string",
            "queue mode",
            "The consumer group.",
        ),
        described(
            "batch",
            "integer",
            "1",
            "The most messages, over all partitions.",
        ),
        described(
            "wait",
            "boolean",
            "false",
            "Whether to wait for messages at the broker.",
        ),
        described(
            "pollTimeoutMillis",
            "integer, milliseconds",
            "30000",
            "How long to wait there, where it waits.",
        ),
        described(
            "autoAck",
            "boolean",
            "false",
            "Whether handing out counts as acked; what a cancelled pop still brings is lost then.",
        ),
        described(
            "leaseSeconds",
            "integer, seconds",
            "the queue's leaseTime",
            "The length of the lease.",
        ),
        described(
            "renewLease",
            "boolean",
            "false",
            "Renew the lease until the messages are settled.",
        ),
        described(
            "partitions",
            "integer",
            "1",
            "The most partitions to take messages from.",
        ),
        described(
            "subscriptionMode",
            "string",
            "the broker's, `new`",
            "Where a new group starts: `all` or `new`.",
        ),
        described(
            "subscriptionFrom",
            "string",
            "none",
            "Where a new group starts: `now` or an ISO 8601 time.",
        ),
        described(
            "timeoutMillis",
            "integer, milliseconds",
            "the client's",
            "Deadline of the call beyond the waiting.",
        ),
    ],
    result: "`{\"deliveries\": [{\"queue\", \"partition\", \"partitionId\", \"leaseId\", \"consumerGroup\", \"messages\": \
             [{\"id\", \"transactionId\", \"traceId\", \"data\", \"producerSub\", \"createdAt\", …}]}]}`; each delivery \
             can be taken from the future",
    run: Run::Typed(|client, params| {
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
    }),
};

static ACK: Operation = Operation {
    name: "ack",
    summary: "Gives verdicts by ids. Those of a live delivery of this client settle it there; the rest goes to the \
              broker as written.",
    parameters: &[
        described(
            "acks",
            "array",
            "required",
            "`[{\"transactionId\", \"partitionId\", \"leaseId\", \"status\"?, \"error\"?}]`, status `completed` (default), \
             `failed`, `retry` or `dlq`",
        ),
        described(
            "consumerGroup",
            "string",
            "queue mode",
            "The consumer group of the pop.",
        ),
        described(
            "unfenced",
            "boolean",
            "false",
            "Allows acks without a lease id, which the broker does not check.",
        ),
        TIMEOUT,
    ],
    result: "`[{\"index\", \"transactionId\", \"success\", \"error\", \"dlq\", \"noop\"}]`",
    run: Run::Typed(|client, params| {
        let mut params: Map<String, Value> = read("ack", params)?;
        let acks = params
            .remove("acks")
            .ok_or_else(|| bad_params("ack", "`acks` is missing"))?;
        let options: AckOptions = serde_json::from_value(Value::Object(params))
            .map_err(|error| bad_params("ack", error))?;
        Ok(Box::new(
            client.ack(ack::parse_list(&acks.to_string())?, &options),
        ))
    }),
};

static RENEW: Operation = Operation {
    name: "renew",
    summary: "Makes a lease last at least that long from now. It never gets shorter.",
    parameters: &[
        described("leaseId", "string", "required", "The lease."),
        described(
            "leaseSeconds",
            "integer, seconds",
            "60",
            "How long from now.",
        ),
        TIMEOUT,
    ],
    result: "`{\"leaseId\", \"renewed\", \"expiresAt\"}`",
    run: Run::Typed(|client, params| {
        let params: RenewParams = read("renew", params)?;
        let options = RenewOptions {
            timeout_millis: params.timeout_millis,
        };
        Ok(Box::new(client.renew(
            &params.lease_id,
            params.lease_seconds,
            &options,
        )))
    }),
};

static RENEW_MANY: Operation = Operation {
    name: "renew.many",
    summary: "Renews several leases, each of them once however often it is named.",
    parameters: &[
        described("leaseIds", "array of strings", "required", "The leases."),
        described(
            "leaseSeconds",
            "integer, seconds",
            "60",
            "How long from now.",
        ),
        TIMEOUT,
    ],
    result: "`[{\"index\", \"leaseId\", \"success\", \"renewed\", \"expiresAt\", \"error\"}]`",
    run: Run::Typed(|client, params| {
        let params: RenewManyParams = read(RENEW_MANY.name, params)?;
        let options = RenewOptions {
            timeout_millis: params.timeout_millis,
        };
        Ok(Box::new(client.renew_many(
            &params.lease_ids,
            params.lease_seconds,
            &options,
        )))
    }),
};

static FLUSH: Operation = Operation {
    name: "flush",
    summary: "Sends what is buffered and completes when every push submitted before is settled, well or not.",
    parameters: &[
        described("queue", "string", "all", "Only pushes to this queue."),
        described(
            "partition",
            "string",
            "all",
            "Only pushes to this partition of the queue.",
        ),
        TIMEOUT,
    ],
    result: "`{\"flushed\", \"messages\"}`: how many direct calls, and messages in all, were waited for. The error at the \
             deadline has the result `{\"flushed\", \"messages\", \"left\"}`",
    run: Run::Typed(|client, params| {
        let options: FlushOptions = read("flush", params)?;
        Ok(Box::new(client.flush(&options)))
    }),
};

static STATS: Operation = Operation {
    name: "client.stats",
    summary: "Tells what the client has done and what it has under way. Asks no broker.",
    parameters: &[],
    result: "the document of `docs/STATISTICS.md`",
    run: Run::Typed(|client, params| {
        let NoParams {} = read("client.stats", params)?;
        Ok(Box::new(Pending::ready(client.stats())))
    }),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParams {}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PushParams<'a> {
    #[serde(borrow)]
    queue: Cow<'a, str>,
    #[serde(borrow, default)]
    partition: Option<Cow<'a, str>>,
    #[serde(borrow)]
    items: &'a RawValue,
    #[serde(default, deserialize_with = "options::buffer")]
    buffer: Option<BufferOptions>,
    #[serde(default)]
    classic_items: bool,
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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RenewManyParams {
    lease_ids: Vec<String>,
    #[serde(default = "sixty")]
    lease_seconds: u64,
    timeout_millis: Option<u64>,
}

fn sixty() -> u64 {
    60
}
