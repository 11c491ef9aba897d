//! Queues: create, delete, look at.

use super::*;

pub(crate) const TESTS: Tests = tests![
    q2_q3_create_sets_what_is_named_and_resets_the_rest,
    q4_deleting_twice_is_no_error,
    q9_a_queue_is_found_by_namespace_and_task,
    x35_every_option_is_taken,
    c15_names_of_any_letters_are_addressed,
    bad_names_and_options_are_refused_before_anything_is_sent,
    every_operation_runs_by_its_name,
];

fn q2_q3_create_sets_what_is_named_and_resets_the_rest(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let made = told(queue.create(QueueOptions::new().lease_time_seconds(17).retry_limit(9)));
    assert_eq!(made["configured"], true);
    assert_eq!(made["options"]["leaseTime"], 17);
    assert_eq!(made["options"]["retryLimit"], 9);
    assert_eq!(made["options"]["dedupWindowSeconds"], 3600);
    let again = told(queue.create(QueueOptions::new().retry_limit(8)));
    assert_eq!(
        again["options"]["leaseTime"], 300,
        "the default, not what it was"
    );
    assert_eq!(again["options"]["retryLimit"], 8);
    // Unknown ones go through, and a null is the default.
    let options = json!({"later": 1, "leaseTime": null, "retryLimit": 2});
    let named = json!({"queue": queue.name(), "options": options});
    let made = call(&client, "queue.create", named)?;
    assert_eq!(made["options"]["leaseTime"], 300);
    assert_eq!(made["options"]["retryLimit"], 2);
    close(client)
}

fn q4_deleting_twice_is_no_error(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, [1, 2]);
    let found = told(queue.get());
    assert_eq!(found["name"], queue.name());
    assert_eq!(told(queue.delete())["existed"], true);
    assert_eq!(told(queue.delete())["existed"], false);
    let gone = refused(queue.get());
    assert_eq!(
        (gone.code(), gone.http_status()),
        (ErrorCode::NotFound, Some(404))
    );
    assert!(pop_now(&queue, 1).is_none());
    close(client)
}

fn q9_a_queue_is_found_by_namespace_and_task(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let (namespace, task) = (
        format!("ns-{}", queue.name()),
        format!("task-{}", queue.name()),
    );
    let options = QueueOptions::new().namespace(&*namespace).task(&*task);
    let made = told(queue.create(options));
    assert_eq!(
        (&made["namespace"], &made["task"]),
        (&json!(namespace), &json!(task))
    );
    push(&queue, [5]);
    let by_task = PopOptions {
        wait: true,
        task: Some(task),
        ..PopOptions::default()
    };
    let delivery = client.pop(None, None, &by_task).wait(LONG)?.take();
    let delivery = delivery.expect("found by its task");
    assert_eq!(numbers(&delivery), [5]);
    delivery.ack().wait(LONG)?;
    close(client)
}

fn x35_every_option_is_taken(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let options = QueueOptions::new()
        .lease_time_seconds(11)
        .retry_limit(12)
        .retry_delay_millis(13)
        .max_size(14)
        .ttl_seconds(15)
        .priority(16)
        .dead_letter_queue(false)
        .dlq_after_max_retries(false)
        .delayed_processing_seconds(17)
        .window_buffer_seconds(18)
        .retention_enabled(true)
        .retention_seconds(19_000)
        .completed_retention_seconds(20_000)
        .max_wait_time_seconds(21_000)
        .encryption_enabled(true)
        .min_pop_wait_time_millis(22)
        .dedup_window_seconds(23);
    let made = told(queue.create(options));
    let wanted = json!({
        "leaseTime": 11, "retryLimit": 12, "retryDelay": 13, "maxSize": 14, "ttl": 15, "priority": 16,
        "deadLetterQueue": false, "dlqAfterMaxRetries": false, "delayedProcessing": 17, "windowBuffer": 18,
        "retentionEnabled": true, "retentionSeconds": 19_000, "completedRetentionSeconds": 20_000,
        "maxWaitTimeSeconds": 21_000, "encryptionEnabled": true, "minPopWaitTime": 22, "dedupWindowSeconds": 23,
    });
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&made["options"][name], value, "{name}");
    }
    close(client)
}

fn c15_names_of_any_letters_are_addressed(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let odd = format!("a/b c?d#e%2F&é😀+{}", uuid::Uuid::now_v7());
    let (queue, group) = (client.queue(&*odd).partition(&*odd), client.group(&odd));
    told(queue.create(QueueOptions::new()));
    let item = Item::json(&1)?.transaction_id(&*odd);
    queue.push(&[item]).wait(LONG)?;
    assert_eq!(told(queue.get())["partitions"][0]["name"], odd);
    let all = PopOptions {
        wait: true,
        subscription_mode: Some("all".into()),
        ..PopOptions::default()
    };
    let reader = queue.clone().group(&*odd);
    let delivery = reader
        .pop_with(&all)
        .wait(LONG)?
        .take()
        .expect("the message");
    let partition_id = delivery.source().partition_id.clone();
    told(delivery.trace(0, Trace::json("seen")?.name(&*odd)));
    let traces = told(client.traces().list(&partition_id, &odd));
    assert_eq!(traces["traces"][0]["data"], "seen");
    assert_eq!(
        told(client.traces().by_name(&odd))["traces"][0]["transaction_id"],
        odd
    );
    assert_eq!(
        told(client.messages().get(&partition_id, &odd))["transactionId"],
        odd
    );
    delivery.ack().wait(LONG)?;
    assert_eq!(told(group.get())[&odd]["partitions"][0]["partition"], odd);
    assert_eq!(
        told(group.seek_partition(&odd, &odd, SeekTo::Time("1970-01-01T00:00:00Z")))["partitionName"],
        odd
    );
    assert_eq!(told(group.delete_in(&odd))["consumerGroup"], odd);
    assert_eq!(told(queue.delete())["existed"], true);
    close(client)
}

fn bad_names_and_options_are_refused_before_anything_is_sent(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let message = |operation: &str, params: Value| {
        let error = call(&client, operation, params).unwrap_err();
        assert_eq!(error.http_status(), None, "{operation} was sent");
        error.message().to_owned()
    };
    for operation in ["queue.create", "queue.get", "queue.delete"] {
        assert!(message(operation, json!({"queue": ""})).contains("queue"));
        assert!(message(operation, json!({"queue": "a\u{1}b"})).contains("control"));
        assert!(message(operation, json!({"queue": 7})).contains('7'));
        assert!(message(operation, json!({})).contains("`queue` is missing"));
        assert!(message(operation, json!({"queue": "a", "que": 1})).contains("`que`"));
    }
    assert!(message("queue.get", json!({"queue": ".."})).contains("`..`"));
    let long = "x".repeat(70_000);
    let too_long = message(
        "message.get",
        json!({"partitionId": "p", "transactionId": long}),
    );
    assert!(too_long.contains("60000"), "{too_long}");
    let wrong = json!({"queue": "a", "options": {"leaseTime": "long"}});
    assert!(message("queue.create", wrong).contains("leaseTime"));
    assert!(message("dlq.list", json!({"limit": 0})).contains("limit"));
    assert!(message("dlq.list", json!({"from": "yesterday"})).contains("yesterday"));
    assert!(message("group.seek", json!({"consumerGroup": "g", "queue": "q"})).contains("toEnd"));
    let both = json!({"consumerGroup": "g", "queue": "q", "toEnd": true, "timestamp": "2026-01-01T00:00:00Z"});
    assert!(message("group.seek", both).contains("both"));
    let unknown = client.call("queue.crate", "{}").err().unwrap();
    assert_eq!(unknown.code(), ErrorCode::UnknownOperation);
    close(client)
}

/// Each row of the catalogue makes a request that the broker understands: it answers, or refuses what does not exist.
fn every_operation_runs_by_its_name(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, [1]);
    let delivery = pop(&queue, 1);
    let message = &delivery.messages()[0];
    let mut all = json!({
        "queue": queue.name(), "consumerGroup": "nobody", "timestamp": "2026-01-01T00:00:00Z", "enabled": false,
        "traceName": "n", "data": {}, "transactionId": message.transaction_id, "partitionId": message.source.partition_id,
        "items": [{"payload": 1}], "leaseId": message.source.lease_id,
        "leaseIds": [message.source.lease_id],
        "stream": format!("stream of {}", queue.name()), "namespace": "n",
        "operations": [{"type": "push", "queue": queue.name(), "items": [{"payload": 1}]}],
    });
    all["acks"] = json!([{
        "transactionId": message.transaction_id, "partitionId": message.source.partition_id,
        "leaseId": message.source.lease_id,
    }]);
    for operation in queen::operations() {
        // Maintenance and statistics are the whole broker's, which other tests use.
        if operation.name.starts_with("maintenance") {
            continue;
        }
        let required = operation
            .parameters
            .iter()
            .filter(|one| one.default == "required");
        let mut params: serde_json::Map<_, _> = required
            .map(|one| (one.name.to_owned(), all[one.name].clone()))
            .collect();
        match operation.name {
            "group.seek" => {
                params.remove("timestamp");
                params.insert("toEnd".into(), json!(true));
            }
            // Of all queues that takes long on a broker that has served many tests.
            "message.list" => {
                params.insert("queue".into(), all["queue"].clone());
            }
            "pop" => {
                params.insert("queue".into(), all["queue"].clone());
                params.insert("wait".into(), json!(false));
            }
            "stream.poll" => {
                params.insert("pollTimeoutMillis".into(), json!(0));
            }
            _ => {}
        }
        match call(&client, operation.name, params.into()) {
            Ok(_) => {}
            Err(error) if error.code() == ErrorCode::NotFound => {}
            // The ack has ended it; that of a window there never was.
            Err(error)
                if error.code() == ErrorCode::LeaseLost
                    && (operation.name.starts_with("renew")
                        || operation.name.starts_with("stream.")) => {}
            Err(error)
                if error.code() == ErrorCode::Unsupported
                    && broker.name == "official"
                    && operation.name.starts_with("stream.") =>
            {
                assert!(error.message().contains("0.7"), "{error}");
            }
            // The embedded broker does not serve all of them yet.
            Err(error) if error.code() == ErrorCode::Unsupported && broker.name != "official" => {}
            Err(error) => panic!("{}: {error:?}", operation.name),
        }
    }
    close(client)
}
