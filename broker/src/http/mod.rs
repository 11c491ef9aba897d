//! The wire: routes, request bodies, answers. No queue semantics.

mod ack;
mod admin;
mod answer;
mod groups;
mod messages;
mod pop;
mod push;
mod system;
mod traces;
mod transaction;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{delete, get, post};
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};

use crate::engine::Engine;
use crate::engine::command::Command;
use crate::engine::metric_views::Served;
use crate::store::Db;

/// The largest request body.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// What a prober or a scraper reads without a token.
const PUBLIC: [&str; 3] = ["/health", "/metrics", "/metrics/prometheus"];

/// What every handler may use.
pub(crate) struct App {
    pub(crate) engine: Arc<Engine>,
    pub(crate) token: Option<String>,
    /// Pop maintenance: pops answer empty.
    pub(crate) paused: AtomicBool,
    pub(crate) opened: Instant,
    pub(crate) requests: AtomicU64,
}

type Shared = State<Arc<App>>;

impl App {
    fn served(&self) -> Served {
        Served {
            uptime: self.opened.elapsed().as_secs(),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }

    /// Answers with what the store tells, or 404 with a text when it knows nothing.
    async fn view<F>(&self, look: F, missing: &str) -> Response
    where
        F: FnOnce(&Db) -> crate::store::Result<Option<String>> + Send + 'static,
    {
        let asked = self
            .engine
            .ask(|reply| Command::View(Box::new(look), reply));
        match asked.await {
            Ok(Some(text)) => answer::json(StatusCode::OK, text),
            Ok(None) => answer::error(StatusCode::NOT_FOUND, missing),
            Err(reason) => answer::refused(reason),
        }
    }
}

/// The one router: TCP and in-process requests walk through the same one.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/api/v1/push", post(push::push))
        .route("/api/v1/pop", get(pop::find))
        .route("/api/v1/pop/queue/{queue}", get(pop::queue))
        .route(
            "/api/v1/pop/queue/{queue}/partition/{partition}",
            get(pop::partition),
        )
        .route("/api/v1/ack", post(ack::single))
        .route("/api/v1/ack/batch", post(ack::batch))
        .route("/api/v1/lease/{lease}/extend", post(ack::extend))
        .route("/api/v1/configure", post(admin::configure))
        .route(
            "/api/v1/resources/queues/{queue}",
            get(admin::describe).delete(admin::delete),
        )
        .route("/api/v1/dlq", get(admin::dead_letters))
        .route("/api/v1/transaction", post(transaction::transact))
        .route("/api/v1/messages", get(messages::list))
        .route(
            "/api/v1/messages/{partition}/{transaction}",
            get(messages::show).delete(messages::delete),
        )
        .route(
            "/api/v1/messages/{partition}/{transaction}/retry",
            post(messages::retry),
        )
        .route("/api/v1/consumer-groups", get(groups::list))
        .route("/api/v1/consumer-groups/lagging", get(groups::lagging))
        .route(
            "/api/v1/consumer-groups/{group}",
            get(groups::details).delete(groups::delete),
        )
        .route(
            "/api/v1/consumer-groups/{group}/queues/{queue}",
            delete(groups::delete_on_queue),
        )
        .route(
            "/api/v1/consumer-groups/{group}/subscription",
            post(groups::subscription),
        )
        .route(
            "/api/v1/consumer-groups/{group}/queues/{queue}/seek",
            post(groups::seek),
        )
        .route(
            "/api/v1/consumer-groups/{group}/queues/{queue}/partitions/{partition}/seek",
            post(groups::seek_partition),
        )
        .route("/api/v1/traces", post(traces::record))
        .route("/api/v1/traces/names", get(traces::names))
        .route("/api/v1/traces/by-name/{name}", get(traces::by_name))
        .route(
            "/api/v1/traces/{partition}/{transaction}",
            get(traces::of_message),
        )
        .route(
            "/api/v1/system/maintenance/pop",
            get(system::pop_state).post(system::set_pop),
        )
        .route("/status", get(system::status))
        .route("/metrics", get(system::metrics))
        .route("/metrics/prometheus", get(system::prometheus))
        .route("/health", get(admin::health))
        .fallback(no_route)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(app.clone(), gate))
        .with_state(app)
}

/// Turns away what comes without the token or after the end.
async fn gate(State(app): Shared, request: Request, next: Next) -> Response {
    if app.engine.is_closed() {
        return answer::closed();
    }
    app.requests.fetch_add(1, Ordering::Relaxed);
    let public = PUBLIC.contains(&request.uri().path());
    match &app.token {
        Some(token) if !public => match bearer(request.headers()) {
            None => answer::error(StatusCode::UNAUTHORIZED, "Authentication required"),
            Some(given) if !same(given, token) => {
                answer::error(StatusCode::UNAUTHORIZED, "Invalid token")
            }
            Some(_) => next.run(request).await,
        },
        _ => next.run(request).await,
    }
}

/// The token of a request, with or without the word `Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let token = match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => value,
    };
    (!token.is_empty()).then_some(token)
}

/// Compares in a time that tells nothing about where the texts differ.
fn same(a: &str, b: &str) -> bool {
    let differences = a
        .bytes()
        .zip(b.bytes())
        .fold(0, |sum, (x, y)| sum | (x ^ y));
    a.len() == b.len() && differences == 0
}

async fn no_route() -> Response {
    answer::json(
        StatusCode::NOT_FOUND,
        r#"{"error":"Not Found","code":"no_such_route"}"#,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_may_come_bare_or_with_its_scheme() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(with("Bearer s3cret").as_deref(), Some("s3cret"));
        assert_eq!(with("bEARER  s3cret ").as_deref(), Some("s3cret"));
        assert_eq!(with("s3cret").as_deref(), Some("s3cret"));
        assert_eq!(with("  "), None);
        assert!(same("abc", "abc") && !same("abc", "abd") && !same("abc", "ab"));
    }
}
