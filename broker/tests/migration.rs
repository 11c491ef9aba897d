//! Stores of earlier layouts: each opens with the broker of today and keeps what it holds, whatever happens meanwhile.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use common::ledger::copy_files;
use common::powerfail::disk_library;
use common::{Api, txns};
use http::Request;
use queen_broker::{Broker, OpenError, Options, Store};
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

/// The layouts there are, from the files of `tests/stores`.
fn layouts() -> Vec<i64> {
    let mut found = Vec::new();
    while fixture(found.len() as i64 + 1).exists() {
        found.push(found.len() as i64 + 1);
    }
    found
}

fn fixture(version: i64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/stores/v{version}.sql"))
}

/// A store of that layout, in the way a broker leaves it.
fn restore(version: i64, path: &Path) {
    let db = Connection::open(path).unwrap();
    db.execute_batch(&fs::read_to_string(fixture(version)).unwrap())
        .unwrap();
    db.pragma_update(None, "journal_mode", "wal").unwrap();
    db.close().unwrap();
}

fn version_of(path: &Path) -> i64 {
    let db = Connection::open(path).unwrap();
    db.query_row("PRAGMA user_version", [], |r| r.get(0))
        .unwrap()
}

type Rows = Vec<Vec<Cell>>;

/// Every row of some tables, with some of their columns.
fn rows(path: &Path, columns: &BTreeMap<String, Vec<String>>) -> BTreeMap<String, Rows> {
    let db = Connection::open(path).unwrap();
    let mut found = BTreeMap::new();
    for (table, columns) in columns {
        let (width, columns) = (columns.len(), columns.join(", "));
        let sql = format!("SELECT {columns} FROM {table} ORDER BY {columns}");
        let mut statement = db.prepare(&sql).unwrap();
        let read = statement
            .query_map([], |r| (0..width).map(|n| r.get(n)).collect())
            .unwrap();
        found.insert(table.clone(), read.map(Result::unwrap).collect());
    }
    found
}

/// The tables of a store with their columns.
fn tables(path: &Path) -> BTreeMap<String, Vec<String>> {
    let db = Connection::open(path).unwrap();
    let mut statement = db
        .prepare(
            "SELECT m.name, i.name FROM sqlite_master m JOIN pragma_table_info(m.name) i \
             WHERE m.type = 'table' ORDER BY i.cid",
        )
        .unwrap();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let read = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?)));
    for row in read.unwrap() {
        let (table, column): (String, String) = row.unwrap();
        found.entry(table).or_default().push(column);
    }
    found
}

/// The tables that every layout keeps. Version 7 holds in memory what `txn` told.
fn kept_tables(path: &Path) -> BTreeMap<String, Vec<String>> {
    let mut found = tables(path);
    found.remove("txn");
    found
}

fn faults(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    queen_broker::check(path, |fault| found.push(fault.to_owned())).unwrap();
    found
}

/// Opens a store and closes it, and nothing else.
fn open_once(path: &Path) -> Result<(), OpenError> {
    let options = Options {
        store: Store::File(path.into()),
        ..Options::default()
    };
    Broker::open(options).map(|broker| broker.close())
}

#[tokio::test]
async fn a_store_of_every_layout_opens_and_keeps_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let fresh = folder.path().join("fresh.db");
    open_once(&fresh).unwrap();
    let newest = version_of(&fresh);
    assert_eq!(
        layouts().last(),
        Some(&newest),
        "tests/stores has a store of every layout"
    );
    for version in layouts() {
        let path = folder.path().join(format!("v{version}.db"));
        restore(version, &path);
        assert_eq!(version_of(&path), version);
        let columns = kept_tables(&path);
        let kept = rows(&path, &columns);
        open_once(&path).unwrap();
        assert_eq!(version_of(&path), newest, "version {version}");
        assert_eq!(faults(&path), [""; 0], "version {version}");
        assert_eq!(tables(&path), tables(&fresh), "version {version}");
        let mut after = rows(&path, &columns);
        if version >= 6 {
            // Its buffer is let in at the start; `holds` looks where it went.
            let moved: Vec<&str> = after
                .iter()
                .filter(|(table, rows)| kept[*table] != **rows)
                .map(|(table, _)| table.as_str())
                .collect();
            assert_eq!(moved, ["buffered", "part", "segment", "sqlite_sequence"]);
        } else {
            // The only table without an order of its own.
            after.remove("sqlite_sequence");
            for (table, rows) in after {
                assert!(rows == kept[&table], "version {version}, table {table}");
            }
        }
        let settled = fs::read(&path).unwrap();
        open_once(&path).unwrap();
        assert!(
            fs::read(&path).unwrap() == settled,
            "a second opening changed the store that had version {version}"
        );
        holds(version, &path).await;
        assert_eq!(faults(&path), [""; 0], "version {version}, after use");
    }
}

/// The text of an answer.
async fn text(api: &Api, target: &str) -> String {
    let request = Request::get(target).body(Bytes::new()).unwrap();
    let answer = api.0.handle(request).await.into_body();
    String::from_utf8(answer.to_vec()).unwrap()
}

/// Looks for everything that `tests/stores/fill` put in.
async fn holds(version: i64, path: &Path) {
    let lease: Vec<u8> = Connection::open(path)
        .unwrap()
        .query_row(
            "SELECT lease FROM cursor ORDER BY grp, part LIMIT 1",
            [],
            |r| r.get(0),
        )
        .unwrap();
    let lease = uuid::Uuid::from_slice(&lease).unwrap().to_string();
    let api = Api::file(path);
    let pop = async |target: &str| {
        let (status, body) = api
            .send("GET", &format!("/api/v1/pop{target}"), Value::Null)
            .await;
        assert!(status == 200 || status == 204, "{target}: {status} {body}");
        body
    };
    let push = async |queue: &str, part: &str, txn: &str| {
        let item = json!({"queue": queue, "partition": part, "transactionId": txn, "payload": 0});
        let (_, answer) = api
            .send("POST", "/api/v1/push", json!({"items": [item]}))
            .await;
        answer[0]["status"].as_str().unwrap().to_owned()
    };

    // Searches, before anything is pushed that they could find.
    if version >= 2 {
        let found = pop("?namespace=shop&consumerGroup=finder&batch=9").await;
        // What was buffered came after the group.
        let came: &[&str] = if version >= 6 { &["w0", "w1"] } else { &[] };
        assert_eq!(txns(&found), came);
        assert_eq!(push("orders", "new", "fresh").await, "queued");
        let found = pop("?namespace=shop&consumerGroup=finder&batch=9").await;
        assert_eq!(txns(&found), ["fresh"]);
    }

    // Messages, letter by letter and in their order.
    let audit = text(
        &api,
        "/api/v1/pop/queue/orders?consumerGroup=audit&subscriptionMode=all&batch=1000&partitions=64",
    )
    .await;
    for payload in [
        r#"{"text": "\u00fcn\u00ef\u0000\\\"'", "big": 12345678901234567890, "none": null}"#,
        r#"{"n": 3, "of": "p1"}"#,
        &format!("{:?}", "x".repeat(3000)),
    ] {
        assert!(
            audit.contains(&format!(r#""data":{payload},"#)),
            "{payload}"
        );
    }
    let audit: Value = serde_json::from_str(&audit).unwrap();
    let in_part = |name: &str| {
        let of = |m: &&Value| m["partition"] == name;
        let txn = |m: &Value| m["transactionId"].as_str().unwrap().to_owned();
        let messages = audit["messages"].as_array().unwrap();
        messages.iter().filter(of).map(txn).collect::<Vec<_>>()
    };
    for part in ["p0", "p1"] {
        let wanted: Vec<String> = (0..5).map(|n| format!("{part}-{n}")).collect();
        assert_eq!(in_part(part), wanted);
    }
    assert_eq!(in_part("Größe / 大"), ["letters"]);
    assert_eq!(in_part("kinds"), ["null", "text", "list", "true", "long"]);
    let orders = api.describe("orders").await;
    assert_eq!(
        (&orders["namespace"], &orders["task"]),
        (&json!("shop"), &json!("orders"))
    );
    assert_eq!(push("orders", "p0", "p0-0").await, "duplicate");

    // A lease that is held, and a retry that counts.
    assert!(pop("/queue/orders/partition/p0").await.is_null());
    let part = audit["messages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|m| m["partition"] == "p0");
    let acks: Vec<Value> = ["p0-2", "p0-3"]
        .map(|txn| json!({"transactionId": txn, "partitionId": part.unwrap()["partitionId"], "leaseId": lease, "status": "completed"}))
        .into();
    let (_, acked) = api
        .send(
            "POST",
            "/api/v1/ack/batch",
            json!({"acknowledgments": acks}),
        )
        .await;
    assert_eq!(acked[1]["success"], true, "{acked}");
    assert_eq!(txns(&pop("/queue/orders/partition/p0").await), ["p0-4"]);
    for dead in [false, true] {
        let delivery = pop("/queue/orders/partition/p1?batch=1").await;
        assert_eq!(txns(&delivery), ["p1-0"]);
        assert_eq!(api.ack(&delivery, "failed").await[0]["dlq"], dead);
    }

    // Groups of every mode.
    let rest = pop("/queue/bulk?consumerGroup=done&batch=1000").await;
    assert_eq!((txns(&rest).len(), txns(&rest)[0]), (10, "b250"));
    assert!(
        pop("/queue/bulk?consumerGroup=since").await.is_null(),
        "it holds a lease"
    );
    let again = pop("/queue/bulk?consumerGroup=slow&batch=3").await;
    assert_eq!(txns(&again), ["b0", "b1", "b2"], "its lease has ended");
    assert!(pop("/queue/bulk?consumerGroup=late").await.is_null());
    assert_eq!(push("bulk", "Default", "last").await, "queued");
    assert_eq!(txns(&pop("/queue/bulk?consumerGroup=late").await), ["last"]);
    assert_eq!(push("orders", "later", "first").await, "queued");
    let early = pop("/queue/orders/partition/later?consumerGroup=early").await;
    assert_eq!(
        txns(&early),
        ["first"],
        "it asked before the partition was there"
    );

    // Dead letters.
    let (_, list) = api
        .send("GET", "/api/v1/dlq?queue=fragile", Value::Null)
        .await;
    let bad = &list["messages"][0];
    assert_eq!(
        (
            &bad["transactionId"],
            &bad["errorMessage"],
            &bad["data"]["text"]
        ),
        (&json!("bad"), &json!("it broke"), &json!("bad \u{2028}"))
    );
    assert_eq!(txns(&pop("/queue/fragile").await), ["good"]);

    if version >= 3 {
        let traced = pop("/queue/traced?consumerGroup=g&subscriptionMode=all").await;
        let trace = &traced["messages"][0]["traceId"];
        assert_eq!(trace, "0193d6a2-0000-7000-8000-000000000001");
    }
    if version >= 4 {
        assert_eq!(push("old", "p", "o1").await, "duplicate");
        let old = pop("/queue/old?consumerGroup=g&subscriptionMode=all").await;
        assert_eq!(txns(&old), ["o3"], "the others were removed");
        let asleep = pop("/queue/bulk?consumerGroup=asleep&batch=1").await;
        assert_eq!(
            txns(&asleep),
            ["b0"],
            "it was registered to read everything"
        );
    }
    if version >= 5 {
        let traces = text(&api, "/api/v1/traces/by-name/checkout").await;
        assert!(traces.contains(r#"{"step": 1.0}"#), "{traces}");
    }
    if version >= 6 {
        assert_eq!(in_part("buffered"), ["w0", "w1"]);
    }
    if version >= 8 {
        let (_, told) = api
            .send(
                "GET",
                "/api/v1/resources/streams/minutes/consumers",
                Value::Null,
            )
            .await;
        let stands = told["consumers"].as_array().unwrap();
        let of = |group: &'static str| {
            stands
                .iter()
                .filter(move |one| one["consumerGroup"] == group)
        };
        let done: Vec<_> = of("g")
            .map(|one| one["windowsProcessed"].as_i64())
            .collect();
        let out: Vec<_> = of("g").filter(|one| !one["leaseId"].is_null()).collect();
        assert_eq!((done.iter().flatten().sum::<i64>(), out.len()), (1, 1));
        assert!(of("back").all(|one| one["nextWindowStart"] == "2020-01-01T00:00:00.000000Z"));
        assert_eq!(of("back").count(), 4);
    }
    api.0.close();
}

/// The broker is killed at each write and each sync of a migration. What is left, to a program that starts again and to a
/// system whose power failed at that moment, is the store as it was or the new one.
#[test]
fn an_interrupted_migration_leaves_the_old_store_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old");
    fs::create_dir(&old).unwrap();
    restore(1, &old.join("store.db"));
    let whole = tables(&old.join("store.db"));
    let columns = kept_tables(&old.join("store.db"));
    let kept = rows(&old.join("store.db"), &columns);
    let (mut seen, mut call) = (BTreeMap::new(), 1);
    loop {
        let files = tempfile::tempdir().unwrap();
        let disk = tempfile::tempdir().unwrap();
        copy_files(&old, files.path());
        copy_files(&old, disk.path());
        let began = killed_at(call, files.path(), disk.path());
        for place in [files.path(), disk.path()] {
            let copy = tempfile::tempdir().unwrap();
            copy_files(place, copy.path());
            let store = copy.path().join("store.db");
            let version = version_of(&store);
            *seen.entry(version).or_insert(0) += 1;
            assert!(rows(&store, &columns) == kept, "killed at call {call}");
            if version == 1 {
                assert_eq!(tables(&store), whole, "killed at call {call}");
            }
            open_once(&store).unwrap();
            assert!(rows(&store, &columns) == kept, "killed at call {call}");
            assert_eq!(faults(&store), [""; 0], "killed at call {call}");
        }
        if began {
            break;
        }
        call += 1;
    }
    println!("killed at {call} calls; layouts that were left: {seen:?}");
    assert_eq!(
        seen.keys().copied().collect::<Vec<_>>(),
        [1, *layouts().last().unwrap()]
    );
}

/// Starts the broker on a disk that can lose its power and kills it at its nth call that changes a file. True when it
/// began to serve before that.
fn killed_at(call: usize, files: &Path, disk: &Path) -> bool {
    let files = files.canonicalize().unwrap();
    // -D: the broker is our child and strace its observer.
    let mut child = Command::new("strace")
        .args(["-D", "-f", "-qq", "-o", "/dev/null", "-e"])
        .arg("trace=pwrite64,write,fsync,fdatasync,ftruncate,unlink")
        .arg("-e")
        .arg(format!(
            "inject=pwrite64,fsync,fdatasync,ftruncate,unlink:signal=KILL:when={call}"
        ))
        .arg("-E")
        .arg(format!("LD_PRELOAD={}", disk_library().display()))
        .arg(env!("CARGO_BIN_EXE_queen-broker"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(files.join("store.db"))
        .env("POWERFAIL_FILES", &files)
        .env("POWERFAIL_DISK", disk.canonicalize().unwrap())
        // Every other disk writes back what nobody asked for.
        .env("POWERFAIL_SEED", (call % 2 * call).to_string())
        .env("POWERFAIL_MICROS", "0")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    let began = line.starts_with("listening on");
    let _ = child.kill();
    child.wait().unwrap();
    began
}

#[test]
fn a_store_of_a_later_layout_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    open_once(&path).unwrap();
    let next = version_of(&path) + 1;
    let later = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    later.pragma_update(None, "user_version", next).unwrap();
    later
        .execute_batch("CREATE TABLE tomorrow (x); INSERT INTO tomorrow VALUES (1)")
        .unwrap();
    // Its program was killed: what it did last stands in its log.
    let copy = tempfile::tempdir().unwrap();
    copy_files(folder.path(), copy.path());
    let path = copy.path().join("store.db");
    let log = copy.path().join("store.db-wal");
    let picture = || (fs::read(&path).unwrap(), fs::read(&log).unwrap());
    let before = picture();
    assert!(!before.1.is_empty());
    let refused = open_once(&path).unwrap_err();
    assert!(matches!(refused, OpenError::Schema { .. }), "{refused:?}");
    let said = refused.to_string();
    for word in [
        &format!("version {next}"),
        "open it with the program that wrote it",
    ] {
        assert!(said.contains(word), "{said}");
    }
    assert!(picture() == before, "the store was changed");
    let (code, _, said) = common::server::output(&["check", path.to_str().unwrap()]);
    assert_eq!(code, 2, "{said}");
    assert!(picture() == before, "the store was changed by looking");
}
