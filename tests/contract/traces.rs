//! Traces.

use super::*;

pub(crate) const TESTS: Tests = tests![
    tr1_tr2_tr3_a_trace_has_names_a_kind_and_a_group,
    tr4_e6_a_trace_that_fails_fails_nothing_else,
    c3_c10_c59_each_trace_goes_to_its_own_message,
    x55_traces_are_found_by_message_and_name,
];

fn tr1_tr2_tr3_a_trace_has_names_a_kind_and_a_group(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, [1]);
    let delivery = pop(&queue, 1);
    let source = delivery.source();
    let id = &delivery.messages()[0].transaction_id;
    let (one, two) = (
        format!("one-{}", queue.name()),
        format!("two-{}", queue.name()),
    );
    let big = r#"{"data": {"n": 12345678901234567890, "s": "x"}, "traceNames": ["", "NAME"], "eventType": "step"}"#;
    told(delivery.trace(0, Trace::parse(&big.replace("NAME", &one))?));
    told(delivery.trace(0, Trace::json(&Value::Null)?.name(&*one).name(&*two)));
    told(delivery.trace(0, Trace::parse(r#"{"data": 3, "traceNames": ""}"#)?));
    let traces = told(client.traces().list(&source.partition_id, id));
    let traces = traces["traces"].as_array().unwrap();
    assert_eq!(traces.len(), 3, "the oldest first");
    assert_eq!(
        traces[0]["data"],
        json!({"n": 12345678901234567890u64, "s": "x"})
    );
    assert_eq!(
        (&traces[0]["event_type"], &traces[0]["trace_names"]),
        (&json!("step"), &json!([one]))
    );
    assert_eq!(
        (&traces[1]["event_type"], &traces[1]["data"]),
        (&json!("info"), &Value::Null)
    );
    assert_eq!(traces[1]["consumer_group"], "__QUEUE_MODE__");
    assert_eq!(traces[2]["trace_names"], json!([]));
    let wrong = Trace::parse(r#"{"eventType": "x"}"#).unwrap_err();
    assert!(wrong.message().contains("data"));
    delivery.ack().wait(LONG)?;
    close(client)
}

fn tr4_e6_a_trace_that_fails_fails_nothing_else(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let records = Arc::new(Mutex::new(Vec::new()));
    let kept = records.clone();
    client.set_log(
        queen::Level::Warn,
        Some(Arc::new(move |level: queen::Level, json: &str| {
            kept.lock().unwrap().push((level, json.to_owned()))
        })),
    );
    push(&queue, [1]);
    let consumer = queue.consume_with(
        ConsumeOptions {
            limit: Some(1),
            ..ConsumeOptions::default()
        },
        |delivery| {
            // Nobody looks at either of them.
            drop(delivery.trace(7, Trace::json("no such message").unwrap()));
            drop(delivery.trace(0, Trace::json("control").unwrap().event_type("a\u{1}")));
            Settlement::Ack
        },
    )?;
    let summary = consumer.finished().wait(LONG)?;
    assert_eq!((summary.acked, summary.nacked), (1, 0));
    let nobody = call(
        &client,
        "trace.add",
        json!({"partitionId": "no uuid", "transactionId": "t", "data": 1, "timeoutMillis": 20_000}),
    );
    let error = nobody.unwrap_err();
    assert_ne!(error.code(), ErrorCode::InvalidJson);
    client.set_log(queen::Level::Warn, None);
    let records = records.lock().unwrap();
    let told = records
        .iter()
        .any(|(_, json)| json.contains("a trace was not added") && json.contains("no uuid"));
    assert!(told, "{records:?}");
    close(client)
}

fn c3_c10_c59_each_trace_goes_to_its_own_message(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    push(&queue, 0..3);
    let consumer = queue.consume_with(
        ConsumeOptions {
            batch: Some(3),
            limit: Some(3),
            ..ConsumeOptions::default()
        },
        |delivery| {
            // All at once, as handlers do that wait for none.
            let traces: Vec<_> = (0..delivery.messages().len())
                .map(|index| {
                    let payload = delivery.messages()[index].payload().to_owned();
                    delivery.trace(index, Trace::json(&payload).unwrap())
                })
                .collect();
            for trace in traces {
                trace.wait(LONG).unwrap();
            }
            Settlement::Ack
        },
    )?;
    consumer.finished().wait(LONG)?;
    let listed = told(client.messages().queue(queue.name()).list());
    for message in listed["messages"].as_array().unwrap() {
        let (partition, id) = (&message["partitionId"], &message["transactionId"]);
        let traces = client
            .traces()
            .list(partition.as_str().unwrap(), id.as_str().unwrap());
        let traces = told(traces);
        assert_eq!(traces["traces"].as_array().unwrap().len(), 1);
        assert_eq!(traces["traces"][0]["data"], message["data"].to_string());
    }
    close(client)
}

fn x55_traces_are_found_by_message_and_name(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client).group("tracers");
    let name = format!("name-{}", queue.name());
    push(&queue, 0..3);
    let from_start = PopOptions {
        subscription_mode: Some("all".into()),
        ..batch(3)
    };
    let delivery = queue.pop_with(&from_start).wait(LONG)?.take().unwrap();
    for (index, message) in delivery.messages().iter().enumerate() {
        // Outside of a handler, from a message alone.
        told(
            client
                .traces()
                .add(message, Trace::json(&index)?.name(&*name)),
        );
    }
    let found = told(client.traces().by_name(&name));
    let found = found["traces"].as_array().unwrap();
    assert_eq!(found.len(), 3);
    assert!(
        found
            .iter()
            .all(|one| one["queue_name"] == queue.name() && one["consumer_group"] == "tracers")
    );
    let page = told(client.traces().limit(2).offset(2).by_name(&name));
    assert_eq!(page["traces"].as_array().unwrap().len(), 1);
    assert_eq!(
        told(client.traces().by_name("nobody uses this"))["traces"],
        json!([])
    );
    let names = told(client.traces().limit(10_000).names());
    let names = names["trace_names"].as_array().unwrap();
    let mine = names
        .iter()
        .find(|one| one["trace_name"] == name)
        .expect("the name");
    assert_eq!(
        (&mine["trace_count"], &mine["message_count"]),
        (&json!(3), &json!(3))
    );
    delivery.ack().wait(LONG)?;
    close(client)
}
