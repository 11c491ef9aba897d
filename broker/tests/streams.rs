//! Streams: windows over source queues, with time in the hand of the test.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use common::Api;
use queen_broker::{Broker, Options, Store};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);

fn on_file(path: &Path) -> Api {
    let options = Options {
        store: Store::File(path.into()),
        testing: true,
        ..Options::default()
    };
    let api = Api(Broker::open(options).unwrap());
    api.clock().freeze_clock();
    api
}

/// A broker whose clock stands at the beginning of a window of ten seconds.
async fn at_a_full_ten() -> Api {
    let api = Api::testing();
    api.clock().freeze_clock();
    to_a_full_ten(&api).await;
    api
}

async fn to_a_full_ten(api: &Api) {
    let now: jiff::Timestamp = api.clock().now().parse().unwrap();
    let left = 10_000_000 - now.as_microsecond().rem_euclid(10_000_000);
    api.clock()
        .advance_clock(Duration::from_micros(left as u64))
        .await;
}

async fn post(api: &Api, route: &str, body: Value) -> (u16, Value) {
    api.send("POST", &format!("/api/v1/stream/{route}"), body)
        .await
}

/// Ten seconds, no grace period, unless told otherwise.
async fn define(api: &Api, name: &str, sources: &[&str], more: Value) {
    let mut body = json!({
        "name": name, "namespace": "n", "source_queue_names": sources,
        "window_duration_ms": 10_000, "window_grace_period_ms": 0,
    });
    let more = more.as_object().cloned().unwrap_or_default();
    body.as_object_mut().unwrap().extend(more);
    let (status, answer) = post(api, "define", body).await;
    assert_eq!(
        (status, &answer["success"]),
        (201, &json!(true)),
        "{answer}"
    );
}

async fn poll_for(api: &Api, stream: &str, group: &str, millis: u64) -> Value {
    let body = json!({"streamName": stream, "consumerGroup": group, "timeout": millis});
    let (status, answer) = post(api, "poll", body).await;
    match status {
        200 => answer["window"].clone(),
        204 => Value::Null,
        _ => panic!("{status} {answer}"),
    }
}

async fn poll(api: &Api, stream: &str) -> Value {
    poll_for(api, stream, "g", 0).await
}

async fn settle(api: &Api, window: &Value, success: bool) -> u16 {
    let body = json!({"leaseId": window["leaseId"], "success": success});
    post(api, "ack", body).await.0
}

fn texts(window: &Value) -> Vec<&str> {
    let messages = window["messages"].as_array().unwrap().iter();
    messages
        .map(|m| m["data"]["txn"].as_str().unwrap())
        .collect()
}

/// Begins a poll that waits, and makes sure that it does.
async fn park(
    api: &Api,
    stream: &'static str,
    group: &'static str,
    millis: u64,
) -> tokio::task::JoinHandle<Value> {
    let other = api.clone();
    let poll = tokio::spawn(async move { poll_for(&other, stream, group, millis).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!poll.is_finished());
    poll
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_follow_one_another_and_hold_each_message_once() {
    let api = at_a_full_ten().await;
    api.push("q", "a", "1").await;
    define(&api, "s", &["q"], Value::Null).await;
    api.push("q", "b", "2").await;
    api.clock().advance_clock(9 * SECOND).await;
    api.push("q", "a", "3").await;
    api.clock().advance_clock(SECOND).await;
    api.push("q", "a", "4").await;
    let first = poll(&api, "s").await;
    assert_eq!(texts(&first), ["1", "2", "3"]);
    assert_eq!(first["key"], "__GLOBAL__");
    let (start, end) = (&first["start"], &first["end"]);
    for time in [start, end, &first["messages"][0]["created_at"]] {
        let time = time.as_str().unwrap();
        assert!(
            time.len() == 27 && &time[10..11] == "T" && time.ends_with('Z'),
            "{time}"
        );
    }
    let id = first["id"].as_str().unwrap();
    let times = format!(
        ":__GLOBAL__:{}:{}",
        start.as_str().unwrap(),
        end.as_str().unwrap()
    );
    assert!(id.ends_with(&times), "{id}");
    // One at a time.
    assert!(poll(&api, "s").await.is_null());
    assert_eq!(settle(&api, &first, true).await, 200);
    assert_eq!(settle(&api, &first, true).await, 400);
    // No later message is needed to close the last one.
    assert!(poll(&api, "s").await.is_null());
    api.clock().advance_clock(10 * SECOND).await;
    let second = poll(&api, "s").await;
    assert_eq!((texts(&second), &second["start"]), (vec!["4"], end));
    settle(&api, &second, true).await;
    api.clock().advance_clock(60 * SECOND).await;
    assert!(poll(&api, "s").await.is_null(), "nothing has come since");
    // Pops of the queue see nothing of it.
    let popped = api.pop("q", "batch=10&partitions=2").await;
    assert_eq!(popped["messages"].as_array().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nack_and_a_lease_that_ends_bring_the_same_window_again() {
    let api = at_a_full_ten().await;
    api.push("q", "a", "1").await;
    define(&api, "s", &["q"], json!({"window_lease_timeout_ms": 5000})).await;
    api.clock().advance_clock(10 * SECOND).await;
    let first = poll(&api, "s").await;
    assert_eq!(settle(&api, &first, false).await, 200);
    let second = poll(&api, "s").await;
    assert_eq!(first["id"], second["id"]);
    assert_ne!(first["leaseId"], second["leaseId"]);
    let waiting = park(&api, "s", "g", 60_000).await;
    api.clock().advance_clock(5 * SECOND).await;
    let third = waiting.await.unwrap();
    assert_eq!(first["id"], third["id"]);
    assert_eq!(settle(&api, &second, true).await, 400, "it was superseded");
    let renew = async |body: Value| post(&api, "renew-lease", body).await;
    let (status, renewed) = renew(json!({"leaseId": third["leaseId"]})).await;
    assert_eq!(status, 200);
    let expires: jiff::Timestamp = renewed["lease_expires_at"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let now: jiff::Timestamp = api.clock().now().parse().unwrap();
    let left = expires.as_microsecond() - now.as_microsecond();
    assert!((29_000_000..=30_000_000).contains(&left), "{left}");
    api.clock().advance_clock(20 * SECOND).await;
    assert!(poll(&api, "s").await.is_null());
    // To renew may also shorten.
    let short = json!({"leaseId": third["leaseId"], "extend_ms": 1000});
    assert_eq!(renew(short).await.0, 200);
    api.clock().advance_clock(SECOND).await;
    let gone = json!({"error": "Lease not found or expired"});
    assert_eq!(
        renew(json!({"leaseId": third["leaseId"]})).await,
        (404, gone)
    );
    assert_eq!(poll(&api, "s").await["id"], first["id"]);
    assert_eq!(api.clock().disagreements().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_closes_after_the_grace_period_by_the_clock_or_strictly_by_what_comes() {
    let api = at_a_full_ten().await;
    api.push("q", "a", "1").await;
    let grace = |strict: bool| json!({"window_grace_period_ms": 3000, "strict_watermark": strict});
    define(&api, "loose", &["q"], grace(false)).await;
    define(&api, "strict", &["q"], grace(true)).await;
    let waiting = park(&api, "loose", "g", 60_000).await;
    api.clock().advance_clock(12 * SECOND).await;
    assert!(!waiting.is_finished());
    api.clock().advance_clock(SECOND).await;
    assert_eq!(texts(&waiting.await.unwrap()), ["1"]);
    assert!(poll(&api, "strict").await.is_null());
    let waiting = park(&api, "strict", "g", 60_000).await;
    api.push("q", "b", "2").await;
    assert_eq!(texts(&waiting.await.unwrap()), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_strict_watermark_is_that_of_the_slowest_source_that_ever_had_a_message() {
    let api = at_a_full_ten().await;
    for queue in ["q1", "q2", "never"] {
        api.configure(queue, json!({})).await;
    }
    api.push("q1", "a", "1").await;
    api.push("q2", "a", "2").await;
    define(
        &api,
        "s",
        &["q1", "q2", "never"],
        json!({"strict_watermark": true}),
    )
    .await;
    api.clock().advance_clock(10 * SECOND).await;
    api.push("q1", "a", "3").await;
    assert!(poll(&api, "s").await.is_null());
    api.push("q2", "other", "4").await;
    assert_eq!(texts(&poll(&api, "s").await), ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_of_one_name_are_one_key_and_keys_go_their_own_way() {
    let api = at_a_full_ten().await;
    api.push("q1", "A", "1").await;
    api.push("q2", "A", "2").await;
    api.push("q1", "B", "3").await;
    define(&api, "s", &["q1", "q2"], json!({"partitioned": true})).await;
    api.clock().advance_clock(10 * SECOND).await;
    let (one, two) = (poll(&api, "s").await, poll(&api, "s").await);
    assert_eq!((&one["key"], texts(&one)), (&json!("A"), vec!["1", "2"]));
    assert_eq!((&two["key"], texts(&two)), (&json!("B"), vec!["3"]));
    assert!(poll(&api, "s").await.is_null());
    settle(&api, &two, true).await;
    // A key that is new begins at its first message.
    api.push("q2", "C", "4").await;
    api.push("q2", "B", "5").await;
    api.clock().advance_clock(10 * SECOND).await;
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        let window = poll(&api, "s").await;
        seen.insert((window["key"].to_string(), texts(&window)[0].to_owned()));
    }
    let wanted = [("\"B\"", "5"), ("\"C\"", "4")].map(|(k, t)| (k.into(), t.into()));
    assert_eq!(seen, BTreeSet::from(wanted));
    // Another group begins at the beginning.
    assert_eq!(poll_for(&api, "s", "late", 0).await["id"], one["id"]);
    assert_eq!(api.clock().disagreements().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_windows_come_between_messages() {
    let api = at_a_full_ten().await;
    api.push("q", "a", "1").await;
    define(&api, "s", &["q"], Value::Null).await;
    api.clock().advance_clock(30 * SECOND).await;
    api.push("q", "a", "2").await;
    api.clock().advance_clock(10 * SECOND).await;
    let mut sizes = Vec::new();
    loop {
        let window = poll(&api, "s").await;
        if window.is_null() {
            break;
        }
        sizes.push(texts(&window).len());
        settle(&api, &window, true).await;
    }
    assert_eq!(sizes, [1, 0, 0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_waiting_poll_is_answered() {
    let api = at_a_full_ten().await;
    api.push("q", "a", "1").await;
    define(&api, "s", &["q"], Value::Null).await;
    let polls = [
        park(&api, "s", "g", 15_000).await,
        park(&api, "s", "g", 15_000).await,
        park(&api, "s", "other", 15_000).await,
    ];
    api.clock().advance_clock(10 * SECOND).await;
    api.clock().advance_clock(5 * SECOND).await;
    let mut answers = Vec::new();
    for poll in polls {
        answers.push(poll.await.unwrap().is_null());
    }
    assert_eq!(answers, [false, true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_nobody_waits_for_gives_its_window_back() {
    let api = at_a_full_ten().await;
    api.push("q", "a", "1").await;
    define(&api, "s", &["q"], Value::Null).await;
    let waiting = park(&api, "s", "g", 60_000).await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    api.clock().advance_clock(10 * SECOND).await;
    assert_eq!(texts(&poll(&api, "s").await), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seek_moves_every_key_also_of_partitioned_streams_and_ends_leases() {
    let api = at_a_full_ten().await;
    let began = api.clock().now();
    for partitioned in [false, true] {
        let (queue, stream) = (format!("q{partitioned}"), format!("s{partitioned}"));
        for (n, part) in ["a", "b"].iter().enumerate() {
            api.push(&queue, part, &n.to_string()).await;
        }
        define(
            &api,
            &stream,
            &[&queue],
            json!({"partitioned": partitioned}),
        )
        .await;
    }
    api.clock().advance_clock(10 * SECOND).await;
    for (stream, keys) in [("sfalse", 1), ("strue", 2)] {
        let seek = async |time: &str| {
            let body = json!({"streamName": stream, "consumerGroup": "g", "timestamp": time});
            assert_eq!(
                post(&api, "seek", body).await,
                (200, json!({"success": true}))
            );
        };
        let mut ids = BTreeSet::new();
        let mut last = Value::Null;
        for _ in 0..keys {
            last = poll(&api, stream).await;
            assert!(ids.insert(last["id"].as_str().unwrap().to_owned()));
        }
        assert!(poll(&api, stream).await.is_null());
        seek(&began).await;
        assert_eq!(
            settle(&api, &last, true).await,
            400,
            "its window was given up"
        );
        for _ in 0..keys {
            let again = poll(&api, stream).await;
            assert!(ids.remove(again["id"].as_str().unwrap()), "{stream}");
            settle(&api, &again, true).await;
        }
        // In the midst of a window: the windows begin there from then on.
        let middle: jiff::Timestamp = began.parse().unwrap();
        let middle = middle - Duration::from_millis(500);
        seek(&middle.to_string()).await;
        let shifted = poll(&api, stream).await;
        let start: jiff::Timestamp = shifted["start"].as_str().unwrap().parse().unwrap();
        assert_eq!(start, middle);
        seek("2099-01-01T00:00:00+02:00").await;
        assert!(poll(&api, stream).await.is_null());
    }
    assert_eq!(api.clock().disagreements().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let api = on_file(&path);
    to_a_full_ten(&api).await;
    for part in ["a", "b", "c"] {
        api.push("q", part, part).await;
    }
    define(
        &api,
        "s",
        &["q"],
        json!({"partitioned": true, "window_lease_timeout_ms": 3_600_000}),
    )
    .await;
    api.clock().advance_clock(10 * SECOND).await;
    let windows = [poll(&api, "s").await, poll(&api, "s").await];
    settle(&api, &windows[0], true).await;
    api.0.close();

    let api = on_file(&path);
    // The system's clock is behind now: what is pushed still falls into no window that was handed out.
    api.push("q", "a", "late").await;
    api.push("q", "b", "late").await;
    api.clock().advance_clock(10 * SECOND).await;
    let third = poll(&api, "s").await;
    assert_eq!(texts(&third), ["c"], "the others are done or out");
    assert_eq!(
        settle(&api, &windows[1], true).await,
        200,
        "its lease lives"
    );
    settle(&api, &third, true).await;
    api.clock().advance_clock(30 * SECOND).await;
    let mut late = Vec::new();
    for _ in 0..2 {
        let window = poll(&api, "s").await;
        assert_eq!(texts(&window), ["late"]);
        late.push(window["key"].as_str().unwrap().to_owned());
    }
    late.sort();
    assert_eq!(late, ["a", "b"]);
    assert_eq!(api.clock().disagreements().await, [""; 0]);
    api.0.close();
    let mut faults = Vec::new();
    queen_broker::check(&path, |fault| faults.push(fault.to_owned())).unwrap();
    assert_eq!(faults, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_replaced_and_its_sources_are_only_added() {
    let api = at_a_full_ten().await;
    api.push("q1", "a", "1").await;
    api.push("q2", "a", "2").await;
    define(&api, "s", &["q1"], Value::Null).await;
    define(&api, "s", &["q2"], json!({"window_duration_ms": 20_000})).await;
    let show = async |target: &str| api.send("GET", target, Value::Null).await;
    let (status, told) = show("/api/v1/resources/streams/s").await;
    assert_eq!(status, 200);
    assert_eq!(told["sourceQueues"], json!(["q1", "q2"]));
    assert_eq!(told["windowDurationMs"], 20_000);
    api.clock().advance_clock(20 * SECOND).await;
    let window = poll(&api, "s").await;
    assert_eq!(texts(&window).len(), 2);
    let (_, list) = show("/api/v1/resources/streams").await;
    let one = &list["streams"][0];
    assert_eq!(
        (&one["consumerGroups"], &one["activeLeases"]),
        (&json!(1), &json!(1))
    );
    settle(&api, &window, true).await;
    let (_, stats) = show("/api/v1/resources/streams/stats").await;
    assert_eq!(stats["totalWindowsProcessed"], 1);
    let (_, consumers) = show("/api/v1/resources/streams/s/consumers").await;
    let stand = &consumers["consumers"][0];
    assert_eq!(
        (&stand["consumerGroup"], &stand["leaseId"]),
        (&json!("g"), &Value::Null)
    );
    assert_eq!(stand["nextWindowStart"], window["end"]);
    // A queue that goes takes its place among the sources along.
    api.send("DELETE", "/api/v1/resources/queues/q1", Value::Null)
        .await;
    let (_, told) = show("/api/v1/resources/streams/s").await;
    assert_eq!(told["sourceQueues"], json!(["q2"]));
    let waiting = park(&api, "s", "g", 3_600_000).await;
    let gone = api
        .send("DELETE", "/api/v1/resources/streams/s", Value::Null)
        .await;
    assert_eq!(gone.0, 200);
    assert!(
        waiting.await.unwrap().is_null(),
        "nobody waits for what is gone"
    );
    let gone = api
        .send("DELETE", "/api/v1/resources/streams/s", Value::Null)
        .await;
    assert_eq!(gone, (404, json!({"error": "Stream not found"})));
    assert_eq!(show("/api/v1/resources/streams/s").await.0, 404);
    assert_eq!(api.clock().disagreements().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_refused_and_says_why() {
    let api = at_a_full_ten().await;
    let known = json!({"name": "s", "namespace": "n"});
    assert_eq!(post(&api, "define", known).await.0, 201);
    for (route, body, status, says) in [
        ("define", json!({}), 400, "Missing name or namespace"),
        (
            "define",
            json!({"name": "s", "namespace": "n", "window_duration_ms": "abc"}),
            400,
            "window_duration_ms",
        ),
        (
            "define",
            json!({"name": "s", "namespace": "n", "window_duration_ms": 0}),
            400,
            "window_duration_ms is 0",
        ),
        (
            "define",
            json!({"name": "s", "namespace": "n", "window_grace_period_ms": -1}),
            400,
            "window_grace_period_ms is -1",
        ),
        (
            "define",
            json!({"name": "s", "namespace": "n", "window_type": "sliding"}),
            400,
            "\"sliding\"",
        ),
        (
            "define",
            json!({"name": "s", "namespace": "n", "source_queue_names": ["none"]}),
            404,
            "\"none\" does not exist",
        ),
        (
            "poll",
            json!({"streamName": "s"}),
            400,
            "Missing streamName or consumerGroup",
        ),
        (
            "poll",
            json!({"streamName": "none", "consumerGroup": "g", "timeout": 0}),
            404,
            "Stream not found",
        ),
        (
            "poll",
            json!({"streamName": "s", "consumerGroup": "g", "timeout": "1"}),
            400,
            "timeout",
        ),
        (
            "poll",
            json!({"streamName": "s", "consumerGroup": "\u{1}"}),
            400,
            "U+0001",
        ),
        ("ack", json!({"success": true}), 400, "Missing leaseId"),
        (
            "ack",
            json!({"leaseId": "not-a-uuid"}),
            400,
            "Invalid or expired lease",
        ),
        (
            "ack",
            json!({"leaseId": uuid::Uuid::nil().to_string()}),
            400,
            "Invalid or expired lease",
        ),
        ("renew-lease", json!({}), 400, "Missing leaseId"),
        (
            "renew-lease",
            json!({"leaseId": "none"}),
            404,
            "Lease not found or expired",
        ),
        (
            "renew-lease",
            json!({"leaseId": "none", "extend_ms": 0}),
            400,
            "extend_ms is 0",
        ),
        (
            "seek",
            json!({"streamName": "s"}),
            400,
            "Missing required parameters",
        ),
        (
            "seek",
            json!({"streamName": "none", "consumerGroup": "g", "timestamp": "2026-01-01T00:00:00Z"}),
            404,
            "Stream not found",
        ),
        (
            "seek",
            json!({"streamName": "s", "consumerGroup": "g", "timestamp": "yesterday-ish"}),
            400,
            "yesterday-ish",
        ),
        ("define", Value::Null, 400, "Empty request body"),
    ] {
        let (code, answer) = post(&api, route, body.clone()).await;
        let said = answer["error"].as_str().unwrap_or_default();
        assert!(
            code == status && said.contains(says),
            "{route} {body}: {code} {answer}"
        );
    }
}
