//! The end of `queen-broker serve`: who is under way is answered, who waits is sent home, nobody holds it up for ever.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use common::server::{Server, agent, answer, get, post, request};
use common::{Api, SetOnDrop, txns};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A store in a folder of its own.
fn store() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    (folder, path)
}

fn start(store: &Path, flags: &[&str]) -> Server {
    Server::start(&[&["--data", store.to_str().unwrap()], flags].concat())
}

/// Waits, far beyond what it takes, until something is so.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(120), "never: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// How it ended by itself.
fn ended(server: &mut Server) -> ExitStatus {
    wait_until("the server ends", || {
        server.child.try_wait().unwrap().is_some()
    });
    server.child.wait().unwrap()
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(120)))
        .unwrap();
    stream
}

/// A request whose handler has begun to read the body, of which the last bytes are missing: what was sent and what was not.
fn begin(server: &Server, body: &str) -> (TcpStream, String) {
    let text = request("POST", "/api/v1/push", body);
    let text = text.replacen("Host:", "Expect: 100-continue\r\nHost:", 1);
    let (head, body) = text.split_at(text.len() - body.len());
    let (first, rest) = body.split_at(body.len() - 5);
    let mut stream = connect(server);
    stream.write_all(head.as_bytes()).unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(first.as_bytes()).unwrap();
    (stream, rest.to_owned())
}

fn wait_until_refused(server: &Server) {
    let refused = || TcpStream::connect(server.address()).is_err();
    wait_until("connections are refused", refused);
}

fn push_of(txn: &str) -> String {
    json!({"items": [{"queue": "q", "transactionId": txn, "payload": 1}]}).to_string()
}

/// What is in a store that was closed in order, by partition.
fn stored(store: &Path) -> BTreeMap<String, Vec<String>> {
    let log = PathBuf::from(format!("{}-wal", store.display()));
    assert!(!log.exists(), "the log was not moved into the store");
    let checked = queen_broker::check(store, |fault| panic!("{fault}")).unwrap();
    assert_eq!(checked.faults, 0);
    let api = Api::file(store);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    loop {
        let query =
            "consumerGroup=audit&subscriptionMode=all&batch=1000&partitions=50&autoAck=true";
        let delivery = runtime.block_on(api.pop("q", query));
        let Some(messages) = delivery["messages"].as_array() else {
            api.0.close();
            return found;
        };
        for message in messages {
            let text = |name: &str| message[name].as_str().unwrap().to_owned();
            found
                .entry(text("partition"))
                .or_default()
                .push(text("transactionId"));
        }
    }
}

/// Pushes until the server is gone: what was answered, in order.
fn produce(base: &str, part: &str, answered: &AtomicUsize, stop: &AtomicBool) -> Vec<String> {
    let agent = agent();
    let mut stored = Vec::new();
    for n in 0.. {
        let txn = format!("{part}-{n}");
        let size = if n % 5 == 4 { 100_000 } else { 50 };
        let item = json!({"queue": "q", "partition": part, "transactionId": txn, "payload": "x".repeat(size)});
        match post(
            &agent,
            &format!("{base}/api/v1/push"),
            &json!({"items": [item]}),
        ) {
            Ok((status, answer)) => {
                assert_eq!((status, &answer[0]["status"]), (201, &json!("queued")))
            }
            Err(_) => break,
        }
        stored.push(txn);
        answered.fetch_add(1, Ordering::Relaxed);
        assert!(
            !stop.load(Ordering::Relaxed),
            "the test has failed elsewhere"
        );
    }
    stored
}

#[test]
fn under_load_each_answered_push_is_kept_and_none_is_refused() {
    for (durability, signal) in [
        ("full", Signal::TERM),
        ("normal", Signal::INT),
        ("memory", Signal::TERM),
    ] {
        let (_folder, store) = store();
        let mut server = start(&store, &["--durability", durability]);
        let (answered, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (base, count) = (server.base.clone(), &answered);
        let pushed: BTreeMap<String, Vec<String>> = thread::scope(|scope| {
            let end = SetOnDrop(&stop);
            let producers: Vec<_> = (0..6)
                .map(|n| format!("p{n}"))
                .map(|part| {
                    (
                        part.clone(),
                        scope.spawn({
                            let (base, stop) = (&base, &stop);
                            move || produce(base, &part, count, stop)
                        }),
                    )
                })
                .collect();
            wait_until("pushes are answered", || {
                answered.load(Ordering::Relaxed) > 100
            });
            server.signal(signal);
            assert_eq!(ended(&mut server).code(), Some(0));
            let pushed = producers
                .into_iter()
                .map(|(part, thread)| (part, thread.join().unwrap()))
                .collect();
            drop(end);
            pushed
        });
        let stored = stored(&store);
        for (part, pushed) in &pushed {
            // One more may have been stored whose answer did not arrive.
            let found = &stored[part];
            assert!(
                found.starts_with(pushed) && found.len() <= pushed.len() + 1,
                "{part}"
            );
        }
    }
}

#[test]
fn parked_polls_are_answered_as_empty() {
    let (folder, store) = store();
    let socket = folder.path().join("socket");
    let unix = format!("unix:{}", socket.display());
    let mut server = Server::start_on(
        &["127.0.0.1:0", &unix],
        &["--data", store.to_str().unwrap()],
    );
    let options = json!({"queue": "q", "options": {"windowBuffer": 3600}});
    let url = |target: &str| format!("{}{target}", server.base);
    assert_eq!(
        post(&agent(), &url("/api/v1/configure"), &options)
            .unwrap()
            .0,
        200
    );
    let body = serde_json::from_str(&push_of("early")).unwrap();
    assert_eq!(post(&agent(), &url("/api/v1/push"), &body).unwrap().0, 201);
    // Some wait for anything, some for one partition, some until a batch is worth its while, by namespace, over either
    // kind of socket.
    let targets = [
        "/api/v1/pop/queue/q?wait=true&timeout=600000",
        "/api/v1/pop/queue/q?wait=true&timeout=600000&consumerGroup=g&subscriptionMode=new",
        "/api/v1/pop/queue/q/partition/none?wait=true&timeout=600000&consumerGroup=h",
        "/api/v1/pop?namespace=q&wait=true&timeout=600000&consumerGroup=i",
    ];
    let mut tcp = Vec::new();
    let mut local = Vec::new();
    for target in targets.iter().cycle().take(20) {
        let text = request("GET", target, "");
        let mut stream = connect(&server);
        stream.write_all(text.as_bytes()).unwrap();
        tcp.push(stream);
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        local.push(stream);
    }
    let parked = || {
        let (_, metrics) = get(&agent(), &url("/api/v1/analytics/queue-parked-replicas")).unwrap();
        let rows = metrics["series"].as_array().cloned().unwrap_or_default();
        rows.iter()
            .map(|row| row["parkedCount"].as_u64().unwrap())
            .sum::<u64>()
    };
    // Those by namespace belong to no queue; that they have come in shows in the number of requests. Each of these looks
    // is one too.
    let mut looks = 0;
    let mut came_in = || {
        looks += 1;
        let (_, metrics) = get(&agent(), &url("/metrics")).unwrap();
        metrics["requests"]["total"].as_u64().unwrap() - looks >= 42
    };
    wait_until("the polls come in", &mut came_in);
    wait_until("the polls wait", || parked() >= 30);
    assert_eq!(server.terminate().code(), Some(0));
    for mut stream in tcp {
        assert_eq!(answer(&mut stream), (204, String::new()));
    }
    for mut stream in local {
        assert_eq!(answer(&mut stream), (204, String::new()));
    }
    assert!(!socket.exists());
    let checked = queen_broker::check(&store, |fault| panic!("{fault}")).unwrap();
    assert_eq!(checked.messages, 1);
}

#[test]
fn a_request_under_way_is_finished_while_nobody_else_comes_in() {
    let (_folder, store) = store();
    let mut server = start(&store, &["--shutdown-timeout-millis", "600000"]);
    let mut silent = connect(&server);
    let (mut begun, rest) = begin(&server, &push_of("late"));
    server.signal(Signal::TERM);
    wait_until_refused(&server);
    // A connection without a request does not hold the end up, it is closed.
    assert_eq!(silent.read(&mut [0; 10]).unwrap(), 0);
    assert!(server.child.try_wait().unwrap().is_none());
    begun.write_all(rest.as_bytes()).unwrap();
    let (status, said) = answer(&mut begun);
    assert_eq!(status, 201, "{said}");
    assert_eq!(ended(&mut server).code(), Some(0));
    assert_eq!(stored(&store)["Default"], ["late"]);
}

#[test]
fn a_client_that_hangs_is_cut_off_in_time() {
    let (folder, store) = store();
    let socket = folder.path().join("socket");
    let unix = format!("unix:{}", socket.display());
    let flags = [
        "--data",
        store.to_str().unwrap(),
        "--shutdown-timeout-millis",
        "700",
    ];
    let mut server = Server::start_on(&["127.0.0.1:0", &unix], &flags);
    let large: Vec<Value> = (0..40)
        .map(|n| json!({"queue": "q", "transactionId": format!("m{n}"), "payload": "x".repeat(500_000)}))
        .collect();
    let url = format!("{}/api/v1/push", server.base);
    assert_eq!(
        post(&agent(), &url, &json!({ "items": large })).unwrap().0,
        201
    );
    // One never finishes its request, one never reads its answer.
    let (mut half, _) = begin(&server, &push_of("half"));
    let mut deaf = connect(&server);
    let text = request("GET", "/api/v1/messages?queue=q&limit=40", "");
    deaf.write_all(text.as_bytes()).unwrap();
    deaf.peek(&mut [0]).unwrap();
    let began = Instant::now();
    assert_eq!(server.terminate().code(), Some(0));
    assert!(
        began.elapsed() >= Duration::from_millis(700),
        "they had their time"
    );
    assert!(!socket.exists());
    assert!(half.read(&mut [0; 10]).is_ok_and(|n| n == 0));
    let stored = stored(&store);
    assert_eq!(stored["Default"].len(), 40);
}

#[test]
fn a_second_signal_ends_at_once() {
    let (folder, store) = store();
    let socket = folder.path().join("socket");
    let unix = format!("unix:{}", socket.display());
    let flags = [
        "--data",
        store.to_str().unwrap(),
        "--shutdown-timeout-millis",
        "600000",
    ];
    let mut server = Server::start_on(&["127.0.0.1:0", &unix], &flags);
    let url = format!("{}/api/v1/push", server.base);
    let body = serde_json::from_str(&push_of("a")).unwrap();
    assert_eq!(post(&agent(), &url, &body).unwrap().0, 201);
    let _half = begin(&server, &push_of("half"));
    server.signal(Signal::INT);
    wait_until_refused(&server);
    assert!(server.child.try_wait().unwrap().is_none());
    server.signal(Signal::TERM);
    assert_eq!(ended(&mut server).code(), Some(1));
    assert!(!socket.exists());
    let api = Api::file(&store);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let delivery = runtime.block_on(api.pop("q", "batch=10&subscriptionMode=all&consumerGroup=g"));
    assert_eq!(txns(&delivery), ["a"]);
}

#[test]
fn a_broker_in_memory_ends_as_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&[]);
        let mut poll = connect(&server);
        let text = request("GET", "/api/v1/pop/queue/q?wait=true&timeout=600000", "");
        poll.write_all(text.as_bytes()).unwrap();
        assert_eq!(
            get(&agent(), &format!("{}/health", server.base)).unwrap().0,
            200
        );
        server.signal(signal);
        assert_eq!(ended(&mut server).code(), Some(0));
    }
}

/// The end has nothing to do with the folder in which the server was started, nor with its output.
#[test]
fn relative_paths_and_a_closed_output_do_no_harm() {
    let folder = TempDir::new().unwrap();
    let mut command = common::server::program();
    command.current_dir(folder.path()).arg("serve");
    command.args(["--data", "store.db", "--listen", "unix:socket"]);
    let mut server = Server::spawn(&mut command);
    assert_eq!(server.base, "unix:socket");
    // What reads the first line has closed its end by now.
    let socket = folder.path().join("socket");
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    stream
        .write_all(request("POST", "/api/v1/push", &push_of("a")).as_bytes())
        .unwrap();
    assert_eq!(answer(&mut stream).0, 201);
    assert!(server.terminate().success());
    assert!(!socket.exists());
    let left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(stored(&folder.path().join("store.db"))["Default"], ["a"]);
}

/// A service manager that waits for a word hears when the broker takes requests and when it ends.
#[test]
fn a_service_manager_is_told() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("notify");
    let words = UnixDatagram::bind(&path).unwrap();
    words
        .set_read_timeout(Some(Duration::from_secs(120)))
        .unwrap();
    let mut server = Server::launch(common::server::program().env("NOTIFY_SOCKET", &path), &[]);
    let heard = || {
        let mut word = [0; 100];
        let length = words.recv(&mut word).unwrap();
        String::from_utf8(word[..length].to_vec()).unwrap()
    };
    assert_eq!(heard(), "READY=1");
    assert_eq!(
        get(&agent(), &format!("{}/health", server.base)).unwrap().0,
        200
    );
    assert!(server.terminate().success());
    assert_eq!(heard(), "STOPPING=1");

    // A manager that is gone harms nobody, and neither does a closed stderr.
    drop(words);
    let mut command = common::server::program();
    command.env("NOTIFY_SOCKET", &path).stderr(Stdio::piped());
    let store = folder.path().join("store.db");
    let mut server = Server::launch(&mut command, &["--data", store.to_str().unwrap()]);
    let mut first = String::new();
    BufReader::new(server.child.stderr.take().unwrap())
        .read_line(&mut first)
        .unwrap();
    assert_eq!(
        first,
        format!("queen-broker: {} is a new store\n", store.display())
    );
    let encrypted = json!({"queue": "q", "options": {"encryptionEnabled": true}});
    let url = format!("{}/api/v1/configure", server.base);
    assert_eq!(post(&agent(), &url, &encrypted).unwrap().0, 200);
    assert!(server.terminate().success());
}

/// A store that takes long to open, here because another program holds it, does not hold the end up.
#[test]
fn a_signal_ends_the_opening_too() {
    let (folder, store) = store();
    Api::fast_file(&store).0.close();
    let other = rusqlite::Connection::open(&store).unwrap();
    other
        .execute_batch("PRAGMA locking_mode = exclusive; BEGIN EXCLUSIVE")
        .unwrap();
    let socket = folder.path().join("socket");
    let mut command = common::server::program();
    command.args(["serve", "--data", store.to_str().unwrap(), "--listen"]);
    command.arg(format!("unix:{}", socket.display()));
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    // By then it waits for signals.
    wait_until("it listens", || socket.exists());
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), Signal::TERM).unwrap();
    let output = (child.wait().unwrap(), child.stderr.take().unwrap());
    let mut said = String::new();
    BufReader::new(output.1).read_to_string(&mut said).unwrap();
    // Had it waited for the store, it would have failed.
    assert_eq!(output.0.code(), Some(0), "{said}");
    assert!(said.contains("before the store was open"), "{said}");
    assert!(!socket.exists());
}
