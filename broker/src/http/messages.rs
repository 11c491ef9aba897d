//! Single messages: look, list, replay and delete dead letters.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::{App, Shared, answer};
use crate::clock::SECOND;
use crate::engine::command::{Command, Exhumed, Grave};
use crate::engine::views::{self, MessagesRequest};
use crate::store::Page;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Filter {
    queue: String,
    partition: String,
    #[serde(alias = "ns")]
    namespace: String,
    task: String,
    status: String,
    from: String,
    to: String,
    limit: Option<u32>,
    offset: Option<u32>,
}

/// A page of messages; without a span of time those of the last hour.
pub(super) async fn list(State(app): Shared, Query(filter): Query<Filter>) -> Response {
    let now = app.engine.clock.now();
    let from = match answer::time("from", &filter.from, now - 3600 * SECOND) {
        Ok(time) => time,
        Err(response) => return *response,
    };
    let to = match answer::time("to", &filter.to, now + 60 * SECOND) {
        Ok(time) => time,
        Err(response) => return *response,
    };
    let request = MessagesRequest {
        page: Page {
            queue: filter.queue,
            part: filter.partition,
            namespace: filter.namespace,
            task: filter.task,
            from,
            to,
        },
        status: filter.status,
        limit: filter.limit.unwrap_or(200) as usize,
        offset: filter.offset.unwrap_or(0) as usize,
    };
    app.view(
        move |db| views::messages(db, &request, now),
        "Message not found",
    )
    .await
}

pub(super) async fn show(
    State(app): Shared,
    Path((part, txn)): Path<(String, String)>,
) -> Response {
    let Ok(id) = part.parse::<Uuid>() else {
        return answer::recorded_failure(&bad_part(&part));
    };
    let asked = app.engine.ask(|reply| Command::Message(id, txn, reply));
    match asked.await {
        Ok(Some(text)) => answer::json(StatusCode::OK, text),
        Ok(None) => answer::error(StatusCode::NOT_FOUND, "Message not found"),
        Err(reason) => answer::refused(reason),
    }
}

pub(super) async fn delete(
    State(app): Shared,
    Path((part, txn)): Path<(String, String)>,
) -> Response {
    let why = "Live messages live in immutable segments and cannot be deleted";
    match exhume(&app, &part, &txn, false, why).await {
        Ok(_) => {
            let body = json!({
                "success": true,
                "message": "Message deleted successfully",
                "partitionId": part,
                "transactionId": txn,
            });
            answer::json(StatusCode::OK, body.to_string())
        }
        Err(response) => *response,
    }
}

pub(super) async fn retry(
    State(app): Shared,
    Path((part, txn)): Path<(String, String)>,
) -> Response {
    let why = "Only dead-lettered messages can be replayed";
    match exhume(&app, &part, &txn, true, why).await {
        Ok(found) => {
            let body = json!({
                "success": true,
                "queue": &*found.queue,
                "partition": &*found.part,
                "replayedAs": {
                    "index": 0,
                    "message_id": found.copy,
                    "transaction_id": found.copy,
                    "queueName": &*found.queue,
                    "status": "queued",
                },
                "dlqRowRemoved": true,
            });
            answer::json(StatusCode::OK, body.to_string())
        }
        Err(response) => *response,
    }
}

async fn exhume(
    app: &App,
    part: &str,
    txn: &str,
    replay: bool,
    why: &str,
) -> Result<Exhumed, Box<Response>> {
    let id = part
        .parse()
        .map_err(|_| Box::new(answer::error(StatusCode::BAD_REQUEST, &bad_part(part))))?;
    let grave = Grave {
        part: id,
        txn: txn.to_owned(),
        replay,
    };
    match app.engine.ask(|reply| Command::Bury(grave, reply)).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => {
            let body = json!({
                "success": false,
                "error": "Message not found",
                "message": format!("No dead-letter row for this address. {why}"),
                "partitionId": part,
                "transactionId": txn,
            });
            Err(Box::new(answer::json(
                StatusCode::NOT_FOUND,
                body.to_string(),
            )))
        }
        Err(reason) => Err(Box::new(answer::refused(reason))),
    }
}

fn bad_part(part: &str) -> String {
    format!("resolve failed: partitionId {part:?} is not a partition id")
}
