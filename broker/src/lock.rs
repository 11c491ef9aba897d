//! One owner per store file.
//!
//! The lock is a POSIX record lock on `<file>.lock`. A separate file, because SQLite opens and closes the
//! store itself and a process loses all its POSIX locks on a file when it closes any descriptor of it.
//! A record lock, because it tells who holds it and dies with its process.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Flock, FlockType, fcntl_getlk};

use crate::error::OpenError;

/// The lock of an open store. Dropping it gives the store free.
#[derive(Debug)]
pub(crate) struct StoreLock {
    /// Kept open: closing it releases the lock. The file itself stays, for removing it would race with the next owner.
    _file: File,
}

impl StoreLock {
    /// Takes the lock of `store` or says who has it.
    pub(crate) fn take(store: &Path) -> Result<StoreLock, OpenError> {
        let path = lock_path(store);
        let io = |source: io::Error| OpenError::Io {
            path: path.clone(),
            source,
        };
        // std opens with O_CLOEXEC, so a child process never inherits the descriptor.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io)?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(StoreLock { _file: file }),
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN) => Err(OpenError::Locked {
                path: store.to_path_buf(),
                owner_pid: owner(&file),
            }),
            Err(errno) => Err(io(errno.into())),
        }
    }
}

/// The process that holds the lock on `file`, if it is still there.
fn owner(file: &File) -> Option<u32> {
    let held = fcntl_getlk(file, &Flock::from(FlockType::WriteLock)).ok()??;
    u32::try_from(held.pid?.as_raw_nonzero().get()).ok()
}

fn lock_path(store: &Path) -> PathBuf {
    let mut name = OsString::from(store);
    name.push(".lock");
    PathBuf::from(name)
}
