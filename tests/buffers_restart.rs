//! Buffered pushes while the broker is killed (-9) and started again: all messages arrive exactly once, in order, and memory
//! stays within the bound.

#[path = "support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::env;
use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use queen::{BufferOptions, Client, DeliveryReport, FlushOptions, Item, PopOptions};
use support::brokers::Server;
use support::official;

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

fn main() -> ExitCode {
    const NAME: &str = "b11_b12_a_broker_that_is_killed_and_started_again_gets_everything_once";
    let brokers = env::var("QUEEN_TEST_BROKERS").unwrap_or_else(|_| "embedded,tcp".into());
    let brokers = brokers.split(',').filter_map(|name| {
        let start: fn() -> Box<dyn Mortal> = match name {
            "tcp" => || Box::new(OnFile::start()),
            "official" => || Box::new(official::Broker::start()),
            // In process it ends with its client.
            _ => return None,
        };
        let test = move || gets_everything_once(start());
        Some(Trial::test(format!("{name}::{NAME}"), test))
    });
    // One after another: memory is measured.
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, brokers.collect()).exit_code()
}

/// A broker that can be killed and started again.
trait Mortal {
    fn url(&self) -> String;
    fn kill(&mut self);
    fn start_again(&mut self);
}

impl Mortal for official::Broker {
    fn url(&self) -> String {
        official::Broker::url(self)
    }

    fn kill(&mut self) {
        official::Broker::kill(self);
    }

    fn start_again(&mut self) {
        official::Broker::start_again(self);
    }
}

/// The embedded broker as a server with a file.
struct OnFile {
    folder: tempfile::TempDir,
    url: String,
    server: Server,
}

impl OnFile {
    fn start() -> OnFile {
        let folder = tempfile::tempdir().unwrap();
        let (server, url) = OnFile::serve(&folder, "127.0.0.1:0");
        OnFile {
            folder,
            url,
            server,
        }
    }

    fn serve(folder: &tempfile::TempDir, address: &str) -> (Server, String) {
        let file = folder.path().join("store.db");
        Server::start_at(address, &["--data", file.to_str().unwrap()]).unwrap()
    }
}

impl Mortal for OnFile {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn kill(&mut self) {
        self.server.kill();
    }

    fn start_again(&mut self) {
        let address = self.url.strip_prefix("http://").unwrap();
        self.server = OnFile::serve(&self.folder, address).0;
    }
}

fn gets_everything_once(mut broker: Box<dyn Mortal>) -> Result<(), Failed> {
    let messages = match std::env::var("QUEEN_TEST_SIZE").as_deref() {
        Ok("full") => 1_000_000,
        _ => 50_000,
    };
    let name = format!("buffers-restart-{}", std::process::id());
    let url = broker.url();
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
                .queue(&name)
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
    broker.kill();
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

    broker.start_again();
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
        let queue = client.queue(&name).partition(format!("p{partition}"));
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
    Ok(())
}
