//! Answers, and the body that knows whether it was handed over.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use http_body::{Frame, SizeHint};
use serde_json::json;

use crate::clock;
use crate::engine::Refused;
use crate::engine::command::{ClaimGuard, Delivery};

/// A JSON answer from finished text.
pub(super) fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `{"error": ...}`.
pub(super) fn error(status: StatusCode, text: &str) -> Response {
    json(status, json!({ "error": text }).to_string())
}

/// A time or an id that is none, where the official broker is on record with a failure of its own. Clients can tell
/// its messages by their first words.
pub(super) fn recorded_failure(text: &str) -> Response {
    error(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// A body that could not be read.
pub(super) fn bad_body(reason: impl std::fmt::Display) -> Response {
    error(StatusCode::BAD_REQUEST, &format!("bad body: {reason}"))
}

/// A time of a query; empty means the usual one.
pub(super) fn time(name: &str, text: &str, usual: i64) -> Result<i64, Box<Response>> {
    if text.is_empty() {
        return Ok(usual);
    }
    clock::parse(text).ok_or_else(|| {
        let fault = format!("{name} {text:?} is not an ISO-8601 time");
        Box::new(error(StatusCode::BAD_REQUEST, &fault))
    })
}

/// The broker is closed or closing.
pub(super) fn closed() -> Response {
    error(StatusCode::SERVICE_UNAVAILABLE, "broker is closed")
}

/// Nothing to deliver.
pub(super) fn empty() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// The engine gave no answer.
pub(super) fn refused(reason: Refused) -> Response {
    match reason {
        Refused::Closed => closed(),
        Refused::Failed(failure) => {
            let text = format!("store: {}", failure.text);
            match failure.full {
                true => json(
                    StatusCode::INSUFFICIENT_STORAGE,
                    json!({ "error": text, "code": "store_full" }).to_string(),
                ),
                false => error(StatusCode::INTERNAL_SERVER_ERROR, &text),
            }
        }
    }
}

/// Messages. Their claim is given back if the body is dropped before anyone took it.
pub(super) fn delivery(delivery: Delivery) -> Response {
    let body = Claimed {
        data: Some(delivery.body),
        guard: delivery.guard,
    };
    json(StatusCode::OK, Body::new(body))
}

struct Claimed {
    data: Option<Bytes>,
    guard: ClaimGuard,
}

impl http_body::Body for Claimed {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let data = self.data.take();
        if data.is_some() {
            self.guard.handed_over();
        }
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}
