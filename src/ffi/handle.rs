//! Handles and arguments: the only place where pointers become references and boxes.
#![allow(clippy::disallowed_methods)]

use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::sys;
use crate::{Error, ErrorCode, Life, Living, Result};

/// What every handle carries: the fork generation that made it, and its entry in the count of living handles.
pub(crate) struct Stamp {
    generation: u32,
    _living: Option<Living>,
}

impl Stamp {
    /// For a handle that the host owns.
    pub(crate) fn owned() -> Stamp {
        Stamp {
            generation: sys::generation(),
            _living: Some(Living::new(Life::Handle)),
        }
    }

    /// For a handle that is lent from another one.
    pub(crate) fn lent() -> Stamp {
        Stamp {
            generation: sys::generation(),
            _living: None,
        }
    }

    fn is_foreign(&self) -> bool {
        self.generation != sys::generation()
    }
}

/// An opaque C object. Each is backed by a box.
pub(crate) trait Object {
    /// The name used in messages.
    const NAME: &'static str;
    fn stamp(&self) -> &Stamp;
}

/// Gives a handle to the host.
pub(crate) fn give<T: Object>(object: T) -> *mut T {
    give_boxed(Box::new(object))
}

/// The same for one that is in a box already.
pub(crate) fn give_boxed<T: Object>(object: Box<T>) -> *mut T {
    Box::into_raw(object)
}

/// Borrows a handle of the host for the call.
///
/// # Safety
/// `pointer` is NULL or came from [`give`] and has not been freed.
pub(crate) unsafe fn lend<'a, T: Object>(pointer: *const T) -> Result<&'a T> {
    // SAFETY: promised by the caller.
    match unsafe { pointer.as_ref() } {
        None => Err(Error::argument(format!("{} is NULL", T::NAME))),
        Some(object) if object.stamp().is_foreign() => Err(forked(T::NAME)),
        Some(object) => Ok(object),
    }
}

/// Takes a handle back and drops it. A handle of before a fork is left alone: what is behind it belongs to the parent.
///
/// # Safety
/// As for [`lend`]; the handle is gone afterwards.
pub(crate) unsafe fn free<T: Object>(pointer: *mut T) {
    // SAFETY: promised by the caller.
    unsafe { free_with(pointer, drop) }
}

/// The same with a way of dropping of its own.
///
/// # Safety
/// As for [`free`].
pub(crate) unsafe fn free_with<T: Object>(pointer: *mut T, drop: impl FnOnce(Box<T>)) {
    guard((), || {
        // SAFETY: promised by the caller.
        if unsafe { lend(pointer) }.is_ok() {
            // SAFETY: a living handle came from `give`, and this is its last use.
            drop(unsafe { Box::from_raw(pointer) });
        }
    });
}

pub(crate) fn forked(what: &str) -> Error {
    Error::new(
        ErrorCode::Forked,
        format!("this {what} was made before a fork(); make a new one in the child"),
    )
}

/// Runs the body of an exported function; a panic becomes `on_panic` and never crosses the ABI.
pub(crate) fn guard<R>(on_panic: R, body: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(on_panic)
}

/// The number of a result without a value.
pub(crate) fn code(result: Result<()>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => error.code().number(),
    }
}

/// The error that a caught panic stands for.
pub(crate) fn internal() -> Error {
    Error::new(ErrorCode::Internal, "libqueen panicked; please report it")
}

/// Its code.
pub(crate) fn panicked() -> i32 {
    ErrorCode::Internal.number()
}

/// Text of the library's own, NUL-terminated; NULs inside become spaces.
pub(crate) fn c_text(text: impl Into<String>) -> CString {
    CString::new(text.into()).unwrap_or_else(|error| {
        let bytes: Vec<u8> = error
            .into_vec()
            .into_iter()
            .map(|byte| if byte == 0 { b' ' } else { byte })
            .collect();
        CString::new(bytes).unwrap_or_default()
    })
}

/// NUL-terminated text that the library keeps. Unlike a `CString` it may have room left, which is cheaper to make.
pub(crate) struct Text(Vec<u8>);

impl Text {
    pub(crate) fn new(text: String) -> Text {
        let mut bytes = text.into_bytes();
        if bytes.contains(&0) {
            bytes
                .iter_mut()
                .filter(|byte| **byte == 0)
                .for_each(|byte| *byte = b' ');
        }
        bytes.push(0);
        Text(bytes)
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        // SAFETY: made with one NUL, at the end.
        unsafe { CStr::from_bytes_with_nul_unchecked(&self.0) }
    }
}

/// Gives NUL-terminated text away; [`free_text`] takes it back.
pub(crate) fn give_text(text: String) -> (*const c_char, usize) {
    let text = c_text(text);
    let len = text.as_bytes().len();
    (text.into_raw().cast_const(), len)
}

/// # Safety
/// `text` is NULL or came from [`give_text`] and has not been freed.
pub(crate) unsafe fn free_text(text: *const c_char) {
    if !text.is_null() {
        // SAFETY: promised by the caller.
        drop(unsafe { CString::from_raw(text.cast_mut()) });
    }
}

/// Lends NUL-terminated text, with its length if the host asks for it.
///
/// # Safety
/// `len` is NULL or may be written.
pub(crate) unsafe fn lend_text(text: Option<&CStr>, len: *mut usize) -> *const c_char {
    // SAFETY: promised by the caller.
    if let Some(len) = unsafe { len.as_mut() } {
        *len = text.map_or(0, |text| text.count_bytes());
    }
    text.map_or(std::ptr::null(), CStr::as_ptr)
}

/// A NUL-terminated argument, NULL where there is none.
///
/// # Safety
/// `pointer` is NULL or NUL-terminated and readable for the call.
pub(crate) unsafe fn optional_text<'a>(
    what: &str,
    pointer: *const c_char,
) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: promised by the caller.
    let bytes = unsafe { CStr::from_ptr(pointer) };
    bytes
        .to_str()
        .map(Some)
        .map_err(|error| bad_utf8(what, error.valid_up_to()))
}

/// A NUL-terminated argument that must be there.
///
/// # Safety
/// As for [`optional_text`].
pub(crate) unsafe fn required_text<'a>(what: &str, pointer: *const c_char) -> Result<&'a str> {
    // SAFETY: promised by the caller.
    unsafe { optional_text(what, pointer) }?
        .ok_or_else(|| Error::argument(format!("{what} is NULL")))
}

/// A body as pointer and length: (NULL, 0) is empty, `QUEEN_NUL_TERMINATED` means measure it.
///
/// # Safety
/// `len` bytes at `pointer` are readable for the call, or it is NUL-terminated if `len` says so.
pub(crate) unsafe fn body<'a>(what: &str, pointer: *const c_char, len: usize) -> Result<&'a str> {
    if len == usize::MAX {
        // SAFETY: promised by the caller.
        return unsafe { required_text(what, pointer) };
    }
    if pointer.is_null() {
        return match len {
            0 => Ok(""),
            len => Err(Error::argument(format!(
                "{what} is NULL with a length of {len}"
            ))),
        };
    }
    if isize::try_from(len).is_err() {
        return Err(Error::argument(format!(
            "{what} has the impossible length {len}"
        )));
    }
    // SAFETY: not NULL, of a possible length, and readable as promised by the caller.
    let bytes = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), len) };
    std::str::from_utf8(bytes).map_err(|error| bad_utf8(what, error.valid_up_to()))
}

/// An options object: NULL or an empty text stand for `{}`.
pub(crate) fn or_empty(options: Option<&str>) -> &str {
    options
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .unwrap_or("{}")
}

fn bad_utf8(what: &str, at: usize) -> Error {
    Error::new(
        ErrorCode::InvalidUtf8,
        format!("{what} is not valid UTF-8 at byte {at}"),
    )
}

/// A waiting time in milliseconds: 0 does not wait, negative is an error.
pub(crate) fn timeout(millis: i64) -> Result<Duration> {
    u64::try_from(millis)
        .map(Duration::from_millis)
        .map_err(|_| Error::argument(format!("timeout_ms is {millis}; it must not be negative")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_and_texts() {
        // SAFETY: every pointer is NULL or points at a literal.
        unsafe {
            assert_eq!(body("x", std::ptr::null(), 0).ok(), Some(""));
            assert_eq!(
                body("x", std::ptr::null(), 3).err().map(|e| e.code()),
                Some(ErrorCode::InvalidArgument)
            );
            assert_eq!(
                body("x", std::ptr::null(), usize::MAX)
                    .err()
                    .map(|e| e.code()),
                Some(ErrorCode::InvalidArgument)
            );
            assert_eq!(body("x", c"abc".as_ptr(), usize::MAX).ok(), Some("abc"));
            assert_eq!(body("x", c"abc".as_ptr(), 2).ok(), Some("ab"));
            assert!(body("x", c"abc".as_ptr(), usize::MAX - 1).is_err());
            let bad = body("x", c"a\xff".as_ptr(), 2).err();
            assert_eq!(bad.as_ref().map(|e| e.code()), Some(ErrorCode::InvalidUtf8));
            assert!(bad.is_some_and(|e| e.message().contains("byte 1")));
        }
        assert_eq!(c_text("a\0b").to_bytes(), b"a b");
        assert!(timeout(-1).is_err_and(|error| error.message().contains("-1")));
    }
}
