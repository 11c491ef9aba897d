//! Consumers against brokers that play a script: what no real one does on demand.

mod ahead;
mod lanes;
mod leases;
mod polls;
#[path = "../support/script.rs"]
#[allow(dead_code, reason = "each test program uses its own part")]
mod script;
mod verdicts;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use queen::{
    Client, ConsumeOptions, Consumer, ConsumerEvent, ConsumerSink, Delivery, ErrorCode, PopOptions,
    Settlement, StopReason, Summary,
};
use serde_json::{Value, json};

use script::{Reply, Script, Seen, answer};

/// Far beyond what anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn client(url: &str, config: &str) -> Client {
    let more = if config.is_empty() { "" } else { "," };
    Client::new(&format!(r#"{{"url":"{url}"{more}{config}}}"#)).unwrap()
}

/// A broker that plays: what it answers to the pops (by their number, from 0), to acks and to renewals.
fn plays(
    pop: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ack: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    extend: impl Fn(usize) -> Reply + Send + Sync + 'static,
) -> Script {
    let (pops, extends) = (AtomicUsize::new(0), AtomicUsize::new(0));
    Script::start(move |seen| match &*seen.line {
        line if line.contains("/pop") => pop(pops.fetch_add(1, Ordering::SeqCst)),
        line if line.contains("/ack") => ack(seen),
        line if line.contains("/extend") => extend(extends.fetch_add(1, Ordering::SeqCst)),
        _ => script::json(200, "{}"),
    })
}

/// Hands out the messages of the first pops, one reply each, then none.
fn hands_out(replies: impl IntoIterator<Item = Value>) -> impl Fn(usize) -> Reply + Send + Sync {
    let replies: Vec<String> = replies.into_iter().map(|reply| reply.to_string()).collect();
    move |number| match replies.get(number) {
        Some(reply) => script::json(200, reply),
        None => nothing(),
    }
}

/// What a pop without messages brings.
fn nothing() -> Reply {
    answer("204 No Content", "")
}

/// Messages of these partitions under the lease `L`, each with the transaction id `PARTITION-NUMBER`.
fn messages(partitions: &[(&str, usize)]) -> Value {
    let messages: Vec<_> = partitions
        .iter()
        .flat_map(|(partition, count)| (0..*count).map(move |number| (*partition, number)))
        .map(|(partition, number)| {
            json!({
                "id": format!("id-{partition}-{number}"),
                "transactionId": format!("{partition}-{number}"),
                "partitionId": format!("uuid-{partition}"), "partition": partition,
                "leaseId": "L", "data": number, "createdAt": "2026-01-01T00:00:00Z",
            })
        })
        .collect();
    json!({ "success": true, "leaseId": "L", "messages": messages, "partitionsClaimed": partitions.len() })
}

/// The acks in the body of a request.
fn acks(seen: &Seen) -> Vec<Value> {
    let body: Value = serde_json::from_str(&seen.body).unwrap();
    body["acknowledgments"].as_array().unwrap().clone()
}

/// Every verdict counts.
fn acked(seen: &Seen) -> Reply {
    verdicts_with(seen, |_| Value::Null)
}

/// Verdicts that fail with that error, or count where it is null.
fn verdicts_with(seen: &Seen, error: impl Fn(&Value) -> Value) -> Reply {
    let results: Vec<_> = acks(seen)
        .iter()
        .enumerate()
        .map(|(index, ack)| {
            let error = error(ack);
            json!({
                "index": index, "transactionId": ack["transactionId"], "success": error.is_null(),
                "error": error, "leaseReleased": true, "dlq": false, "noop": false,
            })
        })
        .collect();
    script::json(200, &json!(results).to_string())
}

/// The lease lives on, for that many partitions.
fn renewed(partitions: u64) -> Reply {
    let text = json!({ "leaseId": "L", "success": true, "renewed": partitions, "expiresAt": "t" });
    script::json(200, &text.to_string())
}

/// The lease is over.
fn refused_renewal() -> Reply {
    let text = json!({ "leaseId": "L", "success": false, "renewed": 0, "expiresAt": null });
    script::json(200, &text.to_string())
}

/// The requests for a path with that in it.
fn requests(server: &Script, path: &str) -> Vec<Seen> {
    let mut seen = server.seen();
    seen.retain(|seen| seen.line.contains(path));
    seen
}

/// Waits until the condition holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONG, "{what}: has not come true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A consumer of `q` whose deliveries are events.
fn events(client: &Client, options: ConsumeOptions) -> (Consumer, mpsc::Receiver<ConsumerEvent>) {
    let (sender, events) = mpsc::channel();
    let sender = Mutex::new(sender);
    let tell = move |event| sender.lock().unwrap().send(event).is_ok();
    let options = ConsumeOptions {
        queue: Some("q".into()),
        ..options
    };
    let sink = ConsumerSink::Events(Box::new(tell));
    (client.consume(options, sink).unwrap(), events)
}

fn delivery(events: &mpsc::Receiver<ConsumerEvent>) -> Delivery {
    match events.recv_timeout(LONG) {
        Ok(ConsumerEvent::Delivery(delivery)) => delivery,
        other => panic!("{other:?}"),
    }
}

fn ended(consumer: &Consumer) -> Summary {
    consumer.finished().wait(LONG).unwrap()
}
