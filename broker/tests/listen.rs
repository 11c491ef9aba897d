//! Where the server listens: several addresses, socket files and what else may be at their place.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use common::server::{Server, agent, answer, get, output, request};
use common::unprivileged;
use tempfile::TempDir;

fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// Status of a request over a socket file.
fn health(socket: &Path) -> u16 {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream
        .write_all(request("GET", "/health", "").as_bytes())
        .unwrap();
    answer(&mut stream).0
}

/// What is said of an address that cannot be had; nothing is left behind.
fn refused(addresses: &[&str]) -> String {
    let folder = TempDir::new().unwrap();
    let store = folder.path().join("store.db");
    let mut arguments = vec!["serve", "--data", store.to_str().unwrap()];
    for address in addresses {
        arguments.extend(["--listen", address]);
    }
    let (code, out, said) = output(&arguments);
    assert_eq!((code, out.as_str()), (1, ""), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{said}");
    said
}

#[test]
fn every_address_is_served_and_told() {
    let folder = TempDir::new().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b c"));
    let server = Server::start_on(&["127.0.0.1:0", &unix(&a), "[::1]:0", &unix(&b)], &[]);
    assert_eq!(
        get(&agent(), &format!("{}/health", server.base)).unwrap().0,
        200
    );
    assert_eq!((health(&a), health(&b)), (200, 200));
    let first = Server::start_on(&[&unix(&folder.path().join("c"))], &[]);
    assert_eq!(first.base, unix(&folder.path().join("c")));
}

#[test]
fn a_socket_file_has_the_permissions_that_are_set() {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let path = folder.path().join("socket");
    let cases = [
        (&[][..], 0o600),
        (&["--socket-mode", "660"], 0o660),
        (&["--socket-mode", "0666"], 0o666),
    ];
    for (flags, mode) in cases {
        let mut server = Server::start_on(&[&unix(&path)], flags);
        let file = fs::symlink_metadata(&path).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!(file.mode() & 0o777, mode, "{flags:?}");
        assert_eq!(health(&path), 200);
        if file.uid() == 0 {
            // Another user gets in only where the mode says so.
            let stranger = unprivileged(|| UnixStream::connect(&path).is_ok());
            assert_eq!(stranger, mode == 0o666, "{flags:?}");
        }
        assert!(server.terminate().success());
        assert!(!path.exists());
    }
}

#[test]
fn the_socket_file_of_a_dead_server_is_taken_over() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("socket");
    let mut dead = Server::start_on(&[&unix(&path)], &[]);
    dead.kill();
    assert!(path.exists());
    let server = Server::start_on(&[&unix(&path)], &[]);
    assert_eq!(health(&path), 200);

    // The one that lives keeps its own.
    let said = refused(&[&unix(&path)]);
    assert!(said.contains("another process listens there"), "{said}");
    assert!(said.contains(path.to_str().unwrap()), "{said}");
    assert_eq!(health(&path), 200);
    drop(server);
}

#[test]
fn what_is_no_socket_stays() {
    let folder = TempDir::new().unwrap();
    let notes = folder.path().join("notes");
    fs::write(&notes, "my notes").unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&notes, &link).unwrap();
    for path in [&notes, &link] {
        let said = refused(&[&unix(path)]);
        assert!(said.contains("no socket; name another path"), "{said}");
    }
    assert_eq!(fs::read_to_string(&link).unwrap(), "my notes");
    let said = refused(&[&unix(folder.path())]);
    assert!(said.contains("no socket"), "{said}");
    let said = refused(&[&unix(&folder.path().join("none/socket"))]);
    assert!(said.contains("No such file"), "{said}");
    let long = folder.path().join("x".repeat(200));
    let said = refused(&[&unix(&long)]);
    assert!(said.contains("cannot listen on"), "{said}");

    // One address that cannot be had takes the others with it.
    let fine = folder.path().join("fine");
    refused(&[&unix(&fine), &unix(&notes)]);
    assert!(!fine.exists());
}

/// A server removes the file that it made, not one that another server has put there meanwhile.
#[test]
fn a_server_leaves_the_file_of_its_successor() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("socket");
    let mut old = Server::start_on(&[&unix(&path)], &[]);
    fs::remove_file(&path).unwrap();
    let _new = Server::start_on(&[&unix(&path)], &[]);
    assert!(old.terminate().success());
    assert_eq!(health(&path), 200);
}
