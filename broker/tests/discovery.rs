//! Pops by namespace and task, batches that fill, and queues that are full.

mod common;

use std::time::{Duration, Instant};

use common::{Api, txns};
use serde_json::{Value, json};

async fn find(api: &Api, query: &str) -> Value {
    let (status, body) = api
        .send("GET", &format!("/api/v1/pop?{query}"), Value::Null)
        .await;
    assert!(status == 200 || status == 204, "{status} {body}");
    body
}

#[tokio::test]
async fn a_waiting_search_is_woken_by_a_push_to_a_queue_that_is_new() {
    let api = Api::memory();
    for query in ["namespace=shop", "task=mail", "namespace=shop&task=mail"] {
        let began = Instant::now();
        let waiting = {
            let api = api.clone();
            let query = format!("{query}&consumerGroup=g&wait=true&timeout=5000&autoAck=true");
            tokio::spawn(async move { find(&api, &query).await })
        };
        tokio::time::sleep(Duration::from_millis(50)).await;
        let queue = format!("shop.mail.{}", query.len());
        api.push(&queue, "p", query.split('=').next().unwrap())
            .await;
        let delivery = waiting.await.unwrap();
        assert_eq!(delivery["messages"].as_array().unwrap().len(), 1, "{query}");
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{query} was polled"
        );
    }
}

#[tokio::test]
async fn one_lease_covers_partitions_of_several_queues() {
    let api = Api::memory();
    for queue in ["ns.a", "ns.b", "ns.c"] {
        api.push(queue, "p", queue).await;
    }
    let delivery = find(&api, "namespace=ns&partitions=3&batch=10").await;
    let mut got = txns(&delivery);
    got.sort_unstable();
    assert_eq!(got, ["ns.a", "ns.b", "ns.c"]);
    assert_eq!(delivery["partitionsClaimed"], 3);
    let lease = delivery["leaseId"].as_str().unwrap();
    let (_, extended) = api
        .send(
            "POST",
            &format!("/api/v1/lease/{lease}/extend"),
            json!({"seconds": 9}),
        )
        .await;
    assert_eq!(extended["renewed"], 3);
    let acked = api.ack(&delivery, "completed").await;
    assert!(
        acked
            .as_array()
            .unwrap()
            .iter()
            .all(|a| a["success"] == true)
    );
    assert!(find(&api, "namespace=ns").await.is_null());
}

#[tokio::test]
async fn searches_go_round_the_queues() {
    let api = Api::memory();
    for n in 0..3 {
        for queue in ["ns.a", "ns.b", "ns.c"] {
            api.push(queue, &format!("p{n}"), &format!("{queue}{n}"))
                .await;
        }
    }
    let mut served = Vec::new();
    for _ in 0..3 {
        let delivery = find(&api, "namespace=ns&batch=1&autoAck=true").await;
        served.push(txns(&delivery)[0][..4].to_owned());
    }
    served.sort();
    assert_eq!(served, ["ns.a", "ns.b", "ns.c"]);
}

/// Difference B1: where a group began to search outlives the broker.
#[tokio::test]
async fn a_queue_that_came_while_the_broker_was_down_or_nobody_looked_is_read_from_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q.db");
    let api = Api::file(&path);
    api.push("ns.old", "p", "before").await;
    assert!(find(&api, "namespace=ns&consumerGroup=g").await.is_null());
    api.0.close();
    let api = Api::file(&path);
    api.push("ns.new", "p", "after").await;
    let delivery = find(&api, "namespace=ns&consumerGroup=g").await;
    assert_eq!(txns(&delivery), ["after"]);
}

#[tokio::test]
async fn a_queue_moves_between_namespaces() {
    let api = Api::memory();
    api.push("q", "p", "a").await;
    api.configure("q", json!({"namespace": "other"})).await;
    assert!(find(&api, "namespace=q").await.is_null());
    assert_eq!(txns(&find(&api, "namespace=other").await), ["a"]);
    api.send("DELETE", "/api/v1/resources/queues/q", Value::Null)
        .await;
    assert!(find(&api, "namespace=other").await.is_null());
}

#[tokio::test]
async fn a_batch_that_fills_is_served_before_the_wait_is_over() {
    let api = Api::memory();
    api.configure("q", json!({"minPopWaitTime": 5000})).await;
    api.push("q", "p", "a").await;
    let began = Instant::now();
    let waiting = {
        let api = api.clone();
        tokio::spawn(async move { api.pop("q", "batch=2&wait=true&timeout=9000").await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    // A pop of one behind it is not held up, and what it takes counts as gone.
    assert_eq!(
        txns(
            &api.pop("q", "batch=1&wait=true&timeout=1000&autoAck=true")
                .await
        ),
        ["a"]
    );
    api.push("q", "p", "b").await;
    api.push("q", "p", "c").await;
    assert_eq!(txns(&waiting.await.unwrap()), ["b", "c"]);
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_batch_that_does_not_fill_is_served_at_the_end_of_the_poll() {
    let api = Api::memory();
    api.configure("q", json!({"minPopWaitTime": 5000})).await;
    api.push("q", "p", "a").await;
    let began = Instant::now();
    let delivery = api.pop("q", "batch=2&wait=true&timeout=300").await;
    assert_eq!(txns(&delivery), ["a"]);
    assert!(began.elapsed() >= Duration::from_millis(290));
}

/// Difference A4: `maxSize` counts what the slowest group was not given yet.
#[tokio::test]
async fn a_full_queue_refuses_items_and_opens_when_its_slowest_group_moves_on() {
    let api = Api::memory();
    api.configure("q", json!({"maxSize": 2})).await;
    let push = async |txns: &[&str]| -> Vec<String> {
        let items: Vec<Value> = txns
            .iter()
            .map(|txn| json!({"queue": "q", "partition": txn, "transactionId": txn, "payload": 1}))
            .collect();
        let (status, answer) = api
            .send("POST", "/api/v1/push", json!({"items": items}))
            .await;
        assert_eq!(status, 201);
        let told = answer.as_array().unwrap().iter();
        told.map(|item| item["status"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(push(&["a", "b", "c"]).await, ["queued", "queued", "failed"]);
    assert_eq!(push(&["a", "c"]).await, ["duplicate", "failed"]);
    api.pop(
        "q",
        "consumerGroup=fast&subscriptionMode=all&partitions=2&autoAck=true",
    )
    .await;
    assert_eq!(push(&["c"]).await, ["queued"], "one group has taken all");
    api.pop("q", "consumerGroup=slow&subscriptionMode=all&autoAck=true")
        .await;
    assert_eq!(push(&["d"]).await, ["failed"], "the other one has two left");
    api.configure("q", json!({"maxSize": 3})).await;
    assert_eq!(push(&["d"]).await, ["queued"]);
}
