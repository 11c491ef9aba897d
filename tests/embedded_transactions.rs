//! Commits whose answer is lost, on an embedded broker that loses it: whether they were applied shows afterwards.

use std::time::Duration;

use queen::{
    BrokerOptions, Client, Delivery, EmbeddedBroker, Error, ErrorCode, Fault, FaultAction, Item,
    Outcome, PopOptions, RollbackReason,
};

const LONG: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn pop(client: &Client, queue: &str) -> Option<Delivery> {
    let options = PopOptions {
        wait: false,
        batch: 10,
        ..PopOptions::default()
    };
    let popped = client.queue(queue).pop_with(&options).wait(LONG).unwrap();
    popped.take()
}

/// Acks what was taken from `in`, and pushes it to `out` under an id of its own.
fn forward(client: &Client, delivery: &Delivery) -> Result<(), Error> {
    let message = &delivery.messages()[0];
    let id = format!("out-{}", message.transaction_id);
    let item = Item::raw(message.payload())?.transaction_id(id);
    let committed = client
        .transaction()
        .ack(delivery)
        .push("out", None, &[item])
        .commit()
        .wait(LONG);
    committed.map(|_| ())
}

/// A broker that fails the first commit so, with a message in `in` that was taken.
fn failing(action: FaultAction) -> (EmbeddedBroker, Client, Delivery) {
    let options = BrokerOptions {
        testing: true,
        ..BrokerOptions::default()
    };
    let broker = EmbeddedBroker::start(options).unwrap();
    let client = Client::new(broker.url()).unwrap();
    let item = Item::raw("7").unwrap().transaction_id("in-1");
    client.queue("in").push(&[item]).wait(LONG).unwrap();
    let fault = Fault::new("transaction", action).times(1);
    broker.add_fault(fault).unwrap();
    let delivery = pop(&client, "in").unwrap();
    let error = forward(&client, &delivery).unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert_eq!(error.transaction_ids(), ["out-in-1"]);
    assert!(delivery.is_lost());
    assert_eq!(client.stats().transactions.unknown, 1);
    (broker, client, delivery)
}

#[test]
fn c34_a_commit_that_was_applied_without_an_answer_is_not_done_again() {
    let (broker, client, delivery) = failing(FaultAction::CutAfterCommit);
    assert_eq!(pop(&client, "out").unwrap().messages()[0].payload(), "7");
    // Who repeats it all the same is told so, and nothing is stored twice.
    let item = Item::raw("7").unwrap().transaction_id("out-in-1");
    let again = client.transaction().push("out", None, &[item]).commit();
    let error = again.wait(LONG).unwrap_err();
    assert_eq!(RollbackReason::of(&error), Some(RollbackReason::Duplicate));
    // It does not come again, however long one waits.
    drop(delivery);
    broker.advance_clock(HOUR).wait(LONG).unwrap();
    assert!(pop(&client, "in").is_none());
    client.close(LONG).wait(LONG).unwrap();
}

#[test]
fn a_commit_that_never_arrived_is_done_when_the_message_comes_again() {
    let (broker, client, delivery) = failing(FaultAction::CutBeforeCommit);
    assert!(pop(&client, "out").is_none());
    let late = delivery.ack().wait(LONG).unwrap_err();
    assert_eq!(late.code(), ErrorCode::LeaseLost);
    broker.advance_clock(HOUR).wait(LONG).unwrap();
    let again = pop(&client, "in").expect("its lease is over");
    forward(&client, &again).unwrap();
    assert_eq!(pop(&client, "out").unwrap().messages()[0].payload(), "7");
    drop(again);
    assert!(pop(&client, "in").is_none());
    client.close(LONG).wait(LONG).unwrap();
}
