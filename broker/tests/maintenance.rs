//! Push maintenance: what is taken meanwhile is kept, and reaches the log in its order.

mod common;

use common::{Api, txns};
use serde_json::{Value, json};

const ROUTE: &str = "/api/v1/system/maintenance";

async fn switch(api: &Api, on: bool) -> Value {
    let (status, state) = api.send("POST", ROUTE, json!({ "enabled": on })).await;
    assert_eq!((status, &state["maintenanceMode"]), (200, &json!(on)));
    state
}

async fn push(api: &Api, items: Value) -> Vec<Value> {
    let (status, answer) = api
        .send("POST", "/api/v1/push", json!({ "items": items }))
        .await;
    assert_eq!(status, 201, "{answer}");
    answer.as_array().unwrap().clone()
}

fn item(queue: &str, txn: &str) -> Value {
    json!({"queue": queue, "transactionId": txn, "payload": {"txn": txn}})
}

/// Waits until nothing is buffered any more.
async fn drained(api: &Api) {
    loop {
        let (_, state) = api.send("GET", ROUTE, Value::Null).await;
        if state["bufferedMessages"] == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn all(api: &Api, queue: &str) -> Value {
    api.pop(queue, "batch=100000&autoAck=true").await
}

#[tokio::test]
async fn what_is_buffered_survives_and_reaches_the_log_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let api = Api::file(&path);
    api.push("q", "Default", "before").await;
    switch(&api, true).await;
    let answers = push(
        &api,
        json!([item("q", "a"), item("new", "x"), item("q", "a")]),
    )
    .await;
    let minted = push(&api, json!([{"queue": "q", "payload": [1.50, "é"]}])).await;
    push(&api, json!([item("q", "before")])).await;
    for answer in answers.iter().chain(&minted) {
        assert_eq!(answer["status"], "buffered", "{answer}");
    }
    assert_eq!(minted[0]["transaction_id"], minted[0]["message_id"]);
    let (_, state) = api.send("GET", ROUTE, Value::Null).await;
    assert_eq!(state["bufferedMessages"], 5, "{state}");
    let unknown = api
        .send("GET", "/api/v1/resources/queues/new", Value::Null)
        .await;
    assert_eq!(unknown.0, 404, "a queue comes with its first message");
    assert_eq!(txns(&all(&api, "q").await), ["before"]);
    api.0.close();

    let api = Api::file(&path);
    drained(&api).await;
    let (_, state) = api.send("GET", ROUTE, Value::Null).await;
    assert_eq!(state["maintenanceMode"], false);
    let delivery = all(&api, "q").await;
    // The second `a` and the repeated `before` are duplicates.
    let own = minted[0]["message_id"].as_str().unwrap();
    assert_eq!(txns(&delivery), ["a", own]);
    assert_eq!(delivery["messages"][0]["id"], answers[0]["message_id"]);
    assert_eq!(delivery["messages"][1]["id"], own);
    assert_eq!(delivery["messages"][1]["data"], json!([1.5, "é"]));
    assert_eq!(txns(&all(&api, "new").await), ["x"]);
}

#[tokio::test]
async fn order_holds_while_the_buffer_empties() {
    let api = Api::memory();
    switch(&api, true).await;
    let mut wanted = Vec::new();
    for request in 0..30 {
        let names: Vec<String> = (0..200).map(|n| format!("{request}-{n}")).collect();
        push(&api, names.iter().map(|name| item("q", name)).collect()).await;
        wanted.extend(names);
    }
    // What comes before the last buffered message has moved must not overtake it.
    let late = async {
        let mut names = Vec::new();
        loop {
            names.push(format!("late-{}", names.len()));
            let answer = push(&api, json!([item("q", &names[names.len() - 1])])).await;
            if answer[0]["status"] == "queued" {
                return names;
            }
        }
    };
    let (_, late) = tokio::join!(switch(&api, false), late);
    wanted.extend(late);
    let delivery = all(&api, "q").await;
    assert_eq!(txns(&delivery), wanted);
}

#[tokio::test]
async fn a_waiting_pop_gets_what_was_buffered() {
    let api = Api::memory();
    switch(&api, true).await;
    let waiting = {
        let api = api.clone();
        tokio::spawn(async move { api.pop("q", "wait=true&timeout=60000").await })
    };
    push(&api, json!([item("q", "a")])).await;
    switch(&api, false).await;
    assert_eq!(txns(&waiting.await.unwrap()), ["a"]);
}

#[tokio::test]
async fn without_a_window_a_name_counts_once_in_each_request() {
    let api = Api::memory();
    api.configure("q", json!({"dedupWindowSeconds": 0})).await;
    switch(&api, true).await;
    push(&api, json!([item("q", "a"), item("q", "a")])).await;
    push(&api, json!([item("q", "a")])).await;
    switch(&api, false).await;
    drained(&api).await;
    assert_eq!(txns(&all(&api, "q").await), ["a", "a"]);
}

#[tokio::test]
async fn what_was_taken_is_let_in_where_the_queue_is_full() {
    let api = Api::memory();
    api.configure("q", json!({"maxSize": 1})).await;
    switch(&api, true).await;
    push(
        &api,
        json!([item("q", "a"), item("q", "b"), item("q", "c")]),
    )
    .await;
    switch(&api, false).await;
    drained(&api).await;
    let refused = push(&api, json!([item("q", "d")])).await;
    assert_eq!(refused[0]["status"], "failed", "{refused:?}");
    assert_eq!(txns(&all(&api, "q").await), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_transaction_goes_to_the_log_at_once() {
    let api = Api::memory();
    switch(&api, true).await;
    let mut operation = item("q", "a");
    operation["type"] = "push".into();
    let body = json!({ "operations": [operation] });
    let (_, answer) = api.send("POST", "/api/v1/transaction", body).await;
    assert_eq!(answer["success"], true, "{answer}");
    assert_eq!(txns(&all(&api, "q").await), ["a"]);
}

#[tokio::test]
async fn the_switch_wants_a_boolean() {
    let api = Api::memory();
    for body in [json!({}), json!({"enabled": "yes"}), json!([]), json!(null)] {
        let (status, answer) = api.send("POST", ROUTE, body.clone()).await;
        assert_eq!(status, 400, "{body}: {answer}");
    }
    let (_, state) = api.send("GET", ROUTE, Value::Null).await;
    assert_eq!(state["maintenanceMode"], false);
}
