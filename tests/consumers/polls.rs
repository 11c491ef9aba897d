//! Polls that fail, polls that are stopped, and where they go.

use super::*;

#[test]
fn c5_c12_v6_transient_errors_are_tried_again_with_growing_pauses() {
    let failures: [[fn() -> Reply; 4]; 2] = [
        [
            || script::json(500, r#"{"error":"pool"}"#),
            || Reply::Reset,
            || {
                script::json(
                    200,
                    r#"{"success":false,"error":"database is away","messages":[]}"#,
                )
            },
            || Reply::Part(b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n{\"mess".to_vec()),
        ],
        [
            || answer("200 OK\r\ncontent-type: text/html", "<p>hello</p>"),
            || Reply::Part(b"\x00\xff no HTTP \r\n\r\n".to_vec()),
            || script::json(503, ""),
            || Reply::Part(Vec::new()),
        ],
    ];
    for failures in failures {
        let good = messages(&[("p", 1)]).to_string();
        let pop = move |number| match number {
            0..4 => failures[number](),
            4 => script::json(200, &good),
            _ => nothing(),
        };
        let server = plays(pop, acked, |_| renewed(1));
        let client = client(&server.url, "");
        let options = ConsumeOptions {
            limit: Some(1),
            ..ConsumeOptions::default()
        };
        let consumer = client.queue("q").consume_with(options, |_| ()).unwrap();
        assert_eq!(ended(&consumer).acked, 1);
        let polls = requests(&server, "/pop");
        assert_eq!(polls.len(), 5, "no attempt of its own by the transport");
        for (number, pair) in polls.windows(2).enumerate() {
            // Each pause is twice the last, a fifth more or less.
            let least = Duration::from_millis(80 << number);
            assert!(pair[1].at - pair[0].at >= least, "pause {number}");
        }
    }
}

#[test]
fn c5_c12_a_poll_without_an_answer_is_tried_again() {
    let pop = |number| match number {
        0 => Reply::Silence,
        _ => script::json(200, &messages(&[("p", 1)]).to_string()),
    };
    let server = plays(pop, acked, |_| renewed(1));
    let client = client(&server.url, r#""timeoutMillis":300"#);
    let options = ConsumeOptions {
        limit: Some(1),
        poll_timeout_millis: 100,
        ..ConsumeOptions::default()
    };
    let consumer = client.queue("q").consume_with(options, |_| ()).unwrap();
    assert_eq!(ended(&consumer).acked, 1);
}

#[test]
fn c1_c14_c51_c57_workers_end_together_with_the_error_of_one() {
    // One handles a message and polls ahead, three wait for one.
    let busy = Arc::new(AtomicUsize::new(0));
    let waiting = busy.clone();
    let pop = move |number| match number {
        0 => script::json(200, &messages(&[("p", 1)]).to_string()),
        1..=3 => {
            waiting.fetch_add(1, Ordering::SeqCst);
            Reply::Silence
        }
        _ => {
            until("the others are busy", || {
                waiting.load(Ordering::SeqCst) == 4
            });
            script::json(403, r#"{"error":"not for you","code":"forbidden"}"#)
        }
    };
    let server = plays(pop, acked, |_| renewed(1));
    let client = client(&server.url, "");
    let options = ConsumeOptions {
        concurrency: 4,
        ..ConsumeOptions::default()
    };
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let consumer = client
        .queue("q")
        .consume_with(options, move |_| {
            busy.fetch_add(1, Ordering::SeqCst);
            gate.lock().unwrap().recv_timeout(LONG).unwrap();
        })
        .unwrap();
    let finished = consumer.finished();
    // The handler that runs is waited for, and its verdict is sent.
    assert!(!finished.wait_for(Duration::from_millis(500)).unwrap());
    go.send(()).unwrap();
    let error = finished.wait(LONG).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Forbidden);
    let summary: Value = serde_json::from_str(error.result_json().unwrap()).unwrap();
    assert_eq!(
        (&summary["reason"], &summary["acked"]),
        (&json!("error"), &json!(1))
    );
    assert_eq!(requests(&server, "/ack").len(), 1);
    // Nobody goes on in the background.
    let polls = requests(&server, "/pop").len();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((polls, requests(&server, "/pop").len()), (5, 5));
}

#[test]
fn c2_an_empty_poll_is_followed_by_another() {
    for wait in [true, false] {
        let server = plays(|_| nothing(), acked, |_| renewed(1));
        let client = client(&server.url, "");
        let options = ConsumeOptions {
            wait,
            poll_timeout_millis: 20_000,
            ..ConsumeOptions::default()
        };
        let consumer = client.queue("q").consume_with(options, |_| ()).unwrap();
        until("eight polls", || server.count() >= 8);
        consumer.stop(LONG).wait(LONG).unwrap();
        let polls = requests(&server, "/pop");
        assert_eq!(polls[0].line.contains("wait=true&timeout=20000"), wait);
        // A broker that does not wait, asked to or not, is not asked without a pause.
        // Six pauses of 100 ms, seen from where some may have come late.
        assert!(polls[7].at - polls[1].at >= Duration::from_millis(300));
    }
}

#[test]
fn c14_c15_x25_x29_x31_q16_a_poll_says_what_was_asked_for() {
    let server = plays(|_| nothing(), acked, |_| renewed(1));
    let client = client(&server.url, "");
    let options: ConsumeOptions = ConsumeOptions::parse(
        r#"{"queue":"a/b c?d#e","partition":"ü/%","consumerGroup":"g&h=1","batch":7,"partitions":3,
            "pollTimeoutMillis":1234,"leaseSeconds":9,"subscriptionMode":"whatever","subscriptionFrom":"2026-01-01T00:00:00+01:00"}"#,
    )
    .unwrap();
    let consumer = client.queue("q").consume_with(options, |_| ()).unwrap();
    until("a poll", || server.count() >= 1);
    consumer.stop(LONG).wait(LONG).unwrap();
    assert_eq!(
        server.seen()[0].line,
        "GET /api/v1/pop/queue/a%2Fb%20c%3Fd%23e/partition/%C3%BC%2F%25?batch=7&wait=true&timeout=1234&leaseSeconds=9\
         &partitions=3&consumerGroup=g%26h%3D1&subscriptionMode=whatever&subscriptionFrom=2026-01-01T00%3A00%3A00%2B01%3A00"
    );
    // By namespace and task, and with nothing that was not set.
    let options = ConsumeOptions::parse(r#"{"namespace":"n/1","task":"t 2"}"#).unwrap();
    let sink = ConsumerSink::Handler(Box::new(|_| Settlement::Ack));
    let consumer = client.consume(options, sink).unwrap();
    until("a poll", || !requests(&server, "/pop?").is_empty());
    consumer.stop(LONG).wait(LONG).unwrap();
    assert_eq!(
        requests(&server, "/pop?")[0].line,
        "GET /api/v1/pop?batch=1&wait=true&timeout=30000&leaseSeconds=60&namespace=n%2F1&task=t%202"
    );
}

#[test]
fn c11_v13_e5_consumers_and_pops_of_one_key_go_to_one_broker() {
    let servers: Vec<_> = (0..3)
        .map(|_| plays(|_| nothing(), acked, |_| renewed(1)))
        .collect();
    let urls: Vec<_> = servers.iter().map(|server| &*server.url).collect();
    let mut used = Vec::new();
    // They differ early on: keys that differ in their last letter alone are neighbours on the ring.
    for group in 'a'..='l' {
        let before: Vec<_> = servers.iter().map(Script::count).collect();
        let client = Client::new(&json!({ "urls": urls }).to_string()).unwrap();
        let queue = client.queue("orders").group(format!("{group}-workers"));
        let polls = AtomicUsize::new(0);
        let options = ConsumeOptions {
            concurrency: 2,
            ..ConsumeOptions::default()
        };
        let consumer = queue.consume_with(options, |_| ()).unwrap();
        until("four polls", || {
            let now: usize = servers.iter().map(Script::count).sum();
            polls.store(now - before.iter().sum::<usize>(), Ordering::SeqCst);
            polls.load(Ordering::SeqCst) >= 4
        });
        consumer.stop(LONG).wait(LONG).unwrap();
        queue.pop().wait(LONG).unwrap();
        let now = servers.iter().map(Script::count);
        let asked: Vec<_> = now.zip(before).map(|(now, before)| now > before).collect();
        assert_eq!(asked.iter().filter(|asked| **asked).count(), 1, "{asked:?}");
        used.push(asked.iter().position(|asked| *asked));
    }
    used.sort();
    used.dedup();
    assert!(used.len() > 1, "all groups at one broker");
}

/// A server whose first pop brings three messages, but late.
fn late() -> (Script, mpsc::Sender<()>) {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let pop = move |number| {
        if number > 0 {
            return nothing();
        }
        gate.lock().unwrap().recv_timeout(LONG).unwrap();
        script::json(200, &messages(&[("p", 2), ("r", 1)]).to_string())
    };
    (plays(pop, acked, |_| renewed(2)), go)
}

#[test]
fn c13_x37_what_comes_after_a_stop_is_given_back_uncharged() {
    let (server, go) = late();
    let client = client(&server.url, r#""cancelGraceMillis":30000"#);
    let consumer = client
        .queue("q")
        .consume(|_| -> Settlement { panic!("handled") })
        .unwrap();
    until("the poll", || server.count() == 1);
    let stop = consumer.stop(LONG);
    assert_eq!(stop.wait(LONG).unwrap().messages, 0, "it does not wait");
    go.send(()).unwrap();
    until("both partitions are given back", || {
        requests(&server, "/ack").iter().flat_map(acks).count() == 2
    });
    let mut given: Vec<_> = requests(&server, "/ack").iter().flat_map(acks).collect();
    given.sort_by_key(|ack| ack["transactionId"].to_string());
    let told: Vec<_> = given
        .iter()
        .map(|ack| (ack["transactionId"].clone(), ack["status"].clone()))
        .collect();
    assert_eq!(
        told,
        [
            ("p-0".into(), "retry".into()),
            ("r-0".into(), "retry".into())
        ]
    );
    assert!(given.iter().all(|ack| ack["leaseId"] == "L"));
    client.close(LONG).wait(LONG).unwrap();
}

#[test]
fn x30_what_is_committed_is_handled_after_a_stop() {
    let (server, go) = late();
    let client = client(&server.url, r#""cancelGraceMillis":30000"#);
    let options = ConsumeOptions {
        commit_on_delivery: true,
        each: true,
        batch: Some(3),
        partitions: Some(2),
        ..ConsumeOptions::default()
    };
    let consumer = client.queue("q").consume_with(options, |_| ()).unwrap();
    until("the poll", || server.count() == 1);
    consumer.stop_signal().stop();
    go.send(()).unwrap();
    let summary = ended(&consumer);
    assert_eq!(
        (summary.reason, summary.messages, summary.acked),
        (StopReason::Stopped, 3, 3)
    );
    // Even though this broker names a lease.
    assert!(requests(&server, "/ack").is_empty());
}

#[test]
fn brokers_that_know_no_giving_back_are_left_alone() {
    let mut old = messages(&[("p", 2)]);
    old.as_object_mut().unwrap().remove("partitionsClaimed");
    let server = plays(hands_out([old]), acked, |_| renewed(1));
    let client = client(&server.url, "");
    let pop = PopOptions {
        wait: true,
        batch: 2,
        ..PopOptions::default()
    };
    let delivery = client.queue("q").pop_with(&pop).wait(LONG).unwrap().take();
    drop(delivery.unwrap());
    client.close(LONG).wait(LONG).unwrap();
    assert!(requests(&server, "/ack").is_empty(), "it would be charged");
}

#[test]
fn c8_idle_ends_on_time_where_a_broker_says_nothing() {
    let server = plays(|_| Reply::Silence, acked, |_| renewed(1));
    let client = client(&server.url, r#""timeoutMillis":3600000"#);
    let options = ConsumeOptions {
        idle_millis: Some(300),
        concurrency: 2,
        ..ConsumeOptions::default()
    };
    let consumer = client.queue("q").consume_with(options, |_| ()).unwrap();
    assert_eq!(ended(&consumer).reason, StopReason::Idle);
    assert_eq!(requests(&server, "/pop").len(), 2);
}

#[test]
fn c45_the_wait_for_a_place_is_part_of_the_wait() {
    // The first takes the only place for as long as the test takes.
    let server = plays(
        |number| match number {
            0 => Reply::Silence,
            _ => nothing(),
        },
        acked,
        |_| renewed(1),
    );
    let client = client(&server.url, r#""maxParkedPolls":1"#);
    let patient = |poll_timeout_millis| PopOptions {
        wait: true,
        poll_timeout_millis,
        ..PopOptions::default()
    };
    let queue = client.queue("q");
    let parked = queue.pop_with(&patient(3_600_000));
    until("it is parked", || server.count() == 1);
    // Two find no place in time: they look, and do not wait at the broker.
    let (one, two) = (queue.pop_with(&patient(200)), queue.pop_with(&patient(300)));
    assert!(one.wait(LONG).unwrap().is_empty() && two.wait(LONG).unwrap().is_empty());
    let polls = requests(&server, "/pop");
    assert!(polls[0].line.contains("wait=true"));
    assert!(polls[1..].iter().all(|poll| !poll.line.contains("wait")));
    // One that gets the place late waits for what is left.
    let third = queue.pop_with(&patient(60_000));
    std::thread::sleep(Duration::from_millis(300));
    parked.cancel();
    assert!(third.wait(LONG).unwrap().is_empty());
    let line = requests(&server, "/pop").pop().unwrap().line;
    let asked = line.split("timeout=").nth(1).unwrap();
    let asked: u64 = asked.split('&').next().unwrap().parse().unwrap();
    assert!((30_000..=59_700).contains(&asked), "{line}");
}

#[test]
fn d27_q11_c22_a_pop_waits_only_where_it_is_told_to() {
    let server = plays(|_| nothing(), acked, |_| renewed(1));
    let client = client(&server.url, "");
    client.queue("q").pop().wait(LONG).unwrap();
    client
        .pop(None, None, &PopOptions::parse(r#"{"task":"t"}"#).unwrap())
        .wait(LONG)
        .unwrap();
    assert!(server.seen().iter().all(|seen| !seen.line.contains("wait")));
}
