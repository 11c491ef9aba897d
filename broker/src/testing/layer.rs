//! Where faults happen: around the whole router, as a network or a proxy would do it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use serde_json::json;

use super::NoAnswer;
use super::fault::Action;
use super::faults::{Fate, Faults, Seen};
use super::request;

/// The page of a web server that knows nothing of queues.
const PAGE: &str = "<!DOCTYPE html>\n<html><body><h1>It works!</h1></body></html>\n";

/// Lets a request through, or does to it what a fault asks for. The routes of testing itself are spared.
pub(crate) async fn apply(
    State(faults): State<Arc<Faults>>,
    request: Request,
    next: Next,
) -> Response {
    if request.uri().path().starts_with("/testing/") {
        return next.run(request).await;
    }
    let (fate, request) = match judge(&faults, request).await {
        Ok(judged) => judged,
        Err(error) => return plain(StatusCode::BAD_REQUEST, &format!("bad body: {error}")),
    };
    let action = match fate {
        Fate::Usual => return next.run(request).await,
        Fate::Hangs(mut alive) => {
            while alive.changed().await.is_ok() {}
            return next.run(request).await;
        }
        Fate::Takes(action) => action,
    };
    match action {
        // A fault that hangs has its own fate.
        Action::Hang => next.run(request).await,
        Action::Status {
            status,
            headers,
            body,
            after_commit,
        } => {
            if after_commit {
                finish(next.run(request).await).await;
            }
            let status = StatusCode::from_u16(status).unwrap_or_default();
            let body = body.unwrap_or_else(|| text(&format!("a fault answers {status}")));
            let mut response = answer(status, "application/json", body);
            for (name, value) in headers {
                if let (Ok(name), Ok(value)) = (
                    http::HeaderName::try_from(name),
                    HeaderValue::try_from(value),
                ) {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
        Action::Delay { millis } => {
            let response = next.run(request).await;
            tokio::time::sleep(Duration::from_millis(millis)).await;
            response
        }
        Action::CutBeforeCommit => none(NoAnswer::Cut),
        Action::CutAfterCommit => {
            finish(next.run(request).await).await;
            none(NoAnswer::Cut)
        }
        Action::CutInBody => half(next.run(request).await).await,
        Action::NotJson => {
            finish(next.run(request).await).await;
            answer(StatusCode::OK, "text/html", PAGE)
        }
        Action::NotHttp => {
            finish(next.run(request).await).await;
            none(NoAnswer::NotHttp)
        }
    }
}

/// Decides by the request, whose body is read only where a fault asks for what is in it.
async fn judge(faults: &Faults, request: Request) -> Result<(Fate, Request), axum::Error> {
    let (head, mut body) = request.into_parts();
    let route = request::route(head.uri.path());
    let mut read = Bytes::new();
    if request::has_queue_in_body(route) && faults.ask_for_queue() {
        read = body.collect().await?.to_bytes();
        body = Body::from(read.clone());
    }
    let fate = faults.judge(&Seen {
        route,
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query(),
        body: &read,
    });
    Ok((fate, Request::from_parts(head, body)))
}

/// Takes the whole answer, as if it were sent: what was popped stays with the one who asked.
async fn finish(response: Response) -> Bytes {
    let body = response.into_body().collect().await;
    body.map(|body| body.to_bytes()).unwrap_or_default()
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn plain(status: StatusCode, why: &str) -> Response {
    answer(status, "application/json", text(why))
}

fn text(error: &str) -> String {
    json!({ "error": error }).to_string()
}

/// Stands for no answer. Whoever cannot cut a connection has a 502 to show.
fn none(kind: NoAnswer) -> Response {
    let mut response = plain(StatusCode::BAD_GATEWAY, &kind.to_string());
    response.extensions_mut().insert(kind);
    response
}

/// Head and half of the body; an answer without a body is lost whole.
async fn half(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    let whole = finish(Response::new(body)).await;
    if whole.is_empty() {
        return none(NoAnswer::Cut);
    }
    head.headers
        .insert(CONTENT_LENGTH, HeaderValue::from(whole.len()));
    head.extensions.insert(NoAnswer::CutInBody);
    let body = Half {
        first: Some(whole.slice(..whole.len() / 2)),
        flushed: false,
        promised: whole.len() as u64,
    };
    Response::from_parts(head, Body::new(body))
}

/// A body that breaks off. It waits once before it does, so that its first half is on the way.
struct Half {
    first: Option<Bytes>,
    flushed: bool,
    promised: u64,
}

impl http_body::Body for Half {
    type Data = Bytes;
    type Error = NoAnswer;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, NoAnswer>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if !std::mem::replace(&mut self.flushed, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(NoAnswer::CutInBody)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.promised)
    }
}
