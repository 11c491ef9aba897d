//! What only the operating system can tell or do: forks, signal masks, the end of the process, quiet socket writes.
//! With `ffi` the only place that may use `unsafe`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::thread;

static GENERATION: AtomicU32 = AtomicU32::new(0);
static EXITING: AtomicBool = AtomicBool::new(false);
static INSTALLED: AtomicBool = AtomicBool::new(false);

extern "C" fn count_fork() {
    GENERATION.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn note_exit() {
    EXITING.store(true, Ordering::SeqCst);
}

/// Registers the fork counter and the exit note, once per process. Children inherit both.
pub fn install() {
    if !INSTALLED.swap(true, Ordering::SeqCst) {
        // SAFETY: both functions are valid for the whole life of the process (the library is never unloaded)
        // and only touch atomics.
        unsafe {
            libc::pthread_atfork(None, None, Some(count_fork));
            libc::atexit(note_exit);
        }
    }
}

/// How many forks lie between the first process that used the library and this one.
pub fn generation() -> u32 {
    GENERATION.load(Ordering::SeqCst)
}

/// Whether the process has begun to exit: from then on no callback may start.
pub fn is_exiting() -> bool {
    EXITING.load(Ordering::SeqCst)
}

/// Process-wide state that starts anew in every forked child. What a parent had is leaked there on purpose: its
/// locks may be held by threads that do not exist in the child.
pub struct PerGeneration<T: 'static>(AtomicPtr<(u32, T)>);

impl<T: Send + Sync> PerGeneration<T> {
    /// An empty place.
    pub const fn new() -> Self {
        PerGeneration(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// The value of this process, made by `make` on first use.
    pub fn get(&self, make: impl FnOnce() -> T) -> &'static T {
        let current = self.0.load(Ordering::Acquire);
        // SAFETY: a non-null pointer came from Box::leak below and is never freed.
        if let Some((generation, value)) = unsafe { current.as_ref() }
            && *generation == self::generation()
        {
            return value;
        }
        let fresh: *mut (u32, T) = Box::leak(Box::new((generation(), make())));
        match self
            .0
            .compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire)
        {
            // SAFETY: just leaked, and nobody frees it.
            Ok(_) => unsafe { &(*fresh).1 },
            // The loser's value stays leaked too; that happens once at most.
            // SAFETY: like every published pointer, `winner` is never freed.
            Err(winner) => unsafe { &(*winner).1 },
        }
    }
}

/// Runs `f` with every signal blocked that a thread of the library must never take, so that threads started by `f`
/// inherit the mask from their first instruction on. Faults and the profiler's signal stay open.
pub fn with_signals_blocked<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: both sets are initialised by sigfillset / pthread_sigmask before they are read, and
    // pthread_sigmask touches the calling thread alone.
    unsafe {
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut blocked);
        for open in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGPROF,
        ] {
            libc::sigdelset(&mut blocked, open);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &blocked, &mut before);
        let result = f();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        result
    }
}

/// Starts a named thread with the library's signal mask.
pub fn spawn_thread(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    with_signals_blocked(|| thread::Builder::new().name(name.to_owned()).spawn(body))
}

/// Writes one byte to a socket without ever raising SIGPIPE. Whether it was taken does not matter to the caller.
pub fn send_byte(socket: BorrowedFd<'_>) {
    let byte = 1u8;
    // SAFETY: the descriptor is borrowed for the call and the buffer is one readable byte.
    unsafe {
        libc::send(
            socket.as_raw_fd(),
            (&raw const byte).cast(),
            1,
            libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocked_mask() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("SigBlk:"))
            .unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    }

    #[test]
    fn threads_block_signals_but_faults() {
        let before = blocked_mask();
        let (tx, rx) = std::sync::mpsc::channel();
        spawn_thread("queen-test", move || tx.send(blocked_mask()).unwrap()).unwrap();
        let mask = rx.recv().unwrap();
        let bit = |signal: i32| mask & (1 << (signal - 1)) != 0;
        assert!(
            bit(libc::SIGPIPE) && bit(libc::SIGINT) && bit(libc::SIGTERM) && bit(libc::SIGCHLD)
        );
        assert!(!bit(libc::SIGSEGV) && !bit(libc::SIGPROF) && !bit(libc::SIGTRAP));
        assert_eq!(blocked_mask(), before, "the caller's mask is restored");
    }
}
