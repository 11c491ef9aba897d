//! One owner per store file.
//!
//! The lock is a POSIX record lock on `<file>.lock`. A separate file, because SQLite opens and closes the
//! store itself and a process loses all its POSIX locks on a file when it closes any descriptor of it.
//! A record lock, because it tells who holds it and dies with its process.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, fcntl_getlk};

use crate::error::OpenError;

/// The stores that this process has open or looks at, each with the process that wrote it down: a forked child inherits
/// the list and none of the locks.
static CLAIMS: Mutex<Vec<(PathBuf, u32)>> = Mutex::new(Vec::new());

/// One use of a store within this process. Record locks do not stop their own process, and to open and close a file a
/// second time would release them.
#[derive(Debug)]
pub(crate) struct Claim(PathBuf);

impl Claim {
    pub(crate) fn new(store: &Path) -> Result<Claim, OpenError> {
        let claim = (store.to_path_buf(), std::process::id());
        if let Some(mut claims) = claims() {
            if claims.contains(&claim) {
                return Err(OpenError::Locked {
                    path: claim.0,
                    owner_pid: Some(claim.1),
                });
            }
            claims.push(claim.clone());
        }
        Ok(Claim(claim.0))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let own = std::process::id();
        if let Some(mut claims) = claims() {
            claims.retain(|(path, pid)| *path != self.0 || *pid != own);
        }
    }
}

/// The list. In a forked child it may be held for ever, by a thread that only the parent has; the child then does
/// without.
fn claims() -> Option<MutexGuard<'static, Vec<(PathBuf, u32)>>> {
    for _ in 0..1000 {
        match CLAIMS.try_lock() {
            Ok(claims) => return Some(claims),
            Err(TryLockError::Poisoned(claims)) => return Some(claims.into_inner()),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}

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
            Err(Errno::ACCESS | Errno::AGAIN) => Err(locked(store, &file)),
            Err(errno) => Err(io(errno.into())),
        }
    }

    /// The same for someone who only looks: makes no lock file where there is none, and where it must not be written
    /// is content to see that nobody has the lock.
    pub(crate) fn take_existing(store: &Path) -> Result<Option<StoreLock>, OpenError> {
        let path = lock_path(store);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(_) => StoreLock::take(store).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(_) => match File::open(&path) {
                Ok(file) if owner(&file).is_some() => Err(locked(store, &file)),
                Ok(_) => Ok(None),
                Err(source) => Err(OpenError::Io { path, source }),
            },
        }
    }
}

/// The process that has a store open, if there is one and the system tells it.
pub(crate) fn owner_of(store: &Path) -> Option<u32> {
    owner(&File::open(lock_path(store)).ok()?)
}

fn locked(store: &Path, file: &File) -> OpenError {
    OpenError::Locked {
        path: store.to_path_buf(),
        owner_pid: owner(file),
    }
}

/// The process that holds the lock on `file`, if it is still there.
fn owner(file: &File) -> Option<u32> {
    let held = fcntl_getlk(file, &Flock::from(FlockType::WriteLock)).ok()??;
    u32::try_from(held.pid?.as_raw_nonzero().get()).ok()
}

pub(crate) fn lock_path(store: &Path) -> PathBuf {
    crate::store::beside(store, ".lock")
}
