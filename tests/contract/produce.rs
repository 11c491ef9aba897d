//! Pushes and queues.

use super::*;

pub(crate) const TESTS: Tests = &[
    (
        "c49_payloads_come_back_byte_for_byte",
        c49_payloads_come_back_byte_for_byte,
    ),
    (
        "pushes_are_stored_in_call_order",
        pushes_are_stored_in_call_order,
    ),
    ("c30_flush_waits_for_pushes", c30_flush_waits_for_pushes),
    (
        "duplicate_ids_are_stored_once",
        duplicate_ids_are_stored_once,
    ),
    (
        "queues_are_created_shown_and_deleted",
        queues_are_created_shown_and_deleted,
    ),
];

fn c49_payloads_come_back_byte_for_byte(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client).partition("a/b c?d#é");
    let payload = r#"{"n": 1.0,  "big":123456789012345678901234567890, "b":[null], "a":"\u00e9"}"#;
    let results = queue
        .push(&[Item::raw(payload)?.transaction_id("t-1")])
        .wait(LONG)?;
    assert_eq!(
        (results[0].transaction_id.as_str(), &*results[0].status),
        ("t-1", "queued")
    );
    let delivery = pop(&queue, 5);
    let message = &delivery.messages()[0];
    assert_eq!(message.payload(), payload);
    assert_eq!(Some(&message.id), results[0].message_id.as_ref());
    assert_eq!(delivery.source().partition, "a/b c?d#é");
    delivery.ack().wait(LONG)?;
    assert!(pop_now(&queue, 1).is_none());
    close(client)
}

fn pushes_are_stored_in_call_order(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client).partition("p");
    let calls: Vec<_> = (0..300u32)
        .map(|n| queue.push(&[Item::json(&n).unwrap()]))
        .collect();
    client.flush(&Default::default()).wait(LONG)?;
    assert!(calls.iter().all(|call| call.is_complete()));
    let mut seen = Vec::new();
    while seen.len() < 300 {
        let delivery = pop(&queue, 1000);
        seen.extend(numbers(&delivery));
        delivery.ack().wait(LONG)?;
    }
    assert_eq!(seen, (0..300).collect::<Vec<_>>());
    close(client)
}

fn c30_flush_waits_for_pushes(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    for partition in 0..20 {
        let place = queue.clone().partition(format!("p{partition}"));
        // It runs on without its handle.
        drop(place.push(&[Item::json(&partition)?]));
    }
    client.flush(&Default::default()).wait(LONG)?;
    let document: serde_json::Value = serde_json::from_str(queue.get().wait(LONG)?.as_str())?;
    assert_eq!(
        document["partitions"].as_array().map(Vec::len),
        Some(20),
        "{document}"
    );
    assert_eq!(client.flush(&Default::default()).wait(LONG)?.flushed, 0);
    close(client)
}

fn duplicate_ids_are_stored_once(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let first = queue
        .push(&[Item::json(&1)?.transaction_id("same")])
        .wait(LONG)?;
    let second = queue
        .push(&[Item::json(&2)?.transaction_id("same")])
        .wait(LONG)?;
    assert_eq!(
        (&*first[0].status, &*second[0].status),
        ("queued", "duplicate")
    );
    assert_eq!(first[0].message_id, second[0].message_id);
    assert_eq!(numbers(&pop(&queue, 10)), [1]);
    close(client)
}

fn queues_are_created_shown_and_deleted(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let created: serde_json::Value = serde_json::from_str(
        queue
            .create(QueueOptions::new().lease_time_seconds(7))
            .wait(LONG)?
            .as_str(),
    )?;
    assert_eq!(
        (
            &created["options"]["leaseTime"],
            &created["options"]["retryLimit"]
        ),
        (&json!(7), &json!(3))
    );
    push(&queue, [1]);
    let shown: serde_json::Value = serde_json::from_str(queue.get().wait(LONG)?.as_str())?;
    assert_eq!(shown["partitions"][0]["name"], "Default");
    let deleted: serde_json::Value = serde_json::from_str(queue.delete().wait(LONG)?.as_str())?;
    assert_eq!(deleted["deleted"], true);
    let gone = queue.get().wait(LONG).unwrap_err();
    assert_eq!(
        (gone.code(), gone.http_status()),
        (ErrorCode::NotFound, Some(404))
    );
    close(client)
}
