//! Direct pushes that share requests, at a server that answers as no broker does on demand.

#[path = "support/script.rs"]
#[allow(dead_code, reason = "each test program uses its own part")]
mod script;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use queen::{Client, ErrorCode, Item, Outcome, Pending, PushOptions, PushResult};
use script::{Reply, Script, Seen, answer, json, nobody};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

/// The payloads of a push.
fn payloads(seen: &Seen) -> Vec<String> {
    let body: Value = serde_json::from_str(&seen.body).unwrap();
    let items = body["items"].as_array().unwrap().iter();
    items.map(|item| item["payload"].to_string()).collect()
}

/// A good answer to a push.
fn stored(seen: &Seen) -> Reply {
    let results = payloads(seen)
        .into_iter()
        .enumerate()
        .map(|(index, payload)| json!({"index": index, "message_id": format!("m{payload}"), "status": "queued"}));
    json(201, &results.collect::<Value>().to_string())
}

fn client(url: &str, more: &str) -> Client {
    Client::new(&format!(r#"{{"url":"{url}","retryDelayMillis":20{more}}}"#)).unwrap()
}

fn push(client: &Client, partition: &str, payload: u32) -> Pending<Vec<PushResult>> {
    let queue = client.queue("q").partition(partition);
    queue.push(&[Item::json(&payload).unwrap()])
}

/// Waits until something holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONG, "{what} has not come true");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A server whose first answer waits until the gate is open, so that what is pushed meanwhile goes together. The others are
/// played with their number.
fn gated(
    play: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static,
) -> (Script, Arc<AtomicBool>) {
    let gate = Arc::new(AtomicBool::new(false));
    let open = gate.clone();
    let script = Script::start(move |seen| {
        if seen.number == 0 {
            until("the gate", || open.load(Ordering::SeqCst));
            return stored(seen);
        }
        play(seen.number, seen)
    });
    (script, gate)
}

/// The calls of these payloads in one request, after another call to the same partition.
fn together(
    server: &Script,
    gate: &AtomicBool,
    client: &Client,
    partitions: &[&str],
) -> Vec<Pending<Vec<PushResult>>> {
    let first = push(client, partitions[0], 0);
    until("the first request", || server.count() == 1);
    let calls = partitions
        .iter()
        .zip(1..)
        .map(|(partition, payload)| push(client, partition, payload))
        .collect();
    gate.store(true, Ordering::SeqCst);
    first.wait(LONG).unwrap();
    calls
}

/// One lane, so that it is known what goes together.
const ONE_LANE: &str = r#","maxPushLanes":1"#;

#[test]
fn many_callers_of_a_slow_server_leave_in_few_requests() {
    let server = Script::start(|seen| {
        std::thread::sleep(Duration::from_millis(20));
        stored(seen)
    });
    let client = client(&server.url, "");
    let rounds = 10;
    std::thread::scope(|scope| {
        for caller in 0..64u32 {
            let client = &client;
            scope.spawn(move || {
                for round in 0..rounds {
                    let number = caller * 100 + round;
                    let results = push(client, &format!("p{}", caller % 2), number)
                        .wait(LONG)
                        .unwrap();
                    assert_eq!(results[0].message_id, Some(format!("m{number}")));
                }
            });
        }
    });
    let requests = server.count();
    assert!(requests <= 64 * rounds as usize / 8, "{requests} requests");
    let mut last = BTreeMap::new();
    for payload in server.seen().iter().flat_map(payloads) {
        let number: u32 = payload.parse().unwrap();
        let before = last.insert(number / 100, number % 100);
        assert!(before.is_none_or(|before| before < number % 100));
    }
}

#[test]
fn a_refused_request_is_taken_apart() {
    for status in [400, 413, 422] {
        let (server, gate) = gated(move |_, seen| match payloads(seen) {
            several if several.contains(&"3".to_owned()) => {
                json(status, r#"{"error":"not this one"}"#)
            }
            _ => stored(seen),
        });
        let client = client(&server.url, ONE_LANE);
        let calls = together(&server, &gate, &client, &["p", "p", "p", "q"]);
        for (call, payload) in calls.iter().zip(1..) {
            match call.wait(LONG) {
                Ok(results) => {
                    assert_eq!(results[0].message_id, Some(format!("m{payload}")));
                    assert_ne!(payload, 3);
                }
                Err(error) => {
                    assert_eq!((payload, error.http_status()), (3, Some(status)));
                    assert_eq!(error.outcome(), Outcome::Refused);
                }
            }
        }
        let seen: Vec<_> = server.seen().iter().map(payloads).collect();
        assert_eq!(seen[1].len(), 4, "together first: {seen:?}");
        assert!(seen[2..].iter().all(|one| one.len() == 1), "{seen:?}");
        let of_p: Vec<_> = seen[2..]
            .concat()
            .into_iter()
            .filter(|n| n != "4")
            .collect();
        assert_eq!(of_p, ["1", "2", "3"], "in order");
    }
}

#[test]
fn a_request_that_fails_twice_is_taken_apart_with_the_same_ids() {
    let (server, gate) = gated(|_, seen| match payloads(seen) {
        some if some.contains(&"2".to_owned()) => json(500, r#"{"error":"stumbled"}"#),
        _ => stored(seen),
    });
    let client = client(&server.url, ONE_LANE);
    let calls = together(&server, &gate, &client, &["p", "p", "p"]);
    let results: Vec<_> = calls.iter().map(|call| call.wait(LONG)).collect();
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(
        (error.code(), error.outcome(), error.http_status()),
        (ErrorCode::Broker, Outcome::Unknown, Some(500))
    );
    assert!(error.message().contains("tried 3 times"), "{error}");
    assert_eq!(error.transaction_ids().len(), 1);
    assert!(results[0].is_ok() && results[2].is_ok());
    let seen = server.seen();
    let sizes: Vec<_> = seen.iter().map(|seen| payloads(seen).len()).collect();
    assert_eq!(sizes, [1, 3, 3, 1, 1, 1], "after two failures one by one");
    assert_eq!(seen[1].body, seen[2].body, "with the same ids");
    assert!(seen[1].body.contains(&error.transaction_ids()[0]));
}

#[test]
fn a_503_makes_all_wait_and_goes_well_later() {
    let (server, gate) = gated(|number, seen| match number {
        1 => answer("503 Busy\r\nretry-after: 1", "{}"),
        _ => stored(seen),
    });
    let client = client(&server.url, "");
    let calls = together(&server, &gate, &client, &["p", "p"]);
    until("the refusal", || server.count() >= 2);
    std::thread::sleep(Duration::from_millis(50));
    let other = push(&client, "other", 9);
    calls.iter().for_each(|call| drop(call.wait(LONG).unwrap()));
    other.wait(LONG).unwrap();
    let seen = server.seen();
    let next = seen[2].at - seen[1].at;
    assert!(next >= Duration::from_millis(900), "{next:?}");
    assert_eq!(payloads(&seen[1]).len(), 2);
}

#[test]
fn a_broker_that_is_away_keeps_all_waiting_until_it_is_there() {
    let client = client(&nobody(), r#","retryAttempts":2"#);
    let calls: Vec<_> = (0..20)
        .map(|n| push(&client, &format!("p{n}"), n))
        .collect();
    for call in calls {
        let error = call.wait(LONG).unwrap_err();
        assert_eq!(
            (error.code(), error.outcome()),
            (ErrorCode::Connect, Outcome::NotApplied)
        );
        assert!(error.message().contains("tried 2 times"), "{error}");
    }
}

#[test]
fn after_a_reset_in_the_answer_each_partition_comes_again_and_says_so() {
    let (server, gate) = gated(|number, seen| match number {
        1 => {
            Reply::Part(b"HTTP/1.1 201 Created\r\ncontent-length: 900\r\n\r\n[{\"index\"".to_vec())
        }
        _ => {
            // What was stored by the first attempt is a duplicate now.
            let results = payloads(seen).into_iter().enumerate();
            let results = results.map(|(index, payload)| json!({"index": index, "message_id": format!("m{payload}"), "status": "duplicate"}));
            json(201, &results.collect::<Value>().to_string())
        }
    });
    let client = client(&server.url, ONE_LANE);
    let first = push(&client, "p", 0);
    until("the first request", || server.count() == 1);
    let queue = client.queue("q");
    let own = queue
        .clone()
        .partition("p")
        .push(&[Item::json(&1).unwrap().transaction_id("mine")]);
    let minted = push(&client, "p", 2);
    let other = push(&client, "q", 3);
    gate.store(true, Ordering::SeqCst);
    first.wait(LONG).unwrap();
    let own = own.wait(LONG).unwrap().remove(0);
    assert_eq!((&*own.status, own.resent), ("duplicate", true));
    for call in [minted, other] {
        let result = call.wait(LONG).unwrap().remove(0);
        assert_eq!((&*result.status, result.resent), ("queued", false));
    }
    let seen = server.seen();
    assert_eq!(payloads(&seen[1]).len(), 3);
    let again: Vec<_> = seen[2..].iter().flat_map(payloads).collect();
    assert_eq!(again.len(), 3, "each once more: {again:?}");
    let place = |payload: &str| again.iter().position(|one| one == payload);
    assert!(place("1") < place("2"));
    assert!(client.stats().requests.retries >= 1);
}

#[test]
fn a_short_deadline_ends_its_call_alone_and_in_time() {
    let release = Arc::new(AtomicBool::new(false));
    let open = release.clone();
    let (server, gate) = gated(move |_, seen| {
        until("the release", || open.load(Ordering::SeqCst));
        stored(seen)
    });
    let client = client(&server.url, ONE_LANE);
    let first = push(&client, "p", 0);
    until("the first request", || server.count() == 1);
    let hasty = PushOptions {
        timeout_millis: Some(300),
        ..PushOptions::default()
    };
    let queue = client.queue("q").partition("p");
    let late = queue.push_with(&[Item::json(&1).unwrap()], &hasty);
    let patient = push(&client, "p", 2);
    gate.store(true, Ordering::SeqCst);
    first.wait(LONG).unwrap();
    until("the second request", || server.count() == 2);
    let error = late.wait(LONG).unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (ErrorCode::Timeout, Outcome::Unknown)
    );
    assert_eq!(error.transaction_ids().len(), 1);
    // One that is not taken yet was not sent, and is not sent later.
    let waiting = queue.push_with(&[Item::json(&3).unwrap()], &hasty);
    let cancelled = push(&client, "p", 4);
    cancelled.cancel();
    for call in [&waiting, &cancelled] {
        let error = call.wait(LONG).unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
    }
    assert!(!patient.is_complete());
    release.store(true, Ordering::SeqCst);
    patient.wait(LONG).unwrap();
    push(&client, "p", 5).wait(LONG).unwrap();
    let seen: Vec<_> = server.seen().iter().flat_map(payloads).collect();
    assert_eq!(seen, ["0", "1", "2", "5"]);
}

#[test]
fn a_stuck_request_does_not_keep_other_partitions() {
    let server = Script::start(|seen| match payloads(seen).contains(&"666".to_owned()) {
        true => Reply::Silence,
        false => stored(seen),
    });
    let client = client(&server.url, ONE_LANE);
    let stuck = push(&client, "stuck", 666);
    until("it is stuck", || server.count() == 1);
    for n in 0..3 {
        push(&client, "p", n).wait(LONG).unwrap();
    }
    assert!(!stuck.is_complete());
    let closed = client.close(Duration::ZERO).wait(LONG).unwrap();
    assert_eq!(closed.aborted, 1);
    assert_eq!(
        stuck.wait(LONG).unwrap_err().code(),
        ErrorCode::Closed,
        "the close ends it"
    );
}

#[test]
fn a_result_that_is_missing_is_the_error_of_its_call_alone() {
    let (server, gate) = gated(|_, seen| {
        let results = payloads(seen)
            .into_iter()
            .enumerate()
            .filter(|(_, payload)| payload != "2")
            .map(|(index, _)| json!({"index": index, "message_id": "m", "status": "queued"}));
        json(201, &results.collect::<Value>().to_string())
    });
    let client = client(&server.url, ONE_LANE);
    let calls = together(&server, &gate, &client, &["p", "p", "p"]);
    assert!(calls[0].wait(LONG).is_ok() && calls[2].wait(LONG).is_ok());
    let error = calls[1].wait(LONG).unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (ErrorCode::BadAnswer, Outcome::Unknown)
    );
}

#[test]
fn items_that_failed_go_back_to_their_caller_and_are_not_repeated() {
    let (server, gate) = gated(|_, seen| {
        let results = payloads(seen)
            .into_iter()
            .enumerate()
            .map(|(index, payload)| {
                let status = if payload == "2" { "failed" } else { "queued" };
                json!({"index": index, "message_id": "m", "status": status, "error": null})
            });
        json(201, &results.collect::<Value>().to_string())
    });
    let client = client(&server.url, ONE_LANE);
    let calls = together(&server, &gate, &client, &["p", "p", "p"]);
    assert!(calls[0].wait(LONG).is_ok() && calls[2].wait(LONG).is_ok());
    assert_eq!(calls[1].wait(LONG).unwrap_err().code(), ErrorCode::Partial);
    assert_eq!(server.count(), 2);
}

#[test]
fn a_429_keeps_other_requests_from_that_broker() {
    let began = Mutex::new(None);
    let server = Script::start(move |seen| {
        let mut began = began.lock().unwrap();
        if began.is_none() {
            *began = Some(seen.at);
            return answer("429 Slow\r\nretry-after: 1", "{}");
        }
        stored(seen)
    });
    let client = client(&server.url, r#","maxPushLanes":4"#);
    let first = push(&client, "p", 1);
    until("the refusal", || server.count() == 1);
    std::thread::sleep(Duration::from_millis(100));
    let second = push(&client, "q", 2);
    first.wait(LONG).unwrap();
    second.wait(LONG).unwrap();
    let seen = server.seen();
    for later in &seen[1..] {
        assert!(later.at - seen[0].at >= Duration::from_millis(950));
    }
}
