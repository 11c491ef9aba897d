//! What is refused: each refusal says what is wrong and what to do, and leaves everything as it was.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use common::powerfail::full_disk_library;
use common::server::{Server, agent, get, output, post, program};
use common::{Api, SetOnDrop, txns, unprivileged};
use queen_broker::{Broker, OpenError, Options, Store};
use rusqlite::Connection;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};
use tempfile::TempDir;

fn open(path: &Path) -> Result<Broker, OpenError> {
    Broker::open(Options {
        store: Store::File(path.into()),
        ..Options::default()
    })
}

/// Tries to serve a store that is refused: what is said, which is one line.
fn said_by_serve(path: &Path) -> String {
    let (code, out, said) = output(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data",
        path.to_str().unwrap(),
    ]);
    assert_eq!((code, out.as_str()), (1, ""), "{path:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

/// Names and contents of a folder, but for the index of the log, which SQLite may make anew at any time.
fn picture(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut picture = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let content = match path.is_file() {
            true => fs::read(&path).unwrap(),
            false => Vec::new(),
        };
        if !path.to_str().unwrap().ends_with("-shm") {
            picture.insert(path, content);
        }
    }
    picture
}

/// A store with a message in it. Its log is empty, and it has no lock file.
fn store_in(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let api = Api::fast_file(&path);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(api.push("q", "p", "kept"));
    api.0.close();
    fs::remove_file(folder.join(format!("{name}.lock"))).unwrap();
    path
}

/// A copy of a database, taken while work is in its log.
fn with_log(from: &Path, to: &Path, work: &str) {
    let db = Connection::open(from).unwrap();
    db.execute_batch("PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0")
        .unwrap();
    db.execute_batch(work).unwrap();
    let log = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
    fs::copy(from, to).unwrap();
    fs::copy(log(from), log(to)).unwrap();
    assert!(fs::metadata(log(to)).unwrap().len() > 0);
    drop(db);
    fs::remove_file(from).unwrap();
}

#[test]
fn what_is_no_store_is_refused_and_left_as_it_was() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let written = |name: &str, content: &[u8]| {
        fs::write(file(name), content).unwrap();
        file(name)
    };
    let sound = fs::read(store_in(folder.path(), "sound.db")).unwrap();
    let sql = |name: &str, sql: &str| {
        let db = Connection::open(file(name)).unwrap();
        db.execute_batch(sql).unwrap();
        file(name)
    };
    let later = |name: &str| {
        let path = store_in(folder.path(), name);
        sql(name, "PRAGMA user_version = 99");
        path
    };

    let mut mixed = sound.clone();
    mixed[100..].fill(0x5A);
    let (foreign, newer) = (file("foreign-log.db"), file("newer-log.db"));
    with_log(&file("scratch"), &foreign, "CREATE TABLE songs (name TEXT)");
    with_log(&later("scratch"), &newer, "PRAGMA user_version = 98");
    let orphan = file("orphan.db");
    written("orphan.db-wal", b"answered work");
    let emptied = written("emptied.db", b"");
    written("emptied.db-wal", b"answered work");
    let garbage = written("garbage.db", &sound);
    written("garbage.db-wal", &[7; 5000]);
    fs::create_dir(file("folder.db")).unwrap();
    let pipe = file("pipe.db");
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, fifo, 0o600.into(), 0).unwrap();
    let link = file("link.db");
    symlink("nowhere.db", &link).unwrap();

    let not_a_store = "not a Queen store; name another file";
    // The file, what is said of it, and the status of a check: 1 where it was a store once.
    let cases = [
        (written("notes.db", b"These are my notes."), not_a_store, 2),
        (written("zeros.db", &[0; 8192]), not_a_store, 2),
        (written("short.db", b"SQLite format 3"), not_a_store, 2),
        (
            written("head.db", b"SQLite format 3\0"),
            "not a database",
            2,
        ),
        (
            written("half.db", &sound[..sound.len() / 2]),
            "the file is damaged",
            1,
        ),
        (written("mixed.db", &mixed), "the file is damaged", 1),
        (
            sql("foreign.db", "CREATE TABLE songs (name TEXT)"),
            "a database of another program",
            2,
        ),
        (foreign, "a database of another program", 2),
        (later("newer.db"), "its layout has version 99", 2),
        (newer, "its layout has version 98", 2),
        (orphan, "it is missing, but its log", 2),
        (emptied, "it is empty, but its log", 2),
        (garbage, "garbage.db-wal is not a write-ahead log", 1),
        (file("folder.db"), "it is a directory; name a file", 2),
        (pipe, "it is no regular file", 2),
        (link, "a link to a file that is not there", 2),
        (file("no/such/folder.db"), "its directory must exist", 2),
    ];
    let before = picture(folder.path());
    for (path, expected, checked) in cases {
        let said = said_by_serve(&path);
        assert!(
            said.contains(expected) && said.contains(path.to_str().unwrap()),
            "{said}"
        );
        let error = open(&path).unwrap_err().to_string();
        assert_eq!(said, format!("queen-broker: {error}\n"));
        let (code, _, said) = output(&["check", path.to_str().unwrap()]);
        assert_eq!(code, checked, "{path:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        let after = picture(folder.path());
        let names = |picture: &BTreeMap<PathBuf, Vec<u8>>| Vec::from_iter(picture.keys().cloned());
        assert_eq!(names(&after), names(&before), "{path:?}");
        assert!(after == before, "{path:?} was changed");
    }
}

/// The damage is where nothing looks at first, or where opening finds it: then the file stays as it was. In both cases
/// everything has an answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_is_an_error_and_never_a_panic() {
    let folder = TempDir::new().unwrap();
    let sound = folder.path().join("sound.db");
    let api = Api::fast_file(&sound);
    for queue in 0..40 {
        let queue = format!("queue-{queue}");
        let items: Vec<Value> = (0..20)
            .map(|n| json!({"queue": queue, "partition": format!("p{}", n % 4), "payload": "x".repeat(400)}))
            .collect();
        let (status, _) = api
            .send("POST", "/api/v1/push", json!({ "items": items }))
            .await;
        assert_eq!(status, 201);
        api.pop(
            &queue,
            "batch=3&consumerGroup=g&subscriptionMode=all&partitions=4",
        )
        .await;
    }
    api.0.close();
    let bytes = fs::read(&sound).unwrap();
    let (mut refused, mut failed) = (0, 0);
    let damaged = folder.path().join("damaged.db");
    for at in (1..bytes.len() / 4096).step_by(2) {
        let mut bytes = bytes.clone();
        bytes[at * 4096..(at + 1) * 4096].fill(0xA5);
        fs::write(&damaged, &bytes).unwrap();
        let broker = match open(&damaged) {
            Ok(broker) => broker,
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("the file is damaged"), "{error}");
                assert!(fs::read(&damaged).unwrap() == bytes, "page {at}");
                continue;
            }
        };
        let api = Api(broker);
        for queue in 0..40 {
            let item = json!({"queue": format!("queue-{queue}"), "payload": 1});
            let requests = [
                ("POST", "/api/v1/push".into(), json!({ "items": [item] })),
                (
                    "GET",
                    format!("/api/v1/pop/queue/queue-{queue}?batch=100&partitions=9&autoAck=true"),
                    Value::Null,
                ),
                (
                    "GET",
                    format!("/api/v1/messages?queue=queue-{queue}"),
                    Value::Null,
                ),
            ];
            for (method, target, body) in requests {
                let (status, answer) = api.send(method, &target, body).await;
                assert!([200, 201, 204, 500].contains(&status), "{status} {answer}");
                if status == 500 {
                    failed += 1;
                    let error = answer["error"].as_str().unwrap();
                    assert!(error.starts_with("store: "), "page {at}: {error}");
                }
            }
        }
        assert_eq!(api.send("GET", "/health", Value::Null).await.0, 200);
        api.0.close();
        // With the log of one the damage of the next would be hidden.
        let log = folder.path().join("damaged.db-wal");
        assert!(!log.exists());
    }
    assert!(refused > 0 && failed > 0, "{refused} {failed}");
}

#[test]
fn a_port_in_use_makes_no_store() {
    let folder = TempDir::new().unwrap();
    let server = Server::start(&[]);
    let path = folder.path().join("store.db");
    let path = path.to_str().unwrap();
    let flags = ["serve", "--listen", server.address(), "--data", path];
    let (code, _, said) = output(&flags);
    assert_eq!(code, 1);
    let expected = format!(
        "cannot listen on {}: Address already in use",
        server.address()
    );
    assert!(said.contains(&expected), "{said}");
    assert!(picture(folder.path()).is_empty());
}

#[test]
fn a_store_has_one_owner_in_a_process_too() {
    let folder = TempDir::new().unwrap();
    let path = store_in(folder.path(), "store.db");
    let broker = open(&path).unwrap();
    let own = Some(std::process::id());
    let is_locked =
        |error: OpenError| matches!(error, OpenError::Locked { owner_pid, .. } if owner_pid == own);
    for _ in 0..2 {
        let link = folder.path().join("../").canonicalize().unwrap();
        let link = link
            .join(folder.path().file_name().unwrap())
            .join("./store.db");
        assert!(is_locked(open(&link).unwrap_err()));
        assert!(is_locked(
            queen_broker::check(&path, |_| panic!()).unwrap_err()
        ));
        // The refusal has not given the lock away.
        let said = said_by_serve(&path);
        let expected = format!("in use by process {}", std::process::id());
        assert!(said.contains(&expected), "{said}");
    }
    broker.close();
    open(&path).unwrap().close();
    assert_eq!(queen_broker::check(&path, |_| panic!()).unwrap().faults, 0);
}

/// The program where everybody may run it.
fn program_for_all(folder: &Path) -> PathBuf {
    let program = folder.join("queen-broker");
    fs::copy(env!("CARGO_BIN_EXE_queen-broker"), &program).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    program
}

#[test]
fn what_must_not_be_written_is_refused_and_can_be_checked() {
    let home = TempDir::new().unwrap();
    let set = |path: &Path, mode| {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    set(home.path(), 0o755);
    let program = program_for_all(home.path());
    let run = |arguments: &[&str]| {
        let output = Command::new(&program).args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), said)
    };
    // The modes of folder, store and lock file, and the file that is named.
    let cases = [
        (0o777, 0o444, None, "store.db:"),
        (0o777, 0o444, Some(0o666), "store.db:"),
        (0o555, 0o666, None, "store.db.lock:"),
        (0o555, 0o666, Some(0o444), "store.db.lock:"),
        (0o555, 0o666, Some(0o666), "store.db:"),
    ];
    for (n, (folder_mode, mode, lock, named)) in cases.into_iter().enumerate() {
        let folder = home.path().join(n.to_string());
        fs::create_dir(&folder).unwrap();
        let path = store_in(&folder, "store.db");
        set(&path, mode);
        if let Some(mode) = lock {
            let lock = folder.join("store.db.lock");
            fs::write(&lock, "").unwrap();
            set(&lock, mode);
        }
        set(&folder, folder_mode);
        let before = picture(&folder);
        let name = path.to_str().unwrap();
        unprivileged(|| {
            let (code, said) = run(&["serve", "--listen", "127.0.0.1:0", "--data", name]);
            assert_eq!(code, 1, "{said}");
            assert!(
                said.contains(named) && said.contains("writable"),
                "case {n}: {said}"
            );
            let error = open(&path).unwrap_err().to_string();
            assert_eq!(said, format!("queen-broker: {error}\n"));
            assert_eq!(run(&["check", name]).0, 0);
        });
        assert!(picture(&folder) == before, "case {n}");
        set(&folder, 0o755);
    }
    // A folder in which nothing can be made.
    let folder = home.path().join("none");
    fs::create_dir(&folder).unwrap();
    set(&folder, 0o555);
    let path = folder.join("store.db");
    let said = unprivileged(|| open(&path).unwrap_err().to_string());
    assert!(said.contains("Permission denied"), "{said}");
    assert!(picture(&folder).is_empty());
}

/// A folder for a store on a disk that is full when it is told.
struct Disk {
    folder: TempDir,
    _signal: TempDir,
    full: PathBuf,
}

impl Disk {
    fn new() -> Disk {
        let signal = TempDir::new().unwrap();
        Disk {
            folder: TempDir::new().unwrap(),
            full: signal.path().join("full"),
            _signal: signal,
        }
    }

    fn program(&self) -> Command {
        let mut program = program();
        program
            .env("LD_PRELOAD", full_disk_library())
            .env("FULLDISK_FILES", self.folder.path().canonicalize().unwrap())
            .env("FULLDISK_WHEN", &self.full);
        program
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store.db")
    }

    fn start(&self) -> Server {
        Server::launch(
            &mut self.program(),
            &["--data", self.store().to_str().unwrap()],
        )
    }

    fn fill(&self, full: bool) {
        match full {
            true => fs::write(&self.full, "").unwrap(),
            false => fs::remove_file(&self.full).unwrap(),
        }
    }
}

#[test]
fn a_full_disk_refuses_the_opening() {
    let disk = Disk::new();
    let refused = |expected: &str| {
        disk.fill(true);
        let mut serve = disk.program();
        serve.args(["serve", "--listen", "127.0.0.1:0", "--data"]);
        let output = serve.arg(disk.store()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected) && said.contains("full"), "{said}");
        disk.fill(false);
    };
    refused("free some space on the disk of the store");
    let lock = disk.folder.path().join("store.db.lock");
    let left = Vec::from_iter(picture(disk.folder.path()).into_keys());
    assert_eq!(left, [lock], "no half of a store");

    drop(disk.start());
    store_in(disk.folder.path(), "store.db");
    let before = fs::read(disk.store()).unwrap();
    refused("store.db");
    assert!(fs::read(disk.store()).unwrap() == before);
    let server = disk.start();
    let (_, delivery) = get(&agent(), &format!("{}/api/v1/pop/queue/q", server.base)).unwrap();
    assert_eq!(txns(&delivery), ["kept"]);
}

/// What a producer was told of its messages, in their order.
#[derive(Default)]
struct Told {
    stored: Vec<String>,
    refused: usize,
    /// How many requests in a row had the last status, and which.
    last: (u16, usize),
}

/// Pushes one message after the other to a partition until it is told to stop, a refused one again and again: it is not
/// known as a duplicate, for it was not stored.
fn produce(base: &str, part: &str, told: &Mutex<Told>, stop: &AtomicBool, refusal: u16) {
    let agent = agent();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let txn = format!("{part}-{n}");
        let item = json!({"queue": "q", "partition": part, "transactionId": txn, "payload": "x".repeat(200)});
        let url = format!("{base}/api/v1/push");
        let (status, answer) = post(&agent, &url, &json!({"items": [item]})).unwrap();
        let mut told = told.lock().unwrap();
        told.last = match told.last {
            (last, n) if last == status => (last, n + 1),
            _ => (status, 1),
        };
        if status == 201 {
            assert_eq!(answer[0]["status"], "queued", "{answer}");
            told.stored.push(txn);
            n += 1;
        } else {
            assert_eq!(status, refusal, "{answer}");
            let error = answer["error"].as_str().unwrap();
            assert!(
                error.starts_with("store: ") && error.contains("full"),
                "{error}"
            );
            assert_eq!(answer["code"] == "store_full", refusal == 507, "{answer}");
            told.refused += 1;
        }
    }
}

const PRODUCERS: usize = 4;

/// A server whose disk gets full and free again under load, twice, and is full when it ends.
fn survive(mut server: Server, store: &Path, fill: impl Fn(bool, &Server), refusal: u16) {
    let told: [Mutex<Told>; PRODUCERS] = Default::default();
    let stop = AtomicBool::new(false);
    let wait_for = |status: u16| {
        let all = || {
            told.iter()
                .all(|told| matches!(told.lock().unwrap().last, (last, 5..) if last == status))
        };
        while !all() {
            assert!(
                told.iter().all(|told| !told.is_poisoned()),
                "a producer failed"
            );
            sleep(Duration::from_millis(5));
        }
    };
    let look = |target: &str| get(&agent(), &format!("{}{target}", server.base)).unwrap();
    thread::scope(|scope| {
        let end = SetOnDrop(&stop);
        for (n, told) in told.iter().enumerate() {
            let (base, stop) = (&server.base, &stop);
            scope.spawn(move || produce(base, &format!("p{n}"), told, stop, refusal));
        }
        for _ in 0..2 {
            wait_for(201);
            fill(true, &server);
            wait_for(refusal);
            // Who only looks is served; who takes messages needs room for the claim.
            assert_eq!(look("/health").0, 200);
            assert_eq!(look("/api/v1/messages?queue=q").0, 200);
            assert_eq!(look("/api/v1/resources/queues/q").0, 200);
            assert_eq!(look("/api/v1/pop/queue/q").0, refusal);
            fill(false, &server);
        }
        wait_for(201);
        fill(true, &server);
        wait_for(refusal);
        drop(end);
    });
    assert!(server.terminate().success());
    assert_eq!(
        queen_broker::check(store, |fault| panic!("{fault}"))
            .unwrap()
            .faults,
        0
    );

    let api = Api::file(store);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for (n, told) in told.into_iter().enumerate() {
        let told = told.into_inner().unwrap();
        assert!(told.refused >= 15, "{}", told.refused);
        let target = format!("q/partition/p{n}");
        let mut stored = Vec::new();
        loop {
            let delivery = runtime.block_on(api.pop(&target, "batch=1000&autoAck=true"));
            if delivery.is_null() {
                break;
            }
            stored.extend(txns(&delivery).into_iter().map(str::to_owned));
        }
        assert_eq!(
            stored, told.stored,
            "exactly what was answered, in its order"
        );
    }
}

#[test]
fn a_disk_that_fills_up_refuses_and_loses_nothing() {
    let disk = Disk::new();
    survive(disk.start(), &disk.store(), |full, _| disk.fill(full), 507);
}

/// The system has other reasons to let no file grow; they are told by another error.
#[test]
fn a_limit_on_files_refuses_and_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let store = folder.path().join("store.db");
    let server = Server::start(&["--data", store.to_str().unwrap()]);
    let limit = |full: bool, server: &Server| {
        let pid = Pid::from_raw(server.child.id() as i32);
        let resource = Resource::Fsize;
        // The server has the limit of its parent, which is this process.
        let maximum = getrlimit(resource).maximum;
        let current = if full { Some(4096) } else { maximum };
        prlimit(pid, resource, Rlimit { current, maximum }).unwrap();
    };
    survive(server, &store, limit, 500);
}
