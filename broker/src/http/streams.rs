//! Streams of generation 0.7: `/api/v1/stream` and `/api/v1/resources/streams`.

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use uuid::Uuid;

use super::{App, Shared, answer, input};
use crate::clock;
use crate::engine::command::{Command, PopRequest, Source, Start};
use crate::engine::stream_views;
use crate::engine::windows::{Definition, StreamAnswer, StreamCommand};

/// A hundred years in milliseconds: beyond this a length of time is a mistake.
const LONGEST: i64 = 3_155_760_000_000;

const NO_STREAM: &str = "Stream not found";

type Refusal = Box<Response>;

fn refuse<T>(status: StatusCode, text: &str) -> Result<T, Refusal> {
    Err(Box::new(answer::error(status, text)))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    match body.is_empty() {
        true => refuse(StatusCode::BAD_REQUEST, "Empty request body"),
        false => input::body(body),
    }
}

/// A length of time in microseconds.
fn length(field: &str, millis: i64, least: i64) -> Result<i64, Refusal> {
    if (least..=LONGEST).contains(&millis) {
        return Ok(millis * 1000);
    }
    let text = format!("{field} is {millis}; it must be between {least} and {LONGEST}");
    refuse(StatusCode::BAD_REQUEST, &text)
}

/// Names that are given; `missing` is what is said where one is not.
fn names<const N: usize>(
    given: [(&str, Option<String>); N],
    missing: &str,
) -> Result<[String; N], Refusal> {
    let mut names = [const { String::new() }; N];
    for (place, (field, name)) in names.iter_mut().zip(given) {
        match name.filter(|name| !name.is_empty()) {
            Some(name) => *place = name,
            None => return refuse(StatusCode::BAD_REQUEST, missing),
        }
        if let Some(fault) = input::name_fault(field, place) {
            return refuse(StatusCode::BAD_REQUEST, &fault);
        }
    }
    Ok(names)
}

async fn ask(app: &App, command: StreamCommand) -> Result<StreamAnswer, Refusal> {
    let asked = app.engine.ask(|reply| Command::Stream(command, reply));
    asked
        .await
        .map_err(|reason| Box::new(answer::refused(reason)))
}

fn done(result: Result<Response, Refusal>) -> Response {
    result.unwrap_or_else(|refusal| *refusal)
}

#[derive(Deserialize)]
struct Define {
    name: Option<String>,
    namespace: Option<String>,
    #[serde(default)]
    partitioned: bool,
    window_type: Option<String>,
    window_duration_ms: Option<i64>,
    window_grace_period_ms: Option<i64>,
    window_lease_timeout_ms: Option<i64>,
    #[serde(default)]
    strict_watermark: bool,
    #[serde(default)]
    source_queue_names: Vec<String>,
}

pub(super) async fn define(State(app): Shared, body: Bytes) -> Response {
    done(try_define(&app, &body).await)
}

async fn try_define(app: &App, body: &[u8]) -> Result<Response, Refusal> {
    let given: Define = read(body)?;
    let [name, namespace] = names(
        [("name", given.name), ("namespace", given.namespace)],
        "Missing name or namespace",
    )?;
    if let Some(kind) = given.window_type.filter(|kind| kind != "tumbling") {
        let text = format!("window_type is {kind:?}; there is \"tumbling\" only");
        return refuse(StatusCode::BAD_REQUEST, &text);
    }
    let (duration, grace, lease) = (
        given.window_duration_ms.unwrap_or(60_000),
        given.window_grace_period_ms.unwrap_or(30_000),
        given.window_lease_timeout_ms.unwrap_or(60_000),
    );
    let definition = Definition {
        namespace,
        partitioned: given.partitioned,
        duration: length("window_duration_ms", duration, 1)?,
        grace: length("window_grace_period_ms", grace, 0)?,
        lease: length("window_lease_timeout_ms", lease, 1)?,
        strict: given.strict_watermark,
        sources: given.source_queue_names,
        name: name.clone(),
    };
    match ask(app, StreamCommand::Define(definition)).await? {
        StreamAnswer::Defined(id) => Ok(answer::json(
            StatusCode::CREATED,
            json!({ "success": true, "stream_id": id.to_string(), "name": name }).to_string(),
        )),
        StreamAnswer::NoQueue(queue) => {
            let text = format!(
                "source queue {queue:?} does not exist; create it or push to it, then define the stream again"
            );
            refuse(StatusCode::NOT_FOUND, &text)
        }
        _ => refuse(StatusCode::NOT_FOUND, NO_STREAM),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Poll {
    stream_name: Option<String>,
    consumer_group: Option<String>,
    timeout: Option<u64>,
}

pub(super) async fn poll(State(app): Shared, body: Bytes) -> Response {
    done(try_poll(&app, &body).await)
}

async fn try_poll(app: &App, body: &[u8]) -> Result<Response, Refusal> {
    let given: Poll = read(body)?;
    let [stream, group] = names(
        [
            ("streamName", given.stream_name),
            ("consumerGroup", given.consumer_group),
        ],
        "Missing streamName or consumerGroup",
    )?;
    if let StreamAnswer::Unknown = ask(app, StreamCommand::Find(stream.clone())).await? {
        return refuse(StatusCode::NOT_FOUND, NO_STREAM);
    }
    if app.paused.load(std::sync::atomic::Ordering::Relaxed) {
        return Ok(answer::empty());
    }
    let millis = i64::try_from(given.timeout.unwrap_or(30_000)).unwrap_or(i64::MAX);
    let request = PopRequest {
        id: 0,
        source: Source::Stream(stream.into()),
        part: None,
        group: group.into(),
        batch: 1,
        parts: 1,
        wait: (millis > 0).then(|| millis.saturating_mul(1000)),
        auto_ack: false,
        lease_seconds: None,
        start: Start::All,
        echo: false,
    };
    match app.engine.pop(request).await {
        Ok(Some(window)) => Ok(answer::delivery(window)),
        Ok(None) => Ok(answer::empty()),
        Err(reason) => Ok(answer::refused(reason)),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settle {
    lease_id: Option<String>,
    success: Option<bool>,
}

pub(super) async fn ack(State(app): Shared, body: Bytes) -> Response {
    done(try_ack(&app, &body).await)
}

async fn try_ack(app: &App, body: &[u8]) -> Result<Response, Refusal> {
    let given: Settle = read(body)?;
    let [lease] = names([("leaseId", given.lease_id)], "Missing leaseId")?;
    let success = given.success.unwrap_or(true);
    // An id that cannot be one is nobody's lease.
    let answer = match lease.parse::<Uuid>() {
        Ok(lease) => ask(app, StreamCommand::Settle { lease, success }).await?,
        Err(_) => StreamAnswer::Unknown,
    };
    match answer {
        StreamAnswer::Done => Ok(answer::json(
            StatusCode::OK,
            json!({ "success": true, "acked": success }).to_string(),
        )),
        _ => refuse(StatusCode::BAD_REQUEST, "Invalid or expired lease"),
    }
}

#[derive(Deserialize)]
struct Renew {
    #[serde(rename = "leaseId")]
    lease: Option<String>,
    extend_ms: Option<i64>,
}

pub(super) async fn renew(State(app): Shared, body: Bytes) -> Response {
    done(try_renew(&app, &body).await)
}

async fn try_renew(app: &App, body: &[u8]) -> Result<Response, Refusal> {
    let given: Renew = read(body)?;
    let [lease] = names([("leaseId", given.lease)], "Missing leaseId")?;
    let millis = given.extend_ms.unwrap_or(30_000);
    length("extend_ms", millis, 1)?;
    let answer = match lease.parse::<Uuid>() {
        Ok(lease) => ask(app, StreamCommand::Renew { lease, millis }).await?,
        Err(_) => StreamAnswer::Unknown,
    };
    match answer {
        StreamAnswer::Renewed(expires) => Ok(answer::json(
            StatusCode::OK,
            json!({ "success": true, "lease_expires_at": clock::iso(expires) }).to_string(),
        )),
        _ => refuse(StatusCode::NOT_FOUND, "Lease not found or expired"),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seek {
    stream_name: Option<String>,
    consumer_group: Option<String>,
    timestamp: Option<String>,
}

pub(super) async fn seek(State(app): Shared, body: Bytes) -> Response {
    done(try_seek(&app, &body).await)
}

async fn try_seek(app: &App, body: &[u8]) -> Result<Response, Refusal> {
    let given: Seek = read(body)?;
    let [stream, group, time] = names(
        [
            ("streamName", given.stream_name),
            ("consumerGroup", given.consumer_group),
            ("timestamp", given.timestamp),
        ],
        "Missing required parameters",
    )?;
    let Some(to) = clock::parse(&time) else {
        let text = format!("timestamp {time:?} is not an ISO-8601 time");
        return refuse(StatusCode::BAD_REQUEST, &text);
    };
    match ask(app, StreamCommand::Seek { stream, group, to }).await? {
        StreamAnswer::Done => Ok(answer::json(StatusCode::OK, r#"{"success":true}"#)),
        _ => refuse(StatusCode::NOT_FOUND, NO_STREAM),
    }
}

pub(super) async fn list(State(app): Shared) -> Response {
    let now = app.engine.clock.now();
    app.view(move |db| stream_views::list(db, now), "").await
}

pub(super) async fn stats(State(app): Shared) -> Response {
    let now = app.engine.clock.now();
    app.view(move |db| stream_views::stats(db, now), "").await
}

pub(super) async fn details(State(app): Shared, Path(stream): Path<String>) -> Response {
    app.view(move |db| stream_views::details(db, &stream), NO_STREAM)
        .await
}

pub(super) async fn consumers(State(app): Shared, Path(stream): Path<String>) -> Response {
    let now = app.engine.clock.now();
    let look = move |db: &_| stream_views::consumers(db, &stream, now);
    app.view(look, NO_STREAM).await
}

pub(super) async fn delete(State(app): Shared, Path(stream): Path<String>) -> Response {
    match ask(&app, StreamCommand::Delete(stream)).await {
        Ok(StreamAnswer::Done) => answer::json(
            StatusCode::OK,
            r#"{"success":true,"message":"Stream deleted successfully"}"#,
        ),
        Ok(_) => answer::error(StatusCode::NOT_FOUND, NO_STREAM),
        Err(refusal) => *refusal,
    }
}
