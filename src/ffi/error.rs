//! `queen_error_t`.

use std::ffi::{CStr, CString, c_char};
use std::sync::OnceLock;

use once_cell::sync::Lazy;

use super::codes::{QUEEN_E_FORKED, QUEEN_OK, QUEEN_OUTCOME_NOT_APPLIED};
use super::handle::{self, Object, Stamp, c_text, forked, give, guard, lend, lend_text};
use crate::{Error, ErrorCode};

/// Why a call failed. Every accessor accepts NULL, which stands for "no error".
///
/// Ownership: freed with queen_error_free() by whoever received it through a `queen_error_t **`; on loan from its future
/// when it comes from queen_future_error().
pub struct queen_error_t {
    stamp: Stamp,
    error: Error,
    message: OnceLock<CString>,
    json: OnceLock<CString>,
}

impl Object for queen_error_t {
    const NAME: &'static str = "error";

    fn stamp(&self) -> &Stamp {
        &self.stamp
    }
}

impl queen_error_t {
    pub(super) fn lent(error: Error) -> queen_error_t {
        queen_error_t {
            stamp: Stamp::lent(),
            error,
            message: OnceLock::new(),
            json: OnceLock::new(),
        }
    }
}

/// Hands an error to the host, if it wants to know.
///
/// # Safety
/// `place` is NULL or may be written.
pub(super) unsafe fn report(place: *mut *mut queen_error_t, error: Option<Error>) {
    // SAFETY: promised by the caller.
    if let Some(place) = unsafe { place.as_mut() } {
        *place = match error {
            None => std::ptr::null_mut(),
            Some(error) => give(queen_error_t {
                stamp: Stamp::owned(),
                ..queen_error_t::lent(error)
            }),
        };
    }
}

/// Reads from an error: `none` for NULL; an error of before a fork reads as QUEEN_E_FORKED.
unsafe fn read<R>(
    error: *const queen_error_t,
    none: R,
    of_fork: R,
    body: impl FnOnce(&queen_error_t) -> R,
) -> R {
    if error.is_null() {
        return none;
    }
    // SAFETY: not NULL, so a living handle by contract.
    match unsafe { lend(error) } {
        Ok(error) => guard(of_fork, || body(error)),
        Err(_) => of_fork,
    }
}

fn code_name(code: i32) -> *const c_char {
    static NAMES: Lazy<Vec<(i32, CString)>> = Lazy::new(|| {
        let errors = ErrorCode::ALL
            .iter()
            .map(|code| (code.number(), c_text(code.name())));
        std::iter::once((QUEEN_OK, c_text("QUEEN_OK")))
            .chain(errors)
            .collect()
    });
    NAMES
        .iter()
        .find(|(number, _)| *number == code)
        .map_or(std::ptr::null(), |(_, name)| name.as_ptr())
}

/// The QUEEN_E_* number of an error.
///
/// Returns QUEEN_OK for NULL.
///
/// Ownership: `error` is borrowed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_error_code(error: *const queen_error_t) -> i32 {
    // SAFETY: `error` is NULL or a living handle by contract.
    unsafe {
        read(error, QUEEN_OK, QUEEN_E_FORKED, |error| {
            error.error.code().number()
        })
    }
}

/// The name of an error's code, such as "QUEEN_E_TIMEOUT"; "QUEEN_OK" for NULL.
///
/// Ownership: `error` is borrowed; the text is static.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_error_name(error: *const queen_error_t) -> *const c_char {
    // SAFETY: `error` is NULL or a living handle by contract.
    guard(std::ptr::null(), || {
        code_name(unsafe { queen_error_code(error) })
    })
}

/// A sentence for people: what happened, and what to do. "" for NULL.
///
/// Ownership: `error` is borrowed; the text lives as long as `error`.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_error_message(error: *const queen_error_t) -> *const c_char {
    const FORKED: &CStr = c"this error was made before a fork(); make a new client in the child";
    let message = |error: &queen_error_t| {
        error
            .message
            .get_or_init(|| c_text(error.error.message()))
            .as_ptr()
    };
    // SAFETY: `error` is NULL or a living handle by contract.
    unsafe { read(error, c"".as_ptr(), FORKED.as_ptr(), message) }
}

/// The HTTP status that a broker answered, 0 when there was none.
///
/// Ownership: `error` is borrowed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_error_http_status(error: *const queen_error_t) -> i32 {
    // SAFETY: `error` is NULL or a living handle by contract.
    unsafe {
        read(error, 0, 0, |error| {
            error.error.http_status().map_or(0, i32::from)
        })
    }
}

/// 1 when the same call may well succeed later, else 0.
///
/// Ownership: `error` is borrowed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_error_is_retriable(error: *const queen_error_t) -> i32 {
    // SAFETY: `error` is NULL or a living handle by contract.
    unsafe { read(error, 0, 0, |error| error.error.is_retriable().into()) }
}

/// 1 when the client or handle can do nothing more after this, else 0.
///
/// Ownership: `error` is borrowed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_error_is_fatal(error: *const queen_error_t) -> i32 {
    // SAFETY: `error` is NULL or a living handle by contract.
    unsafe { read(error, 0, 1, |error| error.error.is_fatal().into()) }
}

/// What is known about the effect of the failed call: QUEEN_OUTCOME_NOT_APPLIED, _UNKNOWN or _REFUSED.
///
/// A push of unknown outcome may be repeated with the same transaction ids, which queen_error_json() lists: what was
/// stored the first time is not stored again.
///
/// Ownership: `error` is borrowed.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_error_outcome(error: *const queen_error_t) -> i32 {
    // SAFETY: `error` is NULL or a living handle by contract.
    unsafe {
        read(
            error,
            QUEEN_OUTCOME_NOT_APPLIED,
            QUEEN_OUTCOME_NOT_APPLIED,
            |error| error.error.outcome() as i32,
        )
    }
}

/// The error as a JSON object: `code`, `name`, `message`, `httpStatus` (or null), `retriable`, `fatal`, `outcome`
/// ("notApplied", "unknown", "refused"), and where they apply `brokerCode` (the word that the broker or a proxy has for the
/// refusal, such as "quota_exceeded"), `retryAfterMillis` (the pause that it asks for), `transactionIds` (of a push) and
/// `result` (of a call refused in part).
///
/// Returns NULL for NULL. `len` receives the length in bytes; it may be NULL.
///
/// Ownership: `error` is borrowed; the text lives as long as `error`.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_error_json(
    error: *const queen_error_t,
    len: *mut usize,
) -> *const c_char {
    static FORKED: Lazy<CString> = Lazy::new(|| c_text(forked("error").to_json()));
    guard(std::ptr::null(), || {
        let json = |error: &queen_error_t| {
            error
                .json
                .get_or_init(|| c_text(error.error.to_json()))
                .as_c_str() as *const CStr
        };
        // SAFETY: `error` is NULL or a living handle by contract.
        let text = unsafe {
            read(
                error,
                None,
                Some(FORKED.as_c_str() as *const CStr),
                |error| Some(json(error)),
            )
        };
        // SAFETY: the text is owned by the living handle or static; `len` is NULL or writable by contract.
        unsafe { lend_text(text.map(|text| &*text), len) }
    })
}

/// The name of a code, such as "QUEEN_E_TIMEOUT" for -201. NULL for a number that is no code.
///
/// Ownership: the text is static.
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn queen_error_code_name(code: i32) -> *const c_char {
    guard(std::ptr::null(), || code_name(code))
}

/// Frees an error that the host owns. NULL is ignored.
///
/// Ownership: `error` is consumed. Not for an error on loan from a future.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_error_free(error: *mut queen_error_t) {
    // SAFETY: `error` is NULL or a living handle by contract, and this is its last use.
    unsafe { handle::free(error) }
}
