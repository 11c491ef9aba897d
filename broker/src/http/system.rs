//! The state of the broker as a whole.

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::{Shared, answer, input};
use crate::engine::command::Command;
use crate::engine::metric_views;

/// `GET /status`: whether the server answers at all.
pub(super) async fn status() -> Response {
    let body = json!({ "status": "ok", "engine": "queen-broker" });
    answer::json(StatusCode::OK, body.to_string())
}

pub(super) async fn metrics(State(app): Shared) -> Response {
    let served = app.served();
    app.counted(|census| metric_views::json(census, served))
        .await
}

pub(super) async fn prometheus(State(app): Shared) -> Response {
    let served = app.served();
    let mut response = app
        .counted(|census| metric_views::prometheus(census, served))
        .await;
    if response.status() == StatusCode::OK {
        let text = HeaderValue::from_static("text/plain; version=0.0.4");
        response.headers_mut().insert(CONTENT_TYPE, text);
    }
    response
}

/// `GET /system/shared-state`: there is one broker, so nothing is shared.
pub(super) async fn shared_state(State(app): Shared) -> Response {
    match app.engine.ask(|reply| Command::Maintain(None, reply)).await {
        Ok(state) => {
            let body = json!({
                "enabled": false,
                "reason": "single_embedded_broker",
                "maintenance_mode": state.on,
                "pop_maintenance_mode": app.paused.load(Ordering::Relaxed),
            });
            answer::json(StatusCode::OK, body.to_string())
        }
        Err(reason) => answer::refused(reason),
    }
}

/// `GET /system/maintenance`.
pub(super) async fn maintenance(State(app): Shared) -> Response {
    let asked = app.engine.ask(|reply| Command::Maintain(None, reply));
    let state = match asked.await {
        Ok(state) => state,
        Err(reason) => return answer::refused(reason),
    };
    let body = json!({
        "maintenanceMode": state.on,
        "popMaintenanceMode": app.paused.load(Ordering::Relaxed),
        "bufferedMessages": state.buffered,
        // What is buffered lies in the store itself, so it is as sound as that.
        "bufferHealthy": true,
        "bufferStats": { "pendingCount": state.buffered, "failedCount": 0, "dbHealthy": true },
    });
    answer::json(StatusCode::OK, body.to_string())
}

/// `POST /system/maintenance`: pushes are kept beside the log until it is switched off or the broker is opened again.
pub(super) async fn set_maintenance(State(app): Shared, body: Bytes) -> Response {
    let on = match switch(&body) {
        Ok(on) => on,
        Err(response) => return *response,
    };
    let asked = app.engine.ask(|reply| Command::Maintain(Some(on), reply));
    let state = match asked.await {
        Ok(state) => state,
        Err(reason) => return answer::refused(reason),
    };
    let message = match on {
        true => "Maintenance mode ENABLED. All PUSHes routing to file buffer.",
        false => "Maintenance mode DISABLED. Background processor will drain buffer to DB.",
    };
    let body = json!({
        "maintenanceMode": state.on,
        "bufferedMessages": state.buffered,
        "bufferHealthy": true,
        "message": message,
    });
    answer::json(StatusCode::OK, body.to_string())
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
    let paused = match switch(&body) {
        Ok(paused) => paused,
        Err(response) => return *response,
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

/// The `enabled` of a body.
fn switch(body: &Bytes) -> Result<bool, Box<Response>> {
    let given: Value = input::body(body)?;
    given
        .get("enabled")
        .and_then(Value::as_bool)
        .ok_or_else(|| {
            let text = "enabled (boolean) is required";
            Box::new(answer::error(StatusCode::BAD_REQUEST, text))
        })
}

fn state(paused: bool, message: &str) -> Response {
    let body = json!({ "popMaintenanceMode": paused, "message": message });
    answer::json(StatusCode::OK, body.to_string())
}
