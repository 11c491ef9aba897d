//! Transactions, single messages, dead letters and their replay.

mod common;

use common::{Api, ack_of, txns};
use serde_json::{Value, json};

async fn transact(api: &Api, operations: Value) -> Value {
    let (status, answer) = api
        .send(
            "POST",
            "/api/v1/transaction",
            json!({"operations": operations}),
        )
        .await;
    assert_eq!(status, 200, "{answer}");
    answer
}

fn ack_operation(delivery: &Value, index: usize, status: &str) -> Value {
    let mut ack = ack_of(&delivery["messages"][index], status);
    ack["type"] = json!("ack");
    ack["consumerGroup"] = delivery["consumerGroup"].clone();
    ack
}

fn push_operation(queue: &str, txn: &str) -> Value {
    json!({"type": "push", "queue": queue, "transactionId": txn, "payload": txn})
}

/// Difference B13: the text of a payload is not touched.
#[tokio::test]
async fn payloads_of_a_transaction_come_back_letter_by_letter() {
    let api = Api::memory();
    let payload = r#"{ "b":1.0,  "a" : 123456789012345678901234567890, "a":"\u00e9é" }"#;
    let body = format!(
        r#"{{"operations":[{{"type":"push","queue":"q","payload":{payload}}},{{"type":"push","queue":"q","payload":null}}]}}"#
    );
    let request = http::Request::post("/api/v1/transaction")
        .body(body.into())
        .unwrap();
    assert_eq!(api.0.handle(request).await.status(), 200);
    let request = http::Request::get("/api/v1/pop/queue/q?batch=2")
        .body(Default::default())
        .unwrap();
    let answer = api.0.handle(request).await.into_body();
    let text = std::str::from_utf8(&answer).unwrap();
    assert!(text.contains(&format!(r#""data":{payload},"#)), "{text}");
    assert!(text.contains(r#""data":null,"#), "{text}");
}

#[tokio::test]
async fn nothing_of_a_refused_transaction_happens() {
    let api = Api::memory();
    for txn in ["a", "b"] {
        api.push("in", "p", txn).await;
    }
    api.push("out", "Default", "taken").await;
    let delivery = api.pop("in", "batch=2").await;
    let good = [
        ack_operation(&delivery, 0, "completed"),
        push_operation("new", "n"),
    ];
    let mut wrong_lease = ack_operation(&delivery, 1, "completed");
    wrong_lease["leaseId"] = json!("00000000-0000-7000-8000-000000000000");
    let mut unknown = ack_operation(&delivery, 1, "completed");
    unknown["transactionId"] = json!("never pushed");
    let mut stranger = ack_operation(&delivery, 1, "completed");
    stranger["consumerGroup"] = json!("nobody");
    for (bad, reason) in [
        (wrong_lease, "ack_rejected"),
        (unknown, "ack_rejected"),
        (stranger, "ack_rejected"),
        (push_operation("out", "taken"), "duplicate"),
    ] {
        let mut operations = good.to_vec();
        operations.push(bad);
        let answer = transact(&api, json!(operations)).await;
        assert_eq!(
            (&answer["success"], &answer["reason"]),
            (&json!(false), &json!(reason))
        );
        assert_eq!(answer["results"], json!([]));
    }
    let (status, _) = api
        .send("GET", "/api/v1/resources/queues/new", Value::Null)
        .await;
    assert_eq!(status, 404, "the queue was not made");
    let acked = api.ack(&delivery, "completed").await;
    assert_eq!(
        (&acked[0]["noop"], &acked[1]["noop"]),
        (&json!(false), &json!(false))
    );
}

#[tokio::test]
async fn acks_of_several_partitions_and_pushes_happen_together() {
    let api = Api::memory();
    for part in ["a", "b"] {
        api.push("in", part, part).await;
    }
    let delivery = api.pop("in", "batch=2&partitions=2").await;
    let answer = transact(
        &api,
        json!([
            ack_operation(&delivery, 0, "completed"),
            push_operation("out", "o"),
            ack_operation(&delivery, 1, "failed"),
        ]),
    )
    .await;
    let kinds: Vec<&str> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        (answer["success"].clone(), kinds),
        (json!(true), vec!["ack", "push", "ack"])
    );
    assert_eq!(txns(&api.pop("out", "").await), ["o"]);
    let again = api.pop("in", "batch=2&partitions=2").await;
    assert_eq!(
        txns(&again),
        [delivery["messages"][1]["transactionId"].as_str().unwrap()]
    );
}

#[tokio::test]
async fn a_transaction_that_does_not_fit_is_refused_as_a_whole() {
    let api = Api::memory();
    api.configure("q", json!({"maxSize": 2})).await;
    let three = json!([
        push_operation("q", "a"),
        push_operation("q", "b"),
        push_operation("q", "c")
    ]);
    let answer = transact(&api, three).await;
    assert_eq!(answer["reason"], "queue_full");
    assert_eq!(
        answer["error"],
        "queue \"q\" is full: maxSize 2; transaction rolled back"
    );
    let twice = json!([
        push_operation("q", "a"),
        push_operation("q", "b"),
        push_operation("q", "a")
    ]);
    let answer = transact(&api, twice).await;
    assert_eq!(answer["results"][2]["duplicate"], true);
    assert_eq!(txns(&api.pop("q", "batch=9").await), ["a", "b"]);
}

#[tokio::test]
async fn riders_of_a_later_milestone_are_refused_loudly() {
    let api = Api::memory();
    for name in ["kv", "timers"] {
        let body = json!({"operations": [push_operation("q", "a")], name: [{"op": "get"}]});
        let (status, answer) = api.send("POST", "/api/v1/transaction", body).await;
        assert_eq!((status, &answer["reason"]), (400, &json!("bad_request")));
    }
    assert!(api.pop("q", "").await.is_null());
}

#[tokio::test]
async fn a_replay_keeps_the_payload_and_finds_its_way_into_a_full_queue() {
    let api = Api::memory();
    api.configure("q", json!({"maxSize": 1, "retryLimit": 0}))
        .await;
    let payload = r#"{"n": 1.0}"#;
    let body =
        format!(r#"{{"items":[{{"queue":"q","transactionId":"bad/one","payload":{payload}}}]}}"#);
    let request = http::Request::post("/api/v1/push")
        .body(body.into())
        .unwrap();
    api.0.handle(request).await;
    let delivery = api.pop("q", "").await;
    api.ack(&delivery, "failed").await;
    api.push("q", "other", "fills").await;
    let part = delivery["partitionId"].as_str().unwrap();
    let target = format!("/api/v1/messages/{part}/bad%2Fone");
    let (_, message) = api.send("GET", &target, Value::Null).await;
    assert_eq!(
        (&message["status"], &message["retryCount"]),
        (&json!("dead_letter"), &json!(0))
    );
    let (status, answer) = api
        .send("POST", &format!("{target}/retry"), Value::Null)
        .await;
    assert_eq!(status, 200, "{answer}");
    let request = http::Request::get("/api/v1/pop/queue/q/partition/Default")
        .body(Default::default())
        .unwrap();
    let body = api.0.handle(request).await.into_body();
    let text = std::str::from_utf8(&body).unwrap();
    assert!(text.contains(&format!(r#""data":{payload},"#)), "{text}");
    let (status, _) = api
        .send("POST", &format!("{target}/retry"), Value::Null)
        .await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn messages_are_listed_by_what_the_groups_have_done() {
    let dir = tempfile::tempdir().unwrap();
    let api = Api::fast_file(&dir.path().join("q.db"));
    for n in 0..4 {
        api.push("ns.task.q", "p", &format!("m{n}")).await;
    }
    api.pop(
        "ns.task.q",
        "consumerGroup=a&subscriptionMode=all&batch=3&autoAck=true",
    )
    .await;
    api.pop(
        "ns.task.q",
        "consumerGroup=b&subscriptionMode=all&batch=1&autoAck=true",
    )
    .await;
    let list = async |query: &str| {
        let (status, answer) = api
            .send("GET", &format!("/api/v1/messages?{query}"), Value::Null)
            .await;
        assert_eq!(status, 200);
        answer
    };
    assert_eq!(txns(&list("namespace=ns").await), ["m3", "m2", "m1", "m0"]);
    assert_eq!(txns(&list("task=task&status=completed").await), ["m0"]);
    assert_eq!(
        txns(&list("queue=ns.task.q&status=pending&limit=2").await),
        ["m3", "m2"]
    );
    let pending = list("queue=ns.task.q&partition=p&status=pending&limit=1&offset=1").await;
    assert_eq!(
        pending["messages"][0]["busStatus"],
        json!({"consumedBy": 1, "totalGroups": 2})
    );
    assert_eq!(pending["mode"]["type"], "bus");
    assert_eq!(
        list("queue=ns.task.q&to=2000-01-01T00:00:00Z").await["total"],
        0
    );
    let (status, answer) = api
        .send("GET", "/api/v1/messages?from=soon", Value::Null)
        .await;
    assert_eq!(
        (status, &answer["error"]),
        (400, &json!("from \"soon\" is not an ISO-8601 time"))
    );
}
