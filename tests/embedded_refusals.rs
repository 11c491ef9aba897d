//! Stores that an `embedded:` URL names and that cannot be used: the first call says why, and nothing is changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use queen::{Client, Error, ErrorCode, Item, Outcome};
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

const LONG: Duration = Duration::from_secs(60);

fn client(path: &Path) -> Client {
    Client::new(&format!("embedded://{}", path.display())).unwrap()
}

/// What the first call says; the second says it too.
fn refused(path: &Path) -> Error {
    let client = client(path);
    let push = || {
        let item = Item::json(r#"{"n":1}"#).unwrap();
        client.queue("q").push(&[item]).wait(LONG).unwrap_err()
    };
    let (error, again) = (push(), push());
    assert_eq!(error.message(), again.message());
    client.close(LONG).wait(LONG).unwrap();
    error
}

/// Names and contents of a folder, but for the index of a log.
fn picture(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    paths
        .filter(|path| !path.to_str().unwrap().ends_with("-shm"))
        .map(|path| (path.clone(), fs::read(&path).unwrap_or_default()))
        .collect()
}

/// A store with a message; what keeps it from being used is up to the test.
fn store(path: &Path) -> Vec<u8> {
    let client = client(path);
    let item = Item::json(r#"{"n":1}"#).unwrap();
    client.queue("q").push(&[item]).wait(LONG).unwrap();
    client.close(LONG).wait(LONG).unwrap();
    fs::read(path).unwrap()
}

/// Makes this thread, and the threads that the client starts from it, one of a user whom file permissions bind. Nothing
/// binds root.
fn be_bound() {
    if geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(65534), Gid::from_raw(65534));
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
    }
}

/// One test, because the threads of the library are shared by the whole process.
#[test]
fn a_store_that_cannot_be_used_is_an_error_and_left_as_it_was() {
    be_bound();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let sound = store(&folder.path().join("sound.db"));
    // Places in the header of a database: the version of the layout, and whose it is.
    let edited = |at: usize, to: [u8; 4]| {
        let mut bytes = sound.clone();
        bytes[at..at + 4].copy_from_slice(&to);
        bytes
    };
    file("gone.db-wal", b"answered work");
    let closed = file("closed.db", &sound);
    fs::set_permissions(&closed, PermissionsExt::from_mode(0o444)).unwrap();
    let cases = [
        (
            file("notes.db", b"These are my notes."),
            "not a Queen store",
        ),
        (file("half.db", &sound[..8192]), "damaged"),
        (file("newer.db", &edited(60, [0, 0, 0, 99])), "version 99"),
        (file("foreign.db", &edited(68, *b"song")), "another program"),
        (closed, "Permission denied"),
        (folder.path().join("gone.db"), "it is missing, but its log"),
        (folder.path().join("."), "it is a directory"),
        (folder.path().join("none/x.db"), "create it first"),
    ];
    let before = picture(folder.path());
    for (path, expected) in cases {
        let error = refused(&path);
        assert_eq!(error.code(), ErrorCode::Store, "{error}");
        assert_eq!(error.outcome(), Outcome::NotApplied);
        assert!(error.message().contains(expected), "{error}");
        assert!(picture(folder.path()) == before, "{path:?}: {error}");
    }
}
