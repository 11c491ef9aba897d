//! What the broker tells of itself: resources, status, analytics. The numbers must be those of what was done.

mod common;

use common::{Api, txns};
use serde_json::{Value, json};

const OF_G: &str = "batch=1&consumerGroup=g&subscriptionMode=all";

async fn get(api: &Api, target: &str) -> Value {
    let (status, body) = api
        .send("GET", &format!("/api/v1/{target}"), Value::Null)
        .await;
    assert_eq!(status, 200, "{target}: {body}");
    body
}

/// The entry of a list whose field has that value.
fn entry<'a>(list: &'a Value, field: &str, value: &str) -> &'a Value {
    let found = list.as_array().unwrap().iter().find(|e| e[field] == value);
    found.unwrap_or_else(|| panic!("no {value} in {list}"))
}

/// Queue `shop.mail`: partition a has one finished, one leased and one open message, b has one dead letter; queue
/// `shop.news` has two open messages and nobody reads them.
async fn shop() -> Api {
    let api = Api::memory();
    api.configure(
        "shop.mail",
        json!({"namespace": "shop", "task": "mail", "retryLimit": 0}),
    )
    .await;
    for txn in ["a1", "a2", "a3"] {
        api.push("shop.mail", "a", txn).await;
    }
    api.push("shop.mail", "b", "b1").await;
    for txn in ["n1", "n2"] {
        api.push("shop.news", "Default", txn).await;
    }
    let part = |part: &str| format!("shop.mail/partition/{part}");
    let dead = api.pop(&part("b"), OF_G).await;
    assert_eq!(txns(&dead), ["b1"]);
    api.ack(&dead, "failed").await;
    let done = api.pop(&part("a"), OF_G).await;
    api.ack(&done, "completed").await;
    let leased = api.pop(&part("a"), OF_G).await;
    assert_eq!(txns(&leased), ["a2"]);
    api
}

/// Counting so many partitions takes long enough for its counts to be told again.
#[tokio::test]
async fn lists_have_the_queues_of_now_however_old_their_counts_are() {
    let api = Api::memory();
    for first in (0..20_000).step_by(1000) {
        let item = |n: usize| json!({"queue": "large", "partition": n.to_string(), "payload": n});
        let items: Vec<Value> = (first..first + 1000).map(item).collect();
        let pushed = api.send("POST", "/api/v1/push", json!({ "items": items }));
        assert_eq!(pushed.await.0, 201);
    }
    api.push("gone", "a", "1").await;
    api.configure("moved", json!({"namespace": "here"})).await;
    let old = get(&api, "resources/queues").await;
    entry(&old["queues"], "name", "gone");

    api.push("young", "a", "1").await;
    api.configure("moved", json!({"namespace": "there"})).await;
    api.send("DELETE", "/api/v1/resources/queues/gone", Value::Null)
        .await;
    let now = get(&api, "resources/queues").await;
    let queues = now["queues"].as_array().unwrap();
    let names: Vec<&Value> = queues.iter().map(|queue| &queue["name"]).collect();
    assert_eq!(names, ["large", "moved", "young"]);
    let moved = entry(&now["queues"], "name", "moved");
    assert_eq!(moved["namespace"], "there");
    let young = entry(&now["queues"], "name", "young");
    assert_eq!(young["messages"]["total"], 1);
    let spaces = get(&api, "resources/namespaces").await;
    entry(&spaces["namespaces"], "namespace", "there");
}

#[tokio::test]
async fn lists_tell_what_queues_hold() {
    let api = shop().await;
    let queues = get(&api, "resources/queues").await;
    let mail = entry(&queues["queues"], "name", "shop.mail");
    assert_eq!(
        mail["messages"],
        json!({"total": 4, "pending": 1, "processing": 1})
    );
    assert_eq!(
        (&mail["partitions"], &mail["segments"]["messages"]),
        (&json!(2), &json!(4))
    );
    let news = entry(&queues["queues"], "name", "shop.news");
    assert_eq!(
        news["messages"],
        json!({"total": 2, "pending": 2, "processing": 0})
    );
    let cached = get(&api, "resources/queues?stats=cached").await;
    assert!(cached["queues"][0].get("segments").is_none());

    let spaces = get(&api, "resources/namespaces").await;
    let shop = entry(&spaces["namespaces"], "namespace", "shop");
    assert_eq!(shop["messages"], json!({"total": 6, "pending": 3}));
    assert_eq!(
        (&shop["queues"], &shop["partitions"]),
        (&json!(2), &json!(3))
    );
    let tasks = get(&api, "resources/tasks").await;
    assert_eq!(
        entry(&tasks["tasks"], "task", "news")["messages"]["total"],
        2
    );

    let all = get(&api, "resources/overview").await;
    assert_eq!(
        all["messages"],
        json!({"total": 6, "pending": 3, "processing": 1, "completed": 2, "failed": null, "deadLetter": 1})
    );
    assert_eq!((&all["namespaces"], &all["tasks"]), (&json!(1), &json!(2)));
    assert_eq!(all["lag"]["offset"]["max"], 2);
    assert!(
        all["throughput"]["ingestedPerSecond"].as_f64().unwrap() > 0.0,
        "{all}"
    );
}

#[tokio::test]
async fn depth_is_that_of_a_group_or_of_the_slowest() {
    let api = shop().await;
    let other = "consumerGroup=other&subscriptionMode=all&batch=10&partitions=5&autoAck=true";
    api.pop("shop.mail", other).await;
    let depth = |query: &'static str| get(&api, query);
    let slowest = depth("resources/queues/shop.mail/depth").await;
    let parts = json!([{"partition": "a", "pending": 2}, {"partition": "b", "pending": 0}]);
    assert_eq!(slowest["partitions"], parts);
    assert_eq!(
        (&slowest["pending"], &slowest["group"]),
        (&json!(2), &Value::Null)
    );
    assert_eq!(
        depth("resources/queues/shop.mail/depth?group=other").await["pending"],
        0
    );
    assert_eq!(
        depth("resources/queues/shop.mail/depth?group=g").await["partitionsPending"],
        1
    );
    assert_eq!(
        depth("resources/queues/shop.mail/depth?group=nobody").await["pending"],
        4
    );
    let unknown = api
        .send("GET", "/api/v1/resources/queues/none/depth", Value::Null)
        .await;
    assert_eq!(unknown, (404, json!({"error": "Queue not found"})));
}

#[tokio::test]
async fn status_and_analytics_count_what_was_done() {
    let api = shop().await;
    assert!(api.pop("shop.news", "consumerGroup=late").await.is_null());
    let status = get(&api, "status").await;
    let last = &status["throughput"][0];
    assert_eq!(status["messages"]["requests"]["push"], 6);
    assert_eq!(status["messages"]["deadLetter"], 1);
    assert_eq!(
        (
            &status["leases"]["active"],
            &status["errors"]["dlqMessages"]
        ),
        (&json!(1), &json!(1))
    );
    assert!(
        last["ingested"].as_u64().unwrap() > 0 && last["timestamp"].is_string(),
        "{last}"
    );
    let news = get(&api, "status?queue=shop.news").await;
    assert_eq!(news["messages"]["requests"]["push"], 2);
    assert_eq!(news["messages"]["total"], 2);

    let workers = get(&api, "analytics/worker-metrics").await;
    let summary = &workers["summary"];
    assert_eq!(
        (&summary["totalPushMessages"], &summary["totalPopMessages"]),
        (&json!(6), &json!(3))
    );
    assert_eq!(summary["totalAckMessages"], 2, "{summary}");
    let sum = |list: &Value, queue: &str, field: &str| -> u64 {
        let own = list
            .as_array()
            .unwrap()
            .iter()
            .filter(|e| e["queueName"] == queue);
        own.map(|e| e[field].as_u64().unwrap()).sum()
    };
    let operations = get(&api, "analytics/queue-ops").await;
    assert_eq!(sum(&operations["series"], "shop.news", "popEmpty"), 1);
    assert_eq!(
        sum(&operations["series"], "shop.mail", "partitionsCreated"),
        2
    );
    let lag = get(&api, "analytics/queue-lag").await;
    assert_eq!(sum(&lag, "shop.mail", "popCount"), 3);
    for (interval, points) in [("minute", 1441), ("hour", 25), ("day", 2)] {
        let chart = get(&api, &format!("status/analytics?interval={interval}")).await;
        let pushed = chart["dataPoints"].as_array().unwrap();
        assert_eq!(
            (&chart["interval"], pushed.len()),
            (&json!(interval), points)
        );
        let pushed = pushed.iter().map(|p| p["messages"].as_u64().unwrap());
        assert_eq!(pushed.sum::<u64>(), 6, "{interval}");
    }
    assert_eq!(get(&api, "status/analytics").await["interval"], "hour");
    let past = get(
        &api,
        "status?from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z",
    )
    .await;
    assert_eq!(
        (&past["pointCount"], &past["bucketMinutes"]),
        (&json!(0), &json!(60))
    );
    let bytes = get(&api, "analytics/system-metrics").await;
    let bytes = &bytes["replicas"][0]["timeSeries"][0]["metrics"]["memory"]["rss_bytes"]["last"];
    assert!(bytes.as_u64().unwrap() > 1 << 20, "{bytes}");
    for (query, field) in [
        ("from=soon", "from"),
        ("to=later", "to"),
        ("from=2026-01-02&to=2026-01-01", "from"),
    ] {
        let (status, body) = api
            .send("GET", &format!("/api/v1/status?{query}"), Value::Null)
            .await;
        assert_eq!(status, 400, "{query}");
        assert!(body["error"].as_str().unwrap().contains(field), "{body}");
    }
}

#[tokio::test]
async fn a_queue_is_told_with_its_partitions() {
    let api = shop().await;
    let queue = get(&api, "status/queues/shop.mail").await;
    assert_eq!(queue["totals"]["messages"]["completed"], 2);
    assert_eq!(queue["queue"]["config"]["retryLimit"], 0);
    let a = entry(&queue["partitions"], "name", "a");
    assert_eq!(a["cursor"]["totalConsumed"], 1);
    assert!(
        a["oldestMessage"].is_string() && a["stats"]["processing"] == 1,
        "{a}"
    );
    let b = entry(&queue["partitions"], "name", "b");
    assert_eq!(
        (&b["stats"]["deadLetter"], &b["oldestMessage"]),
        (&json!(1), &Value::Null)
    );
    let request = http::Request::get("/metrics/prometheus");
    let text = api
        .0
        .handle(request.body(bytes::Bytes::new()).unwrap())
        .await;
    let text = String::from_utf8(text.into_body().to_vec()).unwrap();
    for line in [
        "queen_messages 6",
        "queen_dead_letters 1",
        "queen_group_lag{queue=\"shop.mail\",group=\"g\"} 2",
    ] {
        assert!(text.lines().any(|told| told == line), "{line}: {text}");
    }
    for (filter, found) in [
        ("queue=shop.mail", 1),
        ("namespace=shop", 2),
        ("task=nope", 0),
    ] {
        let page = get(&api, &format!("status/queues?{filter}")).await;
        assert_eq!(page["queues"].as_array().unwrap().len(), found, "{filter}");
    }
    let page = get(&api, "status/queues?limit=1&offset=1").await;
    assert_eq!(page["queues"][0]["name"], "shop.news");
    assert_eq!(page["pagination"], json!({"limit": 1, "offset": 1}));
    assert_eq!(page["queues"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn dead_letters_stay_counted_after_a_restart_and_a_replay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let count = |queue: Value| queue["totals"]["deadLetter"].clone();
    let api = Api::file(&path);
    for txn in ["a", "b"] {
        api.push("q", "p", txn).await;
    }
    let delivery = api.pop("q", "batch=1").await;
    api.ack(&delivery, "dlq").await;
    let delivery = api.pop("q", "batch=1").await;
    api.ack(&delivery, "dlq").await;
    assert_eq!(count(api.describe("q").await), 2);
    api.0.close();
    let api = Api::file(&path);
    assert_eq!(count(api.describe("q").await), 2);
    let part = delivery["partitionId"].as_str().unwrap();
    let target = format!("/api/v1/messages/{part}/b/retry");
    assert_eq!(api.send("POST", &target, Value::Null).await.0, 200);
    assert_eq!(count(api.describe("q").await), 1);
}

#[tokio::test]
async fn waiting_pops_are_told() {
    let api = Api::memory();
    api.push("q", "p", "a").await;
    api.pop("q", "autoAck=true").await;
    let waiting = {
        let api = api.clone();
        tokio::spawn(async move { api.pop("q", "wait=true&timeout=60000").await })
    };
    loop {
        let parked = get(&api, "analytics/queue-parked-replicas").await;
        if parked["series"] != json!([]) {
            assert_eq!(entry(&parked["series"], "queueName", "q")["parkedCount"], 1);
            break;
        }
        tokio::task::yield_now().await;
    }
    api.push("q", "p", "b").await;
    assert_eq!(txns(&waiting.await.unwrap()), ["b"]);
}

#[tokio::test]
async fn what_is_not_served_is_no_route() {
    let api = Api::memory();
    for (method, target) in [
        ("GET", "/api/v1/analytics/postgres-stats"),
        ("GET", "/api/v1/system/kv-timers"),
        ("GET", "/api/v1/system/ephemeral"),
        ("POST", "/api/v1/kv"),
        ("GET", "/api/v1/kv/ns/key"),
        ("POST", "/api/v1/timers"),
        ("POST", "/api/v1/locks"),
        ("POST", "/api/v1/ephemeral/push"),
        ("GET", "/api/v1/ephemeral/pop"),
        ("POST", "/api/v1/fetch"),
        ("POST", "/api/v1/partitions/changed"),
        ("POST", "/streams/v1/queries"),
        ("POST", "/streams/v1/cycle"),
        ("POST", "/streams/v1/state/get"),
        ("GET", "/auth/me"),
        ("GET", "/"),
    ] {
        let answer = api.send(method, target, Value::Null).await;
        let gone = json!({"error": "Not Found", "code": "no_such_route"});
        assert_eq!(answer, (404, gone), "{method} {target}");
    }
}
