//! Producers and consumers over TCP that write down what was answered, and the comparison of a store with their notes.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use queen_broker::{Broker, Options, Store};
use serde_json::{Value, json};

use super::server::{Server, agent, get, output, post};
use super::{Api, ack_of, txns};

const PRODUCERS: usize = 3;
const CONSUMERS: usize = 2;

/// What clients know.
#[derive(Clone, Default)]
pub struct Ledger {
    /// Transaction ids whose push was answered, by partition, in order.
    pub pushed: BTreeMap<String, Vec<String>>,
    /// Transaction ids whose ack was answered with success.
    pub acked: HashSet<String>,
    /// Transaction ids whose ack was sent and never answered: finished or not, nobody can know.
    pub doubtful: HashSet<String>,
    /// What was delivered after its ack was answered.
    pub returned: Vec<String>,
}

/// Where a store differs from a ledger. Each list names messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// The push was answered, the message is not stored.
    pub lost: Vec<String>,
    /// The ack was answered, the message is delivered again.
    pub returned: Vec<String>,
    /// No ack was ever sent, the message is not delivered again.
    pub skipped: Vec<String>,
    /// Stored in another order than pushed, or with a gap.
    pub disordered: Vec<String>,
    /// The push was answered, and a second one like it would be stored again.
    pub forgotten: Vec<String>,
}

/// Random numbers that are printed, so that a failure tells its seed.
pub struct Random(u64);

impl Random {
    pub fn new() -> Random {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seed = u64::from(now.subsec_nanos()) | 1;
        println!("seed {seed}");
        Random(seed)
    }

    pub fn below(&mut self, most: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// Pushes and consumes until so many pushes were answered and a pause is over, then kills the server while requests are
/// under way.
pub fn work(
    mut server: Server,
    round: usize,
    ledger: &Mutex<Ledger>,
    pushes: usize,
    pause: Duration,
) {
    let (answered, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let (base, stop, answered) = (&server.base, &stop, &answered);
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| format!("r{round}p{producer}"))
            .map(|part| scope.spawn(move || produce(base, &part, ledger, stop, answered)))
            .collect();
        for _ in 0..CONSUMERS {
            scope.spawn(move || consume(base, ledger, stop));
        }
        while answered.load(Ordering::Relaxed) < pushes {
            assert!(
                !producers.iter().all(|p| p.is_finished()),
                "the server ended by itself"
            );
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(pause);
        server.child.kill().unwrap();
        stop.store(true, Ordering::Relaxed);
    });
    server.child.wait().unwrap();
}

/// Pushes one to three messages at a time, some of them large, until the server is gone.
fn produce(
    base: &str,
    part: &str,
    ledger: &Mutex<Ledger>,
    stop: &AtomicBool,
    answered: &AtomicUsize,
) {
    let agent = agent();
    for n in 0.. {
        let names: Vec<String> = (0..1 + n % 3)
            .map(|i| format!("{part}-{n:05}-{i}"))
            .collect();
        let size = if n % 4 == 3 { 120_000 } else { 30 };
        let item = |txn| json!({"queue": "q", "partition": part, "transactionId": txn, "payload": "x".repeat(size)});
        let items: Vec<Value> = names.iter().map(item).collect();
        let url = format!("{base}/api/v1/push");
        let Ok((201, _)) = post(&agent, &url, &json!({"items": items})) else {
            return;
        };
        let mut ledger = ledger.lock().unwrap();
        ledger
            .pushed
            .entry(part.to_owned())
            .or_default()
            .extend(names);
        answered.fetch_add(1, Ordering::Relaxed);
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
        // While the server is dying an answer may be cut short; it is then no answer.
        if delivery.is_object() {
            acknowledge(&agent, base, &delivery, ledger);
        }
    }
}

fn acknowledge(agent: &ureq::Agent, base: &str, delivery: &Value, ledger: &Mutex<Ledger>) {
    let names: Vec<String> = txns(delivery).into_iter().map(str::to_owned).collect();
    {
        let mut ledger = ledger.lock().unwrap();
        let back = names.iter().filter(|txn| ledger.acked.contains(*txn));
        let back: Vec<String> = back.cloned().collect();
        ledger.returned.extend(back);
        ledger.doubtful.extend(names.iter().cloned());
    }
    let messages = delivery["messages"].as_array().unwrap();
    let acks: Vec<Value> = messages.iter().map(|m| ack_of(m, "completed")).collect();
    let url = format!("{base}/api/v1/ack/batch");
    let Ok((200, answer)) = post(agent, &url, &json!({"acknowledgments": acks})) else {
        return;
    };
    let Some(answers) = answer.as_array() else {
        return;
    };
    let mut ledger = ledger.lock().unwrap();
    for (txn, ack) in names.into_iter().zip(answers) {
        ledger.doubtful.remove(&txn);
        if ack["success"] == true {
            ledger.acked.insert(txn);
        }
    }
}

/// Checks a copy of the store `store.db` of a folder, opens it and compares it with a ledger.
pub fn compare(folder: &Path, ledger: &Ledger) -> Differences {
    let copy = tempfile::tempdir().unwrap();
    copy_files(folder, copy.path());
    let store = copy.path().join("store.db");
    let (code, found, said) = output(&["check", store.to_str().unwrap()]);
    assert_eq!(code, 0, "{found}{said}");
    let options = Options {
        store: Store::File(store),
        testing: true,
        ..Options::default()
    };
    let api = Api(Broker::open(options).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (stored, left) = runtime.block_on(async {
        // The leases of the consumers that were cut off end.
        api.clock().advance_clock(Duration::from_secs(3600)).await;
        let all = "consumerGroup=audit&subscriptionMode=all&batch=1000&partitions=100";
        (
            read(&api, all).await,
            read(&api, "batch=1000&partitions=100").await,
        )
    });
    api.0.close();

    let mut found = Differences {
        returned: ledger.returned.clone(),
        forgotten: runtime.block_on(forgotten(folder, ledger)),
        ..Differences::default()
    };
    let nothing = Vec::new();
    for (part, pushed) in &ledger.pushed {
        let stored = stored.get(part).unwrap_or(&nothing);
        // What was stored and never answered may follow what was answered.
        let common = pushed
            .iter()
            .zip(stored)
            .take_while(|(a, b)| a == b)
            .count();
        let (lost, extra) = (&pushed[common..], &stored[common..]);
        let late = |txn: &&String| pushed.contains(txn);
        found.disordered.extend(extra.iter().filter(late).cloned());
        found
            .lost
            .extend(lost.iter().filter(|txn| !extra.contains(txn)).cloned());
    }
    for (part, stored) in &stored {
        let left = left.get(part).unwrap_or(&nothing);
        if !stored.ends_with(left) {
            found.disordered.extend(left.iter().cloned());
        }
        let finished = &stored[..stored.len().saturating_sub(left.len())];
        let known = |txn: &&String| ledger.acked.contains(*txn) || ledger.doubtful.contains(*txn);
        found
            .skipped
            .extend(finished.iter().filter(|txn| !known(txn)).cloned());
        let acked = left.iter().filter(|txn| ledger.acked.contains(*txn));
        found.returned.extend(acked.cloned());
    }
    found
}

/// Pushes everything again into a copy of the store, as a client does that has seen no answer.
async fn forgotten(folder: &Path, ledger: &Ledger) -> Vec<String> {
    let copy = tempfile::tempdir().unwrap();
    copy_files(folder, copy.path());
    let api = Api::fast_file(&copy.path().join("store.db"));
    let mut forgotten = Vec::new();
    for (part, pushed) in &ledger.pushed {
        let item =
            |txn| json!({"queue": "q", "partition": part, "transactionId": txn, "payload": 0});
        let items: Vec<Value> = pushed.iter().map(item).collect();
        let body = json!({"items": items});
        let (status, answers) = api.send("POST", "/api/v1/push", body).await;
        assert_eq!(status, 201, "{answers}");
        let answers = answers.as_array().unwrap().iter().zip(pushed);
        let unknown = answers.filter(|(answer, _)| answer["status"] != "duplicate");
        forgotten.extend(unknown.map(|(_, txn)| txn.clone()));
    }
    api.0.close();
    forgotten
}

/// Everything a group gets, by partition, in the order of delivery.
async fn read(api: &Api, query: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    loop {
        let delivery = api.pop("q", query).await;
        if delivery.is_null() {
            return found;
        }
        for message in delivery["messages"].as_array().unwrap() {
            let text = |name: &str| message[name].as_str().unwrap().to_owned();
            found
                .entry(text("partition"))
                .or_default()
                .push(text("transactionId"));
        }
        let answer = api.ack(&delivery, "completed").await;
        let acks = answer.as_array().unwrap();
        assert!(acks.iter().all(|ack| ack["success"] == true), "{answer}");
    }
}

/// Copies the files of a folder, not those in folders below it.
pub fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// A number for `make test`, another one for `make stress`.
pub fn size(small: usize, full: usize) -> usize {
    match std::env::var("QUEEN_TEST_SIZE").as_deref() {
        Ok("full") => full,
        _ => small,
    }
}
