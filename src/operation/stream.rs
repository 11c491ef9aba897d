//! Streams of generation 0.7: define, poll, settle, seek, look at.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::messaging::described;
use super::route::{Call, instant, read};
use super::{Operation, Parameter, Params, Reads, Run, TIMEOUT};
use crate::error::Result;
use crate::options::RenewOptions;
use crate::protocol::stream;
use crate::stream::StreamPollOptions;

pub(super) static TABLE: &[&Operation] = &[
    &DEFINE, &POLL, &ACK, &RENEW, &SEEK, &LIST, &GET, &CONSUMERS, &STATS, &DELETE,
];

const STREAM: Parameter = Parameter::name("stream", "The stream.").required();
const GROUP: Parameter = Parameter::name("consumerGroup", "The consumer group.").required();

const fn millis(name: &'static str, default: &'static str, doc: &'static str) -> Parameter {
    Parameter::new(Reads::Positive, name, "integer, milliseconds", doc).or(default)
}

pub(crate) static DEFINE: Operation = Operation::post("stream.define", "/api/v1/stream/define")
    .takes(&[
        STREAM.sent_as("name"),
        Parameter::name("namespace", "The namespace of the stream.").required(),
        Parameter::new(
            Reads::Texts,
            "sources",
            "string or array of strings",
            "The queues to read. They are added to those that the stream has. One that does not exist is an error on the \
             embedded broker; one of generation 0.7 leaves it out.",
        )
        .or("[]")
        .sent_as("source_queue_names"),
        Parameter::flag(
            "partitioned",
            "Whether each partition name has windows of its own, or all messages are together.",
        )
        .or("false"),
        Parameter::name("windowType", "The kind of window; there is no other.")
            .or("\"tumbling\"")
            .sent_as("window_type"),
        millis("windowMillis", "60000", "The length of a window.").sent_as("window_duration_ms"),
        Parameter {
            reads: Reads::Number,
            ..millis(
                "graceMillis",
                "30000",
                "How long after its end a window closes.",
            )
            .sent_as("window_grace_period_ms")
        },
        millis("leaseMillis", "60000", "The length of a window's lease.")
            .sent_as("window_lease_timeout_ms"),
        Parameter::flag(
            "strictWatermark",
            "Close windows as brokers of generation 0.7 do: when something later came to every source, never by the clock.",
        )
        .or("false")
        .sent_as("strict_watermark"),
        TIMEOUT,
    ])
    .prepared(complete)
    .repeatable()
    .done_by(|call| Box::pin(told(call)))
    .says(
        "Defines a stream, or replaces the definition of one that exists; where its groups stand is kept.",
        "the broker's document: `{\"success\", \"stream_id\", \"name\"}`",
    );

/// The whole definition, whatever a broker's own defaults are.
fn complete(params: &mut Params) -> Result<()> {
    if let Some(one) = params.get::<String>("sources") {
        params.set("sources", [one]);
    }
    let usual: [(&str, Value); 6] = [
        ("windowType", "tumbling".into()),
        ("sources", Value::Array(Vec::new())),
        ("partitioned", false.into()),
        ("windowMillis", 60_000.into()),
        ("graceMillis", 30_000.into()),
        ("leaseMillis", 60_000.into()),
    ];
    for (key, value) in usual {
        if !params.has(key) {
            params.set(key, value);
        }
    }
    Ok(())
}

/// A document, whose refusals mean the same on every broker.
async fn told(call: Call) -> Result<String> {
    let answer = call.send(&call.params).await?;
    let body = answer.success().map_err(stream::meant)?;
    stream::document(call.name(), &body)
}

static POLL: Operation = Operation {
    name: "stream.poll",
    summary: "Takes the next window of a group under a lease, waiting for it. Polls of a group take turns in a process. A window \
              that is not settled comes again.",
    parameters: &[
        described("stream", "string", "required", "The stream."),
        described("consumerGroup", "string", "required", "The consumer group."),
        described(
            "pollTimeoutMillis",
            "integer, milliseconds",
            "30000",
            "How long to wait at the broker; 0 only looks.",
        ),
        described(
            "timeoutMillis",
            "integer, milliseconds",
            "the client's",
            "Deadline of the call beyond the waiting.",
        ),
    ],
    result: "`{\"window\": {\"id\", \"leaseId\", \"stream\", \"consumerGroup\", \"key\", \"start\", \"end\", \"size\", \
             \"originalSize\", \"messages\": [{\"id\", \"data\", \"created_at\"}]}}`, null where nothing came. In C the \
             future holds the window: it goes back when that is freed, unless it was taken or acked",
    run: Run::Typed(|client, params| {
        let mut given: Map<String, Value> = read("stream.poll", params)?;
        let mut text = |key: &str| match given.remove(key) {
            Some(Value::String(text)) => Ok(text),
            other => {
                let other = other.unwrap_or_default();
                let why = format!("`{key}` is {other}; it must be a string");
                Err(super::route::bad_params("stream.poll", why))
            }
        };
        let (stream, group) = (text("stream")?, text("consumerGroup")?);
        let options: StreamPollOptions = read("stream.poll", &Value::Object(given).to_string())?;
        Ok(Box::new(client.poll_window(&stream, &group, &options)))
    }),
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Settle {
    lease_id: String,
    success: Option<bool>,
    timeout_millis: Option<u64>,
}

static ACK: Operation = Operation {
    name: "stream.ack",
    summary: "Finishes a window by the id of its lease, or gives it back. QUEEN_E_LEASE_LOST: it comes again.",
    parameters: &[
        described("leaseId", "string", "required", "The lease."),
        described(
            "success",
            "boolean",
            "true",
            "`false` gives the window back: it comes again at once.",
        ),
        described(
            "timeoutMillis",
            "integer, milliseconds",
            "the client's",
            "Deadline of the call.",
        ),
    ],
    result: "`null`",
    run: Run::Typed(|client, params| {
        let given: Settle = read("stream.ack", params)?;
        let success = given.success.unwrap_or(true);
        Ok(Box::new(client.settle_window(
            &given.lease_id,
            success,
            given.timeout_millis,
        )))
    }),
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Renew {
    lease_id: String,
    extend_millis: Option<u64>,
    timeout_millis: Option<u64>,
}

static RENEW: Operation = Operation {
    name: "stream.renew",
    summary: "Makes the lease of a window last that long from now; it may become shorter. QUEEN_E_LEASE_LOST: it has ended.",
    parameters: &[
        described("leaseId", "string", "required", "The lease."),
        described(
            "extendMillis",
            "integer, milliseconds",
            "30000",
            "How long it is to last.",
        ),
        described(
            "timeoutMillis",
            "integer, milliseconds",
            "the client's",
            "Deadline of the call.",
        ),
    ],
    result: "`{\"leaseId\", \"renewed\", \"expiresAt\"}`; `renewed` is null",
    run: Run::Typed(|client, params| {
        let given: Renew = read("stream.renew", params)?;
        let options = RenewOptions {
            timeout_millis: given.timeout_millis,
        };
        let millis = given.extend_millis.unwrap_or(30_000);
        Ok(Box::new(client.renew_window(
            &given.lease_id,
            millis,
            &options,
        )))
    }),
};

pub(crate) static SEEK: Operation = Operation::post("stream.seek", "/api/v1/stream/seek")
    .takes(&[
        STREAM.sent_as("streamName"),
        GROUP,
        Parameter::time("timestamp", "Where the next window begins.").required(),
        TIMEOUT,
    ])
    .prepared(normalize)
    .repeatable()
    .done_by(|call| Box::pin(told(call)))
    .says(
        "Moves a group: its next windows begin at that time. On the embedded broker every key is moved and windows that are out \
         are lost; a broker of generation 0.7 does not move groups of partitioned streams, though it answers with success.",
        "the broker's document: `{\"success\"}`",
    );

/// A zone that every broker reads.
fn normalize(params: &mut Params) -> Result<()> {
    if let Some(time) = params.get::<String>("timestamp") {
        params.set("timestamp", format!("{:.6}", instant("timestamp", &time)?));
    }
    Ok(())
}

pub(crate) static LIST: Operation = Operation::get("stream.list", "/api/v1/resources/streams")
    .done_by(|call| Box::pin(told(call)))
    .says(
        "Lists the streams.",
        "the broker's document: `{\"streams\": [{\"id\", \"name\", \"namespace\", \"partitioned\", \"sourceQueues\", \
         \"windowDurationMs\", …}]}`",
    );

pub(crate) static GET: Operation =
    Operation::get("stream.get", "/api/v1/resources/streams/{stream}")
        .takes(&[STREAM, TIMEOUT])
        .done_by(|call| Box::pin(told(call)))
        .says(
            "Tells how a stream is defined.",
            "the broker's document: `{\"id\", \"name\", \"namespace\", \"partitioned\", \"windowDurationMs\", …}`",
        );

pub(crate) static CONSUMERS: Operation = Operation::get(
    "stream.consumers",
    "/api/v1/resources/streams/{stream}/consumers",
)
.takes(&[STREAM, TIMEOUT])
.done_by(|call| Box::pin(told(call)))
.says(
    "Tells where each group of a stream stands. Brokers of generation 0.7 always answer with an error.",
    "the broker's document: `{\"consumers\": [{\"consumerGroup\", \"key\", \"nextWindowStart\", \"windowsProcessed\", \
     \"leaseId\", \"leaseExpiresAt\"}]}`",
);

pub(crate) static STATS: Operation =
    Operation::get("stream.stats", "/api/v1/resources/streams/stats")
        .done_by(|call| Box::pin(told(call)))
        .says(
            "Tells totals over all streams.",
            "the broker's document: `{\"totalStreams\", \"totalConsumerGroups\", \"activeLeases\", \
             \"totalWindowsProcessed\", …}`",
        );

pub(crate) static DELETE: Operation =
    Operation::delete("stream.delete", "/api/v1/resources/streams/{stream}")
        .takes(&[STREAM, TIMEOUT])
        .done_by(|call| Box::pin(told(call)))
        .says(
            "Deletes a stream and where its groups stand. The messages of its sources stay.",
            "the broker's document: `{\"success\", \"message\"}`",
        );
