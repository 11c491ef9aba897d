//! Transactions: verdicts and pushes together or not at all. Tests carry the row of the feature that they prove.

use super::*;
use queen::{Committed, Outcome, RollbackReason, TransactionResult};

pub(crate) const TESTS: Tests = tests![
    t1_m15_x99_a_message_is_acked_and_another_pushed,
    t2_t3_t4_many_acks_and_pushes_to_many_places,
    t5_a_lease_that_is_over_rolls_back,
    t6_e3_ids_and_leases_must_be_named,
    t7_an_empty_transaction_is_refused,
    x100_a_duplicate_rolls_everything_back,
    x101_a_trace_id_survives,
    c21_a_group_acks_by_ids_and_the_ids_are_minted_once,
    pushes_keep_their_order_around_a_commit,
    transactions_that_meet_in_many_places_do_not_wait_for_each_other_forever,
    transactions_by_name,
    transactions_are_counted,
];

pub(crate) fn json_of(n: u32) -> Item<'static> {
    Item::json(&n).unwrap()
}

fn acks(committed: &Committed) -> usize {
    let ack = |one: &&TransactionResult| matches!(one, TransactionResult::Ack(_));
    committed.results.iter().filter(ack).count()
}

/// All messages of a queue, acked as they come.
pub(crate) fn drain(queue: &Queue) -> Vec<u32> {
    let mut all = Vec::new();
    while let Some(delivery) = pop_now(queue, 100) {
        all.extend(numbers(&delivery));
        delivery.ack().wait(LONG).unwrap();
    }
    all
}

fn t1_m15_x99_a_message_is_acked_and_another_pushed(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let (from, to) = (fresh(&client), fresh(&client));
    push(&from, [1]);
    let delivery = pop(&from, 1);
    let committed = client
        .transaction()
        .ack(&delivery)
        .push(to.name(), None, &[json_of(2)])
        .commit()
        .wait(LONG)?;
    assert_eq!((committed.results.len(), acks(&committed)), (2, 1));
    let TransactionResult::Push(pushed) = &committed.results[1] else {
        panic!("{committed:?}");
    };
    assert_eq!((pushed.index, &*pushed.status), (1, "queued"));
    let forwarded = pop(&to, 1);
    assert_eq!(numbers(&forwarded), [2]);
    assert_eq!(
        forwarded.messages()[0].transaction_id,
        pushed.transaction_id
    );
    assert_eq!(
        pushed.message_id.as_ref(),
        Some(&forwarded.messages()[0].id)
    );
    let again = refused(delivery.ack());
    assert_eq!(again.code(), ErrorCode::AlreadySettled);
    drop(delivery);
    assert!(pop_now(&from, 1).is_none());
    close(client)
}

fn t2_t3_t4_many_acks_and_pushes_to_many_places(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let (one, other, to) = (fresh(&client), fresh(&client).group("g"), fresh(&client));
    assert!(
        pop_now(&other, 1).is_none(),
        "a new group starts at the end"
    );
    push(&one, 0..3);
    push(&other, 3..5);
    let (first, second) = (pop(&one, 3), pop(&other, 2));
    let mut transaction = client.transaction();
    transaction.ack(&first).ack(&second);
    for partition in ["a", "b"] {
        transaction.push(to.name(), partition, &[json_of(7), json_of(8)]);
    }
    transaction.push(one.name(), None, &[json_of(9)]);
    let committed = transaction.commit().wait(LONG)?;
    assert_eq!((committed.results.len(), acks(&committed)), (10, 5));
    assert_eq!(drain(&to.clone().partition("a")), [7, 8]);
    assert_eq!(drain(&to.partition("b")), [7, 8]);
    assert_eq!(drain(&one), [9]);
    assert_eq!(drain(&other), [0; 0]);
    let twice = refused(transaction.commit());
    assert_eq!(twice.code(), ErrorCode::InvalidState);
    close(client)
}

fn t5_a_lease_that_is_over_rolls_back(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let (from, to) = (fresh(&client), fresh(&client));
    push(&from, [1]);
    let options = PopOptions {
        lease_seconds: Some(1),
        ..batch(1)
    };
    let delivery = from.pop_with(&options).wait(LONG)?.take().unwrap();
    let again = pop(&from, 1);
    let error = refused(
        client
            .transaction()
            .push(to.name(), None, &[json_of(2)])
            .ack(&delivery)
            .commit(),
    );
    assert_eq!(
        (error.code(), error.outcome(), RollbackReason::of(&error)),
        (
            ErrorCode::RolledBack,
            Outcome::Refused,
            Some(RollbackReason::AckRejected)
        )
    );
    let result: Value = serde_json::from_str(error.result_json().unwrap())?;
    assert_eq!(result["reason"], "ack_rejected");
    assert_eq!(result["results"][0]["type"], "push");
    assert_eq!(result["results"][0]["status"], "failed");
    assert_eq!(result["results"][1]["success"], false);
    assert!(pop_now(&to, 1).is_none(), "nothing of it was applied");
    again.ack().wait(LONG)?;
    close(client)
}

fn t6_e3_ids_and_leases_must_be_named(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let ack = |partition: &str, lease: Option<&str>| -> Vec<Ack> {
        serde_json::from_value(json!([
            {"transactionId": "t", "partitionId": partition, "leaseId": lease},
        ]))
        .unwrap()
    };
    for (acks, named) in [
        (ack("", Some("l")), "acks[0].partitionId"),
        (ack("p", None), "acks[0].leaseId"),
        (Vec::new(), "acks"),
    ] {
        let error = refused(client.ack(acks.clone(), &AckOptions::default()));
        assert!(error.message().contains(named), "{error}");
        let mut transaction = client.transaction();
        transaction
            .ack_ids(acks, &AckOptions::default())
            .push(queue.name(), None, &[json_of(1)]);
        assert_eq!(
            transaction.error().unwrap().code(),
            ErrorCode::InvalidArgument
        );
        let error = refused(transaction.commit());
        assert!(error.message().contains(named), "{error}");
        assert_eq!(error.outcome(), Outcome::NotApplied);
    }
    for (operations, named) in [
        (
            json!([{"type": "ack", "transactionId": "t", "leaseId": "l"}]),
            "partitionId",
        ),
        (
            json!([{"type": "ack", "partitionId": "p", "leaseId": "l"}]),
            "transactionId",
        ),
        (
            json!([{"type": "ack", "transactionId": "t", "partitionId": "p", "leaseId": "l", "status": "meh"}]),
            "meh",
        ),
        (
            json!([{"type": "push", "queue": "q", "items": [{"data": 1}]}]),
            "data",
        ),
        (
            json!([{"type": "push", "queue": "", "items": [{"payload": 1}]}]),
            "queue",
        ),
        (
            json!([{"type": "push", "queue": "q", "items": []}]),
            "items",
        ),
        (json!([{"type": "push", "queue": "q"}]), "items"),
        (
            json!([{"type": "push", "queue": "q", "item": [], "items": []}]),
            "item",
        ),
        (json!([{"type": "pull"}]), "pull"),
        (json!([{}]), "type"),
        (json!(7), "7"),
    ] {
        let error = call(
            &client,
            "transaction.commit",
            json!({ "operations": operations }),
        );
        let error = error.unwrap_err();
        assert!(error.message().contains(named), "{named}: {error}");
    }
    assert!(pop_now(&queue, 1).is_none());
    close(client)
}

fn t7_an_empty_transaction_is_refused(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let error = refused(client.transaction().commit());
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    assert!(error.message().contains("no operations"), "{error}");
    let by_name = call(&client, "transaction.commit", json!({"operations": []}));
    assert!(by_name.unwrap_err().message().contains("no operations"));
    close(client)
}

fn x100_a_duplicate_rolls_everything_back(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let (from, to) = (fresh(&client), fresh(&client));
    push(&from, [1]);
    to.push(&[json_of(1).transaction_id("taken")]).wait(LONG)?;
    let delivery = pop(&from, 1);
    let error = refused(
        client
            .transaction()
            .ack(&delivery)
            .push(to.name(), None, &[json_of(2)])
            .push(to.name(), None, &[json_of(3).transaction_id("taken")])
            .commit(),
    );
    assert_eq!(RollbackReason::of(&error), Some(RollbackReason::Duplicate));
    assert_eq!(error.broker_code(), Some("duplicate"));
    assert_eq!(error.transaction_ids().len(), 2);
    assert_eq!(drain(&to), [1]);
    // The message is unsettled again.
    delivery.ack().wait(LONG)?;
    close(client)
}

fn x101_a_trace_id_survives(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let trace = uuid::Uuid::now_v7().to_string();
    client
        .transaction()
        .push(queue.name(), None, &[json_of(1).trace_id(trace.as_str())])
        .commit()
        .wait(LONG)?;
    let delivery = pop(&queue, 1);
    assert_eq!(delivery.messages()[0].trace_id.as_deref(), Some(&*trace));
    close(client)
}

fn c21_a_group_acks_by_ids_and_the_ids_are_minted_once(broker: &TestBroker) -> Tested {
    let owner = client(broker);
    let queue = fresh(&owner).group("workers");
    assert!(pop_now(&queue, 1).is_none());
    push(&queue, 0..2);
    let delivery = pop(&queue, 2);
    let source = delivery.source();
    let ack = |index: usize| -> Ack {
        serde_json::from_value(json!({
            "transactionId": delivery.messages()[index].transaction_id,
            "partitionId": source.partition_id, "leaseId": source.lease_id,
        }))
        .unwrap()
    };
    let group = AckOptions {
        group: Some("workers".into()),
        ..AckOptions::default()
    };
    let to = fresh(&owner);
    // Another group has no such lease.
    let mut foreign = owner.transaction();
    foreign
        .ack_ids(vec![ack(0)], &AckOptions::default())
        .push(to.name(), None, &[json_of(7)]);
    assert_eq!(refused(foreign.commit()).code(), ErrorCode::RolledBack);
    let mut transaction = owner.transaction();
    transaction
        .ack_ids(vec![ack(0), ack(1)], &group)
        .push(to.name(), None, &[json_of(8)]);
    let committed = transaction.commit().wait(LONG)?;
    let TransactionResult::Push(pushed) = &committed.results[2] else {
        panic!("{committed:?}");
    };
    let stored = pop(&to, 5);
    assert_eq!(numbers(&stored), [8]);
    assert_eq!(stored.messages()[0].transaction_id, pushed.transaction_id);
    assert_eq!(refused(delivery.ack()).code(), ErrorCode::AlreadySettled);
    drop(delivery);
    assert!(pop_now(&queue, 1).is_none());
    close(owner)
}

fn pushes_keep_their_order_around_a_commit(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let buffered = queue.clone().buffer(queen::BufferOptions::default());
    let mut calls = Vec::new();
    for round in 0..10 {
        let first = round * 4;
        buffered.push(&[json_of(first)]).wait(LONG)?;
        calls.push(queue.push(&[json_of(first + 1)]));
        let mut transaction = client.transaction();
        transaction.push(queue.name(), None, &[json_of(first + 2)]);
        drop(transaction.commit());
        calls.push(queue.push(&[json_of(first + 3)]));
    }
    // A flush waits for commits as well.
    client.flush(&Default::default()).wait(LONG)?;
    assert!(calls.iter().all(|call| call.is_complete()));
    assert_eq!(drain(&queue), (0..40).collect::<Vec<_>>());
    close(client)
}

fn transactions_that_meet_in_many_places_do_not_wait_for_each_other_forever(
    broker: &TestBroker,
) -> Tested {
    let client = client(broker);
    let (from, to) = (fresh(&client), fresh(&client));
    let places: Vec<String> = (0..4).map(|n| format!("p{n}")).collect();
    for place in &places {
        push(&from.clone().partition(place.as_str()), 0..8);
    }
    let deliveries: Vec<_> = places
        .iter()
        .map(|place| pop(&from.clone().partition(place.as_str()), 8))
        .collect();
    std::thread::scope(|scope| {
        for turn in 0..4 {
            let (client, to, places, deliveries) = (&client, &to, &places, &deliveries);
            scope.spawn(move || {
                // Each goes through all places, in another order.
                for round in 0..2 {
                    let mut transaction = client.transaction();
                    for step in 0..4 {
                        let at = (turn + step) % 4;
                        transaction.push(to.name(), places[at].as_str(), &[json_of(1)]);
                    }
                    transaction.ack_message(&deliveries[turn], round, Status::Completed);
                    transaction.commit().wait(LONG).unwrap();
                }
            });
        }
    });
    for place in &places {
        assert_eq!(drain(&to.clone().partition(place.as_str())).len(), 8);
    }
    drop(deliveries);
    close(client)
}

fn transactions_by_name(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let (from, to) = (fresh(&client), fresh(&client));
    push(&from, [1]);
    let delivery = pop(&from, 1);
    let source = delivery.source();
    let done = call(
        &client,
        "transaction.commit",
        json!({"operations": [
            {"type": "ack", "transactionId": delivery.messages()[0].transaction_id,
             "partitionId": source.partition_id, "leaseId": source.lease_id},
            {"type": "push", "queue": to.name(), "partition": "p", "items": [{"payload": {"n": 1}}, {"payload": null}]},
        ]}),
    )?;
    let kinds: Vec<_> = done["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["type"])
        .collect();
    assert_eq!(kinds, ["ack", "push", "push"]);
    assert_eq!(refused(delivery.ack()).code(), ErrorCode::AlreadySettled);
    let forwarded = pop(&to.partition("p"), 2);
    let payloads: Vec<_> = forwarded
        .messages()
        .iter()
        .map(|one| one.payload())
        .collect();
    assert_eq!(payloads, [r#"{"n":1}"#, "null"]);
    close(client)
}

fn transactions_are_counted(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let mut commits = Vec::new();
    for _ in 0..2 {
        let mut transaction = client.transaction();
        transaction.push(queue.name(), None, &[json_of(1).transaction_id("once")]);
        commits.push(transaction.commit().wait(LONG));
    }
    assert!(commits[0].is_ok() && commits[1].is_err());
    let stats = client.stats();
    let ended = stats.transactions;
    assert_eq!(
        (ended.committed, ended.rolled_back, ended.unknown),
        (1, 1, 0)
    );
    assert_eq!((stats.messages.queued, stats.messages.failed), (1, 1));
    assert_eq!(
        (stats.requests.transaction, stats.latency.transaction.count),
        (2, 2)
    );
    close(client)
}
