//! What handlers get: batches, one message at a time, and what their answers do.

use super::*;

pub(crate) const TESTS: Tests = tests![
    q19_c6_x40_c20_after_a_nack_the_rest_of_a_batch_is_abandoned,
    c5_x36_c9_a_batch_is_one_delivery_whatever_its_size,
    c4_q22_c29_e4_an_error_is_a_nack_with_its_text,
    c4_c32_a_panic_is_a_nack_with_its_text,
    messages_side_by_side_keep_the_order_of_verdicts,
    x42_c5_a_batch_is_settled_in_parts,
    x41_every_status_of_a_verdict,
    x43_one_call_settles_all_with_the_group_of_the_delivery,
    each_message_is_an_event,
];

/// One message at a time out of batches of up to ten.
pub(crate) fn each() -> ConsumeOptions {
    ConsumeOptions {
        batch: Some(10),
        each: true,
        ..ConsumeOptions::default()
    }
}

/// Payloads in the order in which handlers got them.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Vec<u32>>>>);

impl Log {
    fn add(&self, delivery: &Delivery) -> usize {
        let mut seen = self.0.lock().unwrap();
        seen.push(numbers(delivery));
        seen.len()
    }

    fn all(&self) -> Vec<Vec<u32>> {
        self.0.lock().unwrap().clone()
    }
}

/// The dead letters of a queue, each with its payload and its reason.
fn dead(client: &Client, queue: &Queue) -> Vec<(u64, String)> {
    let listed = call(client, "dlq.list", json!({ "queue": queue.name() })).unwrap();
    let letters = listed["messages"].as_array().unwrap().iter();
    letters
        .map(|letter| {
            let reason = letter["errorMessage"].as_str().unwrap_or_default();
            (letter["data"].as_u64().unwrap(), reason.to_owned())
        })
        .collect()
}

fn strict(client: &Client) -> Queue {
    let queue = fresh(client);
    let options = QueueOptions::new().retry_limit(0);
    queue.create(options).wait(LONG).unwrap();
    queue
}

fn q19_c6_x40_c20_after_a_nack_the_rest_of_a_batch_is_abandoned(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..5);
    let log = Log::default();
    let seen = log.clone();
    let options = ConsumeOptions {
        limit: Some(7),
        ..each()
    };
    let consumer = queue.consume_with(options, move |delivery| match seen.add(&delivery) {
        // The second message fails at first, the third is given back.
        2 => Settlement::Nack,
        4 => {
            drop(delivery.settle(verdict(0, Status::Retry)));
            Settlement::Ack
        }
        _ => Settlement::Ack,
    })?;
    let summary = consumer.finished().wait(LONG)?;
    let singles: Vec<Vec<u32>> = [0, 1, 1, 2, 2, 3, 4].map(|n| vec![n]).into();
    assert_eq!(log.all(), singles);
    assert_eq!((summary.messages, summary.acked, summary.nacked), (7, 5, 1));
    assert_eq!((summary.deliveries, summary.unsettled), (7, 1));
    assert!(pop_now(&queue, 10).is_none());
    close(client)
}

fn c5_x36_c9_a_batch_is_one_delivery_whatever_its_size(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let log = Log::default();
    for (size, messages) in [(1, 3), (4, 6)] {
        push(&queue, 0..messages);
        let options = ConsumeOptions {
            batch: Some(size),
            limit: Some(u64::from(messages)),
            ..ConsumeOptions::default()
        };
        let seen = log.clone();
        // A handler that returns nothing acks.
        let consumer = queue.consume_with(options, move |delivery| {
            seen.add(&delivery);
        })?;
        assert_eq!(consumer.finished().wait(LONG)?.acked, messages as usize);
    }
    assert_eq!(
        log.all(),
        [vec![0], vec![1], vec![2], vec![0, 1, 2, 3], vec![4, 5]]
    );
    close(client)
}

fn c4_q22_c29_e4_an_error_is_a_nack_with_its_text(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = strict(&client);
    push(&queue, 0..3);
    let options = ConsumeOptions {
        limit: Some(3),
        ..each()
    };
    let consumer = queue.consume_with(options, |delivery| match numbers(&delivery)[0] {
        1 => Err("the printer is on fire"),
        _ => Ok(()),
    })?;
    let summary = consumer.finished().wait(LONG)?;
    assert_eq!((summary.acked, summary.nacked), (2, 1));
    assert_eq!(
        dead(&client, &queue),
        [(1, "the printer is on fire".to_owned())]
    );
    close(client)
}

fn c4_c32_a_panic_is_a_nack_with_its_text(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = strict(&client);
    push(&queue, [7, 8]);
    let options = ConsumeOptions {
        limit: Some(2),
        ..ConsumeOptions::default()
    };
    let consumer = queue.consume_with(options, |delivery| {
        // Without the noise of the panic hook.
        match numbers(&delivery)[0] {
            7 => std::panic::resume_unwind(Box::new("at the disco")),
            _ => std::panic::resume_unwind(Box::new(format!("number {}", 8))),
        }
        #[allow(unreachable_code, reason = "a handler has an answer")]
        Settlement::Ack
    })?;
    let summary = consumer.finished().wait(LONG)?;
    assert_eq!((summary.reason, summary.nacked), (StopReason::Limit, 2));
    let mut letters = dead(&client, &queue);
    letters.sort();
    assert!(
        letters[0].1.contains("panicked: at the disco"),
        "{letters:?}"
    );
    assert!(letters[1].1.contains("panicked: number 8"), "{letters:?}");
    assert!(pop_now(&queue, 1).is_none());
    close(client)
}

fn messages_side_by_side_keep_the_order_of_verdicts(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..4);
    let (sender, deliveries) = mpsc::channel();
    let sender = Mutex::new(sender);
    let options = ConsumeOptions {
        ordered: false,
        concurrency: 3,
        ..each()
    };
    let consumer = queue.consume_with(options, move |delivery| {
        sender.lock().unwrap().send(delivery).unwrap();
        Settlement::Defer
    })?;
    let next = |what: &str| {
        deliveries
            .recv_timeout(Duration::from_secs(20))
            .map_err(|_| format!("no {what}"))
    };
    let mut three = [next("first")?, next("second")?, next("third")?];
    three.sort_by_key(|delivery| numbers(delivery)[0]);
    assert_eq!(three.each_ref().map(|one| numbers(one)[0]), [0, 1, 2]);
    assert!(
        deliveries.recv_timeout(Duration::from_millis(300)).is_err(),
        "no more than concurrency at the same time"
    );
    // The last verdict first: it waits, and so does a nack; what lies behind the nack comes again.
    let [zero, one, two] = three;
    let last = two.ack();
    let fourth = next("fourth")?;
    assert_eq!(numbers(&fourth), [3]);
    let nacked = one.nack(Some("no"));
    assert!(!nacked.wait_for(Duration::from_millis(200))? && !last.is_complete());
    zero.ack().wait(LONG)?;
    nacked.wait(LONG)?;
    assert_eq!(last.wait(LONG).unwrap_err().code(), ErrorCode::LeaseLost);
    assert!(!zero.is_lost() && one.is_lost() && two.is_lost() && fourth.is_lost());
    let late = fourth.ack().wait(LONG).unwrap_err();
    assert_eq!(late.code(), ErrorCode::LeaseLost);
    let mut again = Vec::new();
    for what in ["fifth", "sixth", "seventh"] {
        let delivery = next(what)?;
        again.extend(numbers(&delivery));
        drop(delivery.ack());
    }
    again.sort();
    assert_eq!(again, [1, 2, 3]);
    let summary = consumer.stop(LONG).wait(LONG)?;
    assert_eq!((summary.messages, summary.acked), (7, 4));
    assert!(pop_now(&queue, 5).is_none());
    close(client)
}

fn x42_c5_a_batch_is_settled_in_parts(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = strict(&client);
    push(&queue, 0..5);
    let log = Log::default();
    let seen = log.clone();
    let options = ConsumeOptions {
        batch: Some(5),
        limit: Some(8),
        ..ConsumeOptions::default()
    };
    let consumer = queue.consume_with(options, move |delivery| {
        if seen.add(&delivery) == 1 {
            let verdicts = json!([
                { "index": 0, "status": "completed" },
                { "index": 1, "status": "failed", "error": "torn" },
            ]);
            let verdicts: Vec<MessageVerdict> = serde_json::from_value(verdicts).unwrap();
            let results = delivery.settle(verdicts).wait(LONG).unwrap();
            assert!(results.iter().all(|result| result.success));
            // Too late for what lies behind the nack, and for a second verdict.
            let results = delivery.settle(verdict(2, Status::Completed)).wait(LONG);
            assert_eq!(results.unwrap_err().code(), ErrorCode::LeaseLost);
            let again = delivery.settle(verdict(0, Status::Completed)).wait(LONG);
            assert_eq!(again.unwrap_err().code(), ErrorCode::AlreadySettled);
            let far = delivery.settle(verdict(5, Status::Completed)).wait(LONG);
            assert!(far.unwrap_err().message().contains("has 5 messages"));
        }
        Settlement::Ack
    })?;
    let summary = consumer.finished().wait(LONG)?;
    assert_eq!(log.all(), [vec![0, 1, 2, 3, 4], vec![2, 3, 4]]);
    assert_eq!((summary.messages, summary.acked, summary.nacked), (8, 4, 1));
    assert_eq!(dead(&client, &queue), [(1, "torn".to_owned())]);
    close(client)
}

fn x41_every_status_of_a_verdict(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = strict(&client);
    for status in [
        Status::Retry,
        Status::Completed,
        Status::Failed,
        Status::Dlq,
    ] {
        push(&queue, [1]);
        let delivery = pop(&queue, 1);
        let results = delivery.settle(verdict(0, status)).wait(LONG)?;
        assert!(results[0].success && !results[0].noop, "{results:?}");
        let dead = matches!(status, Status::Failed | Status::Dlq);
        assert_eq!(results[0].dlq, dead, "{status:?}");
        // Only what was given back comes again.
        let again = pop_now(&queue, 1);
        assert_eq!(again.is_some(), status == Status::Retry, "{status:?}");
        if let Some(again) = again {
            again.ack().wait(LONG)?;
        }
    }
    // The classic client's word, and what has been done already.
    let ack: Ack = serde_json::from_value(json!({
        "transactionId": "t", "partitionId": "p", "status": "acked"
    }))?;
    assert_eq!(ack.status, Status::Completed);
    close(client)
}

fn x43_one_call_settles_all_with_the_group_of_the_delivery(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..3);
    let readers = queue.clone().group("readers");
    let options = PopOptions {
        subscription_mode: Some("all".into()),
        ..batch(3)
    };
    let delivery = readers.pop_with(&options).wait(LONG)?.take().unwrap();
    assert_eq!(delivery.source().consumer_group, "readers");
    // All are given up: the first is charged, all come again.
    let results = delivery.nack(Some("later")).wait(LONG)?;
    assert_eq!(results.len(), 3);
    let again = readers.pop_with(&batch(3)).wait(LONG)?.take().unwrap();
    assert_eq!(numbers(&again), [0, 1, 2]);
    assert_eq!(again.ack().wait(LONG)?.len(), 3);
    assert!(pop_now(&readers, 3).is_none());
    // The other cursor has not moved.
    assert_eq!(numbers(&pop(&queue, 3)), [0, 1, 2]);
    close(client)
}

fn each_message_is_an_event(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..3);
    let options = ConsumeOptions {
        limit: Some(4),
        ..each()
    };
    let reader = Reader::new(&client, &queue, options);
    let first = reader.message();
    assert!(first.to_json()?.contains(r#""data":0"#));
    // The next waits for the verdict.
    reader.expect_nothing();
    first.ack().wait(LONG)?;
    // Dropped without a verdict it comes again, and what lies behind it.
    drop(reader.message());
    for n in [1, 2] {
        let delivery = reader.message();
        assert_eq!(numbers(&delivery), [n]);
        delivery.ack().wait(LONG)?;
    }
    let summary = reader.consumer.finished().wait(LONG)?;
    assert_eq!((summary.messages, summary.acked), (4, 3));
    close(client)
}
