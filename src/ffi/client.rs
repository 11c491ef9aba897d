//! `queen_client_t`.

use std::ffi::c_char;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::{queen_error_t, report};
use super::future::{future, queen_future_t};
use super::handle::{self, Object, Stamp, body, give, guard, internal, lend, timeout};
use crate::Client;

/// A client of one broker or of a cluster.
///
/// Ownership: the host's until queen_client_free(). Futures, consumers and deliveries keep what they need of it.
pub struct queen_client_t {
    stamp: Stamp,
    pub(super) client: Client,
}

impl Object for queen_client_t {
    const NAME: &'static str = "client";

    fn stamp(&self) -> &Stamp {
        &self.stamp
    }
}

/// Makes a client. Connects to nothing and starts no thread: the first operation does.
///
/// `config` is a URL, a JSON list of URLs, or a JSON object with the keys of docs/CONFIGURATION.md; `len` its length in
/// bytes or QUEEN_NUL_TERMINATED. URLs are "embedded:" (a broker in this process, in memory), "embedded:///path/file.db"
/// (in a file), "embedded:?broker=NAME" (see queen_broker_start()), "http://host:6632" and "https://host".
///
/// Returns NULL on failure and sets `*error`: QUEEN_E_INVALID_CONFIG names the key and the value, QUEEN_E_INVALID_JSON,
/// QUEEN_E_INVALID_UTF8, QUEEN_E_INVALID_ARGUMENT. `error` may be NULL.
///
/// Ownership: `config` is copied; the client is returned and freed with queen_client_free(), the error with
/// queen_error_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_client_new(
    config: *const c_char,
    len: usize,
    error: *mut *mut queen_error_t,
) -> *mut queen_client_t {
    guard(std::ptr::null_mut(), || {
        stay_quiet();
        // SAFETY: `config` is readable for `len` by contract.
        let made = guard(Err(internal()), || {
            Client::new(unsafe { body("config", config, len) }?)
        });
        let (client, failure) = match made {
            Ok(client) => (
                give(queen_client_t {
                    stamp: Stamp::owned(),
                    client,
                }),
                None,
            ),
            Err(failure) => (std::ptr::null_mut(), Some(failure)),
        };
        // SAFETY: `error` is NULL or writable by contract.
        unsafe { report(error, failure) };
        client
    })
}

/// Rust tells of a panic on stderr, but a library prints nothing; what was caught is reported as QUEEN_E_INTERNAL. The
/// hook is that of the Rust runtime inside libqueen, which shares nothing with the host.
pub(super) fn stay_quiet() {
    static QUIET: AtomicBool = AtomicBool::new(cfg!(test));
    if !QUIET.swap(true, Ordering::SeqCst) {
        std::panic::set_hook(Box::new(|_| ()));
    }
}

/// A future that completes when there is room for further calls, after one has failed with QUEEN_E_WOULD_BLOCK. Its
/// result is null.
///
/// Ownership: `client` is borrowed; the future is returned and freed with queen_future_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_client_ready(client: *const queen_client_t) -> *mut queen_future_t {
    // SAFETY: `client` is NULL or a living handle by contract.
    unsafe { with_client(client, |client| Ok(Box::new(client.ready()))) }
}

/// Closes the client, all within `timeout_ms` milliseconds: stops its consumers, flushes pushes and verdicts, ends what is
/// left with QUEEN_E_CLOSED, waits for callbacks, and closes an embedded store.
///
/// When the future completes without an error, every other future of the client is complete, and no callback, handler or
/// `user_data_free` of it runs or will run; the callback of this future is the last. QUEEN_E_TIMEOUT names what still
/// runs: call again to wait longer. QUEEN_E_PARTIAL: the client is closed as well, but buffered messages were not stored;
/// each has its report. The result is `{"aborted", "unsent"}`: how many calls were ended with QUEEN_E_CLOSED, and how many
/// buffered messages were not stored.
///
/// Ownership: `client` is borrowed; the future is returned and freed with queen_future_free().
/// Threads: any. Waiting for the future inside a handler or callback of the client answers QUEEN_E_WOULD_DEADLOCK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_client_close(
    client: *const queen_client_t,
    timeout_ms: i64,
) -> *mut queen_future_t {
    // SAFETY: `client` is NULL or a living handle by contract.
    unsafe {
        with_client(client, |client| {
            Ok(Box::new(client.close(timeout(timeout_ms)?)))
        })
    }
}

/// Frees the client. Without queen_client_close() before, it closes in the background with a deadline of 0: pushes that
/// are not answered by then end with QUEEN_E_CLOSED, buffered messages are reported as "closed", and their number goes to
/// the log. NULL is ignored.
///
/// Ownership: `client` is consumed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_client_free(client: *mut queen_client_t) {
    // SAFETY: `client` is NULL or a living handle by contract, and this is its last use.
    unsafe { handle::free(client) }
}

/// The future of an operation of a client.
///
/// # Safety
/// `client` is NULL or a living handle.
pub(super) unsafe fn with_client(
    client: *const queen_client_t,
    start: impl FnOnce(&Client) -> crate::Result<Box<dyn crate::AnyPending>>,
) -> *mut queen_future_t {
    // SAFETY: promised by the caller.
    let client = unsafe { lend(client) };
    let dispatcher = client
        .as_ref()
        .ok()
        .map(|client| client.client.dispatcher());
    future(dispatcher, || start(&client?.client))
}
