//! What a client logs: every operation, with its fields, and never what was entrusted to it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use queen::{
    Ack, AckOptions, BufferOptions, Client, FlushOptions, Item, Level, PopOptions, RenewOptions,
    Settlement,
};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(60);
const TOKEN: &str = "t0p-s3cret-token";
const PAYLOAD: &str = "p4yload-of-a-message";

/// Collects the records of a client from a level on.
fn records(client: &Client, level: Level) -> Arc<Mutex<Vec<Value>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let to = seen.clone();
    let sink = move |_: Level, line: &str| {
        let record = serde_json::from_str(line).unwrap();
        to.lock().unwrap().push(record);
    };
    client.set_log(level, Some(Arc::new(sink)));
    seen
}

fn name(record: &Value) -> String {
    let part = |key: &str| record[key].as_str().unwrap().to_owned();
    format!("{}.{}", part("component"), part("operation"))
}

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CALLBACKS.md"))
        .unwrap()
}

/// Does one of everything, with the payload in each place where there may be one.
fn walk(client: &Client) {
    let item = || Item::json(PAYLOAD).unwrap();
    let queue = client.queue("q");
    let _ = client
        .call("queue.create", r#"{"queue":"q"}"#)
        .unwrap()
        .wait_for(LONG);
    let _ = queue.push(&[item(), item()]).wait(LONG);
    let buffered = queue.clone().buffer(BufferOptions::default());
    buffered.push(&[item()]).wait(LONG).unwrap();
    let soon = FlushOptions {
        timeout_millis: Some(2000),
        ..FlushOptions::default()
    };
    let _ = client.flush(&soon).wait(LONG);
    client.stats();
    let options = PopOptions {
        wait: false,
        lease_seconds: Some(30),
        ..PopOptions::default()
    };
    if let Ok(popped) = queue.pop_with(&options).wait(LONG)
        && let Some(delivery) = popped.take()
    {
        let source = delivery.source();
        let renewed = client.renew(&source.lease_id, 60, &RenewOptions::default());
        let _ = renewed.wait(LONG);
        let ack: Ack = serde_json::from_value(serde_json::json!({
            "transactionId": delivery.messages()[0].transaction_id,
            "partitionId": source.partition_id, "leaseId": source.lease_id,
        }))
        .unwrap();
        let _ = client.ack(vec![ack], &AckOptions::default()).wait(LONG);
        let consumer = queue
            .consume_with(
                queen::ConsumeOptions {
                    limit: Some(2),
                    ..queen::ConsumeOptions::default()
                },
                |_| Settlement::Other(77),
            )
            .unwrap();
        let _ = consumer.finished().wait(LONG);
    }
}

#[test]
fn lg3_every_operation_is_logged_and_documented() {
    let client = Client::new("embedded:").unwrap();
    let seen = records(&client, Level::Debug);
    walk(&client);
    client.close(LONG).wait(LONG).unwrap();
    let seen = seen.lock().unwrap().clone();
    let page = page();
    let mut names = BTreeSet::new();
    let catalogue: Vec<_> = queen::operations().map(|one| one.name).collect();
    for record in &seen {
        for key in ["time", "level", "component", "operation", "message"] {
            assert!(record[key].is_string(), "{key} of {record}");
        }
        let name = name(record);
        assert!(
            page.contains(&format!("`{name}`")) || catalogue.contains(&name.as_str()),
            "{name} stands nowhere"
        );
        names.insert(name);
    }
    for wanted in [
        "client.close",
        "client.pop",
        "client.ack",
        "client.renew",
        "client.flush",
        "client.stats",
        "queue.create",
        "producer.push",
        "buffer.new",
        "buffer.add",
        "buffer.flush",
        "consumer.start",
        "consumer.worker",
        "consumer.handle",
        "consumer.handler",
        "consumer.end",
        "transport.request",
        "transport.response",
    ] {
        assert!(names.contains(wanted), "{wanted} is not in {names:?}");
    }
}

/// What the source logs, whether a test brings it about or not, stands in the page.
#[test]
fn lg3_the_page_names_what_the_source_logs() {
    let page = page();
    let literal =
        regex_lite::Regex::new(r#""((?:client|transport|producer|buffer|consumer)\.[a-z_]+)""#)
            .unwrap();
    let catalogue: Vec<_> = queen::operations().map(|one| one.name).collect();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut found = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for name in literal.captures_iter(&text) {
                let name = &name[1];
                found += 1;
                assert!(
                    page.contains(&format!("`{name}`")) || catalogue.contains(&name),
                    "the table of docs/CALLBACKS.md lacks {name} of {}",
                    path.display()
                );
            }
        }
    }
    assert!(found > 20, "the source is not what this test expects");
}

/// What the embedded broker warns of is told to every client that uses it, whenever it came.
#[test]
fn the_embedded_broker_warns_by_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("embedded://{}/store.db", folder.path().display());
    let warnings = |seen: &Arc<Mutex<Vec<Value>>>| -> Vec<String> {
        let seen = seen.lock().unwrap();
        let warned = seen
            .iter()
            .filter(|record| name(record) == "broker.warning");
        warned
            .map(|record| {
                assert_eq!(record["level"], "warn");
                record["message"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    let encrypted = |client: &Client, queue: &str| {
        let options = serde_json::json!({"queue": queue, "options": {"encryptionEnabled": true}});
        let made = client.call("queue.create", &options.to_string()).unwrap();
        assert!(made.wait_for(LONG).unwrap());
    };
    for url in ["embedded:", "embedded:?shared=warnings", &url] {
        let first = Client::new(url).unwrap();
        let heard = records(&first, Level::Warn);
        encrypted(&first, "secrets");
        encrypted(&first, "secrets");
        let told = warnings(&heard);
        assert_eq!(told.len(), 1, "{url}: {told:?}");
        assert!(told[0].contains("\"secrets\" has encryptionEnabled"));
        if url != "embedded:" {
            let second = Client::new(url).unwrap();
            let late = records(&second, Level::Warn);
            encrypted(&second, "more");
            assert_eq!(warnings(&late).len(), 2, "{url}");
            assert_eq!(warnings(&heard), warnings(&late), "{url}");
            second.close(LONG).wait(LONG).unwrap();
        }
        first.close(LONG).wait(LONG).unwrap();
    }
    // A store that is opened again still has its queues.
    let client = Client::new(&url).unwrap();
    let heard = records(&client, Level::Warn);
    client.call("health", "{}").unwrap().wait_for(LONG).unwrap();
    assert_eq!(warnings(&heard).len(), 2);
    client.close(LONG).wait(LONG).unwrap();
}

/// A broker that was started by hand belongs to no client: what it warns of goes to stderr, where the environment asks for
/// that. So this test is the program of another process too.
#[test]
fn a_broker_started_by_hand_warns_on_stderr() {
    const ROLE: &str = "LOGS_TEST_STARTS_A_BROKER";
    if std::env::var_os(ROLE).is_some() {
        let broker = queen::EmbeddedBroker::start(queen::BrokerOptions::default()).unwrap();
        let client = Client::new(broker.url()).unwrap();
        let options = r#"{"queue": "secrets", "options": {"encryptionEnabled": true}}"#;
        let made = client.call("queue.create", options).unwrap();
        assert!(made.wait_for(LONG).unwrap());
        client.close(LONG).wait(LONG).unwrap();
        return;
    }
    for (asked, lines) in [("warn", 1), ("error", 0)] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "a_broker_started_by_hand_warns_on_stderr",
            ])
            .env(ROLE, "1")
            .env("QUEEN_CLIENT_LOG", asked)
            .output()
            .unwrap();
        assert!(output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        let warned = said.lines().filter(|line| {
            line.contains("[WARN] [broker.warning]") && line.contains("has encryptionEnabled")
        });
        assert_eq!(warned.count(), lines, "{said}");
    }
}

#[test]
fn lg4_c16_neither_payloads_nor_tokens_are_logged() {
    // Every kind of answer, one after another.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 65_536]);
                let answer = match number % 4 {
                    0 => "HTTP/1.1 500 Scripted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                    1 => "HTTP/1.1 401 Scripted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                    2 => {
                        "HTTP/1.1 200 Scripted\r\ncontent-length: 3\r\nconnection: close\r\n\r\n[{]"
                    }
                    _ => "",
                };
                let _ = stream.write_all(answer.as_bytes());
            });
        }
    });
    let config = serde_json::json!({
        "url": url, "bearerToken": TOKEN, "retryAttempts": 2, "retryDelayMillis": 1,
        "timeoutMillis": 3000,
    });
    let against_a_bad_broker = Client::new(&config.to_string()).unwrap();
    let on_the_embedded_one = Client::new("embedded:").unwrap();
    let mut lines = Vec::new();
    for client in [against_a_bad_broker, on_the_embedded_one] {
        let seen = records(&client, Level::Debug);
        walk(&client);
        let _ = client.close(Duration::from_millis(100)).wait(LONG);
        lines.extend(seen.lock().unwrap().iter().map(Value::to_string));
    }
    assert!(lines.len() > 30, "{} records", lines.len());
    for line in lines {
        for secret in [TOKEN, PAYLOAD] {
            assert!(!line.contains(secret), "{line}");
        }
    }
}

#[test]
fn the_level_keeps_the_rest_out() {
    let client = Client::new("embedded:").unwrap();
    let seen = records(&client, Level::Info);
    walk(&client);
    client.close(LONG).wait(LONG).unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|record| record["level"] != "debug"));
    let names: BTreeSet<_> = seen.iter().map(name).collect();
    assert!(names.contains("consumer.start") && names.contains("client.close"));
}
