//! When a consumer ends, and what it leaves behind.

use super::*;

pub(crate) const TESTS: Tests = tests![
    c7_q17_c10_the_limit_is_per_worker_and_counts_failures,
    c7_a_limit_never_shrinks_a_batch,
    x39_c10_c37_limit_total_counts_across_workers_and_leaves_nothing_leased,
    limit_total_counts_what_is_handed_over_again,
    x30_c3_what_is_committed_on_delivery_is_never_acked,
    x30_events_of_committed_messages_wait_for_their_reader,
    c8_q17_idle_ends_on_time,
    c13_c17_c38_x37_a_stop_interrupts_parked_polls,
    c33_a_consumer_that_is_dropped_ends_its_workers,
    x38_the_summary_has_a_reason,
    what_is_given_back_is_never_a_dead_letter,
];

fn workers(count: u64) -> ConsumeOptions {
    ConsumeOptions {
        concurrency: count,
        ..ConsumeOptions::default()
    }
}

/// Fills partitions `p0`, `p1`, … with as many messages each.
fn fill(queue: &Queue, partitions: u32, each: u32) {
    for partition in 0..partitions {
        push(&queue.clone().partition(format!("p{partition}")), 0..each);
    }
}

/// Pops and acks that many messages, which must be free, and sees that there are no more.
fn holds(queue: &Queue, messages: usize) {
    let mut count = 0;
    while count < messages {
        // It waits, because the official broker may overlook what has just become free.
        let popped = queue.pop_with(&batch(100)).wait(LONG).unwrap();
        let delivery = popped.take();
        let delivery = delivery.unwrap_or_else(|| panic!("{count} of {messages} are free"));
        count += delivery.messages().len();
        delivery.ack().wait(LONG).unwrap();
    }
    assert_eq!(count, messages);
    assert!(pop_now(queue, 1).is_none());
}

fn c7_q17_c10_the_limit_is_per_worker_and_counts_failures(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    queue
        .create(QueueOptions::new().lease_time_seconds(600).retry_limit(9))
        .wait(LONG)?;
    fill(&queue, 8, 2);
    let failed = AtomicUsize::new(0);
    let options = ConsumeOptions {
        limit: Some(3),
        ..workers(4)
    };
    let consumer = queue.consume_with(options, move |_| {
        match failed.fetch_add(1, Ordering::SeqCst) < 2 {
            true => Settlement::Nack,
            false => Settlement::Ack,
        }
    })?;
    let summary = consumer.finished().wait(LONG)?;
    assert_eq!(
        (
            summary.reason,
            summary.messages,
            summary.acked,
            summary.nacked
        ),
        (StopReason::Limit, 12, 10, 2)
    );
    // The rest is free at once.
    holds(&queue, 6);
    close(client)
}

fn c7_a_limit_never_shrinks_a_batch(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..8);
    let options = ConsumeOptions {
        batch: Some(5),
        limit: Some(3),
        ..ConsumeOptions::default()
    };
    let consumer = queue.consume_with(options.clone(), |_| Settlement::Ack)?;
    assert_eq!(consumer.finished().wait(LONG)?.messages, 5);
    holds(&queue, 3);
    // One by one the limit is exact, and the rest of the batch goes back.
    push(&queue, 0..5);
    let options = ConsumeOptions {
        each: true,
        ..options
    };
    let consumer = queue.consume_with(options, |_| Settlement::Ack)?;
    assert_eq!(consumer.finished().wait(LONG)?.messages, 3);
    holds(&queue, 2);
    close(client)
}

fn x39_c10_c37_limit_total_counts_across_workers_and_leaves_nothing_leased(
    broker: &TestBroker,
) -> Tested {
    let client = client(broker);
    for (batch, each) in [(1, false), (4, false), (10, false), (10, true)] {
        let queue = fresh(&client);
        // A lease of ten minutes would keep what is not given back.
        queue
            .create(QueueOptions::new().lease_time_seconds(600))
            .wait(LONG)?;
        fill(&queue, 6, 4);
        let options = ConsumeOptions {
            limit_total: Some(10),
            lease_seconds: 600,
            batch: Some(batch),
            each,
            partitions: Some(3),
            ..workers(4)
        };
        let handled = Arc::new(AtomicUsize::new(0));
        let count = handled.clone();
        let consumer = queue.consume_with(options, move |delivery| {
            count.fetch_add(delivery.messages().len(), Ordering::SeqCst);
        })?;
        let summary = consumer.finished().wait(LONG)?;
        assert_eq!(
            (summary.reason, summary.messages, summary.acked),
            (StopReason::Limit, 10, 10)
        );
        assert_eq!(handled.load(Ordering::SeqCst), 10);
        holds(&queue, 14);
    }
    close(client)
}

fn limit_total_counts_what_is_handed_over_again(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..4);
    let options = ConsumeOptions {
        limit_total: Some(3),
        batch: Some(4),
        each: true,
        ..workers(2)
    };
    // The first message fails each time.
    let consumer = queue.consume_with(options, |_| Settlement::Nack)?;
    let summary = consumer.finished().wait(LONG)?;
    assert_eq!(
        (summary.messages, summary.nacked, summary.unsettled),
        (3, 3, 0)
    );
    holds(&queue, 4);
    close(client)
}

fn x30_c3_what_is_committed_on_delivery_is_never_acked(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..7);
    let options = ConsumeOptions {
        commit_on_delivery: true,
        batch: Some(3),
        limit_total: Some(5),
        ..ConsumeOptions::default()
    };
    let consumer = queue.consume_with(options.clone(), |delivery| {
        assert_eq!(delivery.source().lease_id, "");
        let error = delivery.ack().wait(LONG).unwrap_err();
        assert_eq!(error.code(), ErrorCode::AlreadySettled);
        assert!(error.message().contains("nothing to settle"), "{error}");
        assert!(!delivery.is_lost());
        // Even a failure brings nothing back.
        Settlement::Nack
    })?;
    let summary = consumer.finished().wait(LONG)?;
    assert_eq!(
        (summary.reason, summary.messages, summary.acked),
        (StopReason::Limit, 5, 5)
    );
    assert_eq!((summary.nacked, summary.unsettled), (0, 0));
    // No verdict has reached the broker.
    assert_eq!(client.stats().requests.ack, 0);
    holds(&queue, 2);
    // A single pop knows the same.
    push(&queue, [1]);
    let options = PopOptions {
        wait: true,
        auto_ack: true,
        ..PopOptions::default()
    };
    let delivery = queue.pop_with(&options).wait(LONG)?.take().unwrap();
    assert_eq!(
        delivery.ack().wait(LONG).unwrap_err().code(),
        ErrorCode::AlreadySettled
    );
    drop(delivery);
    holds(&queue, 0);
    close(client)
}

fn x30_events_of_committed_messages_wait_for_their_reader(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..4);
    let options = ConsumeOptions {
        commit_on_delivery: true,
        ..ConsumeOptions::default()
    };
    let reader = Reader::new(&client, &queue, options);
    for n in 0..3 {
        let delivery = reader.message();
        assert_eq!(numbers(&delivery), [n]);
        // One in hand at a time.
        reader.expect_nothing();
    }
    let Reader { consumer, events } = reader;
    // The fourth has come by now or comes; a stop hands it over or leaves it, but loses it never.
    consumer.stop(LONG).wait_for(Duration::from_millis(1))?;
    let mut last = 0;
    while let Ok(event) = events.recv_timeout(LONG) {
        match event {
            ConsumerEvent::Delivery(delivery) => last += delivery.messages().len(),
            ConsumerEvent::Ended(summary) => {
                assert_eq!(summary?.messages, 3 + last);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    holds(&queue, 1 - last);
    close(client)
}

fn c8_q17_idle_ends_on_time(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..2);
    let options = ConsumeOptions {
        idle_millis: Some(2_000),
        ..workers(3)
    };
    let began = Instant::now();
    let consumer = queue.consume_with(options, |_| ())?;
    // A poll would wait for 30 s.
    let summary = consumer.finished().wait(Duration::from_secs(20))?;
    assert_eq!((summary.reason, summary.acked), (StopReason::Idle, 2));
    assert!(began.elapsed() >= Duration::from_millis(2_000));
    close(client)
}

fn c13_c17_c38_x37_a_stop_interrupts_parked_polls(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let consumer = queue.consume_with(workers(3), |_| ())?;
    let began = Instant::now();
    while client.stats().parked_polls < 3 {
        assert!(began.elapsed() < LONG, "the polls do not wait");
        std::thread::sleep(Duration::from_millis(10));
    }
    // A poll would wait for 30 s.
    let summary = consumer.stop(LONG).wait(Duration::from_secs(20))?;
    assert_eq!((summary.reason, summary.messages), (StopReason::Stopped, 0));
    // Nothing is lost to polls that were on their way.
    push(&queue, [1]);
    assert_eq!(numbers(&pop(&queue, 1)), [1]);
    close(client)
}

fn c33_a_consumer_that_is_dropped_ends_its_workers(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let consumer = queue.consume_with(workers(2), |_| ())?;
    let finished = consumer.finished();
    drop(consumer);
    assert_eq!(finished.wait(LONG)?.reason, StopReason::Stopped);
    push(&queue, [1]);
    assert_eq!(numbers(&pop(&queue, 1)), [1]);
    close(client)
}

fn x38_the_summary_has_a_reason(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..3);
    // One worker is at its limit, the other is stopped: that is a stop.
    let options = ConsumeOptions {
        limit: Some(3),
        ..workers(2)
    };
    let consumer = queue.consume_with(options, |_| ())?;
    let began = Instant::now();
    while client.stats().messages.acked < 3 {
        assert!(began.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(10));
    }
    let summary = consumer.stop(LONG).wait(LONG)?;
    assert_eq!((summary.reason, summary.acked), (StopReason::Stopped, 3));
    let consumer = queue.consume(|_| ())?;
    client.close(LONG).wait(LONG)?;
    assert_eq!(consumer.finished().wait(LONG)?.reason, StopReason::Closed);
    Ok(())
}

fn what_is_given_back_is_never_a_dead_letter(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    // The first failure that is charged would be the last.
    queue
        .create(QueueOptions::new().lease_time_seconds(600).retry_limit(0))
        .wait(LONG)?;
    fill(&queue, 4, 3);
    for _ in 0..4 {
        // Stopped with messages in hand that no handler has taken.
        let (entered, wait) = mpsc::channel();
        let entered = Mutex::new(entered);
        let options = ConsumeOptions {
            batch: Some(12),
            partitions: Some(4),
            each: true,
            lease_seconds: 600,
            ..ConsumeOptions::default()
        };
        let (go, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let consumer = queue.consume_with(options, move |delivery| {
            entered.lock().unwrap().send(()).unwrap();
            let _ = gate.lock().unwrap().recv_timeout(LONG);
            // Let go of without a verdict.
            drop(delivery);
            Settlement::Defer
        })?;
        wait.recv_timeout(LONG)?;
        consumer.stop_signal().stop();
        drop(go);
        let summary = consumer.finished().wait(LONG)?;
        assert_eq!((summary.messages, summary.unsettled), (1, 1));
    }
    holds(&queue, 12);
    let listed = call(&client, "dlq.list", json!({ "queue": queue.name() }))?;
    assert_eq!(listed["messages"], json!([]));
    close(client)
}
