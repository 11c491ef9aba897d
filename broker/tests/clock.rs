//! Time in the hand of a test: leases, delays, retention, deduplication and waiting pops follow, and nothing waits.

mod common;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use common::{Api, txns};
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_secs(3600);

async fn push_status(api: &Api, queue: &str, txn: &str) -> Value {
    let item = json!({"queue": queue, "partition": "p", "transactionId": txn, "payload": 1});
    let (status, answer) = api
        .send("POST", "/api/v1/push", json!({"items": [item]}))
        .await;
    assert_eq!(status, 201);
    answer[0]["status"].clone()
}

/// Whether a request has its answer.
async fn is_answered<F: Future>(mut request: Pin<&mut F>) -> bool {
    poll_fn(|context| Poll::Ready(request.as_mut().poll(context).is_ready())).await
}

/// Sends a pop that waits, and makes sure that it does.
macro_rules! park {
    ($api:expr, $queue:expr, $query:expr) => {{
        let mut pop = Box::pin($api.pop($queue, $query));
        assert!(!is_answered(pop.as_mut()).await);
        // The broker takes its commands in order.
        $api.describe("none").await;
        assert!(!is_answered(pop.as_mut()).await);
        pop
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_when_time_is_moved() {
    let began = Instant::now();
    let api = Api::testing();
    api.push("q", "p", "a").await;
    assert_eq!(txns(&api.pop("q", "leaseSeconds=3600").await), ["a"]);
    api.clock().advance_clock(HOUR / 2).await;
    assert!(api.pop("q", "").await.is_null());
    api.clock().advance_clock(HOUR / 2).await;
    let again = api.pop("q", "leaseSeconds=3600").await;
    assert_eq!(txns(&again), ["a"]);
    api.ack(&again, "completed").await;
    api.clock().advance_clock(HOUR * 2).await;
    assert!(api.pop("q", "").await.is_null());
    assert!(began.elapsed() < HOUR / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_pop_wakes_when_a_lease_ends_or_its_own_time_is_over() {
    let api = Api::testing();
    api.push("q", "p", "a").await;
    api.pop("q", "leaseSeconds=3000").await;
    let mut lucky = park!(api, "q", "wait=true&timeout=3600000&batch=1");
    api.clock().advance_clock(HOUR / 2).await;
    assert!(!is_answered(lucky.as_mut()).await);
    api.clock().advance_clock(HOUR / 2).await;
    assert_eq!(txns(&lucky.await), ["a"]);

    let unlucky = park!(api, "other", "wait=true&timeout=3600000");
    api.clock().advance_clock(HOUR).await;
    assert!(unlucky.await.is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_messages_come_when_time_is_moved() {
    let api = Api::testing();
    api.configure("q", json!({"delayedProcessing": 3600})).await;
    api.push("q", "p", "a").await;
    assert!(api.pop("q", "").await.is_null());
    let waiting = park!(api, "q", "wait=true&timeout=86400000");
    api.clock().advance_clock(HOUR).await;
    assert_eq!(txns(&waiting.await), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_is_done_when_the_clock_has_been_moved() {
    let api = Api::testing();
    let options = json!({"retentionEnabled": true, "retentionSeconds": 600});
    api.configure("q", options).await;
    // More than one step of the sweep removes.
    for n in 0..300 {
        api.push("q", &format!("p{}", n % 150), &format!("t{n}"))
            .await;
    }
    let total = async || api.describe("q").await["totals"]["total"].clone();
    let before = total().await;
    assert_eq!(before, 300, "{}", api.describe("q").await);
    api.clock().advance_clock(Duration::from_secs(500)).await;
    api.push("q", "p0", "young").await;
    api.clock().advance_clock(Duration::from_secs(200)).await;
    assert_eq!(total().await, 1);
    assert_eq!(txns(&api.pop("q", "").await), ["young"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_id_may_come_again_after_its_window() {
    let api = Api::testing();
    let options =
        json!({"retentionEnabled": true, "retentionSeconds": 60, "dedupWindowSeconds": 1800});
    api.configure("q", options).await;
    assert_eq!(push_status(&api, "q", "a").await, "queued");
    assert_eq!(push_status(&api, "q", "a").await, "duplicate");
    // The message is gone, its id is remembered.
    api.clock().advance_clock(Duration::from_secs(600)).await;
    assert_eq!(push_status(&api, "q", "a").await, "duplicate");
    api.clock().advance_clock(HOUR).await;
    assert_eq!(push_status(&api, "q", "a").await, "queued");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_clock_goes_only_where_it_is_moved() {
    let api = Api::testing();
    api.clock().freeze_clock();
    let now = api.clock().now();
    api.push("q", "p", "a").await;
    api.pop("q", "leaseSeconds=1").await;
    let mut waiting = park!(api, "q", "wait=true&timeout=500");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(!is_answered(waiting.as_mut()).await);
    assert_eq!(api.clock().now(), now);
    api.clock().advance_clock(Duration::from_millis(499)).await;
    assert!(!is_answered(waiting.as_mut()).await);
    api.clock().advance_clock(Duration::from_millis(1)).await;
    assert!(waiting.await.is_null());

    // What fell due while it stood still is no concern of the clock that runs again.
    assert!(api.pop("q", "").await.is_null());
    let waiting = park!(api, "q", "wait=true&timeout=60000&leaseSeconds=60");
    api.clock().resume_clock().await;
    assert_eq!(txns(&waiting.await), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broker_has_a_time_of_its_own() {
    let (moved, other) = (Api::testing(), Api::testing());
    for api in [&moved, &other] {
        api.push("q", "p", "a").await;
        api.pop("q", "leaseSeconds=1800").await;
    }
    moved.clock().advance_clock(HOUR).await;
    assert_eq!(txns(&moved.pop("q", "").await), ["a"]);
    assert!(other.pop("q", "").await.is_null());
    assert!(moved.clock().now() > other.clock().now());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_testing_cannot_be_steered() {
    assert!(Api::memory().0.testing().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_the_time_of_a_closed_broker_returns() {
    let api = Api::testing();
    api.0.close();
    api.clock().advance_clock(HOUR).await;
}
