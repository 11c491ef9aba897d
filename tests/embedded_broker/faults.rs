//! What clients make of faults, and what the clock moves.

use super::*;

#[test]
fn a_push_whose_connection_is_cut_is_repeated_and_stored_once() {
    each(|broker, client| {
        let queue = client.queue("q");
        for action in [
            FaultAction::CutBeforeCommit,
            FaultAction::CutAfterCommit,
            FaultAction::CutInBody,
            FaultAction::NotHttp,
            FaultAction::status(503),
        ] {
            broker
                .add_fault(Fault::new("push", action.clone()).queue("q").times(2))
                .unwrap();
            broker.reset_requests().unwrap();
            assert_eq!(push(&queue, "x").unwrap(), "queued", "{action:?}");
            assert_eq!(broker.requests().unwrap()["push"], 3, "{action:?}");
            let delivery = pop(&queue).unwrap().unwrap();
            delivery.ack().wait(LONG).unwrap();
            assert_eq!(payloads(Some(delivery)), ["x"], "{action:?}");
            assert!(pop(&queue).unwrap().is_none(), "{action:?}");
            assert_eq!(applied(broker), [2]);
            broker.clear_faults().unwrap();
        }
    });
}

#[test]
fn a_pop_is_not_repeated_and_its_messages_come_after_the_lease() {
    each(|broker, client| {
        let queue = client.queue("q");
        push(&queue, "x").unwrap();
        for (action, popped) in [
            (FaultAction::CutBeforeCommit, false),
            (FaultAction::CutAfterCommit, true),
        ] {
            broker.clear_faults().unwrap();
            broker.reset_requests().unwrap();
            broker
                .add_fault(Fault::new("pop", action).times(1))
                .unwrap();
            let error = pop(&queue).unwrap_err();
            assert_eq!(
                (error.code(), error.outcome()),
                (ErrorCode::Network, Outcome::Unknown),
                "{error}"
            );
            assert_eq!(broker.requests().unwrap()["pop"], 1);
            let again = pop(&queue).unwrap();
            assert_eq!(again.is_none(), popped);
            broker.advance_clock(HOUR).wait(LONG).unwrap();
        }
        assert_eq!(payloads(pop(&queue).unwrap()), ["x"]);
    });
}

#[test]
fn a_consumer_settles_once_though_the_answer_to_its_ack_is_lost() {
    each(|broker, client| {
        let queue = client.queue("q");
        push(&queue, "x").unwrap();
        broker
            .add_fault(Fault::new("ack", FaultAction::CutAfterCommit).times(1))
            .unwrap();
        let options = ConsumeOptions {
            limit: Some(1),
            ..ConsumeOptions::default()
        };
        let consumer = queue.consume_with(options, |_| Settlement::Ack).unwrap();
        let summary = consumer.finished().wait(LONG).unwrap();
        assert_eq!((summary.messages, summary.acked), (1, 1));
        assert_eq!(applied(broker), [1]);
        broker.advance_clock(HOUR).wait(LONG).unwrap();
        assert!(pop(&queue).unwrap().is_none());
    });
}

#[test]
fn a_lost_answer_to_the_acks_of_a_whole_delivery_is_no_lost_lease() {
    each(|broker, client| {
        let queue = client.queue("q");
        for payload in ["x", "y"] {
            push(&queue, payload).unwrap();
        }
        let delivery = pop(&queue).unwrap().unwrap();
        broker
            .add_fault(Fault::new("ack", FaultAction::CutAfterCommit).times(1))
            .unwrap();
        let results = delivery.ack().wait(LONG).unwrap();
        assert!(results.len() == 2 && results.iter().all(|result| result.success));
        assert!(!delivery.is_lost());
        assert_eq!(applied(broker), [1]);
        broker.advance_clock(HOUR).wait(LONG).unwrap();
        assert!(pop(&queue).unwrap().is_none());
    });
}

#[test]
fn what_is_no_answer_is_told_as_such() {
    each(|broker, _| {
        // Few attempts, so that they end before the deadline, whatever the machine is busy with.
        let queue = patient(url(broker), 2).queue("q");
        let one = |action| {
            broker.clear_faults().unwrap();
            broker.add_fault(Fault::new("push", action)).unwrap();
        };
        let push = |timeout_millis: Option<u64>| {
            let options = PushOptions {
                timeout_millis,
                ..PushOptions::default()
            };
            let items = [Item::json("x").unwrap()];
            queue.push_with(&items, &options).wait(LONG)
        };
        let is = |error: Error, code| {
            let told = (error.code(), error.outcome());
            assert_eq!(told, (code, Outcome::Unknown), "{error}");
        };
        one(FaultAction::NotJson);
        is(push(None).unwrap_err(), ErrorCode::BadAnswer);
        one(FaultAction::NotHttp);
        is(push(None).unwrap_err(), ErrorCode::BadAnswer);
        one(FaultAction::Hang);
        is(push(Some(700)).unwrap_err(), ErrorCode::Timeout);
        one(FaultAction::status(500));
        assert_eq!(push(None).unwrap_err().http_status(), Some(500));
        one(FaultAction::status(401));
        assert_eq!(push(None).unwrap_err().code(), ErrorCode::Unauthorized);
        // Late is not too late.
        one(FaultAction::Delay { millis: 150 });
        let began = Instant::now();
        assert_eq!(push(None).unwrap()[0].status, "queued");
        assert!(began.elapsed() >= Duration::from_millis(150));
    });
}

#[test]
fn hanging_requests_go_on_when_the_fault_is_removed() {
    each(|broker, client| {
        let fault = broker
            .add_fault(Fault::new("push", FaultAction::Hang))
            .unwrap();
        let pushing = client.queue("q").push(&[Item::json("x").unwrap()]);
        while broker.faults().unwrap()[0].applied == 0 {
            std::thread::yield_now();
        }
        assert!(!pushing.is_complete());
        broker.remove_fault(fault.id).unwrap();
        assert_eq!(pushing.wait(LONG).unwrap()[0].status, "queued");
        let error = broker.remove_fault(fault.id).unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotFound);
    });
}

#[test]
fn a_share_with_a_seed_hits_the_same_requests_each_time() {
    let run = |seed| {
        let broker = EmbeddedBroker::start(testing()).unwrap();
        let client = Client::new(broker.url()).unwrap();
        let fault = Fault::new("push", FaultAction::status(400)).share(0.3, seed);
        broker.add_fault(fault).unwrap();
        let queue = client.queue("q");
        let hit: Vec<bool> = (0..40).map(|_| push(&queue, "x").is_err()).collect();
        assert_eq!(
            applied(&broker),
            [hit.iter().filter(|hit| **hit).count() as u64]
        );
        hit
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn the_clock_moves_leases_delays_and_retention() {
    each(|broker, client| {
        let lease = client.queue("lease");
        push(&lease, "x").unwrap();
        let held = pop(&lease).unwrap();
        assert!(held.is_some() && pop(&lease).unwrap().is_none());
        broker
            .advance_clock(Duration::from_secs(301))
            .wait(LONG)
            .unwrap();
        assert_eq!(payloads(pop(&lease).unwrap()), ["x"]);

        let delayed = client.queue("delayed");
        delayed
            .create(QueueOptions::new().delayed_processing_seconds(600))
            .wait(LONG)
            .unwrap();
        push(&delayed, "y").unwrap();
        assert!(pop(&delayed).unwrap().is_none());
        // A poll that waits sees the time move.
        let waiting = delayed.pop_with(&PopOptions {
            wait: true,
            ..PopOptions::default()
        });
        broker
            .advance_clock(Duration::from_secs(601))
            .wait(LONG)
            .unwrap();
        let came = waiting.wait(LONG).unwrap();
        let came = match came.take() {
            Some(delivery) => Some(delivery),
            // Its own timeout moved as well, if it was there already.
            None => pop(&delayed).unwrap(),
        };
        assert_eq!(payloads(came), ["y"]);

        let kept = client.queue("kept");
        kept.create(
            QueueOptions::new()
                .retention_enabled(true)
                .retention_seconds(3600),
        )
        .wait(LONG)
        .unwrap();
        push(&kept, "z").unwrap();
        broker.advance_clock(2 * HOUR).wait(LONG).unwrap();
        assert!(pop(&kept).unwrap().is_none());
    });
}

#[test]
fn time_stands_still_and_runs_on() {
    let broker = EmbeddedBroker::start(testing()).unwrap();
    let change = |json: &str| {
        broker
            .move_clock(ClockChange::parse(json).unwrap())
            .wait(LONG)
            .unwrap()
    };
    let still = change(r#"{"frozen": true}"#);
    assert!(still.frozen);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(broker.clock().unwrap(), still);
    let moved = change(r#"{"advanceMillis": 1}"#);
    assert!(moved.now > still.now && moved.frozen);
    assert!(!change(r#"{"frozen": false}"#).frozen);
    let error = ClockChange::parse(r#"{"advance": 1}"#).unwrap_err();
    assert!(error.message().contains("advance"), "{error}");
}

#[test]
fn what_cannot_be_done_twice_is_not_repeated() {
    each(|broker, client| {
        let queue = client.queue("q");
        let once = |action: FaultAction, route: &str| {
            broker.clear_faults().unwrap();
            broker.reset_requests().unwrap();
            broker.add_fault(Fault::new(route, action)).unwrap();
        };
        for action in [FaultAction::CutBeforeCommit, FaultAction::CutAfterCommit] {
            once(action, "transaction");
            let mut transaction = client.transaction();
            transaction.push("q", Some("p"), &[Item::json("x").unwrap()]);
            let error = transaction.commit().wait(LONG).unwrap_err();
            assert_eq!(
                (error.code(), error.outcome()),
                (ErrorCode::Network, Outcome::Unknown),
                "{error}"
            );
            assert_eq!(broker.requests().unwrap()["transaction"], 1);
        }
        broker.clear_faults().unwrap();
        assert_eq!(
            payloads(pop(&queue).unwrap()),
            ["x"],
            "one of them was committed"
        );
        once(FaultAction::CutBeforeCommit, "messages");
        let error = client
            .queue("q")
            .dlq()
            .retry("partition", "id")
            .wait(LONG)
            .unwrap_err();
        assert_eq!(
            (error.code(), error.outcome()),
            (ErrorCode::Network, Outcome::Unknown),
            "{error}"
        );
    });
}
