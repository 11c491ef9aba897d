//! Renewal of leases, and what a consumer learns when one is lost.

use super::*;

/// One message at a time under leases of a second.
fn short() -> ConsumeOptions {
    ConsumeOptions {
        batch: Some(10),
        lease_seconds: 1,
        ..ConsumeOptions::default()
    }
}

fn extends(server: &Script) -> usize {
    requests(server, "/extend").len()
}

/// Sees that no more renewals come, but for one on its way.
fn rests(server: &Script) {
    until("the renewals end", || {
        let before = extends(server);
        std::thread::sleep(Duration::from_millis(1200));
        extends(server) == before
    });
}

#[test]
fn c9_q20_v12_c55_one_renewal_per_lease_until_the_last_verdict_is_answered() {
    let slow = |seen: &Seen| {
        std::thread::sleep(Duration::from_millis(1500));
        acked(seen)
    };
    let pop = hands_out([messages(&[("p", 3), ("r", 2)])]);
    let server = Arc::new(plays(pop, slow, |_| renewed(2)));
    let client = client(&server.url, "");
    let options = ConsumeOptions {
        partitions: Some(2),
        limit: Some(1),
        ..short()
    };
    let (watched, before) = (server.clone(), Arc::new(AtomicUsize::new(0)));
    let count = before.clone();
    let consumer = client
        .queue("q")
        .consume_with(options, move |_| {
            until("two renewals", || extends(&watched) >= 2);
            count.store(extends(&watched), Ordering::SeqCst);
        })
        .unwrap();
    let summary = ended(&consumer);
    // The second partition was given back, because the limit was reached.
    assert_eq!((summary.messages, summary.acked), (3, 3));
    let seen = requests(&server, "/extend");
    assert_eq!(seen[0].line, "POST /api/v1/lease/L/extend");
    assert_eq!(seen[0].body, r#"{"seconds":1}"#);
    assert!(
        seen.len() > before.load(Ordering::SeqCst),
        "renewed while the ack was on its way"
    );
    rests(&server);
}

#[test]
fn c32_a_panic_ends_the_renewal() {
    let server = Arc::new(plays(hands_out([messages(&[("p", 1)])]), acked, |_| {
        renewed(1)
    }));
    let client = client(&server.url, "");
    let options = ConsumeOptions {
        limit: Some(1),
        ..short()
    };
    let watched = server.clone();
    let consumer = client
        .queue("q")
        .consume_with(options, move |_| -> Settlement {
            until("a renewal", || extends(&watched) >= 1);
            std::panic::resume_unwind(Box::new("no"))
        })
        .unwrap();
    let summary = ended(&consumer);
    assert_eq!((summary.reason, summary.nacked), (StopReason::Limit, 1));
    let nack = &acks(&requests(&server, "/ack")[0])[0];
    assert_eq!(nack["status"], "failed");
    assert_eq!(nack["error"], "the handler panicked: no");
    rests(&server);
}

#[test]
fn renewal_can_be_switched_off() {
    let server = plays(hands_out([messages(&[("p", 1)])]), acked, |_| renewed(1));
    let client = client(&server.url, "");
    let options = ConsumeOptions {
        renew_lease: false,
        limit: Some(1),
        ..short()
    };
    let consumer = client
        .queue("q")
        .consume_with(options, |_| std::thread::sleep(Duration::from_millis(1200)))
        .unwrap();
    assert_eq!(ended(&consumer).acked, 1);
    assert_eq!(extends(&server), 0);
}

#[test]
fn c40_x44_c19_a_refused_renewal_tells_the_handler() {
    let refuse = |seen: &Seen| verdicts_with(seen, |_| json!("invalid or expired lease"));
    let pop = hands_out([messages(&[("p", 3)])]);
    let server = plays(pop, refuse, |_| refused_renewal());
    let client = client(&server.url, "");
    let options = ConsumeOptions {
        each: true,
        limit: Some(3),
        ..short()
    };
    let (handled, calls) = mpsc::channel();
    let handled = Mutex::new(handled);
    let consumer = client
        .queue("q")
        .consume_with(options, move |delivery: Delivery| {
            until("the loss", || delivery.is_lost());
            // The broker decides, so its answer is asked for all the same.
            let error = delivery.ack().wait(LONG).unwrap_err();
            handled.lock().unwrap().send(error.code()).unwrap();
        })
        .unwrap();
    assert_eq!(calls.recv_timeout(LONG).unwrap(), ErrorCode::LeaseLost);
    let summary = consumer.stop(LONG).wait(LONG).unwrap();
    // What lay behind comes again, so nobody has handled it.
    assert_eq!((summary.messages, summary.unsettled), (1, 1));
    assert!(calls.try_recv().is_err());
    assert_eq!(extends(&server), 1, "a lease that is over is not renewed");
    assert_eq!(requests(&server, "/ack").len(), 1);
    assert_eq!(client.stats().leases.lost, 1);
}

#[test]
fn c40_x44_events_tell_doubt_and_then_certainty() {
    let pop = hands_out([messages(&[("p", 1), ("r", 1)])]);
    let extend = |number| match number {
        0 => renewed(2),
        1 => renewed(1),
        _ => refused_renewal(),
    };
    let server = plays(pop, acked, extend);
    let client = client(&server.url, "");
    let options = ConsumeOptions {
        concurrency: 1,
        partitions: Some(2),
        each: true,
        ordered: false,
        ..short()
    };
    let (consumer, events) = events(&client, options);
    let first = delivery(&events);
    let mut told = Vec::new();
    while told.len() < 4 {
        match events.recv_timeout(LONG) {
            Ok(ConsumerEvent::LeaseLost { json }) => {
                let lost: Value = serde_json::from_str(&json).unwrap();
                assert_eq!(
                    (&lost["queue"], &lost["leaseId"]),
                    (&json!("q"), &json!("L"))
                );
                told.push((
                    lost["partition"].to_string(),
                    lost["certain"].as_bool().unwrap(),
                ));
            }
            other => panic!("{other:?}"),
        }
    }
    // Each partition in doubt once, then lost once.
    let (mut doubts, mut losses) = (told[..2].to_vec(), told[2..].to_vec());
    doubts.sort();
    losses.sort();
    let both = |certain| [("\"p\"".to_owned(), certain), ("\"r\"".to_owned(), certain)];
    assert_eq!((doubts, losses), (both(false).into(), both(true).into()));
    assert!(first.is_lost());
    drop(first);
    consumer.stop(LONG).wait(LONG).unwrap();
}

#[test]
fn a_verdict_on_its_way_is_no_lost_lease() {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let pop = hands_out([messages(&[("p", 1), ("r", 1)])]);
    // The broker has ended the claim of `p`, but its answer takes its time.
    let ack = move |seen: &Seen| {
        if acks(seen)[0]["transactionId"] == "p-0" {
            gate.lock().unwrap().recv_timeout(LONG).unwrap();
        }
        acked(seen)
    };
    let server = plays(pop, ack, |_| renewed(1));
    let client = client(&server.url, "");
    let options = ConsumeOptions {
        partitions: Some(2),
        ..short()
    };
    let (consumer, events) = events(&client, options);
    let settled = delivery(&events).ack();
    let second = delivery(&events);
    let seen = extends(&server);
    until("three renewals", || extends(&server) >= seen + 3);
    go.send(()).unwrap();
    settled.wait(LONG).unwrap();
    second.ack().wait(LONG).unwrap();
    let summary = consumer.stop(LONG).wait(LONG).unwrap();
    assert_eq!(summary.acked, 2);
    match events.recv_timeout(LONG) {
        Ok(ConsumerEvent::Ended(_)) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn c40_a_broker_that_is_away_for_longer_than_the_lease_raises_a_doubt() {
    let away = |_| script::json(500, r#"{"error":"away"}"#);
    let server = plays(hands_out([messages(&[("p", 1)])]), acked, away);
    let client = client(&server.url, r#""retryAttempts":1"#);
    let (consumer, events) = events(&client, short());
    let began = Instant::now();
    let first = delivery(&events);
    match events.recv_timeout(LONG) {
        Ok(ConsumerEvent::LeaseLost { json }) => assert!(json.contains(r#""certain":false"#)),
        other => panic!("{other:?}"),
    }
    assert!(
        began.elapsed() >= Duration::from_millis(900),
        "not before its end"
    );
    // Perhaps it is not lost: the verdict is sent.
    assert!(!first.is_lost());
    first.ack().wait(LONG).unwrap();
    assert_eq!(consumer.stop(LONG).wait(LONG).unwrap().acked, 1);
    assert!(client.stats().leases.failed_renewals >= 1);
}

#[test]
fn max_handling_seconds_ends_a_delivery() {
    let server = plays(hands_out([messages(&[("p", 1)])]), acked, |_| renewed(1));
    let client = client(&server.url, "");
    let options = ConsumeOptions {
        max_handling_seconds: 2,
        ..short()
    };
    let (consumer, events) = events(&client, options);
    let first = delivery(&events);
    match events.recv_timeout(LONG) {
        Ok(ConsumerEvent::LeaseLost { json }) => assert!(json.contains(r#""certain":true"#)),
        other => panic!("{other:?}"),
    }
    assert!(first.is_lost());
    assert_eq!(
        first.ack().wait(LONG).unwrap_err().code(),
        ErrorCode::LeaseLost
    );
    rests(&server);
    consumer.stop(LONG).wait(LONG).unwrap();
}

#[test]
fn c9_an_old_broker_is_asked_early_because_it_has_its_own_lease_time() {
    let mut old = messages(&[("p", 1)]);
    old.as_object_mut().unwrap().remove("partitionsClaimed");
    let server = Arc::new(plays(hands_out([old]), acked, |_| renewed(1)));
    let client = client(&server.url, "");
    let seen = server.clone();
    let options = ConsumeOptions {
        lease_seconds: 3600,
        limit: Some(1),
        ..ConsumeOptions::default()
    };
    let consumer = client
        .queue("q")
        .consume_with(options, move |_| until("a renewal", || extends(&seen) == 1))
        .unwrap();
    assert_eq!(ended(&consumer).acked, 1);
}

#[test]
fn x11_renewals_of_several_leases_have_the_outcome_of_their_parts() {
    let server = Script::start(|seen| match &*seen.line {
        line if line.contains("/lease/a/") => renewed(1),
        line if line.contains("/lease/b/") => refused_renewal(),
        _ => Reply::Reset,
    });
    let client = client(&server.url, r#""retryAttempts":1"#);
    let outcome = |ids: &[&str]| {
        let ids: Vec<String> = ids.iter().map(|id| id.to_string()).collect();
        let error = client
            .renew_many(&ids, 10, &queen::RenewOptions::default())
            .wait(LONG)
            .unwrap_err();
        let results: Vec<Value> = serde_json::from_str(error.result_json().unwrap()).unwrap();
        assert_eq!(results.len(), ids.len());
        assert!(
            results
                .iter()
                .zip(&ids)
                .all(|(result, id)| &result["leaseId"] == id)
        );
        (error.code(), error.outcome())
    };
    assert_eq!(
        outcome(&["a", "b", "a"]),
        (ErrorCode::Partial, queen::Outcome::Refused)
    );
    assert_eq!(
        outcome(&["a", "b", "c", "b"]),
        (ErrorCode::Partial, queen::Outcome::Unknown)
    );
}
