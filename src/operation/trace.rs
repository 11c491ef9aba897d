//! Traces: what happened to a message, told by whoever handled it.

use super::route::Call;
use super::{
    GROUP, LIMIT, OFFSET, Operation, PARTITION_ID, Parameter, Params, Reads, TIMEOUT,
    TRANSACTION_ID,
};
use crate::error::Result;
use crate::log::Level;
use crate::protocol::QUEUE_MODE;

pub(super) static TABLE: &[&Operation] = &[&ADD, &LIST, &BY_NAME, &NAMES];

pub(crate) static ADD: Operation = Operation::post("trace.add", "/api/v1/traces")
    .takes(&[
        TRANSACTION_ID,
        PARTITION_ID,
        Parameter::new(Reads::Any, "data", "any JSON", "What to tell.").required(),
        Parameter {
            default: "queue mode",
            doc: "The consumer group of the pop.",
            ..GROUP
        },
        Parameter::new(
            Reads::Texts,
            "traceNames",
            "array of strings, or a string",
            "Names under which `trace.by_name` finds it. Empty ones are left out.",
        ),
        Parameter::name("eventType", "What kind of event it is.").or("\"info\""),
        TIMEOUT,
    ])
    .prepared(name_well)
    .done_by(|call| Box::pin(add(call)))
    .says(
        "Adds a trace to a message. It never touches the delivery, and one that fails is also logged as a warning, so nobody \
         has to wait for it.",
        "the broker's document: `{\"success\", \"traceId\"}`",
    );

fn name_well(params: &mut Params) -> Result<()> {
    let names: Vec<String> = match params.get("traceNames") {
        Some(names) => names,
        None => params.get("traceNames").into_iter().collect(),
    };
    let names: Vec<_> = names.into_iter().filter(|name| !name.is_empty()).collect();
    params.set("traceNames", Some(names).filter(|names| !names.is_empty()));
    let or = |params: &mut Params, key: &str, default: &str| {
        if !params.has(key) {
            params.set(key, default);
        }
    };
    or(params, "consumerGroup", QUEUE_MODE);
    or(params, "eventType", "info");
    Ok(())
}

async fn add(call: Call) -> Result<String> {
    let added = call.document(&call.params).await;
    if let Err(error) = &added {
        let of = |key: &str| call.params.get::<String>(key).unwrap_or_default();
        call.core.logger.log(
            Level::Warn,
            "trace.add",
            "a trace was not added",
            &[
                ("error", error.to_string().into()),
                ("partitionId", of("partitionId").into()),
                ("transactionId", of("transactionId").into()),
            ],
        );
    }
    added
}

pub(crate) static LIST: Operation =
    Operation::get("trace.list", "/api/v1/traces/{partitionId}/{transactionId}")
        .takes(&[PARTITION_ID, TRANSACTION_ID, TIMEOUT])
        .says(
            "Lists the traces of a message, the oldest first. A message without any, or that is not there, has an empty list.",
            "the broker's document: `{\"traces\": [{\"id\", \"event_type\", \"data\", \"consumer_group\", \"created_at\", \
             \"trace_names\", …}]}`",
        );

pub(crate) static BY_NAME: Operation =
    Operation::get("trace.by_name", "/api/v1/traces/by-name/{traceName}")
        .takes(&[
            Parameter::name("traceName", "The name.").required(),
            LIMIT,
            OFFSET,
            TIMEOUT,
        ])
        .says(
            "Lists the traces of that name, over all messages.",
            "the broker's document: `{\"traces\": [{\"id\", \"event_type\", \"data\", \"transaction_id\", \"partition_id\", \
             \"queue_name\", \"partition_name\", \"trace_names\", …}], \"total\", \"pagination\"}`",
        );

pub(crate) static NAMES: Operation = Operation::get("trace.names", "/api/v1/traces/names")
    .takes(&[LIMIT.or("50"), OFFSET, TIMEOUT])
    .says(
        "Lists the names that traces have.",
        "the broker's document: `{\"trace_names\": [{\"trace_name\", \"trace_count\", \"message_count\", \"last_seen\"}], \
         \"total\", \"pagination\"}`",
    );
