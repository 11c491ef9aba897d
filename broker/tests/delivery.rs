//! Order, leases, retries, duplicates, and where a group starts.

mod common;

use std::collections::HashSet;
use std::time::Duration;

use common::{Api, ack_of, txns};
use serde_json::{Value, json};

#[tokio::test]
async fn a_partition_keeps_its_order_across_pushes_and_pops() {
    let api = Api::memory();
    let names: Vec<String> = (0..1000).map(|n| format!("m{n}")).collect();
    for chunk in names.chunks(300) {
        let items: Vec<Value> = chunk
            .iter()
            .map(|txn| json!({"queue": "q", "payload": 1, "transactionId": txn}))
            .collect();
        assert_eq!(
            api.send("POST", "/api/v1/push", json!({"items": items}))
                .await
                .0,
            201
        );
    }
    let mut seen = Vec::new();
    loop {
        let delivery = api.pop("q", "batch=77").await;
        if delivery.is_null() {
            break;
        }
        seen.extend(txns(&delivery).into_iter().map(str::to_owned));
        api.ack(&delivery, "completed").await;
    }
    assert_eq!(seen, names);
}

#[tokio::test]
async fn payloads_come_back_letter_by_letter() {
    let api = Api::memory();
    let payload = r#"{ "b":1.0,  "a" : 123456789012345678901234567890, "a":"\u00e9é" }"#;
    let body = format!(r#"{{"items":[{{"queue":"q","payload":{payload}}}]}}"#);
    let request = http::Request::post("/api/v1/push")
        .body(body.into())
        .unwrap();
    assert_eq!(api.0.handle(request).await.status(), 201);
    let request = http::Request::get("/api/v1/pop/queue/q")
        .body(Default::default())
        .unwrap();
    let answer = api.0.handle(request).await.into_body();
    let text = std::str::from_utf8(&answer).unwrap();
    assert!(text.contains(&format!(r#""data":{payload},"#)), "{text}");
}

#[tokio::test]
async fn an_expired_lease_redelivers_and_is_refused() {
    let api = Api::memory();
    api.push("q", "p", "a").await;
    let first = api.pop("q", "leaseSeconds=1").await;
    assert_eq!(txns(&first), ["a"]);
    assert!(api.pop("q", "leaseSeconds=1").await.is_null());
    tokio::time::sleep(Duration::from_millis(1050)).await;
    let second = api.pop("q", "").await;
    assert_eq!(txns(&second), ["a"]);
    assert_ne!(first["leaseId"], second["leaseId"]);
    assert_eq!(
        api.ack(&first, "completed").await[0]["error"],
        "invalid or expired lease"
    );
    assert_eq!(api.ack(&second, "completed").await[0]["success"], true);
    assert!(api.pop("q", "").await.is_null());
}

#[tokio::test]
async fn duplicates_are_told_and_not_stored() {
    let api = Api::memory();
    api.push("q", "p", "a").await;
    let items = json!([
        {"queue": "q", "partition": "p", "transactionId": "a", "payload": 2},
        {"queue": "q", "partition": "p", "transactionId": "b", "payload": 3},
        {"queue": "q", "partition": "p", "transactionId": "b", "payload": 4},
        {"queue": "q", "partition": "other", "transactionId": "a", "payload": 5},
    ]);
    let (_, answer) = api
        .send("POST", "/api/v1/push", json!({"items": items}))
        .await;
    let told: Vec<&str> = answer
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["status"].as_str().unwrap())
        .collect();
    assert_eq!(told, ["duplicate", "queued", "duplicate", "queued"]);
    let delivery = api.pop("q/partition/p", "").await;
    assert_eq!(txns(&delivery), ["a", "b"]);
    assert_eq!(delivery["messages"][0]["id"], answer[0]["message_id"]);
}

#[tokio::test]
async fn the_last_retry_leaves_a_dead_letter_record() {
    let api = Api::memory();
    api.configure("q", json!({"retryLimit": 2})).await;
    api.push("q", "p", "bad").await;
    api.push("q", "p", "good").await;
    for round in 0..3 {
        let delivery = api.pop("q", "batch=1").await;
        assert_eq!(txns(&delivery), ["bad"], "round {round}");
        let mut ack = ack_of(&delivery["messages"][0], "failed");
        ack["error"] = json!(format!("boom {round}"));
        let (_, answer) = api.send("POST", "/api/v1/ack", ack).await;
        assert_eq!(answer[0]["dlq"], round == 2);
    }
    assert_eq!(txns(&api.pop("q", "batch=9").await), ["good"]);
    let (_, page) = api.send("GET", "/api/v1/dlq?queue=q", Value::Null).await;
    let record = &page["messages"][0];
    assert_eq!(page["total"], 1);
    assert_eq!(record["transactionId"], "bad");
    assert_eq!(record["data"], json!({"txn": "bad"}));
    assert_eq!(record["errorMessage"], "boom 2");
    assert_eq!(record["retryCount"], 2);
    assert_eq!(api.describe("q").await["totals"]["deadLetter"], 1);
}

#[tokio::test]
async fn without_dead_letters_the_message_is_dropped() {
    let api = Api::memory();
    let options = json!({"retryLimit": 0, "deadLetterQueue": false, "dlqAfterMaxRetries": false});
    api.configure("q", options).await;
    api.push("q", "p", "a").await;
    let delivery = api.pop("q", "").await;
    assert_eq!(api.ack(&delivery, "failed").await[0]["dlq"], false);
    assert!(api.pop("q", "").await.is_null());
    let (_, page) = api.send("GET", "/api/v1/dlq", Value::Null).await;
    assert_eq!(page["total"], 0);
}

/// Difference B4: progress clears the count of failures.
#[tokio::test]
async fn a_retry_count_ends_with_its_message() {
    let api = Api::memory();
    api.configure("q", json!({"retryLimit": 1})).await;
    for txn in ["a", "b"] {
        api.push("q", "p", txn).await;
    }
    api.ack(&api.pop("q", "batch=1").await, "failed").await;
    api.ack(&api.pop("q", "batch=1").await, "completed").await;
    let answer = api.ack(&api.pop("q", "batch=1").await, "failed").await;
    assert_eq!(answer[0]["dlq"], false, "the first failure of b");
    assert_eq!(
        api.ack(&api.pop("q", "batch=1").await, "failed").await[0]["dlq"],
        true
    );
}

/// Difference B2: an ack without a lease reaches what was delivered and no further.
#[tokio::test]
async fn an_ack_without_a_lease_stays_within_what_was_delivered() {
    let api = Api::memory();
    for txn in ["a", "b", "c"] {
        api.push("q", "p", txn).await;
    }
    let delivery = api.pop("q", "batch=2").await;
    let bare = |txn: &str| json!({"transactionId": txn, "partitionId": delivery["partitionId"]});
    let (_, beyond) = api.send("POST", "/api/v1/ack", bare("c")).await;
    assert_eq!(beyond[0]["success"], false);
    let (_, within) = api.send("POST", "/api/v1/ack", bare("b")).await;
    assert_eq!(within[0]["success"], true);
    let (_, never_delivered) = api.send("POST", "/api/v1/ack", bare("c")).await;
    assert_eq!(never_delivered[0]["success"], false);
    assert_eq!(txns(&api.pop("q", "").await), ["c"]);
}

/// Difference: `leaseReleased` is true when the lease is gone.
#[tokio::test]
async fn a_part_of_a_batch_keeps_the_lease() {
    let api = Api::memory();
    for txn in ["a", "b"] {
        api.push("q", "p", txn).await;
    }
    let delivery = api.pop("q", "batch=2").await;
    let ack = |n: usize| ack_of(&delivery["messages"][n], "completed");
    let (_, first) = api.send("POST", "/api/v1/ack", ack(0)).await;
    assert_eq!(
        (&first[0]["success"], &first[0]["leaseReleased"]),
        (&json!(true), &json!(false))
    );
    let (_, second) = api.send("POST", "/api/v1/ack", ack(1)).await;
    assert_eq!(second[0]["leaseReleased"], true);
}

/// Difference: `dlq` tells which message was dead-lettered.
#[tokio::test]
async fn dlq_is_said_of_the_dead_message_alone() {
    let api = Api::memory();
    for txn in ["a", "b"] {
        api.push("q", "p", txn).await;
    }
    let delivery = api.pop("q", "batch=2").await;
    let acks = json!([
        ack_of(&delivery["messages"][0], "completed"),
        ack_of(&delivery["messages"][1], "dlq")
    ]);
    let (_, answer) = api
        .send(
            "POST",
            "/api/v1/ack/batch",
            json!({"acknowledgments": acks}),
        )
        .await;
    assert_eq!(
        (&answer[0]["dlq"], &answer[1]["dlq"]),
        (&json!(false), &json!(true))
    );
}

/// Difference B5.
#[tokio::test]
async fn an_empty_queue_name_is_refused() {
    let api = Api::memory();
    let items = json!([{"queue": "ok", "payload": 1}, {"queue": "", "payload": 1}]);
    let (status, answer) = api
        .send("POST", "/api/v1/push", json!({"items": items}))
        .await;
    assert_eq!(
        (status, &answer["error"]),
        (400, &json!("bad body: items[1].queue is empty"))
    );
    assert_eq!(
        api.send("GET", "/api/v1/resources/queues/ok", Value::Null)
            .await
            .0,
        404,
        "nothing was stored"
    );
}

/// Difference B1: asking for a partition counts from that moment on, also across a restart and a waiting pop.
#[tokio::test]
async fn a_group_misses_nothing_that_comes_after_its_first_pop_of_a_partition() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.db");
    let api = Api::fast_file(&path);
    api.push("q", "old", "before").await;
    for target in ["q/partition/old", "q/partition/young", "later/partition/p"] {
        assert!(api.pop(target, "consumerGroup=g").await.is_null());
    }
    api.0.close();
    let api = Api::fast_file(&path);
    for (queue, part) in [("q", "old"), ("q", "young"), ("later", "p")] {
        api.push(queue, part, "after").await;
        assert_eq!(
            txns(
                &api.pop(&format!("{queue}/partition/{part}"), "consumerGroup=g")
                    .await
            ),
            ["after"]
        );
    }
    let waiting = api.clone();
    let pop = tokio::spawn(async move {
        waiting
            .pop("q/partition/new", "consumerGroup=g&wait=true")
            .await
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    api.push("q", "new", "woke").await;
    assert_eq!(txns(&pop.await.unwrap()), ["woke"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_of_one_queue_share_it_without_loss_or_repetition() {
    let api = Api::memory();
    let (parts, each) = (20, 50);
    let mut consumers = Vec::new();
    for _ in 0..8 {
        let api = api.clone();
        consumers.push(tokio::spawn(async move {
            let mut got: Vec<String> = Vec::new();
            loop {
                let delivery = api
                    .pop("q", "batch=7&partitions=3&wait=true&timeout=700")
                    .await;
                if delivery.is_null() {
                    return got;
                }
                got.extend(txns(&delivery).into_iter().map(str::to_owned));
                let answer = api.ack(&delivery, "completed").await;
                assert!(
                    answer
                        .as_array()
                        .unwrap()
                        .iter()
                        .all(|a| a["success"] == true),
                    "{answer}"
                );
            }
        }));
    }
    for n in 0..each {
        for part in 0..parts {
            api.push("q", &format!("p{part}"), &format!("p{part}-{n:03}"))
                .await;
        }
    }
    let mut all = HashSet::new();
    for consumer in consumers {
        let got = consumer.await.unwrap();
        // Each consumer sees the messages of a partition in order.
        for part in 0..parts {
            let prefix = format!("p{part}-");
            let own: Vec<&String> = got.iter().filter(|txn| txn.starts_with(&prefix)).collect();
            assert!(own.is_sorted());
        }
        for txn in got {
            assert!(all.insert(txn), "delivered twice");
        }
    }
    assert_eq!(all.len(), parts * each);
}

#[tokio::test]
async fn one_lease_covers_a_sweep_of_partitions() {
    let api = Api::memory();
    for part in ["a", "b", "c"] {
        api.push("q", part, part).await;
    }
    let delivery = api.pop("q", "batch=10&partitions=3").await;
    assert_eq!(delivery["partitionsClaimed"], 3);
    let lease = delivery["leaseId"].as_str().unwrap();
    let target = format!("/api/v1/lease/{lease}/extend");
    let (_, answer) = api.send("POST", &target, json!({"seconds": 90})).await;
    assert_eq!(answer["renewed"], 3);
    api.ack(&delivery, "retry").await;
    let (_, answer) = api.send("POST", &target, json!({})).await;
    assert_eq!(
        (&answer["success"], &answer["renewed"]),
        (&json!(false), &json!(0))
    );
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_by_name() {
    let api = Api::memory();
    let bad = |body: Value| {
        let api = api.clone();
        async move { api.send("POST", "/api/v1/configure", body).await }
    };
    let (status, answer) = bad(json!({"queue": "q", "options": {"leaseTime": "soon"}})).await;
    assert_eq!(status, 400);
    assert_eq!(
        answer["error"],
        "bad body: options.leaseTime must be a whole number, not \"soon\""
    );
    assert_eq!(
        bad(json!({"queue": 7})).await.1["error"],
        "bad body: queue must be a string, not 7"
    );
    assert_eq!(
        api.send("GET", "/api/v1/nothing", Value::Null).await.1["code"],
        "no_such_route"
    );

    let call = |method: &str, target: &str, body: Vec<u8>| {
        let request = http::Request::builder()
            .method(method)
            .uri(target)
            .body(body.into())
            .unwrap();
        let api = api.clone();
        async move { api.0.handle(request).await }
    };
    let wrong_method = call("GET", "/api/v1/push", Vec::new()).await;
    assert_eq!(
        (
            wrong_method.status().as_u16(),
            &wrong_method.headers()["allow"]
        ),
        (405, &"POST".parse().unwrap())
    );
    assert!(wrong_method.body().is_empty());
    let large = call("POST", "/api/v1/push", vec![b' '; (64 << 20) + 1]).await;
    assert_eq!(large.status(), 413);
    assert!(
        large.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    let not_utf8 = call(
        "POST",
        "/api/v1/push",
        b"{\"items\":[{\"queue\":\"q\",\"payload\":\"\xff\"}]}".into(),
    )
    .await;
    assert_eq!(not_utf8.status(), 400);
}

/// Clients learn by the missing echo that they get every message.
#[tokio::test]
async fn conflation_is_ignored_and_not_echoed() {
    let api = Api::memory();
    for txn in ["a", "b", "c"] {
        api.push("q", "p", txn).await;
    }
    let query = "consumerGroup=g&subscriptionMode=all&conflation=true&batch=9";
    let delivery = api.pop("q", query).await;
    assert_eq!(txns(&delivery), ["a", "b", "c"]);
    for echo in ["conflation", "conflationConflict", "conflated"] {
        assert_eq!(delivery.get(echo), None, "{delivery}");
    }
}
