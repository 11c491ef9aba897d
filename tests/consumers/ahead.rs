//! Polls that run ahead of the handlers: what they ask for, and what becomes of what they bring.

use super::*;

/// As [`messages`], under a lease of its own.
fn under(lease: &str, partition: &str, count: usize) -> Value {
    let text = messages(&[(partition, count)]).to_string();
    serde_json::from_str(&text.replace(r#""leaseId":"L""#, &format!(r#""leaseId":"{lease}""#)))
        .unwrap()
}

/// What a query asks for.
fn asked(seen: &Seen, key: &str) -> Option<u64> {
    let value = seen.line.split(&format!("{key}=")).nth(1)?;
    value.split(['&', ' ']).next()?.parse().ok()
}

/// Gives each poll the next of these, and none after them.
fn one_by_one<const N: usize>(replies: [Value; N], ack: fn(&Seen) -> Reply) -> Arc<Script> {
    Arc::new(plays(hands_out(replies), ack, |_| renewed(1)))
}

#[test]
fn x37_a_poll_runs_ahead_of_the_handler_and_a_stop_gives_back_what_it_brought() {
    let server = one_by_one([under("A", "p", 1), under("B", "r", 2)], acked);
    let client = client(&server.url, "");
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let consumer = client
        .queue("q")
        .consume(move |_| gate.lock().unwrap().recv_timeout(LONG).unwrap())
        .unwrap();
    until("the next poll", || requests(&server, "/pop").len() >= 2);
    let stop = consumer.stop(LONG);
    // At once, while the handler still runs.
    until("it is given back", || !requests(&server, "/ack").is_empty());
    go.send(()).unwrap();
    let summary = stop.wait(LONG).unwrap();
    assert_eq!((summary.messages, summary.acked), (1, 1));
    client.close(LONG).wait(LONG).unwrap();
    let told = requests(&server, "/ack");
    let told: Vec<_> = told.iter().flat_map(acks).collect();
    let told: Vec<_> = told
        .iter()
        .map(|ack| (ack["leaseId"].clone(), ack["status"].clone()))
        .collect();
    assert_eq!(
        told,
        [
            ("B".into(), "retry".into()),
            ("A".into(), "completed".into())
        ]
    );
}

#[test]
fn nothing_is_fetched_ahead_without_renewal_or_giving_back() {
    let mut old = under("A", "p", 1);
    old.as_object_mut().unwrap().remove("partitionsClaimed");
    let without = ConsumeOptions {
        renew_lease: false,
        ..ConsumeOptions::default()
    };
    let committed = ConsumeOptions {
        commit_on_delivery: true,
        ..ConsumeOptions::default()
    };
    for (first, options) in [
        (under("A", "p", 1), without),
        (under("A", "p", 1), committed),
        (old, ConsumeOptions::default()),
    ] {
        let server = one_by_one([first.clone(), under("B", "r", 1)], acked);
        let client = client(&server.url, "");
        let seen = server.clone();
        let polls = Arc::new(AtomicUsize::new(0));
        let count = polls.clone();
        let options = ConsumeOptions {
            limit: Some(2),
            ..options
        };
        let consumer = client
            .queue("q")
            .consume_with(options, move |_| {
                std::thread::sleep(Duration::from_millis(200));
                count.fetch_max(requests(&seen, "/pop").len(), Ordering::SeqCst);
            })
            .unwrap();
        assert_eq!(ended(&consumer).messages, 2);
        // One poll for the first and one for the second; an old broker is known from its first answer.
        assert_eq!(polls.load(Ordering::SeqCst), 2, "{first}");
    }
}

#[test]
fn x26_the_lease_of_what_was_fetched_ahead_is_renewed() {
    let server = one_by_one([under("A", "p", 1), under("B", "r", 1)], acked);
    let client = client(&server.url, "");
    let seen = server.clone();
    let options = ConsumeOptions {
        lease_seconds: 1,
        limit: Some(2),
        ..ConsumeOptions::default()
    };
    let consumer = client
        .queue("q")
        .consume_with(options, move |delivery| {
            if delivery.source().lease_id == "A" {
                until("both are renewed", || {
                    ["/lease/A/", "/lease/B/"]
                        .iter()
                        .all(|lease| requests(&seen, lease).len() >= 2)
                });
            }
        })
        .unwrap();
    assert_eq!(ended(&consumer).acked, 2);
}

#[test]
fn a_partition_that_becomes_free_is_asked_for_beside_the_poll_that_waits() {
    // The poll that waits is not told; one that does not wait finds the message once the acks are answered, which takes a while.
    let (waiting, answered) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let (free, given) = (answered.clone(), AtomicUsize::new(0));
    let server = Arc::new(Script::start(move |seen| match &*seen.line {
        line if line.contains("/pop") && line.contains("wait=true") => {
            match waiting.fetch_add(1, Ordering::SeqCst) {
                0 => script::json(200, &under("A", "p", 1).to_string()),
                _ => Reply::Silence,
            }
        }
        line if line.contains("/pop") => {
            match free.load(Ordering::SeqCst) > 0 && given.fetch_add(1, Ordering::SeqCst) == 0 {
                true => script::json(200, &under("B", "p", 1).to_string()),
                false => nothing(),
            }
        }
        line if line.contains("/ack") => {
            until("a poll waits", || waiting.load(Ordering::SeqCst) == 2);
            answered.fetch_add(1, Ordering::SeqCst);
            acked(seen)
        }
        _ => renewed(1),
    }));
    let client = client(&server.url, "");
    let options = ConsumeOptions {
        limit: Some(2),
        ..ConsumeOptions::default()
    };
    let consumer = client.queue("q").consume_with(options, |_| ()).unwrap();
    assert_eq!(ended(&consumer).acked, 2);
    let waited = requests(&server, "wait=true").len();
    assert_eq!(waited, 2, "it is left alone");
}

#[test]
fn a_partition_that_a_full_poll_has_cut_is_asked_for_by_its_name() {
    // The broker has lost sight of the rest of `p`: polls of the queue do not find it. How many there are, and how many are asked for.
    let consume = |count: usize, batch: u64| {
        let first = AtomicUsize::new(0);
        let server = Arc::new(Script::start(move |seen| match &*seen.line {
            line if line.contains("/partition/p") => {
                script::json(200, &under("B", "p", count).to_string())
            }
            line if line.contains("/pop") && first.fetch_add(1, Ordering::SeqCst) == 0 => {
                script::json(200, &under("A", "p", count).to_string())
            }
            line if line.contains("wait=true") => Reply::Silence,
            line if line.contains("/pop") => nothing(),
            line if line.contains("/ack") => acked(seen),
            _ => renewed(1),
        }));
        let client = client(&server.url, "");
        let options = ConsumeOptions {
            batch: Some(batch),
            limit: Some(2 * count as u64),
            ..ConsumeOptions::default()
        };
        let consumer = client.queue("q").consume_with(options, |_| ()).unwrap();
        (client, server, consumer)
    };
    let (_client, server, consumer) = consume(3, 3);
    assert_eq!(ended(&consumer).acked, 6);
    let by_name = requests(&server, "/partition/p");
    assert_eq!(by_name.len(), 1);
    assert!(!by_name[0].line.contains("wait=true"), "{by_name:?}");
    // There was room for more, so that nothing was left behind.
    let (_client, server, consumer) = consume(3, 4);
    until("it has looked beside the poll that waits", || {
        !requests(&server, "/ack").is_empty() && requests(&server, "/pop").len() >= 3
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(requests(&server, "/partition/p").is_empty());
    assert_eq!(consumer.stop(LONG).wait(LONG).unwrap().acked, 3);
}

#[test]
fn d18_polls_are_as_large_as_the_handlers_are_fast_unless_the_user_says_how_large() {
    let number = AtomicUsize::new(0);
    let pop = move |seen: &Seen| {
        let number = number.fetch_add(1, Ordering::SeqCst);
        let count = asked(seen, "batch").unwrap() as usize;
        script::json(
            200,
            &under(&format!("L{number}"), &format!("p{number}"), count).to_string(),
        )
    };
    let server = Script::start(move |seen| match &*seen.line {
        line if line.contains("/pop") => pop(seen),
        line if line.contains("/ack") => acked(seen),
        _ => renewed(1),
    });
    let client = client(&server.url, "");
    let consume = |options: ConsumeOptions| {
        let before = requests(&server, "/pop").len();
        let largest = Arc::new(AtomicUsize::new(0));
        let seen = largest.clone();
        let consumer = client
            .queue("q")
            .consume_with(options, move |delivery: Delivery| {
                seen.fetch_max(delivery.messages().len(), Ordering::SeqCst);
            })
            .unwrap();
        assert_eq!(ended(&consumer).unsettled, 0);
        let polls = requests(&server, "/pop").split_off(before);
        let sizes: Vec<_> = polls
            .iter()
            .map(|poll| asked(poll, "batch").unwrap())
            .collect();
        (sizes, largest.load(Ordering::SeqCst))
    };
    let (sizes, largest) = consume(ConsumeOptions {
        limit: Some(3000),
        ..ConsumeOptions::default()
    });
    assert_eq!(largest, 1, "one message for each call");
    assert_eq!(sizes[0], 1);
    assert!(sizes.iter().any(|size| *size >= 16), "{sizes:?}");
    for batch in [1, 7] {
        let (sizes, largest) = consume(ConsumeOptions {
            batch: Some(batch),
            limit: Some(5 * batch),
            ..ConsumeOptions::default()
        });
        assert!(sizes.iter().all(|size| *size == batch), "{sizes:?}");
        assert_eq!(largest as u64, batch);
    }
    // A handler that takes its time gets no more than it can do in a moment.
    let slow = client
        .queue("q")
        .consume_with(
            ConsumeOptions {
                limit: Some(4),
                ..ConsumeOptions::default()
            },
            |_| std::thread::sleep(Duration::from_millis(300)),
        )
        .unwrap();
    assert_eq!(ended(&slow).acked, 4);
    let polls = requests(&server, "/pop");
    assert!(
        polls
            .iter()
            .rev()
            .take(3)
            .all(|poll| asked(poll, "batch") == Some(1))
    );
}
