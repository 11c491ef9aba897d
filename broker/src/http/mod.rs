//! The wire: routes, request bodies, answers. No queue semantics.

mod ack;
mod admin;
mod answer;
pub(crate) mod auth;
mod groups;
mod input;
mod messages;
mod pop;
mod push;
mod resources;
mod status;
mod streams;
mod system;
mod testing;
mod traces;
mod transaction;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, RawPathParams, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::{HeaderMap, StatusCode, Uri};

use crate::engine::Engine;
use crate::engine::command::Command;
use crate::engine::metric_views::Served;
use crate::options::DefaultSubscription;
use crate::store::Db;
use crate::testing::{Testing, layer};
use crate::warning::Warnings;
use auth::{Caller, Guard, Role};

/// What a prober or a scraper reads without a token.
const PUBLIC: [&str; 3] = ["/health", "/metrics", "/metrics/prometheus"];

/// What every handler may use.
pub(crate) struct App {
    pub(crate) engine: Arc<Engine>,
    pub(crate) guard: Guard,
    pub(crate) default_subscription: DefaultSubscription,
    pub(crate) max_body_bytes: usize,
    pub(crate) warnings: Warnings,
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
///
/// Each layer costs every request some allocations, so there is one, around the handlers; what reaches no handler goes
/// through the same gate.
pub(crate) fn router(app: Arc<App>, hand: Option<&Testing>) -> Router {
    let router = Router::new()
        .merge(open(&app, None, public()))
        .merge(open(&app, Some(Role::ReadOnly), reads()))
        .merge(open(&app, Some(Role::WriteOnly), writes()))
        .merge(open(&app, Some(Role::ReadWrite), both()))
        .merge(open(&app, Some(Role::Admin), admin()))
        .merge(match hand {
            Some(hand) => open(&app, Some(Role::Admin), testing::routes(hand)),
            None => Router::new(),
        })
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app);
    match hand {
        Some(hand) => router.layer(middleware::from_fn_with_state(
            hand.shared_faults(),
            layer::apply,
        )),
        None => router,
    }
}

type Routes = Router<Arc<App>>;

/// Opens routes to those who have a role, or to everyone.
fn open(app: &Arc<App>, role: Option<Role>, routes: Routes) -> Routes {
    let app = app.clone();
    routes.route_layer(middleware::from_fn(move |path, request, next| {
        enter(app.clone(), role, path, request, next)
    }))
}

fn public() -> Routes {
    Router::new()
        .route("/health", get(admin::health))
        .route("/metrics", get(system::metrics))
        .route("/metrics/prometheus", get(system::prometheus))
}

fn reads() -> Routes {
    Router::new()
        .route("/api/v1/resources/queues", get(resources::queues))
        .route("/api/v1/resources/queues/{queue}", get(resources::queue))
        .route(
            "/api/v1/resources/queues/{queue}/depth",
            get(resources::depth),
        )
        .route("/api/v1/resources/namespaces", get(resources::namespaces))
        .route("/api/v1/resources/tasks", get(resources::tasks))
        .route("/api/v1/resources/overview", get(resources::overview))
        .route("/api/v1/status", get(status::status))
        .route("/api/v1/status/queues", get(status::queues))
        .route("/api/v1/status/queues/{queue}", get(status::queue))
        .route("/api/v1/status/analytics", get(status::analytics))
        .route("/api/v1/status/buffers", get(status::buffers))
        .route(
            "/api/v1/analytics/system-metrics",
            get(status::system_metrics),
        )
        .route(
            "/api/v1/analytics/worker-metrics",
            get(status::worker_metrics),
        )
        .route("/api/v1/analytics/queue-lag", get(status::queue_lag))
        .route("/api/v1/analytics/queue-ops", get(status::queue_ops))
        .route(
            "/api/v1/analytics/queue-parked-replicas",
            get(status::queue_parked),
        )
        .route("/api/v1/analytics/retention", get(status::retention))
        .route("/api/v1/dlq", get(admin::dead_letters))
        .route("/api/v1/messages", get(messages::list))
        .route(
            "/api/v1/messages/{partition}/{transaction}",
            get(messages::show),
        )
        .route("/api/v1/consumer-groups", get(groups::list))
        .route("/api/v1/consumer-groups/lagging", get(groups::lagging))
        .route("/api/v1/consumer-groups/{group}", get(groups::details))
        .route("/api/v1/traces/names", get(traces::names))
        .route("/api/v1/traces/by-name/{name}", get(traces::by_name))
        .route(
            "/api/v1/traces/{partition}/{transaction}",
            get(traces::of_message),
        )
        .route("/api/v1/resources/streams", get(streams::list))
        .route("/api/v1/resources/streams/stats", get(streams::stats))
        .route("/api/v1/resources/streams/{stream}", get(streams::details))
        .route(
            "/api/v1/resources/streams/{stream}/consumers",
            get(streams::consumers),
        )
        .route("/status", get(system::status))
}

fn writes() -> Routes {
    Router::new().route("/api/v1/push", post(push::push))
}

fn both() -> Routes {
    Router::new()
        .route("/api/v1/pop", get(pop::find))
        .route("/api/v1/pop/queue/{queue}", get(pop::queue))
        .route(
            "/api/v1/pop/queue/{queue}/partition/{partition}",
            get(pop::partition),
        )
        .route("/api/v1/ack", post(ack::single))
        .route("/api/v1/ack/batch", post(ack::batch))
        .route("/api/v1/lease/{lease}/extend", post(ack::extend))
        .route("/api/v1/transaction", post(transaction::transact))
        .route("/api/v1/configure", post(admin::configure))
        .route(
            "/api/v1/messages/{partition}/{transaction}",
            delete(messages::delete),
        )
        .route(
            "/api/v1/messages/{partition}/{transaction}/retry",
            post(messages::retry),
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
        .route("/api/v1/stream/define", post(streams::define))
        .route("/api/v1/stream/poll", post(streams::poll))
        .route("/api/v1/stream/ack", post(streams::ack))
        .route("/api/v1/stream/renew-lease", post(streams::renew))
        .route("/api/v1/stream/seek", post(streams::seek))
}

fn admin() -> Routes {
    Router::new()
        .route("/api/v1/resources/queues/{queue}", delete(admin::delete))
        .route("/api/v1/consumer-groups/{group}", delete(groups::delete))
        .route(
            "/api/v1/consumer-groups/{group}/queues/{queue}",
            delete(groups::delete_on_queue),
        )
        .route(
            "/api/v1/resources/streams/{stream}",
            delete(streams::delete),
        )
        .route("/api/v1/stats/refresh", post(resources::refresh))
        .route("/api/v1/system/shared-state", get(system::shared_state))
        .route(
            "/api/v1/system/maintenance",
            get(system::maintenance).post(system::set_maintenance),
        )
        .route(
            "/api/v1/system/maintenance/pop",
            get(system::pop_state).post(system::set_pop),
        )
}

/// Lets a request through to its route: within a role, with names that mean something, and with a limit to its body.
async fn enter(
    app: Arc<App>,
    role: Option<Role>,
    path: RawPathParams,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = match gate(&app, request.uri(), request.headers()) {
        Ok(caller) => caller,
        Err(refusal) => return *refusal,
    };
    if let Some(refusal) = input::refusal(&path, &request) {
        return refusal;
    }
    if role.is_some_and(|role| !caller.may(role)) {
        return answer::error(StatusCode::FORBIDDEN, "Insufficient permissions");
    }
    request.extensions_mut().insert(caller);
    DefaultBodyLimit::max(app.max_body_bytes).apply(&mut request);
    input::explain_size(next.run(request).await, app.max_body_bytes)
}

/// Turns away what comes without a token that holds, or after the end.
fn gate(app: &App, uri: &Uri, headers: &HeaderMap) -> Result<Caller, Box<Response>> {
    if app.engine.is_closed() {
        return Err(Box::new(answer::closed()));
    }
    app.requests.fetch_add(1, Ordering::Relaxed);
    if PUBLIC.contains(&uri.path()) {
        return Ok(Caller::default());
    }
    let caller = app.guard.caller(headers, app.engine.clock.now());
    caller.map_err(|reason| Box::new(answer::error(StatusCode::UNAUTHORIZED, reason)))
}

async fn no_route(State(app): Shared, uri: Uri, headers: HeaderMap) -> Response {
    match gate(&app, &uri, &headers) {
        Err(refusal) => *refusal,
        Ok(_) => answer::json(
            StatusCode::NOT_FOUND,
            r#"{"error":"Not Found","code":"no_such_route"}"#,
        ),
    }
}

async fn wrong_method(State(app): Shared, uri: Uri, headers: HeaderMap) -> Response {
    match gate(&app, &uri, &headers) {
        Err(refusal) => *refusal,
        Ok(_) => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}
