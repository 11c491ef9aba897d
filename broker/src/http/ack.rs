//! `POST /api/v1/ack`, `/api/v1/ack/batch` and `/api/v1/lease/:lease/extend`.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::input::Text;
use super::pop::QUEUE_MODE;
use super::{App, Shared, answer, input};
use crate::clock;
use crate::engine::command::{AckItem, AckRequest, Command, Extended, Verdict};
use crate::engine::push_quoted;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ack<'a> {
    #[serde(borrow, default)]
    transaction_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    partition_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    lease_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    status: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) consumer_group: Option<Text<'a>>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batch<'a> {
    #[serde(borrow, default)]
    acknowledgments: Option<Vec<Ack<'a>>>,
    consumer_group: Option<String>,
}

/// What the acks of one delivery have in common, written once.
#[derive(Default)]
pub(super) struct Common {
    part: Arc<str>,
    lease: Arc<str>,
}

impl Ack<'_> {
    fn txn(&self) -> &str {
        self.transaction_id.as_deref().unwrap_or_default()
    }

    pub(super) fn item(&self, common: &mut Common) -> AckItem {
        let shared = |known: &mut Arc<str>, given: &Option<Text>| {
            let given = given.as_deref().unwrap_or_default();
            if **known != *given {
                *known = given.into();
            }
            known.clone()
        };
        AckItem {
            txn: self.txn().to_owned(),
            part: shared(&mut common.part, &self.partition_id),
            lease: shared(&mut common.lease, &self.lease_id),
            verdict: verdict(self.status.as_deref()),
            error: self.error.clone(),
        }
    }
}

pub(super) async fn single(State(app): Shared, body: Bytes) -> Response {
    match input::body::<Ack>(&body) {
        Ok(ack) => {
            let group = ack.consumer_group.as_deref().map(str::to_owned);
            acknowledge(&app, group, &[ack]).await
        }
        Err(response) => *response,
    }
}

pub(super) async fn batch(State(app): Shared, body: Bytes) -> Response {
    match input::body::<Batch>(&body) {
        Ok(batch) => {
            let acks = batch.acknowledgments.unwrap_or_default();
            acknowledge(&app, batch.consumer_group, &acks).await
        }
        Err(response) => *response,
    }
}

async fn acknowledge(app: &App, group: Option<String>, acks: &[Ack<'_>]) -> Response {
    let mut common = Common::default();
    let items = acks.iter().map(|ack| ack.item(&mut common)).collect();
    let group = group.unwrap_or_else(|| QUEUE_MODE.into());
    let acked = match app
        .engine
        .ask(|reply| Command::Ack(AckRequest { group, items }, reply))
        .await
    {
        Ok(acked) => acked,
        Err(reason) => return answer::refused(reason),
    };
    let mut out = String::with_capacity(acks.len() * 160 + 2);
    out.push('[');
    for (index, (ack, acked)) in acks.iter().zip(acked).enumerate() {
        if index > 0 {
            out.push(',');
        }
        let _ = write!(out, r#"{{"index":{index},"transactionId":"#);
        push_quoted(&mut out, ack.txn());
        let _ = write!(out, r#","success":{},"error":"#, acked.success);
        match &acked.error {
            Some(error) => push_quoted(&mut out, error),
            None => out.push_str("null"),
        }
        let _ = write!(
            out,
            r#","leaseReleased":{},"dlq":{},"noop":{}}}"#,
            acked.lease_released, acked.dlq, acked.noop,
        );
    }
    out.push(']');
    answer::json(StatusCode::OK, out)
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
