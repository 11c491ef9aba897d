//! Answers that no broker gives on demand, from a server of a few lines.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use queen::{Client, ErrorCode, Item, Outcome, Settlement};

const LONG: Duration = Duration::from_secs(60);

/// Answers every request alike: `head` is the status line and headers beside the length. Tells its URL and how many
/// requests it has read.
fn server(head: &str, body: &str) -> (String, Arc<AtomicUsize>) {
    let length = match head.starts_with("204") {
        true => String::new(),
        false => format!("content-length: {}\r\n", body.len()),
    };
    let answer = Arc::new(format!("HTTP/1.1 {head}\r\n{length}\r\n{body}"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, counted, answer) = (stream.unwrap(), counted.clone(), answer.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while let Some(length) = request_head(&mut reader) {
                    let mut body = vec![0; length];
                    if reader.read_exact(&mut body).is_err() {
                        return;
                    }
                    counted.fetch_add(1, Ordering::SeqCst);
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, count)
}

/// Reads the head of a request; the length of its body, or nothing at the end of the connection.
fn request_head(reader: &mut impl BufRead) -> Option<usize> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            return Some(length);
        }
    }
}

#[test]
fn a_broker_that_does_not_wait_is_not_asked_without_pause() {
    let (url, count) = server("204 No Content", "");
    let client = Client::new(&url).unwrap();
    let consumer = client.queue("q").consume(|_| Settlement::Ack).unwrap();
    while count.load(Ordering::SeqCst) < 5 {
        std::thread::sleep(Duration::from_millis(10));
    }
    // Slow machines ask less often; only a loop without a pause asks hundreds of times.
    let before = count.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(1000));
    let asked = count.load(Ordering::SeqCst) - before;
    assert!(asked <= 15, "{asked} polls in a second");
    consumer.stop(LONG).wait(LONG).unwrap();
    client.close(LONG).wait(LONG).unwrap();
}

#[test]
fn a_result_that_is_missing_is_not_a_success() {
    let (url, _) = server("201 Created", "[]");
    let client = Client::new(&url).unwrap();
    let item = Item::raw("1").unwrap().transaction_id("t-1");
    let error = client.queue("q").push(&[item]).wait(LONG).unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (ErrorCode::BadAnswer, Outcome::Unknown)
    );
    assert_eq!(error.transaction_ids(), ["t-1"]);
}

#[test]
fn refused_items_come_back_with_the_whole_result() {
    let (url, _) = server(
        "201 Created",
        r#"[{"index":0,"message_id":"m","status":"queued"},{"index":1,"status":"failed","error":"the queue is full"}]"#,
    );
    let client = Client::new(&url).unwrap();
    let items = [Item::raw("1").unwrap(), Item::raw("2").unwrap()];
    let error = client.queue("q").push(&items).wait(LONG).unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (ErrorCode::Partial, Outcome::Refused)
    );
    let result: serde_json::Value = serde_json::from_str(error.result_json().unwrap()).unwrap();
    assert_eq!(
        (&result[0]["status"], &result[1]["error"]),
        (&"queued".into(), &"the queue is full".into())
    );
}

#[test]
fn a_redirect_is_no_answer() {
    let (url, _) = server("302 Found\r\nlocation: /elsewhere", "");
    let client = Client::new(&url).unwrap();
    let error = client.queue("q").get().wait(LONG).unwrap_err();
    assert_eq!(
        (error.code(), error.http_status()),
        (ErrorCode::BadAnswer, Some(302))
    );
}

#[test]
fn a_list_of_brokers_passes_over_one_that_is_down() {
    let (url, count) = server("200 OK", r#"{"status":"healthy"}"#);
    let down = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let client = Client::new(&format!("[\"{down}\",\"{url}\"]")).unwrap();
    for _ in 0..4 {
        client.call("health", "").unwrap().wait_for(LONG).unwrap();
    }
    assert_eq!(count.load(Ordering::SeqCst), 4);
}

#[test]
fn an_old_broker_is_not_told_to_retry() {
    // 0.15: no `partitionsClaimed`. It would count `retry` as a failure, so the lease is left to end.
    let (url, count) = server(
        "200 OK",
        r#"{"success":true,"messages":[{"id":"m","transactionId":"t","partitionId":"P","partition":"p","leaseId":"L","data":1}]}"#,
    );
    let client = Client::new(&url).unwrap();
    let popped = client.queue("q").pop().wait(LONG).unwrap();
    drop(popped.take());
    drop(popped);
    client.close(LONG).wait(LONG).unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 1, "the pop alone");
}
