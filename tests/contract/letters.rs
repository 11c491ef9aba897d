//! Dead letters, and messages by their address.

use super::*;

pub(crate) const TESTS: Tests = tests![
    q26_dead_letters_by_every_filter,
    q26_filters_reach_beyond_the_first_page,
    x46_a_dead_letter_is_pushed_again_once,
    x46_a_dead_letter_is_deleted,
    x54_messages_are_listed_and_told,
];

/// A queue with messages 0 to 3: 0 and 1 in partition `a`, 2 and 3 in `b`, dead-lettered by group `g` in that order.
fn dead(client: &Client) -> Queue {
    let queue = fresh(client);
    told(queue.create(QueueOptions::new()));
    for number in 0..4u32 {
        let partition = if number < 2 { "a" } else { "b" };
        let item = Item::json(&number)
            .unwrap()
            .transaction_id(format!("t{number}"));
        let place = queue.clone().partition(partition).group("g");
        place.push(&[item]).wait(LONG).unwrap();
        bury(&place);
    }
    queue
}

fn from_start() -> PopOptions {
    PopOptions {
        wait: true,
        subscription_mode: Some("all".into()),
        ..PopOptions::default()
    }
}

/// Dead-letters the next message.
fn bury(queue: &Queue) {
    let delivery = queue.pop_with(&from_start()).wait(LONG).unwrap().take();
    let verdict = MessageVerdict {
        index: 0,
        status: Status::Dlq,
        error: Some("no good".into()),
    };
    delivery.unwrap().settle(vec![verdict]).wait(LONG).unwrap();
}

/// The payloads of listed messages.
fn payloads(document: &Value) -> Vec<u64> {
    let messages = document["messages"].as_array().unwrap();
    messages
        .iter()
        .map(|one| one["data"].as_u64().unwrap())
        .collect()
}

fn q26_dead_letters_by_every_filter(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = dead(&client);
    let name = queue.name();
    let all = told(queue.dlq().list());
    assert_eq!(payloads(&all), [3, 2, 1, 0], "the newest first");
    let letter = &all["messages"][0];
    assert_eq!(
        (
            &letter["partition"],
            &letter["consumerGroup"],
            &letter["errorMessage"],
            &letter["transactionId"]
        ),
        (&json!("b"), &json!("g"), &json!("no good"), &json!("t3"))
    );
    let list = |letters: queen::DeadLetters| payloads(&told(letters.list()));
    assert_eq!(list(client.dlq(name).group("g").limit(3)), [3, 2, 1]);
    assert_eq!(list(client.dlq(name).group("other")), [0u64; 0]);
    assert_eq!(list(client.dlq(name).limit(2).offset(1)), [2, 1]);
    // What brokers of generation 1.x do not look at.
    assert_eq!(list(queue.clone().partition("a").dlq()), [1, 0]);
    assert_eq!(
        list(client.dlq(name).partition("a").limit(1).offset(1)),
        [0]
    );
    assert_eq!(list(client.dlq(name).partition("none")), [0u64; 0]);
    let second = all["messages"][2]["failedAt"].as_str().unwrap();
    assert_eq!(list(client.dlq(name).from(second)), [3, 2, 1]);
    assert_eq!(list(client.dlq(name).to(second)), [1, 0]);
    assert_eq!(
        list(client.dlq(name).from(second).to(second).group("g")),
        [1]
    );
    assert_eq!(
        list(client.dlq(name).from("2999-01-01T00:00:00Z")),
        [0u64; 0]
    );
    let everywhere = told(client.dlq(None).partition("b").limit(1000).list());
    let mine = everywhere["messages"].as_array().unwrap().iter();
    assert_eq!(mine.filter(|one| one["queue"] == name).count(), 2);
    let page = told(client.dlq(name).partition("a").limit(1).list());
    assert_eq!(
        (&page["total"], &page["pagination"]["limit"]),
        (&json!(1), &json!(1))
    );
    close(client)
}

fn q26_filters_reach_beyond_the_first_page(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    told(queue.create(QueueOptions::new()));
    let (early, late) = (
        queue.clone().partition("early"),
        queue.clone().partition("late"),
    );
    push(&early, [0]);
    bury(&early);
    // More than libqueen asks for at a time.
    push(&late, 1..=520);
    for _ in 0..520 {
        bury(&late);
    }
    assert_eq!(payloads(&told(early.dlq().list())), [0]);
    let deep = payloads(&told(late.dlq().limit(5).offset(513).list()));
    assert_eq!(deep, [7, 6, 5, 4, 3]);
    close(client)
}

fn x46_a_dead_letter_is_pushed_again_once(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = dead(&client);
    let all = told(queue.dlq().list());
    let partition_id = all["messages"][0]["partitionId"].as_str().unwrap();
    let replayed = told(queue.dlq().retry(partition_id, "t3"));
    assert_eq!(replayed["success"], true);
    assert_eq!(payloads(&told(queue.dlq().list())), [2, 1, 0]);
    let again = pop_group(&queue, "g");
    assert_eq!(numbers(&again), [3]);
    assert_ne!(
        again.messages()[0].transaction_id,
        "t3",
        "a message of its own"
    );
    again.ack().wait(LONG)?;
    for gone in [
        queue.dlq().retry(partition_id, "t3"),
        client.messages().retry(partition_id, "never"),
    ] {
        let error = refused(gone);
        assert_eq!(
            (error.code(), error.outcome()),
            (ErrorCode::NotFound, queen::Outcome::Refused)
        );
    }
    close(client)
}

fn pop_group(queue: &Queue, group: &str) -> Delivery {
    let reader = queue.clone().group(group);
    reader
        .pop_with(&from_start())
        .wait(LONG)
        .unwrap()
        .take()
        .unwrap()
}

fn x46_a_dead_letter_is_deleted(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = dead(&client);
    let all = told(queue.dlq().list());
    let partition_id = all["messages"][0]["partitionId"].as_str().unwrap();
    assert_eq!(
        told(queue.dlq().delete(partition_id, "t2"))["success"],
        true
    );
    assert_eq!(payloads(&told(queue.dlq().list())), [3, 1, 0]);
    assert_eq!(
        refused(queue.dlq().delete(partition_id, "t2")).code(),
        ErrorCode::NotFound
    );
    // A live message is none.
    push(&queue.clone().partition("b"), [9]);
    let delivery = pop_group(&queue, "g");
    let live = &delivery.messages()[0];
    let error = refused(client.messages().delete(partition_id, &live.transaction_id));
    assert_eq!(error.code(), ErrorCode::NotFound);
    delivery.ack().wait(LONG)?;
    close(client)
}

fn x54_messages_are_listed_and_told(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = dead(&client);
    let place = queue.clone().partition("c");
    let big = Item::raw(r#"{"n":  123456789012345678901234567890}"#)?.transaction_id("big");
    place.push(&[big]).wait(LONG)?;
    let listed = told(client.messages().queue(queue.name()).limit(50).list());
    let ids: Vec<_> = listed["messages"].as_array().unwrap().iter().collect();
    assert_eq!(ids.len(), 5);
    assert_eq!(ids[0]["transactionId"], "big", "the newest first");
    let ids = |messages: queen::Messages| -> Vec<String> {
        let document = told(messages.queue(queue.name()).list());
        let messages = document["messages"].as_array().unwrap().clone();
        messages
            .iter()
            .map(|one| one["transactionId"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(client.messages().partition("a")), ["t1", "t0"]);
    assert_eq!(
        ids(client.messages().status("dead_letter").limit(2).offset(1)),
        ["t2", "t1"]
    );
    assert_eq!(ids(client.messages().status("pending")), ["big"]);
    assert!(
        ids(client
            .messages()
            .from("2999-01-01T00:00:00Z")
            .to("2999-01-02T00:00:00Z"))
        .is_empty()
    );
    let delivery = place
        .pop_with(&PopOptions {
            wait: true,
            ..PopOptions::default()
        })
        .wait(LONG)?
        .take()
        .unwrap();
    let partition_id = &delivery.source().partition_id;
    let one = told(client.messages().get(partition_id, "big"));
    assert_eq!(
        (&one["queue"], &one["partition"]),
        (&json!(queue.name()), &json!("c"))
    );
    assert_eq!(one["status"], "processing");
    delivery.ack().wait(LONG)?;
    let missing = refused(client.messages().get(partition_id, "none"));
    assert_eq!(missing.code(), ErrorCode::NotFound);
    close(client)
}
