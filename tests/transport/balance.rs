//! Several brokers: who is asked, who is left alone, and who is asked again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use queen::{BackendState, Client};
use serde_json::Value;

use crate::script::{Reply, Script, json, nobody};
use crate::{LONG, client, push, well};

/// Once unhealthy, always unhealthy.
const NO_PROBE: &str = r#""healthRetryAfterMillis":86400000"#;

/// A server that answers well while the switch is on, and 503 otherwise.
fn switched() -> (Script, Arc<AtomicBool>) {
    let on = Arc::new(AtomicBool::new(false));
    let switch = on.clone();
    let server = Script::start(move |seen| match switch.load(Ordering::SeqCst) {
        true => well(seen),
        false => json(503, r#"{"error":"starting"}"#),
    });
    (server, on)
}

/// Waits until the condition holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONG, "{what} has not come true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn pop(client: &Client, group: &str) {
    let queue = client.queue("orders").group(group);
    assert!(queue.pop().wait(LONG).unwrap().is_empty());
}

#[test]
fn l1_v13_pops_of_a_group_go_to_one_broker_from_every_client() {
    let servers: Vec<_> = (0..3).map(|_| Script::start(well)).collect();
    let urls: Vec<_> = servers.iter().map(|server| &*server.url).collect();
    for _ in 0..4 {
        let client = client(&urls, "");
        for _ in 0..5 {
            pop(&client, "workers");
        }
        let consumer = client
            .queue("orders")
            .group("workers")
            .consume(|_| queen::Settlement::Ack)
            .unwrap();
        consumer.stop(LONG).wait(LONG).unwrap();
    }
    let counts: Vec<_> = servers
        .iter()
        .map(|server| server.count_of("/pop"))
        .collect();
    assert!(counts.iter().sum::<usize>() >= 20);
    let asked = counts.iter().filter(|count| **count > 0).count();
    assert_eq!(asked, 1, "{counts:?}");
}

#[test]
fn l10_requests_without_a_key_are_spread() {
    let servers: Vec<_> = (0..3).map(|_| Script::start(well)).collect();
    let urls: Vec<_> = servers.iter().map(|server| &*server.url).collect();
    let client = client(&urls, "");
    for _ in 0..30 {
        push(&client).wait(LONG).unwrap();
    }
    for server in &servers {
        assert_eq!(server.count_of("/push"), 10);
    }
}

#[test]
fn l5_a_session_stays_with_one_broker() {
    let servers: Vec<_> = (0..3).map(|_| Script::start(well)).collect();
    let urls: Vec<_> = servers.iter().map(|server| &*server.url).collect();
    let client = client(&urls, r#""loadBalancingStrategy":"session""#);
    for _ in 0..10 {
        push(&client).wait(LONG).unwrap();
        pop(&client, "workers");
    }
    let mut counts: Vec<_> = servers.iter().map(Script::count).collect();
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 20]);
}

#[test]
fn c1_one_broken_broker_fails_no_call_in_any_strategy() {
    for strategy in ["affinity", "round-robin", "session"] {
        // A connection that is dropped without an answer is what the classic client took for healthy.
        let dropping = Script::start(|_| Reply::Part(Vec::new()));
        let good: Vec<_> = (0..2).map(|_| Script::start(well)).collect();
        let client = client(
            &[&good[0].url, &dropping.url, &good[1].url],
            &format!(r#""loadBalancingStrategy":"{strategy}","healthRetryAfterMillis":1"#),
        );
        for _ in 0..30 {
            push(&client).wait(LONG).unwrap();
        }
        let stored: usize = good.iter().map(|server| server.count_of("/push")).sum();
        assert_eq!(stored, 30);
    }
}

#[test]
fn l8_half_open_probe() {
    let (server, on) = switched();
    let good = Script::start(well);
    let client = client(
        &[&server.url, &good.url],
        r#""healthRetryAfterMillis":300,"loadBalancingStrategy":"round-robin""#,
    );
    let states = Arc::new(Mutex::new(Vec::new()));
    let told = states.clone();
    client.set_backend_states(Some(Arc::new(move |state: &BackendState| {
        told.lock().unwrap().push(state.clone())
    })));
    // Until it is seen to be down, then for some rests with many calls at once.
    let calls = |times: usize| {
        let calls: Vec<_> = (0..times).map(|_| push(&client)).collect();
        for call in calls {
            call.wait(LONG).unwrap();
        }
    };
    until("a failure", || {
        calls(1);
        server.count_of("/push") == 1
    });
    until("three probes", || {
        calls(20);
        server.count_of("/health") >= 3
    });
    assert_eq!(
        server.count_of("/push"),
        1,
        "no call is risked for a broker that is down"
    );
    let probes: Vec<_> = server.seen().iter().map(|seen| seen.at).collect();
    for pair in probes.windows(2) {
        assert!(
            pair[1] - pair[0] >= Duration::from_millis(300),
            "one at a time, after a rest"
        );
    }
    on.store(true, Ordering::SeqCst);
    until("the recovery", || {
        calls(2);
        server.count_of("/push") > 10
    });
    let states = states.lock().unwrap();
    assert_eq!(states.len(), 2, "{states:?}");
    assert!(!states[0].healthy && states[0].error.as_deref() == Some("HTTP 503"));
    assert!(states[1].healthy && states[1].unhealthy_for.is_some());
    assert!(states.iter().all(|state| state.url == server.url));
}

#[test]
fn h3_v3_every_kind_of_failure_makes_a_broker_unhealthy() {
    for failure in [
        || json(500, ""),
        || Reply::Reset,
        || Reply::Part(Vec::new()),
        || Reply::Part(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n[".to_vec()),
        || Reply::Part(b"no HTTP at all\r\n\r\n".to_vec()),
    ] {
        let broken = Script::start(move |_| failure());
        let good = Script::start(well);
        let client = client(&[&broken.url, &good.url], NO_PROBE);
        for _ in 0..10 {
            push(&client).wait(LONG).unwrap();
        }
        assert_eq!(broken.count(), 1, "then it is left alone");
        assert_eq!(healthy(&client), [false, true]);
    }
    // One that is down, and one that does not know what is asked for.
    let good = Script::start(|_| json(404, r#"{"error":"Queue not found"}"#));
    let client = client(&[&nobody(), &good.url], NO_PROBE);
    for _ in 0..4 {
        client.queue("q").get().wait(LONG).unwrap_err();
    }
    assert_eq!(healthy(&client), [false, true]);
}

fn healthy(client: &Client) -> Vec<bool> {
    let shown = client.backends();
    shown.backends.iter().map(|one| one.healthy).collect()
}

#[test]
fn l9_all_unhealthy_brokers_are_tried_all_the_same() {
    let (one, one_on) = switched();
    let (two, _) = switched();
    let client = client(&[&one.url, &two.url], r#""retryAttempts":1"#);
    push(&client).wait(LONG).unwrap_err();
    assert_eq!((one.count(), two.count()), (1, 1));
    one_on.store(true, Ordering::SeqCst);
    push(&client).wait(LONG).unwrap();
    assert!(healthy(&client)[0]);
}

#[test]
fn l6_health_is_to_be_seen_by_name() {
    let server = Script::start(well);
    let client = client(&[&nobody(), &server.url], NO_PROBE);
    for _ in 0..2 {
        push(&client).wait(LONG).unwrap();
    }
    let call = client.call("client.backends", "").unwrap();
    assert!(call.wait_for(LONG).unwrap());
    let shown: Value = serde_json::from_str(&call.to_json().unwrap()).unwrap();
    assert_eq!(shown["strategy"], "affinity");
    assert_eq!(shown["virtualNodes"], 256);
    assert_eq!(shown["backends"][0]["healthy"], false);
    assert!(shown["backends"][0]["lastFailureMillisAgo"].is_u64());
    assert_eq!(shown["backends"][1]["url"], server.url);
    assert!(client.call("client.backends", r#"{"x":1}"#).is_err());
}

#[test]
fn c54_a_broker_that_is_down_costs_no_call_its_time() {
    let server = Script::start(well);
    let client = client(&[&nobody(), &server.url], NO_PROBE);
    for _ in 0..10 {
        push(&client).wait(LONG).unwrap();
    }
    let shown = client.backends();
    assert_eq!(shown.backends[0].failures, 1, "asked once, then left alone");
}

#[test]
fn h10_x11_a_close_ends_requests_and_connections() {
    let server = Script::start(|seen| match seen.line.contains("/push") {
        true => Reply::Silence,
        false => well(seen),
    });
    let client = client(&[&server.url], "");
    client.queue("q").pop().wait(LONG).unwrap();
    let stuck = push(&client);
    until("the push", || server.count_of("/push") == 1);
    client.close(Duration::ZERO).wait(LONG).unwrap();
    let error = stuck.wait(LONG).unwrap_err();
    assert_eq!(error.code(), queen::ErrorCode::Closed);
    until("the end of the connections", || server.open() == 0);
}

#[test]
fn x14_m14_a_client_that_is_dropped_closes_by_itself() {
    let server = Script::start(well);
    let client = client(&[&server.url], "");
    push(&client).wait(LONG).unwrap();
    assert!(server.open() > 0);
    drop(client);
    until("the end of the connections", || server.open() == 0);
}
