//! `queen-broker inspect`: what a store and a broker hold, from the file and by the URL, and nothing changed by looking.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::server::{Server, agent, output, post};
use common::{Api, SetOnDrop, ack_of, txns};
use serde_json::{Value, json};
use tempfile::TempDir;

const LEASE: &str = "a lease id";
const TIME: &str = "a time";

/// Two queues with something of everything. `each` sends a request.
fn fill(mut send: impl FnMut(&str, &str, Value) -> Value) {
    let options = json!({"queue": "orders", "namespace": "shop", "task": "sell", "options": {"retryLimit": 0, "leaseTime": 600}});
    send("POST", "/api/v1/configure", options);
    let item = |part: &str, txn: &str| json!({"queue": "orders", "partition": part, "transactionId": txn, "payload": 1});
    let items: Vec<Value> = (0..5)
        .map(|n| item("eu", &format!("e{n}")))
        .chain([item("us", "u0")])
        .collect();
    send("POST", "/api/v1/push", json!({ "items": items }));
    // A group that has buried one, finished one and holds two; one that has finished everything; one that never took any.
    let pop = "/api/v1/pop/queue/orders/partition/eu?subscriptionMode=all&consumerGroup=";
    let got = send("GET", &format!("{pop}billing&batch=2"), Value::Null);
    assert_eq!(txns(&got), ["e0", "e1"]);
    let verdicts = [
        ack_of(&got["messages"][0], "completed"),
        ack_of(&got["messages"][1], "dlq"),
    ];
    let acks = json!({"acknowledgments": verdicts, "consumerGroup": "billing"});
    send("POST", "/api/v1/ack/batch", acks);
    let got = send("GET", &format!("{pop}billing&batch=2"), Value::Null);
    assert_eq!(txns(&got), ["e2", "e3"]);
    let all = "/api/v1/pop/queue/orders?subscriptionMode=all&batch=100&partitions=9&autoAck=true&consumerGroup=audit";
    send("GET", all, Value::Null);
    send(
        "POST",
        "/api/v1/configure",
        json!({"queue": "empty", "options": {}}),
    );
}

/// What of it is shown.
fn expected() -> Value {
    let messages = |total, waiting, leased, dead| json!({"total": total, "waiting": waiting, "leased": leased, "deadLetters": dead});
    let part = |name, messages: Value, oldest: Value| json!({"name": name, "messages": messages, "oldestAt": oldest, "newestAt": TIME});
    let stand = |name, lag, lease: Value| json!({"name": name, "lag": lag, "lagSeconds": 0, "leaseId": lease});
    let group = |name, mode: Value, lag, parts: Value| json!({"name": name, "mode": mode, "lag": lag, "lagSeconds": 0, "partitions": parts});
    json!([
        {"name": "empty", "namespace": "", "task": "", "createdAt": TIME, "messages": messages(0, 0, 0, 0),
         "partitions": [], "groups": []},
        {"name": "orders", "namespace": "shop", "task": "sell", "createdAt": TIME, "messages": messages(6, 3, 2, 1),
         "partitions": [
            part("eu", messages(5, 3, 2, 1), json!(TIME)),
            part("us", messages(1, 0, 0, 0), Value::Null),
         ],
         "groups": [
            group("audit", json!("all"), 0, json!([stand("eu", 0, Value::Null), stand("us", 0, Value::Null)])),
            group("billing", Value::Null, 3, json!([stand("eu", 3, json!(LEASE))])),
         ]},
    ])
}

/// Puts words in the place of what differs from run to run.
fn settled(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(settled),
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), &value) {
                    ("createdAt" | "oldestAt" | "newestAt", Value::String(time)) => {
                        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
                        *value = TIME.into();
                    }
                    ("leaseId", Value::String(id)) => {
                        assert_eq!(id.len(), 36, "{id}");
                        *value = LEASE.into();
                    }
                    // A machine under load may be slow.
                    ("lagSeconds", Value::Number(age)) => {
                        assert!(age.as_u64().unwrap() < 600);
                        *value = 0.into();
                    }
                    _ => settled(value),
                }
            }
        }
        _ => {}
    }
}

/// The queues that are shown, and the rest.
fn inspected(arguments: &[&str]) -> (Value, Value) {
    let (code, shown, said) = output(&[&["inspect", "--json"], arguments].concat());
    assert_eq!((code, said.as_str()), (0, ""), "{shown}");
    let mut shown: Value = serde_json::from_str(&shown).unwrap();
    let mut queues = shown["queues"].take();
    settled(&mut queues);
    shown.as_object_mut().unwrap().remove("queues");
    (queues, shown)
}

/// Contents of a store's files, the index of the log left out.
fn picture(store: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(store.parent().unwrap())
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.retain(|path| !path.to_str().unwrap().ends_with("-shm"));
    files.sort();
    files
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

fn send_to(server: &Server) -> impl FnMut(&str, &str, Value) -> Value {
    let (base, agent) = (server.base.clone(), agent());
    move |method, target, body| {
        let url = format!("{base}{target}");
        let (status, answer) = match method {
            "GET" => common::server::get(&agent, &url),
            _ => post(&agent, &url, &body),
        }
        .unwrap();
        assert!(status < 300, "{target}: {status} {answer}");
        answer
    }
}

#[test]
fn a_file_and_its_server_show_the_same() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("orders.db");
    let file = path.to_str().unwrap();
    let socket = format!("unix:{}", folder.path().join("socket").display());
    let mut server = Server::start_on(&["127.0.0.1:0", &socket], &["--data", file]);
    fill(send_to(&server));

    // While it is served: by the file, by either URL.
    fs::rename(
        folder.path().join("socket"),
        folder.path().with_extension("socket"),
    )
    .unwrap();
    let before = picture(&path);
    let source = path.canonicalize().unwrap();
    let (queues, rest) = inspected(&[file]);
    assert_eq!(queues, expected());
    assert_eq!(
        rest,
        json!({"source": source, "ownerPid": server.child.id()})
    );
    assert!(picture(&path) == before, "changed by looking");
    let moved = format!("unix:{}", folder.path().with_extension("socket").display());
    for url in [&server.base, &format!("{}/", server.base), &moved] {
        let (queues, rest) = inspected(&[url]);
        assert_eq!(queues, expected(), "{url}");
        assert_eq!(rest, json!({"source": url, "ownerPid": null}));
    }
    fs::remove_file(folder.path().with_extension("socket")).unwrap();

    // After it was killed, with its work in the log; and after it has closed.
    server.kill();
    let before = picture(&path);
    assert!(
        before
            .iter()
            .any(|(name, bytes)| name.ends_with("orders.db-wal") && !bytes.is_empty())
    );
    let (queues, rest) = inspected(&[file]);
    assert_eq!((queues, &rest["ownerPid"]), (expected(), &Value::Null));
    assert!(picture(&path) == before, "changed by looking");
    Api::file(&path).0.close();
    let before = picture(&path);
    assert_eq!(inspected(&[file]).0, expected());
    assert!(picture(&path) == before, "changed by looking");
    assert!(!folder.path().join("orders.db-shm").exists(), "left behind");

    // From a folder in which nothing can be made.
    let copy = TempDir::new().unwrap();
    fs::copy(&path, copy.path().join("orders.db")).unwrap();
    assert_eq!(
        inspected(&[copy.path().join("orders.db").to_str().unwrap()]).0,
        expected()
    );
    assert_eq!(fs::read_dir(copy.path()).unwrap().count(), 1);

    // One queue of it.
    let (one, _) = inspected(&["--queue", "orders", file]);
    assert_eq!(one, json!([expected()[1]]));
}

#[test]
fn people_get_tables() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("orders.db");
    let file = path.to_str().unwrap();
    let server = Server::start(&["--data", file]);
    fill(send_to(&server));
    let (code, shown, _) = output(&["inspect", file]);
    assert_eq!(code, 0);
    let source = path.canonicalize().unwrap();
    let first = format!(
        "{}, open in process {}\n",
        source.display(),
        server.child.id()
    );
    assert!(shown.starts_with(&first), "{shown}");
    let tables: Vec<&str> = shown.trim_end().split("\n\n").collect();
    assert_eq!(
        tables[1],
        "QUEUE   NAMESPACE  TASK  PARTITIONS  MESSAGES  WAITING  LEASED  DEAD\n\
         empty   -          -              0         0        0       0     0\n\
         orders  shop       sell           2         6        3       2     1"
    );
    assert_eq!(tables.len(), 5, "{shown}");
    let words = |table: usize| -> Vec<Vec<&str>> {
        let lines = tables[table].lines();
        lines
            .map(|line| line.split_whitespace().collect())
            .collect()
    };
    let parts = words(2);
    assert_eq!(parts[1][..2], ["orders", "eu"]);
    assert_eq!(parts[1][4..], ["5", "3", "2", "1"]);
    assert_eq!(parts[2][..3], ["orders", "us", "-"]);
    assert_eq!(parts[2][4..], ["1", "0", "0", "0"]);
    let groups = words(3);
    assert_eq!(
        groups[0],
        [
            "QUEUE",
            "GROUP",
            "MODE",
            "PARTITIONS",
            "LAG",
            "LAG",
            "SECONDS",
            "LEASES"
        ]
    );
    assert_eq!(groups[1], ["orders", "audit", "all", "2", "0", "0", "0"]);
    assert_eq!(groups[2][..5], ["orders", "billing", "-", "1", "3"]);
    assert_eq!(groups[2][6], "1");
    let leases = words(4);
    assert_eq!(
        (&leases[1][..3], leases[1][4]),
        (&["orders", "billing", "eu"][..], "3")
    );
    for table in &tables[1..] {
        // Numbers end below the end of their heading.
        let widths: Vec<usize> = table.lines().map(str::len).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
    }
}

/// A store in use changes while it is read; each picture is one of a moment.
#[test]
fn a_store_at_work_can_be_read_and_is_not_disturbed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    let file = path.to_str().unwrap();
    let mut server = Server::start(&["--data", file, "--durability", "normal"]);
    let stop = AtomicBool::new(false);
    let pushed = thread::scope(|scope| {
        let end = SetOnDrop(&stop);
        let (base, stop) = (&server.base, &stop);
        let producers: Vec<_> = (0..2)
            .map(|producer| {
                scope.spawn(move || {
                    let agent = agent();
                    let mut pushed = 0;
                    while !stop.load(Ordering::Relaxed) {
                        // Two partitions in one transaction.
                        let item = |part: &str| json!({"queue": format!("q{producer}"), "partition": part, "payload": "x".repeat(3000)});
                        let body = json!({"items": [item("a"), item("b")]});
                        assert_eq!(post(&agent, &format!("{base}/api/v1/push"), &body).unwrap().0, 201);
                        pushed += 1;
                    }
                    pushed
                })
            })
            .collect();
        let mut last = 0;
        for round in 0.. {
            let shown = queen_broker::inspect(&path, None).unwrap();
            let mut sum = 0;
            for queue in &shown.queues {
                let of = |part: usize| queue.partitions[part].messages.total;
                assert_eq!(
                    (queue.partitions.len(), of(0)),
                    (2, of(1)),
                    "half of a transaction"
                );
                sum += queue.messages.total;
            }
            assert!(sum >= last, "{sum} after {last}");
            last = sum;
            // Long enough for the log to be moved into the store and begun anew.
            let moved = fs::metadata(&path).unwrap().len() > 10 << 20;
            if round > 20 && moved {
                break;
            }
        }
        drop(end);
        producers
            .into_iter()
            .map(|producer| producer.join().unwrap())
            .sum::<u64>()
    });
    assert!(server.terminate().success());
    assert_eq!(
        queen_broker::check(&path, |fault| panic!("{fault}"))
            .unwrap()
            .messages,
        pushed * 2
    );
}

#[test]
fn what_cannot_be_shown_is_said_with_status_2() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let text = file("notes.txt");
    fs::write(&text, "my notes").unwrap();
    let sound = file("sound.db");
    Api::fast_file(sound.as_ref()).0.close();
    let version = |name: &str, version: u8| {
        let mut bytes = fs::read(&sound).unwrap();
        bytes[60..64].copy_from_slice(&[0, 0, 0, version]);
        fs::write(file(name), bytes).unwrap();
        file(name)
    };
    fs::write(file("gone.db-wal"), "answered work").unwrap();
    let guarded = Server::start(&["--token", "s3cret"]);
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    // Something that speaks another language, and something that speaks HTTP and is no broker.
    let stranger = |answer: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1000]);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        url
    };
    let token = |content: &str| {
        let path = file(&format!("token{}", content.len()));
        fs::write(&path, content).unwrap();
        path
    };
    let (empty, wrong, right) = (token("\n"), token("wrong\n"), token("\n s3cret \n"));
    let base = guarded.base.as_str();
    let cases: &[(&[&str], &str)] = &[
        (&[&file("none.db")], "there is no such file"),
        (&[&text], "not a Queen store"),
        (&[&file("gone.db")], "it is missing, but its log"),
        (&[&version("old.db", 3)], "version 3"),
        (&[&version("new.db", 99)], "version 99"),
        (&[&file(".")], "directory"),
        (&[&sound, "--queue", "nope"], "there is no queue \"nope\""),
        (
            &[&closed],
            "refused (os error 111); does the broker run there?",
        ),
        (
            &["http://no-such-host.invalid"],
            "does the broker run there?",
        ),
        (&[&format!("unix:{}", file("none"))], "No such file"),
        (
            &["https://127.0.0.1"],
            "it must begin with http:// or unix:",
        ),
        (&[&stranger("SSH-2.0-x\r\n")], "it is no HTTP"),
        (
            &[&stranger("HTTP/1.1 404 Not Found\r\n\r\n")],
            "it is no Queen broker",
        ),
        (
            &[&stranger("HTTP/1.1 200 OK\r\n\r\n{}")],
            "not that of a broker",
        ),
        (
            &[&stranger("HTTP/1.1 502 Bad Gateway\r\n\r\nnobody")],
            "HTTP 502 to GET /api/v1/resources/queues: nobody",
        ),
        (&[base], "HTTP 401: the broker wants a token"),
        (&[base, "--token", "wrong"], "HTTP 401"),
        (&[base, "--token-file", &wrong], "HTTP 401"),
        (&[base, "--token-file", &empty], "holds no token"),
        (
            &[base, "--token-file", &file("none")],
            "--token-file: cannot read",
        ),
        (
            &[base, "--token", "s3cret", "--queue", "nope"],
            "there is no queue \"nope\"",
        ),
        (
            &[base, "--token", "a", "--token-file", &right],
            "cannot be used with",
        ),
    ];
    let names = || {
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let before = names();
    for (arguments, expected) in cases {
        let (code, shown, said) = output(&[&["inspect"], *arguments].concat());
        assert_eq!((code, shown.as_str()), (2, ""), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert_eq!(names(), before, "{arguments:?}");
    }
    for flags in [["--token", "s3cret"], ["--token-file", &right]] {
        assert_eq!(inspected(&[base, flags[0], flags[1]]).0, json!([]));
    }
}

/// In the process that has the store open, a second look at the file would cost it its lock.
#[test]
fn a_store_of_this_process_is_asked_by_its_broker() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    let api = Api::file(&path);
    let error = queen_broker::inspect(&path, None).unwrap_err().to_string();
    assert!(
        error.contains(&format!("in use by process {}", std::process::id())),
        "{error}"
    );
    api.0.close();
    assert_eq!(queen_broker::inspect(&path, None).unwrap().queues, []);
}
