//! Retention, and groups as a whole: seek, delete, list.

mod common;

use std::time::{Duration, Instant};

use common::{Api, txns};
use serde_json::{Value, json};

async fn post(api: &Api, target: &str, body: Value) -> Value {
    let (status, answer) = api.send("POST", target, body).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// Waits until the sweep has left so many messages in a queue.
async fn until_left(api: &Api, queue: &str, left: i64) {
    let began = Instant::now();
    while api.describe(queue).await["segments"]["messages"] != left {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "nothing was swept"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Difference B8, and what an emptied partition must remember.
#[tokio::test]
async fn a_swept_partition_keeps_its_end_and_its_transaction_ids() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q.db");
    let api = Api::fast_file(&path);
    api.configure(
        "q",
        json!({"retentionEnabled": true, "retentionSeconds": 1}),
    )
    .await;
    let item = json!({"items": [{"queue": "q", "transactionId": "a", "payload": 1}]});
    let (_, first) = api.send("POST", "/api/v1/push", item.clone()).await;
    let delivery = api.pop("q", "consumerGroup=g&subscriptionMode=all").await;
    assert_eq!(txns(&delivery), ["a"]);
    until_left(&api, "q", 0).await;
    api.0.close();
    let api = Api::fast_file(&path);
    let (_, again) = api.send("POST", "/api/v1/push", item).await;
    assert_eq!(again[0]["status"], "duplicate");
    assert_eq!(again[0]["message_id"], first[0]["message_id"]);
    let acked = api.ack(&delivery, "completed").await;
    assert_eq!(
        acked[0]["success"], false,
        "the lease ended with its messages: {acked}"
    );
    api.configure("q", json!({})).await;
    api.push("q", "Default", "b").await;
    for group in ["g", "late"] {
        let query = format!("consumerGroup={group}&subscriptionMode=all&batch=1");
        assert_eq!(txns(&api.pop("q", &query).await), ["b"], "{group}");
    }
    let stats = &api.describe("q").await["totals"];
    assert_eq!(
        (&stats["total"], &stats["completed"]),
        (&json!(1), &json!(0))
    );
}

/// The transaction id of a removed message serves duplicate detection and nothing else.
#[tokio::test]
async fn what_retention_removed_is_not_listed_though_its_transaction_id_is_known() {
    let api = Api::memory();
    api.configure(
        "q",
        json!({"retentionEnabled": true, "retentionSeconds": 1}),
    )
    .await;
    api.push("q", "p", "old").await;
    let list = async || {
        let (status, found) = api
            .send("GET", "/api/v1/messages?queue=q", Value::Null)
            .await;
        assert_eq!(status, 200, "{found}");
        found
    };
    let shown = list().await;
    assert_eq!(txns(&shown), ["old"]);
    let part = shown["messages"][0]["partitionId"].as_str().unwrap();
    until_left(&api, "q", 0).await;
    let (_, again) = api
        .send(
            "POST",
            "/api/v1/push",
            json!({"items": [{"queue": "q", "partition": "p", "transactionId": "old", "payload": 1}]}),
        )
        .await;
    assert_eq!(again[0]["status"], "duplicate", "{again}");
    assert_eq!(list().await["messages"], json!([]));
    let one = format!("/api/v1/messages/{part}/old");
    assert_eq!(api.send("GET", &one, Value::Null).await.0, 404);
}

/// A sweep over many messages goes in small steps, each in a transaction of its own: what is pushed meanwhile waits for
/// one of them at most.
#[tokio::test]
async fn a_sweep_does_not_hold_up_pushes() {
    let api = Api::testing();
    let items: Vec<Value> = (0..500)
        .map(|n| json!({"queue": "old", "payload": n}))
        .collect();
    for _ in 0..100 {
        api.send("POST", "/api/v1/push", json!({"items": items}))
            .await;
    }
    api.configure("old", json!({"maxWaitTimeSeconds": 1})).await;
    let segments = api.describe("old").await["segments"]["segments"].as_u64();
    let before = api.clock().work();
    api.clock().advance_clock(Duration::from_secs(60)).await;
    let after = api.clock().work();
    assert_eq!(api.describe("old").await["segments"]["messages"], 0);
    // Each look of the sweep at the partition removes eight segments or fewer, and no transaction has two of them.
    let looks = after.partitions - before.partitions;
    assert!(looks >= segments.unwrap() / 8, "{looks} for {segments:?}");
    assert!(
        after.rounds - before.rounds >= looks,
        "{before:?} {after:?}"
    );
}

/// Difference B10: a seek in one partition shows at once, whatever lease there was.
#[tokio::test]
async fn a_seek_ends_the_lease_and_wakes_who_waits() {
    let api = Api::memory();
    api.push("q", "p", "a").await;
    let query = "consumerGroup=g&subscriptionMode=all";
    assert_eq!(txns(&api.pop("q", query).await), ["a"]);
    let waiting = {
        let api = api.clone();
        tokio::spawn(async move { api.pop("q", "consumerGroup=g&wait=true&timeout=5000").await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    let target = "/api/v1/consumer-groups/g/queues/q/partitions/p/seek";
    post(&api, target, json!({"timestamp": "1970-01-01T00:00:00Z"})).await;
    assert_eq!(txns(&waiting.await.unwrap()), ["a"]);
}

#[tokio::test]
async fn a_deleted_group_starts_again_as_its_next_pop_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q.db");
    let api = Api::fast_file(&path);
    api.push("q", "p", "old").await;
    assert!(
        api.pop("q", "consumerGroup=g&subscriptionMode=new")
            .await
            .is_null()
    );
    api.push("q", "p", "a").await;
    assert_eq!(
        txns(&api.pop("q", "consumerGroup=g&autoAck=true").await),
        ["a"]
    );
    // The pop that waits is the next pop of the group: it keeps what it asked for.
    let waiting = {
        let api = api.clone();
        tokio::spawn(async move {
            api.pop(
                "q",
                "consumerGroup=g&subscriptionMode=new&wait=true&timeout=5000&autoAck=true",
            )
            .await
        })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (_, deleted) = api
        .send("DELETE", "/api/v1/consumer-groups/g", Value::Null)
        .await;
    assert_eq!(deleted["deletedPartitions"], 1);
    api.push("q", "p", "b").await;
    assert_eq!(txns(&waiting.await.unwrap()), ["b"]);
    // Without its cursors it is gone from the list, over a restart too, but begins where it was registered.
    let target = "/api/v1/consumer-groups/g/queues/q?deleteMetadata=false";
    api.send("DELETE", target, Value::Null).await;
    api.push("q", "p", "c").await;
    api.0.close();
    let api = Api::fast_file(&path);
    let (_, list) = api
        .send("GET", "/api/v1/consumer-groups", Value::Null)
        .await;
    assert_eq!(list, json!([]));
    let delivery = api
        .pop("q", "consumerGroup=g&subscriptionMode=all&batch=9")
        .await;
    assert_eq!(txns(&delivery), ["b", "c"]);
}

#[tokio::test]
async fn a_later_beginning_counts_for_what_the_group_has_not_met() {
    let api = Api::memory();
    api.push("ns.a", "p", "a").await;
    let find = "/api/v1/pop?namespace=ns&consumerGroup=g";
    assert_eq!(api.send("GET", find, Value::Null).await.0, 204);
    let target = "/api/v1/consumer-groups/g/subscription";
    let moved = post(
        &api,
        target,
        json!({"subscriptionTimestamp": "2020-01-01T00:00:00Z"}),
    )
    .await;
    assert_eq!(moved["rowsUpdated"], 1);
    assert_eq!(
        api.send("GET", find, Value::Null).await.0,
        204,
        "no cursor moves"
    );
    api.send(
        "DELETE",
        "/api/v1/consumer-groups/g?deleteMetadata=0",
        Value::Null,
    )
    .await;
    let (_, delivery) = api.send("GET", find, Value::Null).await;
    assert_eq!(txns(&delivery), ["a"]);
}

#[tokio::test]
async fn groups_tell_what_they_have_done_and_how_far_behind_they_are() {
    let api = Api::memory();
    for n in 0..3 {
        api.push("q", "p", &n.to_string()).await;
    }
    let delivery = api
        .pop("q", "consumerGroup=g&subscriptionMode=all&batch=2")
        .await;
    api.ack(&delivery, "completed").await;
    let (_, list) = api
        .send("GET", "/api/v1/consumer-groups", Value::Null)
        .await;
    assert_eq!(
        (&list[0]["state"], &list[0]["totalLag"]),
        (&json!("Stable"), &json!(1))
    );
    let (_, details) = api
        .send("GET", "/api/v1/consumer-groups/g", Value::Null)
        .await;
    let partition = &details["q"]["partitions"][0];
    assert_eq!(
        (&partition["totalConsumed"], &partition["leaseActive"]),
        (&json!(2), &json!(false))
    );
    let (_, late) = api
        .send(
            "GET",
            "/api/v1/consumer-groups/lagging?minLagSeconds=0",
            Value::Null,
        )
        .await;
    assert_eq!(
        (&late[0]["consumer_group"], &late[0]["offset_lag"]),
        (&json!("g"), &json!(1))
    );
}
