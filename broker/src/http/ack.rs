//! `POST /api/v1/ack`, `/api/v1/ack/batch` and `/api/v1/lease/:lease/extend`.

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::pop::QUEUE_MODE;
use super::{App, Shared, answer, input};
use crate::clock;
use crate::engine::command::{AckItem, AckRequest, Command, Extended, Verdict};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ack {
    transaction_id: Option<String>,
    partition_id: Option<String>,
    lease_id: Option<String>,
    status: Option<String>,
    pub(super) consumer_group: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batch {
    acknowledgments: Option<Vec<Ack>>,
    consumer_group: Option<String>,
}

impl From<Ack> for AckItem {
    fn from(ack: Ack) -> AckItem {
        AckItem {
            txn: ack.transaction_id.unwrap_or_default(),
            part: ack.partition_id.unwrap_or_default(),
            lease: ack.lease_id.unwrap_or_default(),
            verdict: verdict(ack.status.as_deref()),
            error: ack.error,
        }
    }
}

pub(super) async fn single(State(app): Shared, body: Bytes) -> Response {
    match input::body::<Ack>(&body) {
        Ok(mut ack) => {
            let group = ack.consumer_group.take();
            acknowledge(&app, group, vec![ack]).await
        }
        Err(response) => *response,
    }
}

pub(super) async fn batch(State(app): Shared, body: Bytes) -> Response {
    match input::body::<Batch>(&body) {
        Ok(batch) => {
            acknowledge(
                &app,
                batch.consumer_group,
                batch.acknowledgments.unwrap_or_default(),
            )
            .await
        }
        Err(response) => *response,
    }
}

async fn acknowledge(app: &App, group: Option<String>, acks: Vec<Ack>) -> Response {
    let mut names = Vec::with_capacity(acks.len());
    let mut items = Vec::with_capacity(acks.len());
    for ack in acks {
        let item = AckItem::from(ack);
        names.push(item.txn.clone());
        items.push(item);
    }
    let group = group.unwrap_or_else(|| QUEUE_MODE.into());
    let acked = match app
        .engine
        .ask(|reply| Command::Ack(AckRequest { group, items }, reply))
        .await
    {
        Ok(acked) => acked,
        Err(reason) => return answer::refused(reason),
    };
    let rows: Vec<Value> = names
        .into_iter()
        .zip(acked)
        .enumerate()
        .map(|(index, (txn, acked))| {
            json!({
                "index": index,
                "transactionId": txn,
                "success": acked.success,
                "error": acked.error,
                "leaseReleased": acked.lease_released,
                "dlq": acked.dlq,
                "noop": acked.noop,
            })
        })
        .collect();
    answer::json(StatusCode::OK, Value::from(rows).to_string())
}

/// The meaning of a status. Letters count, and a word nobody knows is a failure: better once too often than lost.
fn verdict(status: Option<&str>) -> Verdict {
    match status {
        None | Some("completed" | "success" | "acked" | "ok") => Verdict::Completed,
        Some("retry") => Verdict::Retry,
        Some("dlq") => Verdict::Dlq,
        Some(_) => Verdict::Failed,
    }
}

pub(super) async fn extend(State(app): Shared, Path(text): Path<String>, body: Bytes) -> Response {
    // A body that says nothing readable means a minute: old clients send `{}`.
    let given: Value = serde_json::from_slice(&body).unwrap_or_default();
    let seconds = match given.get("seconds") {
        None | Some(Value::Null) => 60,
        Some(seconds) => match seconds.as_i64() {
            Some(seconds) => seconds,
            None => {
                return answer::bad_body(format!("seconds must be a whole number, not {seconds}"));
            }
        },
    };
    let extended = match text.parse::<Uuid>() {
        Ok(lease) => {
            app.engine
                .ask(|reply| Command::Extend {
                    lease,
                    seconds,
                    reply,
                })
                .await
        }
        Err(_) => Ok(Extended {
            renewed: 0,
            expires: None,
        }),
    };
    let extended = match extended {
        Ok(extended) => extended,
        Err(reason) => return answer::refused(reason),
    };
    let expires = extended.expires.map(clock::iso);
    // Three names for one time: each generation of clients reads another.
    let body = json!({
        "leaseId": text,
        "success": extended.renewed > 0,
        "renewed": extended.renewed,
        "newExpiresAt": expires,
        "expiresAt": expires,
        "lease_expires_at": expires,
    });
    answer::json(StatusCode::OK, body.to_string())
}
