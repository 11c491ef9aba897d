//! The list of dead letters, and giving one message another chance.

mod common;

use common::{Api, txns};
use serde_json::{Value, json};

/// Gives up all messages of a partition for a group.
async fn give_up(api: &Api, queue: &str, part: &str, group: &str) {
    let query = format!("batch=100&consumerGroup={group}&subscriptionMode=all");
    let target = format!("/api/v1/pop/queue/{queue}/partition/{part}?{query}");
    loop {
        let (status, delivery) = api.send("GET", &target, Value::Null).await;
        if status == 204 {
            return;
        }
        api.ack(&delivery, "dlq").await;
    }
}

/// The transaction ids that the list tells for a query, newest first.
async fn list(api: &Api, query: &str) -> Vec<String> {
    let target = format!("/api/v1/dlq?{query}");
    let (status, body) = api.send("GET", &target, Value::Null).await;
    assert_eq!(status, 200, "{query}: {body}");
    txns(&body).into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_list_can_be_narrowed_and_paged() {
    let api = Api::memory();
    for (queue, part, txn) in [("q", "a", "1"), ("q", "b", "2"), ("r", "a", "3")] {
        api.push(queue, part, txn).await;
        give_up(&api, queue, part, "g").await;
    }
    give_up(&api, "q", "a", "h").await;
    assert_eq!(list(&api, "").await, ["1", "3", "2", "1"]);
    assert_eq!(list(&api, "queue=q").await, ["1", "2", "1"]);
    assert_eq!(list(&api, "queue=q&partition=a").await, ["1", "1"]);
    assert_eq!(list(&api, "partition=a&consumerGroup=g").await, ["3", "1"]);
    assert_eq!(list(&api, "consumerGroup=h").await, ["1"]);
    assert_eq!(list(&api, "limit=2&offset=1").await, ["3", "2"]);
    assert!(list(&api, "queue=none").await.is_empty());

    let (_, all) = api.send("GET", "/api/v1/dlq", Value::Null).await;
    let failed = |n: usize| all["messages"][n]["failedAt"].as_str().unwrap();
    assert_eq!(list(&api, &format!("to={}", failed(2))).await, ["2", "1"]);
    assert_eq!(list(&api, &format!("from={}", failed(1))).await, ["1", "3"]);
    let both = format!("from={}&to={}", failed(2), failed(1));
    assert_eq!(list(&api, &both).await, ["3", "2"]);
    assert!(list(&api, "to=2020-01-01T00:00:00Z").await.is_empty());
    for field in ["from", "to"] {
        let target = format!("/api/v1/dlq?{field}=yesterday-ish");
        let (status, body) = api.send("GET", &target, Value::Null).await;
        assert_eq!(status, 400);
        let error = body["error"].as_str().unwrap();
        assert!(
            error.contains(field) && error.contains("yesterday-ish"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn one_message_gets_another_chance() {
    let api = Api::memory();
    for txn in ["1", "2"] {
        api.push("q", "p", txn).await;
    }
    give_up(&api, "q", "p", "g").await;
    let (_, all) = api.send("GET", "/api/v1/dlq", Value::Null).await;
    let part = all["messages"][0]["partitionId"].as_str().unwrap();
    let retry = |txn: &str| format!("/api/v1/messages/{part}/{txn}/retry");
    let (status, answer) = api.send("POST", &retry("2"), Value::Null).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(list(&api, "").await, ["1"]);
    let id = &answer["replayedAs"]["message_id"];
    let delivery = api.pop("q", "consumerGroup=g").await;
    assert_eq!(&delivery["messages"][0]["id"], id);
    assert_eq!(delivery["messages"][0]["data"], json!({"txn": "2"}));
    for (target, wanted) in [
        (retry("2"), 404),
        (retry("none"), 404),
        ("/api/v1/messages/no-id/1/retry".into(), 400),
    ] {
        assert_eq!(
            api.send("POST", &target, Value::Null).await.0,
            wanted,
            "{target}"
        );
    }
    assert_eq!(list(&api, "").await, ["1"], "a miss removes nothing");
}
