//! The statistics of a client.

use std::sync::Arc;

use super::client::{queen_client_t, with_client};
use super::event_queue::{Event, Newest, queen_event_queue_t};
use super::future::queen_future_t;
use super::handle::{code, guard, lend, panicked};
use crate::{Output, Pending, Statistics, StatisticsSink};

/// What the client has done and what it has under way: counters, gauges and latencies. docs/STATISTICS.md explains each
/// field of the result.
///
/// The future is complete at once; no broker is asked.
///
/// Ownership: `client` is borrowed; the future is returned and freed with queen_future_free(), which ends its JSON.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_client_stats(client: *const queen_client_t) -> *mut queen_future_t {
    // SAFETY: `client` is NULL or a living handle by contract.
    unsafe {
        with_client(client, |client| {
            Ok(Box::new(Pending::ready(client.stats())))
        })
    }
}

/// Puts the statistics into an event queue every `statisticsIntervalMillis` of the configuration, as QUEEN_EVENT_STATISTICS
/// with this tag, instead of where they went before. A NULL `queue` stops them. Only the newest waits in the queue.
///
/// Returns QUEEN_OK; QUEEN_E_INVALID_CONFIG when `statisticsIntervalMillis` is 0; QUEEN_E_CLOSED; QUEEN_E_INVALID_ARGUMENT.
///
/// Ownership: both handles are borrowed; the queue may be freed at any time.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_statistics_events(
    client: *const queen_client_t,
    queue: *const queen_event_queue_t,
    tag: u64,
) -> i32 {
    guard(panicked(), || {
        let set = || {
            // SAFETY: `client` is NULL or a living handle by contract.
            let client = &unsafe { lend(client) }?.client;
            if queue.is_null() {
                return client.set_statistics(None);
            }
            // SAFETY: not NULL, so a living handle by contract.
            let queue = unsafe { lend(queue) }?.queue.clone();
            let newest = Arc::new(Newest::default());
            let sink: StatisticsSink = Arc::new(move |statistics: &Statistics| {
                if newest.put(statistics.to_json()) {
                    queue.push(Event::Statistics(newest.clone()), tag);
                }
            });
            client.set_statistics(Some(sink))
        };
        code(set())
    })
}
