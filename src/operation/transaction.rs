//! Transactions.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::messaging::described;
use super::route::{bad_params, read};
use super::{Operation, Run, TIMEOUT};
use crate::consume::AckOptions;
use crate::error::Result;
use crate::options::{ItemOptions, TransactionOptions};
use crate::protocol::ack::{Ack, Status};
use crate::transaction::Transaction;

pub(super) static TABLE: &[&Operation] = &[&COMMIT];

static COMMIT: Operation = Operation {
    name: "transaction.commit",
    summary: "Gives verdicts and pushes messages, to many queues and partitions, together or not at all. Sent once; \
              missing ids are minted. Verdicts on a live delivery of this client take it over: committed, it is settled.",
    parameters: &[
        described(
            "operations",
            "array",
            "required",
            "In any order and number: `{\"type\": \"push\", \"queue\", \"partition\"?, \"items\": [{\"payload\": any, \
             \"transactionId\"?, \"traceId\"?}], \"classicItems\"?}` (as in `push`) and `{\"type\": \"ack\", \"transactionId\", \"partitionId\", \"leaseId\", \
             \"consumerGroup\"?, \"status\"?, \"error\"?}`, status `completed` (default), `failed`, `retry` or `dlq`",
        ),
        described(
            "unfenced",
            "boolean",
            "false",
            "Allows acks without a lease id, which the broker does not check.",
        ),
        TIMEOUT,
    ],
    result: "`{\"transactionId\", \"results\": [{\"index\", \"type\", …}]}`, one entry for each message and verdict, in order: \
             of type `push` with `transactionId`, `messageId`, `status` (`queued`, `duplicate`), of type `ack` with \
             `transactionId`, `success`, `error`, `dlq`, `noop`. `QUEEN_E_ROLLED_BACK` has the same with `reason` \
             (`ack_rejected`, `duplicate`, `queue_full`, `bad_request`, `db_error`, …) and an `error` for each",
    run: Run::Typed(|client, params| {
        let params: Params<'_> = read(COMMIT.name, params)?;
        let mut transaction = client.transaction();
        for operation in params.operations {
            add(&mut transaction, operation, params.unfenced)?;
        }
        let options = TransactionOptions {
            timeout_millis: params.timeout_millis,
        };
        Ok(Box::new(transaction.commit_with(&options)))
    }),
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Params<'a> {
    #[serde(borrow)]
    operations: Vec<&'a RawValue>,
    #[serde(default)]
    unfenced: bool,
    timeout_millis: Option<u64>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Push<'a> {
    #[serde(rename = "type")]
    _type: &'a RawValue,
    #[serde(borrow)]
    queue: Cow<'a, str>,
    #[serde(borrow, default)]
    partition: Option<Cow<'a, str>>,
    #[serde(borrow)]
    items: &'a RawValue,
    #[serde(default)]
    classic_items: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupAck<'a> {
    #[serde(rename = "type", borrow)]
    _type: &'a RawValue,
    transaction_id: String,
    partition_id: String,
    lease_id: Option<String>,
    consumer_group: Option<String>,
    status: Option<Status>,
    error: Option<String>,
}

fn add(transaction: &mut Transaction, operation: &RawValue, unfenced: bool) -> Result<()> {
    let bad = |error: serde_json::Error| {
        bad_params(
            COMMIT.name,
            format!("operation {:.60}: {error}", operation.get()),
        )
    };
    let kind: Kind<'_> = serde_json::from_str(operation.get()).map_err(bad)?;
    match &*kind.r#type {
        "push" => {
            let push: Push<'_> = serde_json::from_str(operation.get()).map_err(bad)?;
            let options = ItemOptions {
                classic_items: push.classic_items,
            };
            let partition = push.partition.as_deref();
            transaction.push_json(&push.queue, partition, push.items.get(), &options);
        }
        "ack" => {
            let ack: GroupAck<'_> = serde_json::from_str(operation.get()).map_err(bad)?;
            let options = AckOptions {
                group: ack.consumer_group,
                unfenced,
                ..AckOptions::default()
            };
            let ack = Ack {
                transaction_id: ack.transaction_id,
                partition_id: ack.partition_id,
                lease_id: ack.lease_id,
                status: ack.status.unwrap_or(Status::Completed),
                error: ack.error,
            };
            transaction.ack_ids(vec![ack], &options);
        }
        other => {
            return Err(bad_params(
                COMMIT.name,
                format!("an operation has the type `{other}`; it must be `push` or `ack`"),
            ));
        }
    }
    Ok(())
}
