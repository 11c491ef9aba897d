//! What the fluent queue promises of pushes, pops and acks by ids. Tests carry the row of the feature that they prove.

use super::*;
use queen::{PushOptions, RenewOptions};

pub(crate) const TESTS: Tests = tests![
    q1_a_queue_is_a_value_and_bad_names_are_refused,
    q5_c28_any_json_value_is_a_payload,
    q5_t8_classic_items_of_any_form,
    q6_ids_are_kept_or_minted,
    q8_the_partition_is_default_unless_named,
    q10_a_pop_of_nothing_is_empty_and_of_nowhere_an_error,
    q11_x29_a_pop_waits_as_long_as_it_says,
    q12_c22_x30_a_pop_may_ack_at_delivery,
    q13_x25_a_pop_brings_so_many_messages_of_so_many_partitions,
    q14_each_group_gets_each_message_and_without_one_nobody_twice,
    q15_a_group_begins_where_its_first_pop_says,
    q21_each_item_has_its_own_result,
    m5_m6_c18_acks_by_ids_tell_what_became_of_each,
    m7_c19_a_lease_is_renewed_by_its_id,
    m7_many_leases_are_renewed_each_once,
];

fn payloads(delivery: &Delivery) -> Vec<&str> {
    delivery
        .messages()
        .iter()
        .map(|message| message.payload())
        .collect()
}

fn q1_a_queue_is_a_value_and_bad_names_are_refused(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let (one, other) = (
        queue.clone().partition("one"),
        queue.clone().partition("other").group("g"),
    );
    push(&one, [1]);
    push(&other, [2]);
    assert_eq!(numbers(&pop(&one, 5)), [1]);
    let delivery = pop_from(&other.partition("one"), Some("all"), None).unwrap();
    assert_eq!(
        (
            numbers(&delivery),
            delivery.source().consumer_group.as_str()
        ),
        (vec![1], "g")
    );
    let items = [Item::raw("1")?];
    for bad in [
        client.queue("").push(&items),
        client.queue("a\u{1f}b").push(&items),
        queue.clone().partition("a\nb").push(&items),
    ] {
        let error = refused(bad);
        assert_eq!(
            (error.code(), error.http_status()),
            (ErrorCode::InvalidArgument, None)
        );
    }
    assert_eq!(
        refused(client.queue("").pop()).code(),
        ErrorCode::InvalidArgument
    );
    close(client)
}

fn q5_c28_any_json_value_is_a_payload(broker: &TestBroker) -> Tested {
    // The last three are JSON that most readers refuse; they are not ours to refuse.
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let all = [
        "null",
        "true",
        "0",
        "-1.50e3",
        r#""""#,
        r#""text\n""#,
        "[]",
        r#"[1, {"data":2}]"#,
        r#"{"data": 1, "payload":null}"#,
        r#"{"half a pair": "\ud800"}"#,
        "[1e400]",
        &deep,
    ];
    let client = client(broker);
    let queue = fresh(&client);
    let items: Vec<_> = all.iter().map(|json| Item::raw(json).unwrap()).collect();
    queue.push(&items).wait(LONG)?;
    let delivery = pop(&queue, 100);
    assert_eq!(payloads(&delivery), all);
    delivery.ack().wait(LONG)?;
    close(client)
}

fn q5_t8_classic_items_of_any_form(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let classic = PushOptions {
        classic_items: true,
        ..PushOptions::default()
    };
    let items = r#"[{"data":{"n":1},"transactionId":"mine"},{"payload":null},{"n":2},"text",3]"#;
    let pushed = queue.push_json(items, &classic).wait(LONG)?;
    assert_eq!(pushed[0].transaction_id, "mine");
    let params = json!({"queue": queue.name(), "items": 4, "classicItems": true});
    call(&client, "push", params)?;
    let operation =
        json!({"type": "push", "queue": queue.name(), "items": {"data": 5}, "classicItems": true});
    let params = json!({"operations": [operation]});
    call(&client, "transaction.commit", params)?;
    let delivery = pop(&queue, 100);
    assert_eq!(
        payloads(&delivery),
        [
            r#"{"n":1}"#,
            "null",
            r#"{"n":2}"#,
            r#""text""#,
            "3",
            "4",
            "5"
        ]
    );
    delivery.ack().wait(LONG)?;
    // Nothing is guessed unless that is asked for.
    let strict = refused(queue.push_json(r#"[{"data":1}]"#, &PushOptions::default()));
    assert_eq!(strict.code(), ErrorCode::InvalidJson);
    assert!(pop_now(&queue, 1).is_none());
    close(client)
}

fn q6_ids_are_kept_or_minted(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let items = [
        Item::raw("1")?.transaction_id("0"),
        Item::raw("2")?.transaction_id("ключ 🗝"),
        Item::raw("3")?,
        Item::raw("4")?,
    ];
    let pushed = queue.push(&items).wait(LONG)?;
    let delivery = pop(&queue, 10);
    for (message, result) in delivery.messages().iter().zip(&pushed) {
        assert_eq!(message.transaction_id, result.transaction_id);
        assert_eq!(Some(&message.id), result.message_id.as_ref());
    }
    assert_eq!(pushed[0].transaction_id, "0");
    assert_eq!(pushed[1].transaction_id, "ключ 🗝");
    let minted: uuid::Uuid = pushed[2].transaction_id.parse()?;
    assert_eq!(minted.get_version_num(), 7);
    assert_ne!(pushed[2].transaction_id, pushed[3].transaction_id);
    delivery.ack().wait(LONG)?;
    close(client)
}

fn q8_the_partition_is_default_unless_named(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue.clone().partition("p"), [1]);
    push(&queue, [2]);
    let delivery = pop(&queue.clone().partition("Default"), 5);
    assert_eq!(
        (delivery.source().partition.as_str(), numbers(&delivery)),
        ("Default", vec![2])
    );
    // While that one is leased, only the other is left to any pop.
    let other = pop(&queue, 5);
    assert_eq!(
        (other.source().partition.as_str(), numbers(&other)),
        ("p", vec![1])
    );
    close(client)
}

fn q10_a_pop_of_nothing_is_empty_and_of_nowhere_an_error(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    assert!(pop_now(&queue, 1).is_none());
    let nowhere = refused(client.pop(None, None, &PopOptions::default()));
    assert_eq!(
        (nowhere.code(), nowhere.http_status()),
        (ErrorCode::InvalidArgument, None)
    );
    assert!(nowhere.message().contains("namespace"), "{nowhere}");
    close(client)
}

fn q11_x29_a_pop_waits_as_long_as_it_says(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let waiting = |millis: u64| PopOptions {
        wait: true,
        poll_timeout_millis: millis,
        ..PopOptions::default()
    };
    assert!(pop_now(&queue, 1).is_none(), "it does not wait at all");
    let began = Instant::now();
    assert!(queue.pop_with(&waiting(400)).wait(LONG)?.is_empty());
    assert!(began.elapsed() >= Duration::from_millis(400));
    let parked = queue.pop_with(&waiting(60_000));
    assert!(!parked.wait_for(Duration::from_millis(50))?);
    push(&queue, [1]);
    let delivery = parked.wait(LONG)?.take().expect("what came meanwhile");
    delivery.ack().wait(LONG)?;
    close(client)
}

fn q12_c22_x30_a_pop_may_ack_at_delivery(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..2);
    let committed = PopOptions {
        auto_ack: true,
        ..batch(1)
    };
    let delivery = queue.pop_with(&committed).wait(LONG)?.take().unwrap();
    assert_eq!(numbers(&delivery), [0]);
    assert_eq!(delivery.source().lease_id, "");
    assert_eq!(refused(delivery.ack()).code(), ErrorCode::AlreadySettled);
    drop(delivery);
    let next = pop(&queue, 5);
    assert_eq!(numbers(&next), [1], "the first never comes again");
    next.ack().wait(LONG)?;
    close(client)
}

fn q13_x25_a_pop_brings_so_many_messages_of_so_many_partitions(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    for partition in ["a", "b", "c"] {
        push(&queue.clone().partition(partition), 0..4);
    }
    let one = pop(&queue, 3);
    assert_eq!(one.messages().len(), 3);
    drop(one);
    let options = PopOptions {
        partitions: 3,
        ..batch(12)
    };
    let mut seen = Vec::new();
    let began = Instant::now();
    // What was given back is there again a moment later.
    while seen.len() < 12 {
        assert!(began.elapsed() < LONG, "{seen:?}");
        let popped = queue.pop_with(&options).wait(LONG)?;
        while let Some(delivery) = popped.take() {
            let partition = delivery.source().partition.clone();
            seen.extend(
                numbers(&delivery)
                    .into_iter()
                    .map(|n| (partition.clone(), n)),
            );
            delivery.ack().wait(LONG)?;
        }
    }
    seen.sort();
    let all = ["a", "b", "c"]
        .iter()
        .flat_map(|p| (0..4).map(|n| (p.to_string(), n)));
    assert_eq!(seen, all.collect::<Vec<_>>());
    let none = PopOptions {
        wait: true,
        batch: 0,
        ..PopOptions::default()
    };
    assert!(refused(queue.pop_with(&none)).message().contains("batch"));
    close(client)
}

/// Pops without waiting, as a group that begins there.
fn pop_from(queue: &Queue, mode: Option<&str>, from: Option<&str>) -> Option<Delivery> {
    let options = PopOptions {
        wait: false,
        subscription_mode: mode.map(str::to_owned),
        subscription_from: from.map(str::to_owned),
        ..batch(10)
    };
    queue.pop_with(&options).wait(LONG).unwrap().take()
}

fn q14_each_group_gets_each_message_and_without_one_nobody_twice(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..2);
    for group in ["one", "two"] {
        let delivery = pop_from(&queue.clone().group(group), Some("all"), None).unwrap();
        assert_eq!(
            (
                numbers(&delivery),
                delivery.source().consumer_group.as_str()
            ),
            (vec![0, 1], group)
        );
        delivery.ack().wait(LONG)?;
    }
    let shared = pop(&queue, 10);
    assert_eq!(shared.source().consumer_group, "__QUEUE_MODE__");
    shared.ack().wait(LONG)?;
    assert!(pop_now(&queue, 10).is_none());
    close(client)
}

fn q15_a_group_begins_where_its_first_pop_says(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..2);
    let of = |group: &str| queue.clone().group(group);
    // Brokers of generation 1.x begin at the end where nothing else is said.
    for (group, mode, from, finds) in [
        ("silent", None, None, false),
        ("new", Some("new"), None, false),
        ("now", None, Some("now"), false),
        ("all", Some("all"), None, true),
        ("since", None, Some("2020-01-01T00:00:00Z"), true),
    ] {
        let found = pop_from(&of(group), mode, from);
        assert_eq!(
            found.map(|delivery| numbers(&delivery)),
            finds.then(|| vec![0, 1]),
            "{group}"
        );
    }
    // Only the first pop of a group counts.
    assert!(pop_from(&of("new"), Some("all"), None).is_none());
    push(&queue, [2]);
    for group in ["silent", "new", "now"] {
        let delivery = pop_from(&of(group), None, None).unwrap();
        assert_eq!(numbers(&delivery), [2], "{group}");
    }
    close(client)
}

fn q21_each_item_has_its_own_result(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    queue
        .push(&[Item::raw("0")?.transaction_id("old")])
        .wait(LONG)?;
    let items = [
        Item::raw("1")?.transaction_id("new"),
        Item::raw("2")?.transaction_id("old"),
        Item::raw("3")?,
    ];
    let heard = Arc::new(AtomicUsize::new(0));
    let pushing = queue.push(&items);
    let (told, to) = (pushing.clone(), heard.clone());
    pushing.when_complete(move || {
        let well = matches!(told.result(), Some(Ok(results)) if results.len() == 3);
        to.store(if well { 1 } else { 2 }, Ordering::SeqCst);
    });
    let results = pushing.wait(LONG)?;
    let statuses: Vec<_> = results.iter().map(|one| &*one.status).collect();
    assert_eq!(statuses, ["queued", "duplicate", "queued"]);
    assert!(
        results
            .iter()
            .enumerate()
            .all(|(place, one)| one.index == place)
    );
    // A duplicate is a success, and named after the first of its kind.
    assert!(
        results
            .iter()
            .all(|one| one.is_success() && one.message_id.is_some())
    );
    let began = Instant::now();
    while heard.load(Ordering::SeqCst) == 0 {
        assert!(began.elapsed() < LONG, "nobody was told");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(heard.load(Ordering::SeqCst), 1);
    close(client)
}

fn m5_m6_c18_acks_by_ids_tell_what_became_of_each(broker: &TestBroker) -> Tested {
    // Another client knows nothing of the delivery, so the broker is asked.
    let url = match broker.name {
        "embedded" => "embedded:?shared=acks-by-ids",
        _ => &broker.client_url,
    };
    let (client, stranger) = (Client::new(url)?, Client::new(url)?);
    let queue = fresh(&client);
    push(&queue, 0..3);
    let delivery = pop(&queue, 3);
    let source = delivery.source();
    let ack = |transaction_id: &str| json!({"transactionId": transaction_id, "partitionId": source.partition_id, "leaseId": source.lease_id});
    let id = |index: usize| delivery.messages()[index].transaction_id.as_str();
    let single = Ack::parse_list(&ack(id(0)).to_string())?;
    let done = stranger.ack(single, &AckOptions::default()).wait(LONG)?;
    assert_eq!((done.len(), done[0].success), (1, true));
    let rest = json!([ack(id(1)), ack("nobody"), ack(id(2))]).to_string();
    let error = refused(stranger.ack(Ack::parse_list(&rest)?, &AckOptions::default()));
    assert_eq!(error.code(), ErrorCode::Partial);
    let results: Value = serde_json::from_str(error.result_json().unwrap())?;
    let good: Vec<_> = results
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["success"] == true)
        .collect();
    assert_eq!(good, [true, false, true]);
    assert_eq!(results[1]["transactionId"], "nobody");
    assert!(results[1]["error"].is_string());
    let none = refused(stranger.ack(Vec::new(), &AckOptions::default()));
    assert_eq!(none.code(), ErrorCode::InvalidArgument);
    drop(delivery);
    assert!(pop_now(&queue, 3).is_none());
    close(stranger)?;
    close(client)
}

fn m7_c19_a_lease_is_renewed_by_its_id(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, [1]);
    let options = PopOptions {
        lease_seconds: Some(1),
        ..batch(1)
    };
    let delivery = queue.pop_with(&options).wait(LONG)?.take().unwrap();
    let lease = delivery.source().lease_id.clone();
    let renewed = client
        .renew(&lease, 600, &RenewOptions::default())
        .wait(LONG)?;
    assert_eq!(renewed.renewed, Some(1));
    assert!(renewed.expires_at.is_some());
    // Two leases long: it is still ours.
    let wait = PopOptions {
        wait: true,
        poll_timeout_millis: 2_000,
        ..PopOptions::default()
    };
    assert!(queue.pop_with(&wait).wait(LONG)?.is_empty());
    delivery.ack().wait(LONG)?;
    // The broker answers 200 here, and says no in the body.
    let gone = refused(client.renew(&lease, 60, &RenewOptions::default()));
    assert_eq!(gone.code(), ErrorCode::LeaseLost);
    let zero = refused(client.renew(&lease, 0, &RenewOptions::default()));
    assert_eq!(zero.code(), ErrorCode::InvalidArgument);
    close(client)
}

fn m7_many_leases_are_renewed_each_once(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let leased: Vec<Delivery> = ["a", "b"]
        .iter()
        .map(|partition| {
            let place = queue.clone().partition(*partition);
            push(&place, [1]);
            pop(&place, 1)
        })
        .collect();
    let [a, b] = [0, 1].map(|index: usize| leased[index].source().lease_id.clone());
    let renew = |ids: &[&String]| {
        let ids: Vec<_> = ids.iter().map(|id| (*id).clone()).collect();
        client.renew_many(&ids, 60, &RenewOptions::default())
    };
    let before = client.stats().requests.renew;
    let results = renew(&[&a, &b, &a]).wait(LONG)?;
    assert_eq!(client.stats().requests.renew - before, 2);
    assert!(
        results
            .iter()
            .all(|one| one.success && one.expires_at.is_some())
    );
    assert_eq!(
        (results.len(), results[2].index, &results[2].lease_id),
        (3, 2, &a)
    );
    let gone = uuid::Uuid::now_v7().to_string();
    let error = refused(renew(&[&gone, &b]));
    assert_eq!(error.code(), ErrorCode::Partial);
    let told: Value = serde_json::from_str(error.result_json().unwrap())?;
    assert_eq!(
        (&told[0]["success"], &told[1]["success"]),
        (&json!(false), &json!(true))
    );
    assert!(told[0]["error"].is_string());
    let all = call(&client, "renew.many", json!({"leaseIds": [gone, gone]}));
    assert_eq!(all.unwrap_err().code(), ErrorCode::LeaseLost);
    assert_eq!(refused(renew(&[])).code(), ErrorCode::InvalidArgument);
    for delivery in &leased {
        delivery.ack().wait(LONG)?;
    }
    close(client)
}
