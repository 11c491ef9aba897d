//! `queen-broker check`: a sound store is clean, each kind of damage is named, and nothing is changed by looking.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::server::{Server, agent, output, post};
use common::{Api, ack_of};
use rusqlite::Connection;
use serde_json::{Value, json};

/// A store in which everything that can be checked occurs: several queues and partitions, large and small segments,
/// groups of every mode, leases held and expired, dead letters, removed messages, traces.
async fn busy_store(path: &Path) {
    let api = Api::fast_file(path);
    api.configure("q", json!({"retryLimit": 0, "leaseTime": 600}))
        .await;
    for txn in ["a", "b", "c", "d", "e"] {
        api.push("q", "p", txn).await;
    }
    let items: Vec<Value> = (0..600)
        .map(|n| json!({"queue": "q", "partition": "big", "payload": {"n": n}, "transactionId": format!("t{n}")}))
        .collect();
    let pushed = api
        .send("POST", "/api/v1/push", json!({"items": items}))
        .await;
    assert_eq!(pushed.0, 201);
    let some = api.pop("q", "batch=2&partitions=1").await;
    api.ack(&some, "completed").await;
    let next = api.pop("q", "batch=3&partitions=2").await;
    api.send("POST", "/api/v1/ack", ack_of(&next["messages"][0], "dlq"))
        .await;
    for query in [
        "consumerGroup=all&subscriptionMode=all&batch=1000&partitions=3",
        "consumerGroup=new&subscriptionMode=new",
        "consumerGroup=auto&subscriptionMode=all&autoAck=true&batch=7",
        "consumerGroup=short&subscriptionMode=all&leaseSeconds=1",
    ] {
        api.pop("q", query).await;
    }
    api.pop("q/partition/p", "consumerGroup=named&subscriptionMode=all")
        .await;
    api.pop("q/partition/none", "consumerGroup=early").await;
    api.send(
        "GET",
        "/api/v1/pop?namespace=q&consumerGroup=finder",
        Value::Null,
    )
    .await;
    let trace = json!({"partitionId": some["messages"][0]["partitionId"], "transactionId": "a", "eventType": "info",
        "data": {"text": "x"}, "traceNames": ["n"]});
    api.send("POST", "/api/v1/traces", trace).await;
    api.configure(
        "old",
        json!({"retentionEnabled": true, "retentionSeconds": 1}),
    )
    .await;
    for txn in ["x", "y"] {
        api.push("old", "p", txn).await;
        api.push("gone", "p", txn).await;
    }
    api.pop("old", "batch=1").await;
    // Retention looks every five seconds.
    for _ in 0..600 {
        if api.describe("old").await["segments"]["messages"] == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(api.describe("old").await["segments"]["messages"], 0);
    api.push("old", "p", "z").await;
    let (status, _) = api
        .send("DELETE", "/api/v1/resources/queues/gone", Value::Null)
        .await;
    assert_eq!(status, 200);
    api.0.close();
}

/// The faults of a store.
fn faults(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let checked = queen_broker::check(path, |fault| found.push(fault.to_owned())).unwrap();
    assert_eq!(checked.faults, found.len() as u64);
    assert!(
        found.iter().all(|fault| !fault.contains('\n')),
        "one line each: {found:?}"
    );
    found
}

/// Name, content of every file in a folder.
fn picture(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_store_is_clean_and_each_damage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let sound = folder.path().join("sound.db");
    busy_store(&sound).await;
    let before = picture(folder.path());
    assert_eq!(faults(&sound), [""; 0]);
    let (code, said, _) = output(&["check", sound.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.ends_with("no faults; queues: 2, partitions: 3, messages: 606\n"),
        "{said}"
    );
    assert!(before == picture(folder.path()), "looking changes nothing");

    // What is done to a copy, and what is said of it.
    let part = "(SELECT p.id FROM part p JOIN queue q ON q.id = p.queue WHERE q.name = 'q' AND p.name = 'p')";
    let damages: &[(&str, &str)] = &[
        (
            "DELETE FROM segment WHERE part = {p} AND first = 2",
            r#"queue "q" partition "p": offsets 3..3: they should begin at 2"#,
        ),
        (
            "DELETE FROM segment WHERE part = {p} AND first = 0",
            r#"queue "q" partition "p": the messages before offset 1 are missing"#,
        ),
        (
            "UPDATE segment SET body = substr(body, 1, length(body) - 3) WHERE part = {p} AND first = 1",
            "offsets 1..1: damaged segment: it ends early",
        ),
        (
            "UPDATE segment SET body = x'09' WHERE part = {p} AND first = 1",
            "unknown version",
        ),
        (
            "UPDATE segment SET last = 9 WHERE part = {p} AND last = 4",
            "offsets 4..9: 1 messages are in it",
        ),
        (
            "UPDATE segment SET created = 1 WHERE part = {p} AND first = 3",
            "offsets 3..3: they are older than those before",
        ),
        (
            "UPDATE segment SET body = CAST(replace(CAST(body AS TEXT), '{\"', '[\"') AS BLOB) WHERE part = {p} AND first = 1",
            "offset 1: the payload is not JSON",
        ),
        (
            "UPDATE segment SET part = 999 WHERE part = {p} AND first = 4",
            "1 rows of segment belong to no part, one of them to number 999",
        ),
        (
            "UPDATE cursor SET committed = 70, delivered = 70, lease = NULL, expires = NULL WHERE part = {p}",
            "committed offset 70 is not within -1..4",
        ),
        (
            "UPDATE cursor SET committed = -2 WHERE part = {p}",
            "committed offset -2 is not within -1..4",
        ),
        (
            "UPDATE cursor SET delivered = 5 WHERE part = {p}",
            "delivered offset 5 is not within",
        ),
        (
            "UPDATE cursor SET batch_end = delivered + 1 WHERE part = {p} AND lease IS NOT NULL",
            "ends at offset 5, which is not within 0..4",
        ),
        (
            "UPDATE cursor SET batch_end = committed WHERE part = {p} AND lease IS NOT NULL",
            "ends at offset -1, which is not within 0..4",
        ),
        (
            "UPDATE cursor SET lease = x'00' WHERE lease IS NOT NULL",
            "cursors: ",
        ),
        (
            "UPDATE cursor SET retries = -1 WHERE part = {p}",
            "-1 retries",
        ),
        (
            "UPDATE cursor SET grp = 77 WHERE part = {p} AND grp = (SELECT id FROM grp WHERE name = 'named')",
            "1 rows of cursor belong to no grp",
        ),
        (
            "UPDATE part SET queue = (SELECT id FROM queue WHERE name = 'old'), name = 'moved' WHERE id = {p}",
            "the group belongs to another queue",
        ),
        (
            "UPDATE part SET uuid = (SELECT uuid FROM part WHERE id <> {p}) WHERE id = {p}",
            "another partition has the id",
        ),
        (
            "UPDATE part SET next = 100 WHERE id = {p}",
            r#"queue "q" partition "p": its messages end at 5, and its log at 100"#,
        ),
        (
            "UPDATE cursor SET committed = -1 WHERE part = (SELECT max(id) FROM part WHERE name = 'p')",
            "committed offset -1 is not within 1..2",
        ),
        (
            "UPDATE queue SET options = '{}' WHERE name = 'q'",
            r#"queue "q": its options: missing field"#,
        ),
        (
            "UPDATE grp SET mode = 'some' WHERE name = 'all'",
            r#"subscriptions: "some" is no mode"#,
        ),
        (
            "UPDATE dead_letter SET position = 999",
            "offset 999 was never written",
        ),
        (
            "UPDATE dead_letter SET message = x'00'",
            "holds another message",
        ),
        (
            "UPDATE dead_letter SET payload = '{'",
            "the payload is not JSON",
        ),
        (
            "UPDATE dead_letter SET part = 55",
            "1 rows of dead_letter belong to no part",
        ),
        (
            "DELETE FROM trace",
            "1 rows of trace_name belong to no trace",
        ),
        (
            "DELETE FROM queue WHERE name = 'old'",
            "rows of part belong to no queue",
        ),
        (
            "DROP INDEX evicted_until",
            "layout: evicted_until is missing",
        ),
        ("DROP TABLE pin", "layout: pin is missing"),
        (
            "ALTER TABLE pin ADD COLUMN more TEXT",
            "layout: pin has another layout",
        ),
    ];
    for (damage, expected) in damages {
        let damaged = folder.path().join("damaged.db");
        fs::copy(&sound, &damaged).unwrap();
        let db = Connection::open(&damaged).unwrap();
        db.execute_batch("PRAGMA journal_mode = delete").unwrap();
        let done = db
            .execute(&damage.replace("{p}", part), [])
            .unwrap_or_else(|e| panic!("{damage}: {e}"));
        drop(db);
        let found = faults(&damaged);
        assert!(
            found.iter().any(|fault| fault.contains(expected)),
            "{damage} changed {done} rows; found {found:#?}"
        );
        let (code, said, _) = output(&["check", damaged.to_str().unwrap()]);
        assert_eq!(code, 1, "{damage}: {said}");
        assert_eq!(said.lines().count(), found.len() + 1, "{said}");
    }
}

/// Damage below the tables: SQLite itself finds it, or cannot even begin.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_a_fault_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let sound = folder.path().join("sound.db");
    busy_store(&sound).await;
    let bytes = fs::read(&sound).unwrap();
    let page = 4096;
    assert!(bytes.len() > 8 * page);
    let damaged = folder.path().join("damaged.db");
    let path = damaged.to_str().unwrap();
    // A page of garbage in each place: what SQLite does not look at may be garbage without harm, but not everywhere.
    let mut found = 0;
    for at in (1..bytes.len() / page).step_by(3) {
        let mut bytes = bytes.clone();
        bytes[at * page..(at + 1) * page].fill(0xA5);
        fs::write(&damaged, &bytes).unwrap();
        let (code, said, error) = output(&["check", path]);
        assert!(code == 0 || code == 1, "page {at}: {code} {said}{error}");
        found += i32::from(code == 1);
        assert_eq!(code == 0, said.contains("no faults"), "page {at}: {said}");
    }
    assert!(found > 3, "{found}");
    for keep in [bytes.len() - 1, bytes.len() / 2, 5 * page, page + 1, page] {
        fs::write(&damaged, &bytes[..keep]).unwrap();
        let (code, said, error) = output(&["check", path]);
        assert_eq!(code, 1, "{keep} bytes left: {said}{error}");
        assert!(
            keep == bytes.len() - 1 || said.contains("database: "),
            "{said}"
        );
    }
    // The header alone still tells that this was a store.
    let mut bytes = bytes;
    bytes[100..].fill(0x5A);
    fs::write(&damaged, &bytes).unwrap();
    let (code, said, error) = output(&["check", path]);
    assert_eq!(code, 1, "{said}{error}");
}

#[test]
fn what_cannot_be_checked_is_said_with_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let foreign = file("foreign.db");
    Connection::open(&foreign)
        .unwrap()
        .execute_batch("CREATE TABLE songs (name TEXT)")
        .unwrap();
    let store = |name: &str, version: i32| {
        let path = file(name);
        Api::fast_file(path.as_ref()).0.close();
        let db = Connection::open(&path).unwrap();
        db.pragma_update(None, "user_version", version).unwrap();
        path
    };
    let text = file("notes.txt");
    fs::write(&text, "my notes").unwrap();
    let empty = file("empty.db");
    fs::write(&empty, "").unwrap();
    let interrupted = file("interrupted.db");
    Api::fast_file(interrupted.as_ref()).0.close();
    fs::write(file("interrupted.db-journal"), "half").unwrap();
    let pipe = file("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let cases = [
        (file("none.db"), "there is no such file"),
        (file("no/such/folder.db"), "No such file"),
        (file("."), "directory"),
        (pipe, "no regular file"),
        (text, "not a Queen store"),
        (empty, "empty"),
        (foreign, "another program"),
        (store("old.db", 3), "version 3"),
        (store("new.db", 99), "version 99"),
        (interrupted, "interrupted.db-journal"),
    ];
    for (path, expected) in cases {
        let (code, said, error) = output(&["check", &path]);
        assert_eq!((code, said.as_str()), (2, ""), "{path}: {error}");
        assert!(
            error.contains(expected) && error.lines().count() == 1,
            "{path}: {error}"
        );
    }
    assert!(!Path::new(&file("none.db")).exists());
}

#[test]
fn a_store_in_use_is_named_with_its_owner_and_checked_when_that_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a store?#%.db");
    let name = path.to_str().unwrap();
    let mut server = Server::start(&["--data", name]);
    for n in 0..50 {
        let body = json!({"items": [{"queue": "q", "payload": n}]});
        let pushed = post(&agent(), &format!("{}/api/v1/push", server.base), &body);
        assert_eq!(pushed.unwrap().0, 201);
    }
    let (code, _, error) = output(&["check", name]);
    assert_eq!(code, 2);
    assert!(
        error.contains(&format!("process {} has it open", server.child.id())),
        "{error}"
    );
    server.kill();
    let log = folder.path().join("a store?#%.db-wal");
    let before = (fs::read(&path).unwrap(), fs::read(&log).unwrap());
    assert!(!before.1.is_empty(), "the log of the killed broker");
    for _ in 0..2 {
        let (code, said, error) = output(&["check", name]);
        assert_eq!(code, 0, "{said}{error}");
        assert!(said.contains("messages: 50"), "{said}");
    }
    assert!(before == (fs::read(&path).unwrap(), fs::read(&log).unwrap()));

    // Without its log, or with another one in its place, what was answered is missing, and that is said.
    fs::write(&log, vec![7; before.1.len()]).unwrap();
    let (code, said, error) = output(&["check", name]);
    assert_eq!(code, 1, "{said}{error}");
    assert!(said.contains("is not a write-ahead log"), "{said}");
    fs::write(&log, &before.1).unwrap();
    assert_eq!(output(&["check", name]).0, 0);
    drop(server);
}
