//! Buffers against a broker that fails as a test wants it: nothing is lost silently, nothing is stored twice, and nothing
//! blocks what lies behind it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use queen::{
    BufferOptions, Client, DeliveryReport, DeliveryStatus, ErrorCode, FlushOptions, Item, Level,
    Outcome, PushOptions, Queue, WhenFull,
};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

/// What the broker does with a push: the status and body of its answer, or nothing and the connection breaks.
type Answer = Option<(u16, Value)>;

/// A broker of a few lines that keeps what it was sent.
struct Broker {
    url: String,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// The items of every request, stored or not.
    requests: Vec<Vec<Value>>,
    /// The largest body.
    largest: usize,
    /// Transaction ids by payload, in the order in which they were stored.
    stored: Vec<(String, Value)>,
}

impl Seen {
    /// Stores items as a broker does, each id once, and answers so.
    fn store(&mut self, items: &[Value]) -> Answer {
        let mut results = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let id = item["transactionId"].as_str().unwrap().to_owned();
            let known = self.stored.iter().any(|(stored, _)| *stored == id);
            results.push(json!({
                "index": index, "message_id": format!("m-{id}"), "transaction_id": id,
                "status": if known { "duplicate" } else { "queued" },
            }));
            if !known {
                self.stored.push((id, item["payload"].clone()));
            }
        }
        Some((201, results.into()))
    }

    fn payloads(&self) -> Vec<Value> {
        self.stored
            .iter()
            .map(|(_, payload)| payload.clone())
            .collect()
    }
}

/// Starts a broker; `decide` is told the number of the request, from 0, and its items.
fn broker(decide: impl Fn(&mut Seen, usize, &[Value]) -> Answer + Send + Sync + 'static) -> Broker {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (to, decide) = (seen.clone(), Arc::new(decide));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (seen, decide, stream) = (to.clone(), decide.clone(), stream.unwrap());
            std::thread::spawn(move || serve(stream, &seen, &*decide));
        }
    });
    Broker { url, seen }
}

fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Seen>,
    decide: &dyn Fn(&mut Seen, usize, &[Value]) -> Answer,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut length, mut line) = (0, String::new());
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let body: Value = serde_json::from_slice(&body).unwrap();
        let items = body["items"].as_array().unwrap();
        let answer = {
            let mut seen = seen.lock().unwrap();
            let number = seen.requests.len();
            seen.requests.push(items.clone());
            seen.largest = seen.largest.max(length);
            decide(&mut seen, number, items)
        };
        let Some((status, answer)) = answer else {
            return;
        };
        let text = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status} Scripted\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        if stream.write_all((head + &text).as_bytes()).is_err() {
            return;
        }
    }
}

/// A URL at which nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// One attempt for each request, so that what is tried again is tried by the buffer.
fn client(url: &str, more: Value) -> Client {
    let mut config = json!({"url": url});
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    Client::new(&config.to_string()).unwrap()
}

fn reports(client: &Client) -> Arc<Mutex<Vec<DeliveryReport>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let to = seen.clone();
    client.set_reports(Some(Arc::new(move |reports: &[DeliveryReport]| {
        to.lock().unwrap().extend_from_slice(reports);
    })));
    seen
}

fn patient(message_count: usize) -> BufferOptions {
    BufferOptions {
        message_count,
        time_millis: 3_600_000,
        ..BufferOptions::default()
    }
}

fn push(queue: &Queue, payloads: std::ops::Range<u32>) {
    for n in payloads {
        let results = queue.push(&[Item::json(&n).unwrap()]).wait(LONG).unwrap();
        assert_eq!(results[0].status, "buffered");
    }
}

fn flush(client: &Client) {
    client.flush(&FlushOptions::default()).wait(LONG).unwrap();
}

fn statuses(reports: &Mutex<Vec<DeliveryReport>>) -> Vec<DeliveryStatus> {
    reports
        .lock()
        .unwrap()
        .iter()
        .map(|one| one.status)
        .collect()
}

fn numbers(values: &[Value]) -> Vec<u64> {
    values.iter().map(|value| value.as_u64().unwrap()).collect()
}

#[test]
fn b11_c11_c50_x21_a_failed_flush_keeps_its_batch_and_tries_again() {
    let broker = broker(|seen, number, items| match number {
        0 | 1 => Some((500, json!({"error": "made up"}))),
        // Stored, but the answer is lost.
        2 => {
            seen.store(items);
            None
        }
        3 => Some((201, json!("no list"))),
        _ => seen.store(items),
    });
    let client = client(&broker.url, json!({}));
    let told = reports(&client);
    let queue = client.queue("q").buffer(patient(10));
    push(&queue, 0..25);
    flush(&client);
    assert_eq!(
        numbers(&broker.seen.lock().unwrap().payloads()),
        (0..25).collect::<Vec<_>>()
    );
    // Ids are minted once: what was stored by an earlier attempt is no duplicate of anybody's.
    assert_eq!(statuses(&told), vec![DeliveryStatus::Queued; 25]);
    let stats = client.stats();
    assert!(stats.buffers.retries >= 1);
    assert_eq!(stats.messages.queued, 25);
    client.close(LONG).wait(LONG).unwrap();
}

#[test]
fn x23_a_duplicate_of_a_message_that_was_sent_before_says_so() {
    let broker = broker(|seen, number, items| {
        let answer = seen.store(items);
        (number > 0).then_some(answer).flatten()
    });
    let client = client(&broker.url, json!({}));
    let told = reports(&client);
    let queue = client.queue("q").buffer(patient(10));
    queue
        .push(&[
            Item::json(&1).unwrap().transaction_id("mine"),
            Item::json(&2).unwrap(),
        ])
        .wait(LONG)
        .unwrap();
    flush(&client);
    let told = told.lock().unwrap().clone();
    assert_eq!(
        (told[0].status, told[0].resent),
        (DeliveryStatus::Duplicate, true)
    );
    assert_eq!(
        (told[1].status, told[1].resent),
        (DeliveryStatus::Queued, false)
    );
    client.close(LONG).wait(LONG).unwrap();
}

#[test]
fn c35_a_message_that_is_refused_is_found_and_reported_alone() {
    let broker = broker(|seen, _, items| {
        match items
            .iter()
            .any(|item| item["payload"].as_u64() == Some(37))
        {
            true => Some((400, json!({"error": "bad body: made up"}))),
            false => seen.store(items),
        }
    });
    let client = client(&broker.url, json!({}));
    let told = reports(&client);
    let queue = client.queue("q").buffer(patient(50));
    push(&queue, 0..200);
    flush(&client);
    let stored = numbers(&broker.seen.lock().unwrap().payloads());
    let expected: Vec<u64> = (0..200).filter(|n| *n != 37).collect();
    assert_eq!(stored, expected, "in order, all but one");
    let told = told.lock().unwrap().clone();
    assert_eq!(told.len(), 200);
    let failed: Vec<_> = told
        .iter()
        .enumerate()
        .filter(|(_, one)| !one.status.is_success())
        .collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(
        (failed[0].0, failed[0].1.status),
        (37, DeliveryStatus::Failed)
    );
    assert!(failed[0].1.error.as_ref().unwrap().contains("made up"));
    let requests = broker.seen.lock().unwrap().requests.len();
    assert!(requests <= 4 + 2 * 6, "{requests} requests");
    assert_eq!(client.stats().messages.failed, 1);
    client.close(LONG).wait(LONG).unwrap();
}

#[test]
fn c36_items_that_are_refused_are_reported_and_not_repeated() {
    let broker = broker(|seen, _, items| {
        let (_, mut answer) = seen.store(items).unwrap();
        for (result, item) in answer.as_array_mut().unwrap().iter_mut().zip(items) {
            if item["payload"].as_u64().unwrap() % 10 == 3 {
                result["status"] = "failed".into();
                result["error"] = "the queue is full".into();
            }
        }
        Some((201, answer))
    });
    let client = client(&broker.url, json!({}));
    let told = reports(&client);
    push(&client.queue("q").buffer(patient(20)), 0..40);
    flush(&client);
    assert_eq!(broker.seen.lock().unwrap().requests.len(), 2);
    let told = told.lock().unwrap().clone();
    let failed: Vec<_> = (0..40).filter(|n| !told[*n].status.is_success()).collect();
    assert_eq!(failed, [3, 13, 23, 33]);
    assert_eq!(told[3].error.as_deref(), Some("the queue is full"));
    client.close(LONG).wait(LONG).unwrap();
}

#[test]
fn c35_what_concerns_the_client_and_not_the_message_is_waited_out() {
    let broker = broker(|seen, number, items| match number {
        0 => Some((401, json!({"error": "no token"}))),
        1 => Some((429, json!({"error": "slower"}))),
        2 => Some((503, json!({"error": "starting"}))),
        _ => seen.store(items),
    });
    let client = client(&broker.url, json!({}));
    let told = reports(&client);
    push(&client.queue("q").buffer(patient(10)), 0..20);
    flush(&client);
    assert_eq!(statuses(&told), vec![DeliveryStatus::Queued; 20]);
    client.close(LONG).wait(LONG).unwrap();
}

#[test]
fn x22_a_flush_that_is_late_tells_how_many_are_left() {
    let client = client(&nobody(), json!({}));
    let queue = client.queue("q").buffer(patient(10));
    push(&queue, 0..30);
    let options = FlushOptions {
        timeout_millis: Some(300),
        ..FlushOptions::default()
    };
    let error = client.flush(&options).wait(LONG).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Timeout);
    assert!(error.message().contains("30 of 30"), "{error}");
    let result: Value = serde_json::from_str(error.result_json().unwrap()).unwrap();
    assert_eq!(result, json!({"flushed": 0, "messages": 30, "left": 30}));
    // Some of them may be on their way to nobody.
    let kept = client.stats().buffers;
    let all = kept.total_buffered_messages + kept.in_flight_messages;
    assert_eq!(all, 30, "they are kept");
    let _ = client.close(Duration::ZERO).wait(LONG);
}

#[test]
fn b14_x13_a_close_that_is_late_reports_each_message_and_their_number() {
    let broker = broker(|_, _, _| {
        std::thread::sleep(Duration::from_secs(5));
        None
    });
    let client = client(&broker.url, json!({}));
    let told = reports(&client);
    let queue = client.queue("q");
    push(&queue.clone().partition("a").buffer(patient(10)), 0..25);
    push(&queue.clone().partition("b").buffer(patient(10)), 25..30);
    while client.stats().buffers.in_flight_messages < 10 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let began = Instant::now();
    let error = client
        .close(Duration::from_millis(200))
        .wait(LONG)
        .unwrap_err();
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "it keeps its deadline"
    );
    assert_eq!(error.code(), ErrorCode::Partial);
    assert!(error.message().contains("30 buffered messages"), "{error}");
    let result: Value = serde_json::from_str(error.result_json().unwrap()).unwrap();
    assert_eq!(result["unsent"], 30);
    let told = told.lock().unwrap().clone();
    assert!(told.iter().all(|one| one.status == DeliveryStatus::Closed));
    let mut ids: Vec<_> = told.iter().map(|one| &one.transaction_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 30, "each once");
    let doubtful = told
        .iter()
        .filter(|one| one.error.as_ref().unwrap().contains("may be stored"));
    assert_eq!(doubtful.count(), 15, "what was in flight");
    let again = client.close(LONG).wait(LONG).unwrap();
    assert_eq!(again.unsent, 0, "they are told of once");
}

#[test]
fn c42_a_client_that_is_dropped_without_close_warns_with_the_number() {
    let client = client(&nobody(), json!({}));
    let told = reports(&client);
    let lines = Arc::new(Mutex::new(Vec::new()));
    let to = lines.clone();
    let sink = move |_: Level, line: &str| to.lock().unwrap().push(line.to_owned());
    client.set_log(Level::Warn, Some(Arc::new(sink)));
    push(&client.queue("q").buffer(patient(100)), 0..42);
    drop(client);
    let began = Instant::now();
    while told.lock().unwrap().len() < 42 && began.elapsed() < LONG {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(statuses(&told), vec![DeliveryStatus::Closed; 42]);
    let warned = || {
        lines.lock().unwrap().iter().any(|line| {
            let record: Value = serde_json::from_str(line).unwrap();
            (
                &record["component"],
                &record["operation"],
                &record["messages"],
            ) == (&"client".into(), &"close".into(), &42.into())
        })
    };
    while !warned() && began.elapsed() < LONG {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(warned(), "{:?}", lines.lock().unwrap());
}

#[test]
fn c13_a_direct_push_waits_for_the_buffer_before_it_and_may_give_up() {
    let client = client(&nobody(), json!({}));
    let queue = client.queue("q");
    push(&queue.clone().buffer(patient(100)), 0..3);
    let options = PushOptions {
        timeout_millis: Some(200),
        ..PushOptions::default()
    };
    let error = queue
        .push_with(&[Item::json(&3).unwrap()], &options)
        .wait(LONG)
        .unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (ErrorCode::Timeout, Outcome::NotApplied)
    );
    let _ = client.close(Duration::ZERO).wait(LONG);
}

#[test]
fn b7_a_request_keeps_to_its_size() {
    let broker = broker(|seen, _, items| seen.store(items));
    let client = client(&broker.url, json!({}));
    let queue = client.queue("q").buffer(patient(100));
    let large = "x".repeat(100_000);
    let items: Vec<_> = (0..30).map(|_| Item::json(&large).unwrap()).collect();
    queue.push(&items).wait(LONG).unwrap();
    flush(&client);
    {
        let seen = broker.seen.lock().unwrap();
        assert!(seen.largest <= 1 << 20, "{} bytes", seen.largest);
        assert_eq!((seen.requests.len(), seen.stored.len()), (3, 30));
    }
    let huge = Item::json(&"x".repeat(3 << 20)).unwrap();
    let small = Item::json(&1).unwrap();
    queue
        .push(&[small.clone(), huge, small])
        .wait(LONG)
        .unwrap();
    flush(&client);
    let seen = broker.seen.lock().unwrap();
    let sizes: Vec<_> = seen.requests[3..].iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 1, 1], "what is too large goes alone");
    drop(seen);
    client.close(LONG).wait(LONG).unwrap();
}

#[test]
fn c12_oldest_messages_are_dropped_with_a_report() {
    let client = client(&nobody(), json!({}));
    let told = reports(&client);
    let queue = client.queue("q").buffer(BufferOptions {
        max_messages: Some(10),
        when_full: WhenFull::DropOldest,
        time_millis: 3_600_000,
        message_count: 10,
        ..BufferOptions::default()
    });
    let items: Vec<_> = (0..9).map(|n| Item::json(&n).unwrap()).collect();
    let first = queue.push(&items).wait(LONG).unwrap();
    let items: Vec<_> = (0..4).map(|n| Item::json(&n).unwrap()).collect();
    queue.push(&items).wait(LONG).unwrap();
    let told = told.lock().unwrap().clone();
    let ids: Vec<_> = told.iter().map(|one| &one.transaction_id).collect();
    let expected: Vec<_> = first[..3].iter().map(|one| &one.transaction_id).collect();
    assert_eq!(ids, expected);
    assert!(told.iter().all(|one| one.status == DeliveryStatus::Dropped));
    let stats = client.stats();
    assert_eq!(stats.messages.dropped, 3);
    assert_eq!(
        stats.buffers.total_buffered_messages + stats.buffers.in_flight_messages,
        10
    );
    let _ = client.close(Duration::ZERO).wait(LONG);
}

#[test]
fn x20_a_push_that_waits_too_long_keeps_nothing() {
    let client = client(&nobody(), json!({}));
    let told = reports(&client);
    let queue = client.queue("q").buffer(BufferOptions {
        max_messages: Some(10),
        ..patient(10)
    });
    push(&queue, 0..10);
    let options = PushOptions {
        timeout_millis: Some(200),
        ..PushOptions::default()
    };
    let error = queue
        .push_with(&[Item::json(&10).unwrap()], &options)
        .wait(LONG)
        .unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (ErrorCode::Timeout, Outcome::NotApplied)
    );
    let waiting = queue.push(&[Item::json(&11).unwrap()]);
    assert_eq!(client.stats().buffers.waiting_pushes, 1);
    waiting.cancel();
    assert_eq!(waiting.wait(LONG).unwrap_err().code(), ErrorCode::Cancelled);
    let waiting = queue.push(&[Item::json(&12).unwrap()]);
    let error = client.close(Duration::ZERO).wait(LONG).unwrap_err();
    assert!(error.message().contains("10 buffered messages"), "{error}");
    assert_eq!(waiting.wait(LONG).unwrap_err().code(), ErrorCode::Closed);
    assert_eq!(
        statuses(&told).len(),
        10,
        "what was not accepted has no report"
    );
}

#[test]
fn b12_c12_many_small_buffers_stay_within_the_bound() {
    const BOUND: u64 = 4 << 20;
    let client = client(&nobody(), json!({"maxBufferedBytes": BOUND}));
    let failing = BufferOptions {
        when_full: WhenFull::Fail,
        ..patient(100)
    };
    let mut accepted = 0;
    let error = loop {
        let queue = client
            .queue("q")
            .partition(format!("p{accepted}"))
            .buffer(failing.clone());
        match queue.push(&[Item::json(&1).unwrap()]).wait(LONG) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 1_000_000, "nothing bounds them");
    };
    assert_eq!(error.code(), ErrorCode::WouldBlock);
    assert!(error.message().contains("maxBufferedBytes"), "{error}");
    let stats = client.stats().buffers;
    assert!(stats.buffered_bytes <= BOUND && stats.buffered_bytes > BOUND * 9 / 10);
    assert_eq!(stats.active_buffers, accepted);
    let error = client.close(Duration::ZERO).wait(LONG).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Partial);
    assert_eq!(client.stats().messages.closed, accepted);
}

#[test]
fn b13_v9_c13_pushes_while_a_flush_is_under_way_are_safe() {
    let broker = broker(|seen, number, items| {
        if number % 3 == 1 {
            return Some((500, json!({"error": "made up"})));
        }
        seen.store(items)
    });
    let client = client(&broker.url, json!({}));
    let told = reports(&client);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let queue = client
                .queue("q")
                .partition(format!("p{}", thread % 2))
                .buffer(BufferOptions {
                    message_count: 7,
                    time_millis: 1,
                    ..BufferOptions::default()
                });
            scope.spawn(move || {
                for n in 0..100 {
                    let item = Item::json(&(thread * 1000 + n)).unwrap();
                    queue.push(&[item]).wait(LONG).unwrap();
                }
            });
        }
    });
    flush(&client);
    let stored = numbers(&broker.seen.lock().unwrap().payloads());
    let mut by_thread: HashMap<u64, Vec<u64>> = HashMap::new();
    for n in stored {
        by_thread.entry(n / 1000).or_default().push(n % 1000);
    }
    for thread in 0..4 {
        assert_eq!(by_thread[&thread], (0..100).collect::<Vec<_>>());
    }
    assert_eq!(statuses(&told), vec![DeliveryStatus::Queued; 400]);
    client.close(LONG).wait(LONG).unwrap();
}
