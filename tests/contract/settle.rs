//! Verdicts, leases and cancelled pops.

use super::*;

pub(crate) const TESTS: Tests = &[
    (
        "verdicts_out_of_order_are_held_back",
        verdicts_out_of_order_are_held_back,
    ),
    (
        "what_lies_behind_a_nack_comes_again",
        what_lies_behind_a_nack_comes_again,
    ),
    (
        "a_dropped_delivery_comes_again_uncharged",
        a_dropped_delivery_comes_again_uncharged,
    ),
    (
        "a_second_verdict_changes_nothing",
        a_second_verdict_changes_nothing,
    ),
    (
        "acks_by_ids_settle_live_deliveries",
        acks_by_ids_settle_live_deliveries,
    ),
    ("x31_an_expired_lease_is_told", x31_an_expired_lease_is_told),
    (
        "a_cancelled_pop_loses_nothing",
        a_cancelled_pop_loses_nothing,
    ),
];

fn verdicts_out_of_order_are_held_back(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..3);
    let delivery = pop(&queue, 3);
    let last = delivery.settle(verdict(2, Status::Completed));
    assert!(
        !last.wait_for(Duration::from_millis(300))?,
        "an ack of the last would finish the others"
    );
    let first = delivery.settle(verdict(0, Status::Completed));
    first.wait(LONG)?;
    assert!(!last.is_complete());
    delivery.settle(verdict(1, Status::Completed)).wait(LONG)?;
    last.wait(LONG)?;
    drop(delivery);
    assert!(pop_now(&queue, 10).is_none());
    close(client)
}

fn what_lies_behind_a_nack_comes_again(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..4);
    let delivery = pop(&queue, 4);
    let behind = delivery.settle(verdict(3, Status::Completed));
    let acked = delivery.settle(verdict(0, Status::Completed));
    let nacked = delivery.settle(verdict(1, Status::Failed));
    let late = delivery.settle(verdict(2, Status::Completed));
    acked.wait(LONG)?;
    nacked.wait(LONG)?;
    assert_eq!(behind.wait(LONG).unwrap_err().code(), ErrorCode::LeaseLost);
    assert_eq!(late.wait(LONG).unwrap_err().code(), ErrorCode::LeaseLost);
    assert!(delivery.is_lost());
    let again = pop(&queue, 10);
    assert_eq!(numbers(&again), [1, 2, 3]);
    again.ack().wait(LONG)?;
    close(client)
}

fn a_dropped_delivery_comes_again_uncharged(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    queue
        .create(QueueOptions::new().retry_limit(1))
        .wait(LONG)?;
    push(&queue, [7]);
    // More often than the retries allow.
    for _ in 0..4 {
        drop(pop(&queue, 1));
    }
    // One failure is a retry, the next one the end.
    for _ in 0..2 {
        pop(&queue, 1).nack(Some("no")).wait(LONG)?;
    }
    assert!(
        pop_now(&queue, 1).is_none(),
        "it is in the dead-letter queue"
    );
    close(client)
}

fn a_second_verdict_changes_nothing(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..2);
    let delivery = pop(&queue, 2);
    delivery.settle(verdict(0, Status::Completed)).wait(LONG)?;
    let again = delivery
        .settle(verdict(0, Status::Failed))
        .wait(LONG)
        .unwrap_err();
    assert_eq!(again.code(), ErrorCode::AlreadySettled);
    // Acks what has no verdict yet.
    assert_eq!(delivery.ack().wait(LONG)?.len(), 1);
    assert_eq!(
        delivery.ack().wait(LONG).unwrap_err().code(),
        ErrorCode::AlreadySettled
    );
    assert!(pop_now(&queue, 2).is_none());
    close(client)
}

fn acks_by_ids_settle_live_deliveries(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..2);
    let delivery = pop(&queue, 2);
    let ack = |index: usize, lease: Option<&str>| -> Ack {
        let message = &delivery.messages()[index];
        serde_json::from_value(json!({
            "transactionId": message.transaction_id,
            "partitionId": message.source.partition_id,
            "leaseId": lease,
        }))
        .unwrap()
    };
    let lease = delivery.source().lease_id.clone();
    let refused = client
        .ack(vec![ack(0, None)], &AckOptions::default())
        .wait(LONG)
        .unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidArgument);
    assert!(refused.message().contains("leaseId"));
    // The second waits for the first, as with a verdict on the delivery.
    let second = client.ack(vec![ack(1, Some(&lease))], &AckOptions::default());
    assert!(!second.wait_for(Duration::from_millis(200))?);
    client
        .ack(vec![ack(0, Some(&lease))], &AckOptions::default())
        .wait(LONG)?;
    assert!(second.wait(LONG)?[0].success);
    assert_eq!(
        delivery.ack().wait(LONG).unwrap_err().code(),
        ErrorCode::AlreadySettled
    );
    // The lease is gone now, so this one goes to the broker, which refuses it.
    let unknown = client.ack(
        vec![ack(0, Some("00000000-0000-7000-8000-000000000000"))],
        &AckOptions::default(),
    );
    assert_eq!(unknown.wait(LONG).unwrap_err().code(), ErrorCode::LeaseLost);
    close(client)
}

fn x31_an_expired_lease_is_told(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, [1]);
    let options = PopOptions {
        lease_seconds: Some(1),
        ..batch(1)
    };
    let delivery = queue.pop_with(&options).wait(LONG)?.take().unwrap();
    let again = pop(&queue, 1);
    assert_eq!(numbers(&again), [1]);
    assert_eq!(
        delivery.ack().wait(LONG).unwrap_err().code(),
        ErrorCode::LeaseLost
    );
    assert!(delivery.is_lost());
    again.ack().wait(LONG)?;
    close(client)
}

fn a_cancelled_pop_loses_nothing(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    for round in 0..10u32 {
        let waiting = queue.pop_with(&PopOptions {
            wait: true,
            ..PopOptions::default()
        });
        waiting.wait_for(Duration::from_millis(20 * u64::from(round % 3)))?;
        let pushed = queue.push(&[Item::json(&round)?]);
        waiting.cancel();
        pushed.wait(LONG)?;
        let outcome = waiting.wait(LONG);
        match outcome {
            Ok(popped) => {
                let delivery = popped.take().expect("a pop that went well while waiting");
                assert_eq!(numbers(&delivery), [round]);
                delivery.ack().wait(LONG)?;
            }
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::Cancelled);
                let delivery = pop(&queue, 1);
                assert_eq!(numbers(&delivery), [round]);
                delivery.ack().wait(LONG)?;
            }
        }
    }
    close(client)
}
