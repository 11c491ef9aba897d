//! Queues: create, delete, look at.

use serde_json::Map;

use super::{GROUP, Operation, Parameter, Params, QUEUE, Reads, TIMEOUT};
use crate::error::Result;
use crate::protocol::queue::{OPTIONS_DOC, QueueOptions};

pub(super) static TABLE: &[&Operation] = &[
    &CREATE,
    &DELETE,
    &LIST,
    &GET,
    &DEPTH,
    &NAMESPACES,
    &TASKS,
    &OVERVIEW,
];

const MINE: Parameter = Parameter::text(
    "namespace",
    "The key under which consumers can find the queue.",
);

pub(crate) static CREATE: Operation = Operation::post("queue.create", "/api/v1/configure")
    .takes(&[
        QUEUE,
        MINE,
        Parameter::text("task", "The second such key."),
        Parameter::new(Reads::Object, "options", "object", OPTIONS_DOC).or("{}"),
        TIMEOUT,
    ])
    .prepared(complete)
    .repeatable()
    .says(
        "Creates a queue, or sets the options of one that exists. Options that are not named get their defaults.",
        "the broker's document: `{\"configured\", \"queueId\", \"queue\", \"namespace\", \"task\", \"options\", …}`",
    );

/// The caller's options over the complete set, because brokers before 1.6 reset what is missing.
fn complete(params: &mut Params) -> Result<()> {
    let given: Map<_, _> = params.get("options").unwrap_or_default();
    let mut options = QueueOptions::from(given);
    options.check()?;
    for key in ["namespace", "task"] {
        if let Some(value) = options.take(key).filter(|_| !params.has(key)) {
            params.set(key, value);
        }
    }
    params.set("options", options.completed());
    Ok(())
}

pub(crate) static DELETE: Operation =
    Operation::delete("queue.delete", "/api/v1/resources/queues/{queue}")
        .takes(&[QUEUE, TIMEOUT])
        .says(
            "Deletes a queue with everything in it. One that does not exist is no error.",
            "the broker's document: `{\"queue\", \"deleted\", \"existed\"}`",
        );

pub(crate) static LIST: Operation = Operation::get("queue.list", "/api/v1/resources/queues").says(
    "Lists every queue with its counters.",
    "the broker's document: `{\"queues\": [{\"id\", \"name\", \"namespace\", \"task\", \"createdAt\", \"partitions\", \
     \"messages\": {\"total\", \"pending\", \"processing\"}, …}], …}`",
);

pub(crate) static GET: Operation =
    Operation::get("queue.get", "/api/v1/resources/queues/{queue}")
        .takes(&[QUEUE, TIMEOUT])
        .says(
            "Tells a queue's partitions and counters.",
            "the broker's document: `{\"id\", \"name\", \"namespace\", \"task\", \"totals\", \"partitions\", …}`",
        );

pub(crate) static DEPTH: Operation =
    Operation::get("queue.depth", "/api/v1/resources/queues/{queue}/depth")
        .takes(&[
            QUEUE,
            Parameter {
                default: "the whole queue",
                doc: "Only what this group has not consumed.",
                ..GROUP.sent_as("group")
            },
            TIMEOUT,
        ])
        .says(
            "Tells how many messages wait in a queue. Brokers from 1.0.4 on.",
            "the broker's document: `{\"queue\", \"group\", \"pending\", \"partitionsPending\", \"effectivePending\", \
             \"partitions\": [{\"partition\", \"pending\"}]}`",
        );

pub(crate) static NAMESPACES: Operation =
    Operation::get("namespace.list", "/api/v1/resources/namespaces").says(
        "Lists the namespaces of the queues.",
        "the broker's document: `{\"namespaces\": [{\"namespace\", \"queues\", \"partitions\", \"messages\"}]}`",
    );

pub(crate) static TASKS: Operation = Operation::get("task.list", "/api/v1/resources/tasks").says(
    "Lists the tasks of the queues.",
    "the broker's document: `{\"tasks\": [{\"task\", \"queues\", \"partitions\", \"messages\"}]}`",
);

pub(crate) static OVERVIEW: Operation = Operation::get("overview", "/api/v1/resources/overview")
    .says(
        "Tells the totals of the broker. Its counters are some seconds old.",
        "the broker's document: `{\"queues\", \"partitions\", \"namespaces\", \"tasks\", \"messages\", \"lag\", \
         \"throughput\", \"timestamp\", …}`",
    );
