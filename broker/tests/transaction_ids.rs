//! What transaction ids are known for and how long: before and after a restart, in memory and in the store.

mod common;

use std::path::Path;
use std::time::Duration;

use common::{Api, ack_of, txns};
use queen_broker::{Broker, Options, Store};
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_secs(3600);

fn open(path: &Path) -> Api {
    let options = Options {
        store: Store::File(path.into()),
        testing: true,
        ..Options::default()
    };
    Api(Broker::open(options).unwrap())
}

async fn push(api: &Api, txns: impl IntoIterator<Item = String>) -> Vec<String> {
    let item = |txn| json!({"queue": "q", "partition": "p", "transactionId": txn, "payload": 1});
    let items: Vec<Value> = txns.into_iter().map(item).collect();
    let (status, answer) = api
        .send("POST", "/api/v1/push", json!({"items": items}))
        .await;
    assert_eq!(status, 201, "{answer}");
    let status = |item: &Value| item["status"].as_str().unwrap().to_owned();
    answer.as_array().unwrap().iter().map(status).collect()
}

fn numbered(n: usize) -> impl Iterator<Item = String> {
    (0..n).map(|n| format!("t{n}"))
}

/// Acknowledges some messages with one request: whether each was found, and whether it was done before.
async fn ack(api: &Api, messages: &[Value]) -> Vec<(bool, bool)> {
    let acks: Vec<Value> = messages.iter().map(|m| ack_of(m, "completed")).collect();
    let body = json!({ "acknowledgments": acks });
    let (status, answer) = api.send("POST", "/api/v1/ack/batch", body).await;
    assert_eq!(status, 200, "{answer}");
    let found = |item: &Value| {
        (
            item["success"].as_bool().unwrap(),
            item["noop"].as_bool().unwrap(),
        )
    };
    answer.as_array().unwrap().iter().map(found).collect()
}

const DONE: (bool, bool) = (true, false);
const AGAIN: (bool, bool) = (true, true);
const UNKNOWN: (bool, bool) = (false, false);

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_no_duplicate_and_no_ack() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let api = open(&path);
    assert_eq!(push(&api, numbered(600)).await, ["queued"; 600]);
    let batch = api.pop("q", "batch=2").await["messages"].clone();
    let batch = batch.as_array().unwrap();
    assert_eq!(ack(&api, &batch[..1]).await, [DONE]);
    api.0.close();
    let api = open(&path);
    assert_eq!(ack(&api, batch).await, [AGAIN, DONE]);
    assert_eq!(
        push(&api, numbered(601)).await[598..],
        ["duplicate", "duplicate", "queued"]
    );
    // The window of deduplication ends for those that were there before the restart too.
    api.clock().advance_clock(HOUR).await;
    assert_eq!(push(&api, numbered(1)).await, ["queued"]);
    assert_eq!(push(&api, numbered(1)).await, ["duplicate"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_any_age_can_be_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let api = open(&path);
    push(&api, numbered(700)).await;
    api.0.close();
    let api = open(&path);
    // So old that a broker that starts now does not look at them.
    api.clock().advance_clock(24 * HOUR).await;
    let batch = api.pop("q", "batch=400").await["messages"].clone();
    let batch = batch.as_array().unwrap();
    assert_eq!(ack(&api, &batch[..150]).await, [DONE; 150]);
    for message in &batch[150..300] {
        assert_eq!(ack(&api, std::slice::from_ref(message)).await, [DONE]);
    }
    let mut stranger = batch[399].clone();
    stranger["transactionId"] = json!("t699");
    assert_eq!(
        ack(&api, &[stranger]).await,
        [UNKNOWN],
        "it was not delivered"
    );
    // A client that did not hear the answer asks once more.
    assert_eq!(ack(&api, &batch[100..200]).await, [AGAIN; 100]);
    assert_eq!(ack(&api, &batch[300..]).await, [DONE; 100]);
    assert_eq!(
        ack(&api, &batch[300..]).await,
        [UNKNOWN; 100],
        "the lease is over"
    );
    let rest = api.pop("q", "batch=400").await;
    assert_eq!(txns(&rest), numbered(700).skip(400).collect::<Vec<_>>());
    let answer = api.ack(&rest, "completed").await;
    assert!(
        answer
            .as_array()
            .unwrap()
            .iter()
            .all(|item| item["success"] == true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_came_twice_means_the_first_that_is_open() {
    let api = Api::testing();
    api.configure("q", json!({"dedupWindowSeconds": 0})).await;
    for txn in ["a", "x", "b", "x", "c", "x"] {
        push(&api, [txn.to_owned()]).await;
    }
    let batch = api.pop("q", "batch=5").await["messages"].clone();
    let batch = batch.as_array().unwrap();
    assert_eq!(ack(&api, &batch[1..2]).await, [DONE]);
    assert_eq!(ack(&api, &batch[1..2]).await, [DONE], "now the second one");
    // The third was not delivered yet, so the id leads to what is finished.
    assert_eq!(ack(&api, &batch[1..2]).await, [AGAIN]);
    assert_eq!(ack(&api, &batch[4..]).await, [DONE]);
    assert_eq!(txns(&api.pop("q", "").await), ["x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_window_reaches_back_to_what_was_out_of_the_old_one() {
    let api = Api::testing();
    api.configure("q", json!({"dedupWindowSeconds": 1})).await;
    assert_eq!(push(&api, numbered(1)).await, ["queued"]);
    api.clock().advance_clock(2 * HOUR).await;
    // Enough of them that the broker looks for what is too old.
    push(&api, (0..3000).map(|n| format!("u{n}"))).await;
    api.configure("q", json!({"dedupWindowSeconds": 3 * 3600}))
        .await;
    assert_eq!(push(&api, numbered(1)).await, ["duplicate"]);
    api.clock().advance_clock(4 * HOUR).await;
    assert_eq!(push(&api, numbered(1)).await, ["queued"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_shown_at_any_age() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let api = open(&path);
    api.configure("q", json!({"dedupWindowSeconds": 0})).await;
    push(&api, numbered(300)).await;
    let again = json!({"queue": "q", "partition": "p", "transactionId": "t0", "payload": 2});
    let (status, _) = api
        .send("POST", "/api/v1/push", json!({"items": [again]}))
        .await;
    assert_eq!(status, 201);
    let part = api.pop("q", "").await["partitionId"].clone();
    let part = part.as_str().unwrap();
    let show = async |api: &Api, txn: &str| {
        let target = format!("/api/v1/messages/{part}/{txn}");
        let (status, message) = api.send("GET", &target, Value::Null).await;
        (
            status,
            message["transactionId"].clone(),
            message["data"].clone(),
        )
    };
    let found = (200, json!("t7"), json!(1));
    let newest = (200, json!("t0"), json!(2));
    assert_eq!(show(&api, "t7").await, found);
    assert_eq!(show(&api, "t0").await, newest, "the second one");
    assert_eq!(show(&api, "t300").await.0, 404);
    api.0.close();
    let api = open(&path);
    api.clock().advance_clock(24 * HOUR).await;
    assert_eq!(show(&api, "t7").await, found);
    assert_eq!(show(&api, "t0").await, newest);
    assert_eq!(show(&api, "t300").await.0, 404);
}
