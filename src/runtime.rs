//! The one background runtime of the process, what counts as alive, and which role a thread plays.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Error, ErrorCode, Result};
use crate::sys::{self, PerGeneration};

/// State of the process. A forked child starts with a fresh one.
struct Process {
    runtime: Mutex<Option<Runtime>>,
    /// Handles that the host holds. There is one for each call, and nobody waits for them.
    handles: AtomicUsize,
    /// Clients whose shared state exists, also those that close in the background, and threads of callbacks.
    inner: Mutex<usize>,
    changed: Condvar,
}

static PROCESS: PerGeneration<Process> = PerGeneration::new();

/// The state of this process.
fn process() -> &'static Process {
    PROCESS.get(|| Process {
        runtime: Mutex::new(None),
        handles: AtomicUsize::new(0),
        inner: Mutex::new(0),
        changed: Condvar::new(),
    })
}

/// Locks a mutex whose holder may have panicked: no lock of the crate guards a broken invariant across a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the background runtime has been started.
pub(crate) fn is_running() -> bool {
    lock(&process().runtime).is_some()
}

/// The background runtime, started on first use.
pub(crate) fn handle() -> Result<Handle> {
    let mut runtime = lock(&process().runtime);
    if let Some(runtime) = runtime.as_ref() {
        return Ok(runtime.handle().clone());
    }
    // The threads of the host have work as well, and a request that changes threads waits for each to wake.
    let workers = std::thread::available_parallelism().map_or(1, |n| (n.get() / 2).clamp(1, 4));
    let started = sys::with_signals_blocked(|| {
        Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_name("queen-io")
            .enable_all()
            .on_thread_start(|| set_role(Role::Library))
            .build()
    })
    .map_err(|error| {
        Error::new(
            ErrorCode::Internal,
            format!("the background threads cannot be started: {error}"),
        )
    })?;
    let handle = started.handle().clone();
    *runtime = Some(started);
    Ok(handle)
}

/// What is counted while it lives, so that [`shutdown`] knows what it waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Life {
    /// A handle of the host: shutdown refuses.
    Handle,
    /// Something of the library's own: shutdown waits.
    Inner,
}

/// One entry in the count of living things that [`shutdown`] looks at; dropping it takes the entry out. A language
/// binding keeps one beside every handle that it gives out.
#[derive(Debug)]
pub struct Living(Life, u32);

impl Living {
    /// Counts one more.
    pub fn new(life: Life) -> Living {
        match life {
            Life::Handle => _ = process().handles.fetch_add(1, Ordering::SeqCst),
            Life::Inner => *lock(&process().inner) += 1,
        }
        Living(life, sys::generation())
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        if self.1 != sys::generation() {
            return;
        }
        let process = process();
        match self.0 {
            Life::Handle => _ = process.handles.fetch_sub(1, Ordering::SeqCst),
            Life::Inner => {
                *lock(&process.inner) -= 1;
                process.changed.notify_all();
            }
        }
    }
}

/// Stops the background threads and waits until each of them is gone.
///
/// Fails with [`ErrorCode::Busy`] while the host holds handles, with [`ErrorCode::Timeout`] when clients that close
/// in the background, callbacks or threads outlast `timeout`, and with [`ErrorCode::WouldDeadlock`] on a thread of the
/// library. A later client starts everything anew.
pub fn shutdown(timeout: Duration) -> Result<()> {
    if role() != Role::Outside {
        return Err(Error::new(
            ErrorCode::WouldDeadlock,
            "queen_shutdown cannot run on a thread of the library",
        ));
    }
    let process = process();
    let deadline = Instant::now() + timeout;
    let mut inner = lock(&process.inner);
    loop {
        let handles = process.handles.load(Ordering::SeqCst);
        if handles > 0 {
            return Err(Error::new(
                ErrorCode::Busy,
                format!("{handles} handles are still alive; free them first"),
            ));
        }
        if *inner == 0 {
            break;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::new(
                ErrorCode::Timeout,
                format!("{inner} clients, consumers, brokers or callback threads are still ending"),
            ));
        }
        inner = process
            .changed
            .wait_timeout(inner, left)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
    drop(inner);
    let runtime = lock(&process.runtime).take();
    if let Some(runtime) = runtime {
        runtime.shutdown_timeout(
            deadline
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(10)),
        );
    }
    Ok(())
}

/// What a thread is to the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A thread of the host.
    Outside,
    /// A thread of the library that runs no code of the host.
    Library,
    /// A thread that runs callbacks of this client, and handlers of this consumer if the number is not 0.
    Callbacks { client: u64, consumer: u64 },
}

thread_local! {
    static ROLE: Cell<Role> = const { Cell::new(Role::Outside) };
}

pub(crate) fn set_role(role: Role) {
    ROLE.set(role);
}

pub(crate) fn role() -> Role {
    ROLE.get()
}
