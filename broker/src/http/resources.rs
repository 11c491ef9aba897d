//! What there is: queues, namespaces, tasks, and how much they hold.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{App, Shared, answer};
use crate::clock;
use crate::engine::Refused;
use crate::engine::census::{Census, QueueDetail};
use crate::engine::command::Command;
use crate::engine::history::{Counts, MINUTE};
use crate::engine::queue_views as views;

impl App {
    /// The counts of all queues.
    pub(super) async fn census(&self) -> Result<Arc<Census>, Refused> {
        self.engine.ask(|reply| Command::Census(false, reply)).await
    }

    /// Answers with what the census says.
    pub(super) async fn counted(&self, tell: impl FnOnce(&Census) -> String) -> Response {
        match self.census().await {
            Ok(census) => answer::json(StatusCode::OK, tell(&census)),
            Err(reason) => answer::refused(reason),
        }
    }

    /// One queue, as a group sees it, or the answer that there is none.
    pub(super) async fn detail(
        &self,
        queue: String,
        group: Option<String>,
    ) -> Result<QueueDetail, Box<Response>> {
        let asked = self
            .engine
            .ask(|reply| Command::Detail(queue, group, reply));
        match asked.await {
            Ok(Some(detail)) => Ok(detail),
            Ok(None) => Err(Box::new(answer::error(
                StatusCode::NOT_FOUND,
                "Queue not found",
            ))),
            Err(reason) => Err(Box::new(answer::refused(reason))),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Listing {
    stats: Option<String>,
}

pub(super) async fn queues(State(app): Shared, Query(listing): Query<Listing>) -> Response {
    let cached = listing.stats.as_deref() == Some("cached");
    app.counted(|census| views::list(census, !cached)).await
}

pub(super) async fn queue(State(app): Shared, Path(queue): Path<String>) -> Response {
    match app.detail(queue, None).await {
        Ok(detail) => app.view(move |db| views::describe(db, &detail), "").await,
        Err(response) => *response,
    }
}

#[derive(Deserialize)]
pub(super) struct Depth {
    group: Option<String>,
}

pub(super) async fn depth(
    State(app): Shared,
    Path(queue): Path<String>,
    Query(Depth { group }): Query<Depth>,
) -> Response {
    let named = group.clone().filter(|group| !group.is_empty());
    match app.detail(queue, named).await {
        Ok(detail) => answer::json(StatusCode::OK, views::depth(&detail, group.as_deref())),
        Err(response) => *response,
    }
}

pub(super) async fn namespaces(State(app): Shared) -> Response {
    app.counted(|census| views::by_name(census, "namespace", "namespaces", |q| &q.namespace))
        .await
}

pub(super) async fn tasks(State(app): Shared) -> Response {
    app.counted(|census| views::by_name(census, "task", "tasks", |q| &q.task))
        .await
}

pub(super) async fn overview(State(app): Shared) -> Response {
    let census = match app.census().await {
        Ok(census) => census,
        Err(reason) => return answer::refused(reason),
    };
    // The minute that runs and the one before it.
    let since = census.taken - MINUTE;
    let since = since - since.rem_euclid(MINUTE);
    let mut counts = Counts::default();
    for minute in app.engine.history.between(since, census.taken) {
        counts += &minute.all;
    }
    let seconds = (census.taken - since) as f64 / clock::SECOND as f64;
    app.view(
        move |db| views::overview(db, &census, (counts, seconds)),
        "",
    )
    .await
}

/// `POST /stats/refresh`: counts anew, whatever it costs.
pub(super) async fn refresh(State(app): Shared) -> Response {
    match app.engine.ask(|reply| Command::Census(true, reply)).await {
        Ok(census) => {
            let parts: usize = census.queues.iter().map(|queue| queue.parts).sum();
            let body = json!({
                "queuesUpdated": census.queues.len(),
                "partitionsUpdated": parts,
                "refreshedAt": clock::iso(census.taken),
            });
            answer::json(StatusCode::OK, body.to_string())
        }
        Err(reason) => answer::refused(reason),
    }
}
