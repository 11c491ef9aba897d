//! `POST /api/v1/transaction`.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ack::{Ack, AckResult, Status};
use super::item::{check_items, check_place};
use super::push::{Item, PushResult, WireItem};
use super::{QUEUE_MODE, bad_answer, misshapen};
use crate::error::{Error, ErrorCode, Outcome, Result};

pub(crate) const PATH: &str = "/api/v1/transaction";

/// What a committed transaction did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Committed {
    /// The broker's name for the request.
    pub transaction_id: Option<String>,
    /// One entry for each pushed message and each verdict, in the order of the calls.
    pub results: Vec<TransactionResult>,
}

/// What became of one message or one verdict of a transaction. In JSON it has `type`, `push` or `ack`, beside its fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum TransactionResult {
    /// A pushed message.
    Push(PushResult),
    /// A verdict.
    Ack(AckResult),
}

impl TransactionResult {
    /// Whether it was done.
    pub fn is_success(&self) -> bool {
        match self {
            TransactionResult::Push(result) => result.is_success(),
            TransactionResult::Ack(result) => result.success,
        }
    }
}

/// Why a broker rolled a transaction back. Nothing of it was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RollbackReason {
    /// A verdict does not count: the lease is over, or the message or its partition is not known.
    AckRejected,
    /// A pushed transaction id is stored already.
    Duplicate,
    /// A queue has no room.
    QueueFull,
    /// A condition of a key-value operation does not hold.
    KvPrecondition,
    /// An operation is not what the broker expects.
    BadRequest,
    /// A value is larger than the broker takes.
    PayloadTooLarge,
    /// A timer lies too far in the future.
    TimerHorizonExceeded,
    /// The store of the broker failed (`db_error`, `misaligned`).
    Store,
    /// A word that this version does not know, or none (brokers of generation 0.7 and 0.15).
    Other(String),
}

impl RollbackReason {
    /// The reason of an [`ErrorCode::RolledBack`]; none for any other error.
    pub fn of(error: &Error) -> Option<RollbackReason> {
        if error.code() != ErrorCode::RolledBack {
            return None;
        }
        Some(match error.broker_code().unwrap_or_default() {
            "ack_rejected" => RollbackReason::AckRejected,
            "duplicate" => RollbackReason::Duplicate,
            "queue_full" => RollbackReason::QueueFull,
            "kv_precondition" => RollbackReason::KvPrecondition,
            "bad_request" => RollbackReason::BadRequest,
            "payload_too_large" => RollbackReason::PayloadTooLarge,
            "timer_horizon_exceeded" => RollbackReason::TimerHorizonExceeded,
            "db_error" | "misaligned" => RollbackReason::Store,
            other => RollbackReason::Other(other.to_owned()),
        })
    }
}

/// The operations of a transaction, as they are added: what goes on the wire, and what the answer is compared with.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// The operations, with commas between them.
    text: Vec<u8>,
    entries: Vec<Entry>,
    leases: BTreeSet<String>,
}

#[derive(Debug)]
enum Entry {
    Push {
        transaction_id: String,
        /// Whether libqueen made the id.
        minted: bool,
    },
    Ack {
        transaction_id: String,
        status: Status,
    },
}

#[derive(Serialize)]
struct WirePush<'a> {
    r#type: &'static str,
    items: Vec<WireItem<'a>>,
}

#[derive(Serialize)]
struct WireAck<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    ack: &'a Ack,
    #[serde(rename = "consumerGroup", skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
}

impl Draft {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds messages for one partition; missing ids are minted here, once.
    pub(crate) fn push(&mut self, queue: &str, partition: &str, items: &[Item<'_>]) -> Result<()> {
        check_place(queue, partition)?;
        check_items(items)?;
        let ids: Vec<_> = items.iter().map(Item::id_or_minted).collect();
        let wire = items.iter().zip(&ids);
        self.write(&WirePush {
            r#type: "push",
            items: wire
                .map(|(item, id)| WireItem::new(queue, partition, item, id))
                .collect(),
        })?;
        self.entries
            .extend(items.iter().zip(ids).map(|(item, id)| Entry::Push {
                transaction_id: id,
                minted: !item.has_id(),
            }));
        Ok(())
    }

    /// Adds a verdict of a consumer group.
    pub(crate) fn ack(&mut self, ack: &Ack, group: &str) -> Result<()> {
        self.write(&WireAck {
            r#type: "ack",
            ack,
            group: Some(group).filter(|group| *group != QUEUE_MODE),
        })?;
        self.leases.extend(ack.lease().map(str::to_owned));
        self.entries.push(Entry::Ack {
            transaction_id: ack.transaction_id.clone(),
            status: ack.status,
        });
        Ok(())
    }

    fn write(&mut self, operation: &impl Serialize) -> Result<()> {
        if !self.text.is_empty() {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, operation).map_err(|error| {
            Error::new(
                ErrorCode::Internal,
                format!("an operation cannot be written: {error}"),
            )
        })
    }

    /// How many messages and verdicts there are, and their bytes.
    pub(crate) fn cost(&self) -> (usize, usize) {
        (self.entries.len(), self.text.len())
    }

    /// The ids of the pushed messages.
    pub(crate) fn transaction_ids(&self) -> Vec<String> {
        self.entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Push { transaction_id, .. } => Some(transaction_id.clone()),
                Entry::Ack { .. } => None,
            })
            .collect()
    }

    /// The verdicts, in order.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = Status> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Ack { status, .. } => Some(*status),
            Entry::Push { .. } => None,
        })
    }

    /// The body. Every ack names its lease; those that read `requiredLeases` instead get them there.
    pub(crate) fn body(&self) -> Bytes {
        let mut body = b"{\"operations\":[".to_vec();
        body.extend_from_slice(&self.text);
        body.extend_from_slice(b"],\"requiredLeases\":");
        body.extend(serde_json::to_vec(&self.leases).unwrap_or_default());
        body.push(b'}');
        body.into()
    }

    /// Reads an answer of status 200. [`ErrorCode::RolledBack`] has an entry for each operation as well.
    pub(crate) fn committed(&self, body: &[u8]) -> Result<Committed> {
        let answer: WireAnswer = serde_json::from_slice(body)
            .map_err(|error| misshapen("the transaction", body, error))?;
        if !answer.success {
            return Err(self.rolled_back(answer));
        }
        Ok(Committed {
            transaction_id: answer.transaction_id,
            results: self.results(answer.results)?,
        })
    }

    /// The rollback that a body of a status other than 200 tells of: brokers of generation 0.7 answer 400.
    pub(crate) fn rollback(&self, body: &[u8]) -> Option<Error> {
        let answer: WireAnswer = serde_json::from_slice(body).ok()?;
        (!answer.success).then(|| self.rolled_back(answer))
    }

    fn rolled_back(&self, answer: WireAnswer) -> Error {
        let told = answer.error.as_deref().unwrap_or("no reason given");
        let results: Vec<_> = (0..self.entries.len())
            .filter_map(|index| self.result(index, Some(told), WireResult::default()))
            .collect();
        let result = serde_json::json!({
            "transactionId": answer.transaction_id,
            "reason": answer.reason,
            "results": results,
        });
        let error = Error::new(
            ErrorCode::RolledBack,
            format!("the broker rolled the transaction back: {told}"),
        )
        .with_outcome(Outcome::Refused)
        .with_result(result.to_string());
        match answer.reason {
            Some(reason) => error.with_broker_code(reason),
            None => error,
        }
    }

    /// One result per operation. All were done, so one that the broker does not mention was done as well.
    fn results(&self, told: Vec<WireResult>) -> Result<Vec<TransactionResult>> {
        // Generation 0.7 tells of the messages of a push inside of it, without a place of their own.
        let nested = told.iter().any(|one| one.results.is_some());
        let flat = told.into_iter().flat_map(|one| match one.results {
            Some(inner) => inner,
            None => vec![one],
        });
        let mut slots: Vec<WireResult> = Vec::new();
        slots.resize_with(self.entries.len(), WireResult::default);
        for (position, one) in flat.enumerate() {
            let index = match nested {
                true => position,
                false => one.index.unwrap_or(position),
            };
            match slots.get_mut(index) {
                Some(slot) => *slot = one,
                None => {
                    return Err(bad_answer(
                        "transaction",
                        format!("it has a result for operation {index}"),
                    ));
                }
            }
        }
        Ok(slots
            .into_iter()
            .enumerate()
            .filter_map(|(index, told)| self.result(index, None, told))
            .collect())
    }

    fn result(
        &self,
        index: usize,
        error: Option<&str>,
        told: WireResult,
    ) -> Option<TransactionResult> {
        let error = error.map(str::to_owned);
        Some(match self.entries.get(index)? {
            Entry::Push {
                transaction_id,
                minted,
            } => {
                let duplicate = told.duplicate || told.status.as_deref() == Some("duplicate");
                let status = match (&error, duplicate && !minted) {
                    (Some(_), _) => "failed",
                    (None, true) => "duplicate",
                    (None, false) => "queued",
                };
                TransactionResult::Push(PushResult {
                    index,
                    transaction_id: transaction_id.clone(),
                    message_id: told.message_id.or(told.snake_message_id),
                    status: status.to_owned().into(),
                    error,
                    resent: false,
                })
            }
            Entry::Ack { transaction_id, .. } => TransactionResult::Ack(AckResult {
                index,
                transaction_id: transaction_id.clone(),
                success: error.is_none(),
                error,
                dlq: told.dlq,
                noop: told.noop,
            }),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireAnswer {
    success: bool,
    transaction_id: Option<String>,
    reason: Option<String>,
    error: Option<String>,
    #[serde(default)]
    results: Vec<WireResult>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireResult {
    index: Option<usize>,
    message_id: Option<String>,
    /// Two fields, so that an answer may have both spellings.
    #[serde(rename = "message_id")]
    snake_message_id: Option<String>,
    status: Option<String>,
    duplicate: bool,
    dlq: bool,
    noop: bool,
    results: Option<Vec<WireResult>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn ack(transaction_id: &str, lease: Option<&str>) -> Ack {
        serde_json::from_value(json!({
            "transactionId": transaction_id, "partitionId": "P", "leaseId": lease,
        }))
        .unwrap()
    }

    /// An ack, a push of two messages and an ack.
    fn draft() -> Draft {
        let mut draft = Draft::default();
        draft.ack(&ack("in", Some("L")), "g").unwrap();
        let items = [
            Item::raw(r#"{"b":1.0,  "a":2}"#).unwrap(),
            Item::raw("null").unwrap().transaction_id("mine"),
        ];
        draft.push("out", "p", &items).unwrap();
        draft.ack(&ack("in-2", Some("L")), QUEUE_MODE).unwrap();
        draft
    }

    #[test]
    fn t1_t4_t5_acks_and_pushes_on_the_wire() {
        let draft = draft();
        let text = String::from_utf8(draft.body().to_vec()).unwrap();
        assert!(text.contains(r#"{"b":1.0,  "a":2}"#), "{text}");
        let body: Value = serde_json::from_str(&text).unwrap();
        let minted = draft.transaction_ids()[0].clone();
        assert_eq!(minted.len(), 36);
        assert_eq!(
            body,
            json!({"operations": [
                {"type": "ack", "transactionId": "in", "partitionId": "P", "leaseId": "L", "status": "completed",
                 "consumerGroup": "g"},
                {"type": "push", "items": [
                    {"queue": "out", "partition": "p", "payload": {"b": 1.0, "a": 2}, "transactionId": minted},
                    {"queue": "out", "partition": "p", "payload": null, "transactionId": "mine"},
                ]},
                {"type": "ack", "transactionId": "in-2", "partitionId": "P", "leaseId": "L", "status": "completed"},
            ], "requiredLeases": ["L"]})
        );
        assert_eq!(draft.body(), text.as_bytes(), "ids are minted once");
    }

    #[test]
    fn results_are_flat_or_by_operation() {
        let draft = draft();
        let flat = br#"{"transactionId":"T","success":true,"results":[
            {"index":0,"type":"ack","success":true,"transactionId":"in","error":null,"dlq":false},
            {"index":1,"type":"push","success":true,"messageId":"m1"},
            {"index":2,"type":"push","success":true,"messageId":"m2","duplicate":true},
            {"index":3,"type":"ack","success":true,"dlq":true}]}"#;
        let committed = draft.committed(flat).unwrap();
        assert_eq!(committed.transaction_id.as_deref(), Some("T"));
        let told = serde_json::to_value(&committed.results).unwrap();
        assert_eq!(
            (&told[0]["type"], &told[0]["success"]),
            (&json!("ack"), &json!(true))
        );
        assert_eq!(
            (&told[1]["messageId"], &told[1]["status"]),
            (&json!("m1"), &json!("queued"))
        );
        assert_eq!(
            (&told[2]["status"], &told[3]["dlq"]),
            (&json!("duplicate"), &json!(true))
        );
        let old = br#"{"transactionId":"T","success":true,"results":[
            {"message":"completed","success":true,"type":"ack"},
            {"count":2,"results":[{"messageId":"m1","status":"queued"},{"messageId":"m2","status":"queued"}],"type":"push"},
            {"message":"completed","success":true,"type":"ack"}]}"#;
        let told = serde_json::to_value(draft.committed(old).unwrap().results).unwrap();
        assert_eq!(
            (&told[2]["messageId"], &told[3]["type"]),
            (&json!("m2"), &json!("ack"))
        );
        assert!(draft.committed(br#"{"success":true}"#).is_ok());
        for bad in [
            &br#"{"results":[]}"#[..],
            b"[",
            br#"{"success":true,"results":[{"index":9}]}"#,
        ] {
            let error = draft.committed(bad).unwrap_err();
            assert_eq!(
                (error.code(), error.outcome()),
                (ErrorCode::BadAnswer, Outcome::Unknown)
            );
        }
    }

    #[test]
    fn a_rollback_has_its_reason_and_an_entry_for_each_operation() {
        let draft = draft();
        let told = br#"{"transactionId":"T","success":false,"reason":"duplicate","error":"QDUP","results":[]}"#;
        let error = draft.committed(told).unwrap_err();
        assert_eq!(
            (error.code(), error.outcome()),
            (ErrorCode::RolledBack, Outcome::Refused)
        );
        assert_eq!(RollbackReason::of(&error), Some(RollbackReason::Duplicate));
        let result: Value = serde_json::from_str(error.result_json().unwrap()).unwrap();
        assert_eq!(result["reason"], "duplicate");
        assert_eq!(result["results"][1]["status"], "failed");
        assert_eq!(result["results"][3]["error"], "QDUP");
        let old = draft
            .rollback(br#"{"success":false,"error":"no lease"}"#)
            .unwrap();
        assert_eq!(
            RollbackReason::of(&old),
            Some(RollbackReason::Other(String::new()))
        );
        assert!(draft.rollback(br#"{"error":"bad body"}"#).is_none());
        assert!(draft.rollback(b"").is_none());
        assert_eq!(RollbackReason::of(&Error::argument("x")), None);
    }
}
