//! Where the delivery reports of a client go.

use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::client::queen_client_t;
use super::event_queue::{Event, ReportBatch, queen_event_queue_t};
use super::handle::{c_text, code, guard, lend, panicked};
use super::user_data::{UserData, queen_user_data_free};
use crate::{DeliveryReport, ReportSink};

/// Reports that may wait for the dispatcher; further ones are dropped and counted.
const MOST_WAITING: usize = 10_000;

/// Receives delivery reports: a JSON array of `len` bytes as for queen_report_events(), on loan for the time of the call,
/// and how many reports were dropped before it. Runs on the client's dispatcher thread.
pub type queen_report_handler = Option<
    unsafe extern "C" fn(json: *const c_char, len: usize, dropped: usize, user_data: *mut c_void),
>;

fn to_json(reports: &[DeliveryReport]) -> String {
    serde_json::to_string(reports).unwrap_or_else(|_| "[]".into())
}

/// The way from the client to a callback.
struct Route {
    handler: unsafe extern "C" fn(*const c_char, usize, usize, *mut c_void),
    user_data: UserData,
    waiting: AtomicUsize,
    dropped: AtomicUsize,
}

impl Route {
    fn call(&self, json: String, dropped: usize) {
        let json = c_text(json);
        // SAFETY: the host promised a function that takes these; the text lives until it returns.
        unsafe {
            (self.handler)(
                json.as_ptr(),
                json.as_bytes().len(),
                dropped,
                self.user_data.get(),
            )
        }
    }

    /// Takes what was dropped since the last call.
    fn dropped(&self) -> usize {
        self.dropped.swap(0, Ordering::SeqCst)
    }
}

/// Sends delivery reports to a callback, instead of where they went before. A NULL `handler` stops them.
///
/// Every message that was accepted into a buffer (option `buffer` of queen_push()) is reported once. The reports of 10 000
/// messages may wait for the callback; it is told how many were dropped before those that it gets, with an empty array when
/// none follow.
///
/// Returns QUEEN_OK, or QUEEN_E_INVALID_ARGUMENT, after which `user_data_free` has run.
///
/// Ownership: `client` is borrowed; `user_data` belongs to the library until `user_data_free`, which runs when the
/// callback is replaced or the client is closed.
/// Threads: any. The callback runs on the client's dispatcher thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_report_callback(
    client: *const queen_client_t,
    handler: queen_report_handler,
    user_data: *mut c_void,
    user_data_free: queen_user_data_free,
) -> i32 {
    let user_data = UserData::new(user_data, user_data_free);
    guard(panicked(), || {
        let set = || {
            // SAFETY: `client` is NULL or a living handle by contract.
            let client = &unsafe { lend(client) }?.client;
            let Some(handler) = handler else {
                client.set_reports(None);
                return Ok(());
            };
            let dispatcher = client.dispatcher();
            let route = Arc::new(Route {
                handler,
                user_data,
                waiting: AtomicUsize::new(0),
                dropped: AtomicUsize::new(0),
            });
            let sink: ReportSink = Arc::new(move |reports| {
                let count = reports.len();
                let before = route.waiting.fetch_add(count, Ordering::SeqCst);
                if before > 0 && before + count > MOST_WAITING {
                    route.waiting.fetch_sub(count, Ordering::SeqCst);
                    route.dropped.fetch_add(count, Ordering::SeqCst);
                    return;
                }
                let (route, json, dropped) = (route.clone(), to_json(reports), route.dropped());
                let _ = dispatcher.run(Box::new(move || {
                    route.call(json, dropped);
                    if route.waiting.fetch_sub(count, Ordering::SeqCst) == count {
                        // Nothing follows by itself that would tell of the gap.
                        match route.dropped() {
                            0 => {}
                            dropped => route.call("[]".into(), dropped),
                        }
                    }
                }));
            });
            client.set_reports(Some(sink));
            Ok(())
        };
        code(set())
    })
}

/// Puts delivery reports into an event queue, as QUEEN_EVENT_DELIVERY_REPORT with this tag, instead of where they went
/// before. A NULL `queue` stops them.
///
/// Every message that was accepted into a buffer (option `buffer` of queen_push()) is reported once: an event has an array
/// `[{"queue", "partition", "transactionId", "messageId", "status", "error"?, "resent"?}]` for the messages of one request.
/// The status is "queued"; "duplicate" (an id of the caller's that is stored already, with `resent` true when the message had
/// been sent before without an answer); "buffered" (the broker stores it later); or, with `error`, "failed" (the broker
/// refused it), "dropped" (it made room in a full buffer), "closed" (the client was closed first). The code of the event is
/// the number of reports that were dropped before it because 10 000 waited; an empty array tells it when none follow.
///
/// Returns QUEEN_OK, or QUEEN_E_INVALID_ARGUMENT.
///
/// Ownership: both handles are borrowed; the queue may be freed at any time.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_report_events(
    client: *const queen_client_t,
    queue: *const queen_event_queue_t,
    tag: u64,
) -> i32 {
    guard(panicked(), || {
        let set = || {
            // SAFETY: `client` is NULL or a living handle by contract.
            let client = &unsafe { lend(client) }?.client;
            if queue.is_null() {
                client.set_reports(None);
                return Ok(());
            }
            // SAFETY: not NULL, so a living handle by contract.
            let queue = unsafe { lend(queue) }?.queue.clone();
            let sink: ReportSink = Arc::new(move |reports| {
                let batch = ReportBatch {
                    json: to_json(reports),
                    count: reports.len(),
                    dropped: 0,
                };
                queue.push(Event::Reports(batch), tag);
            });
            client.set_reports(Some(sink));
            Ok(())
        };
        code(set())
    })
}
