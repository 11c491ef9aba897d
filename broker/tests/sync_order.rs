//! What the system sees: under `durability = full` the log is synced after it was written and before the answer leaves.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::ack_of;
use common::server::{Server, agent, get, post};
use serde_json::json;

/// One sequential client, and for each of its requests what the broker did between reading it and answering it:
/// `W` a write to the log, `S` a finished sync of the log. Repetitions count once.
fn steps(durability: &str) -> BTreeMap<&'static str, String> {
    let folder = tempfile::tempdir().unwrap();
    let (trace, store) = (folder.path().join("trace"), folder.path().join("store.db"));
    let mut command = Command::new("strace");
    // -D: the broker is our child and strace its observer, not the other way round.
    command
        .args(["-D", "-f", "-yy", "-s", "60", "-o"])
        .arg(&trace)
        .args([
            "-e",
            "trace=read,recvfrom,write,writev,sendto,sendmsg,pwrite64,fsync,fdatasync,exit_group",
            env!("CARGO_BIN_EXE_queen-broker"),
        ]);
    let data = [
        "--data",
        store.to_str().unwrap(),
        "--durability",
        durability,
    ];
    let mut server = Server::launch(&mut command, &data);

    let (agent, api) = (agent(), format!("{}/api/v1", server.base));
    let send = |route: &str, body| {
        let (status, answer) = post(&agent, &format!("{api}/{route}"), &body).unwrap();
        assert!(status == 200 || status == 201, "{answer}");
    };
    let pop = |query: &str| {
        get(&agent, &format!("{api}/pop/queue/q?{query}"))
            .unwrap()
            .1
    };
    let item = |n| json!({"queue": "q", "transactionId": n, "payload": n});
    send("configure", json!({"queue": "q"}));
    // Registers the group, which is synced; the pop that counts is the later one.
    pop("batch=1");
    send("push", json!({"items": [item("a"), item("b"), item("c")]}));
    let first = pop("batch=1");
    send("ack", ack_of(&first["messages"][0], "completed"));
    pop("batch=1&autoAck=true");
    send(
        "transaction",
        json!({"operations": [{"type": "push", "items": [item("d")]}]}),
    );

    assert!(server.terminate().success());
    // The observer writes a moment later.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !fs::read_to_string(&trace).unwrap().contains("exit_group(0") {
        assert!(Instant::now() < deadline, "strace does not end");
        sleep(Duration::from_millis(10));
    }
    read(&trace)
}

/// How each request begins on the wire.
const REQUESTS: [(&str, &str); 6] = [
    ("configure", "POST /api/v1/configure "),
    ("push", "POST /api/v1/push "),
    ("pop", "GET /api/v1/pop/queue/q?batch=1 "),
    ("ack", "POST /api/v1/ack "),
    ("pop autoAck", "GET /api/v1/pop/queue/q?batch=1&autoAck"),
    ("transaction", "POST /api/v1/transaction "),
];

fn read(trace: &Path) -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    let mut open: Option<(&str, String)> = None;
    // The call that a thread has begun and not finished; strace tells its file at the beginning only.
    let mut begun: HashMap<String, String> = HashMap::new();
    let text = fs::read_to_string(trace).unwrap();
    for line in text.lines() {
        let Some((thread, event)) = line.split_once(' ') else {
            continue;
        };
        let event = event.trim_start();
        let request = REQUESTS
            .iter()
            .find(|(_, words)| event.contains(&format!("\"{words}")));
        if let Some((name, _)) = request {
            open = Some((name, String::new()));
        }
        let Some((_, steps)) = open.as_mut() else {
            continue;
        };
        let mut step = |c| {
            if !steps.ends_with(c) {
                steps.push(c);
            }
        };
        if event.contains("\"HTTP/1.1 20") {
            found.extend(open.take());
            continue;
        }
        if event.starts_with("pwrite64(") && event.contains("-wal>") {
            step('W');
        }
        let call = match event.strip_prefix("<... ") {
            Some(_) => begun.remove(thread).unwrap_or_default(),
            None => event.to_owned(),
        };
        let is_sync = call.starts_with("fsync(") || call.starts_with("fdatasync(");
        if event.ends_with("<unfinished ...>") {
            begun.insert(thread.to_owned(), call);
        } else if is_sync && call.contains("-wal>") && event.ends_with("= 0") {
            step('S');
        }
    }
    found
}

#[test]
fn full_syncs_the_log_before_the_answer() {
    let steps = steps("full");
    assert_eq!(steps.len(), REQUESTS.len(), "{steps:?}");
    for (request, steps) in steps {
        // A lease that is lost leads to a second delivery, as its end does; nobody waits for the disk.
        let synced = request != "pop";
        assert!(steps.contains('W'), "{request} wrote nothing");
        assert_eq!(steps.ends_with('S'), synced, "{request}: {steps}");
    }
}

#[test]
fn normal_answers_without_a_sync() {
    let steps = steps("normal");
    assert_eq!(steps.len(), REQUESTS.len(), "{steps:?}");
    for (request, steps) in steps {
        // A log that has just been begun has its head synced, before anything is written into it.
        assert!(steps.ends_with('W'), "{request}: {steps}");
    }
}
