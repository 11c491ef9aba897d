//! Counting statements. SQLite tells of each one that it has finished; the thread knows who counts them.

use std::cell::RefCell;
use std::collections::HashMap;

use rusqlite::StatementStatus;
use rusqlite::trace::{TraceEvent, TraceEventCodes};

use super::Db;
use crate::work::Meter;

thread_local! {
    static METER: RefCell<Option<Ledger>> = const { RefCell::new(None) };
}

/// SQLite counts the steps of a prepared statement from its first run on.
struct Ledger {
    meter: Meter,
    seen: HashMap<String, i32>,
}

impl Db {
    /// Counts the statements of this connection, which is used by the calling thread only from now on.
    pub(crate) fn count_work(&self, meter: &Meter) {
        METER.set(Some(Ledger {
            meter: meter.clone(),
            seen: HashMap::new(),
        }));
        self.sql
            .trace_v2(TraceEventCodes::SQLITE_TRACE_PROFILE, Some(finished));
    }
}

fn finished(event: TraceEvent) {
    let TraceEvent::Profile(statement, _) = event else {
        return;
    };
    METER.with_borrow_mut(|ledger| {
        let Some(ledger) = ledger else { return };
        let steps = statement.get_status(StatementStatus::VmStep);
        let seen = ledger.seen.entry(statement.sql().into_owned()).or_default();
        // A statement that was prepared anew counts from zero.
        let fresh = if steps < *seen { steps } else { steps - *seen };
        *seen = steps;
        ledger.meter.statement(fresh.max(0) as u64);
    });
}
