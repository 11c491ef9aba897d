//! `queen_event_t`: the plain struct that polls fill.

use std::ffi::{c_char, c_void};
use std::mem::size_of;

use super::codes::{
    QUEEN_EVENT_BACKEND_STATE, QUEEN_EVENT_CONSUMER_ENDED, QUEEN_EVENT_DELIVERY,
    QUEEN_EVENT_DELIVERY_REPORT, QUEEN_EVENT_FUTURE, QUEEN_EVENT_LEASE_LOST, QUEEN_EVENT_LOG,
    QUEEN_EVENT_STATISTICS, QUEEN_EVENT_TOKEN_WANTED, QUEEN_EVENT_WINDOW,
};
use super::delivery::queen_delivery_t;
use super::event_queue::Event;
use super::future::queen_future_t;
use super::handle::{free, free_text, free_with, give, give_boxed, give_text, guard};
use super::spare;
use super::window::queen_window_t;

/// One event. Filled by queen_event_queue_poll(), given back with queen_events_free().
#[repr(C)]
pub struct queen_event_t {
    /// QUEEN_EVENT_FUTURE, _DELIVERY, _CONSUMER_ENDED, _LEASE_LOST, _LOG, _DELIVERY_REPORT, _STATISTICS, _TOKEN_WANTED,
    /// _BACKEND_STATE or _WINDOW.
    pub r#type: i32,
    /// FUTURE, CONSUMER_ENDED: QUEEN_OK or the QUEEN_E_* of the error. LOG: the level. DELIVERY_REPORT: how many reports
    /// were dropped before this one. Else 0.
    pub code: i32,
    /// The tag that was given along with the route.
    pub tag: u64,
    /// UTF-8, NUL-terminated, on loan until queen_events_free(); NULL where there is none. FUTURE: the result (NULL for a
    /// pop or a poll of a stream, use the object). CONSUMER_ENDED: the summary, or the error. LEASE_LOST: `queue`,
    /// `partition`, `partitionId`, `leaseId`, `consumerGroup`, `certain`; of a window `stream`, `key`, `windowId`, `leaseId`,
    /// `consumerGroup`, `certain`. LOG: the record. DELIVERY_REPORT: see queen_report_events(). STATISTICS: the document of
    /// docs/STATISTICS.md. TOKEN_WANTED: see queen_token_callback(). BACKEND_STATE: see queen_backend_callback().
    pub json: *const c_char,
    /// Length of `json` in bytes.
    pub json_len: usize,
    /// FUTURE: a `const queen_future_t *` on loan until queen_events_free(). DELIVERY: a `queen_delivery_t *` that the
    /// event owns until queen_event_take_delivery(). WINDOW: a `queen_window_t *` that it owns until
    /// queen_event_take_window(). Else NULL.
    pub object: *mut c_void,
    /// Size of one event in the array that was polled, written by the library.
    pub event_size: usize,
}

impl queen_event_t {
    fn empty() -> queen_event_t {
        queen_event_t {
            r#type: 0,
            code: 0,
            tag: 0,
            json: std::ptr::null(),
            json_len: 0,
            object: std::ptr::null_mut(),
            event_size: 0,
        }
    }

    /// Turns a queued event into one that the host holds.
    pub(super) fn make(event: Event, tag: u64, event_size: usize) -> queen_event_t {
        let mut made = queen_event_t {
            tag,
            event_size,
            ..queen_event_t::empty()
        };
        let text =
            |made: &mut queen_event_t, json: String| (made.json, made.json_len) = give_text(json);
        match event {
            Event::Future(inner) => {
                inner.polled();
                made.r#type = QUEEN_EVENT_FUTURE;
                made.code = inner.code();
                if let Some(json) = inner.event_json() {
                    // Lives as long as the future, which the event keeps.
                    (made.json, made.json_len) = (json.as_ptr(), json.count_bytes());
                }
                made.object = give_boxed(spare::boxed(queen_future_t::lent(inner))).cast();
            }
            Event::Delivery(delivery) => {
                made.r#type = QUEEN_EVENT_DELIVERY;
                made.object = give(queen_delivery_t::new(delivery)).cast();
            }
            Event::Window(window) => {
                made.r#type = QUEEN_EVENT_WINDOW;
                made.object = give(queen_window_t::new(window)).cast();
            }
            Event::Ended(result) => {
                made.r#type = QUEEN_EVENT_CONSUMER_ENDED;
                made.code = result
                    .as_ref()
                    .err()
                    .map_or(0, |error| error.code().number());
                let json = result.unwrap_or_else(|error| error.to_json());
                text(&mut made, json);
            }
            Event::LeaseLost(json) => {
                made.r#type = QUEEN_EVENT_LEASE_LOST;
                text(&mut made, json);
            }
            Event::Log(level, json) => {
                made.r#type = QUEEN_EVENT_LOG;
                made.code = level as i32;
                text(&mut made, json);
            }
            Event::Reports(reports) => {
                made.r#type = QUEEN_EVENT_DELIVERY_REPORT;
                made.code = i32::try_from(reports.dropped).unwrap_or(i32::MAX);
                text(&mut made, reports.json);
            }
            Event::Statistics(newest) => {
                made.r#type = QUEEN_EVENT_STATISTICS;
                text(&mut made, newest.take());
            }
            Event::TokenWanted(newest) => {
                made.r#type = QUEEN_EVENT_TOKEN_WANTED;
                text(&mut made, newest.take());
            }
            Event::BackendState(newest) => {
                made.r#type = QUEEN_EVENT_BACKEND_STATE;
                text(&mut made, newest.take());
            }
        }
        made
    }

    /// Frees what the event lends or owns, and empties it.
    ///
    /// # Safety
    /// The event was made by [`queen_event_t::make`], or is empty.
    unsafe fn clear(&mut self) {
        let event = std::mem::replace(self, queen_event_t::empty());
        // SAFETY: `make` has put handles and texts of these kinds into events of these types.
        unsafe {
            match event.r#type {
                QUEEN_EVENT_FUTURE => {
                    free_with(event.object.cast::<queen_future_t>(), spare::unbox);
                }
                QUEEN_EVENT_DELIVERY => free(event.object.cast::<queen_delivery_t>()),
                QUEEN_EVENT_WINDOW => free(event.object.cast::<queen_window_t>()),
                QUEEN_EVENT_CONSUMER_ENDED
                | QUEEN_EVENT_LEASE_LOST
                | QUEEN_EVENT_LOG
                | QUEEN_EVENT_DELIVERY_REPORT
                | QUEEN_EVENT_STATISTICS
                | QUEEN_EVENT_TOKEN_WANTED
                | QUEEN_EVENT_BACKEND_STATE => free_text(event.json),
                _ => {}
            }
        }
    }
}

/// The first fields that every version of the struct has had.
pub(super) const OLDEST_EVENT_SIZE: usize = size_of::<queen_event_t>();

/// The name of an event type: "future", "delivery", "consumer_ended", "lease_lost", "log", "delivery_report",
/// "statistics", "token_wanted", "backend_state" or "window". NULL for another number.
///
/// Ownership: the text is static.
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn queen_event_type_name(r#type: i32) -> *const c_char {
    match r#type {
        QUEEN_EVENT_FUTURE => c"future".as_ptr(),
        QUEEN_EVENT_DELIVERY => c"delivery".as_ptr(),
        QUEEN_EVENT_CONSUMER_ENDED => c"consumer_ended".as_ptr(),
        QUEEN_EVENT_LEASE_LOST => c"lease_lost".as_ptr(),
        QUEEN_EVENT_LOG => c"log".as_ptr(),
        QUEEN_EVENT_DELIVERY_REPORT => c"delivery_report".as_ptr(),
        QUEEN_EVENT_STATISTICS => c"statistics".as_ptr(),
        QUEEN_EVENT_TOKEN_WANTED => c"token_wanted".as_ptr(),
        QUEEN_EVENT_BACKEND_STATE => c"backend_state".as_ptr(),
        QUEEN_EVENT_WINDOW => c"window".as_ptr(),
        _ => std::ptr::null(),
    }
}

/// Takes the delivery out of a QUEEN_EVENT_DELIVERY, so that it outlives the event.
///
/// NULL for NULL, for other events, and when it was taken before.
///
/// Ownership: `event` is borrowed; the delivery is returned and freed with queen_delivery_free().
/// Threads: any, one at a time for the same event.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_event_take_delivery(
    event: *mut queen_event_t,
) -> *mut queen_delivery_t {
    guard(std::ptr::null_mut(), || {
        // SAFETY: `event` is NULL or an event of the host's by contract.
        match unsafe { event.as_mut() } {
            Some(event) if event.r#type == QUEEN_EVENT_DELIVERY => {
                std::mem::replace(&mut event.object, std::ptr::null_mut()).cast()
            }
            _ => std::ptr::null_mut(),
        }
    })
}

/// Takes the window out of a QUEEN_EVENT_WINDOW, so that it outlives the event.
///
/// NULL for NULL, for other events, and when it was taken before.
///
/// Ownership: `event` is borrowed; the window is returned and freed with queen_window_free().
/// Threads: any, one at a time for the same event.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_event_take_window(event: *mut queen_event_t) -> *mut queen_window_t {
    guard(std::ptr::null_mut(), || {
        // SAFETY: `event` is NULL or an event of the host's by contract.
        match unsafe { event.as_mut() } {
            Some(event) if event.r#type == QUEEN_EVENT_WINDOW => {
                std::mem::replace(&mut event.object, std::ptr::null_mut()).cast()
            }
            _ => std::ptr::null_mut(),
        }
    })
}

/// Frees what `count` events lend or own and empties them; a delivery or window that was not taken goes back to the
/// broker. Events that are empty already, and NULL, are ignored.
///
/// Ownership: what the events lend is consumed; the array itself stays the host's.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_events_free(events: *mut queen_event_t, count: usize) {
    guard((), || {
        let mut next = events.cast::<u8>();
        for _ in 0..count {
            // SAFETY: `events` is NULL or an array of `count` events by contract; its stride is the size that the host's
            // compiler knew, which the poll has written into each of them.
            unsafe {
                let Some(event) = next.cast::<queen_event_t>().as_mut() else {
                    return;
                };
                let stride = event.event_size.max(OLDEST_EVENT_SIZE);
                event.clear();
                event.event_size = stride;
                next = next.add(stride);
            }
        }
    });
}
