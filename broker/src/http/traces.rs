//! `/api/v1/traces`.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::pop::QUEUE_MODE;
use super::{Shared, answer, input};
use crate::engine::command::Command;
use crate::engine::trace_views;
use crate::store::TraceRow;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trace<'a> {
    transaction_id: Option<String>,
    partition_id: Option<String>,
    #[serde(borrow, default, deserialize_with = "super::transaction::some")]
    data: Option<&'a RawValue>,
    consumer_group: Option<String>,
    #[serde(default)]
    trace_names: Value,
    event_type: Option<String>,
}

pub(super) async fn record(State(app): Shared, body: Bytes) -> Response {
    let given: Trace = match input::body(&body) {
        Ok(given) => given,
        Err(response) => return *response,
    };
    let (Some(txn), Some(part)) = (given.transaction_id, given.partition_id) else {
        let text = "transactionId and partitionId are required";
        return answer::error(StatusCode::BAD_REQUEST, text);
    };
    let Some(data) = given.data else {
        return answer::error(StatusCode::BAD_REQUEST, "data is required");
    };
    if let Some(fault) = input::depth_fault("data", data) {
        return answer::bad_body(fault);
    }
    let Ok(part) = part.parse::<Uuid>() else {
        return answer::recorded_failure(&bad_part(&part));
    };
    let names = match given.trace_names {
        Value::Array(names) => names,
        Value::Null => Vec::new(),
        name => vec![name],
    };
    let mut texts = Vec::with_capacity(names.len());
    for name in names {
        match name {
            Value::String(name) => texts.push(name),
            other => {
                return answer::bad_body(format!("traceNames must be strings, not {other}"));
            }
        }
    }
    let id = Uuid::now_v7();
    let row = TraceRow {
        id,
        part,
        txn,
        group: given.consumer_group.unwrap_or_else(|| QUEUE_MODE.into()),
        event: given.event_type.unwrap_or_else(|| "info".into()),
        data: data.get().to_owned(),
        names: texts,
        created: app.engine.clock.now(),
    };
    match app.engine.ask(|reply| Command::Trace(row, reply)).await {
        Ok(()) => {
            let body = json!({ "success": true, "traceId": id });
            answer::json(StatusCode::CREATED, body.to_string())
        }
        Err(reason) => answer::refused(reason),
    }
}

pub(super) async fn of_message(
    State(app): Shared,
    Path((part, txn)): Path<(String, String)>,
) -> Response {
    match part.parse::<Uuid>() {
        Ok(part) => {
            app.view(move |db| trace_views::of_message(db, part, &txn), "")
                .await
        }
        Err(_) => answer::error(StatusCode::BAD_REQUEST, &bad_part(&part)),
    }
}

#[derive(Deserialize)]
pub(super) struct Page {
    limit: Option<u32>,
    offset: Option<u32>,
}

impl Page {
    fn span(&self, usual: i64) -> (i64, i64) {
        let limit = self.limit.map_or(usual, i64::from);
        (limit, self.offset.unwrap_or(0).into())
    }
}

pub(super) async fn by_name(
    State(app): Shared,
    Path(name): Path<String>,
    Query(page): Query<Page>,
) -> Response {
    let (limit, offset) = page.span(100);
    app.view(move |db| trace_views::by_name(db, &name, limit, offset), "")
        .await
}

pub(super) async fn names(State(app): Shared, Query(page): Query<Page>) -> Response {
    let (limit, offset) = page.span(50);
    app.view(move |db| trace_views::names(db, limit, offset), "")
        .await
}

fn bad_part(part: &str) -> String {
    format!("trace failed: partitionId {part:?} is not a partition id")
}
