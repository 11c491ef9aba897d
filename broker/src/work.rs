//! Counting what the broker does, for tests that look that it does nothing in vain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a broker has done since it was opened, as numbers that do not depend on how fast the machine is. They are for
/// comparing (does it grow with the number of partitions?), and may change with every version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Work {
    /// How often the writer thread woke up, for requests or because something was due.
    pub rounds: u64,
    /// SQL statements that were executed.
    pub statements: u64,
    /// What SQLite did for them: the steps of its virtual machine. A scan has some for each row.
    pub sql_steps: u64,
    /// Partitions that were looked at for a request or by the sweep of retention.
    pub partitions: u64,
    /// Waiting pops that were looked at because there might be something for them.
    pub polls: u64,
}

/// The counters behind it.
#[derive(Clone, Default)]
pub(crate) struct Meter(Arc<Counters>);

#[derive(Default)]
struct Counters {
    rounds: AtomicU64,
    statements: AtomicU64,
    sql_steps: AtomicU64,
    partitions: AtomicU64,
    polls: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Meter {
    pub(crate) fn round(&self) {
        add(&self.0.rounds, 1);
    }

    pub(crate) fn statement(&self, steps: u64) {
        add(&self.0.statements, 1);
        add(&self.0.sql_steps, steps);
    }

    pub(crate) fn partitions(&self, n: usize) {
        add(&self.0.partitions, n as u64);
    }

    pub(crate) fn poll(&self) {
        add(&self.0.polls, 1);
    }

    pub(crate) fn read(&self) -> Work {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Work {
            rounds: read(&self.0.rounds),
            statements: read(&self.0.statements),
            sql_steps: read(&self.0.sql_steps),
            partitions: read(&self.0.partitions),
            polls: read(&self.0.polls),
        }
    }
}
