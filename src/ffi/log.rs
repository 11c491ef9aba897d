//! Where the log records of a client go.

use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::client::queen_client_t;
use super::event_queue::{Event, queen_event_queue_t};
use super::handle::{c_text, code, guard, lend, panicked};
use super::user_data::{UserData, queen_user_data_free};
use crate::{Error, Level, LogSink, Result};

/// Records that may wait for the dispatcher; further ones are dropped and counted.
const MOST_WAITING: usize = 10_000;

/// Receives a log record: a JSON object `{"time", "level", "component", "operation", "message", ...}` of `len` bytes, on loan for
/// the time of the call. Payloads and tokens are never part of it. Runs on the client's dispatcher thread.
pub type queen_log_handler = Option<
    unsafe extern "C" fn(level: i32, json: *const c_char, len: usize, user_data: *mut c_void),
>;

fn level(number: i32) -> Result<Level> {
    Level::from_number(number).ok_or_else(|| {
        Error::argument(format!(
            "level is {number}; it must be a QUEEN_LOG_* number, 1 to 4"
        ))
    })
}

/// Adds to a record how many before it were dropped.
pub(super) fn with_dropped(json: String, dropped: usize) -> String {
    match json.strip_suffix('}') {
        Some(open) if dropped > 0 => format!("{open},\"dropped\":{dropped}}}"),
        _ => json,
    }
}

/// Sends log records of `level` (QUEEN_LOG_*) and above to a callback, instead of where they went before. A NULL `handler`
/// stops them.
///
/// At most 10 000 records wait for the callback; the next after a gap has the number of those dropped in `dropped`.
///
/// Returns QUEEN_OK, or QUEEN_E_INVALID_ARGUMENT, after which `user_data_free` has run.
///
/// Ownership: `client` is borrowed; `user_data` belongs to the library until `user_data_free`, which runs when the
/// callback is replaced or the client is closed.
/// Threads: any. The callback runs on the client's dispatcher thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_log_callback(
    client: *const queen_client_t,
    level: i32,
    handler: queen_log_handler,
    user_data: *mut c_void,
    user_data_free: queen_user_data_free,
) -> i32 {
    let user_data = UserData::new(user_data, user_data_free);
    guard(panicked(), || {
        let set = || {
            // SAFETY: `client` is NULL or a living handle by contract.
            let client = &unsafe { lend(client) }?.client;
            let level = self::level(level)?;
            let Some(handler) = handler else {
                client.set_log(level, None);
                return Ok(());
            };
            let dispatcher = client.dispatcher();
            let user_data = Arc::new(user_data);
            let waiting = Arc::new(AtomicUsize::new(0));
            let dropped = AtomicUsize::new(0);
            let sink: LogSink = Arc::new(move |level, json| {
                if waiting.fetch_add(1, Ordering::SeqCst) >= MOST_WAITING {
                    waiting.fetch_sub(1, Ordering::SeqCst);
                    dropped.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                let record = c_text(with_dropped(
                    json.to_owned(),
                    dropped.swap(0, Ordering::SeqCst),
                ));
                let (user_data, waiting) = (user_data.clone(), waiting.clone());
                let _ = dispatcher.run(Box::new(move || {
                    waiting.fetch_sub(1, Ordering::SeqCst);
                    // SAFETY: the host promised a function that takes these; the record lives until it returns.
                    unsafe {
                        handler(
                            level as i32,
                            record.as_ptr(),
                            record.as_bytes().len(),
                            user_data.get(),
                        )
                    }
                }));
            });
            client.set_log(level, Some(sink));
            Ok(())
        };
        code(set())
    })
}

/// Puts log records of `level` (QUEEN_LOG_*) and above into an event queue, as QUEEN_EVENT_LOG with this tag, instead of
/// where they went before. A NULL `queue` stops them.
///
/// Returns QUEEN_OK, or QUEEN_E_INVALID_ARGUMENT.
///
/// Ownership: both handles are borrowed; the queue may be freed at any time.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_log_events(
    client: *const queen_client_t,
    level: i32,
    queue: *const queen_event_queue_t,
    tag: u64,
) -> i32 {
    guard(panicked(), || {
        let set = || {
            // SAFETY: `client` is NULL or a living handle by contract.
            let client = &unsafe { lend(client) }?.client;
            let level = self::level(level)?;
            if queue.is_null() {
                client.set_log(level, None);
                return Ok(());
            }
            // SAFETY: not NULL, so a living handle by contract.
            let queue = unsafe { lend(queue) }?.queue.clone();
            let sink: LogSink = Arc::new(move |level, json| {
                queue.push(Event::Log(level, json.to_owned()), tag);
            });
            client.set_log(level, Some(sink));
            Ok(())
        };
        code(set())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_told() {
        assert_eq!(with_dropped(r#"{"a":1}"#.into(), 0), r#"{"a":1}"#);
        assert_eq!(
            with_dropped(r#"{"a":1}"#.into(), 3),
            r#"{"a":1,"dropped":3}"#
        );
    }
}
