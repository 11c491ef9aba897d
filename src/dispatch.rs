//! Threads that run code of the host: one dispatcher per client for callbacks, and handler threads per consumer.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::runtime::{Life, Living, Role, lock, set_role};
use crate::sys;

/// A callback, ready to run.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);

/// A queue of jobs and the threads that run them, made on demand and gone when idle.
pub(crate) struct Workers {
    name: &'static str,
    role: Role,
    most: usize,
    idle: Duration,
    inner: Mutex<Inner>,
    work: Condvar,
}

#[derive(Default)]
struct Inner {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    sealed: bool,
}

impl Workers {
    /// The dispatcher of a client: one thread, jobs in order.
    pub(crate) fn dispatcher(client: u64) -> Arc<Workers> {
        Workers::new(
            "queen-callback",
            Role::Callbacks {
                client,
                consumer: 0,
            },
            1,
            IDLE,
        )
    }

    /// The handler threads of a consumer.
    pub(crate) fn handlers(client: u64, consumer: u64, most: usize) -> Arc<Workers> {
        Workers::new(
            "queen-handler",
            Role::Callbacks { client, consumer },
            most,
            IDLE,
        )
    }

    /// A thread that runs short jobs of the library in order.
    pub(crate) fn timer() -> Arc<Workers> {
        Workers::new("queen-timer", Role::Library, 1, IDLE)
    }

    /// For callbacks of no client: threads that are gone right after their work.
    pub(crate) fn without_client() -> Arc<Workers> {
        Workers::new(
            "queen-callback",
            Role::Callbacks {
                client: 0,
                consumer: 0,
            },
            1,
            Duration::ZERO,
        )
    }

    fn new(name: &'static str, role: Role, most: usize, idle: Duration) -> Arc<Workers> {
        Arc::new(Workers {
            name,
            role,
            most,
            idle,
            inner: Mutex::default(),
            work: Condvar::new(),
        })
    }

    /// Queues a job. It comes back when the workers are sealed, or when no thread could be started to run it.
    pub(crate) fn run(self: &Arc<Self>, job: Job) -> Result<(), Job> {
        let mut inner = lock(&self.inner);
        if inner.sealed {
            return Err(job);
        }
        inner.jobs.push_back(job);
        if inner.idle >= inner.jobs.len() || inner.threads >= self.most {
            let awaited = inner.idle > 0;
            drop(inner);
            // It costs a system call, even with nobody there.
            if awaited {
                self.work.notify_one();
            }
            return Ok(());
        }
        inner.threads += 1;
        drop(inner);
        let workers = self.clone();
        let living = Living::new(Life::Inner);
        let started = sys::spawn_thread(self.name, move || {
            let _living = living;
            set_role(workers.role);
            workers.work();
        });
        if started.is_err() {
            let mut inner = lock(&self.inner);
            inner.threads -= 1;
            if inner.threads == 0
                && let Some(job) = inner.jobs.pop_back()
            {
                return Err(job);
            }
        }
        Ok(())
    }

    fn work(&self) {
        let mut inner = lock(&self.inner);
        loop {
            if let Some(job) = inner.jobs.pop_front() {
                drop(inner);
                if sys::is_exiting() {
                    // The process ends: nothing of the host's may run or be freed any more.
                    std::mem::forget(job);
                } else {
                    // A panicking job has told its own waiters; the thread goes on with the next.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
                inner = lock(&self.inner);
                continue;
            }
            if inner.sealed {
                break;
            }
            inner.idle += 1;
            let (guard, waited) = self
                .work
                .wait_timeout(inner, self.idle)
                .unwrap_or_else(PoisonError::into_inner);
            inner = guard;
            inner.idle -= 1;
            if waited.timed_out() && inner.jobs.is_empty() {
                break;
            }
        }
        inner.threads -= 1;
    }

    /// Completes when every job queued so far has run. For the dispatcher, which has one thread.
    pub(crate) async fn drained(self: &Arc<Self>) {
        if lock(&self.inner).threads == 0 {
            return;
        }
        let (done, wait) = oneshot::channel();
        let marker = Box::new(move || {
            let _ = done.send(());
        });
        if self.run(marker).is_ok() {
            let _ = wait.await;
        }
    }

    pub(crate) fn is_sealed(&self) -> bool {
        lock(&self.inner).sealed
    }

    /// Takes no further jobs; the threads end after those that are queued.
    pub(crate) fn seal(&self) {
        lock(&self.inner).sealed = true;
        self.work.notify_all();
    }
}

/// Runs callbacks of a client one at a time, in order, on a thread of their own.
#[derive(Clone)]
pub struct Dispatcher(Arc<Workers>);

impl Dispatcher {
    pub(crate) fn new(workers: &Arc<Workers>) -> Dispatcher {
        Dispatcher(workers.clone())
    }

    /// Queues a callback; it comes back when the client is closed.
    pub fn run(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), Box<dyn FnOnce() + Send>> {
        self.0.run(job)
    }

    /// For callbacks that belong to no client: each runs on a thread of its own.
    pub fn without_client() -> Dispatcher {
        Dispatcher(Workers::without_client())
    }

    /// Whether the client is closed, so that no callback will run any more.
    pub fn is_closed(&self) -> bool {
        self.0.is_sealed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn the_dispatcher_keeps_order_and_survives_panics() {
        let workers = Workers::dispatcher(1);
        let (tx, rx) = mpsc::channel();
        for n in 0..100 {
            let tx = tx.clone();
            let job: Job = Box::new(move || {
                tx.send(n).unwrap();
                if n == 50 {
                    std::panic::resume_unwind(Box::new(()));
                }
            });
            assert!(workers.run(job).is_ok());
        }
        let seen: Vec<i32> = (0..100)
            .map(|_| rx.recv_timeout(Duration::from_secs(10)).unwrap())
            .collect();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        workers.seal();
        assert!(workers.run(Box::new(|| ())).is_err());
    }

    #[test]
    fn handlers_run_at_once_up_to_the_bound() {
        let workers = Workers::handlers(1, 1, 3);
        let barrier = Arc::new(std::sync::Barrier::new(3));
        let (tx, rx) = mpsc::channel();
        for _ in 0..3 {
            let (barrier, tx) = (barrier.clone(), tx.clone());
            assert!(
                workers
                    .run(Box::new(move || {
                        barrier.wait();
                        tx.send(()).unwrap();
                    }))
                    .is_ok()
            );
        }
        for _ in 0..3 {
            rx.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        workers.seal();
    }
}
