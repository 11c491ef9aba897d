//! `/testing/...`: what a test may do with the broker. These routes exist on a broker for tests alone.

use std::time::Duration;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Extension, Router};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Routes, answer, input};
use crate::testing::{ActiveFault, Fault, Testing};

type Hand = Extension<Testing>;

pub(super) fn routes(testing: &Testing) -> Routes {
    Router::new()
        .route("/testing/faults", get(list).post(add).delete(clear))
        .route("/testing/faults/{id}", delete(remove))
        .route("/testing/clock", get(time).post(set_time))
        .route("/testing/requests", get(requests).delete(forget))
        .layer(Extension(testing.clone()))
}

fn ok(body: &Value) -> Response {
    answer::json(StatusCode::OK, body.to_string())
}

fn faults(status: StatusCode, faults: &[ActiveFault]) -> Response {
    answer::json(status, json!({ "faults": faults }).to_string())
}

async fn list(Extension(testing): Hand) -> Response {
    faults(StatusCode::OK, &testing.faults())
}

async fn add(Extension(testing): Hand, body: Bytes) -> Response {
    let text = String::from_utf8_lossy(&body);
    let added = Fault::parse_all(&text).and_then(|faults| testing.add_faults(faults));
    match added {
        Ok(added) => faults(StatusCode::CREATED, &added),
        Err(error) => answer::error(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

async fn clear(Extension(testing): Hand) -> Response {
    testing.clear_faults();
    StatusCode::NO_CONTENT.into_response()
}

async fn remove(Extension(testing): Hand, Path(id): Path<String>) -> Response {
    match id.parse().is_ok_and(|id| testing.remove_fault(id)) {
        true => StatusCode::NO_CONTENT.into_response(),
        false => answer::error(StatusCode::NOT_FOUND, &format!("there is no fault {id}")),
    }
}

async fn time(Extension(testing): Hand) -> Response {
    ok(&json!({ "now": testing.now(), "frozen": testing.is_clock_frozen() }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Move {
    #[serde(default)]
    advance_millis: u64,
    frozen: Option<bool>,
}

async fn set_time(Extension(testing): Hand, body: Bytes) -> Response {
    let asked: Move = match input::body(&body) {
        Ok(asked) => asked,
        Err(response) => return *response,
    };
    if asked.frozen == Some(true) {
        testing.freeze_clock();
    }
    let by = Duration::from_millis(asked.advance_millis);
    testing.advance_clock(by).await;
    if asked.frozen == Some(false) {
        testing.resume_clock().await;
    }
    time(Extension(testing)).await
}

async fn requests(Extension(testing): Hand) -> Response {
    ok(&json!({ "requests": testing.requests() }))
}

async fn forget(Extension(testing): Hand) -> Response {
    testing.reset_requests();
    StatusCode::NO_CONTENT.into_response()
}
