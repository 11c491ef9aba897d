//! Streams: windows over queues. The official broker of today has none, and says so at once.

use std::collections::BTreeMap;

use queen::{
    Aggregation, PolledWindow, Stream, StreamConsumeOptions, StreamPollOptions, Window,
    WindowEvent, WindowSink,
};

use super::*;

pub const TESTS: Tests = tests![
    s1_d32_a_stream_is_defined_with_defaults_and_described,
    s2_s4_windows_are_acked_by_their_handlers_and_come_again_when_these_fail,
    s3_d33_leases_are_renewed_beside_the_handler,
    s3_s4_a_lost_lease_is_told_and_its_ack_is_not_sent,
    s2_a_stop_breaks_the_poll_off,
    s2_a_close_ends_consumers_of_windows,
    s2_keys_are_handled_side_by_side,
    s4_windows_are_settled_later_or_go_back,
    s5_a_seek_brings_windows_again,
    s6_s7_s8_s9_a_window_is_filtered_grouped_and_aggregated,
    s2_s4_windows_are_polled_and_settled_by_name,
    s10_a_broker_without_streams_says_so_at_once,
];

const BRIEF: Duration = Duration::from_millis(200);

/// A queue with such payloads, and a stream with short windows over it. Nothing on the official broker.
fn stream(broker: &TestBroker, client: &Client, payloads: &[Value]) -> Option<(Queue, Stream)> {
    if broker.name == "official" {
        let error = refused(client.stream("none").poll("g"));
        assert_eq!(error.code(), ErrorCode::Unsupported, "{error}");
        return None;
    }
    let queue = fresh(client);
    queue.create(QueueOptions::new()).wait(LONG).unwrap();
    for payload in payloads {
        let item = Item::json(payload).unwrap();
        queue.push(&[item]).wait(LONG).unwrap();
    }
    let stream = client
        .stream(format!("stream-{}", uuid::Uuid::now_v7()))
        .namespace("tests")
        .sources(&[queue.name()])
        .tumbling(BRIEF)
        .grace_period(Duration::ZERO);
    stream.define().wait(LONG).unwrap();
    Some((queue, stream))
}

fn numbers(window: &Window) -> Vec<i64> {
    window.messages().map(|one| one.json().unwrap()).collect()
}

fn poll(stream: &Stream) -> Window {
    let options = StreamPollOptions {
        poll_timeout_millis: 10_000,
        ..StreamPollOptions::default()
    };
    let polled = stream.poll_with("g", &options).wait(LONG).unwrap();
    polled.take().expect("a window within 10 s")
}

fn look(stream: &Stream, group: &str) -> PolledWindow {
    let options = StreamPollOptions {
        poll_timeout_millis: 0,
        ..StreamPollOptions::default()
    };
    stream.poll_with(group, &options).wait(LONG).unwrap()
}

fn options(limit: u64) -> StreamConsumeOptions {
    StreamConsumeOptions {
        limit: Some(limit),
        ..StreamConsumeOptions::default()
    }
}

fn s1_d32_a_stream_is_defined_with_defaults_and_described(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let name = format!("stream-{}", uuid::Uuid::now_v7());
    let defining = client.stream(&name).namespace("tests").define();
    if broker.name == "official" {
        assert_eq!(refused(defining).code(), ErrorCode::Unsupported);
        return close(client);
    }
    assert_eq!(told(defining)["name"], *name);
    let got = told(client.stream(&name).get());
    for (field, value) in [
        ("namespace", json!("tests")),
        ("partitioned", json!(false)),
        ("windowType", json!("tumbling")),
        ("windowDurationMs", json!(60_000)),
        ("windowGracePeriodMs", json!(30_000)),
        ("windowLeaseTimeoutMs", json!(60_000)),
        ("sourceQueues", json!([])),
    ] {
        assert_eq!(got[field], value, "{field}");
    }
    let queue = fresh(&client);
    let full = client
        .stream(&name)
        .namespace("tests")
        .sources(&[queue.name()])
        .partitioned(true)
        .tumbling(Duration::from_secs(7))
        .grace_period(Duration::from_secs(2))
        .lease_timeout(Duration::from_secs(9))
        .strict_watermark(true);
    let error = refused(full.define());
    assert_eq!(error.code(), ErrorCode::NotFound);
    assert!(error.message().contains(queue.name()), "{error}");
    queue.create(QueueOptions::new()).wait(LONG)?;
    told(full.define());
    let got = told(client.stream(&name).get());
    for (field, value) in [
        ("partitioned", json!(true)),
        ("windowDurationMs", json!(7000)),
        ("windowGracePeriodMs", json!(2000)),
        ("windowLeaseTimeoutMs", json!(9000)),
        ("strictWatermark", json!(true)),
        ("sourceQueues", json!([queue.name()])),
    ] {
        assert_eq!(got[field], value, "{field}");
    }
    let all = told(client.streams().list());
    let names = all["streams"].as_array().unwrap().iter();
    assert!(names.map(|one| &one["name"]).any(|one| *one == *name));
    assert!(told(client.streams().stats())["totalStreams"].as_u64() >= Some(1));
    told(full.delete());
    assert_eq!(refused(full.get()).code(), ErrorCode::NotFound);
    let error = refused(client.stream(&name).define());
    assert_eq!(error.code(), ErrorCode::InvalidJson);
    assert!(error.message().contains("namespace"), "{error}");
    close(client)
}

fn s2_s4_windows_are_acked_by_their_handlers_and_come_again_when_these_fail(
    broker: &TestBroker,
) -> Tested {
    let client = client(broker);
    let Some((_, stream)) = stream(broker, &client, &[json!(1), json!(2)]) else {
        return close(client);
    };
    let (tell, told) = mpsc::channel();
    let tries = AtomicUsize::new(0);
    let consumer = stream.consume_with("g", options(4), move |window: Window| {
        tell.send((window.id().to_owned(), numbers(&window)))
            .unwrap();
        match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Settlement::Nack,
            1 => Settlement::NackWith("a reason".into()),
            2 => panic!("on purpose"),
            _ => Settlement::Ack,
        }
    })?;
    let summary = consumer.finished().wait(LONG)?;
    assert_eq!(
        (
            summary.reason,
            summary.windows,
            summary.acked,
            summary.nacked,
            summary.lost
        ),
        (StopReason::Limit, 4, 1, 3, 0)
    );
    let seen: Vec<_> = told.try_iter().collect();
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
    assert!(seen[0].1 == [1, 2] || seen[0].1 == [1], "{seen:?}");
    close(client)
}

fn s3_d33_leases_are_renewed_beside_the_handler(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let Some((_, stream)) = stream(broker, &client, &[json!(1)]) else {
        return close(client);
    };
    let short = stream.lease_timeout(Duration::from_millis(1800));
    short.define().wait(LONG)?;
    let slow = StreamConsumeOptions {
        extend_millis: 1500,
        ..options(1)
    };
    let consumer = short.consume_with("g", slow, |_| {
        std::thread::sleep(Duration::from_millis(3500));
    })?;
    let summary = consumer.finished().wait(LONG)?;
    assert_eq!((summary.acked, summary.lost), (1, 0));
    assert!(client.stats().leases.renewals >= 2);
    assert!(look(&short, "g").take().is_none());
    close(client)
}

fn s3_s4_a_lost_lease_is_told_and_its_ack_is_not_sent(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let Some((_, stream)) = stream(broker, &client, &[json!(1)]) else {
        return close(client);
    };
    let (tell, events) = mpsc::channel();
    let sink = WindowSink::Events(Box::new(move |event| tell.send(event).is_ok()));
    let consumer = client.consume_windows(
        StreamConsumeOptions {
            stream: Some(stream.name().into()),
            group: Some("g".into()),
            ..options(1)
        },
        sink,
    )?;
    let WindowEvent::Window(window) = events.recv_timeout(LONG)? else {
        panic!("no window");
    };
    assert!(!window.is_lost());
    // It ends the lease of what is out.
    stream.seek("g", "2020-01-01T00:00:00Z").wait(LONG)?;
    let WindowEvent::LeaseLost { json } = events.recv_timeout(LONG)? else {
        panic!("the loss is not told");
    };
    let lost: Value = serde_json::from_str(&json)?;
    assert_eq!(
        (&lost["certain"], &lost["windowId"]),
        (&json!(true), &json!(window.id()))
    );
    assert_eq!(
        (&lost["stream"], &lost["consumerGroup"]),
        (&json!(stream.name()), &json!("g"))
    );
    assert!(window.is_lost());
    let before = client.stats().requests.other;
    assert_eq!(refused(window.ack()).code(), ErrorCode::LeaseLost);
    assert_eq!(client.stats().requests.other, before, "nothing was sent");
    let summary = consumer.finished().wait(LONG)?;
    assert_eq!((summary.acked, summary.lost), (0, 1));
    let WindowEvent::Ended(Ok(ended)) = events.recv_timeout(LONG)? else {
        panic!("the end is not told");
    };
    assert_eq!(ended, summary);
    close(client)
}

fn s2_a_stop_breaks_the_poll_off(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let Some((_, stream)) = stream(broker, &client, &[]) else {
        return close(client);
    };
    let consumer = stream.consume("g", |_| ())?;
    let deadline = Instant::now() + LONG;
    while client.stats().parked_polls == 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    let began = Instant::now();
    let summary = consumer.stop(LONG).wait(LONG)?;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_eq!((summary.reason, summary.windows), (StopReason::Stopped, 0));
    close(client)
}

fn s2_a_close_ends_consumers_of_windows(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let Some((_, stream)) = stream(broker, &client, &[json!(1)]) else {
        return close(client);
    };
    let (tell, told) = mpsc::channel();
    let consumer = stream.consume("g", move |_| {
        tell.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    })?;
    told.recv_timeout(LONG)?;
    client.close(LONG).wait(LONG)?;
    let summary = consumer.finished().wait(LONG)?;
    // The handler that ran has finished, and its ack has been answered.
    assert_eq!((summary.reason, summary.acked), (StopReason::Closed, 1));
    assert!(stream.consume("g", |_| ()).is_err());
    Ok(())
}

fn s2_keys_are_handled_side_by_side(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let Some((queue, stream)) = stream(broker, &client, &[]) else {
        return close(client);
    };
    for part in ["a", "b", "c"] {
        push(&queue.clone().partition(part), [1]);
    }
    let stream = stream.partitioned(true);
    stream.define().wait(LONG)?;
    let together = Arc::new(std::sync::Barrier::new(3));
    let keys: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = keys.clone();
    let parallel = StreamConsumeOptions {
        concurrency: 3,
        ..options(3)
    };
    let consumer = stream.consume_with("g", parallel, move |window: Window| {
        seen.lock().unwrap().push(window.key().to_owned());
        together.wait();
    })?;
    assert_eq!(consumer.finished().wait(LONG)?.acked, 3);
    let mut keys = keys.lock().unwrap().clone();
    keys.sort();
    assert_eq!(keys, ["a", "b", "c"]);
    close(client)
}

fn s4_windows_are_settled_later_or_go_back(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let Some((_, stream)) = stream(broker, &client, &[json!(1)]) else {
        return close(client);
    };
    let (tell, told) = mpsc::channel();
    let consumer = stream.consume_with("g", options(2), move |window: Window| {
        tell.send(window).unwrap();
        Settlement::Defer
    })?;
    let first = told.recv_timeout(LONG)?;
    let id = first.id().to_owned();
    drop(first);
    let second = told.recv_timeout(LONG)?;
    assert_eq!(second.id(), id);
    second.ack().wait(LONG)?;
    assert_eq!(refused(second.nack()).code(), ErrorCode::AlreadySettled);
    let summary = consumer.finished().wait(LONG)?;
    assert_eq!((summary.acked, summary.nacked), (1, 1));
    close(client)
}

fn s5_a_seek_brings_windows_again(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let Some((_, stream)) = stream(broker, &client, &[json!(1)]) else {
        return close(client);
    };
    let window = poll(&stream);
    let (id, start) = (window.id().to_owned(), window.start().to_owned());
    window.ack().wait(LONG)?;
    stream.seek("g", &start).wait(LONG)?;
    let again = poll(&stream);
    assert_eq!(again.id(), id);
    again.ack().wait(LONG)?;
    // The same moment in another zone.
    let moment: jiff::Timestamp = start.parse()?;
    let elsewhere = moment.display_with_offset(jiff::tz::Offset::from_seconds(7200)?);
    stream.seek("g", &elsewhere.to_string()).wait(LONG)?;
    assert_eq!(poll(&stream).start(), start);
    let error = refused(stream.seek("g", "yesterday"));
    assert!(error.message().contains("yesterday"), "{error}");
    close(client)
}

fn s6_s7_s8_s9_a_window_is_filtered_grouped_and_aggregated(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let payloads = [
        json!({"user": "a", "amount": 9_007_199_254_740_993_i64}),
        json!({"user": "b", "amount": 2.5}),
        json!({"user": "a", "amount": 1}),
        json!({"user": 0, "amount": "none"}),
    ];
    let Some((_, stream)) = stream(broker, &client, &[]) else {
        return close(client);
    };
    let sources = fresh(&client);
    let items: Vec<_> = payloads
        .iter()
        .map(|one| Item::json(one).unwrap())
        .collect();
    sources.push(&items).wait(LONG)?;
    let stream = stream.sources(&[sources.name()]);
    stream.define().wait(LONG)?;
    let mut window = poll(&stream);
    assert_eq!((window.size(), window.original_size()), (4, 4));
    let groups: BTreeMap<_, _> = window.group_by("data.user").into_iter().collect();
    let wanted = [("a", vec![0, 2]), ("b", vec![1]), ("null_key", vec![3])];
    assert_eq!(groups, wanted.map(|(k, v)| (k.to_owned(), v)).into());
    let wanted = Aggregation::parse(
        r#"{"count":true,"sum":["data.amount"],"avg":["data.amount"],"max":["data.amount"]}"#,
    )?;
    window.keep(&groups["a"])?;
    let told = serde_json::to_string(&window.aggregate(&wanted))?;
    assert_eq!(
        told,
        r#"{"count":2,"sum":{"data.amount":9007199254740994},"avg":{"data.amount":4503599627370497.0},"max":{"data.amount":9007199254740993}}"#
    );
    window.filter(|message| message.payload().contains("\"amount\":1"));
    assert_eq!((window.size(), window.original_size()), (1, 4));
    assert!(window.keep(&[1]).is_err() && window.keep(&[0, 0]).is_err());
    assert_eq!(window.all_messages().len(), 4);
    window.reset();
    assert_eq!(window.size(), 4);
    let told: Value = serde_json::from_str(&window.to_json())?;
    assert_eq!(told["messages"][1]["data"], payloads[1]);
    assert_eq!(
        (&told["key"], &told["size"]),
        (&json!("__GLOBAL__"), &json!(4))
    );
    // Order and choice of one do not touch those of another.
    let mut other = window.clone();
    other.keep(&[3, 0])?;
    let ids: Vec<_> = other.messages().map(|one| one.id.clone()).collect();
    assert_eq!(ids[0], window.message(3).unwrap().id);
    assert_eq!(window.size(), 4);
    close(client)
}

fn s2_s4_windows_are_polled_and_settled_by_name(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let Some((queue, stream)) = stream(broker, &client, &[json!(1)]) else {
        return close(client);
    };
    let name = stream.name();
    let defined = call(
        &client,
        "stream.define",
        json!({"stream": name, "namespace": "tests", "sources": queue.name(), "windowMillis": 200, "graceMillis": 0}),
    )?;
    assert_eq!(defined["success"], true);
    let params = json!({"stream": name, "consumerGroup": "g", "pollTimeoutMillis": 10_000});
    let polling = client.call("stream.poll", &params.to_string())?;
    assert!(polling.wait_for(LONG)?);
    let polled: Value = serde_json::from_str(&polling.to_json().unwrap())?;
    let window = &polled["window"];
    assert_eq!(window["messages"][0]["data"], 1);
    let lease = &window["leaseId"];
    let renewed = call(
        &client,
        "stream.renew",
        json!({"leaseId": lease, "extendMillis": 5000}),
    )?;
    let until: jiff::Timestamp = renewed["expiresAt"].as_str().unwrap().parse()?;
    assert!(until > jiff::Timestamp::now());
    assert_eq!(
        call(&client, "stream.ack", json!({"leaseId": lease}))?,
        Value::Null
    );
    // It is known here, and has its verdict.
    let error = call(&client, "stream.ack", json!({"leaseId": lease})).unwrap_err();
    assert_eq!(error.code(), ErrorCode::AlreadySettled);
    // It is forgotten with its poll, whose task may be about to end still.
    drop(polling);
    let ack = || call(&client, "stream.ack", json!({"leaseId": lease})).unwrap_err();
    let began = Instant::now();
    while ack().code() == ErrorCode::AlreadySettled && began.elapsed() < LONG {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(ack().code(), ErrorCode::LeaseLost);
    let error = call(&client, "stream.renew", json!({"leaseId": lease})).unwrap_err();
    assert_eq!(error.code(), ErrorCode::LeaseLost);
    let stands = call(&client, "stream.consumers", json!({"stream": name}))?;
    assert_eq!(stands["consumers"][0]["windowsProcessed"], 1);
    let missing = call(
        &client,
        "stream.poll",
        json!({"stream": "no", "consumerGroup": "g"}),
    );
    assert_eq!(missing.unwrap_err().code(), ErrorCode::NotFound);
    let nameless = call(&client, "stream.poll", json!({"consumerGroup": "g"})).unwrap_err();
    assert!(nameless.message().contains("stream"), "{nameless}");
    call(&client, "stream.delete", json!({"stream": name}))?;
    close(client)
}

fn s10_a_broker_without_streams_says_so_at_once(broker: &TestBroker) -> Tested {
    let client = client(broker);
    if broker.name != "official" {
        // Here a stream that is missing is told from streams that are.
        let consumer = client.stream("none").consume("g", |_| ())?;
        let error = refused(consumer.finished());
        assert_eq!(error.code(), ErrorCode::NotFound);
        return close(client);
    }
    let began = Instant::now();
    let stream = client.stream("s").namespace("n");
    let consumer = stream.consume("g", |_| ())?;
    for error in [
        refused(consumer.finished()),
        refused(stream.define()),
        refused(stream.poll("g")),
        refused(stream.seek("g", "2026-01-01T00:00:00Z")),
        refused(stream.get()),
        refused(client.streams().list()),
        refused(client.settle_window("x", true, None)),
        refused(client.renew_window("x", 1000, &Default::default())),
    ] {
        assert_eq!(error.code(), ErrorCode::Unsupported, "{error}");
        assert!(error.message().contains("0.7"), "{error}");
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    close(client)
}
