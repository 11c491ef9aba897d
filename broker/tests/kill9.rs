//! `kill -9` at random moments: no answered push is lost or would be stored twice, no answered ack is undone, and the order
//! stays.

mod common;

use std::sync::Mutex;
use std::time::Duration;

use common::ledger::{self, Differences, Ledger, Random};
use common::server::Server;

/// Rounds on one store; then a new one, so that the copies stay small.
const ROUNDS: usize = 10;

#[test]
fn nothing_answered_is_undone() {
    let stores = ledger::size(1, 10);
    let mut random = Random::new();
    for _ in 0..stores {
        kill_again_and_again(&mut random);
    }
}

fn kill_again_and_again(random: &mut Random) {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store.db");
    let ledger = Mutex::new(Ledger::default());
    for round in 0..ROUNDS {
        let server = Server::start(&["--data", store.to_str().unwrap()]);
        let (pushes, pause) = (
            1 + random.below(60),
            Duration::from_micros(random.below(20_000)),
        );
        ledger::work(server, round, &ledger, pushes as usize, pause);
        let found = ledger::compare(folder.path(), &ledger.lock().unwrap());
        assert_eq!(found, Differences::default(), "round {round}");
    }
    let acked = ledger.into_inner().unwrap().acked.len();
    assert!(acked > ROUNDS, "hardly anything happened");
}
