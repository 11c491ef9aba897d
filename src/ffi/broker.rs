//! `queen_broker_t`.

use std::ffi::{CString, c_char};

use super::client::stay_quiet;
use super::error::{queen_error_t, report};
use super::future::{future, queen_future_t};
use super::handle::{
    self, Object, Stamp, body, c_text, give, guard, internal, lend, lend_text, or_empty, timeout,
};
use crate::{AnyPending, BrokerOptions, ClockChange, EmbeddedBroker, Fault, Pending, Result};

/// An embedded broker that is started and ended by hand, and fails when it is told to: the tool to test an application
/// with. docs/TESTING.md shows how. Several may run side by side.
///
/// Ownership: the host's until queen_broker_free().
pub struct queen_broker_t {
    stamp: Stamp,
    broker: EmbeddedBroker,
    url: CString,
    addresses: Vec<CString>,
}

impl Object for queen_broker_t {
    const NAME: &'static str = "broker";

    fn stamp(&self) -> &Stamp {
        &self.stamp
    }
}

/// Starts an embedded broker. Opens its store and its addresses before it returns: that is work on files, and waits for
/// nobody.
///
/// `options` is a JSON object of `len` bytes, or (NULL, 0): `name` (one that no other broker of the process has), `data`
/// (an SQLite file, made when it is missing; in memory without), `durability` ("full", "normal" or "memory"), `listen`
/// (none; "host:port", where port 0 stands for a free one, "unix:/path", or a list of them), `tokens` (none are needed),
/// `jwtSecret`, `defaultSubscription` ("new" or "all"), `maxBodyBytes` (67108864), `testing` (false; true lets a test
/// steer it), `faults` (none; one or a list of those of docs/TESTING.md, which turn `testing` on).
///
/// Returns NULL on failure and sets `*error` if it is not NULL: QUEEN_E_INVALID_CONFIG names the key and the value, also
/// for an address that cannot be listened on; QUEEN_E_INVALID_JSON, QUEEN_E_INVALID_UTF8, QUEEN_E_INVALID_ARGUMENT;
/// QUEEN_E_LOCKED and QUEEN_E_STORE for the file.
///
/// Ownership: `options` is copied; the broker is returned and freed with queen_broker_free(), the error with
/// queen_error_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_broker_start(
    options: *const c_char,
    len: usize,
    error: *mut *mut queen_error_t,
) -> *mut queen_broker_t {
    guard(std::ptr::null_mut(), || {
        stay_quiet();
        let start = || {
            // SAFETY: `options` is readable for `len` by contract.
            let options = unsafe { body("options", options, len) }?;
            let broker = EmbeddedBroker::start(BrokerOptions::parse(or_empty(Some(options)))?)?;
            Ok(queen_broker_t {
                stamp: Stamp::owned(),
                url: c_text(broker.url()),
                addresses: broker.addresses().iter().map(c_text).collect(),
                broker,
            })
        };
        let (broker, failure) = match guard(Err(internal()), start) {
            Ok(broker) => (give(broker), None),
            Err(failure) => (std::ptr::null_mut(), Some(failure)),
        };
        // SAFETY: `error` is NULL or writable by contract.
        unsafe { report(error, failure) };
        broker
    })
}

/// The URL for clients of this process, "embedded:?broker=NAME": no socket is used, and yet they repeat, fail over and
/// report as over one. It stays the same over restarts. NULL for a NULL broker and in a forked child.
///
/// Ownership: `broker` is borrowed; the text is on loan until it is freed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_broker_url(broker: *const queen_broker_t) -> *const c_char {
    // SAFETY: `broker` is NULL or a living handle by contract.
    guard(std::ptr::null(), || unsafe {
        let url = lend(broker).ok().map(|broker| broker.url.as_c_str());
        lend_text(url, std::ptr::null_mut())
    })
}

/// Where the broker listens: "http://host:port", which is a URL for clients, or "unix:/path". `index` counts the addresses
/// of the option `listen` from 0; NULL beyond the last, for a NULL broker, and in a forked child. They stay the same over
/// restarts.
///
/// Ownership: `broker` is borrowed; the text is on loan until it is freed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_broker_address(
    broker: *const queen_broker_t,
    index: usize,
) -> *const c_char {
    // SAFETY: `broker` is NULL or a living handle by contract.
    guard(std::ptr::null(), || unsafe {
        let broker = lend(broker).ok();
        let address = broker.and_then(|broker| broker.addresses.get(index));
        lend_text(address.map(CString::as_c_str), std::ptr::null_mut())
    })
}

/// Stops the broker in good order: nothing new is taken, polls that wait are answered, requests under way are finished.
/// What is not finished within `timeout_ms` milliseconds is cut off. Clients find nobody then, as where a server is down.
///
/// Completes with null when the store is closed and the addresses are free, also when it was stopped before.
///
/// Ownership: `broker` is borrowed; the future is returned and freed with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_broker_stop(
    broker: *const queen_broker_t,
    timeout_ms: i64,
) -> *mut queen_future_t {
    // SAFETY: `broker` is NULL or a living handle by contract.
    unsafe { with_broker(broker, |broker| Ok(broker.stop(timeout(timeout_ms)?))) }
}

/// Stops the broker abruptly: all connections are cut, and requests under way get no answer, whether they are done or not.
/// What was answered is in the store, if that is a file; what was in memory is gone.
///
/// Completes with null when the store is closed and the addresses are free, also when it was stopped before.
///
/// Ownership: `broker` is borrowed; the future is returned and freed with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_broker_kill(broker: *const queen_broker_t) -> *mut queen_future_t {
    // SAFETY: `broker` is NULL or a living handle by contract.
    unsafe { with_broker(broker, |broker| Ok(broker.kill())) }
}

/// Starts the broker again after queen_broker_stop() or queen_broker_kill(), on the same file and addresses. Its clock goes
/// on as far ahead as it was; its faults are those of the options, counted from zero.
///
/// Completes with null. Errors: QUEEN_E_INVALID_STATE when it runs; those of queen_broker_start().
///
/// Ownership: `broker` is borrowed; the future is returned and freed with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_broker_restart(
    broker: *const queen_broker_t,
) -> *mut queen_future_t {
    // SAFETY: `broker` is NULL or a living handle by contract.
    unsafe { with_broker(broker, |broker| Ok(broker.restart())) }
}

/// Adds faults behind those that are there. The first fault that takes a request decides what becomes of it.
///
/// `faults` is a JSON object or a list of them, of `len` bytes, as docs/TESTING.md describes:
/// `{"action", "route", "method", "queue", "skip", "times", "share", "seed", ...}`. If one of them cannot be, none is added.
///
/// The future is complete at once, with the list of those that were added, as in queen_broker_faults(). Errors:
/// QUEEN_E_INVALID_CONFIG names the field and the value; QUEEN_E_INVALID_JSON; QUEEN_E_INVALID_STATE when the broker is
/// stopped or was started without `testing`.
///
/// Ownership: `broker` is borrowed, `faults` is copied; the future is returned and freed with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_broker_add_faults(
    broker: *const queen_broker_t,
    faults: *const c_char,
    len: usize,
) -> *mut queen_future_t {
    // SAFETY: the handle and the text are valid by contract.
    unsafe {
        with_broker(broker, |broker| {
            let faults = Fault::parse_all(body("faults", faults, len)?)?;
            Ok(Pending::ready(broker.add_faults(faults)?))
        })
    }
}

/// The faults in place, in the order in which they are asked: each as it was added, with its `id`, the number of requests
/// that it has met (`matched`), and of those that it has taken (`applied`).
///
/// The future is complete at once. Errors: QUEEN_E_INVALID_STATE when the broker is stopped or was started without
/// `testing`.
///
/// Ownership: `broker` is borrowed; the future is returned and freed with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_broker_faults(broker: *const queen_broker_t) -> *mut queen_future_t {
    // SAFETY: `broker` is NULL or a living handle by contract.
    unsafe { with_broker(broker, |broker| Ok(Pending::ready(broker.faults()?))) }
}

/// Removes the fault with this id, or all of them with the id 0. Requests that hang on it go their usual way.
///
/// The future is complete at once, with null. Errors: QUEEN_E_NOT_FOUND when there is no fault of that id;
/// QUEEN_E_INVALID_STATE when the broker is stopped or was started without `testing`.
///
/// Ownership: `broker` is borrowed; the future is returned and freed with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_broker_remove_faults(
    broker: *const queen_broker_t,
    id: u64,
) -> *mut queen_future_t {
    // SAFETY: `broker` is NULL or a living handle by contract.
    unsafe {
        with_broker(broker, |broker| {
            match id {
                0 => broker.clear_faults(),
                id => broker.remove_fault(id),
            }
            .map(Pending::ready)
        })
    }
}

/// How many requests the broker has seen, as an object of numbers by the names of the routes: `{"push": 3, "pop": 1}`.
/// Each attempt counts, also those that a fault took.
///
/// The future is complete at once. Errors: QUEEN_E_INVALID_STATE when the broker is stopped or was started without
/// `testing`.
///
/// Ownership: `broker` is borrowed; the future is returned and freed with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_broker_requests(
    broker: *const queen_broker_t,
) -> *mut queen_future_t {
    // SAFETY: `broker` is NULL or a living handle by contract.
    unsafe { with_broker(broker, |broker| Ok(Pending::ready(broker.requests()?))) }
}

/// Counts the requests from zero.
///
/// The future is complete at once, with null. Errors: QUEEN_E_INVALID_STATE when the broker is stopped or was started
/// without `testing`.
///
/// Ownership: `broker` is borrowed; the future is returned and freed with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_broker_reset_requests(
    broker: *const queen_broker_t,
) -> *mut queen_future_t {
    // SAFETY: `broker` is NULL or a living handle by contract.
    unsafe { with_broker(broker, |broker| broker.reset_requests().map(Pending::ready)) }
}

/// Moves the broker's time: leases, delays, retention, the windows of deduplication and polls that wait follow. There is
/// no way back.
///
/// `change` is a JSON object of `len` bytes: `advanceMillis` (0) moves it forward; `frozen` true stops it before the move,
/// so that from then on only further moves count, false lets it run on after the move. (NULL, 0) changes nothing and tells
/// the time.
///
/// Completes, when all that became due by the move has happened, with `{"now": ISO 8601, "frozen": boolean}`. Errors:
/// QUEEN_E_INVALID_CONFIG, QUEEN_E_INVALID_JSON; QUEEN_E_INVALID_STATE when the broker is stopped or was started without
/// `testing`.
///
/// Ownership: `broker` is borrowed, `change` is copied; the future is returned and freed with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_broker_move_clock(
    broker: *const queen_broker_t,
    change: *const c_char,
    len: usize,
) -> *mut queen_future_t {
    // SAFETY: the handle and the text are valid by contract.
    unsafe {
        with_broker(broker, |broker| {
            let change = or_empty(Some(body("change", change, len)?));
            Ok(broker.move_clock(ClockChange::parse(change)?))
        })
    }
}

/// Frees the broker. One that runs ends at once, as by queen_broker_kill(), in the background; its clients may live on and
/// find nobody. NULL is ignored.
///
/// Ownership: `broker` is consumed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_broker_free(broker: *mut queen_broker_t) {
    // SAFETY: `broker` is NULL or a living handle by contract, and this is its last use.
    unsafe { handle::free(broker) }
}

/// The future of an operation of a broker.
///
/// # Safety
/// `broker` is NULL or a living handle.
unsafe fn with_broker<T: crate::Output>(
    broker: *const queen_broker_t,
    start: impl FnOnce(&EmbeddedBroker) -> Result<Pending<T>>,
) -> *mut queen_future_t {
    future(None, || {
        // SAFETY: promised by the caller.
        let broker = unsafe { lend(broker) }?;
        let pending: Box<dyn AnyPending> = Box::new(start(&broker.broker)?);
        Ok(pending)
    })
}
