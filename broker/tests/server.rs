//! The program: its flags, and clients that wait or go away.

mod common;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use common::server::{Server, agent, get, post, run};
use serde_json::{Value, json};

fn push(server: &Server, txn: &str) {
    let body = json!({"items": [{"queue": "q", "transactionId": txn, "payload": 1}]});
    assert_eq!(
        post(&agent(), &format!("{}/api/v1/push", server.base), &body)
            .unwrap()
            .0,
        201
    );
}

fn pop(server: &Server, query: &str) -> (u16, Value) {
    get(
        &agent(),
        &format!("{}/api/v1/pop/queue/q?{query}", server.base),
    )
    .unwrap()
}

#[test]
fn a_second_process_is_told_who_has_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let path = path.to_str().unwrap();
    let mut server = Server::start(&["--data", path]);
    let (code, said) = run(&["serve", "--listen", "127.0.0.1:0", "--data", path]);
    assert_eq!(code, 1);
    assert!(
        said.contains(&format!("in use by process {}", server.child.id())),
        "{said}"
    );
    assert!(said.contains("queen-broker serve"), "{said}");

    let options = queen_broker::Options {
        store: queen_broker::Store::File(path.into()),
        ..Default::default()
    };
    match queen_broker::Broker::open(options.clone()).unwrap_err() {
        queen_broker::OpenError::Locked { owner_pid, .. } => {
            assert_eq!(owner_pid, Some(server.child.id()))
        }
        other => panic!("{other:?}"),
    }
    server.kill();
    queen_broker::Broker::open(options).unwrap().close();
}

#[test]
fn an_open_address_needs_a_token() {
    let (code, said) = run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(code, 2);
    assert!(said.contains("--token"), "{said}");
    let (code, said) = run(&["serve", "--durability", "often"]);
    assert_eq!(code, 2);
    assert!(said.contains("often"), "{said}");
}

#[test]
fn a_client_that_hangs_up_while_parked_takes_nothing() {
    let server = Server::start(&[]);
    let mut client = TcpStream::connect(server.address()).unwrap();
    client
        .write_all(b"GET /api/v1/pop/queue/q?wait=true&timeout=30000 HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    sleep(Duration::from_millis(200));
    drop(client);
    sleep(Duration::from_millis(100));
    push(&server, "a");
    let (status, delivery) = pop(&server, "");
    assert_eq!(
        (status, &delivery["messages"][0]["transactionId"]),
        (200, &json!("a"))
    );
}

/// CPU time of a process, in clock ticks (a hundredth of a second).
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn parked_polls_cost_no_cpu() {
    let server = Server::start(&[]);
    push(&server, "a");
    // One partition is leased for long, so that there is also a timer to wait for.
    assert_eq!(pop(&server, "").0, 200);
    // Another lease ends soon, in a group whose waiting pop asks for a partition that does not exist.
    let body = json!({"items": [{"queue": "other", "payload": 1}]});
    assert_eq!(
        post(&agent(), &format!("{}/api/v1/push", server.base), &body)
            .unwrap()
            .0,
        201
    );
    let url = format!("{}/api/v1/pop/queue/other?leaseSeconds=1", server.base);
    assert_eq!(get(&agent(), &url).unwrap().0, 200);
    let park = |target: &str| {
        let mut client = TcpStream::connect(server.address()).unwrap();
        write!(
            client,
            "GET /api/v1/pop/queue/{target}?wait=true&timeout=30000 HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        .unwrap();
        client
    };
    let mut polls: Vec<_> = (0..20).map(|_| park("q")).collect();
    polls.push(park("other/partition/none"));
    sleep(Duration::from_millis(1200));
    let before = ticks(server.child.id());
    sleep(Duration::from_secs(4));
    let spent = ticks(server.child.id()) - before;
    assert!(spent <= 2, "{spent} ticks in 4 s");
    drop(polls);
}
