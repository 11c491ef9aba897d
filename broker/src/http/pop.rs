//! `GET /api/v1/pop/...`.

use std::sync::atomic::Ordering;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

use super::{App, Shared, answer};
use crate::clock;
use crate::engine::command::{PopRequest, Source, Start};
use crate::options::DefaultSubscription;

/// The group of consumers that name none.
pub(super) const QUEUE_MODE: &str = "__QUEUE_MODE__";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Parameters {
    batch: Option<i64>,
    #[serde(default)]
    wait: bool,
    timeout: Option<u64>,
    consumer_group: Option<String>,
    #[serde(default)]
    auto_ack: bool,
    subscription_mode: Option<String>,
    subscription_from: Option<String>,
    partitions: Option<i64>,
    lease_seconds: Option<i32>,
    #[serde(default)]
    autopilot: bool,
    namespace: Option<String>,
    task: Option<String>,
}

/// Any partition of the queues with a namespace, a task, or both.
pub(super) async fn find(State(app): Shared, Query(parameters): Query<Parameters>) -> Response {
    let name = |text: &Option<String>| {
        text.as_deref()
            .filter(|text| !text.is_empty())
            .map(Into::into)
    };
    let source = Source::Find {
        namespace: name(&parameters.namespace),
        task: name(&parameters.task),
    };
    let nothing = Source::Find {
        namespace: None,
        task: None,
    };
    if source == nothing {
        return answer::json(
            StatusCode::BAD_REQUEST,
            r#"{"success":false,"error":"namespace or task is required","messages":[]}"#,
        );
    }
    pop(&app, source, None, parameters).await
}

/// Any partition of a queue.
pub(super) async fn queue(
    State(app): Shared,
    Path(queue): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Response {
    pop(&app, Source::Queue(queue.into()), None, parameters).await
}

/// One partition.
pub(super) async fn partition(
    State(app): Shared,
    Path((queue, partition)): Path<(String, String)>,
    Query(parameters): Query<Parameters>,
) -> Response {
    let source = Source::Queue(queue.into());
    pop(&app, source, Some(partition), parameters).await
}

async fn pop(app: &App, source: Source, part: Option<String>, given: Parameters) -> Response {
    if app.paused.load(Ordering::Relaxed) {
        return answer::empty();
    }
    let start = start(&given, part.is_some(), app.default_subscription);
    let usual = if given.autopilot { 100 } else { 200 };
    let request = PopRequest {
        id: 0,
        source,
        part: part.map(Into::into),
        group: given
            .consumer_group
            .unwrap_or_else(|| QUEUE_MODE.into())
            .into(),
        batch: given.batch.unwrap_or(usual).max(1),
        parts: given.partitions.unwrap_or(1).max(1),
        wait: given.wait.then(|| {
            let millis = given.timeout.unwrap_or(30_000);
            i64::try_from(millis)
                .unwrap_or(i64::MAX)
                .saturating_mul(1000)
        }),
        auto_ack: given.auto_ack,
        lease_seconds: given.lease_seconds.map(i64::from),
        start,
        echo: given.autopilot,
    };
    match app.engine.pop(request).await {
        Ok(Some(delivery)) => answer::delivery(delivery),
        Ok(None) => answer::empty(),
        Err(reason) => answer::refused(reason),
    }
}

/// Where a new group starts. A time that cannot be read means "now", but on the partition route it is ignored.
fn start(given: &Parameters, one_partition: bool, usual: DefaultSubscription) -> Start {
    if given.consumer_group.as_deref().unwrap_or(QUEUE_MODE) == QUEUE_MODE {
        return Start::All;
    }
    if let Some(from) = given
        .subscription_from
        .as_deref()
        .filter(|from| !from.is_empty())
    {
        match clock::parse(from) {
            Some(time) => return Start::Time(time),
            None if from == "now" || !one_partition => return Start::New,
            None => {}
        }
    }
    match given.subscription_mode.as_deref() {
        None => match usual {
            DefaultSubscription::New => Start::New,
            DefaultSubscription::All => Start::All,
        },
        Some(mode) => {
            let mode = mode.to_ascii_lowercase();
            let new = matches!(mode.as_str(), "new" | "new-only" | "new_only" | "newonly");
            if new { Start::New } else { Start::All }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(group: Option<&str>, mode: Option<&str>, from: Option<&str>) -> Parameters {
        Parameters {
            batch: None,
            wait: false,
            timeout: None,
            consumer_group: group.map(Into::into),
            auto_ack: false,
            subscription_mode: mode.map(Into::into),
            subscription_from: from.map(Into::into),
            partitions: None,
            lease_seconds: None,
            autopilot: false,
            namespace: None,
            task: None,
        }
    }

    /// Where a group starts on the route of a whole queue, by the usual default.
    fn at(group: Option<&str>, mode: Option<&str>, from: Option<&str>) -> Start {
        start(&given(group, mode, from), false, DefaultSubscription::New)
    }

    #[test]
    fn queue_mode_always_reads_everything() {
        assert_eq!(at(None, Some("new"), None), Start::All);
        assert_eq!(at(Some(QUEUE_MODE), None, Some("now")), Start::All);
    }

    #[test]
    fn a_group_starts_where_it_says() {
        let g = Some("g");
        assert_eq!(at(g, Some("NEW-only"), None), Start::New);
        assert_eq!(at(g, Some("weird"), None), Start::All);
        let second = Some("1970-01-01T00:00:01Z");
        assert_eq!(at(g, Some("all"), second), Start::Time(1_000_000));
        let unclear = Some("yesterday-ish");
        assert_eq!(at(g, Some("all"), unclear), Start::New);
        let one_partition =
            |from| start(&given(g, Some("all"), from), true, DefaultSubscription::New);
        assert_eq!(one_partition(unclear), Start::All);
        assert_eq!(one_partition(Some("now")), Start::New);
    }

    #[test]
    fn a_group_that_says_nothing_starts_where_the_broker_says() {
        let all = |mode, from| {
            start(
                &given(Some("g"), mode, from),
                false,
                DefaultSubscription::All,
            )
        };
        assert_eq!(at(Some("g"), None, None), Start::New);
        assert_eq!(all(None, None), Start::All);
        assert_eq!(all(None, Some("now")), Start::New);
        assert_eq!(all(Some("new"), None), Start::New);
    }
}
