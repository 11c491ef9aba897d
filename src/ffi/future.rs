//! `queen_future_t`.

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::delivery::queen_delivery_t;
use super::error::queen_error_t;
use super::event_queue::{Event, queen_event_queue_t};
use super::handle::{
    self, Object, Stamp, Text, code, forked, give, give_boxed, guard, internal, lend, lend_text,
    panicked, timeout,
};
use super::spare;
use super::user_data::{UserData, queen_user_data_free};
use crate::{AnyPending, Dispatcher, Error, ErrorCode, Pending, Result};

/// An operation that completes exactly once: with a result, an error, a timeout, cancelled or closed.
///
/// There are three ways to learn the outcome: queen_future_wait() at any time, and one of queen_future_on_complete() and
/// queen_future_deliver().
///
/// Ownership: the host's until queen_future_free(), whatever route it was given.
pub struct queen_future_t {
    pub(super) stamp: Stamp,
    pub(super) inner: Arc<FutureInner>,
}

impl Object for queen_future_t {
    const NAME: &'static str = "future";

    fn stamp(&self) -> &Stamp {
        &self.stamp
    }
}

/// What all handles of one operation share.
pub(super) struct FutureInner {
    operation: Box<dyn AnyPending>,
    dispatcher: Dispatcher,
    routed: AtomicBool,
    json: OnceLock<Option<Text>>,
    error: OnceLock<Option<Box<queen_error_t>>>,
}

impl FutureInner {
    /// The result as JSON, once the operation is complete.
    pub(super) fn json(&self) -> Option<&CStr> {
        match self.operation.is_complete() {
            true => self
                .json
                .get_or_init(|| self.operation.to_json().map(Text::new))
                .as_ref()
                .map(Text::as_c_str),
            false => None,
        }
    }

    pub(super) fn operation(&self) -> &dyn AnyPending {
        &*self.operation
    }

    fn error(&self) -> Option<&queen_error_t> {
        match self.operation.is_complete() {
            true => self
                .error
                .get_or_init(|| {
                    self.operation
                        .error()
                        .cloned()
                        .map(|error| Box::new(queen_error_t::lent(error)))
                })
                .as_deref(),
            false => None,
        }
    }

    pub(super) fn code(&self) -> i32 {
        self.operation
            .error()
            .map_or(0, |error| error.code().number())
    }

    /// The JSON for an event: not that of a pop, which is written for those who ask.
    pub(super) fn event_json(&self) -> Option<&CStr> {
        if self.operation.is_large() {
            None
        } else {
            self.json()
        }
    }

    /// A poller has taken the completion out of its event queue.
    pub(super) fn polled(&self) {
        self.operation.release_budget();
    }

    /// Takes the only route beside waiting.
    fn route(&self) -> Result<()> {
        match self.routed.swap(true, Ordering::SeqCst) {
            false => Ok(()),
            true => Err(Error::new(
                ErrorCode::InvalidState,
                "the future has a callback or an event queue already",
            )),
        }
    }
}

impl queen_future_t {
    pub(super) fn owned(inner: Arc<FutureInner>) -> queen_future_t {
        queen_future_t {
            stamp: Stamp::owned(),
            inner,
        }
    }

    /// For the time of a callback or an event.
    pub(super) fn lent(inner: Arc<FutureInner>) -> queen_future_t {
        queen_future_t {
            stamp: Stamp::lent(),
            inner,
        }
    }
}

/// Gives the host a future for what `start` returns, or one that has failed already.
pub(super) fn future(
    dispatcher: Option<Dispatcher>,
    start: impl FnOnce() -> Result<Box<dyn AnyPending>>,
) -> *mut queen_future_t {
    guard(std::ptr::null_mut(), || {
        let started = guard(None, || Some(start()));
        let started = started.unwrap_or_else(|| Err(internal()));
        let operation = started.unwrap_or_else(|error| Box::new(Pending::<()>::failed(error)));
        give_boxed(spare::boxed(queen_future_t::owned(spare::shared(
            FutureInner {
                operation,
                dispatcher: dispatcher.unwrap_or_else(Dispatcher::without_client),
                routed: AtomicBool::new(false),
                json: OnceLock::new(),
                error: OnceLock::new(),
            },
        ))))
    })
}

/// Called once when a future completes. `future` is on loan for the time of the call.
///
/// Runs on the client's dispatcher thread, one callback at a time, in order of completion; it should be short. Every
/// function may be called from it, except waiting for the close of its own client.
pub type queen_future_callback =
    Option<unsafe extern "C" fn(future: *const queen_future_t, user_data: *mut c_void)>;

/// Waits until the future has completed, at most `timeout_ms` milliseconds; 0 only looks.
///
/// Returns QUEEN_OK when it has completed, well or not (ask queen_future_error()); QUEEN_E_TIMEOUT when it has not yet,
/// and the operation goes on; QUEEN_E_INVALID_ARGUMENT for NULL or a negative timeout; QUEEN_E_WOULD_DEADLOCK inside a
/// handler or callback that waits for the stop of its own consumer or the close of its own client.
///
/// Ownership: `future` is borrowed.
/// Threads: any, several at once. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_future_wait(future: *const queen_future_t, timeout_ms: i64) -> i32 {
    guard(panicked(), || {
        // SAFETY: `future` is NULL or a living handle by contract.
        let wait = || match unsafe { lend(future) }?
            .inner
            .operation
            .wait_for(timeout(timeout_ms)?)?
        {
            true => Ok(()),
            false => Err(Error::new(ErrorCode::Timeout, "not complete yet")),
        };
        code(wait())
    })
}

/// Has `callback` called once, when the future completes (soon, if it has already), then `user_data_free`.
///
/// Returns QUEEN_OK; QUEEN_E_INVALID_STATE when the future has a route already, which stays as it is;
/// QUEEN_E_INVALID_ARGUMENT for a NULL future or callback; QUEEN_E_CLOSED when the client is closed, after which none of
/// its callbacks runs. In each of these cases `user_data_free` runs before the call returns and `callback` never does.
///
/// Ownership: `future` is borrowed and may be freed at once; `user_data` belongs to the library until `user_data_free`.
/// Threads: any. The callback runs on the client's dispatcher thread, never before this call returns on the calling one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_future_on_complete(
    future: *const queen_future_t,
    callback: queen_future_callback,
    user_data: *mut c_void,
    user_data_free: queen_user_data_free,
) -> i32 {
    guard(panicked(), || {
        let user_data = UserData::new(user_data, user_data_free);
        let register = || {
            // SAFETY: `future` is NULL or a living handle by contract.
            let inner = unsafe { lend(future) }?.inner.clone();
            let callback = callback.ok_or_else(|| Error::argument("callback is NULL"))?;
            if inner.dispatcher.is_closed() {
                return Err(Error::new(
                    ErrorCode::Closed,
                    "the client is closed; none of its callbacks runs any more",
                ));
            }
            inner.route()?;
            let lent = inner.clone();
            inner.operation.when_complete(Box::new(move || {
                let dispatcher = lent.dispatcher.clone();
                let _ = dispatcher.run(Box::new(move || {
                    let user_data = user_data;
                    let future = queen_future_t::lent(lent);
                    // SAFETY: the host promised a function that takes these; `future` lives until it returns.
                    unsafe { callback(&future, user_data.get()) }
                }));
            }));
            Ok(())
        };
        code(register())
    })
}

/// Has the completion put into an event queue, as a QUEEN_EVENT_FUTURE with this tag.
///
/// Until a poller has taken it, the completion counts against maxPendingMessages.
///
/// Returns QUEEN_OK; QUEEN_E_INVALID_STATE when the future has a route already, which stays as it is;
/// QUEEN_E_INVALID_ARGUMENT for NULL.
///
/// Ownership: both handles are borrowed and may be freed at once.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_future_deliver(
    future: *const queen_future_t,
    queue: *const queen_event_queue_t,
    tag: u64,
) -> i32 {
    guard(panicked(), || {
        let register = || {
            // SAFETY: both are NULL or living handles by contract.
            let (inner, queue) =
                unsafe { (lend(future)?.inner.clone(), lend(queue)?.queue.clone()) };
            inner.route()?;
            inner.operation.keep_budget();
            let lent = inner.clone();
            inner.operation.when_complete(Box::new(move || {
                queue.push(Event::Future(lent), tag);
            }));
            Ok(())
        };
        code(register())
    })
}

/// Asks for the end of the operation and returns. The future still completes once: with its result if that came first,
/// else with QUEEN_E_CANCELLED. A request that was sent runs on; messages that a cancelled pop still brings are given
/// back to the broker.
///
/// Returns QUEEN_OK, in any state and any number of times; QUEEN_E_INVALID_ARGUMENT for NULL.
///
/// Ownership: `future` is borrowed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_future_cancel(future: *const queen_future_t) -> i32 {
    guard(panicked(), || {
        // SAFETY: `future` is NULL or a living handle by contract.
        code(unsafe { lend(future) }.map(|future| future.inner.operation.cancel()))
    })
}

/// The result as JSON; its shape is in docs/OPERATIONS.md under the operation's name.
///
/// NULL while the operation runs, and when it failed without a result. A call refused in part has both a result with one
/// entry per item and an error. `len` receives the length in bytes; it may be NULL.
///
/// Ownership: `future` is borrowed; the text (UTF-8, NUL-terminated) lives as long as `future`.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_future_json(
    future: *const queen_future_t,
    len: *mut usize,
) -> *const c_char {
    guard(std::ptr::null(), || {
        // SAFETY: `future` is NULL or a living handle, `len` NULL or writable, by contract.
        unsafe {
            let json = lend(future).ok().and_then(|future| future.inner.json());
            lend_text(json, len)
        }
    })
}

/// Why the operation failed. NULL while it runs and when it went well: when everything asked for was done.
///
/// Ownership: `future` is borrowed; the error is on loan and lives as long as `future`.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_future_error(future: *const queen_future_t) -> *const queen_error_t {
    static FORKED: once_cell::sync::Lazy<Forked> =
        once_cell::sync::Lazy::new(|| Forked(queen_error_t::lent(forked("future"))));
    guard(std::ptr::null(), || {
        // SAFETY: `future` is NULL or a living handle by contract.
        match unsafe { lend(future) } {
            Ok(future) => future
                .inner
                .error()
                .map_or(std::ptr::null(), std::ptr::from_ref),
            Err(error) if error.code() == ErrorCode::Forked => &raw const FORKED.0,
            Err(_) => std::ptr::null(),
        }
    })
}

/// The error that any future of before a fork has in the child.
struct Forked(queen_error_t);

/// Takes the next delivery out of the future of a pop: one for each partition that the pop brought messages of.
///
/// NULL when there is none (left), and for futures of other operations.
///
/// Ownership: `future` is borrowed; the delivery is returned and freed with queen_delivery_free(). Deliveries that are
/// not taken are given back to the broker when the future is freed.
/// Threads: any; also on a future that is on loan to a callback or event.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_future_take_delivery(
    future: *const queen_future_t,
) -> *mut queen_delivery_t {
    guard(std::ptr::null_mut(), || {
        // SAFETY: `future` is NULL or a living handle by contract.
        match unsafe { lend(future) }
            .ok()
            .and_then(|future| future.inner.operation.take_delivery())
        {
            Some(delivery) => give(queen_delivery_t::new(delivery)),
            None => std::ptr::null_mut(),
        }
    })
}

/// Lets go of the handle. It never cancels: a routed future still arrives, an unrouted one runs on and is forgotten.
/// NULL is ignored.
///
/// Ownership: `future` is consumed. Not for a future on loan to a callback or event.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_future_free(future: *mut queen_future_t) {
    // SAFETY: `future` is NULL or a living handle by contract, and this is its last use.
    unsafe { handle::free_with(future, spare::unbox) }
}
