//! Version, catalogue, and the end of the background threads.

use std::ffi::{CString, c_char};

use once_cell::sync::Lazy;

use super::codes::QUEEN_VERSION_NUMBER;
use super::handle::{c_text, code, guard, lend_text, panicked, timeout};

/// The version of the loaded library as one number, `major << 16 | minor << 8 | patch`.
///
/// Compare it with QUEEN_VERSION_NUMBER of the header: the major parts must be equal, and the library must not be older.
///
/// Ownership: nothing passes.
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn queen_version_number() -> u32 {
    QUEEN_VERSION_NUMBER
}

/// The version of the loaded library as text, such as "0.1.0".
///
/// Ownership: the text is static.
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn queen_version_string() -> *const c_char {
    static VERSION: Lazy<CString> = Lazy::new(|| c_text(env!("CARGO_PKG_VERSION")));
    guard(std::ptr::null(), || VERSION.as_ptr())
}

/// The catalogue of operations for queen_call(): a JSON array of
/// `{"name", "summary", "parameters": [{"name", "type", "default", "doc"}], "result"}`.
///
/// `len` receives the length in bytes; it may be NULL.
///
/// Ownership: the text is static, UTF-8 and NUL-terminated.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_operations_json(len: *mut usize) -> *const c_char {
    static JSON: Lazy<CString> = Lazy::new(|| c_text(crate::operations_json()));
    // SAFETY: `len` is NULL or writable by contract.
    guard(std::ptr::null(), || unsafe {
        lend_text(Some(JSON.as_c_str()), len)
    })
}

/// Stops the background threads and waits until every thread of the library is gone, at most `timeout_ms` milliseconds.
///
/// A later client starts everything anew. It is never needed before the process ends.
///
/// Returns QUEEN_OK; QUEEN_E_BUSY while any handle lives; QUEEN_E_TIMEOUT when clients that close in the background,
/// callbacks or threads take longer; QUEEN_E_WOULD_DEADLOCK inside a callback or handler; QUEEN_E_INVALID_ARGUMENT for a
/// negative timeout.
///
/// Ownership: nothing passes.
/// Threads: any of the host's. Blocks.
#[unsafe(no_mangle)]
pub extern "C" fn queen_shutdown(timeout_ms: i64) -> i32 {
    guard(panicked(), || {
        code(timeout(timeout_ms).and_then(crate::shutdown))
    })
}
