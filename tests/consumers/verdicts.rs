//! What is sent of a handler's answer, and what becomes of the broker's.

use super::*;

#[test]
fn c58_an_ack_that_fails_is_sent_again_and_never_a_nack() {
    let fails = AtomicUsize::new(0);
    let ack = move |seen: &Seen| match fails.fetch_add(1, Ordering::SeqCst) {
        0 => script::json(500, r#"{"error":"pool"}"#),
        1 => Reply::Reset,
        _ => acked(seen),
    };
    let server = plays(hands_out([messages(&[("p", 2)])]), ack, |_| renewed(1));
    let client = client(&server.url, "");
    let options = ConsumeOptions {
        batch: Some(2),
        limit: Some(2),
        ..ConsumeOptions::default()
    };
    let handled = Arc::new(AtomicUsize::new(0));
    let count = handled.clone();
    let consumer = client
        .queue("q")
        .consume_with(options, move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
    let summary = ended(&consumer);
    assert_eq!((summary.acked, handled.load(Ordering::SeqCst)), (2, 1));
    let sent = requests(&server, "/ack");
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|again| again.body == sent[0].body));
    assert!(
        sent.iter()
            .flat_map(acks)
            .all(|ack| ack["status"] == "completed")
    );
}

#[test]
fn c18_x42_a_refused_ack_is_seen() {
    let lease = "Invalid or expired lease";
    for (which, text, code) in [
        (Some("p-1"), "consumer not found", ErrorCode::Partial),
        (Some("p-2"), lease, ErrorCode::LeaseLost),
        (None, lease, ErrorCode::LeaseLost),
    ] {
        let refuse = move |seen: &Seen| {
            verdicts_with(seen, |ack| {
                match which.is_none_or(|id| ack["transactionId"] == id) {
                    true => json!(text),
                    false => Value::Null,
                }
            })
        };
        let server = plays(hands_out([messages(&[("p", 3)])]), refuse, |_| renewed(1));
        let client = client(&server.url, "");
        let pop = PopOptions {
            wait: true,
            batch: 3,
            ..PopOptions::default()
        };
        let popped = client.queue("q").pop_with(&pop).wait(LONG).unwrap();
        let error = popped.take().unwrap().ack().wait(LONG).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(text), "{error}");
        let results: Vec<Value> = serde_json::from_str(error.result_json().unwrap()).unwrap();
        for result in results {
            let refused = which.is_none_or(|id| result["transactionId"] == id);
            assert_eq!(result["success"], !refused);
            assert_eq!(result["error"] == text, refused);
        }
    }
}

#[test]
fn acks_carry_the_lease_of_their_delivery_and_its_group() {
    let server = plays(hands_out([messages(&[("p", 2)])]), acked, |_| renewed(1));
    let client = client(&server.url, "");
    let options = ConsumeOptions {
        each: true,
        batch: Some(2),
        limit: Some(2),
        ..ConsumeOptions::default()
    };
    let consumer = client
        .queue("q")
        .group("readers")
        .consume_with(options, |delivery| match delivery.messages()[0].payload() {
            "0" => Ok(()),
            _ => Err("not today"),
        })
        .unwrap();
    let summary = ended(&consumer);
    assert_eq!((summary.acked, summary.nacked), (1, 1));
    let sent = requests(&server, "/ack");
    assert!(
        sent.iter()
            .all(|sent| sent.body.contains(r#""consumerGroup":"readers""#))
    );
    let sent: Vec<_> = sent.iter().flat_map(acks).collect();
    assert_eq!(
        sent,
        [
            json!({ "transactionId": "p-0", "partitionId": "uuid-p", "leaseId": "L", "status": "completed" }),
            json!({
                "transactionId": "p-1", "partitionId": "uuid-p", "leaseId": "L", "status": "failed", "error": "not today"
            }),
        ]
    );
}

/// The first attempt may have ended the lease, so that the second one is refused: the broker is asked what became of it.
#[test]
fn c18_c58_an_ack_whose_answer_was_lost_counts_if_it_was_applied() {
    for (consumed, cut) in [(true, true), (false, true), (true, false)] {
        let attempts = AtomicUsize::new(0);
        let lease = |seen: &Seen| verdicts_with(seen, |_| json!("invalid or expired lease"));
        let server = Script::start(move |seen| match &*seen.line {
            line if line.contains("/pop") => script::json(200, &messages(&[("p", 2)]).to_string()),
            line if line.contains("/messages/uuid-p/p-1") => {
                let groups =
                    json!([{ "name": "readers", "group": "readers", "consumed": consumed }]);
                script::json(200, &json!({ "consumerGroups": groups }).to_string())
            }
            _ if cut && attempts.fetch_add(1, Ordering::SeqCst) == 0 => Reply::Reset,
            _ => lease(seen),
        });
        let client = client(&server.url, "");
        let pop = PopOptions {
            wait: true,
            batch: 2,
            ..PopOptions::default()
        };
        let queue = client.queue("q").group("readers");
        let delivery = queue.pop_with(&pop).wait(LONG).unwrap().take().unwrap();
        let acked = delivery.ack().wait(LONG);
        // Without a lost answer there is no doubt, and nothing to ask for.
        assert_eq!(requests(&server, "/messages/").len(), usize::from(cut));
        match acked {
            Ok(results) => {
                assert!(consumed && cut);
                assert!(results.iter().all(|one| one.success && one.noop));
                assert!(!delivery.is_lost());
                assert_eq!(client.stats().messages.acked, 2);
            }
            Err(error) => {
                assert!(!(consumed && cut), "{error}");
                assert_eq!(error.code(), ErrorCode::LeaseLost);
                assert_eq!(client.stats().messages.refused_verdicts, 2);
            }
        }
    }
}

/// As many acks by ids of one partition under the lease `L`.
fn by_ids(count: usize) -> Vec<queen::Ack> {
    let acks: Vec<_> = (0..count)
        .map(|n| json!({ "transactionId": format!("p-{n}"), "partitionId": "uuid-p", "leaseId": "L" }))
        .collect();
    queen::Ack::parse_list(&json!(acks).to_string()).unwrap()
}

#[test]
fn c18_c58_acks_by_ids_count_where_an_attempt_was_applied_whose_answer_was_lost() {
    for consumed in [true, false] {
        let attempts = AtomicUsize::new(0);
        let server = Script::start(move |seen| match &*seen.line {
            line if line.contains("/messages/uuid-p/p-1") => {
                let groups =
                    json!([{ "name": "readers", "group": "readers", "consumed": consumed }]);
                script::json(200, &json!({ "consumerGroups": groups }).to_string())
            }
            _ if attempts.fetch_add(1, Ordering::SeqCst) == 0 => Reply::Reset,
            _ => verdicts_with(seen, |_| json!("invalid or expired lease")),
        });
        let client = client(&server.url, r#""retryDelayMillis":1"#);
        let options = queen::AckOptions {
            group: Some("readers".into()),
            ..queen::AckOptions::default()
        };
        match client.ack(by_ids(2), &options).wait(LONG) {
            Ok(results) => {
                assert!(consumed);
                assert!(results.iter().all(|one| one.success && one.noop));
                let places: Vec<_> = results.iter().map(|one| one.index).collect();
                assert_eq!(places, [0, 1]);
            }
            Err(error) => assert!(!consumed, "{error}"),
        }
    }
}

#[test]
fn an_ack_that_the_broker_cannot_look_at_is_sent_again() {
    for text in ["pool", "ack flush failed; lease will expire and redeliver"] {
        let attempts = AtomicUsize::new(0);
        let ack = move |seen: &Seen| match attempts.fetch_add(1, Ordering::SeqCst) {
            0 => verdicts_with(seen, |_| json!(text)),
            // Some are looked at, and some are not.
            1 => verdicts_with(seen, |ack| match &ack["transactionId"] == "p-0" {
                true => Value::Null,
                false => json!(text),
            }),
            _ => acked(seen),
        };
        let server = plays(hands_out([messages(&[("p", 2)])]), ack, |_| renewed(1));
        let client = client(&server.url, "");
        let pop = PopOptions {
            batch: 2,
            ..PopOptions::default()
        };
        let delivery = client.queue("q").pop_with(&pop).wait(LONG).unwrap().take();
        let results = delivery.unwrap().ack().wait(LONG).unwrap();
        assert!(results.iter().all(|result| result.success));
        assert_eq!(requests(&server, "/ack").len(), 3);
        assert_eq!(client.stats().messages.acked, 2);
        // Acks by ids as well.
        client
            .ack(by_ids(2), &queen::AckOptions::default())
            .wait(LONG)
            .unwrap();
        // What nothing fences is told at once: a failure that is told twice counts twice.
        let server = plays(
            |_| nothing(),
            move |seen| verdicts_with(seen, |_| json!(text)),
            |_| renewed(1),
        );
        let client = self::client(&server.url, "");
        let mut acks = by_ids(1);
        acks[0].lease_id = Some(String::new());
        acks[0].status = queen::Status::Failed;
        let unfenced = queen::AckOptions {
            unfenced: true,
            ..queen::AckOptions::default()
        };
        client.ack(acks, &unfenced).wait(LONG).unwrap_err();
        assert_eq!(requests(&server, "/ack").len(), 1);
        assert!(!requests(&server, "/ack")[0].body.contains("leaseId"));
    }
}

#[test]
fn an_ack_whose_fate_is_unknown_makes_a_lease_doubtful_and_not_lost() {
    let server = plays(
        hands_out([messages(&[("p", 1)])]),
        |_| Reply::Reset,
        |_| renewed(1),
    );
    let client = client(&server.url, r#""timeoutMillis":400"#);
    let (consumer, events) = events(&client, ConsumeOptions::default());
    let delivery = delivery(&events);
    let error = delivery.ack().wait(LONG).unwrap_err();
    assert_eq!(error.outcome(), queen::Outcome::Unknown);
    let told = events.recv_timeout(LONG).unwrap();
    let ConsumerEvent::LeaseLost { json } = told else {
        panic!("{told:?}");
    };
    assert!(json.contains(r#""certain":false"#), "{json}");
    consumer.stop(LONG).wait(LONG).unwrap();
    assert_eq!(client.stats().leases.lost, 0);
}

#[test]
fn x38_the_summary_counts_no_verdict_on_what_was_not_handed_over() {
    // Ten come, one is handed over; the handler settles all by their ids.
    let server = plays(hands_out([messages(&[("p", 10)])]), acked, |_| renewed(1));
    let client = client(&server.url, "");
    let options = ConsumeOptions {
        batch: Some(10),
        each: true,
        limit: Some(1),
        ..ConsumeOptions::default()
    };
    let inside = client.clone();
    let consumer = client
        .queue("q")
        .consume_with(options, move |_| {
            let acks = by_ids(10);
            drop(inside.ack(acks, &queen::AckOptions::default()).wait(LONG));
        })
        .unwrap();
    let summary = ended(&consumer);
    assert_eq!(
        (summary.messages, summary.acked, summary.unsettled),
        (1, 1, 0)
    );
}
