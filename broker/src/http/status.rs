//! Status and analytics, for dashboards.

use std::fs;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use rustix::param::clock_ticks_per_second;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{App, Shared, answer};
use crate::clock;
use crate::engine::analytics_views::{Chart, Interval, Span};
use crate::engine::census::QueueCount;
use crate::engine::command::Command;
use crate::engine::history::MINUTE;
use crate::engine::queue_views;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Filter {
    from: String,
    to: String,
    queue: String,
    #[serde(alias = "ns")]
    namespace: String,
    task: String,
    interval: String,
}

impl Filter {
    /// What is asked for; without a beginning, the last so many minutes.
    fn span(self, now: i64, minutes: i64) -> Result<Span, Box<Response>> {
        let to = answer::time("to", &self.to, now)?;
        let usual = to.saturating_sub(minutes * MINUTE);
        let from = answer::time("from", &self.from, usual)?;
        if from > to {
            let fault = format!("from {:?} is later than to {:?}", self.from, self.to);
            return Err(Box::new(answer::error(StatusCode::BAD_REQUEST, &fault)));
        }
        Ok(Span {
            from,
            to,
            queue: self.queue,
            namespace: self.namespace,
            task: self.task,
        })
    }
}

/// Answers with a chart of the span that is asked for.
async fn chart(
    app: &App,
    filter: Filter,
    minutes: i64,
    draw: impl FnOnce(&Chart) -> String,
) -> Response {
    let span = match filter.span(app.engine.clock.now(), minutes) {
        Ok(span) => span,
        Err(response) => return *response,
    };
    match app.census().await {
        Ok(census) => {
            let minutes = app.engine.history.between(span.from, span.to);
            answer::json(StatusCode::OK, draw(&Chart::new(span, census, minutes)))
        }
        Err(reason) => answer::refused(reason),
    }
}

pub(super) async fn status(State(app): Shared, Query(filter): Query<Filter>) -> Response {
    chart(&app, filter, 60, Chart::status).await
}

pub(super) async fn analytics(State(app): Shared, Query(filter): Query<Filter>) -> Response {
    let interval = match filter.interval.as_str() {
        "" => Some(Interval::Hour),
        name => Interval::ALL.into_iter().find(|i| i.name() == name),
    };
    let Some(interval) = interval else {
        let fault = format!("interval {:?} is not minute, hour or day", filter.interval);
        return answer::error(StatusCode::BAD_REQUEST, &fault);
    };
    chart(&app, filter, 24 * 60, |chart| chart.pushed(interval)).await
}

pub(super) async fn worker_metrics(State(app): Shared, Query(filter): Query<Filter>) -> Response {
    chart(&app, filter, 60, |chart| chart.workers(&host())).await
}

pub(super) async fn queue_lag(State(app): Shared, Query(filter): Query<Filter>) -> Response {
    chart(&app, filter, 60, Chart::lag).await
}

pub(super) async fn queue_ops(State(app): Shared, Query(filter): Query<Filter>) -> Response {
    chart(&app, filter, 60, Chart::operations).await
}

pub(super) async fn queue_parked(State(app): Shared, Query(filter): Query<Filter>) -> Response {
    chart(&app, filter, 60, |chart| chart.parked(&host())).await
}

pub(super) async fn retention(State(app): Shared, Query(filter): Query<Filter>) -> Response {
    chart(&app, filter, 60, Chart::retention).await
}

#[derive(Deserialize)]
pub(super) struct Page {
    limit: Option<usize>,
    offset: Option<usize>,
    #[serde(default)]
    queue: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    task: String,
}

pub(super) async fn queues(State(app): Shared, Query(page): Query<Page>) -> Response {
    let (limit, offset) = (page.limit.unwrap_or(100), page.offset.unwrap_or(0));
    match app.census().await {
        Ok(census) => {
            // What is empty narrows nothing.
            let fits = |wanted: &str, value: &str| wanted.is_empty() || wanted == value;
            let wanted = |queue: &QueueCount| {
                fits(&page.queue, &queue.name)
                    && fits(&page.namespace, &queue.namespace)
                    && fits(&page.task, &queue.task)
            };
            let body = queue_views::status_list(&census, wanted, limit, offset);
            answer::json(StatusCode::OK, body)
        }
        Err(reason) => answer::refused(reason),
    }
}

pub(super) async fn queue(State(app): Shared, Path(queue): Path<String>) -> Response {
    match app.detail(queue, None).await {
        Ok(detail) => {
            app.view(move |db| queue_views::status_of(db, &detail), "")
                .await
        }
        Err(response) => *response,
    }
}

/// `GET /status/buffers`: what push maintenance holds back.
pub(super) async fn buffers(State(app): Shared) -> Response {
    match app.engine.ask(|reply| Command::Maintain(None, reply)).await {
        Ok(state) => {
            let body =
                json!({ "pending": state.buffered, "failed": 0, "dbHealthy": true, "worker": 0 });
            answer::json(StatusCode::OK, body.to_string())
        }
        Err(reason) => answer::refused(reason),
    }
}

/// `GET /analytics/system-metrics`: this process, now.
pub(super) async fn system_metrics(State(app): Shared) -> Response {
    let now = app.engine.clock.now();
    let [user, system] = processor_micros();
    let point = json!({
        "timestamp": clock::iso(now),
        "sampleCount": 1,
        "metrics": {
            "cpu": { "user_us": sample(user), "system_us": sample(system) },
            "memory": { "rss_bytes": sample(resident_bytes()) },
        },
    });
    let body = json!({
        "replicas": [{ "hostname": host(), "workerId": "worker-0", "timeSeries": [point] }],
        "replicaCount": 1,
        "timeRange": { "from": clock::iso(now), "to": clock::iso(now) },
        "pointCount": 1,
        "bucketMinutes": 1,
    });
    answer::json(StatusCode::OK, body.to_string())
}

/// One measurement where others give the figures of many; null where the system does not tell.
fn sample(value: Option<u64>) -> Value {
    json!({ "avg": value, "min": value, "max": value, "last": value })
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// The memory of this process that is in use.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// The time that this process has spent in itself and in the system.
fn processor_micros() -> [Option<u64>; 2] {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may contain anything, come the state and then numbers.
    let numbers = stat.rsplit_once(')').map_or("", |(_, numbers)| numbers);
    let mut fields = numbers.split_whitespace().skip(11);
    let ticks = clock_ticks_per_second().max(1);
    [(); 2].map(|()| Some(fields.next()?.parse::<u64>().ok()? * 1_000_000 / ticks))
}
