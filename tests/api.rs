//! What the Rust API promises as a whole: what it is made of can be sent and shared, grows without breaking its users, and
//! its futures can be dropped at any time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use queen::{BufferOptions, Client, Item, PopOptions};
use regex_lite::Regex;

const LONG: Duration = Duration::from_secs(60);

/// Asks for types that can be sent and shared, and tells their names.
macro_rules! shared {
    ($($name:ident $(<$($of:ty),*>)?,)*) => {{
        fn is_shared<T: Send + Sync + 'static>() {}
        $(is_shared::<queen::$name $(<$($of),*>)?>();)*
        [$(stringify!($name)),*]
    }};
}

/// Enums without `non_exhaustive`: of closed sets, so that a `match` may name every case.
const CLOSED: &[&str] = &["Outcome"];

/// Structs whose public fields are all there will be.
const PLAIN: &[&str] = &["Ack", "MessageVerdict"];

#[test]
fn every_type_can_be_sent_and_shared() {
    let shared = shared! {
        Ack, AckOptions, AckResult, ActiveFault, Aggregates, Aggregation, Analytics, BackendHealth, BackendSink, BackendState, Backends, BrokerClock,
        BrokerOptions, BrokerStatus, BufferOptions, BufferStats, Client, ClockChange, Closed, Committed, Config, ConsumeOption,
        ConsumeOptions, Consumer, ConsumerEvent, ConsumerSink, ConsumerStats, DeadLetters, DefaultSubscription, Delivery,
        DeliveryReport, DeliveryStatus, Dispatcher, Document, Durability, EmbeddedBroker, Error, ErrorCode, FailureStats, Fault,
        FaultAction, FaultError, FlushOptions, Flushed, Group, Groups, Item, ItemOptions, Latency, LatencyStats,
        LeaseStats, Level, Life, Living, LoadBalancing, LogSink, Message, MessageStats, MessageVerdict, Messages, Number, Operation,
        Outcome, Parameter, Pending<u8>, PendingStats, PolledWindow, PopOptions, Popped, PushOptions, PushResult, Queue, QueueOptions, Queues,
        Renewal, RenewalResult, RenewOptions, ReportSink, RequestStats, Result<u8>, RollbackReason, Secret, SeekTo,
        Setting, Settlement, Source, Statistics, StatisticsSink, Status, StopReason, StopSignal, Stream,
        StreamConsumeOptions, StreamConsumer, StreamPollOptions, StreamSummary, Streams, Summary, System, TokenSink,
        TokenWanted, Trace, Traces, Transaction, TransactionOptions, TransactionResult, TransactionStats, WhenFull,
        Window, WindowEvent, WindowMessage, WindowSink,
    };
    let shared: BTreeSet<_> = shared.into_iter().map(str::to_owned).collect();
    // Of what the crate exports only these are no types.
    let others = ["AnyPending", "Output"];
    let exported: BTreeSet<_> = exported()
        .into_iter()
        .filter(|name| !others.contains(&&**name))
        .collect();
    assert_eq!(shared, exported, "left: in this test, right: in src/lib.rs");
    fn is_future<T: Future + Unpin + Send>() {}
    is_future::<queen::Pending<u8>>();
}

#[test]
fn what_will_grow_is_marked() {
    let source = sources();
    let exported = exported();
    let mut looked_at = 0;
    let declared =
        Regex::new(r"(?m)((?:^#\[.*\n)*)^pub (enum|struct) (\w+)[^\n]*\{\n((?: .*\n|\n)*)\}")
            .unwrap();
    for found in declared.captures_iter(&source) {
        let (attributes, kind, name, body) = (&found[1], &found[2], &found[3], &found[4]);
        if !exported.contains(name) || attributes.contains("non_exhaustive") {
            continue;
        }
        looked_at += 1;
        if kind == "enum" {
            assert!(CLOSED.contains(&name), "enum {name} is not non_exhaustive");
            continue;
        }
        let public = body
            .lines()
            .filter(|line| line.starts_with("    pub "))
            .count();
        let private = body.lines().any(|line| {
            Regex::new(r"^    (pub\(\w+\) )?[a-z_]+: ")
                .unwrap()
                .is_match(line)
        });
        let has_default =
            attributes.contains("Default") || source.contains(&format!("impl Default for {name} "));
        assert!(
            public == 0 || private || has_default || PLAIN.contains(&name),
            "struct {name} can be neither extended nor filled with `..Default::default()`"
        );
    }
    assert!(looked_at > 15, "{looked_at}");
}

/// The names in upper camel case that `src/lib.rs` exports.
fn exported() -> BTreeSet<String> {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let name = Regex::new(r"\b[A-Z]\w*[a-z]\w*").unwrap();
    let exports = lib
        .split("pub use ")
        .skip(1)
        .filter_map(|rest| rest.split(';').next());
    exports
        .flat_map(|export| {
            name.find_iter(export)
                .map(|found| found.as_str().to_owned())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The source of the crate, but for the C ABI, in one text.
fn sources() -> String {
    let mut folders = vec![root().join("src")];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("ffi") {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    text
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn numbers(client: &Client, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let delivery = client.queue("q").pop().wait(LONG).unwrap().take().unwrap();
        numbers.push(delivery.messages()[0].json().unwrap());
        delivery.ack().wait(LONG).unwrap();
    }
    numbers
}

/// Every other future is dropped after it was polled once, or never.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_was_begun_goes_on_without_its_future() {
    let client = Client::new("embedded:").unwrap();
    let queue = client.queue("q");
    let buffered = queue.clone().buffer(BufferOptions::default());
    for n in 0..40u64 {
        let item = Item::json(&n).unwrap();
        let pushing = if n % 4 < 2 {
            queue.push(&[item])
        } else {
            buffered.push(&[item])
        };
        if n % 2 == 0 {
            let _ = tokio::time::timeout(Duration::ZERO, pushing).await;
        }
    }
    // What is awaited by reference can be awaited again.
    let mut flushing = client.flush(&Default::default());
    let mut rounds = 0;
    while tokio::time::timeout(Duration::from_micros(10), &mut flushing)
        .await
        .is_err()
    {
        rounds += 1;
        assert!(rounds < 1_000_000);
    }
    assert!(flushing.await.is_ok(), "complete once, for whoever asks");
    let popped = tokio::task::spawn_blocking({
        let client = client.clone();
        move || numbers(&client, 40)
    });
    assert_eq!(popped.await.unwrap(), (0..40).collect::<Vec<_>>());
    client.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_forgotten_pop_brings_goes_back() {
    let client = Client::new("embedded:").unwrap();
    let queue = client.queue("q");
    let options = PopOptions {
        wait: true,
        poll_timeout_millis: 60_000,
        lease_seconds: Some(3600),
        ..PopOptions::default()
    };
    let popping = queue.pop_with(&options);
    assert!(
        tokio::time::timeout(Duration::from_millis(50), popping)
            .await
            .is_err()
    );
    queue.push(&[Item::json(&1).unwrap()]).await.unwrap();
    // It was first in line and nobody has it: without its return the lease would last an hour.
    let popped = tokio::time::timeout(LONG, queue.pop_with(&options))
        .await
        .unwrap()
        .unwrap();
    let delivery = popped.take().unwrap();
    assert_eq!(delivery.messages()[0].payload(), "1");
    delivery.ack().await.unwrap();
    assert_eq!(client.stats().messages.given_back, 1);
    client.close(LONG).await.unwrap();
}
