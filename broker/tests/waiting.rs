//! Long polls: what wakes them, what ends them, and what becomes of a claim that nobody takes.

mod common;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use common::{Api, txns};
use serde_json::Value;
use tokio::time::sleep;

fn park(
    api: &Api,
    queue: &'static str,
    query: &'static str,
) -> tokio::task::JoinHandle<(Value, Duration)> {
    let api = api.clone();
    tokio::spawn(async move {
        let began = Instant::now();
        (api.pop(queue, query).await, began.elapsed())
    })
}

const BRIEF: Duration = Duration::from_millis(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_push_wakes_as_many_as_it_feeds_and_first_come_is_first_served() {
    let api = Api::memory();
    let mut parked = Vec::new();
    for _ in 0..300 {
        parked.push(park(&api, "q", "batch=1&wait=true&timeout=20000"));
    }
    sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    for n in 0..300 {
        api.push("q", &format!("p{n}"), "x").await;
    }
    for pop in parked {
        assert_eq!(txns(&pop.await.unwrap().0), ["x"]);
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert!(api.pop("q", "").await.is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_wakes_the_next_consumer_of_the_partition() {
    let api = Api::memory();
    for txn in ["a", "b"] {
        api.push("q", "p", txn).await;
    }
    let first = api.pop("q", "batch=1").await;
    let next = park(&api, "q", "wait=true&timeout=10000");
    sleep(BRIEF).await;
    assert!(!next.is_finished());
    api.ack(&first, "completed").await;
    let (delivery, took) = next.await.unwrap();
    assert_eq!(txns(&delivery), ["b"]);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_lease_wakes_a_parked_pop() {
    let api = Api::memory();
    api.push("q", "p", "a").await;
    assert_eq!(txns(&api.pop("q", "leaseSeconds=1").await), ["a"]);
    let named = park(
        &api,
        "q/partition/p",
        "wait=true&timeout=10000&leaseSeconds=1",
    );
    let (delivery, took) = named.await.unwrap();
    assert_eq!(txns(&delivery), ["a"]);
    assert!(
        took > Duration::from_millis(700) && took < Duration::from_millis(1800),
        "{took:?}"
    );
    let (delivery, took) = park(&api, "q", "wait=true&timeout=10000").await.unwrap();
    assert_eq!(txns(&delivery), ["a"]);
    assert!(
        took > Duration::from_millis(700) && took < Duration::from_millis(1800),
        "{took:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_delay_wakes_a_parked_pop() {
    let api = Api::memory();
    api.configure("q", serde_json::json!({"delayedProcessing": 1}))
        .await;
    let pop = park(&api, "q", "wait=true&timeout=10000");
    sleep(BRIEF).await;
    api.push("q", "p", "a").await;
    let (delivery, took) = pop.await.unwrap();
    assert_eq!(txns(&delivery), ["a"]);
    assert!(
        took > Duration::from_millis(1000) && took < Duration::from_millis(2500),
        "{took:?}"
    );
}

#[tokio::test]
async fn a_poll_ends_with_its_time() {
    let api = Api::memory();
    let (delivery, took) = park(&api, "q", "wait=true&timeout=300").await.unwrap();
    assert!(delivery.is_null());
    assert!(
        took >= Duration::from_millis(295) && took < Duration::from_millis(1500),
        "{took:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_keeps_its_parked_pops() {
    let api = Api::memory();
    api.push("q", "p", "a").await;
    let any = park(&api, "q", "consumerGroup=g&wait=true&timeout=10000");
    let named = park(
        &api,
        "q/partition/p",
        "consumerGroup=h&wait=true&timeout=10000",
    );
    sleep(BRIEF).await;
    api.send("DELETE", "/api/v1/resources/queues/q", Value::Null)
        .await;
    sleep(BRIEF).await;
    api.push("q", "p", "b").await;
    assert_eq!(txns(&any.await.unwrap().0), ["b"]);
    assert_eq!(txns(&named.await.unwrap().0), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_poll_takes_nothing() {
    let api = Api::memory();
    let poll = park(&api, "q", "wait=true&timeout=20000");
    sleep(BRIEF).await;
    poll.abort();
    assert!(poll.await.unwrap_err().is_cancelled());
    api.push("q", "p", "a").await;
    assert_eq!(txns(&api.pop("q", "").await), ["a"]);
}

/// The future is dropped after the claim was made and before its answer was taken, for leases and for autoAck.
#[tokio::test]
async fn a_claim_whose_answer_is_dropped_is_given_back() {
    let api = Api::memory();
    let mut queues = 0;
    for query in [
        "batch=2",
        "batch=2&autoAck=true",
        "batch=1&consumerGroup=g&subscriptionMode=all",
    ] {
        for pause in [0, 1, 30] {
            let number = loop {
                queues += 1;
                let queue = format!("q{queues}");
                for txn in ["a", "b"] {
                    api.push(&queue, "p", txn).await;
                }
                let mut pop = pin!(api.pop(&queue, query));
                // One look starts the request; the broker then claims without anybody waiting for it.
                if pop
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_pending()
                {
                    std::thread::sleep(Duration::from_millis(pause));
                    break queues;
                }
                // The answer was there already, so nothing could be dropped: once more.
            };
            sleep(BRIEF).await;
            let group = if query.contains("consumerGroup") {
                "consumerGroup=g&subscriptionMode=all"
            } else {
                ""
            };
            assert_eq!(
                txns(&api.pop(&format!("q{number}"), group).await),
                ["a", "b"],
                "{query}, {pause} ms"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn close_ends_parked_polls_and_refuses_the_rest() {
    let api = Api::memory();
    let polls: Vec<_> = (0..20)
        .map(|_| park(&api, "q", "wait=true&timeout=30000"))
        .collect();
    sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    let broker = api.0.clone();
    tokio::task::spawn_blocking(move || {
        broker.close();
        broker.close();
    })
    .await
    .unwrap();
    for poll in polls {
        assert!(poll.await.unwrap().0.is_null());
    }
    assert!(began.elapsed() < Duration::from_secs(2));
    let (status, answer) = api.send("GET", "/health", Value::Null).await;
    assert_eq!(
        (status, &answer["error"]),
        (503, &Value::from("broker is closed"))
    );
}
