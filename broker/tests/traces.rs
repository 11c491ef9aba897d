//! Traces, pops that are paused, and numbers.

mod common;

use std::time::{Duration, Instant};

use common::{Api, txns};
use serde_json::{Value, json};

#[tokio::test]
async fn traces_outlive_the_broker_and_keep_their_data_letter_by_letter() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q.db");
    let api = Api::file(&path);
    api.push("q", "p", "a").await;
    let delivery = api.pop("q", "").await;
    let part = delivery["partitionId"].as_str().unwrap();
    let data = r#"{ "b":1.0, "a":123456789012345678901234567890 }"#;
    let body = format!(
        r#"{{"transactionId":"a","partitionId":"{part}","traceNames":["x","x"],"data":{data}}}"#
    );
    let request = http::Request::post("/api/v1/traces")
        .body(body.into())
        .unwrap();
    assert_eq!(api.0.handle(request).await.status(), 201);
    api.0.close();
    let api = Api::file(&path);
    for target in [
        format!("/api/v1/traces/{part}/a"),
        "/api/v1/traces/by-name/x".into(),
    ] {
        let request = http::Request::get(&target)
            .body(Default::default())
            .unwrap();
        let answer = api.0.handle(request).await.into_body();
        let text = std::str::from_utf8(&answer).unwrap();
        assert!(
            text.contains(&format!(r#""data":{data}"#)),
            "{target}: {text}"
        );
    }
    let (_, names) = api.send("GET", "/api/v1/traces/names", Value::Null).await;
    let counts = (&names["trace_names"][0]["trace_count"], &names["total"]);
    assert_eq!(counts, (&json!(1), &json!(1)));
    // A trace of a queue that is gone is still found by its message, not by its name.
    api.send("DELETE", "/api/v1/resources/queues/q", Value::Null)
        .await;
    let (_, named) = api
        .send("GET", "/api/v1/traces/by-name/x", Value::Null)
        .await;
    assert_eq!(named["total"], 0);
    let (_, own) = api
        .send("GET", &format!("/api/v1/traces/{part}/a"), Value::Null)
        .await;
    assert_eq!(own["traces"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_name_that_is_no_text_is_told() {
    let api = Api::memory();
    let part = "00000000-0000-7000-8000-000000000000";
    let body = json!({"transactionId": "a", "partitionId": part, "data": 1, "traceNames": [7]});
    let (status, answer) = api.send("POST", "/api/v1/traces", body).await;
    let told = (status, answer["error"].as_str().unwrap());
    assert_eq!(told, (400, "bad body: traceNames must be strings, not 7"));
}

#[tokio::test]
async fn a_pause_ends_the_polls_that_wait_and_is_over_when_it_is_over() {
    let api = Api::memory();
    let began = Instant::now();
    let waiting = {
        let api = api.clone();
        tokio::spawn(async move { api.pop("q", "wait=true&timeout=9000").await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    let pause = async |enabled: bool| {
        let target = "/api/v1/system/maintenance/pop";
        let (status, state) = api.send("POST", target, json!({"enabled": enabled})).await;
        assert_eq!(
            (status, &state["popMaintenanceMode"]),
            (200, &json!(enabled))
        );
    };
    pause(true).await;
    assert!(waiting.await.unwrap().is_null());
    assert!(began.elapsed() < Duration::from_secs(5));
    api.push("q", "p", "a").await;
    assert!(api.pop("q", "wait=true&timeout=9000").await.is_null());
    pause(false).await;
    assert_eq!(txns(&api.pop("q", "wait=true&timeout=9000").await), ["a"]);
    let target = "/api/v1/system/maintenance/pop";
    let (status, answer) = api.send("POST", target, json!({"enabled": 1})).await;
    assert_eq!(
        (status, &answer["error"]),
        (400, &json!("enabled (boolean) is required"))
    );
}

#[tokio::test]
async fn numbers_are_told_as_json_and_as_prometheus_text() {
    let api = Api::memory();
    for txn in ["a", "b"] {
        api.push("q\"1", "p", txn).await;
    }
    let (status, _) = api
        .send(
            "GET",
            "/api/v1/pop/queue/q%221?consumerGroup=g&subscriptionMode=all&batch=1&autoAck=true",
            Value::Null,
        )
        .await;
    assert_eq!(status, 200);
    let (_, numbers) = api.send("GET", "/metrics", Value::Null).await;
    assert_eq!(
        (
            &numbers["messages"]["stored"],
            &numbers["requests"]["total"]
        ),
        (&json!(2), &json!(4))
    );
    let request = http::Request::get("/metrics/prometheus")
        .body(Default::default())
        .unwrap();
    let text = api.0.handle(request).await.into_body();
    let text = std::str::from_utf8(&text).unwrap();
    for line in [
        "queen_messages 2",
        "queen_requests_total 5",
        r#"queen_group_lag{queue="q\"1",group="g"} 1"#,
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is missing in {text}"
        );
    }
}
