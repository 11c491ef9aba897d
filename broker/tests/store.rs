//! What a store file keeps, who may open it, and that commits are shared.

mod common;

use std::sync::Arc;

use common::{Api, ack_of, txns};
use queen_broker::{Broker, Durability, OpenError, Options, Store};
use serde_json::{Value, json};

fn open(path: &std::path::Path) -> Result<Broker, OpenError> {
    Broker::open(Options {
        store: Store::File(path.into()),
        ..Options::default()
    })
}

#[tokio::test]
async fn a_restart_keeps_messages_cursors_leases_and_groups() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let api = Api::file(&path);
    api.configure("q", json!({"retryLimit": 1, "leaseTime": 77}))
        .await;
    for txn in ["a", "b", "c", "d"] {
        api.push("q", "p", txn).await;
    }
    api.pop("q", "consumerGroup=late").await;
    api.ack(&api.pop("q", "batch=1").await, "completed").await;
    api.ack(&api.pop("q", "batch=1").await, "failed").await;
    let held = api.pop("q", "batch=2").await;
    let before = api.describe("q").await;
    api.0.close();

    let api = Api::file(&path);
    assert_eq!(api.describe("q").await, before);
    assert!(api.pop("q", "").await.is_null(), "the lease is still held");
    let items =
        json!({"items": [{"queue": "q", "partition": "p", "payload": 0, "transactionId": "a"}]});
    assert_eq!(
        api.send("POST", "/api/v1/push", items).await.1[0]["status"],
        "duplicate"
    );
    // The retry count was kept: this is the second failure of b.
    let (_, answer) = api
        .send(
            "POST",
            "/api/v1/ack",
            ack_of(&held["messages"][0], "failed"),
        )
        .await;
    assert_eq!(answer[0]["dlq"], true);
    assert_eq!(txns(&api.pop("q", "").await), ["c", "d"]);
    assert!(
        api.pop("q", "consumerGroup=late").await.is_null(),
        "the group stays at the end"
    );
    api.push("q", "p", "e").await;
    assert_eq!(txns(&api.pop("q", "consumerGroup=late").await), ["e"]);
    let (_, page) = api.send("GET", "/api/v1/dlq", Value::Null).await;
    assert_eq!(page["messages"][0]["transactionId"], "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_pushes_share_commits() {
    let folder = tempfile::tempdir().unwrap();
    let api = Api::file(&folder.path().join("store.db"));
    let mut pushes = Vec::new();
    for n in 0..400 {
        let api = api.clone();
        pushes.push(tokio::spawn(async move {
            api.push("q", "p", &n.to_string()).await
        }));
    }
    for push in pushes {
        push.await.unwrap();
    }
    // The pushes of one commit to one partition lie in one segment.
    let queue = api.describe("q").await;
    assert_eq!(queue["segments"]["messages"], 400);
    assert!(
        queue["segments"]["segments"].as_i64().unwrap() < 200,
        "{}",
        queue["segments"]
    );
}

/// Also the first one, with which the memory of a partition begins.
#[tokio::test]
async fn the_messages_of_a_push_to_one_partition_share_a_segment() {
    let api = Api::testing();
    for segments in 1..4 {
        let item = json!({"queue": "q", "payload": 1});
        let push = json!({"items": [item, item, item]});
        api.send("POST", "/api/v1/push", push).await;
        assert_eq!(api.describe("q").await["segments"]["segments"], segments);
    }
    assert_eq!(api.clock().disagreements().await, [""; 0]);
}

/// A failing request fails alone: those that shared its transaction are tried again, and what the broker holds in memory
/// agrees with the store afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_request_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    open(&path).unwrap().close();
    let trap = "CREATE TRIGGER trap BEFORE INSERT ON segment WHEN instr(NEW.body, 'poison') \
                BEGIN SELECT RAISE(ABORT, 'trapped'); END";
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(trap)
        .unwrap();
    let api = Api::file(&path);
    let waiting = api.clone();
    let parked = tokio::spawn(async move { waiting.pop("other", "wait=true&timeout=10000").await });
    let mut pushes = Vec::new();
    for n in 0..100 {
        let api = api.clone();
        pushes.push(tokio::spawn(async move {
            let payload = if n % 10 == 3 { "poison" } else { "fine" };
            let queue = if n == 50 { "other" } else { "q" };
            let item = json!({"queue": queue, "transactionId": n.to_string(), "payload": payload});
            let (status, answer) = api
                .send("POST", "/api/v1/push", json!({"items": [item]}))
                .await;
            assert_eq!(
                status,
                if payload == "poison" { 500 } else { 201 },
                "{answer}"
            );
            if status == 500 {
                assert!(
                    answer["error"].as_str().unwrap().contains("trapped"),
                    "{answer}"
                );
            }
        }));
    }
    for push in pushes {
        push.await.unwrap();
    }
    assert_eq!(txns(&parked.await.unwrap()), ["50"]);
    let delivery = api.pop("q", "batch=200").await;
    assert_eq!(txns(&delivery).len(), 89);
    assert!(
        api.ack(&delivery, "completed")
            .await
            .as_array()
            .unwrap()
            .iter()
            .all(|a| a["success"] == true)
    );
    assert!(api.pop("q", "").await.is_null());
}

#[tokio::test]
async fn every_durability_works() {
    let folder = tempfile::tempdir().unwrap();
    for durability in [Durability::Full, Durability::Normal, Durability::Memory] {
        let path = folder.path().join(format!("{durability:?}.db"));
        let options = Options {
            store: Store::File(path),
            durability,
            ..Options::default()
        };
        for txn in ["a", "b"] {
            let api = Api(Broker::open(options.clone()).unwrap());
            api.push("q", "p", txn).await;
            api.0.close();
        }
        let api = Api(Broker::open(options).unwrap());
        assert_eq!(txns(&api.pop("q", "").await), ["a", "b"]);
    }
    assert_eq!("normal".parse(), Ok(Durability::Normal));
    assert!(
        "often"
            .parse::<Durability>()
            .unwrap_err()
            .contains("\"often\"")
    );
}

#[test]
fn a_broker_needs_no_runtime_to_open_and_close() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    open(&path).unwrap().close();
    drop(open(&path).unwrap());
    open(&path).unwrap().close();
}

#[tokio::test]
async fn a_token_guards_everything_but_health_and_metrics() {
    let options = Options {
        tokens: vec!["s3cret".into()],
        ..Options::default()
    };
    let broker = Arc::new(Broker::open(options).unwrap());
    let call = |target: &str, token: Option<&str>| {
        let mut request = http::Request::get(target);
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let request = request.body(Default::default()).unwrap();
        let broker = broker.clone();
        async move { broker.handle(request).await.status().as_u16() }
    };
    for public in ["/health", "/metrics", "/metrics/prometheus"] {
        assert_eq!(call(public, None).await, 200, "{public}");
        assert_eq!(call(public, Some("Bearer wrong")).await, 200, "{public}");
    }
    for guarded in ["/status", "/health/", "/metrics/other", "/api/v1/dlq"] {
        assert_eq!(call(guarded, None).await, 401, "{guarded}");
    }
    assert_eq!(call("/api/v1/pop/queue/q", None).await, 401);
    assert_eq!(call("/api/v1/pop/queue/q", Some("Bearer wrong")).await, 401);
    assert_eq!(
        call("/api/v1/pop/queue/q", Some("Bearer s3cret")).await,
        204
    );
    assert_eq!(call("/api/v1/pop/queue/q", Some("s3cret")).await, 204);
}
