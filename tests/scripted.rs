//! Answers that no broker gives on demand, from a server of a few lines.

#[path = "support/script.rs"]
#[allow(dead_code, reason = "each test program uses its own part")]
mod script;

use std::time::Duration;

use queen::{Client, ErrorCode, Item, Outcome, Settlement};
use serde_json::Value;

use script::Script;

const LONG: Duration = Duration::from_secs(60);

/// Answers every request alike: `head` is the status line and headers beside the length.
fn server(head: &'static str, body: &'static str) -> Script {
    Script::start(move |_| script::answer(head, body))
}

#[test]
fn a_broker_that_does_not_wait_is_not_asked_without_pause() {
    let server = server("204 No Content", "");
    let client = Client::new(&server.url).unwrap();
    let consumer = client.queue("q").consume(|_| Settlement::Ack).unwrap();
    while server.count() < 5 {
        std::thread::sleep(Duration::from_millis(10));
    }
    // Slow machines ask less often; only a loop without a pause asks hundreds of times.
    let before = server.count();
    std::thread::sleep(Duration::from_millis(1000));
    let asked = server.count() - before;
    assert!(asked <= 15, "{asked} polls in a second");
    consumer.stop(LONG).wait(LONG).unwrap();
    client.close(LONG).wait(LONG).unwrap();
}

#[test]
fn a_result_that_is_missing_is_not_a_success() {
    let server = server("201 Created", "[]");
    let client = Client::new(&server.url).unwrap();
    let item = Item::raw("1").unwrap().transaction_id("t-1");
    let error = client.queue("q").push(&[item]).wait(LONG).unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (ErrorCode::BadAnswer, Outcome::Unknown)
    );
    assert_eq!(error.transaction_ids(), ["t-1"]);
}

#[test]
fn refused_items_come_back_with_the_whole_result() {
    let server = server(
        "201 Created",
        r#"[{"index":0,"message_id":"m","status":"queued"},{"index":1,"status":"failed","error":"the queue is full"}]"#,
    );
    let client = Client::new(&server.url).unwrap();
    let items = [Item::raw("1").unwrap(), Item::raw("2").unwrap()];
    let error = client.queue("q").push(&items).wait(LONG).unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (ErrorCode::Partial, Outcome::Refused)
    );
    let result: serde_json::Value = serde_json::from_str(error.result_json().unwrap()).unwrap();
    assert_eq!(
        (&result[0]["status"], &result[1]["error"]),
        (&"queued".into(), &"the queue is full".into())
    );
}

#[test]
fn an_old_broker_is_not_told_to_retry() {
    // 0.15: no `partitionsClaimed`. It would count `retry` as a failure, so the lease is left to end.
    let server = server(
        "200 OK",
        r#"{"success":true,"messages":[{"id":"m","transactionId":"t","partitionId":"P","partition":"p","leaseId":"L","data":1}]}"#,
    );
    let client = Client::new(&server.url).unwrap();
    let popped = client.queue("q").pop().wait(LONG).unwrap();
    drop(popped.take());
    drop(popped);
    client.close(LONG).wait(LONG).unwrap();
    assert_eq!(server.count(), 1, "the pop alone");
}

/// What the brokers of each generation answer, and what is made of it. `result` and `error` are what a call by name has; a
/// pop is one that needs no ack, so that nothing but the call is sent.
#[test]
fn q23_answers_of_every_generation_are_understood() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("scripted/answers.json")).unwrap();
    for case in &cases {
        let about = case["about"].as_str().unwrap();
        let status = case["status"].as_u64().unwrap();
        let body = case["body"].to_string();
        let server = Script::start(move |_| script::json(status as u16, &body));
        let client = Client::new(&server.url).unwrap();
        let name = case["call"].as_str().unwrap();
        let call = client.call(name, &case["params"].to_string()).unwrap();
        assert!(call.wait_for(LONG).unwrap(), "{about}");
        let told = call
            .to_json()
            .map(|text| -> Value { serde_json::from_str(&text).unwrap() });
        let error = call
            .error()
            .map(|error| -> Value { serde_json::from_str(&error.to_json()).unwrap() });
        let Some(wanted) = case.get("error") else {
            assert_eq!(
                (told.as_ref(), &error),
                (case.get("result"), &None),
                "{about}"
            );
            continue;
        };
        let error = error.unwrap_or_else(|| panic!("{about}: no error, but {told:?}"));
        for key in ["name", "outcome", "brokerCode"] {
            assert!(
                wanted.get(key).is_none_or(|value| *value == error[key]),
                "{about}: {key} of {error}"
            );
        }
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains(wanted["says"].as_str().unwrap()),
            "{about}: {message}"
        );
        if let Some(result) = case.get("result") {
            assert_eq!(told.as_ref(), Some(result), "{about}");
        }
        assert_eq!(server.count(), 1, "{about}: it will not get better");
    }
}
