//! `kill -9` at random moments: no answered push is lost, and no answered ack is brought back.

mod common;

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::server::{Server, agent, get, post};
use common::{ack_of, txns};
use serde_json::{Value, json};

const ROUNDS: usize = 30;
const PRODUCERS: usize = 3;

#[derive(Default)]
struct Ledger {
    /// Transaction ids whose push was answered, by partition, in order.
    pushed: HashMap<String, Vec<String>>,
    /// Transaction ids whose ack was answered with success.
    acked: HashSet<String>,
    /// What must not have happened.
    faults: Vec<String>,
}

#[test]
fn nothing_answered_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let arguments = ["--data", path.to_str().unwrap()];
    let ledger = Mutex::new(Ledger::default());
    // Moments differ from run to run; the seed is printed when the test fails.
    let mut random = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .subsec_nanos() as u64
        | 1;
    println!("seed {random}");
    for round in 0..ROUNDS {
        let mut server = Server::start(&arguments);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for producer in 0..PRODUCERS {
                let (base, ledger, stop) = (&server.base, &ledger, &stop);
                scope.spawn(move || produce(base, round, producer, ledger, stop));
            }
            for _ in 0..2 {
                scope.spawn(|| consume(&server.base, &ledger, &stop));
            }
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            thread::sleep(Duration::from_millis(10 + (random >> 33) % 140));
            // The kill comes while requests are under way; the threads stop when they meet it.
            let pid = rustix::process::Pid::from_raw(server.child.id() as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            stop.store(true, Ordering::Relaxed);
        });
        server.child.wait().unwrap();
    }

    let server = Server::start(&arguments);
    let mut ledger = ledger.into_inner().unwrap();
    audit(&server.base, &mut ledger);
    drain(&server.base, &mut ledger);
    let pushed: usize = ledger.pushed.values().map(Vec::len).sum();
    println!(
        "{pushed} pushes and {} acks were answered",
        ledger.acked.len()
    );
    assert!(
        pushed > ROUNDS && ledger.acked.len() > ROUNDS,
        "hardly anything happened"
    );
    assert!(ledger.faults.is_empty(), "{:#?}", ledger.faults);
}

fn produce(base: &str, round: usize, producer: usize, ledger: &Mutex<Ledger>, stop: &AtomicBool) {
    let (agent, part) = (agent(), format!("r{round}p{producer}"));
    for n in 0.. {
        let names: Vec<String> = (0..1 + n % 3)
            .map(|i| format!("{part}-{n:05}-{i}"))
            .collect();
        let items: Vec<Value> = names
            .iter()
            .map(|txn| json!({"queue": "q", "partition": part, "transactionId": txn, "payload": {"txn": txn}}))
            .collect();
        let Ok((201, _)) = post(
            &agent,
            &format!("{base}/api/v1/push"),
            &json!({"items": items}),
        ) else {
            return;
        };
        ledger
            .lock()
            .unwrap()
            .pushed
            .entry(part.clone())
            .or_default()
            .extend(names);
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

fn consume(base: &str, ledger: &Mutex<Ledger>, stop: &AtomicBool) {
    let agent = agent();
    let url = format!("{base}/api/v1/pop/queue/q?batch=5&leaseSeconds=1&wait=true&timeout=200");
    while !stop.load(Ordering::Relaxed) {
        let Ok((_, delivery)) = get(&agent, &url) else {
            return;
        };
        // While the server is dying a broken answer may be cut short; it is then no answer.
        if !delivery.is_object() || !acknowledge(&agent, base, &delivery, ledger) {
            continue;
        }
    }
}

/// Acknowledges a delivery after checking that none of it was finished before.
fn acknowledge(agent: &ureq::Agent, base: &str, delivery: &Value, ledger: &Mutex<Ledger>) -> bool {
    {
        let mut ledger = ledger.lock().unwrap();
        for txn in txns(delivery) {
            if ledger.acked.contains(txn) {
                ledger.faults.push(format!("{txn} came back after its ack"));
            }
        }
    }
    let acks: Vec<Value> = delivery["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| ack_of(m, "completed"))
        .collect();
    let body = json!({"acknowledgments": acks});
    let Ok((200, answer)) = post(agent, &format!("{base}/api/v1/ack/batch"), &body) else {
        return false;
    };
    let mut ledger = ledger.lock().unwrap();
    for (txn, ack) in txns(delivery)
        .into_iter()
        .zip(answer.as_array().into_iter().flatten())
    {
        if ack["success"] == true {
            ledger.acked.insert(txn.to_owned());
        }
    }
    true
}

/// A group that reads everything must find every answered push, once and in order.
fn audit(base: &str, ledger: &mut Ledger) {
    let agent = agent();
    let url = format!(
        "{base}/api/v1/pop/queue/q?consumerGroup=audit&subscriptionMode=all&autoAck=true&batch=1000"
    );
    let mut stored: HashMap<String, Vec<String>> = HashMap::new();
    while let (200, delivery) = get(&agent, &url).unwrap() {
        for message in delivery["messages"].as_array().unwrap() {
            let part = message["partition"].as_str().unwrap().to_owned();
            stored
                .entry(part)
                .or_default()
                .push(message["transactionId"].as_str().unwrap().to_owned());
        }
    }
    for (part, pushed) in &ledger.pushed {
        let found = stored.get(part).cloned().unwrap_or_default();
        // What was stored and never answered may follow, nothing may be missing or out of order.
        if !found.starts_with(pushed) {
            ledger.faults.push(format!(
                "{part}: pushed {} messages, found {}",
                pushed.len(),
                found.len()
            ));
        }
    }
}

/// What is left in queue mode must be new.
fn drain(base: &str, ledger: &mut Ledger) {
    let agent = agent();
    let shared = Mutex::new(std::mem::take(ledger));
    let url = format!("{base}/api/v1/pop/queue/q?batch=500&partitions=50&wait=true&timeout=1500");
    while let (200, delivery) = get(&agent, &url).unwrap() {
        acknowledge(&agent, base, &delivery, &shared);
    }
    *ledger = shared.into_inner().unwrap();
    let pushed: Vec<&String> = ledger.pushed.values().flatten().collect();
    let left = pushed
        .into_iter()
        .filter(|txn| !ledger.acked.contains(*txn))
        .count();
    if left > 0 {
        // An ack may have been stored and its answer lost in the kill: then the message is finished, not lost.
        println!("{left} pushed messages were finished by acks without an answer");
    }
}
