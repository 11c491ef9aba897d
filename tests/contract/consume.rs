//! Consumers, stop and close.

use super::*;

pub(crate) const TESTS: Tests = &[
    (
        "messages_of_a_partition_come_one_by_one_in_order_and_none_twice",
        messages_of_a_partition_come_one_by_one_in_order_and_none_twice,
    ),
    (
        "consumers_keep_the_order_of_partitions",
        consumers_keep_the_order_of_partitions,
    ),
    (
        "q20_v12_c55_a_blocked_handler_keeps_its_lease",
        q20_v12_c55_a_blocked_handler_keeps_its_lease,
    ),
    (
        "a_panicking_handler_is_a_nack",
        a_panicking_handler_is_a_nack,
    ),
    (
        "q18_settled_by_hand_without_auto_ack",
        q18_settled_by_hand_without_auto_ack,
    ),
    (
        "idle_and_limit_end_a_consumer",
        idle_and_limit_end_a_consumer,
    ),
    ("stop_gives_back_and_waits", stop_gives_back_and_waits),
    ("close_names_what_still_runs", close_names_what_still_runs),
    (
        "a_closing_client_lets_its_handlers_push",
        a_closing_client_lets_its_handlers_push,
    ),
    (
        "a_delivery_in_hand_is_not_idleness",
        a_delivery_in_hand_is_not_idleness,
    ),
    (
        "cancelling_a_watcher_leaves_the_consumer_alone",
        cancelling_a_watcher_leaves_the_consumer_alone,
    ),
    (
        "a_close_goes_on_without_its_handle",
        a_close_goes_on_without_its_handle,
    ),
];

fn consumers_keep_the_order_of_partitions(broker: &TestBroker) -> Tested {
    const PARTITIONS: u32 = 8;
    const MESSAGES: u32 = 40;
    let client = client(broker);
    let queue = fresh(&client);
    for partition in 0..PARTITIONS {
        push(
            &queue.clone().partition(format!("p{partition}")),
            0..MESSAGES,
        );
    }
    let seen: Arc<Mutex<HashMap<String, Vec<u32>>>> = Arc::default();
    let options = ConsumeOptions {
        concurrency: 4,
        batch: Some(7),
        partitions: Some(2),
        idle_millis: Some(2000),
        ..ConsumeOptions::default()
    };
    let into = seen.clone();
    let consumer = queue.consume_with(options, move |delivery| {
        let mut seen = into.lock().unwrap();
        seen.entry(delivery.source().partition.clone())
            .or_default()
            .extend(numbers(&delivery));
        Settlement::Ack
    })?;
    let summary = consumer.finished().wait(LONG)?;
    let total = (PARTITIONS * MESSAGES) as usize;
    assert_eq!(
        (summary.reason, summary.messages, summary.acked),
        (StopReason::Idle, total, total)
    );
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), PARTITIONS as usize);
    assert!(
        seen.values()
            .all(|numbers| *numbers == (0..MESSAGES).collect::<Vec<_>>()),
        "{seen:?}"
    );
    close(client)
}

fn q20_v12_c55_a_blocked_handler_keeps_its_lease(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, [1]);
    let options = ConsumeOptions {
        lease_seconds: 1,
        limit: Some(1),
        ..ConsumeOptions::default()
    };
    let (entered, wait) = mpsc::channel();
    let entered = Mutex::new(entered);
    let consumer = queue.consume_with(options, move |_| {
        entered.lock().unwrap().send(()).unwrap();
        std::thread::sleep(Duration::from_millis(3500));
        Settlement::Ack
    })?;
    wait.recv_timeout(LONG)?;
    // While it blocks, nobody else gets the message, and other calls go on.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2500) {
        assert!(
            pop_now(&queue, 1).is_none(),
            "the lease ended after {:?}",
            began.elapsed()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(consumer.finished().wait(LONG)?.acked, 1);
    assert!(pop_now(&queue, 1).is_none());
    close(client)
}

fn a_panicking_handler_is_a_nack(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, [1]);
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let options = ConsumeOptions {
        limit: Some(2),
        ..ConsumeOptions::default()
    };
    let consumer = queue.consume_with(options, move |_| {
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            // Without the noise of the panic hook.
            std::panic::resume_unwind(Box::new("first attempt"));
        }
        Settlement::Ack
    })?;
    let summary = consumer.finished().wait(LONG)?;
    assert_eq!(
        (
            summary.nacked,
            summary.acked,
            attempts.load(Ordering::SeqCst)
        ),
        (1, 1, 2)
    );
    close(client)
}

fn q18_settled_by_hand_without_auto_ack(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, [1, 2]);
    let (sender, deliveries) = mpsc::channel();
    let sender = Mutex::new(sender);
    let options = ConsumeOptions {
        auto_ack: false,
        limit: Some(2),
        ..ConsumeOptions::default()
    };
    let consumer = queue.consume_with(options, move |delivery| {
        sender.lock().unwrap().send(delivery).unwrap();
        Settlement::Ack
    })?;
    let first = deliveries.recv_timeout(LONG)?;
    assert!(
        deliveries.recv_timeout(Duration::from_millis(300)).is_err(),
        "one at a time, until it is settled"
    );
    first.ack().wait(LONG)?;
    let second = deliveries.recv_timeout(LONG)?;
    assert_eq!(numbers(&second), [2]);
    second.ack().wait(LONG)?;
    assert_eq!(consumer.finished().wait(LONG)?.acked, 2);
    close(client)
}

fn idle_and_limit_end_a_consumer(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..5);
    let options = ConsumeOptions {
        limit: Some(3),
        ..ConsumeOptions::default()
    };
    let consumer = queue.consume_with(options, |_| Settlement::Ack)?;
    let summary = consumer.finished().wait(LONG)?;
    assert_eq!((summary.reason, summary.messages), (StopReason::Limit, 3));
    let options = ConsumeOptions {
        idle_millis: Some(300),
        ..ConsumeOptions::default()
    };
    let consumer = queue.consume_with(options, |_| Settlement::Ack)?;
    // Far below the 30 s of a poll.
    let summary = consumer.finished().wait(Duration::from_secs(15))?;
    assert_eq!((summary.reason, summary.messages), (StopReason::Idle, 2));
    close(client)
}

fn stop_gives_back_and_waits(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let idle = queue.consume(|_| Settlement::Ack)?;
    std::thread::sleep(Duration::from_millis(200));
    let summary = idle.stop(LONG).wait(Duration::from_secs(15))?;
    assert_eq!((summary.reason, summary.messages), (StopReason::Stopped, 0));
    push(&queue, [1]);
    let (entered, wait) = mpsc::channel();
    let entered = Mutex::new(entered);
    let options = ConsumeOptions {
        lease_seconds: 2,
        ..ConsumeOptions::default()
    };
    let busy = queue.consume_with(options, move |_| {
        entered.lock().unwrap().send(()).unwrap();
        std::thread::sleep(Duration::from_millis(800));
        Settlement::Ack
    })?;
    wait.recv_timeout(LONG)?;
    let early = busy.stop(Duration::from_millis(50)).wait(LONG).unwrap_err();
    assert_eq!(early.code(), ErrorCode::Timeout);
    assert!(early.message().contains("1 handlers"), "{early}");
    let summary = busy.stop(LONG).wait(LONG)?;
    assert_eq!(
        (summary.acked, summary.unsettled),
        (0, 1),
        "what was let go at the first deadline comes again"
    );
    // It stays leased until its lease ends.
    assert_eq!(numbers(&pop(&queue, 1)), [1]);
    close(client)
}

fn close_names_what_still_runs(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, [1]);
    let (entered, wait) = mpsc::channel();
    let entered = Mutex::new(entered);
    let consumer = queue.consume(move |_| {
        entered.lock().unwrap().send(()).unwrap();
        std::thread::sleep(Duration::from_millis(1000));
        Settlement::Ack
    })?;
    wait.recv_timeout(LONG)?;
    let waiting = queue.clone().partition("none").pop_with(&PopOptions {
        wait: true,
        ..PopOptions::default()
    });
    let early = client
        .close(Duration::from_millis(50))
        .wait(LONG)
        .unwrap_err();
    assert_eq!(early.code(), ErrorCode::Timeout);
    assert!(early.message().contains("handlers"), "{early}");
    assert_eq!(waiting.wait(LONG).unwrap_err().code(), ErrorCode::Closed);
    assert_eq!(
        queue.pop().wait(LONG).unwrap_err().code(),
        ErrorCode::Closed
    );
    client.close(LONG).wait(LONG)?;
    assert!(consumer.finished().is_complete());
    Ok(())
}

fn a_closing_client_lets_its_handlers_push(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let forward = fresh(&client);
    push(&queue, [1]);
    let (entered, wait) = mpsc::channel();
    let entered = Mutex::new(entered);
    let to = forward.clone();
    let outcome = Arc::new(Mutex::new(None));
    let told = outcome.clone();
    let consumer = queue.consume(move |_| {
        entered.lock().unwrap().send(()).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        *told.lock().unwrap() = Some(to.push(&[Item::json(&2).unwrap()]).wait(LONG).is_ok());
        Settlement::Ack
    })?;
    wait.recv_timeout(LONG)?;
    client.close(LONG).wait(LONG)?;
    assert_eq!(*outcome.lock().unwrap(), Some(true));
    assert_eq!(consumer.finished().wait(LONG)?.acked, 1);
    Ok(())
}

fn cancelling_a_watcher_leaves_the_consumer_alone(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let options = ConsumeOptions {
        limit: Some(1),
        ..ConsumeOptions::default()
    };
    let consumer = queue.consume_with(options, |_| Settlement::Ack)?;
    let watcher = consumer.finished();
    watcher.cancel();
    assert_eq!(watcher.wait(LONG).unwrap_err().code(), ErrorCode::Cancelled);
    push(&queue, [1]);
    assert_eq!(consumer.finished().wait(LONG)?.acked, 1);
    close(client)
}

fn a_close_goes_on_without_its_handle(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, [1]);
    let (entered, wait) = mpsc::channel();
    let entered = Mutex::new(entered);
    let consumer = queue.consume(move |_| {
        entered.lock().unwrap().send(()).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        Settlement::Ack
    })?;
    wait.recv_timeout(LONG)?;
    let closed = client.close(LONG);
    // The last handles go while the handler still runs: its verdict counts nevertheless.
    drop((client, queue));
    closed.wait(LONG)?;
    assert_eq!(consumer.finished().wait(LONG)?.acked, 1);
    Ok(())
}

fn a_delivery_in_hand_is_not_idleness(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue.clone().partition("a"), [1]);
    let options = ConsumeOptions {
        concurrency: 2,
        idle_millis: Some(300),
        ..ConsumeOptions::default()
    };
    let reader = Reader::new(&client, &queue, options);
    let first = reader.message();
    std::thread::sleep(Duration::from_millis(1200));
    push(&queue.clone().partition("b"), [2]);
    let second = reader.message();
    assert_eq!((numbers(&first), numbers(&second)), (vec![1], vec![2]));
    second.ack().wait(LONG)?;
    first.ack().wait(LONG)?;
    let summary = reader.consumer.finished().wait(LONG)?;
    assert_eq!((summary.reason, summary.acked), (StopReason::Idle, 2));
    close(client)
}

fn messages_of_a_partition_come_one_by_one_in_order_and_none_twice(broker: &TestBroker) -> Tested {
    const PARTITIONS: u32 = 20;
    const EACH: u32 = 50;
    let client = client(broker);
    let queue = fresh(&client);
    for partition in 0..PARTITIONS {
        push(&queue.clone().partition(partition.to_string()), 0..EACH);
    }
    for concurrency in [1, 4] {
        let group = queue.clone().group(format!("readers-{concurrency}"));
        // For each partition the next message, and whether a handler runs.
        type Seen = HashMap<String, (u32, bool)>;
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let handled = seen.clone();
        let options = ConsumeOptions {
            concurrency,
            idle_millis: Some(3_000),
            subscription_mode: Some("all".into()),
            ..ConsumeOptions::default()
        };
        let consumer = group.consume_with(options, move |delivery: Delivery| {
            let name = delivery.source().partition.clone();
            let number = numbers(&delivery)[0];
            assert_eq!(delivery.messages().len(), 1);
            let change = |from: (u32, bool), to: (u32, bool)| {
                let mut seen = handled.lock().unwrap();
                let state = seen.entry(name.clone()).or_default();
                assert_eq!(*state, from, "of {name}");
                *state = to;
            };
            change((number, false), (number, true));
            if number.is_multiple_of(10) {
                std::thread::sleep(Duration::from_millis(1));
            }
            change((number, true), (number + 1, false));
        })?;
        let summary = consumer.finished().wait(LONG)?;
        let all = (PARTITIONS * EACH) as usize;
        assert_eq!(
            (summary.messages, summary.acked, summary.nacked),
            (all, all, 0)
        );
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), PARTITIONS as usize);
        assert!(seen.values().all(|state| *state == (EACH, false)));
    }
    close(client)
}
