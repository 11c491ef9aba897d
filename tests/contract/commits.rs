//! Transactions and the deliveries that they settle: within a handler, one after another, rolled back, dropped.

use super::transactions::{drain, json_of};
use super::*;
use queen::{Outcome, TransactionResult};

pub(crate) const TESTS: Tests = tests![
    a_handler_transforms_and_forwards,
    a_handler_forwards_a_batch_one_by_one,
    a_rollback_lets_the_handler_decide,
    a_commit_settles_whatever_the_handler_answers,
    a_transaction_that_is_dropped_lets_go,
    a_commit_passes_nothing_that_is_unsettled,
    commits_of_one_delivery_follow_each_other,
    a_nack_ends_the_lease_within_a_transaction,
];

fn a_handler_transforms_and_forwards(broker: &TestBroker) -> Tested {
    const COUNT: u32 = 40;
    let client = client(broker);
    let (from, to) = (fresh(&client), fresh(&client));
    push(&from, 0..COUNT);
    let (inside, target) = (client.clone(), to.name().to_owned());
    let options = ConsumeOptions {
        batch: Some(7),
        idle_millis: Some(2_000),
        ..ConsumeOptions::default()
    };
    let consumer = from.consume_with(options, move |delivery| {
        let mut transaction = inside.transaction();
        transaction.ack(&delivery);
        for n in numbers(&delivery) {
            transaction.push(&target, None, &[json_of(n * 10)]);
        }
        match transaction.commit().wait(LONG) {
            Ok(_) => Settlement::Ack,
            Err(_) => Settlement::Nack,
        }
    })?;
    let summary = consumer.finished().wait(LONG)?;
    assert_eq!(
        (summary.reason, summary.messages),
        (StopReason::Idle, COUNT as usize)
    );
    assert_eq!((summary.acked, summary.unsettled), (COUNT as usize, 0));
    assert_eq!(drain(&to), (0..COUNT).map(|n| n * 10).collect::<Vec<_>>());
    close(client)
}

fn a_handler_forwards_a_batch_one_by_one(broker: &TestBroker) -> Tested {
    const COUNT: u32 = 12;
    for ordered in [true, false] {
        let client = client(broker);
        let (from, to) = (fresh(&client), fresh(&client));
        push(&from, 0..COUNT);
        let (inside, target) = (client.clone(), to.name().to_owned());
        let options = ConsumeOptions {
            batch: Some(5),
            each: true,
            ordered,
            concurrency: 2,
            limit_total: Some(u64::from(COUNT)),
            ..ConsumeOptions::default()
        };
        let consumer = from.consume_with(options, move |delivery| {
            let [message] = delivery.messages() else {
                panic!("one message at a time");
            };
            let n: u32 = message.json().unwrap();
            loop {
                let mut transaction = inside.transaction();
                transaction
                    .ack_message(&delivery, 0, Status::Completed)
                    .push(&target, None, &[json_of(n)]);
                match transaction.commit().wait(LONG) {
                    Ok(_) => return Settlement::Ack,
                    // One before it is still being handled.
                    Err(error) if error.code() == ErrorCode::Order && !ordered => {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        })?;
        let summary = consumer.finished().wait(LONG)?;
        assert_eq!((summary.acked, summary.nacked), (COUNT as usize, 0));
        let mut forwarded = drain(&to);
        assert!(!ordered || forwarded.is_sorted(), "{forwarded:?}");
        forwarded.sort_unstable();
        assert_eq!(forwarded, (0..COUNT).collect::<Vec<_>>());
        close(client)?;
    }
    Ok(())
}

fn a_rollback_lets_the_handler_decide(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let (from, to) = (fresh(&client), fresh(&client));
    from.create(QueueOptions::new().retry_limit(5)).wait(LONG)?;
    to.push(&[json_of(0).transaction_id("taken")]).wait(LONG)?;
    push(&from, [1]);
    let (inside, target) = (client.clone(), to.name().to_owned());
    let rounds = Arc::new(AtomicUsize::new(0));
    let seen = rounds.clone();
    let options = ConsumeOptions {
        limit: Some(4),
        ..ConsumeOptions::default()
    };
    let consumer = from.consume_with(options, move |delivery| {
        let mut transaction = inside.transaction();
        transaction
            .ack(&delivery)
            .push(&target, None, &[json_of(1).transaction_id("taken")]);
        let committing = transaction.commit();
        match seen.fetch_add(1, Ordering::SeqCst) {
            // It fails, and so does the handler: charged, and it comes again.
            0 => {
                committing.wait(LONG).unwrap_err();
                Settlement::Nack
            }
            // The handler does not wait and lets go, so nobody holds the message after the rollback: it is given back.
            1 => Settlement::Defer,
            // It was rolled back, and the handler settles it all the same.
            2 => {
                committing.wait(LONG).unwrap_err();
                Settlement::Ack
            }
            _ => panic!("it was settled"),
        }
    })?;
    let began = Instant::now();
    while rounds.load(Ordering::SeqCst) < 3 {
        assert!(began.elapsed() < LONG, "the message does not come again");
        std::thread::sleep(Duration::from_millis(5));
    }
    let summary = consumer.stop(LONG).wait(LONG)?;
    assert_eq!(
        (summary.deliveries, summary.acked, summary.nacked),
        (3, 1, 1)
    );
    assert!(pop_now(&from, 1).is_none());
    assert_eq!(drain(&to), [0]);
    close(client)
}

fn a_commit_settles_whatever_the_handler_answers(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let (from, to) = (fresh(&client), fresh(&client));
    push(&from, 0..2);
    let (inside, target) = (client.clone(), to.name().to_owned());
    let options = ConsumeOptions {
        limit: Some(2),
        ..ConsumeOptions::default()
    };
    let consumer = from.consume_with(options, move |delivery| {
        let n = numbers(&delivery)[0];
        let mut transaction = inside.transaction();
        transaction
            .ack(&delivery)
            .push(&target, None, &[json_of(n)]);
        let committing = transaction.commit();
        if n == 0 {
            committing.wait(LONG).unwrap();
        }
        Settlement::Nack
    })?;
    let summary = consumer.finished().wait(LONG)?;
    assert_eq!((summary.acked, summary.nacked), (2, 0));
    assert!(pop_now(&from, 2).is_none());
    assert_eq!(drain(&to), [0, 1]);
    close(client)
}

fn a_transaction_that_is_dropped_lets_go(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..2);
    let delivery = pop(&queue, 2);
    let mut transaction = client.transaction();
    transaction.ack_message(&delivery, 0, Status::Completed);
    let taken = refused(delivery.settle(verdict(0, Status::Failed)));
    assert_eq!(taken.code(), ErrorCode::AlreadySettled);
    let mut other = client.transaction();
    other.ack_message(&delivery, 0, Status::Completed);
    assert_eq!(refused(other.commit()).code(), ErrorCode::AlreadySettled);
    drop(transaction);
    delivery.settle(verdict(0, Status::Completed)).wait(LONG)?;
    // Nobody holds the delivery when this one is dropped: the message goes back.
    let mut transaction = client.transaction();
    transaction.ack(&delivery);
    drop(delivery);
    assert!(pop_now(&queue, 2).is_none());
    drop(transaction);
    let again = pop(&queue, 2);
    assert_eq!(numbers(&again), [1]);
    again.ack().wait(LONG)?;
    close(client)
}

fn a_commit_passes_nothing_that_is_unsettled(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let (queue, to) = (fresh(&client), fresh(&client));
    push(&queue, 0..4);
    let delivery = pop(&queue, 4);
    let commit = |verdicts: &[(usize, Status)]| {
        let mut transaction = client.transaction();
        for (index, status) in verdicts {
            transaction.ack_message(&delivery, *index, *status);
        }
        transaction.push(to.name(), None, &[json_of(7)]).commit()
    };
    for verdicts in [
        &[(1, Status::Completed)][..],
        &[(0, Status::Completed), (2, Status::Completed)],
        &[(3, Status::Dlq)],
        // What lies behind a failure comes again, so it cannot be finished with it.
        &[(0, Status::Failed), (1, Status::Completed)],
    ] {
        let error = refused(commit(verdicts));
        assert_eq!(
            (error.code(), error.outcome()),
            (ErrorCode::Order, Outcome::NotApplied)
        );
    }
    assert!(pop_now(&to, 1).is_none(), "nothing was sent");
    // An earlier message with a verdict is waited for; one behind waits for the commit.
    let behind = delivery.settle(verdict(3, Status::Completed));
    let first = delivery.settle(verdict(0, Status::Completed));
    let committed = commit(&[(2, Status::Completed), (1, Status::Completed)]).wait(LONG)?;
    assert_eq!(committed.results.len(), 3);
    assert!(first.is_complete());
    behind.wait(LONG)?;
    drop(delivery);
    assert!(pop_now(&queue, 1).is_none());
    assert_eq!(drain(&to), [7]);
    close(client)
}

fn commits_of_one_delivery_follow_each_other(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let (queue, to) = (fresh(&client), fresh(&client));
    push(&queue, 0..20);
    let delivery = pop(&queue, 20);
    let commits: Vec<_> = (0..20)
        .map(|index| {
            client
                .transaction()
                .ack_message(&delivery, index, Status::Completed)
                .push(to.name(), None, &[json_of(index as u32)])
                .commit()
        })
        .collect();
    for commit in commits {
        commit.wait(LONG)?;
    }
    drop(delivery);
    assert!(pop_now(&queue, 1).is_none());
    assert_eq!(drain(&to), (0..20).collect::<Vec<_>>());
    close(client)
}

fn a_nack_ends_the_lease_within_a_transaction(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let (queue, errors) = (fresh(&client), fresh(&client));
    queue
        .create(QueueOptions::new().retry_limit(0))
        .wait(LONG)?;
    push(&queue, 0..4);
    let delivery = pop(&queue, 4);
    let verdicts = MessageVerdict::parse_list(
        r#"[{"index":0,"status":"completed"},{"index":1,"status":"dlq","error":"poison"}]"#,
    )?;
    let committed = client
        .transaction()
        .settle(&delivery, verdicts)
        .push(errors.name(), None, &[json_of(1)])
        .commit()
        .wait(LONG)?;
    assert!(committed.results.iter().all(TransactionResult::is_success));
    assert!(delivery.is_lost());
    assert_eq!(refused(delivery.ack()).code(), ErrorCode::LeaseLost);
    let late = refused(
        client
            .transaction()
            .ack_message(&delivery, 3, Status::Completed)
            .commit(),
    );
    assert_eq!(
        (late.code(), late.outcome()),
        (ErrorCode::LeaseLost, Outcome::NotApplied)
    );
    let again = pop(&queue, 4);
    assert_eq!(numbers(&again), [2, 3]);
    again.ack().wait(LONG)?;
    let letters = told(queue.dlq().list());
    assert_eq!(letters["messages"][0]["errorMessage"], "poison");
    close(client)
}
