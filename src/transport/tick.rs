//! A timer that ends before most others while requests are sent. One that is set for an earlier time than all others
//! wakes the thread that waits for the first, even if it is that thread that sets it: two system calls for nothing, with
//! every request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Shorter than what a request waits for.
const PERIOD: Duration = Duration::from_millis(500);

#[derive(Clone, Default)]
pub(super) struct Tick(Arc<State>);

#[derive(Default)]
struct State {
    runs: AtomicBool,
    used: AtomicBool,
}

impl Tick {
    /// Lets the timer run for a while. On the runtime.
    pub(super) fn run(&self) {
        if !self.0.used.load(Ordering::Relaxed) {
            self.0.used.store(true, Ordering::Relaxed);
        }
        if self.0.runs.load(Ordering::Relaxed) || self.0.runs.swap(true, Ordering::Relaxed) {
            return;
        }
        let state = self.0.clone();
        tokio::spawn(async move {
            while state.used.swap(false, Ordering::Relaxed) {
                tokio::time::sleep(PERIOD).await;
            }
            state.runs.store(false, Ordering::Relaxed);
        });
    }
}
