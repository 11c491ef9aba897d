//! Streams on a broker of generation 0.7, played by a server that answers as one of them was seen to: nearly everything is a 200,
//! errors are in the body, times are those of PostgreSQL, and of two polls of a group one is never answered.

#[path = "support/script.rs"]
#[allow(dead_code, reason = "each test program uses its own part")]
mod script;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use queen::{Client, Error, ErrorCode, Settlement, StreamConsumeOptions, StreamPollOptions};
use serde_json::{Value, json};

use script::{Reply, Script, Seen, answer};

const LONG: Duration = Duration::from_secs(60);

/// As that server says nearly everything.
fn says(body: Value) -> Reply {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    answer("200 OK\r\nContent-Type: application/json", &body)
}

fn is(seen: &Seen, route: &str) -> bool {
    seen.line == format!("POST /api/v1/stream/{route}")
}

fn told(seen: &Seen) -> Value {
    serde_json::from_str(&seen.body).unwrap()
}

fn window(lease: &str) -> Value {
    json!({"window": {
        "id": "6c0e:__GLOBAL__:2026-11-23 20:35:40.7+00:2026-11-23 20:35:42.700000+00", "leaseId": lease, "key": "__GLOBAL__",
        "start": "2026-11-23 20:35:40.7+00", "end": "2026-11-23 20:35:42.700000+00",
        "messages": [{"id": "m-1", "data": {"n": 1}, "created_at": "2026-11-23 20:35:41.510799+00"},
                     {"id": "m-2", "data": {"n": 2}, "created_at": "2026-11-23 20:35:42+00"}],
    }})
}

fn refused<T: Clone + Send + Sync + std::fmt::Debug + 'static>(
    pending: queen::Pending<T>,
) -> Error {
    pending.wait(LONG).unwrap_err()
}

#[test]
fn s1_s2_s4_s5_the_whole_session_is_understood() {
    let polls = AtomicUsize::new(0);
    let server = Script::start(move |seen| match () {
        () if is(seen, "define") => {
            says(json!({"success": true, "stream_id": "6c0e", "name": "s"}))
        }
        () if is(seen, "seek") => says(json!({"success": true})),
        () if is(seen, "ack") => says(json!({"success": true, "acked": told(seen)["success"]})),
        () if is(seen, "renew-lease") => {
            says(json!({"success": true, "lease_expires_at": "2026-11-23 20:36:02.380851+00"}))
        }
        () => match polls.fetch_add(1, Ordering::SeqCst) {
            // Its poll has timed out: nothing at all.
            0 => says(Value::Null),
            1 => says(window("lease-1")),
            _ => says(window("lease-2")),
        },
    });
    let client = Client::new(&server.url).unwrap();
    let stream = client.stream("s").namespace("n").sources(&["q"]);
    stream.define().wait(LONG).unwrap();
    let define = told(&server.seen()[0]);
    assert_eq!(
        (&define["window_type"], &define["window_duration_ms"]),
        (&json!("tumbling"), &json!(60_000))
    );

    let (tell, seen) = mpsc::channel();
    let options = StreamConsumeOptions {
        limit: Some(2),
        ..StreamConsumeOptions::default()
    };
    let consumer = stream
        .consume_with("g", options, move |window| {
            let times: Vec<_> = window
                .messages()
                .map(|one| one.created_at.clone())
                .collect();
            let first = tell.send((window.start().to_owned(), window.end().to_owned(), times));
            first.unwrap();
            match window.lease_id() {
                "lease-1" => Settlement::Nack,
                _ => Settlement::Ack,
            }
        })
        .unwrap();
    let summary = consumer.finished().wait(LONG).unwrap();
    assert_eq!((summary.windows, summary.acked, summary.nacked), (2, 1, 1));
    let (start, end, times) = seen.recv().unwrap();
    assert_eq!(
        (&*start, &*end),
        ("2026-11-23T20:35:40.700000Z", "2026-11-23T20:35:42.700000Z")
    );
    assert_eq!(
        times,
        ["2026-11-23T20:35:41.510799Z", "2026-11-23T20:35:42.000000Z"]
    );
    let acks: Vec<_> = server
        .seen()
        .iter()
        .filter(|seen| is(seen, "ack"))
        .map(told)
        .collect();
    assert_eq!(
        (&acks[0]["leaseId"], &acks[0]["success"]),
        (&json!("lease-1"), &json!(false))
    );
    assert_eq!(
        (&acks[1]["leaseId"], &acks[1]["success"]),
        (&json!("lease-2"), &json!(true))
    );

    stream.seek("g", "2026-11-23T20:00:00Z").wait(LONG).unwrap();
    let renewed = client
        .call(
            "stream.renew",
            r#"{"leaseId":"lease-3","extendMillis":5000}"#,
        )
        .unwrap();
    assert!(renewed.wait_for(LONG).unwrap());
    let renewed = renewed.to_json().unwrap();
    assert!(renewed.contains("2026-11-23T20:36:02.380851Z"), "{renewed}");
    client.close(LONG).wait(LONG).unwrap();
}

#[test]
fn s3_s4_errors_inside_of_a_200_are_errors() {
    let server = Script::start(|seen| match () {
        () if is(seen, "define") => says(json!({"error": "Missing name or namespace"})),
        () if is(seen, "ack") => says(json!({"error": "Invalid or expired lease"})),
        () if is(seen, "renew-lease") => says(json!({"error": "Lease not found or expired"})),
        () if is(seen, "seek") => says(json!({"error": "Seek error: invalid input syntax"})),
        () if seen.body.contains("leased") => says(window("lease-1")),
        () if seen.body.contains("odd") => answer(
            "400 OK\r\nContent-Type: application/json",
            r#"{"error":"Invalid JSON: oops"}"#,
        ),
        () => says(json!({"error": "Stream not found"})),
    });
    let client = Client::new(&server.url).unwrap();
    let define = refused(client.stream("s").namespace("n").define());
    assert_eq!(define.code(), ErrorCode::BadRequest, "{define:?}");
    assert!(define.message().contains("Missing name"), "{define}");
    assert_eq!(
        refused(client.stream("none").poll("g")).code(),
        ErrorCode::NotFound
    );
    assert_eq!(
        refused(client.stream("odd").poll("g")).code(),
        ErrorCode::BadRequest
    );
    assert!(
        refused(client.stream("s").seek("g", "2026-01-01T00:00:00Z"))
            .message()
            .contains("Seek error")
    );

    let window = client
        .stream("leased")
        .poll("g")
        .wait(LONG)
        .unwrap()
        .take()
        .unwrap();
    assert_eq!(refused(window.ack()).code(), ErrorCode::LeaseLost);
    assert!(window.is_lost());
    for (operation, code) in [
        ("stream.renew", ErrorCode::LeaseLost),
        ("stream.ack", ErrorCode::LeaseLost),
    ] {
        let pending = client.call(operation, r#"{"leaseId":"gone"}"#).unwrap();
        assert!(pending.wait_for(LONG).unwrap());
        assert_eq!(pending.error().map(Error::code), Some(code), "{operation}");
    }
    let consumer = client
        .stream("none")
        .consume("g", |_| Settlement::Ack)
        .unwrap();
    assert_eq!(refused(consumer.finished()).code(), ErrorCode::NotFound);
    client.close(LONG).wait(LONG).unwrap();
}

#[test]
fn s2_polls_of_a_group_take_turns() {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, worst) = (open.clone(), most.clone());
    let server = Script::start(move |_| {
        worst.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(30));
        now.fetch_sub(1, Ordering::SeqCst);
        says(Value::Null)
    });
    // The second of two would be forgotten by the broker, whichever client of the process has sent it.
    let clients: Vec<_> = (0..2).map(|_| Client::new(&server.url).unwrap()).collect();
    let options = StreamPollOptions {
        poll_timeout_millis: 20,
        ..StreamPollOptions::default()
    };
    let polls: Vec<_> = (0..12)
        .map(|n| clients[n % 2].stream("s").poll_with("g", &options))
        .collect();
    for poll in polls {
        assert!(poll.wait(LONG).unwrap().take().is_none());
    }
    assert_eq!(server.count(), 12);
    let groups = (1..=4).map(|n| clients[0].stream("s").poll_with(&format!("g{n}"), &options));
    for poll in groups.collect::<Vec<_>>() {
        poll.wait(LONG).unwrap();
    }
    for client in clients {
        client.close(LONG).wait(LONG).unwrap();
    }
    let most = most.load(Ordering::SeqCst);
    assert!(most > 1, "polls of several groups go side by side");
    let of_one = server
        .seen()
        .iter()
        .filter(|seen| seen.body.contains("\"g\""))
        .count();
    assert_eq!(of_one, 12);
}
