//! Client-side buffers and their delivery reports.

use super::*;

use queen::{BufferOptions, DeliveryReport, DeliveryStatus, FlushOptions, PushOptions, WhenFull};

pub(crate) const TESTS: Tests = &[
    (
        "b1_b9_a_buffered_push_completes_when_it_is_accepted",
        b1_b9_a_buffered_push_completes_when_it_is_accepted,
    ),
    (
        "b3_v7_c61_the_time_of_the_first_message_flushes",
        b3_v7_c61_the_time_of_the_first_message_flushes,
    ),
    (
        "b4_v7_the_count_flushes_in_order",
        b4_v7_the_count_flushes_in_order,
    ),
    (
        "b2_b5_m8_q25_v8_one_place_is_flushed_and_no_other",
        b2_b5_m8_q25_v8_one_place_is_flushed_and_no_other,
    ),
    (
        "c13_pushes_are_stored_in_call_order_buffered_or_not",
        c13_pushes_are_stored_in_call_order_buffered_or_not,
    ),
    (
        "b10_c6_c56_flushes_and_pushes_at_once_do_not_block_each_other",
        b10_c6_c56_flushes_and_pushes_at_once_do_not_block_each_other,
    ),
    (
        "x23_x24_a_duplicate_is_reported_as_one",
        x23_x24_a_duplicate_is_reported_as_one,
    ),
    (
        "x20_a_full_buffer_lets_pushes_wait",
        x20_a_full_buffer_lets_pushes_wait,
    ),
    ("b8_m8_statistics_of_buffers", b8_m8_statistics_of_buffers),
    (
        "x13_m13_close_sends_what_is_buffered",
        x13_m13_close_sends_what_is_buffered,
    ),
];

/// Options under which nothing is sent but by count or call.
fn patient(message_count: usize) -> BufferOptions {
    BufferOptions {
        message_count,
        time_millis: 3_600_000,
        ..BufferOptions::default()
    }
}

/// Collects the reports of a client.
fn reports(client: &Client) -> Arc<Mutex<Vec<DeliveryReport>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let to = seen.clone();
    client.set_reports(Some(Arc::new(move |reports: &[DeliveryReport]| {
        to.lock().unwrap().extend_from_slice(reports);
    })));
    seen
}

/// Everything that is stored in the partition now.
fn drain(queue: &Queue) -> Vec<u32> {
    let mut seen = Vec::new();
    while let Some(delivery) = pop_now(queue, 1000) {
        seen.extend(numbers(&delivery));
        delivery.ack().wait(LONG).unwrap();
    }
    seen
}

fn push_one(queue: &Queue, n: u32) {
    let results = queue.push(&[Item::json(&n).unwrap()]).wait(LONG).unwrap();
    assert!(results[0].is_success());
}

fn b1_b9_a_buffered_push_completes_when_it_is_accepted(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let seen = reports(&client);
    let plain = fresh(&client).partition("p");
    let queue = plain.clone().buffer(patient(100));
    let items = [Item::json(&1)?.transaction_id("mine"), Item::raw("null")?];
    let results = queue.push(&items).wait(LONG)?;
    let told: Vec<_> = results
        .iter()
        .map(|result| (result.index, &*result.status))
        .collect();
    assert_eq!(told, [(0, "buffered"), (1, "buffered")]);
    assert_eq!(results[0].transaction_id, "mine");
    assert!(pop_now(&plain, 1).is_none(), "nothing was sent");
    assert!(seen.lock().unwrap().is_empty());
    let flushed = client.flush(&FlushOptions::default()).wait(LONG)?;
    assert_eq!((flushed.flushed, flushed.messages), (0, 2));
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].queue, plain.name());
    assert_eq!(
        (seen[0].partition.as_str(), seen[0].transaction_id.as_str()),
        ("p", "mine")
    );
    assert_eq!(
        (seen[1].status, &seen[1].transaction_id),
        (DeliveryStatus::Queued, &results[1].transaction_id)
    );
    let delivery = pop(&plain, 10);
    let ids: Vec<_> = delivery
        .messages()
        .iter()
        .map(|message| (Some(message.id.clone()), message.payload().to_owned()))
        .collect();
    assert_eq!(
        ids,
        [
            (seen[0].message_id.clone(), "1".to_owned()),
            (seen[1].message_id.clone(), "null".to_owned())
        ]
    );
    close(client)
}

fn b3_v7_c61_the_time_of_the_first_message_flushes(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let buffered = queue.clone().buffer(BufferOptions {
        time_millis: 300,
        ..patient(1000)
    });
    push_one(&buffered, 1);
    push_one(&buffered, 2);
    assert_eq!(
        numbers(&pop(&queue, 10)),
        [1, 2],
        "they came without a call"
    );
    close(client)
}

fn b4_v7_the_count_flushes_in_order(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let plain = fresh(&client).partition("p");
    let queue = plain.clone().buffer(patient(50));
    for n in 0..430 {
        push_one(&queue, n);
    }
    let all: Vec<_> = (430..1000).map(|n| Item::json(&n).unwrap()).collect();
    queue.push(&all).wait(LONG)?;
    let mut seen = Vec::new();
    while seen.len() < 1000 {
        let delivery = pop(&plain, 1000);
        seen.extend(numbers(&delivery));
        delivery.ack().wait(LONG)?;
    }
    assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    let requests = client.stats().requests.push;
    assert!(
        (20..=1000 / 50 + 2).contains(&requests),
        "{requests} requests"
    );
    close(client)
}

fn b2_b5_m8_q25_v8_one_place_is_flushed_and_no_other(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let name = format!("contract-{}", uuid::Uuid::now_v7());
    let places = [
        (format!("{name}/b"), "c"),
        (name.clone(), "b/c"),
        (name.clone(), "d"),
    ]
    .map(|(queue, partition)| client.queue(queue).partition(partition));
    for (n, place) in places.iter().enumerate() {
        push_one(&place.clone().buffer(patient(100)), n as u32);
    }
    assert_eq!(places[1].flush().wait(LONG)?.messages, 1);
    let seen = |place: &Queue| pop_now(place, 10).map(|delivery| numbers(&delivery));
    assert_eq!(seen(&places[0]), None);
    assert_eq!(seen(&places[1]), Some(vec![1]));
    assert_eq!(seen(&places[2]), None);
    let one_queue = FlushOptions {
        queue: Some(name),
        ..FlushOptions::default()
    };
    assert_eq!(client.flush(&one_queue).wait(LONG)?.messages, 1);
    assert_eq!(seen(&places[0]), None);
    assert_eq!(seen(&places[2]), Some(vec![2]));
    assert_eq!(
        client.flush(&FlushOptions::default()).wait(LONG)?.messages,
        1
    );
    assert_eq!(seen(&places[0]), Some(vec![0]));
    let lone = FlushOptions {
        partition: Some("p".into()),
        ..FlushOptions::default()
    };
    assert!(client.flush(&lone).wait(LONG).is_err());
    close(client)
}

fn c13_pushes_are_stored_in_call_order_buffered_or_not(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let plain = fresh(&client).partition("p");
    let buffered = plain.clone().buffer(patient(7));
    let calls: Vec<_> = (0..400u32)
        .map(|n| {
            // Runs of one kind and of both.
            let queue = match (n / 10) % 3 {
                0 => &plain,
                1 => &buffered,
                _ if n % 2 == 0 => &plain,
                _ => &buffered,
            };
            queue.push(&[Item::json(&n).unwrap()])
        })
        .collect();
    client.flush(&FlushOptions::default()).wait(LONG)?;
    for call in calls {
        call.wait(LONG)?;
    }
    assert_eq!(drain(&plain), (0..400).collect::<Vec<_>>());
    close(client)
}

fn b10_c6_c56_flushes_and_pushes_at_once_do_not_block_each_other(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let seen = reports(&client);
    let queue = fresh(&client);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let place = queue
                .clone()
                .partition(format!("p{}", thread % 2))
                .buffer(patient(10));
            scope.spawn(move || {
                for n in 0..150 {
                    push_one(&place, thread * 1000 + n);
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..20 {
                    client.flush(&FlushOptions::default()).wait(LONG).unwrap();
                }
            });
        }
    });
    client.flush(&FlushOptions::default()).wait(LONG)?;
    assert_eq!(seen.lock().unwrap().len(), 600);
    for partition in 0..2u32 {
        let stored = drain(&queue.clone().partition(format!("p{partition}")));
        for thread in [partition, partition + 2] {
            let own: Vec<_> = stored.iter().filter(|n| *n / 1000 == thread).collect();
            assert_eq!(own.len(), 150);
            assert!(own.is_sorted(), "the order of one thread");
        }
    }
    close(client)
}

fn x23_x24_a_duplicate_is_reported_as_one(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let seen = reports(&client);
    let queue = fresh(&client).buffer(patient(100));
    for payload in [1, 2] {
        queue
            .push(&[Item::json(&payload)?.transaction_id("same")])
            .wait(LONG)?;
        queue.flush().wait(LONG)?;
    }
    let seen = seen.lock().unwrap().clone();
    assert_eq!(
        (seen[0].status, seen[1].status),
        (DeliveryStatus::Queued, DeliveryStatus::Duplicate)
    );
    assert_eq!(seen[0].message_id, seen[1].message_id);
    assert!(!seen[1].resent, "it was sent once");
    close(client)
}

fn x20_a_full_buffer_lets_pushes_wait(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let plain = fresh(&client).partition("p");
    let small = BufferOptions {
        max_messages: Some(20),
        ..patient(10)
    };
    let queue = plain.clone().buffer(small.clone());
    let calls: Vec<_> = (0..500u32)
        .map(|n| queue.push(&[Item::json(&n).unwrap()]))
        .collect();
    for call in calls {
        assert_eq!(call.wait(LONG)?[0].status, "buffered");
        assert!(client.stats().buffers.total_buffered_messages <= 20);
    }
    client.flush(&FlushOptions::default()).wait(LONG)?;
    assert_eq!(drain(&plain), (0..500).collect::<Vec<_>>());
    let failing = PushOptions {
        buffer: Some(BufferOptions {
            when_full: WhenFull::Fail,
            max_messages: Some(2),
            ..patient(2)
        }),
        ..PushOptions::default()
    };
    let items: Vec<_> = (0..3).map(|n| Item::json(&n).unwrap()).collect();
    let one = &items[..1];
    plain.push_with(one, &failing).wait(LONG)?;
    let error = plain.push_with(&items[..2], &failing).wait(LONG);
    let error = error.expect_err("two of three are there");
    assert_eq!(error.code(), ErrorCode::WouldBlock);
    assert!(error.message().contains("maxMessages 2"), "{error}");
    close(client)
}

fn b8_m8_statistics_of_buffers(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    for partition in ["a", "b"] {
        let place = queue.clone().partition(partition).buffer(patient(100));
        push_one(&place, 1);
        push_one(&place, 2);
    }
    std::thread::sleep(Duration::from_millis(20));
    let now = client.stats().buffers;
    assert_eq!((now.active_buffers, now.total_buffered_messages), (2, 4));
    assert_eq!((now.flushes_performed, now.in_flight_messages), (0, 0));
    assert!(now.oldest_buffer_age >= 20 && now.buffered_bytes > 0);
    client.flush(&FlushOptions::default()).wait(LONG)?;
    let now = client.stats();
    assert_eq!(
        (
            now.buffers.active_buffers,
            now.buffers.total_buffered_messages,
            now.buffers.oldest_buffer_age,
            now.buffers.flushes_performed,
            now.buffers.buffered_bytes
        ),
        (0, 0, 0, 2, 0)
    );
    assert_eq!((now.messages.queued, now.requests.push), (4, 2));
    close(client)
}

fn x13_m13_close_sends_what_is_buffered(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let seen = reports(&client);
    let queue = fresh(&client);
    for n in 0..120u32 {
        let place = queue.clone().partition(format!("p{}", n % 7));
        push_one(&place.buffer(patient(1000)), n);
    }
    let closed = client.close(LONG).wait(LONG)?;
    assert_eq!((closed.aborted, closed.unsent), (0, 0));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 120);
    assert!(seen.iter().all(|one| one.status == DeliveryStatus::Queued));
    let late = queue.buffer(patient(10)).push(&[Item::json(&1)?]);
    assert_eq!(late.wait(LONG).unwrap_err().code(), ErrorCode::Closed);
    Ok(())
}
