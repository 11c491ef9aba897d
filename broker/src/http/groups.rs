//! `/api/v1/consumer-groups`.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{App, Shared, answer, input};
use crate::clock;
use crate::engine::command::{Command, DeleteGroup, Seek, SeekPart, Sought, Start};
use crate::engine::group_views;

pub(super) async fn list(State(app): Shared) -> Response {
    let now = app.engine.clock.now();
    app.view(move |db| group_views::list(db, now), "").await
}

pub(super) async fn details(State(app): Shared, Path(group): Path<String>) -> Response {
    let now = app.engine.clock.now();
    app.view(move |db| group_views::details(db, &group, now), "")
        .await
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lagging {
    min_lag_seconds: Option<i64>,
}

pub(super) async fn lagging(State(app): Shared, Query(query): Query<Lagging>) -> Response {
    let seconds = query.min_lag_seconds.unwrap_or(3600);
    let now = app.engine.clock.now();
    app.view(move |db| group_views::lagging(db, seconds, now), "")
        .await
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Deletion {
    delete_metadata: Option<String>,
}

impl Deletion {
    fn keep(&self) -> bool {
        matches!(self.delete_metadata.as_deref(), Some("false" | "0" | "no"))
    }
}

pub(super) async fn delete(
    State(app): Shared,
    Path(group): Path<String>,
    Query(deletion): Query<Deletion>,
) -> Response {
    remove(&app, group, None, deletion.keep()).await
}

pub(super) async fn delete_on_queue(
    State(app): Shared,
    Path((group, queue)): Path<(String, String)>,
    Query(deletion): Query<Deletion>,
) -> Response {
    remove(&app, group, Some(queue), deletion.keep()).await
}

async fn remove(app: &App, group: String, queue: Option<String>, keep: bool) -> Response {
    let mut body = json!({ "success": true, "consumerGroup": group, "metadataDeleted": !keep });
    let name = queue.clone();
    let request = DeleteGroup { group, queue, keep };
    match app
        .engine
        .ask(|reply| Command::DeleteGroup(request, reply))
        .await
    {
        Ok(count) => {
            if let Some(body) = body.as_object_mut() {
                body.insert("deletedPartitions".into(), count.into());
                body.extend(name.map(|name| ("queueName".into(), name.into())));
            }
            answer::json(StatusCode::OK, body.to_string())
        }
        Err(reason) => answer::refused(reason),
    }
}

pub(super) async fn subscription(
    State(app): Shared,
    Path(group): Path<String>,
    body: Bytes,
) -> Response {
    let given: Value = match input::body(&body) {
        Ok(given) => given,
        Err(response) => return *response,
    };
    let Some(text) = given.get("subscriptionTimestamp").and_then(Value::as_str) else {
        return answer::error(StatusCode::BAD_REQUEST, "subscriptionTimestamp is required");
    };
    let Some(since) = clock::parse(text) else {
        return bad_time("subscription", "subscriptionTimestamp", text);
    };
    let name = group.clone();
    let asked = app
        .engine
        .ask(|reply| Command::Resubscribe(name, since, reply));
    match asked.await {
        Ok(count) => {
            let body = json!({
                "success": true,
                "consumerGroup": group,
                "newTimestamp": text,
                "rowsUpdated": count,
            });
            answer::json(StatusCode::OK, body.to_string())
        }
        Err(reason) => answer::refused(reason),
    }
}

pub(super) async fn seek(
    State(app): Shared,
    Path((group, queue)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    if body.is_empty() {
        // In the words of the official broker.
        return answer::error(StatusCode::BAD_REQUEST, "bad body");
    }
    let given: Value = match input::body(&body) {
        Ok(given) => given,
        Err(response) => return *response,
    };
    move_to(&app, group, queue, None, &given).await
}

/// A seek in one partition; without a body it goes to the end.
pub(super) async fn seek_partition(
    State(app): Shared,
    Path((group, queue, part)): Path<(String, String, String)>,
    body: Bytes,
) -> Response {
    let given = match body.is_empty() {
        true => json!({ "toEnd": true }),
        false => match input::body(&body) {
            Ok(given) => given,
            Err(response) => return *response,
        },
    };
    move_to(&app, group, queue, Some(part), &given).await
}

async fn move_to(
    app: &App,
    group: String,
    queue: String,
    part: Option<String>,
    given: &Value,
) -> Response {
    let to_end = given.get("toEnd").and_then(Value::as_bool) == Some(true);
    let (to, time) = match given.get("timestamp").and_then(Value::as_str) {
        _ if to_end => (Start::New, None),
        Some(text) => match clock::parse(text) {
            Some(time) => (Start::Time(time), Some(clock::iso(time))),
            None => return bad_time("seek", "timestamp", text),
        },
        None => {
            return answer::error(
                StatusCode::BAD_REQUEST,
                "Must specify toEnd=true or a timestamp",
            );
        }
    };
    let request = Seek {
        group: group.clone(),
        queue: queue.clone(),
        part: part.clone().map_or(SeekPart::All, SeekPart::Named),
        to,
    };
    let sought = match app.engine.ask(|reply| Command::Seek(request, reply)).await {
        Ok(sought) => sought,
        Err(reason) => return answer::refused(reason),
    };
    let (status, body) = match (sought, part) {
        (Sought::Moved(_), Some(part)) => (
            StatusCode::OK,
            json!({
                "success": true, "updated": true, "consumerGroup": group, "queueName": queue,
                "partitionName": part, "seekToEnd": to_end, "targetTimestamp": time,
            }),
        ),
        (Sought::Moved(count), None) => (
            StatusCode::OK,
            json!({
                "success": true, "consumerGroup": group, "queueName": queue, "seekToEnd": to_end,
                "targetTimestamp": time, "partitionsUpdated": count,
            }),
        ),
        (_, Some(_)) => (
            StatusCode::NOT_FOUND,
            json!({ "success": false, "error": "Partition not found" }),
        ),
        (_, None) => (
            StatusCode::NOT_FOUND,
            json!({
                "success": false, "error": "Queue not found or has no partitions",
                "consumerGroup": group, "queueName": queue, "partitionsUpdated": 0,
            }),
        ),
    };
    answer::json(status, body.to_string())
}

fn bad_time(what: &str, field: &str, text: &str) -> Response {
    let text = format!("{what} failed: {field} {text:?} is not an ISO-8601 time");
    answer::recorded_failure(&text)
}
