//! What the host gives along with a callback.

use std::ffi::c_void;

use crate::sys;

/// Frees what the host gave along with a callback. Runs once: after the last call of the callback has returned, or, when
/// the registration fails, on the calling thread before that call returns. It does not run when the process exits first,
/// nor in a forked child. May be NULL.
pub type queen_user_data_free = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// Owns the host's pointer and frees it once.
pub(super) struct UserData {
    pointer: *mut c_void,
    free: queen_user_data_free,
    generation: u32,
}

// SAFETY: the header demands of the host that its pointer may be used on the library's threads.
unsafe impl Send for UserData {}
// SAFETY: as above; handlers of one consumer run on several threads at once.
unsafe impl Sync for UserData {}

impl UserData {
    pub(super) fn new(pointer: *mut c_void, free: queen_user_data_free) -> UserData {
        UserData {
            pointer,
            free,
            generation: sys::generation(),
        }
    }

    pub(super) fn get(&self) -> *mut c_void {
        self.pointer
    }
}

impl Drop for UserData {
    fn drop(&mut self) {
        if let Some(free) = self.free
            && !sys::is_exiting()
            && self.generation == sys::generation()
        {
            // SAFETY: the host promised that its function takes its pointer; this runs once.
            unsafe { free(self.pointer) }
        }
    }
}
