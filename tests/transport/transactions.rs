//! How a transaction ends where the broker or the way to it fails.

use std::time::Duration;

use queen::{
    Client, Delivery, ErrorCode, Item, Outcome, PopOptions, RollbackReason, Transaction,
    TransactionOptions,
};

use crate::script::{Reply, Script, Seen, answer, json, nobody};
use crate::{LONG, client, well};

const POPPED: &str = r#"{"success":true,"queue":"in","partition":"Default","partitionId":"P","leaseId":"L",
    "consumerGroup":"__QUEUE_MODE__","messages":[
    {"id":"m-1","transactionId":"in-1","partitionId":"P","leaseId":"L","data":1,"createdAt":"2026-01-01T00:00:00Z"},
    {"id":"m-2","transactionId":"in-2","partitionId":"P","leaseId":"L","data":2,"createdAt":"2026-01-01T00:00:00Z"}]}"#;

const COMMITTED: &str = r#"{"transactionId":"T","success":true,"results":[]}"#;

/// Hands out two messages, takes acks, and answers transactions as `play` says.
fn broker(play: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Script {
    Script::start(move |seen| match &*seen.line {
        line if line.contains("/pop") => json(200, POPPED),
        line if line.contains("/transaction") => play(seen),
        line if line.contains("/ack") => json(200, r#"[{"index":0,"success":true}]"#),
        _ => well(seen),
    })
}

fn popped(client: &Client) -> Delivery {
    let options = PopOptions {
        wait: true,
        batch: 2,
        ..PopOptions::default()
    };
    let popped = client.queue("in").pop_with(&options).wait(LONG).unwrap();
    popped.take().unwrap()
}

/// Acks the first message and pushes one with the id `out-1`.
fn forward(client: &Client, delivery: &Delivery) -> Transaction {
    let mut transaction = client.transaction();
    transaction
        .ack_message(delivery, 0, queen::Status::Completed)
        .push(
            "out",
            None,
            &[Item::raw("1").unwrap().transaction_id("out-1")],
        );
    transaction
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONG, "{what}: not yet");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a verdict on the first message counts.
fn is_unsettled(delivery: &Delivery) -> bool {
    !delivery.is_lost() && {
        let verdicts = r#"[{"index":0,"status":"completed"}]"#;
        delivery.settle_json(verdicts).wait(LONG).is_ok()
    }
}

#[test]
fn c34_a_transaction_is_not_repeated_once_it_was_sent() {
    for failure in [
        || Reply::Reset,
        || Reply::Part(Vec::new()),
        || json(500, r#"{"error":"pool"}"#),
        || answer("503 Busy\r\nretry-after: 0", "{}"),
        || json(200, r#"{"answer":"of another kind"}"#),
    ] {
        let server = broker(move |_| failure());
        let client = client(&[&server.url], "");
        let delivery = popped(&client);
        let error = forward(&client, &delivery).commit().wait(LONG).unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        assert_eq!(error.transaction_ids(), ["out-1"]);
        assert_eq!(server.count_of("/transaction"), 1);
        // Nobody knows whether it was applied, so nothing of that lease can count any more.
        assert!(delivery.is_lost());
        let late = delivery.ack().wait(LONG).unwrap_err();
        assert_eq!(late.code(), ErrorCode::LeaseLost);
        assert_eq!(client.stats().transactions.unknown, 1);
    }
}

#[test]
fn h2_a_transaction_passes_over_a_broker_that_is_down() {
    let server = broker(|_| json(200, COMMITTED));
    let client = client(&[&nobody(), &server.url], "");
    for _ in 0..4 {
        let mut transaction = client.transaction();
        transaction.push("out", None, &[Item::raw("1").unwrap()]);
        transaction.commit().wait(LONG).unwrap();
    }
    assert_eq!(server.count_of("/transaction"), 4);
}

#[test]
fn a_delivery_of_another_client_is_refused() {
    let server = broker(|_| json(200, COMMITTED));
    let (one, other) = (client(&[&server.url], ""), client(&[&server.url], ""));
    let delivery = popped(&one);
    let error = forward(&other, &delivery).commit().wait(LONG).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    assert!(error.message().contains("another client"), "{error}");
    assert!(is_unsettled(&delivery));
    assert_eq!(server.count_of("/transaction"), 0);
}

#[test]
fn a_refusal_leaves_the_message_unsettled() {
    for (status, body, code) in [
        (400, r#"{"error":"bad body"}"#, ErrorCode::BadRequest),
        (
            403,
            r#"{"error":"no","code":"forbidden"}"#,
            ErrorCode::Forbidden,
        ),
        (
            404,
            r#"{"error":"Not Found","code":"no_such_route"}"#,
            ErrorCode::Unsupported,
        ),
        (413, "too large", ErrorCode::TooLarge),
        // Generation 0.7 tells of a rollback so.
        (
            400,
            r#"{"success":false,"error":"lease"}"#,
            ErrorCode::RolledBack,
        ),
        (
            200,
            r#"{"success":false,"error":"lease"}"#,
            ErrorCode::RolledBack,
        ),
    ] {
        let server = broker(move |_| json(status, body));
        let client = client(&[&server.url], "");
        let delivery = popped(&client);
        let error = forward(&client, &delivery).commit().wait(LONG).unwrap_err();
        assert_eq!((error.code(), error.outcome()), (code, Outcome::Refused));
        let rollback = RollbackReason::of(&error).is_some();
        assert_eq!(rollback, code == ErrorCode::RolledBack);
        assert!(is_unsettled(&delivery), "{status}");
    }
}

#[test]
fn x4_a_transaction_waits_out_a_429() {
    let server = broker(|seen| match seen.number {
        0 | 1 => answer("429 Slow\r\nretry-after: 0", "{}"),
        _ => json(200, COMMITTED),
    });
    let client = client(&[&server.url], "");
    let mut transaction = client.transaction();
    transaction.push("out", None, &[Item::raw("1").unwrap()]);
    transaction.commit().wait(LONG).unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert!(
        seen.iter().all(|later| later.body == seen[0].body),
        "the same ids"
    );
}

#[test]
fn a_transaction_without_an_answer_ends_at_its_deadline() {
    let server = broker(|_| Reply::Silence);
    let client = client(&[&server.url], "");
    let delivery = popped(&client);
    let options = TransactionOptions {
        timeout_millis: Some(200),
    };
    let commit = forward(&client, &delivery).commit_with(&options);
    let error = commit.wait(LONG).unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (ErrorCode::Timeout, Outcome::Unknown)
    );
    assert_eq!(error.transaction_ids(), ["out-1"]);
    // Its request ends a moment later.
    until("the delivery is lost", || delivery.is_lost());
}

#[test]
fn pushes_made_before_the_commit_are_sent_first_and_those_after_it_later() {
    let server = Script::start(|seen| match &*seen.line {
        line if line.contains("/transaction") => json(200, COMMITTED),
        // The first push takes its time.
        _ if seen.number == 0 => {
            let text = crate::script::whole(
                "201 Created\r\ncontent-type: application/json",
                r#"[{"index":0,"status":"queued"}]"#,
            );
            Reply::Slow(text, Duration::from_millis(2))
        }
        _ => well(seen),
    });
    let client = client(&[&server.url], "");
    let place = client.queue("out").partition("p");
    let item = || [Item::raw("1").unwrap()];
    let before = place.push(&item());
    let commit = client
        .transaction()
        .push("out", "p", &item())
        .push("out", "r", &item())
        .commit();
    let after = client.queue("out").partition("r").push(&item());
    let elsewhere = client.queue("out").partition("s").push(&item());
    elsewhere.wait(LONG).unwrap();
    after.wait(LONG).unwrap();
    commit.wait(LONG).unwrap();
    before.wait(LONG).unwrap();
    let lines: Vec<_> = server
        .seen()
        .into_iter()
        .map(|seen| (seen.line, seen.body))
        .collect();
    let at = |what: &str| {
        lines
            .iter()
            .position(|(line, body)| line.contains(what) || body.contains(what))
            .unwrap()
    };
    assert_eq!(lines.len(), 4);
    assert!(at(r#""partition":"s""#) < 3, "nothing else waits");
    let last = lines
        .iter()
        .rposition(|(line, body)| line.contains("/push") && body.contains(r#""partition":"r""#));
    assert!(last.unwrap() > at("/transaction"));
    assert!(at(r#""partition":"p""#) < at("/transaction"));
}

#[test]
fn a_commit_that_waits_for_its_turn_can_be_cancelled() {
    let silent = Script::start(|seen| match &*seen.line {
        line if line.contains("/push") => Reply::Silence,
        line if line.contains("/ack") => json(200, r#"[{"index":0,"success":true}]"#),
        _ => json(200, POPPED),
    });
    let client = client(&[&silent.url], "");
    let delivery = popped(&client);
    let stuck = client.queue("out").push(&[Item::raw("1").unwrap()]);
    let commit = forward(&client, &delivery).commit();
    assert!(!commit.wait_for(Duration::from_millis(50)).unwrap());
    commit.cancel();
    let error = commit.wait(LONG).unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (ErrorCode::Cancelled, Outcome::NotApplied)
    );
    assert!(!stuck.is_complete());
    assert_eq!(silent.count_of("/transaction"), 0);
    // It lets go a moment later.
    until("the message is unsettled", || is_unsettled(&delivery));
}

/// Brokers of a cluster hear late that another one has freed a partition.
#[test]
fn l1_v13_verdicts_and_transactions_go_to_the_broker_of_their_pop() {
    let servers: Vec<_> = (0..3).map(|_| broker(|_| json(200, COMMITTED))).collect();
    let urls: Vec<_> = servers.iter().map(|server| &*server.url).collect();
    let client = client(&urls, "");
    for _ in 0..6 {
        let delivery = popped(&client);
        forward(&client, &delivery).commit().wait(LONG).unwrap();
        delivery.ack().wait(LONG).unwrap();
    }
    for path in ["/pop", "/transaction", "/ack"] {
        let mut counts: Vec<_> = servers.iter().map(|server| server.count_of(path)).collect();
        counts.sort_unstable();
        assert_eq!(counts, [0, 0, 6], "{path}");
    }
}
