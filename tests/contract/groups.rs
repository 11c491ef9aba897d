//! Consumer groups.

use super::*;

pub(crate) const TESTS: Tests = tests![
    m9_a_group_is_forgotten_with_or_without_its_subscription,
    m10_a_subscription_moves_to_a_time,
    x56_groups_are_listed_told_and_moved,
    x56_lagging_groups_are_listed,
    x57_one_partition_is_moved,
];

const LONG_AGO: SeekTo<'static> = SeekTo::Time("1970-01-01T00:00:00Z");

/// A queue read by a group from its start: three messages, all acked.
fn read(client: &Client, group: &str) -> Queue {
    let queue = fresh(client).group(group);
    told(queue.create(QueueOptions::new()));
    push(&queue, 0..3);
    let delivery = take(&queue, "all").expect("three messages");
    assert_eq!(numbers(&delivery), [0, 1, 2]);
    delivery.ack().wait(LONG).unwrap();
    queue
}

/// Pops what is there now for a group that begins at `mode`.
fn take(queue: &Queue, mode: &str) -> Option<Delivery> {
    let options = PopOptions {
        subscription_mode: Some(mode.into()),
        wait: false,
        ..batch(10)
    };
    queue.pop_with(&options).wait(LONG).unwrap().take()
}

fn m9_a_group_is_forgotten_with_or_without_its_subscription(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let name = format!("g-{}", uuid::Uuid::now_v7());
    let queue = read(&client, &name);
    let group = client.group(&name);
    // Kept, the subscription says where it begins, whatever is asked for.
    let kept = told(group.clone().delete_metadata(false).delete());
    assert_eq!(
        (&kept["deletedPartitions"], &kept["metadataDeleted"]),
        (&json!(1), &json!(false))
    );
    let again = take(&queue, "new").expect("from the start, as subscribed");
    assert_eq!(numbers(&again), [0, 1, 2]);
    again.ack().wait(LONG)?;
    let gone = told(group.delete());
    assert_eq!(
        (&gone["deletedPartitions"], &gone["metadataDeleted"]),
        (&json!(1), &json!(true))
    );
    assert!(
        take(&queue, "new").is_none(),
        "a new group that begins at the end"
    );
    let one_queue = told(group.delete_in(queue.name()));
    assert_eq!(one_queue["queueName"], queue.name());
    assert_eq!(
        told(group.delete())["deletedPartitions"],
        0,
        "an unknown one is no error"
    );
    close(client)
}

fn m10_a_subscription_moves_to_a_time(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let name = format!("g-{}", uuid::Uuid::now_v7());
    let queue = read(&client, &name);
    let group = client.group(&name);
    let moved = told(group.subscribe("2001-02-03T04:05:06Z"));
    assert_eq!(moved["rowsUpdated"], 1);
    assert_eq!(moved["newTimestamp"], "2001-02-03T04:05:06Z");
    assert!(take(&queue, "all").is_none(), "what it has read stays read");
    assert_eq!(
        told(
            client
                .group("nobody at all")
                .subscribe("2001-02-03T04:05:06Z")
        )["rowsUpdated"],
        0
    );
    assert!(
        refused(group.subscribe("03.02.2001"))
            .message()
            .contains("03.02.2001")
    );
    close(client)
}

fn x56_groups_are_listed_told_and_moved(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let name = format!("g-{}", uuid::Uuid::now_v7());
    let queue = read(&client, &name);
    let group = client.group(&name);
    let listed = told(client.groups().list());
    let mine = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == name);
    assert_eq!(mine.expect("it is listed")["queueName"], queue.name());
    let stands = told(group.get());
    assert_eq!(stands[queue.name()]["partitions"][0]["offsetLag"], 0);
    assert_eq!(told(client.group("nobody at all").get()), json!({}));
    let moved = told(group.seek(queue.name(), LONG_AGO));
    assert_eq!(moved["partitionsUpdated"], 1);
    let again = take(&queue, "new").expect("from the start again");
    assert_eq!(numbers(&again), [0, 1, 2]);
    again.ack().wait(LONG)?;
    push(&queue, [3]);
    assert_eq!(
        told(group.seek(queue.name(), SeekTo::End))["seekToEnd"],
        true
    );
    assert!(take(&queue, "new").is_none());
    assert_eq!(
        refused(group.seek("no such queue", SeekTo::End)).code(),
        ErrorCode::NotFound
    );
    assert!(
        refused(group.seek(queue.name(), SeekTo::Time("soon")))
            .message()
            .contains("soon")
    );
    close(client)
}

fn x56_lagging_groups_are_listed(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let name = format!("g-{}", uuid::Uuid::now_v7());
    let queue = read(&client, &name);
    push(&queue, [3]);
    let deadline = Instant::now() + LONG;
    let mine = loop {
        // The broker counts from time to time.
        let listed = told(client.groups().lagging(0));
        let found = listed
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["consumer_group"] == name)
            .cloned();
        match found {
            Some(found) => break found,
            None => assert!(Instant::now() < deadline, "{listed}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(
        (&mine["queue_name"], &mine["offset_lag"]),
        (&json!(queue.name()), &json!(1))
    );
    let old = told(client.groups().lagging(86_400));
    assert!(
        old.as_array()
            .unwrap()
            .iter()
            .all(|one| one["consumer_group"] != name)
    );
    close(client)
}

fn x57_one_partition_is_moved(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let name = format!("g-{}", uuid::Uuid::now_v7());
    let queue = read(&client, &name);
    let other = queue.clone().partition("other");
    push(&other, [7]);
    take(&queue, "all")
        .expect("the other partition")
        .ack()
        .wait(LONG)?;
    let moved = told(
        client
            .group(&name)
            .seek_partition(queue.name(), "other", LONG_AGO),
    );
    assert_eq!(
        (&moved["partitionName"], &moved["updated"]),
        (&json!("other"), &json!(true))
    );
    let again = take(&other, "all").expect("the other partition again");
    assert_eq!(numbers(&again), [7]);
    again.ack().wait(LONG)?;
    assert!(take(&queue, "all").is_none());
    let none = refused(
        client
            .group(&name)
            .seek_partition(queue.name(), "none", LONG_AGO),
    );
    assert_eq!(none.code(), ErrorCode::NotFound);
    close(client)
}
