//! The operations of a client that have not completed, so that its close can end them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::pending::{Abort, Pending};
use crate::runtime::lock;

/// Callers seldom meet in one of so many tables.
const TABLES: usize = 32;

#[derive(Default)]
pub(crate) struct Registry([Table; TABLES]);

/// A cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Table(Mutex<Running>);

#[derive(Default)]
struct Running {
    closed: bool,
    running: HashMap<usize, Arc<dyn Abort>>,
}

impl Registry {
    fn table(&self, key: usize) -> &Mutex<Running> {
        // Addresses differ in their middle bits; the product's upper bits depend on all of them. 2^64 divided by the golden ratio
        // (Knuth, The Art of Computer Programming, vol. 3, 6.4).
        let product = (key as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        &self.0[(product >> 32) as usize % TABLES].0
    }

    /// Notes an operation; `false` when the client is closed.
    pub(crate) fn insert<T: Clone + Send + Sync + 'static>(&self, pending: &Pending<T>) -> bool {
        let key = pending.key();
        let mut table = lock(self.table(key));
        if !table.closed {
            table.running.insert(key, pending.to_abort());
        }
        !table.closed
    }

    pub(crate) fn remove<T: Clone>(&self, pending: &Pending<T>) {
        let key = pending.key();
        let gone = lock(self.table(key)).running.remove(&key);
        drop(gone);
    }

    /// Takes all out; no other can come in after this.
    pub(crate) fn close(&self) -> Vec<Arc<dyn Abort>> {
        let mut rest = Vec::new();
        for Table(table) in &self.0 {
            let mut table = lock(table);
            table.closed = true;
            rest.extend(table.running.drain().map(|(_, operation)| operation));
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use crate::pending::WaitsFor;

    #[test]
    fn all_that_run_are_ended_and_none_can_come_after() {
        let registry = Registry::default();
        let pending: Vec<Pending<u32>> =
            (0..1000).map(|_| Pending::new(WaitsFor::Broker)).collect();
        assert!(pending.iter().all(|one| registry.insert(one)));
        registry.remove(&pending[7]);
        registry.remove(&pending[7]);
        let rest = registry.close();
        assert_eq!(rest.len(), 999);
        for operation in rest {
            operation.abort(ErrorCode::Closed, "closed");
        }
        let open: Vec<usize> = (0..1000).filter(|n| !pending[*n].is_complete()).collect();
        assert_eq!(open, [7]);
        assert!(!registry.insert(&pending[7]));
        assert!(registry.close().is_empty());
    }

    #[test]
    fn operations_are_spread_over_the_tables() {
        let registry = Registry::default();
        let pending: Vec<Pending<u32>> =
            (0..3200).map(|_| Pending::new(WaitsFor::Broker)).collect();
        for one in &pending {
            registry.insert(one);
        }
        let counts = registry.0.iter().map(|table| lock(&table.0).running.len());
        assert!(counts.max().unwrap() < 400);
    }
}
