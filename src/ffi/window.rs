//! `queen_window_t`.

use std::ffi::{CString, c_char, c_void};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::delivery::{self, queen_message_view_t};
use super::future::{future, queen_future_t};
use super::handle::{
    self, Object, Stamp, body, c_text, code, give, guard, lend, or_empty, panicked, required_text,
};
use crate::{Aggregation, Error, Output, Pending, Result, Window};

/// A window of a stream under one lease: all messages that the broker stored in a span of time, of one partition name or of
/// all.
///
/// It is settled once, by queen_window_ack(), queen_window_nack(), or what its handler returns. Filters change only what
/// this handle shows; the messages themselves stay as they came, and queen_window_reset() brings all of them back.
///
/// Ownership: freed with queen_window_free() by whoever holds it. Freed unsettled, it goes back and comes again.
pub struct queen_window_t {
    stamp: Stamp,
    window: Mutex<Window>,
    texts: [OnceLock<CString>; 4],
}

impl Object for queen_window_t {
    const NAME: &'static str = "window";

    fn stamp(&self) -> &Stamp {
        &self.stamp
    }
}

impl queen_window_t {
    pub(super) fn new(window: Window) -> queen_window_t {
        queen_window_t {
            stamp: Stamp::owned(),
            window: Mutex::new(window),
            texts: Default::default(),
        }
    }

    /// The window as it is now. No lock is held while callbacks of the host run.
    fn now(&self) -> Window {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.clone()
    }

    fn set(&self, window: Window) {
        *self.window.lock().unwrap_or_else(PoisonError::into_inner) = window;
    }
}

/// Says of a message whether it stays: any number but 0.
///
/// Ownership: `message` is on loan for the time of the call.
/// Threads: the one that has called queen_window_filter(), before that returns.
pub type queen_window_predicate = Option<
    unsafe extern "C" fn(message: *const queen_message_view_t, user_data: *mut c_void) -> i32,
>;

/// # Safety
/// `window` is NULL or a living handle.
unsafe fn text(
    window: *const queen_window_t,
    place: usize,
    of: fn(&Window) -> &str,
) -> *const c_char {
    guard(std::ptr::null(), || {
        // SAFETY: promised by the caller.
        let Ok(window) = (unsafe { lend(window) }) else {
            return std::ptr::null();
        };
        window.texts.get(place).map_or(std::ptr::null(), |text| {
            text.get_or_init(|| c_text(of(&window.now()))).as_ptr()
        })
    })
}

/// The id of the window: the same each time that it comes. NULL for NULL.
///
/// Ownership: the text (UTF-8, NUL-terminated) is on loan until the window is freed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_window_id(window: *const queen_window_t) -> *const c_char {
    // SAFETY: `window` is NULL or a living handle by contract.
    unsafe { text(window, 0, Window::id) }
}

/// The partition's name where the stream is partitioned, else "__GLOBAL__". NULL for NULL.
///
/// Ownership: the text (UTF-8, NUL-terminated) is on loan until the window is freed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_window_key(window: *const queen_window_t) -> *const c_char {
    // SAFETY: `window` is NULL or a living handle by contract.
    unsafe { text(window, 1, Window::key) }
}

/// The first moment of the window, ISO 8601 in UTC. NULL for NULL.
///
/// Ownership: the text (UTF-8, NUL-terminated) is on loan until the window is freed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_window_start(window: *const queen_window_t) -> *const c_char {
    // SAFETY: `window` is NULL or a living handle by contract.
    unsafe { text(window, 2, Window::start) }
}

/// The first moment behind the window, ISO 8601 in UTC. NULL for NULL.
///
/// Ownership: the text (UTF-8, NUL-terminated) is on loan until the window is freed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_window_end(window: *const queen_window_t) -> *const c_char {
    // SAFETY: `window` is NULL or a living handle by contract.
    unsafe { text(window, 3, Window::end) }
}

/// # Safety
/// `window` is NULL or a living handle.
unsafe fn count(window: *const queen_window_t, of: fn(&Window) -> usize) -> usize {
    // SAFETY: promised by the caller.
    guard(0, || {
        unsafe { lend(window) }.map_or(0, |window| of(&window.now()))
    })
}

/// How many messages are left by the filters; 0 for NULL.
///
/// Ownership: `window` is borrowed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_window_size(window: *const queen_window_t) -> usize {
    // SAFETY: `window` is NULL or a living handle by contract.
    unsafe { count(window, Window::size) }
}

/// How many messages the window has, whatever was filtered; 0 for NULL.
///
/// Ownership: `window` is borrowed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_window_original_size(window: *const queen_window_t) -> usize {
    // SAFETY: `window` is NULL or a living handle by contract.
    unsafe { count(window, Window::original_size) }
}

/// Fills views of the messages that are left, from `first` on, at most `capacity`; `view_size` is `sizeof *views`. Of a
/// window's messages there are `id`, `created_at` and `payload`; the other fields are empty, or NULL where they may be.
///
/// Returns how many were written, 0 when `first` is past the end; negative: QUEEN_E_INVALID_ARGUMENT for NULL or a size
/// of 0.
///
/// Ownership: the fields are on loan until the window is freed, whatever is filtered meanwhile.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_window_view(
    window: *const queen_window_t,
    views: *mut queen_message_view_t,
    view_size: usize,
    first: usize,
    capacity: usize,
) -> i64 {
    guard(panicked().into(), || {
        let fill = || -> Result<i64> {
            // SAFETY: `window` is NULL or a living handle by contract.
            let window = unsafe { lend(window) }?.now();
            let found = window.messages().skip(first).take(capacity);
            // The messages live as long as any clone of the window does.
            let made = found.map(queen_message_view_t::of_window);
            // SAFETY: the array has room for `capacity` views of `view_size` bytes by contract.
            unsafe { delivery::write_views(made, views, view_size, capacity) }
        };
        fill().unwrap_or_else(|error| error.code().number().into())
    })
}

/// Leaves out the messages that `predicate` answers with 0.
///
/// Returns QUEEN_OK, or QUEEN_E_INVALID_ARGUMENT for NULL.
///
/// Ownership: `window` is borrowed; `user_data` is handed through.
/// Threads: any. The predicate runs on the calling thread; it may use the window, which changes when all are asked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_window_filter(
    window: *const queen_window_t,
    predicate: queen_window_predicate,
    user_data: *mut c_void,
) -> i32 {
    guard(panicked(), || {
        let filter = || {
            // SAFETY: `window` is NULL or a living handle by contract.
            let handle = unsafe { lend(window) }?;
            let predicate = predicate.ok_or_else(|| Error::argument("predicate is NULL"))?;
            let mut window = handle.now();
            window.filter(|message| {
                let view = queen_message_view_t::of_window(message);
                // SAFETY: the host promised a function that takes these; the view lives until it returns.
                unsafe { predicate(&view, user_data) != 0 }
            });
            handle.set(window);
            Ok(())
        };
        code(filter())
    })
}

/// Leaves only the messages at these places among those that are left, in this order. For filters of languages that do not
/// hand functions to C, and for the places that queen_window_group_by() tells.
///
/// Returns QUEEN_OK, or QUEEN_E_INVALID_ARGUMENT for NULL, a place that there is not, or one that is named twice; then
/// nothing has changed.
///
/// Ownership: both are borrowed. (NULL, 0) leaves none.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_window_keep(
    window: *const queen_window_t,
    indices: *const usize,
    count: usize,
) -> i32 {
    guard(panicked(), || {
        let keep = || {
            // SAFETY: `window` is NULL or a living handle by contract.
            let handle = unsafe { lend(window) }?;
            let indices = match (indices.is_null(), count) {
                (_, 0) => &[][..],
                (true, _) => {
                    return Err(Error::argument(format!(
                        "indices is NULL with a count of {count}"
                    )));
                }
                // SAFETY: an array of `count` by contract.
                (false, _) => unsafe { std::slice::from_raw_parts(indices, count) },
            };
            let mut window = handle.now();
            window.keep(indices)?;
            handle.set(window);
            Ok(())
        };
        code(keep())
    })
}

/// Takes back every filter.
///
/// Returns QUEEN_OK, or QUEEN_E_INVALID_ARGUMENT for NULL.
///
/// Ownership: `window` is borrowed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_window_reset(window: *const queen_window_t) -> i32 {
    guard(panicked(), || {
        // SAFETY: `window` is NULL or a living handle by contract.
        code(unsafe { lend(window) }.map(|handle| {
            let mut window = handle.now();
            window.reset();
            handle.set(window);
        }))
    })
}

/// JSON that is there already.
#[derive(Clone)]
struct Told(String);

impl Output for Told {
    fn to_json(&self) -> String {
        self.0.clone()
    }
}

/// # Safety
/// `window` is NULL or a living handle.
unsafe fn told(
    window: *const queen_window_t,
    tell: impl FnOnce(&Window) -> Result<String>,
) -> *mut queen_future_t {
    // SAFETY: promised by the caller.
    let window = unsafe { lend(window) }.map(queen_window_t::now);
    let dispatcher = window.as_ref().ok().map(Window::dispatcher);
    future(dispatcher, || {
        let told = Told(tell(&window?)?);
        Ok(Box::new(Pending::finished(Ok(told))))
    })
}

/// The window as JSON: `id`, `leaseId`, `stream`, `consumerGroup`, `key`, `start`, `end`, `size`, `originalSize`, and
/// `messages`, those that are left: `[{"id", "data", "created_at"}]`.
///
/// The future is complete when the call returns. QUEEN_E_INVALID_ARGUMENT for NULL.
///
/// Ownership: `window` is borrowed; the future is returned and freed with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_window_document(
    window: *const queen_window_t,
) -> *mut queen_future_t {
    // SAFETY: `window` is NULL or a living handle by contract.
    unsafe { told(window, |window| Ok(window.to_json())) }
}

/// Groups the messages that are left by the value at a dot path, which begins in the message (`data.customer`,
/// `created_at`): `[{"key": "a", "indices": [0, 2]}, …]`, in the order in which the groups begin. The indices are places
/// among those that are left, for queen_window_keep(). What is missing, null, false, 0 or "" is in the group "null_key".
///
/// The future is complete when the call returns. QUEEN_E_INVALID_ARGUMENT for NULL.
///
/// Ownership: both are borrowed; the future is returned and freed with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_window_group_by(
    window: *const queen_window_t,
    path: *const c_char,
) -> *mut queen_future_t {
    #[derive(serde::Serialize)]
    struct Group {
        key: String,
        indices: Vec<usize>,
    }
    // SAFETY: `window` is NULL or a living handle, `path` NULL or a text, by contract.
    unsafe {
        told(window, |window| {
            let groups: Vec<Group> = window
                .group_by(required_text("path", path)?)
                .into_iter()
                .map(|(key, indices)| Group { key, indices })
                .collect();
            serde_json::to_string(&groups).map_err(|error| Error::argument(error.to_string()))
        })
    }
}

/// Counts, sums, means and extremes over the messages that are left.
///
/// `wanted` is a JSON object of `len` bytes: `{"count": true, "sum": ["data.amount"], "avg": […], "min": […], "max": […]}`,
/// each optional, with dot paths that begin in the message. The result has the same keys: `{"count": 3, "sum":
/// {"data.amount": 12}, …}`. Whole numbers are summed exactly while the sum has 64 bits, else it is a float; `min` and `max`
/// are as they were written. What is no number, or not there, counts for nothing; of nothing, sum and mean are 0, and
/// extremes null.
///
/// The future is complete when the call returns. QUEEN_E_INVALID_JSON or QUEEN_E_INVALID_CONFIG for a wrong `wanted`,
/// QUEEN_E_INVALID_ARGUMENT for NULL.
///
/// Ownership: both are borrowed; the future is returned and freed with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_window_aggregate(
    window: *const queen_window_t,
    wanted: *const c_char,
    len: usize,
) -> *mut queen_future_t {
    // SAFETY: `window` is NULL or a living handle, `wanted` readable for `len`, by contract.
    unsafe {
        told(window, |window| {
            let wanted = Aggregation::parse(or_empty(Some(body("wanted", wanted, len)?)))?;
            serde_json::to_string(&window.aggregate(&wanted))
                .map_err(|error| Error::argument(error.to_string()))
        })
    }
}

/// # Safety
/// `window` is NULL or a living handle.
unsafe fn settle(
    window: *const queen_window_t,
    verdict: impl FnOnce(&Window) -> Pending<()>,
) -> *mut queen_future_t {
    // SAFETY: promised by the caller.
    let window = unsafe { lend(window) }.map(queen_window_t::now);
    let dispatcher = window.as_ref().ok().map(Window::dispatcher);
    future(dispatcher, || Ok(Box::new(verdict(&window?))))
}

/// Finishes the window: the next of its key follows.
///
/// The future completes when the broker has answered; QUEEN_E_ALREADY_SETTLED when there is a verdict, QUEEN_E_LEASE_LOST
/// when the window comes again, QUEEN_E_CLOSED when its consumer or client was closed first.
///
/// Ownership: `window` is borrowed; the future is returned and freed with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_window_ack(window: *const queen_window_t) -> *mut queen_future_t {
    // SAFETY: `window` is NULL or a living handle by contract.
    unsafe { settle(window, Window::ack) }
}

/// Gives the window back: it comes again at once, as often as it takes.
///
/// The future is as that of queen_window_ack().
///
/// Ownership: `window` is borrowed; the future is returned and freed with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_window_nack(window: *const queen_window_t) -> *mut queen_future_t {
    // SAFETY: `window` is NULL or a living handle by contract.
    unsafe { settle(window, Window::nack) }
}

/// 1 when the lease is over for certain, so that no verdict can count and the window comes again; else 0.
///
/// Negative: QUEEN_E_INVALID_ARGUMENT for NULL, QUEEN_E_FORKED in a forked child.
///
/// Ownership: `window` is borrowed.
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_window_is_lost(window: *const queen_window_t) -> i32 {
    guard(panicked(), || {
        // SAFETY: `window` is NULL or a living handle by contract.
        match unsafe { lend(window) } {
            Ok(window) => window.now().is_lost().into(),
            Err(error) => error.code().number(),
        }
    })
}

/// Takes the window out of the future of a poll (queen_stream_poll(), or the operation `stream.poll`).
///
/// NULL when there is none, or it was taken before, and for futures of other operations.
///
/// Ownership: `future` is borrowed; the window is returned and freed with queen_window_free(). One that is not taken goes
/// back when the future is freed.
/// Threads: any; also on a future that is on loan to a callback or event.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_future_take_window(
    future: *const queen_future_t,
) -> *mut queen_window_t {
    guard(std::ptr::null_mut(), || {
        // SAFETY: `future` is NULL or a living handle by contract.
        match unsafe { lend(future) }
            .ok()
            .and_then(|future| future.inner.operation().take_window())
        {
            Some(window) => give(queen_window_t::new(window)),
            None => std::ptr::null_mut(),
        }
    })
}

/// Frees the window. Without a verdict it goes back and comes again. NULL is ignored.
///
/// Ownership: `window` is consumed, and with it all views and texts of it.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_window_free(window: *mut queen_window_t) {
    // SAFETY: `window` is NULL or a living handle by contract, and this is its last use.
    unsafe { handle::free(window) }
}
