//! Buffered pushes while the broker is killed (-9) and started again on its file: all messages arrive exactly once, in
//! order, and memory stays within the bound.

#[path = "support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use queen::{BufferOptions, Client, DeliveryReport, FlushOptions, Item, PopOptions};
use support::brokers::Server;

/// Far beyond what anything here takes.
const LONG: Duration = Duration::from_secs(1800);
const PARTITIONS: usize = 20;
const BOUND: u64 = 192 << 20;

/// What the process has in memory, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.trim().split(' ').next())
        .unwrap()
        .parse()
        .unwrap();
    kib << 10
}

#[test]
fn b11_b12_a_broker_that_is_killed_and_started_again_gets_everything_once() {
    let messages = match std::env::var("QUEEN_TEST_SIZE").as_deref() {
        Ok("full") => 1_000_000,
        _ => 50_000,
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    let arguments = ["--data", file.to_str().unwrap()];
    let (mut server, url) = Server::start(&arguments).unwrap();
    let client = Client::new(&format!(
        r#"{{"url":"{url}","maxBufferedMessages":{messages},"maxBufferedBytes":{BOUND}}}"#
    ))
    .unwrap();
    let reported = Arc::new(AtomicUsize::new(0));
    let bad = Arc::new(Mutex::new(Vec::new()));
    let (counted, collected) = (reported.clone(), bad.clone());
    client.set_reports(Some(Arc::new(move |reports: &[DeliveryReport]| {
        counted.fetch_add(reports.len(), Ordering::SeqCst);
        let failed = reports.iter().filter(|one| !one.status.is_success());
        collected.lock().unwrap().extend(failed.cloned());
    })));

    let before = resident();
    let mut most = 0;
    let push = |from: usize, to: usize| {
        for n in from..to {
            let queue = client
                .queue("q")
                .partition(format!("p{}", n % PARTITIONS))
                .buffer(BufferOptions::default());
            let pushed = queue.push(&[Item::json(&n).unwrap()]);
            // Accepted at once: every message has room.
            assert_eq!(pushed.wait(LONG).unwrap()[0].status, "buffered");
        }
    };
    push(0, messages / 2);
    let began = Instant::now();
    while reported.load(Ordering::SeqCst) < messages / 5 {
        assert!(began.elapsed() < LONG, "nothing is stored");
        std::thread::sleep(Duration::from_millis(1));
    }
    server.kill();
    push(messages / 2, messages);
    for _ in 0..20 {
        let stats = client.stats().buffers;
        most = most.max(stats.buffered_bytes);
        assert!(stats.total_buffered_messages + stats.in_flight_messages <= messages as u64);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(most <= BOUND, "{most} bytes are counted");
    let grown = resident().saturating_sub(before);
    println!("{most} bytes counted, {grown} bytes grown");
    // Coarse: what a message takes is counted generously, the rest of the process is not.
    assert!(
        grown <= most * 3 / 2 + (64 << 20),
        "{grown} bytes for {most}"
    );

    let address = url.strip_prefix("http://").unwrap();
    let (_server, _) = Server::start_at(address, &arguments).unwrap();
    let options = FlushOptions {
        timeout_millis: Some(LONG.as_millis() as u64),
        ..FlushOptions::default()
    };
    client.flush(&options).wait(LONG).unwrap();
    assert!(bad.lock().unwrap().is_empty(), "{:?}", bad.lock().unwrap());
    assert_eq!(reported.load(Ordering::SeqCst), messages, "one report each");
    assert_eq!(client.stats().buffers.buffered_bytes, 0);

    let mut seen = HashSet::new();
    for partition in 0..PARTITIONS {
        let queue = client.queue("q").partition(format!("p{partition}"));
        let mut last = None;
        loop {
            let options = PopOptions {
                batch: 10_000,
                wait: false,
                ..PopOptions::default()
            };
            let Some(delivery) = queue.pop_with(&options).wait(LONG).unwrap().take() else {
                break;
            };
            for message in delivery.messages() {
                let n: usize = message.json().unwrap();
                assert!(seen.insert(n), "{n} came twice");
                assert_eq!(n % PARTITIONS, partition);
                assert!(last < Some(n), "{n} came after {last:?}");
                last = Some(n);
            }
            delivery.ack().wait(LONG).unwrap();
        }
    }
    assert_eq!(seen.len(), messages, "all arrived");
    client.close(LONG).wait(LONG).unwrap();
}
