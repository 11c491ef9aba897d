//! Messages by their address, consumed or not.

use super::{
    FROM, LIMIT, NAMESPACE, OFFSET, ONE_QUEUE, Operation, PARTITION_ID, Parameter, TASK, TIMEOUT,
    TO, TRANSACTION_ID,
};

pub(super) static TABLE: &[&Operation] = &[&LIST, &GET, &DELETE, &RETRY];

pub(crate) static LIST: Operation = Operation::get("message.list", "/api/v1/messages")
    .takes(&[
        ONE_QUEUE,
        Parameter::text("partition", "Only this partition, by name.").or("all"),
        NAMESPACE,
        TASK,
        Parameter::name(
            "status",
            "Only `pending`, `processing`, `completed` or `dead_letter` messages.",
        )
        .or("all"),
        Parameter {
            default: "an hour ago",
            ..FROM
        },
        Parameter {
            default: "now",
            ..TO
        },
        LIMIT.or("200"),
        OFFSET,
        TIMEOUT,
    ])
    .says(
        "Lists stored messages, the newest first, consumed or not. Without `from` those of the last hour.",
        "the broker's document: `{\"messages\": [{\"id\", \"transactionId\", \"partitionId\", \"partition\", \"queue\", \
         \"status\", \"data\", \"createdAt\", …}], \"total\", \"mode\"}`; `total` counts this page",
    );

pub(crate) static GET: Operation =
    Operation::get("message.get", "/api/v1/messages/{partitionId}/{transactionId}")
        .takes(&[PARTITION_ID, TRANSACTION_ID, TIMEOUT])
        .says(
            "Tells all about one message: payload, status, and which groups have consumed it.",
            "the broker's document: `{\"id\", \"transactionId\", \"data\", \"queue\", \"partition\", \"status\", \
             \"consumerGroups\": [{\"group\", \"consumed\", …}], \"errorMessage\", \"retryCount\", …}`",
        );

pub(crate) static DELETE: Operation = delete("message.delete");
pub(crate) static RETRY: Operation = retry("message.retry");

/// Also a dead letter's.
pub(super) const fn delete(name: &'static str) -> Operation {
    Operation::delete(name, "/api/v1/messages/{partitionId}/{transactionId}")
        .takes(&[PARTITION_ID, TRANSACTION_ID, TIMEOUT])
        .says(
            "Deletes a dead letter. A live message answers QUEEN_E_NOT_FOUND on brokers of generation 1.x; older ones delete it. \
             The request is not sent twice: a second answer would say that there is no such message.",
            "the broker's document: `{\"success\", \"partitionId\", \"transactionId\", …}`",
        )
}

/// Also a dead letter's: there is nothing else that can be pushed again.
pub(super) const fn retry(name: &'static str) -> Operation {
    Operation::post(name, "/api/v1/messages/{partitionId}/{transactionId}/retry")
        .takes(&[PARTITION_ID, TRANSACTION_ID, TIMEOUT])
        .says(
            "Pushes a dead letter again, as a new message with ids of its own that every group gets, and removes the dead \
             letter. It is never sent twice: after an unknown outcome look whether the dead letter is still there. Any other \
             message answers QUEEN_E_NOT_FOUND.",
            "the broker's document: `{\"success\", \"queue\", \"partition\", \"replayedAs\", \"dlqRowRemoved\"}`",
        )
}
