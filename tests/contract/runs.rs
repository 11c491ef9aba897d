//! Message after message, without a turn through the event sink.

use super::each::each;
use super::*;

pub(crate) const TESTS: Tests = tests![
    a_handled_message_brings_the_next,
    the_next_may_be_of_another_partition,
    after_another_verdict_the_next_is_an_event,
    one_that_is_let_go_comes_again,
    a_stop_ends_a_run,
    a_limit_ends_a_run,
    a_lost_lease_ends_a_run,
    what_no_consumer_brought_has_no_next,
    messages_that_count_as_done_have_no_next,
];

/// Handles a message and those that follow it, and tells what they were.
fn follow(first: Delivery) -> Vec<u32> {
    let (mut seen, mut next) = (Vec::new(), Some(first));
    while let Some(delivery) = next {
        seen.extend(numbers(&delivery));
        next = delivery.next();
    }
    seen
}

fn a_handled_message_brings_the_next(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..5);
    let options = ConsumeOptions {
        limit: Some(5),
        ..each()
    };
    let reader = Reader::new(&client, &queue, options);
    let mut delivery = reader.message();
    for n in 0..5 {
        assert_eq!(numbers(&delivery), [n]);
        let Some(next) = delivery.next() else {
            assert_eq!(n, 4);
            break;
        };
        assert_eq!(refused(delivery.ack()).code(), ErrorCode::AlreadySettled);
        assert!(delivery.next().is_none(), "only the last has one behind it");
        delivery = next;
    }
    let summary = reader.consumer.finished().wait(LONG)?;
    assert_eq!((summary.deliveries, summary.messages), (5, 5));
    assert_eq!((summary.acked, summary.unsettled), (5, 0));
    assert!(pop_now(&queue, 10).is_none());
    close(client)
}

fn the_next_may_be_of_another_partition(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    for partition in 0..3 {
        let first = 10 * partition;
        push(
            &queue.clone().partition(format!("p{partition}")),
            first..first + 2,
        );
    }
    let options = ConsumeOptions {
        partitions: Some(3),
        limit: Some(6),
        ..each()
    };
    let reader = Reader::new(&client, &queue, options);
    let (mut seen, mut events) = (Vec::new(), 0);
    while seen.len() < 6 {
        seen.extend(follow(reader.message()));
        events += 1;
    }
    assert!(
        events <= 3,
        "the second of a partition is no event: {events}"
    );
    for pair in seen.chunks(2) {
        assert_eq!(pair[1], pair[0] + 1, "{seen:?}");
    }
    assert_eq!(reader.consumer.finished().wait(LONG)?.acked, 6);
    close(client)
}

fn after_another_verdict_the_next_is_an_event(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..4);
    let options = ConsumeOptions {
        limit: Some(5),
        ..each()
    };
    let reader = Reader::new(&client, &queue, options);
    let first = reader.message();
    first.ack().wait(LONG)?;
    let second = reader.message();
    assert!(first.next().is_none());
    let third = second.next().expect("the third message");
    assert_eq!(numbers(&third), [2]);
    reader.expect_nothing();
    // In the middle of a run, and what lies behind it comes again.
    third.nack(Some("not now")).wait(LONG)?;
    for n in [2, 3] {
        let delivery = reader.message();
        assert_eq!(numbers(&delivery), [n]);
        delivery.ack().wait(LONG)?;
    }
    let summary = reader.consumer.finished().wait(LONG)?;
    assert_eq!((summary.messages, summary.acked, summary.nacked), (5, 4, 1));
    close(client)
}

fn one_that_is_let_go_comes_again(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let options = QueueOptions::new().retry_limit(0);
    queue.create(options).wait(LONG)?;
    push(&queue, 0..3);
    let options = ConsumeOptions {
        limit: Some(4),
        ..each()
    };
    let reader = Reader::new(&client, &queue, options);
    let second = reader.message().next().expect("the second message");
    drop(second);
    let again = reader.message();
    assert_eq!(numbers(&again), [1]);
    let last = again.next().expect("the third message");
    assert!(last.next().is_none());
    let summary = reader.consumer.finished().wait(LONG)?;
    assert_eq!((summary.messages, summary.acked), (4, 3));
    close(client)
}

fn a_stop_ends_a_run(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..5);
    let reader = Reader::new(&client, &queue, each());
    let second = reader.message().next().expect("the second message");
    let stopped = reader.consumer.stop(LONG);
    // The third to the fifth go back at once, the second is waited for.
    assert!(!stopped.wait_for(Duration::from_millis(200))?);
    assert!(second.next().is_none());
    let summary = stopped.wait(LONG)?;
    assert_eq!((summary.reason, summary.messages), (StopReason::Stopped, 2));
    assert_eq!((summary.acked, summary.unsettled), (2, 0));
    assert_eq!(numbers(&pop(&queue, 10)), [2, 3, 4]);
    close(client)
}

fn a_limit_ends_a_run(broker: &TestBroker) -> Tested {
    let client = client(broker);
    for total in [false, true] {
        let queue = fresh(&client);
        push(&queue, 0..5);
        let options = ConsumeOptions {
            limit: (!total).then_some(3),
            limit_total: total.then_some(3),
            ..each()
        };
        let reader = Reader::new(&client, &queue, options);
        assert_eq!(follow(reader.message()), [0, 1, 2]);
        let summary = reader.consumer.finished().wait(LONG)?;
        assert_eq!((summary.reason, summary.acked), (StopReason::Limit, 3));
        assert_eq!(numbers(&pop(&queue, 10)), [3, 4]);
    }
    close(client)
}

fn a_lost_lease_ends_a_run(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..3);
    let options = ConsumeOptions {
        lease_seconds: 1,
        max_handling_seconds: 1,
        limit: Some(5),
        ..each()
    };
    let reader = Reader::new(&client, &queue, options);
    let second = reader.message().next().expect("the second message");
    let began = Instant::now();
    while !second.is_lost() {
        assert!(began.elapsed() < LONG, "the lease does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Its ack does not count.
    assert!(second.next().is_none());
    let told = reader.events.recv_timeout(LONG);
    assert!(
        matches!(told, Ok(ConsumerEvent::LeaseLost { .. })),
        "{told:?}"
    );
    assert_eq!(follow(reader.message()), [1, 2]);
    reader.consumer.stop(LONG).wait(LONG)?;
    close(client)
}

fn what_no_consumer_brought_has_no_next(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..2);
    let popped = pop(&queue, 2);
    assert!(popped.next().is_none());
    assert_eq!(refused(popped.ack()).code(), ErrorCode::AlreadySettled);
    push(&queue, 2..3);
    // The ack has gone out: what comes now is the third message.
    assert_eq!(numbers(&pop(&queue, 10)), [2]);
    close(client)
}

fn messages_that_count_as_done_have_no_next(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..2);
    let options = ConsumeOptions {
        commit_on_delivery: true,
        limit: Some(2),
        ..ConsumeOptions::default()
    };
    let reader = Reader::new(&client, &queue, options);
    for n in 0..2 {
        let delivery = reader.message();
        assert_eq!(numbers(&delivery), [n]);
        assert!(delivery.next().is_none());
        reader.expect_nothing();
    }
    assert_eq!(reader.consumer.finished().wait(LONG)?.acked, 2);
    close(client)
}
