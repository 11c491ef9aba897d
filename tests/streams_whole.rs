//! Everything that can go wrong with a stream, at once: two source queues, three partitions, messages in any order, handlers that
//! fail, a consumer that is killed, and a broker that is killed and started again. In the end each group has every message
//! once, in one window that was handled with success once, and the sums are those of what was pushed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use queen::{
    Aggregation, BrokerOptions, Client, EmbeddedBroker, Item, Outcome, QueueOptions, Settlement,
    StreamConsumeOptions, StreamConsumer, Window,
};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);
const MESSAGES: u64 = 600;
const GROUPS: [&str; 2] = ["billing", "audit"];

/// What a group has seen.
#[derive(Default)]
struct Seen {
    /// Windows whose ack the broker has confirmed, with the numbers and their sum as the library has it.
    done: BTreeMap<String, Vec<(Vec<u64>, u64)>>,
    /// Those whose ack may have counted: the broker has died meanwhile.
    perhaps: BTreeMap<String, Vec<(Vec<u64>, u64)>>,
    calls: usize,
}

type Ledger = Arc<Mutex<Seen>>;

/// Fails now and then in each way there is; else acks and notes what the broker says.
fn handle(window: &Window, ledger: &Ledger) -> Settlement {
    let call = {
        let mut seen = ledger.lock().unwrap();
        seen.calls += 1;
        seen.calls
    };
    match call % 7 {
        3 => return Settlement::NackWith("not now".into()),
        5 => panic!("on purpose"),
        _ => {}
    }
    let numbers: Vec<u64> = window
        .messages()
        .map(|one| one.json::<Value>().unwrap()["n"].as_u64().unwrap())
        .collect();
    let sums = window.aggregate(&Aggregation {
        sum: vec!["data.n".into()],
        ..Aggregation::default()
    });
    let sum = serde_json::to_value(&sums.sum).unwrap()["data.n"]
        .as_u64()
        .unwrap();
    let answer = window.ack().wait(LONG);
    let mut seen = ledger.lock().unwrap();
    let place = match &answer {
        Ok(()) => &mut seen.done,
        Err(error) if error.outcome() == Outcome::Unknown => &mut seen.perhaps,
        Err(_) => return Settlement::Defer,
    };
    place
        .entry(window.id().to_owned())
        .or_default()
        .push((numbers, sum));
    Settlement::Defer
}

fn consume(client: &Client, stream: &str, group: &'static str, ledger: &Ledger) -> StreamConsumer {
    let options = StreamConsumeOptions {
        concurrency: 3,
        poll_timeout_millis: 500,
        extend_millis: 1000,
        ..StreamConsumeOptions::default()
    };
    let ledger = ledger.clone();
    let handler = move |window: Window| handle(&window, &ledger);
    client
        .stream(stream)
        .consume_with(group, options, handler)
        .unwrap()
}

/// Every number from 0, in an order that is the same in each run and is none.
fn shuffled() -> impl Iterator<Item = u64> {
    (0..MESSAGES).map(|n| n * 7919 % MESSAGES)
}

#[test]
fn s2_s3_s4_s8_each_window_is_handled_with_success_once_per_group() {
    std::panic::set_hook(Box::new(|_| {}));
    let folder = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(BrokerOptions {
        data: Some(folder.path().join("queen.db")),
        ..BrokerOptions::default()
    })
    .unwrap();
    let config =
        json!({"url": broker.url(), "retryDelayMillis": 20, "retryAttempts": 100}).to_string();
    let client = Client::new(&config).unwrap();
    for queue in ["left", "right"] {
        client
            .queue(queue)
            .create(QueueOptions::new())
            .wait(LONG)
            .unwrap();
    }
    let stream = client
        .stream("both")
        .namespace("tests")
        .sources(&["left", "right"])
        .partitioned(true);
    let short = stream
        .tumbling(Duration::from_millis(150))
        .grace_period(Duration::from_millis(50));
    short
        .lease_timeout(Duration::from_secs(2))
        .define()
        .wait(LONG)
        .unwrap();

    let ledgers: BTreeMap<&str, Ledger> = GROUPS
        .iter()
        .map(|group| (*group, Ledger::default()))
        .collect();
    let doomed = Client::new(&config).unwrap();
    let mut consumers: Vec<_> = GROUPS
        .iter()
        .map(|group| consume(&client, "both", group, &ledgers[group]))
        .collect();
    // One that holds a window and dies with it.
    let held = Arc::new(AtomicUsize::new(0));
    let holding = held.clone();
    let hold = move |window: Window| {
        holding.fetch_add(1, Ordering::SeqCst);
        std::mem::forget(window);
        Settlement::Defer
    };
    let options = StreamConsumeOptions {
        renew_lease: false,
        ..StreamConsumeOptions::default()
    };
    let killed = doomed
        .stream("both")
        .consume_with("billing", options, hold)
        .unwrap();

    for (count, n) in shuffled().enumerate() {
        let queue = if n % 2 == 0 { "left" } else { "right" };
        let item = Item::json(&json!({"n": n})).unwrap();
        let place = client.queue(queue).partition(format!("p{}", n % 3));
        let pushing = place.push(&[item]);
        if count == 300 {
            broker.kill().wait(LONG).unwrap();
            broker.restart().wait(LONG).unwrap();
        }
        pushing.wait(LONG).unwrap();
        if count == 200 {
            let until = Instant::now() + LONG;
            while held.load(Ordering::SeqCst) == 0 && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            drop(killed.stop(Duration::ZERO));
            drop(doomed.close(Duration::ZERO));
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    assert!(
        held.load(Ordering::SeqCst) > 0,
        "nobody has died with a window"
    );

    let until = Instant::now() + LONG;
    let all = |group: &str| {
        let seen = ledgers[group].lock().unwrap();
        let windows = seen.done.values().chain(seen.perhaps.values());
        let mut numbers: Vec<u64> = windows.flatten().flat_map(|one| one.0.clone()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.len() as u64 == MESSAGES
    };
    while !GROUPS.iter().all(|group| all(group)) {
        assert!(Instant::now() < until, "some messages never came");
        std::thread::sleep(Duration::from_millis(20));
    }
    for consumer in consumers.drain(..) {
        consumer.stop(LONG).wait(LONG).unwrap();
    }
    for group in GROUPS {
        let seen = ledgers[group].lock().unwrap();
        let (mut times, mut sum) = (BTreeMap::new(), 0);
        for (id, successes) in &seen.done {
            assert_eq!(
                successes.len(),
                1,
                "{group} has handled {id} with success {} times",
                successes.len()
            );
        }
        let counted = seen
            .perhaps
            .iter()
            .filter(|(id, _)| !seen.done.contains_key(*id));
        for (id, successes) in seen.done.iter().chain(counted) {
            let (numbers, own) = &successes[0];
            assert_eq!(*own, numbers.iter().sum::<u64>(), "the sum of {id}");
            sum += own;
            for n in numbers {
                *times.entry(*n).or_insert(0) += 1;
            }
            let key = id.split(':').nth(1).unwrap();
            assert!(
                numbers.iter().all(|n| format!("p{}", n % 3) == key),
                "{id} has {numbers:?}"
            );
        }
        assert!(
            times.values().all(|count| *count == 1),
            "{group}: a message is in several windows"
        );
        assert_eq!(times.len() as u64, MESSAGES, "{group}");
        assert_eq!(sum, (0..MESSAGES).sum::<u64>(), "{group}");
    }
    client.close(LONG).wait(LONG).unwrap();
}
