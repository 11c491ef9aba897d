//! The state of the broker as a whole.

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::{Shared, answer};
use crate::engine::command::Command;
use crate::engine::metric_views;

/// `GET /status`: whether the server answers at all.
pub(super) async fn status() -> Response {
    let body = json!({ "status": "ok", "engine": "queen-broker" });
    answer::json(StatusCode::OK, body.to_string())
}

pub(super) async fn metrics(State(app): Shared) -> Response {
    let served = app.served();
    app.view(move |db| metric_views::json(db, served), "").await
}

pub(super) async fn prometheus(State(app): Shared) -> Response {
    let served = app.served();
    let mut response = app
        .view(move |db| metric_views::prometheus(db, served), "")
        .await;
    if response.status() == StatusCode::OK {
        let text = HeaderValue::from_static("text/plain; version=0.0.4");
        response.headers_mut().insert(CONTENT_TYPE, text);
    }
    response
}

/// `GET /system/maintenance/pop`.
pub(super) async fn pop_state(State(app): Shared) -> Response {
    let paused = app.paused.load(Ordering::Relaxed);
    let message = if paused {
        "Pop maintenance mode is ON. All POP operations return empty arrays."
    } else {
        "Pop maintenance mode is OFF. Normal operation."
    };
    state(paused, message)
}

/// `POST /system/maintenance/pop`: pops answer empty until it is switched off or the broker is closed.
pub(super) async fn set_pop(State(app): Shared, body: Bytes) -> Response {
    let given: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(paused) = given.get("enabled").and_then(Value::as_bool) else {
        return answer::error(StatusCode::BAD_REQUEST, "enabled (boolean) is required");
    };
    app.paused.store(paused, Ordering::Relaxed);
    if paused {
        app.engine.tell(Command::DismissPolls);
    }
    let message = if paused {
        "Pop maintenance mode ENABLED. All POP operations will return empty arrays."
    } else {
        "Pop maintenance mode DISABLED. Normal operation resumed."
    };
    state(paused, message)
}

fn state(paused: bool, message: &str) -> Response {
    let body = json!({ "popMaintenanceMode": paused, "message": message });
    answer::json(StatusCode::OK, body.to_string())
}
