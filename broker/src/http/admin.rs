//! Configure and delete queues; dead letters; health.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Shared, answer, input};
use crate::engine::command::{Command, ConfigureRequest, DeadLetterRequest};
use crate::engine::queue_options::QueueOptions;

pub(super) async fn configure(State(app): Shared, body: Bytes) -> Response {
    let given: Map<String, Value> = match input::body(&body) {
        Ok(given) => given,
        Err(response) => return *response,
    };
    let queue = match given.get("queue") {
        Some(Value::String(queue)) => queue.clone(),
        None | Some(Value::Null) => {
            return answer::error(StatusCode::BAD_REQUEST, "queue is required");
        }
        Some(other) => return answer::bad_body(format!("queue must be a string, not {other}")),
    };
    if queue.is_empty() {
        return answer::bad_body("queue is empty");
    }
    if let Some(fault) = input::name_fault("queue", &queue) {
        return answer::bad_body(fault);
    }
    let options = match given.get("options") {
        Some(Value::Object(options)) => options,
        // Old clients put the options beside the queue.
        None | Some(Value::Null) => &given,
        Some(other) => {
            return answer::bad_body(format!("options must be an object, not {other}"));
        }
    };
    let read = QueueOptions::from_request(options).and_then(|read| {
        let namespace = text(options, &given, "namespace")?;
        let task = text(options, &given, "task")?;
        Ok((read, namespace, task))
    });
    let (options, namespace, task) = match read {
        Ok(read) => read,
        Err(fault) => return answer::bad_body(fault),
    };
    let request = ConfigureRequest {
        queue: queue.clone(),
        namespace: namespace.clone(),
        task: task.clone(),
        options: options.clone(),
    };
    let configured = match app
        .engine
        .ask(|reply| Command::Configure(request, reply))
        .await
    {
        Ok(configured) => configured,
        Err(reason) => return answer::refused(reason),
    };
    if options.encryption_enabled {
        app.warnings.plain_text(&queue);
    }
    let body = json!({
        "configured": true,
        "queueId": configured.id,
        "partitionId": null,
        "queue": queue,
        "namespace": namespace,
        "task": task,
        "storage": "segments",
        "options": options,
    });
    answer::json(StatusCode::OK, body.to_string())
}

/// A name among the options, else beside them, else empty.
fn text(
    options: &Map<String, Value>,
    given: &Map<String, Value>,
    name: &str,
) -> Result<String, String> {
    match options.get(name).or_else(|| given.get(name)) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => match input::name_fault(name, text) {
            Some(fault) => Err(fault),
            None => Ok(text.clone()),
        },
        Some(other) => Err(format!("{name} must be a string, not {other}")),
    }
}

pub(super) async fn delete(State(app): Shared, Path(queue): Path<String>) -> Response {
    let name = queue.clone();
    let body = match app.engine.ask(|reply| Command::Delete(name, reply)).await {
        Ok(true) => json!({ "queue": queue, "deleted": true, "existed": true }),
        Ok(false) => json!({
            "queue": queue,
            "deleted": false,
            "existed": false,
            "message": "Queue not found, nothing was deleted",
        }),
        Err(reason) => return answer::refused(reason),
    };
    answer::json(StatusCode::OK, body.to_string())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    #[serde(default)]
    queue: String,
    #[serde(default)]
    partition: String,
    #[serde(default)]
    consumer_group: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
    limit: Option<u32>,
    offset: Option<u32>,
}

pub(super) async fn dead_letters(State(app): Shared, Query(page): Query<Page>) -> Response {
    let from = match answer::time("from", &page.from, 0) {
        Ok(time) => time,
        Err(response) => return *response,
    };
    let to = match answer::time("to", &page.to, i64::MAX) {
        Ok(time) => time,
        Err(response) => return *response,
    };
    let request = DeadLetterRequest {
        queue: page.queue,
        part: page.partition,
        group: page.consumer_group,
        from,
        to,
        limit: page.limit.unwrap_or(100).into(),
        offset: page.offset.unwrap_or(0).into(),
    };
    match app
        .engine
        .ask(|reply| Command::DeadLetters(request, reply))
        .await
    {
        Ok(body) => answer::json(StatusCode::OK, body),
        Err(reason) => answer::refused(reason),
    }
}

/// Healthy is who can still begin and end a transaction.
pub(super) async fn health(State(app): Shared) -> Response {
    let reached = app.engine.ask(Command::Ping).await;
    let (code, status, database) = match reached {
        Ok(()) => (StatusCode::OK, "healthy", "connected"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy", "disconnected"),
    };
    let body = json!({
        "status": status,
        "database": database,
        "engine": "queen-broker",
        "version": env!("CARGO_PKG_VERSION"),
    });
    answer::json(code, body.to_string())
}
