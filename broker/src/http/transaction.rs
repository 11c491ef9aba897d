//! `POST /api/v1/transaction`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth::Caller;
use super::input::Text;
use super::pop::QUEUE_MODE;
use super::{Shared, ack, answer, input, push};
use crate::engine::command::{
    AckItem, Command, PushGroup, PushItem, PushRequest, Pushed, Transaction,
};

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    operations: Option<Vec<&'a RawValue>>,
    #[serde(default)]
    kv: Value,
    #[serde(default)]
    timers: Value,
}

/// What tells the operations apart.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(default)]
    r#type: Value,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    #[serde(borrow, default)]
    queue: Option<Text<'a>>,
    #[serde(borrow, default)]
    partition: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "some")]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "some")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    transaction_id: Option<Text<'a>>,
    #[serde(default)]
    trace_id: Value,
}

/// A value that is there, `null` included.
pub(super) fn some<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// What the answer says of an operation besides its outcome.
enum Entry {
    Push { queue: String, txn: Option<String> },
    Ack { txn: String },
}

/// A request read so far.
#[derive(Default)]
struct Draft {
    entries: Vec<Entry>,
    pushes: PushRequest,
    places: HashMap<(String, String), usize>,
    acks: Vec<(String, AckItem)>,
    common: ack::Common,
    /// Pushes that name no queue.
    lost: usize,
    /// Who sends it.
    producer: Option<Arc<str>>,
}

/// Why a transaction is not carried out.
struct Refusal {
    status: StatusCode,
    reason: &'static str,
    error: String,
}

pub(super) async fn transact(
    State(app): Shared,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Response {
    let id = Uuid::now_v7();
    let parsed: Body = match input::body(&body) {
        Ok(parsed) => parsed,
        Err(response) => return *response,
    };
    let draft = match read(&body, &parsed, caller) {
        Ok(draft) => draft,
        Err(refusal) => return refuse(id, &refusal),
    };
    let Draft {
        entries,
        pushes,
        acks,
        ..
    } = draft;
    let request = Transaction { pushes, acks };
    let asked = app.engine.ask(|reply| Command::Transact(request, reply));
    let (pushed, acked) = match asked.await {
        Ok(Ok(done)) => done,
        Ok(Err(rejected)) => {
            let refusal = Refusal {
                status: StatusCode::OK,
                reason: rejected.reason,
                error: rejected.error,
            };
            return refuse(id, &refusal);
        }
        Err(reason) => return answer::refused(reason),
    };
    let (mut pushed, mut acked) = (pushed.into_iter(), acked.into_iter());
    let mut results = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        results.push(match entry {
            Entry::Push { queue, txn } => {
                let (message, duplicate) = match pushed.next() {
                    Some(Pushed::Stored(id)) => (id, false),
                    Some(Pushed::Duplicate(id)) => (id, true),
                    // The room was checked before anything was stored, and a transaction is never buffered.
                    Some(Pushed::Full(_) | Pushed::Buffered(_)) | None => continue,
                };
                let mut result = json!({
                    "index": index,
                    "type": "push",
                    "success": true,
                    "transactionId": txn.unwrap_or_else(|| message.to_string()),
                    "messageId": message,
                    "queueName": queue,
                });
                if let Some(result) = result.as_object_mut().filter(|_| duplicate) {
                    result.insert("duplicate".into(), Value::Bool(true));
                }
                result
            }
            Entry::Ack { txn } => {
                let Some(acked) = acked.next() else { continue };
                json!({
                    "index": index,
                    "type": "ack",
                    "success": acked.success,
                    "transactionId": txn,
                    "error": acked.error,
                    "dlq": acked.dlq,
                })
            }
        });
    }
    let body = json!({ "transactionId": id, "success": true, "results": results });
    answer::json(StatusCode::OK, body.to_string())
}

fn refuse(id: Uuid, refusal: &Refusal) -> Response {
    let body = json!({
        "transactionId": id,
        "success": false,
        "reason": refusal.reason,
        "error": refusal.error,
        "results": [],
    });
    answer::json(refusal.status, body.to_string())
}

fn bad_request(error: impl Into<String>) -> Refusal {
    Refusal {
        status: StatusCode::BAD_REQUEST,
        reason: "bad_request",
        error: error.into(),
    }
}

fn read(body: &Bytes, parsed: &Body, caller: Caller) -> Result<Draft, Refusal> {
    for (name, riders) in [("kv", &parsed.kv), ("timers", &parsed.timers)] {
        match riders {
            Value::Null => {}
            Value::Array(riders) if riders.is_empty() => {}
            Value::Array(_) => {
                return Err(bad_request(format!(
                    "`{name}` operations are not served by this broker"
                )));
            }
            _ => {
                return Err(bad_request(format!(
                    "`{name}` must be an array at the TOP LEVEL of the request body, beside `operations` and never inside it"
                )));
            }
        }
    }
    let operations = parsed.operations.as_ref().ok_or_else(|| {
        bad_request("transaction requires an operations array (or a top-level kv/timers array)")
    })?;
    let mut draft = Draft {
        producer: caller.subject,
        ..Draft::default()
    };
    for (n, operation) in operations.iter().enumerate() {
        let fault = |e: String| bad_request(format!("operations[{n}]: {e}"));
        let kind: Kind = input::text(operation.get().as_bytes()).map_err(fault)?;
        match kind.r#type.as_str() {
            Some("push") => {
                for item in kind.items.as_deref().unwrap_or(&[operation]) {
                    let item = input::text(item.get().as_bytes()).map_err(fault)?;
                    draft.push(n, body, &item)?;
                }
            }
            Some("ack") => {
                let ack: ack::Ack = input::text(operation.get().as_bytes()).map_err(fault)?;
                draft.ack(n, &ack)?;
            }
            Some("kv" | "timer" | "timers") => {
                return Err(bad_request(
                    "kv and timer operations are TOP-LEVEL arrays of the request (\"kv\":[...], \"timers\":[...]), \
                     never elements of `operations`",
                ));
            }
            Some(other) => {
                return Err(bad_request(format!(
                    "segments transaction supports only push and ack operations, got `{other}`"
                )));
            }
            None => {
                return Err(bad_request(
                    "every transaction operation needs a `type` of push or ack",
                ));
            }
        }
    }
    if draft.lost > 0 {
        let all = draft.lost + draft.pushes.count;
        return Err(Refusal {
            status: StatusCode::OK,
            reason: "ack_rejected",
            error: format!(
                "QTXN resolved {} of {all} pushes (empty or unknown queue/partition)",
                draft.pushes.count
            ),
        });
    }
    Ok(draft)
}

impl Draft {
    fn push(&mut self, n: usize, body: &Bytes, item: &Item) -> Result<(), Refusal> {
        let queue = item.queue.as_deref().unwrap_or_default();
        if queue.is_empty() {
            self.lost += 1;
            return Ok(());
        }
        let part = item.partition.as_deref().unwrap_or("Default");
        let txn = item.transaction_id.as_deref().filter(|txn| !txn.is_empty());
        let fields = [
            ("queue", Some(queue)),
            ("partition", Some(part)),
            ("transactionId", txn),
        ];
        if let Some(fault) = push::fault(format_args!("operations[{n}]"), fields) {
            return Err(bad_request(fault));
        }
        let payload = item.payload.or(item.data);
        let field = format!("operations[{n}].payload");
        if let Some(fault) = payload.and_then(|json| input::depth_fault(field, json)) {
            return Err(bad_request(fault));
        }
        let key = (queue.to_owned(), part.to_owned());
        let place = *self.places.entry(key).or_insert_with_key(|(queue, part)| {
            self.pushes.groups.push(PushGroup {
                queue: queue.clone(),
                part: part.clone(),
                items: Vec::new(),
            });
            self.pushes.groups.len() - 1
        });
        if let Some(group) = self.pushes.groups.get_mut(place) {
            let payload = payload.map(RawValue::get);
            group.items.push(PushItem {
                index: self.pushes.count,
                accepted: None,
                txn: txn.map(str::to_owned),
                trace: item.trace_id.as_str().and_then(|id| id.parse().ok()),
                producer: self.producer.clone(),
                payload: payload.map_or(Bytes::from_static(b"{}"), |text| {
                    body.slice_ref(text.as_bytes())
                }),
            });
        }
        self.pushes.count += 1;
        self.entries.push(Entry::Push {
            queue: queue.to_owned(),
            txn: txn.map(str::to_owned),
        });
        Ok(())
    }

    fn ack(&mut self, n: usize, ack: &ack::Ack) -> Result<(), Refusal> {
        let group = ack.consumer_group.as_deref().unwrap_or(QUEUE_MODE);
        let item = ack.item(&mut self.common);
        if item.part.parse::<Uuid>().is_err() {
            return Err(bad_request(format!(
                "operations[{n}].partitionId {:?} is not a partition id",
                item.part
            )));
        }
        self.entries.push(Entry::Ack {
            txn: item.txn.clone(),
        });
        self.acks.push((group.to_owned(), item));
        Ok(())
    }
}
