//! What a power failure costs: the broker runs on a disk that keeps what was synced and forgets the rest
//! (`tests/powerfail/disk.c`), and is cut off at random moments.

mod common;

use std::sync::Mutex;
use std::time::Duration;

use common::ledger::{self, Differences, Ledger, Random};
use common::powerfail::disk_library;
use common::server::{Server, program};
use tempfile::TempDir;

/// What outlives the power: a folder with a store, and what clients know about it.
struct Disk {
    folder: TempDir,
    ledger: Mutex<Ledger>,
    rounds: usize,
}

impl Disk {
    fn new() -> Disk {
        Disk {
            folder: tempfile::tempdir().unwrap(),
            ledger: Mutex::default(),
            rounds: 0,
        }
    }

    /// The broker serves what is on the disk until, some time after so many answered pushes, the power is cut. With a
    /// seed, random writes reach the disk unasked. The answer: how the disk differs from what clients know.
    fn cut(
        &mut self,
        durability: &str,
        seed: u64,
        pushes: u64,
        random: &mut Random,
    ) -> Differences {
        let files = tempfile::tempdir().unwrap();
        ledger::copy_files(self.folder.path(), files.path());
        let files = files.path().canonicalize().unwrap();
        let mut command = program();
        command
            .env("LD_PRELOAD", disk_library())
            .env("POWERFAIL_FILES", &files)
            .env("POWERFAIL_DISK", self.folder.path().canonicalize().unwrap())
            .env("POWERFAIL_SEED", seed.to_string())
            .env("POWERFAIL_MICROS", "1000");
        let store = files.join("store.db");
        let data = [
            "--data",
            store.to_str().unwrap(),
            "--durability",
            durability,
        ];
        let server = Server::launch(&mut command, &data);
        let pause = Duration::from_micros(random.below(20_000));
        ledger::work(server, self.rounds, &self.ledger, pushes as usize, pause);
        self.rounds += 1;
        ledger::compare(self.folder.path(), &self.ledger.lock().unwrap())
    }
}

fn loses_nothing(seed: impl Fn(&mut Random) -> u64) {
    let mut random = Random::new();
    for _ in 0..ledger::size(1, 10) {
        let mut disk = Disk::new();
        for round in 0..6 {
            let (seed, pushes) = (seed(&mut random), 30 + random.below(50));
            let found = disk.cut("full", seed, pushes, &mut random);
            assert_eq!(found, Differences::default(), "round {round}, seed {seed}");
        }
        let written = disk
            .folder
            .path()
            .join("store.db")
            .metadata()
            .unwrap()
            .len();
        assert!(
            written > 1 << 20,
            "no checkpoint was under way: {written} bytes"
        );
    }
}

#[test]
fn full_loses_nothing_that_was_answered() {
    loses_nothing(|_| 0);
}

/// A disk writes back when it likes, not only when it is asked.
#[test]
fn full_does_not_mind_what_else_reaches_the_disk() {
    loses_nothing(|random| 1 + random.below(1 << 30));
}

#[test]
fn normal_loses_the_last_answers_and_stays_sound() {
    let mut random = Random::new();
    let mut lost = 0;
    for round in 0..ledger::size(4, 40) {
        let seed = (round as u64 % 2) * (1 + random.below(1 << 30));
        // Some rounds go on until a checkpoint has synced a part of it.
        let pushes = if round % 4 < 2 { 20 } else { 150 } + random.below(60);
        // A disk of its own for each: what one round has lost would be missing in the next.
        let found = Disk::new().cut("normal", seed, pushes, &mut random);
        assert!(
            found.skipped.is_empty() && found.disordered.is_empty(),
            "seed {seed}: {found:?}"
        );
        lost += found.lost.len();
    }
    // Otherwise nothing here would be a proof.
    assert!(lost > 0);
}
